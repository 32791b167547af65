"""A lock (`tests/locked.py`): probes, scores, optimisers, weights of losses and the doctor at fixed odd inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from diffrep.budget import Budget
from diffrep.commands import gallery
from diffrep.config import Settings, override
from diffrep.data import load, mixture
from diffrep.denoising import detail, noise
from diffrep.errors import UserError
from diffrep.evaluation import times
from diffrep.models import loss_weights
from diffrep.pages import svg, tiles
from diffrep.probes import (
    appearance,
    disentanglement,
    factors,
    few_labels,
    hypersphere,
    linear,
    mlp,
    neighbours,
    quality,
)
from diffrep.probes.logistic import path
from diffrep.probes.protocols import DRAWN, ONCE, protocols
from diffrep.probes.references import pca, pixels
from diffrep.runs import DataCard, diagnosis
from diffrep.shapes import Draws, mix, piece_seed
from diffrep.training import ema, muon, optimizer
from locked import hold, made, normal, seen_parts, whole
from locked_files import of_page

RNG, HERE = np.random.default_rng, Path("nowhere")


def pictures(*shape: int) -> np.ndarray:
    return ((2 * RNG(0).binomial(8, 0.2, shape) + 1) / 9 - 1).astype(np.float32)


def classes(count: int = 3, n: int = 57, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes of unequal classes, with gaps among the labels."""
    rng = RNG(seed)
    y = np.minimum(rng.geometric(0.45, n) - 1, count - 1)
    x = rng.normal(size=(n, 5)) * [1, 2, 0.3, 5, 1] + 1.2 * y[:, None] * [1, 0, 1, 0, -1]
    return x.astype(np.float32), np.where(np.arange(n) % 9 == 4, -1, y)


def of_probe(name: str) -> dict[str, Any]:
    parts = classes(), classes(n=23, seed=1), classes(n=31, seed=2)
    if name == "regression":
        parts = tuple((x, x @ [1.0, 0.2, 0, 0, 0.5] + RNG(9).normal(size=len(x))) for x, _ in parts)
    chosen = protocols([name], (2, 3) if name in DRAWN else (), 4, 1, name == "regression", ["a", "b", "c"])
    return {key: protocol.measure(*parts) for key, protocol in chosen.items()}


def of_scores() -> dict[str, Any]:
    """Scores of codes and of samples, of sets of unequal sizes."""
    (x, y), (other, of_other) = classes(), classes(n=41, seed=3)
    real, fake = torch.from_numpy(x).double(), torch.from_numpy(other).double() * 1.1
    beside = np.stack([y, x[:, 0] + RNG(1).normal(size=len(x)), RNG(2).integers(0, 4, len(x))], 1)
    kinds = [True, False, True]
    return {
        "frechet": quality.frechet(quality.Moments.of(real), quality.moments([fake[:9], fake[9:]])),
        "kernel": quality.kernel_distance(real, fake, 4, 1),
        "compare": quality.compare(real, fake),
        "precision": quality.precision_recall(real, fake, 2, 7),
        "neighbours": neighbours.nearest(
            x,
            other,
            4,
        ).tolist()[:5],
        "one-sided": disentanglement._one_sidedness(np.abs(x[:9])),
        "mig": disentanglement.mig(x, beside, kinds),
        "sap": disentanglement.sap(x, beside, kinds, 1),
        "tad": disentanglement.tad(x, beside, kinds),
        "alignment": hypersphere.alignment(x[:41], other),
        "uniformity": hypersphere.uniformity(x, 1.5, 20),
        "logistic": [
            one.score(other, np.maximum(of_other, 0))
            for one in path((x, np.maximum(y, 0)), (other, np.maximum(of_other, 0)), (0.1, 1.0))
        ],
        "factors": factors.probe_factors(
            (x, {"k": y, "v": x[:, 0]}),
            (other, {"k": of_other, "v": other[:, 0]}),
            (x[::2], {"k": y[::2], "v": x[::2, 0]}),
        ),
        "appearance": appearance.appearance(pictures(6, 1, 7, 5)),
        "drawn": str([rows.tolist() for rows in few_labels.drawn(y, 2, 3, 1)]),
        "pca": pca([x, other], 3),
        "pixels": pixels(load(pictures(30, 3, 9, 7)).test),
        "spread": neighbours.spread_labels(neighbours.neighbour_graph(x, 4, True), np.eye(len(x))[:, :3]),
        "thinned": linear.thinned((x, y), 11)[1],
        "standard": linear.standardised((x, y), (other, of_other))[1][0],
        "perceptron": seen_parts(made(lambda: mlp.perceptron(5, 3)).state_dict()),
        "even": str(times.even_times(4)),
    }


WEIGHTS: dict[str, Callable[[], loss_weights.Weight]] = {
    "constant": lambda: loss_weights.Constant(0.3),
    "warm": lambda: loss_weights.WarmUp(2.0, 4),
    "cyclic": lambda: loss_weights.Cyclic(2.0, 4),
    "annealed": lambda: loss_weights.Annealed(3.0, 4),
    "free": lambda: loss_weights.FreeBits(5.0, 0.7),
    "target": lambda: loss_weights.TargetRate(5.0),
}


def of_training() -> dict[str, Any]:
    """Optimisers over four steps, with warm-up, decay and clipping; averages of weights; weights of the loss."""
    facts: dict[str, Any] = {}
    for name in ("adamw", "muon"):
        net = made(lambda: nn.Sequential(nn.Linear(5, 20), nn.SiLU(), nn.Linear(20, 17)))
        groups, kernels = {"first": [*net[0].parameters()], "last": [*net[2].parameters()]}, muon.kernels(net.modules())
        own = optimizer.optimizer(
            groups, kernels if name == "muon" else set(), lr=0.02, beta1=0.8, beta2=0.9, weight_decay=0.1
        )
        mean, norms = ema.EMA(net, 0.9), []
        for step in range(4):
            own.zero_grad()
            net(normal(6, 5, seed=step)).square().sum().backward()
            norms.append(optimizer.clip_groups(groups, 1.5))
            own.step()
            mean.update(net, step + 1)
        averaged = {key: value for key, value in vars(mean).items() if isinstance(value, dict)}
        facts[name] = {
            "weights": seen_parts(net.state_dict()),
            "norms": norms,
            "rate": [mean.rate(n) for n in (1, 5, 99)],
            "mean": {key: seen_parts(value) for key, value in averaged.items()},
        }
    facts["rates"] = {
        f"{schedule} {warm}": [
            optimizer.rate_factor(p, warmup=warm, schedule=schedule) for p in (0.0, 0.03, 0.4, 0.9, 1.0)
        ]
        for schedule in ("constant", "cosine")
        for warm in (0.0, 0.1)
    }
    facts["orthogonal"] = muon.orthogonalised([normal(4, 7), normal(7, 4)])
    for name, weight in WEIGHTS.items():
        one, said, term = weight(), [], torch.tensor([1.0, 3.0, 8.0])
        for step in range(6):
            said.append(one(term * (1 + step % 3)))
            one.advance()
        facts[f"weight {name}"] = said
    fading = loss_weights.Fading(detail.coarse(20), detail.fine(20), 3)
    fading.step += 1
    facts["fading"] = fading(noise.VP(0.2, 15.0), torch.tensor([0.13, 0.5, 0.77, 1.0]))
    lags = [loss_weights.Lag(2, until, rate) for until in (0, 3) for rate in (None, one)]
    facts["lag"] = str([lag.turns(step) for lag in lags for step in (0, 2, 3)])
    facts["seeds"] = str([mix(1, "a"), mix("a", 1), piece_seed(3, 4)])
    for text in ("90s", "2m", "20kex", "3epochs", "1.5h"):
        budget = Budget.parse(text)
        try:
            of = budget.of(70)
            facts[f"budget {text}"] = [str(of), of.progress(examples=35, seconds=20.0), of.take(32, examples=190)]
        except UserError as mistake:
            facts[f"budget {text}"] = str(mistake)
    for key, draws in {
        "whole": Draws.of(4),
        "second of two": Draws.of(4, shard=1, shards=2),
        "each": Draws.of_each(4, [7, 2, 9]),
    }.items():
        facts[f"draws {key}"] = [draws.normal(3, 2), draws.uniform(3), draws.stratified(3)]
    return facts


def of_lines() -> dict[str, Any]:
    """What the doctor says of logs of several kinds; and tables and figures of rows of a study."""
    facts: dict[str, Any] = {}
    for name, (rate, told, gap, price) in {
        "alive": (9.0, 2.5, 0.9, 0.1),
        "dead": (0.01, 0.01, 0.0, 3.0),
        "ignored": (8.0, 0.1, 0.001, 0.3),
        "off target": (3.0, 2.0, 0.6, 0.2),
        "dying": (0.6, 0.2, 0.05, 1.0),
    }.items():
        lines = [
            {
                "step": 100 * i,
                "examples": 3200 * i,
                "loss": 2.0,
                "lr": 1e-3,
                "terms": {"rate": rate * price * (1 + i / 50)},
                "norms": {"encoder": 0.01 * rate, "decoder": 0.3},
                "watch": {
                    "rate_nats": rate * (40 - i) / 20 if name == "dying" else rate + i / 99,
                    "information_nats": told,
                    "active_units": 3.0,
                    "code_variance": 0.4,
                    "gap_nats": gap * (1 + (i % 3) / 9),
                    "gap_nats_coarse": gap / 2,
                    "gap_nats_middle": gap / 3,
                    "gap_nats_fine": gap / 6,
                },
            }
            for i in range(1, 40)
        ]
        for changes, target in (((), None), (("code.drop=0.2", "code.beta=2.0"), 8.0)):
            found = diagnosis.diagnose(lines, override(Settings(), ["method=vae-vdm", *changes]), target)
            facts[f"{name} {target}"] = [vars(one) for one in found]
        facts[f"{name} state"] = vars(diagnosis.code_state(lines))
    return facts


def of_pages() -> dict[str, Any]:
    """Examples of each kind and every chart, drawn."""
    facts: dict[str, Any] = {}
    for kind, shape in {
        "picture": (3, 6, 5),
        "volume": (1, 4, 5, 3),
        "signal": (2, 130),
        "vector": (7,),
        "long": (60,),
    }.items():
        x = normal(5, *shape).cumsum(-1) / 3
        drawn, wide, high = tiles.sprites(x, 12)
        facts[kind] = [of_page(str(tiles.sheet(x, 2, "words")), HERE), tiles.limits_of(x[:2], x[3:]), wide, high]
        facts[kind].append(torch.from_numpy(drawn.astype(np.float32)) / 255)
    points, rows = (
        [(0.0, 1.0), (2.0, 0.3), (5.0, 4.0)],
        {"a": {"x": (0.5, 0.1), "y": (0.7, 0.2)}, "b": {"x": (0.2, 0.05)}},
    )
    charts = {
        "stacked": svg.stacked({"a": 1.0, "b": 0.25}, "nats", "words"),
        "curves": svg.curves({"a": points, "b": points[::-1]}, "x", "y", "words", True),
        "profile": svg.profile_curve([-3.0, 0.0, 4.0], [0.1, 2.0, 0.5], [0.1, 0.2, 0.1], "words"),
        "intervals": svg.intervals(rows, "accuracy", "words"),
        "plane": svg.plane({"a": (1.0, 2.0, 0.1), "b": (4.0, 1.0, 0.3)}, "x", "y", "words"),
        "columns": svg.columns([3.0, 1.0, 0.2], [True, True, False], "y", "words"),
        "signed": svg.signed([3.0, -1.0, 0.2], "y", "words"),
        "scatter": svg.scatter(points, [0, 1, -1], ["a", "b", "none"], "words", "key"),
    }
    facts |= {name: of_page(str(chart), HERE) for name, chart in charts.items()}
    ticks = [svg.ticks(low, high, 5) for low, high in ((-0.3, 7.0), (0.0, 0.02), (12.0, 1300.0))]
    words = [svg.number(v, (0.1, 20.0)) for v in (0.0, -1.25, 12345.6)] + [svg.short(v) for v in (0.001, 12.5, 3e6)]
    grids = [torch.from_numpy(gallery.grid(normal(5, c, 6, 5), 3).astype(np.float32)) / 255 for c in (1, 3)]
    return facts | {"ticks": ticks, "numbers": str(words), "padded": svg.padded(1.0, 3.0), "grids": grids}


def of_places() -> dict[str, Any]:
    """What is counted of grey levels: groups of places, latent classes, tables of a small set."""
    parts = load(
        (pictures(60, 1, 6, 5) > -0.7).astype(np.uint8) * RNG(1).integers(0, 9, (60, 1, 6, 5)), levels=9, layout="nchw"
    )
    counted = DataCard.of(parts).facts(parts.train).counted
    mixed = counted.mixture
    return {
        "histogram": counted.histogram,
        "places": counted.places,
        "mixture": None if mixed is None else list(mixed),
        "latent": str([mixture.latent_classes((1, 28, 28), n) for n in (50, 900, 60_000)]),
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{
        f"probe {name}": lambda name=name: of_probe(name) for name in (*ONCE, *DRAWN) if name != "mlp"
    },  # it takes seconds
    "scores": of_scores,
    "training": of_training,
    "lines": of_lines,
    "pages": of_pages,
    "places": of_places,
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_measure_stays(name):
    hold("scores", name, PARTS[name]())


def test_nothing_is_kept_of_what_is_gone():
    whole("scores", PARTS)
