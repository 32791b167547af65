"""How often each stated error covers the truth: 200 data sets of known truth for each, truth within 1.96 errors.

    python benchmarks/coverage.py [--repetitions 200] [--only NAME ...] [--out results/coverage.json]

Prints one line for each number as it is known; docs/reliability.md holds the table. Rows that the file has of other
numbers stay.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import record
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from diffrep.codes.priors import StandardNormal
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import LinearGamma
from diffrep.denoising.parameterisations import X
from diffrep.evaluation.bound import PROTOCOL, bound
from diffrep.evaluation.information import profile
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.step_terms import denoise
from diffrep.probes.few_labels import over_draws
from diffrep.probes.linear import explained
from diffrep.probes.quality import kernel_distance
from diffrep.probes.result import accuracy
from diffrep.shapes import mean_and_error
from oracles import (
    ExactConditional,
    ExactPosterior,
    LinearCode,
    LinearGaussian,
    bound_nats,
    diffusion_nats,
    entropy,
    examples_of,
)

ENDS, N = (-9.0, 5.0), 200
TRUTH = LinearGaussian.of(6, 3)
CODE = LinearCode(TRUTH.data, *TRUTH.posterior)
Estimate = tuple[float, float, float]  # what was found, its error, the truth


def ideal() -> DiffusionModel:
    """The exact denoisers and the exact code of linear Gaussian data."""
    denoiser = Denoiser(ExactConditional(CODE), LinearGamma(*ENDS), X())
    coding = Coding(ExactPosterior(CODE), StandardNormal(3), drop=0.1)
    return DiffusionModel((6,), None, denoiser, Objective({"denoising": denoise}, Levels(likelihood)), coding)


def data(seed: int):
    return examples_of(TRUTH.data.draw(N, seed).numpy())


def of_bound(seed: int) -> Estimate:
    """The bound of the ideal model: the entropy, what the ends cost given the code, and the mean rate."""
    found = bound(ideal(), data(seed), levels=4, batch=N, seed=seed).summary()
    bits = 6 * math.log(2)
    given = LINEAR_BOUND
    return found["bits_per_dim"] * bits, found["bits_per_dim_se"] * bits, given


def of_rate(seed: int) -> Estimate:
    found = profile(ideal(), data(seed), levels=2, batch=N, seed=seed)
    assert found.rates is not None
    return *mean_and_error(found.rates), CODE.rate


def of_profile(seed: int) -> Estimate:
    found = profile(ideal(), data(seed), levels=8, batch=N, seed=seed)
    truth = diffusion_nats(CODE.data, *ENDS) - diffusion_nats(CODE.given_code, *ENDS)
    return *found.integral(), truth


def of_used_share(seed: int) -> Estimate:
    found = profile(ideal(), data(seed), levels=8, batch=N, seed=seed)
    truth = diffusion_nats(CODE.data, *ENDS) - diffusion_nats(CODE.given_code, *ENDS)
    return *found.used_share(), truth / CODE.rate


def of_accuracy(seed: int) -> Estimate:
    """A classifier that is right with probability 0.8."""
    right = np.random.default_rng(seed).random(N) < 0.8
    found = accuracy(right.astype(int), np.ones(N, int), N, "made", {})
    return found["accuracy"], found["se"], 0.8


def of_r2(seed: int) -> Estimate:
    """Predictions x of y = x + noise of half the deviation of x: R^2 = 1 / (1 + 1/4)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=N)
    return *explained(x + 0.5 * rng.normal(size=N), x), 0.8


def of_few_labels(seed: int) -> Estimate:
    """Twenty draws, each right on its own share of a large test split: the mean over draws."""
    rng = np.random.default_rng(seed)
    shares = np.clip(rng.normal(0.7, 0.05, 20), 0, 1)
    found = over_draws(np.stack([np.arange(2000) < share * 2000 for share in shares]), 10, "made", 1, {})
    half = (found["high"] - found["low"]) / 2  # Student's t, as it is stated
    return found["accuracy"], half / 1.96, 0.7


def of_kernel_distance(seed: int) -> Estimate:
    """Two samples of one distribution, whose distance is zero."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(400, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return *kernel_distance(a, b), 0.0


def _linear_bound() -> float:
    """Entropy of x | z beyond the process's ends, and the rate, by closed forms: E of -log p(x | z) bound + rate."""
    given = CODE.given_code
    shift = LinearGaussian(CODE.weights, 0.0).data.covariance  # of W z, which the noise end still sees
    alpha2 = 1 / (1 + math.exp(ENDS[1]))
    inner = float(entropy(given.covariance)) + bound_nats(given, *ENDS)
    return (
        inner
        + float(alpha2 * (CODE.weights @ CODE.aggregate @ CODE.weights.T).trace() / 2)
        + CODE.rate
        + 0 * float(shift.trace())
    )


LINEAR_BOUND = _linear_bound()
NUMBERS: dict[str, Callable[[int], Estimate]] = {
    "bound (bits/dim)": of_bound,
    "rate (nats)": of_rate,
    "information profile, integral (nats)": of_profile,
    "used share of the rate": of_used_share,
    "accuracy of a probe": of_accuracy,
    "R^2 of a regression": of_r2,
    "few labels, interval over draws": of_few_labels,
    "kernel distance": of_kernel_distance,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="these numbers alone")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(asked.out.read_text())["rows"] if asked.out and asked.out.exists() else {}
    print("| number | covered by 1.96 errors | mean of (estimate - truth) / error |\n|---|---|---|")
    for name, measure in NUMBERS.items():
        if asked.only and not any(word in name for word in asked.only):
            continue
        off = []
        for seed in range(asked.repetitions):
            found, error, truth = measure(seed)
            off.append((found - truth) / error)
        covered, bias = float(np.mean(np.abs(off) < 1.96)), float(np.mean(off))
        print(f"| {name} | {covered:.1%} | {bias:+.2f} |", flush=True)
        rows[name] = {"covered": covered, "bias": bias, "repetitions": asked.repetitions, "examples": N}
        rows[name] |= {"protocol": PROTOCOL} if measure is of_bound else {}
        record.write(asked.out, {**record.about(), "seeds": "0, 1, ... of the repetitions", "rows": rows})


if __name__ == "__main__":
    main()
