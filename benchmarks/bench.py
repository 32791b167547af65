"""What each part costs, held against the best convolution of this machine: make bench, or
python benchmarks/bench.py [METHOD ...] [--shape 1 28 28] [--batch 64] [--device cpu] [--out results/bench.json]

For each method, with the default networks and untrained weights: a training step (loss, gradients, the optimiser), the
codes of a batch, a call of the denoiser, samples of a batch by the default sampler, and the bound of a batch. Seconds,
FLOP/s by torch's counter, and their share of the best convolution, which is measured before and after each method: so
a machine that others use is judged by what it can do at that moment. Then `diffrep --help`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import machine
import record
import torch

from diffrep.config import Settings, override
from diffrep.methods.catalog import METHODS, build
from diffrep.models.base import Model
from diffrep.shapes import Batch, Draws, Facts
from diffrep.training.muon import kernels
from diffrep.training.optimizer import optimizer

METHODS_SHOWN = ("vae-vdm", "drl", "vdm", "soda", "ae", "vae", "simclr")


def parts(model: Model, batch: Callable[[], Batch]) -> Iterator[tuple[str, Callable[[], object], int]]:
    """(what, the work, examples in it)."""
    count, device = len(batch()), next(model.parameters()).device
    rates = Settings().train.model_dump(include={"lr", "beta1", "beta2", "weight_decay"})
    steps = [
        (player, optimizer(groups, kernels(model.modules()), **rates))
        for player, groups in model.players().items()
        if any(groups.values())
    ]

    def step() -> None:
        model.train()
        for player, descent in steps:
            model.zero_grad(set_to_none=True)
            (torch.stack([*model.loss(batch(), player).values()]).sum() / (count * batch().x[0].numel())).backward()
            descent.step()
        model.eval()

    yield "step", step, count
    x = batch().x
    if model.has_code:
        yield "encode", lambda: model.encode(x), count
    if model.diffusion is not None:
        decoder, t = model.diffusion, torch.full((count,), 0.5, device=device)
        z = None if not model.has_code else model.encode(x, 0.5 if model.timed else None).mean
        yield "denoise", lambda: decoder.denoiser(x, t, z), count
    if model.generative is not None and (model.prior is not None or not model.has_code):
        yield "sample", lambda: model.sample(count), count
    if model.generative is not None and model.no_bound is None:
        yield "bound", lambda: model.bound(batch(), 2), count


def measured(method: str, shape: tuple[int, ...], size: int, device: torch.device) -> dict:
    """Each part of a method: seconds, FLOP/s and their share of the best convolution, and memory."""
    facts = Facts(shape, 256, classes=10)
    model = build(override(Settings(), [f"method={method}"]), facts, warn=False).to(device)
    x = torch.rand(size, *shape, device=device) * 2 - 1
    index = torch.arange(size, device=device)

    def batch() -> Batch:
        return Batch(x, index, index % 10, Draws.of(0, device))

    rows, best = {}, machine.peaks(device)["convolution"]
    for what, work, count in parts(model, batch):
        with torch.set_grad_enabled(what == "step"):
            operations, spent = machine.flops(work), machine.seconds(work, device)
            memory = machine.peak_memory(work, device)
        rows[what] = {
            "examples_per_second": count / spent,
            "flops_per_example": operations // count,
            "flops_per_second": operations / spent,
            "peak_mib": memory,
        }
    best = max(best, machine.peaks(device)["convolution"])
    for row in rows.values():
        row["share_of_convolution"] = round(row["flops_per_second"] / best, 3)
    return {"parameters": sum(p.numel() for p in model.parameters()), "convolution": best, **rows}


def start(rounds: int = 5) -> float:
    """Seconds of `diffrep --help`, the median."""
    spent = []
    for _ in range(rounds):
        clock = time.perf_counter()
        subprocess.run([sys.executable, "-m", "diffrep", "--help"], capture_output=True, check=True)
        spent.append(time.perf_counter() - clock)
    return statistics.median(spent)


def table(methods: dict[str, dict]) -> str:
    """Examples a second of each part, and in brackets their share of the best convolution."""
    kinds = ("step", "encode", "denoise", "sample", "bound")
    lines = ["| method | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for method, rows in methods.items():
        cells = [
            f"{rows[kind]['examples_per_second']:,.0f} ({rows[kind]['share_of_convolution']:.0%})"
            if kind in rows
            else ""
            for kind in kinds
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS_SHOWN)
    parser.add_argument("--shape", type=int, nargs="+", default=(1, 28, 28))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if unknown := set(given.methods) - set(METHODS):
        parser.error(f"no such methods: {', '.join(sorted(unknown))}")
    about = record.about(shape=list(given.shape), batch=given.batch, device=given.device)
    methods: dict[str, dict] = {}
    for method in given.methods:
        methods[method] = measured(method, tuple(given.shape), given.batch, torch.device(given.device))
        print(method, {k: v for k, v in methods[method].items() if isinstance(v, dict)}, flush=True)
        record.write(given.out, {**about, "methods": methods})
    help_seconds = start()
    record.write(given.out, {**about, "help_seconds": help_seconds, "methods": methods})
    print(table(methods), f"`diffrep --help`: {help_seconds:.2f} s", sep="\n\n")


if __name__ == "__main__":
    main()
