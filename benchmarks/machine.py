"""What a machine can do at most: FLOP/s of its best matrix product and convolution; and the memory of a process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192)}  # of square matrices
PICTURES = {"cpu": (64, 64, 32), "cuda": (128, 256, 64)}  # batch, channels and side of what is convolved


def flops(work: Callable[[], object]) -> int:
    """Floating point operations of a call, by torch's counter: matrix products and convolutions, a fused one two. One
    call goes first, which may fill tables."""
    work()
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def seconds(work: Callable[[], object], device: torch.device, least: float = 0.5, calls: int = 3) -> float:
    """Of one call, the least of `calls` measurements of `least` / `calls` seconds or more each; one call goes first."""
    work()
    once = _timed(work, 1, device)
    repeats = max(1, round(least / calls / max(once, 1e-9)))
    return min(_timed(work, repeats, device) / repeats for _ in range(calls))


def peaks(device: torch.device, kind: torch.dtype = torch.float32) -> dict[str, float]:
    """FLOP/s of the best matrix product and of the best 3x3 convolution that were tried."""
    best = {"matmul": 0.0, "convolution": 0.0}
    with torch.no_grad():
        for size in SIZES[device.type]:
            a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
            best["matmul"] = max(best["matmul"], 2 * size**3 / seconds(lambda a=a, b=b: a @ b, device))
        batch, channels, side = PICTURES[device.type]
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(batch, channels, side, side, device=device, dtype=kind).to(memory_format=layout)
            w = torch.randn(channels, channels, 3, 3, device=device, dtype=kind).to(memory_format=layout)
            work = lambda x=x, w=w: F.conv2d(x, w, padding=1)  # noqa: E731
            best["convolution"] = max(best["convolution"], flops(work) / seconds(work, device))
    return best


def peak_memory(work: Callable[[], object], device: torch.device) -> float | None:
    """MiB that a call needs at most, beside what was there before; None where the system does not say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        work()
        return (_status("VmHWM") - before) / 2**10
    except OSError:
        return None


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _timed(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.perf_counter()
    for _ in range(repeats):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - clock
