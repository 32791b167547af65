"""This machine: versions, device, and the speed of one matrix product."""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from diffrep.training.process import place

PACKAGES = (
    "diffrep",
    "torch",
    "accelerate",
    "numpy",
    "scikit-learn",
    "pyarrow",
    "safetensors",
    "datasets",
    "tensorboard",
)


def examine() -> dict[str, str | float | int | bool]:
    """Versions, device, threads, and float32 GFLOP/s of a 1024 x 1024 product (best of five)."""
    device = place("auto").device
    about: dict[str, str | float | int | bool] = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            about[name] = version(name)
        except PackageNotFoundError:
            about[name] = "not installed (an extra)"
    about["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    about["threads"] = torch.get_num_threads()
    about["matmul_gflops"] = round(matmul_gflops(device), 1)
    return about


def matmul_gflops(device: torch.device, size: int = 1024) -> float:
    """GFLOP/s of one float32 matrix product, the best of five."""
    a = torch.randn(size, size, device=device)
    seconds = []
    for _ in range(6):
        _wait(device)
        began = time.perf_counter()
        a @ a
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds[1:]) / 1e9


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
