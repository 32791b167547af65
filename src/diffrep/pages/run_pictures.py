"""Pictures of a run: reconstructions, samples, interpolations, neighbours and a map of its codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from diffrep.data import Examples, Splits
from diffrep.errors import UserError
from diffrep.evaluation.information import denoisings
from diffrep.measures.evaluate import codes
from diffrep.models.base import Model, evaluating
from diffrep.progress import Progress, silent
from diffrep.shapes import Draws

EXAMPLES, SAMPLES, POINTS, NEIGHBOURS = 8, 32, 7, 5
MAPPED, SEARCHED = 600, 3000  # test examples on the map, training examples among which neighbours are searched
STEPS = 20  # of the sampler, for pictures
LEVELS = 6  # noise levels at which denoisings are shown


@dataclass(frozen=True)
class Map:
    """Two coordinates for each code (N, 2) by each way of drawing, labels (N,) (-1: none), names and the examples."""

    views: dict[str, np.ndarray]
    labels: np.ndarray
    names: list[str]
    x: Tensor


@dataclass
class RunPictures:
    """Pictures of a run; None (with the reason under `why`) where its model cannot make them."""

    x: Tensor  # (E, *shape) test examples, evenly chosen
    covariate: Tensor | None = None  # (E, K), what the decoder gets beside their codes
    reconstructions: Tensor | None = None  # (times, E, *shape)
    samples: Tensor | None = None
    between: list[Tensor] | None = None  # rows of points, both ends of each row the examples themselves
    neighbours: Tensor | None = None  # (NEIGHBOURS, E, *shape), nearest first
    neighbour_labels: list[list[str]] | None = None
    denoised: tuple[Tensor, Tensor, Tensor, Tensor] | None = None  # log-SNR (K,), x_t, without and with, (K, 2, *shape)
    map: Map | None = None
    variances: np.ndarray | None = None  # (d,) of the mean code over the mapped examples
    why: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def draw_all(model: Model, splits: Splits, log_snr: Tensor | None = None, progress: Progress = silent) -> RunPictures:
    """All pictures of a model. log_snr (K,): noise levels of the denoisings; None: no denoisings."""
    test, device = splits.test, next(model.parameters()).device
    index = torch.linspace(0, len(test) - 1, min(EXAMPLES, len(test))).long()
    some = test.batch(index).to(device)
    pictures = RunPictures(some.x, some.covariate)
    steps: list[Callable[[RunPictures, Model, Splits], None]] = [_reconstruct, _sample, _interpolate]
    if model.has_code:
        steps.append(_look_around)
    if log_snr is not None:
        steps.append(partial(_denoise, log_snr))
    with evaluating(model):
        for number, step in enumerate(steps):
            progress("pictures", number, len(steps))
            step(pictures, model, splits)
    progress("pictures", len(steps), len(steps))
    return pictures


def draws_of(model: Model, seed: int = 0) -> Draws:
    """The random generator of a picture."""
    return Draws.of(seed, next(model.parameters()).device)


def mean_code(model: Model, x: Tensor) -> Tensor:
    """(N, d) mean codes; of t = 1/2 where they depend on t."""
    return model.encode(x).mean


def unit(codes: np.ndarray) -> np.ndarray:
    """Codes (N, d) of length one."""
    return codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-12)


def nearest(query: np.ndarray, members: np.ndarray, count: int) -> np.ndarray:
    """(Q, count) positions in `members` of the codes with the smallest angle to each query, nearest first."""
    alike = unit(query) @ unit(members).T
    return np.argsort(-alike, axis=1, kind="stable")[:, :count]


def principal(codes: np.ndarray, count: int = 2) -> np.ndarray:
    """(count, d) directions in which the codes vary most, of length one, each with its largest entry positive."""
    centred = codes - codes.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:count]
    largest = directions[np.arange(len(directions)), np.abs(directions).argmax(1)]
    return directions * np.where(largest < 0, -1.0, 1.0)[:, None]


def flat(codes: np.ndarray, name: str) -> np.ndarray:
    """Codes (N, d) -> (N, 2): by their principal directions ("PCA"), or by t-SNE, which keeps neighbours together."""
    if name == "PCA":
        directions = principal(codes)
        two = (codes - codes.mean(0)) @ directions.T
        return two if two.shape[1] == 2 else np.concatenate([two, np.zeros_like(two)], 1)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(codes) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", max_iter=500, random_state=0).fit_transform(codes.astype(np.float32))


def names_of(examples: Examples, index: Tensor) -> list[str]:
    """The name of each example: its position, its class and its id, where it has one."""
    names = []
    for i in index.tolist():
        label = -1 if examples.labels is None else int(examples.labels[i])
        words = [f"number {i}", *([f"class {class_name(examples, label)}"] if label >= 0 else [])]
        names.append(", ".join([*words, *([examples.ids[i]] if examples.ids else [])]))
    return names


def class_name(examples: Examples, label: int) -> str:
    """The name of a class; empty for an example without one."""
    if label < 0:
        return ""
    return examples.label_names[label] if examples.label_names else str(label)


def _reconstruct(pictures: RunPictures, model: Model, splits: Splits) -> None:
    times = 2 if model.by_steps else 1
    with _reason(pictures, "reconstructions"):
        x, covariate = pictures.x, pictures.covariate
        again = model.reconstruct(x, draws_of(model), steps=STEPS, per_code=times, covariate=covariate)
        pictures.reconstructions = again.unflatten(0, (len(pictures.x), times)).transpose(0, 1)


def _sample(pictures: RunPictures, model: Model, splits: Splits) -> None:
    with _reason(pictures, "samples"):
        pictures.samples = model.sample(SAMPLES, draws_of(model), steps=STEPS)


def _interpolate(pictures: RunPictures, model: Model, splits: Splits) -> None:
    with _reason(pictures, "between"):
        rows = []
        for i in range(0, min(6, len(pictures.x) - 1), 2):
            a, b = pictures.x[i], pictures.x[i + 1]
            of_a = None if pictures.covariate is None else pictures.covariate[i : i + 1]
            made = model.interpolate(a, b, POINTS, steps=STEPS, covariate=of_a)
            rows.append(torch.cat([a[None], made, b[None]]))
        pictures.between = rows


def _look_around(pictures: RunPictures, model: Model, splits: Splits) -> None:
    train, test = splits.train, splits.test
    searched, mapped = train.evenly(SEARCHED), test.evenly(MAPPED)
    train_codes = codes(model, train.subset(searched))
    near = nearest(mean_code(model, pictures.x).cpu().numpy(), train_codes, min(NEIGHBOURS, len(train_codes)))
    index = searched[torch.from_numpy(near)]  # (E, NEIGHBOURS)
    flat_index = index.T.reshape(-1)
    pictures.neighbours = train.batch(flat_index).x.unflatten(0, index.T.shape)
    if train.labels is not None:
        pictures.neighbour_labels = [[class_name(train, int(train.labels[i])) for i in row] for row in index.tolist()]
    own = codes(model, test.subset(mapped))
    pictures.variances = own.var(0, ddof=1)
    views = {"PCA": flat(own, "PCA")}
    if len(own) > 12:
        views["t-SNE"] = flat(own, "t-SNE")
    labels = np.full(len(mapped), -1) if test.labels is None else test.labels[mapped].cpu().numpy()
    pictures.map = Map(views, labels, names_of(test, mapped), test.batch(mapped).x)


def _denoise(log_snr: Tensor, pictures: RunPictures, model: Model, splits: Splits) -> None:
    with _reason(pictures, "denoised"):
        covariate = None if pictures.covariate is None else pictures.covariate[1:3]
        pictures.denoised = (log_snr, *denoisings(model, pictures.x[1:3], log_snr, draws_of(model), covariate))


class _reason:
    """Turns a UserError inside the `with` block into an entry of `why`."""

    def __init__(self, pictures: RunPictures, name: str):
        self.pictures, self.name = pictures, name

    def __enter__(self) -> None: ...

    def __exit__(self, kind, error, trace) -> bool:
        if isinstance(error, UserError):
            self.pictures.why[self.name] = str(error)
            return True
        return False
