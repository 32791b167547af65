"""What diffrep does on a GPU, in parts of less than ten minutes each:

python benchmarks/gpu.py [PART ...] [--cifar10 FOLDER] [--mnist FOLDER] [--runs FOLDER] [--out results/gpu.json]

A part that stands in the file with the same settings is not made again, and a run that was stopped is continued, so the
script can be started as often as need be. Without names all parts are made in turn; --list names them, and those that
need data. --device cpu --tiny goes through all parts in small.

smoke: two steps, codes, samples and the bound of every method. throughput: the training step of a U-Net of 30 million
parameters on pictures of 3x32x32, in float32, bf16 and compiled, against the best matrix product. cifar10-METHOD: ten
minutes of training and measuring, with the bound and probes with 10 to 400 labels of each class.
capacity-CELL: ten minutes of one cell of the capacity study of MNIST at full size.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import machine
import record
import torch

import diffrep
from diffrep.config import Settings, override
from diffrep.errors import UserError
from diffrep.measures.evaluate import evaluate
from diffrep.measures.probe import Probing, probe
from diffrep.methods.catalog import METHODS, build
from diffrep.shapes import Batch, Draws, Facts
from diffrep.testing import SMALL
from diffrep.training.muon import kernels
from diffrep.training.optimizer import optimizer

ON_CIFAR10 = ("drl", "vdrl", "tdrl", "soda", "vae-vdm")
LABELS = (10, 50, 100, 400)  # of each of ten classes: 100, 500, 1,000 and 4,000
LARGE = ("decoder.multipliers=[1,2,2,2]", "decoder.blocks=2", "encoder.kind=wideresnet", "code.dim=128")
PARAMETERS = 30_000_000  # of the decoder whose throughput is measured
DECODERS = {"svdm": (7, 64), "tvdm": (3, 32), "mvdm": (1, 16)}  # blocks and channels of studies/capacity-mnist.toml
PRICES = {"held": "code.rate=12", "1": "code.beta=1.0", "1e4": "code.beta=1e4"}


@dataclass(frozen=True)
class Scene:
    """The device, where data and runs lie, and how much is done: `tiny` is for a test on a CPU."""

    device: str
    runs: Path
    cifar10: Path | str | None
    mnist: Path | str | None
    tiny: bool = False

    @property
    def budget(self) -> str:
        return "64ex" if self.tiny else "8m"  # and two for what is measured

    @property
    def small(self) -> tuple[str, ...]:
        return (*SMALL, "train.batch=32") if self.tiny else ()


def smoke(scene: Scene) -> dict:
    """Two steps of every method on small pictures, then all that it does; "ok", or the error."""
    x = torch.randint(0, 256, (96, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8).numpy()
    y = torch.arange(96).numpy() % 3
    return {method: _tried(lambda name=method: _all_of(name, (x, y), scene.device)) for method in METHODS}


def _all_of(method: str, data: object, device: str) -> None:
    changes = [*SMALL, "train.batch=32", f"train.device={device}"]
    quick = ["prior.kind=normal"] if method == "diffae" else []
    with tempfile.TemporaryDirectory() as folder:
        run = diffrep.train(data, Path(folder) / "run", method, "64ex", [*changes, *quick])
        model, test = run.model, run.splits().test
        batch = test.batch(torch.arange(4), Draws.of(0, run.device)).to(run.device)
        if model.has_code:
            assert model.encode(batch.x).mean.isfinite().all()
        if model.generative is not None:
            if model.prior is not None or not model.has_code:
                assert model.sample(2, steps=2).isfinite().all()
            if model.no_bound is None:
                assert torch.stack([*model.bound(batch, 1).values()]).isfinite().all()
        evaluate(run, levels=1)


def throughput(scene: Scene) -> dict:
    """Examples a second of a training step, in each precision, and its FLOP/s over the best matrix product."""
    device = torch.device(scene.device)
    shape, size = ((3, 8, 8), 4) if scene.tiny else ((3, 32, 32), 256)
    facts, changes = Facts(shape, 256), _wide(scene, shape)
    model = build(override(Settings(), ["method=vdm", *changes]), facts, warn=False).to(device)
    x, index = torch.rand(size, *shape, device=device) * 2 - 1, torch.arange(size, device=device)
    groups = model.players()["model"]
    rates = Settings().train.model_dump(include={"lr", "beta1", "beta2", "weight_decay"})
    descent = optimizer(groups, kernels(model.modules()), **rates)

    def step(precision: torch.dtype | None) -> Callable[[], None]:
        def work() -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast(device.type, precision) if precision is not None else nullcontext():
                terms = model.loss(Batch(x, index, draws=Draws.of(0, device)))
            (torch.stack([*terms.values()]).sum() / x.numel()).backward()
            descent.step()

        return work

    operations, rows = machine.flops(step(None)), {}
    kinds = {"float32": None, "bf16": torch.bfloat16, "bf16, channels last": torch.bfloat16}
    for name in (*kinds, *(() if scene.tiny else ("bf16, compiled",))):
        if "channels last" in name:
            model.to(memory_format=torch.channels_last)
        if "compiled" in name:
            model.compile()
        work = step(kinds.get(name, torch.bfloat16))
        clock = time.perf_counter()
        work()
        first, spent = time.perf_counter() - clock, machine.seconds(work, device, least=3.0)
        best = machine.peaks(device, kinds.get(name, torch.bfloat16) or torch.float32)
        rows[name] = {
            "examples_per_second": size / spent,
            "first_step_seconds": round(first, 2),
            "share_of_matmul": round(operations / spent / best["matmul"], 3),
            "peaks": best,
            "peak_mib": machine.peak_memory(work, device),
        }
    return {"parameters": sum(p.numel() for p in model.parameters()), "batch": size, "shape": list(shape), **rows}


def _wide(scene: Scene, shape: tuple[int, ...]) -> list[str]:
    """Settings of the narrowest decoder with `PARAMETERS` or more."""
    if scene.tiny:
        return list(SMALL)
    for width in range(32, 513, 16):
        changes = ["decoder.multipliers=[1,2,2,2]", "decoder.blocks=2", f"decoder.width={width}"]
        with torch.device("meta"):
            made = build(override(Settings(), ["method=vdm", *changes]), Facts(shape, 256), warn=False)
        if sum(p.numel() for p in made.parameters()) >= PARAMETERS:
            return changes
    raise SystemExit(f"no decoder of up to 512 channels has {PARAMETERS:,} parameters")


def on_cifar10(scene: Scene, method: str) -> dict:
    """Ten minutes of a method, and what its code is worth."""
    changes = scene.small or ("decoder.width=64", "train.precision=bf16", "train.batch=256", *LARGE)
    few = (1, 2) if scene.tiny else LABELS
    run = diffrep.train(
        scene.cifar10,
        scene.runs / f"cifar10-{method}",
        method,
        scene.budget,
        [*changes, f"train.device={scene.device}"],
    )
    found = evaluate(run, levels=1 if scene.tiny else None)
    scores = probe(run, asked=Probing(names=("linear", "knn", "few"), few=few, repeats=3), beside=False)
    return {**_numbers(run), "bound": found["bound"], "probes": found["probes"], "scores": scores["scores"]["code"]}


def capacity(scene: Scene, decoder: str, price: str) -> dict:
    """Ten minutes of a cell of studies/capacity-mnist.toml."""
    blocks, width = DECODERS[decoder]
    full = ("code.dim=128", "decoder.multipliers=[1]", "encoder.kind=conv", "noise.kind=linear", "train.lr=2e-4",
            "train.schedule=constant", f"decoder.blocks={blocks}", f"decoder.width={width}", "encoder.width=32",
            "train.precision=bf16")  # fmt: skip
    changes = [*(scene.small or full), PRICES[price], f"train.device={scene.device}"]
    run = diffrep.train(scene.mnist, scene.runs / f"capacity-{decoder}-{price}", "vae-vdm", scene.budget, changes)
    found = evaluate(run, levels=1 if scene.tiny else None)
    return {**_numbers(run), "bound": found["bound"], "rate_nats": found["rate_nats"], "probes": found["probes"]}


def _numbers(run: diffrep.Run) -> dict:
    result = run.result
    assert result is not None
    return {
        "examples": result.examples,
        "seconds": round(result.seconds, 1),
        "parameters": sum(p.numel() for p in run.model.parameters()),
    }


def parts(scene: Scene) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Name and work of every part whose data are there."""
    yield "smoke", lambda: smoke(scene)
    yield "throughput", lambda: throughput(scene)
    if scene.cifar10 is not None:
        for method in ON_CIFAR10:
            yield f"cifar10-{method}", lambda method=method: on_cifar10(scene, method)
    if scene.mnist is not None:
        for decoder in DECODERS:
            for price in PRICES:
                yield f"capacity-{decoder}-{price}", lambda d=decoder, p=price: capacity(scene, d, p)


def made(scene: Scene, asked: list[str], out: Path | None) -> dict:
    """Every part that is asked for, all where none is; written after each."""
    device = torch.device(scene.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    settings = record.about(device=name, tiny=scene.tiny, budget=scene.budget)
    whole = json.loads(out.read_text()) if out is not None and out.exists() else {}
    if whole.get("settings") != settings["settings"]:
        whole = {}
    work = dict(parts(scene))
    if unknown := set(asked) - set(work):
        raise SystemExit(f"no such parts, or no data for them: {', '.join(sorted(unknown))}; --list names all.")
    whole = {**settings, "parts": whole.get("parts", {})}
    for part in asked or work:
        if part not in whole["parts"]:
            clock = time.monotonic()
            whole["parts"][part] = {**work[part](), "wall_seconds": round(time.monotonic() - clock, 1)}
            record.write(out, whole)
        print(part, json.dumps(whole["parts"][part]), flush=True)
    return whole


def _tried(work: Callable[[], None]) -> str:
    try:
        work()
    except (UserError, RuntimeError, AssertionError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--cifar10", help="what diffrep.load_data takes")
    parser.add_argument("--mnist", help="the same")
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    scene = Scene(given.device, given.runs, given.cifar10, given.mnist, given.tiny)
    if given.list:
        print(*dict(parts(scene)), sep="\n")
        return
    made(scene, given.parts, given.out)


if __name__ == "__main__":
    main()
