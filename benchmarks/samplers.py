"""How many steps a sampler needs: python benchmarks/samplers.py RUN --features run:CLASSIFIER [-n 1000] [--out FILE]

The Frechet distance of n samples to n validation examples, in the features of another run (those of a classifier see
what matters), for every sampler, spacing and number of steps, beside that of 250 ancestral steps; the mean over seeds,
in each of which all start from the same noise. Its error is that of the jackknife over ten blocks of the samples. The
default is chosen by this: the fewest steps whose distance lies within its error of the 250. What stands in FILE is not
measured again. --picture: the curves.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import record
import torch
from torch import Tensor

from diffrep import runs
from diffrep.denoising.noise import Noise
from diffrep.denoising.samplers import ENOUGH, STEPS, USUAL, Sampling
from diffrep.denoising.spacing import SPACINGS, times
from diffrep.evaluation.feature_networks import public
from diffrep.measures.distance import features_of
from diffrep.models.base import evaluating
from diffrep.probes.quality import Moments, frechet

BLOCKS = 10
COUNTS = (5, 8, 10, 15, 20, 50)
REFERENCE = Sampling("ancestral", 250)
CALLS = {"heun": 2, "pc": 2}  # of the denoiser a step, where it is not one
CHOSEN = (("dpm", "sde-dpm"), ("log-snr",))  # all spacings of these samplers, and these spacings of all


def distance(held: Moments, features: Tensor) -> tuple[float, float]:
    """The Frechet distance of features (N, d) to held-out examples, and its error by the jackknife over blocks."""
    blocks = features.tensor_split(BLOCKS)
    without = [frechet(held, Moments.of(torch.cat([*blocks[:k], *blocks[k + 1 :]]))) for k in range(BLOCKS)]
    mean = sum(without) / BLOCKS
    error = math.sqrt((BLOCKS - 1) / BLOCKS * sum((one - mean) ** 2 for one in without))
    return frechet(held, Moments.of(features)), error


def asked(counts: tuple[int, ...], noise: Noise) -> list[Sampling]:
    """The reference first, then all that is compared with it; no spacing that is another one for this process."""
    rows = [
        Sampling(sampler, steps, spacing)
        for spacing in SPACINGS
        for sampler in STEPS
        for steps in counts
        if spacing in CHOSEN[1] or (sampler in CHOSEN[0] and not _alike(noise, steps, spacing))
    ]
    return [REFERENCE, *rows]


def _alike(noise: Noise, steps: int, spacing: str) -> bool:
    """Are these the times that are even in log-SNR?"""
    one, other = (times(noise, steps, spacing=name) for name in (spacing, "log-snr"))
    return torch.allclose(one, other, atol=1e-4)


def over_seeds(rows: list[dict]) -> list[dict]:
    """For each sampling the mean distance over its seeds, and the error of that mean."""
    made = []
    for sampling in dict.fromkeys((row["sampler"], row["steps"], row["spacing"]) for row in rows):
        own = [row for row in rows if (row["sampler"], row["steps"], row["spacing"]) == sampling]
        error = math.sqrt(sum(row["se"] ** 2 for row in own)) / len(own)
        made.append(own[0] | {"frechet": sum(row["frechet"] for row in own) / len(own), "se": error})
    return made


def table(rows: list[dict]) -> str:
    """Rows of samplers and spacings, columns of steps; distances below those of 250 ancestral steps plus error bold."""
    reference = next(row for row in rows if row["steps"] == REFERENCE.steps)
    counts = sorted({row["steps"] for row in rows} - {REFERENCE.steps})
    lines = ["| sampler | spacing | " + " | ".join(map(str, counts)) + " |", "|---|---|" + "---|" * len(counts)]
    for sampler, spacing in dict.fromkeys((row["sampler"], row["spacing"]) for row in rows if row is not reference):
        cells = []
        for steps in counts:
            own = [row for row in rows if (row["sampler"], row["spacing"], row["steps"]) == (sampler, spacing, steps)]
            text = f"{own[0]['frechet']:.1f}" if own else ""
            cells.append(f"**{text}**" if own and _enough(own[0], reference) else text)
        lines.append(f"| {sampler} | {spacing} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _enough(row: dict, reference: dict) -> bool:
    return row["frechet"] <= reference["frechet"] + math.hypot(row["se"], reference["se"])


def picture(rows: list[dict], floor: float, path: Path) -> None:
    """Distance against steps, a line for each sampler and spacing, beside 250 ancestral steps and training examples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    reference = next(row for row in rows if row["steps"] == REFERENCE.steps)
    marks, colours = (
        dict(zip(SPACINGS, ("-", ":", "--"), strict=True)),
        {name: f"C{k}" for k, name in enumerate(STEPS)},
    )
    for sampler, spacing in dict.fromkeys((row["sampler"], row["spacing"]) for row in rows if row is not reference):
        own = sorted(
            (row["steps"], row["frechet"])
            for row in rows
            if (row["sampler"], row["spacing"]) == (sampler, spacing) and row is not reference
        )
        axes.plot(
            *zip(*own, strict=True),
            marks[spacing],
            marker="o",
            ms=3,
            color=colours[sampler],
            label=f"{sampler}, {spacing}",
        )
    low, high = reference["frechet"] - reference["se"], reference["frechet"] + reference["se"]
    axes.axhspan(low, high, color="#cccccc", zorder=0, label="250 ancestral steps, one error")
    axes.axhline(floor, color="#666666", linestyle=":", linewidth=1, label="training examples")
    axes.set(xscale="log", xlabel="steps", ylabel="Frechet distance to validation examples")
    counts = sorted({row["steps"] for row in rows} - {REFERENCE.steps})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=7, loc="outside right center", frameon=False)
    figure.savefig(path, dpi=120)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--features", default="pixels")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--steps", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run = runs.load(given.run, "cpu")
    judge, splits = features_of(given.features, run), run.splits()

    def read(x: Tensor) -> Tensor:
        return torch.cat([judge.of(some) for some in x.split(100)])

    valid, train = (read(split.batch(split.evenly(given.n)).x) for split in (splits.valid, splits.train))
    moments, settings = Moments.of(valid), run.settings
    about = record.about(
        n=given.n, judged="valid", features=public(given.features), method=settings.method,
        budget=settings.train.budget, decoder_width=settings.decoder.width, run_seed=settings.seed,
        data=Path(run.card.source).name,
    )  # fmt: skip
    before = json.loads(given.out.read_text()) if given.out is not None and given.out.exists() else {}
    rows = before.get("rows", []) if before.get("settings") == about["settings"] else []
    floor = dict(zip(("frechet", "se"), distance(moments, train), strict=True))
    found = {**about, "floor": floor, "default": asdict(USUAL), "enough": ENOUGH, "rows": rows}
    record.write(given.out, found)
    plan = asked(tuple(given.steps), run.model.needs_diffusion("there is no sampler").noise)
    for seed, sampling in itertools.product(given.seeds, plan):
        own = {**asdict(sampling), "seed": seed}
        if any(row | own == row for row in rows):
            continue
        clock = time.process_time()
        with evaluating(run.model):
            x = run.model.sample(given.n, **own)
        seconds = time.process_time() - clock
        value, error = distance(moments, read(x))
        calls = CALLS.get(sampling.sampler, 1) * sampling.steps + 1
        rows.append({**own, "calls": calls, "frechet": value, "se": error, "cpu_seconds": round(seconds, 1)})
        print(f"seed {seed}, {sampling}: {value:.2f} +- {error:.2f}, {seconds:.0f} s", flush=True)
        record.write(given.out, found)
    rows = over_seeds(rows)
    print(f"floor {floor['frechet']:.2f}", table(rows), sep="\n")
    if given.picture is not None:
        picture(rows, floor["frechet"], given.picture)


if __name__ == "__main__":
    main()
