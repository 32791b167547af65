"""The explorer of a run, without a browser: codes, neighbours, denoising, interpolations and walks."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from diffrep import runs
from diffrep.amounts import amount
from diffrep.data import Examples, Splits
from diffrep.data.pictures import decode, header
from diffrep.data.stores import Grid
from diffrep.denoising.samplers import SMOOTH
from diffrep.errors import UserError
from diffrep.evaluation.information import profiled
from diffrep.measures.evaluate import codes
from diffrep.models.base import Model
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.pages.run_pictures import MAPPED, SEARCHED, class_name, flat, names_of, nearest, principal
from diffrep.runs.run import Run
from diffrep.shapes import Draws, sum_features

STEPS, EXACT_STEPS = 8, 10  # of a sampler: few, for a quick answer
MOST_BYTES, MOST_PIXELS = 10_000_000, 25_000_000  # of an uploaded picture
SIDE = (720, 560)  # pixels of the map
COLOURS = ("3778bf", "e08214", "2e9a5e", "cf3a3a", "8559b5", "946043", "d964ab", "6f7780", "a8a312", "12a5b8")
NOISES = 32  # draws of noise over which nats at a noise level are averaged
DIRECTIONS = 8  # principal directions for walks


@dataclass(frozen=True)
class Inspection:
    """An example with its code (d,), reconstructions (R, *shape), the exact one, neighbours and their classes."""

    x: Tensor
    code: np.ndarray | None = None
    again: Tensor | None = None
    exact: Tensor | None = None
    neighbours: Tensor | None = None
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AtNoise:
    """x_t, its estimates without and with the code, and the gain of the code in nats for a unit of log-SNR."""

    x_t: Tensor
    without: Tensor | None
    given: Tensor | None
    nats: float | None
    error: float | None


@dataclass(frozen=True)
class Explorer:
    """A run with its data. Results depend on arguments alone, so several people may use it at once."""

    run: Run
    splits: Splits

    @classmethod
    def of(cls, directory: str | Path, device: str = "auto", data: str | None = None) -> Explorer:
        """data: where the run's data lies now, if it has moved. UserError: no run, or its data have changed."""
        run = runs.load(directory, device, data)
        return cls(run, run.splits())

    @property
    def model(self) -> Model:
        return self.run.model

    @property
    def test(self) -> Examples:
        return self.splits.test

    @property
    def decodes(self) -> bool:
        """Can the model make examples?"""
        return self.model.generative is not None

    @property
    def denoises(self) -> bool:
        return self.model.diffusion is not None

    @property
    def diffusion(self) -> DiffusionDecoder:
        """The decoder of a method that removes noise; UserError for another."""
        return self.model.needs_diffusion("it has no noise levels")

    @property
    def log_snr_ends(self) -> tuple[float, float]:
        """Of the noise process, from noise to data."""
        noise = self.diffusion.noise
        low, high = noise.log_snr(torch.tensor([1.0, 0.0], device=self.run.device)).tolist()
        return low, high

    @property
    def pictured(self) -> bool:
        """Are examples pictures that a user could upload?"""
        return len(self.run.card.shape) == 3 and self.run.card.shape[0] in (1, 3, 4)

    def example(self, number: float) -> Tensor:
        """Test example of that number, *shape; UserError where there is none."""
        position = int(number)
        if not 0 <= position < len(self.test):
            raise UserError(f"the test split has examples 0 to {len(self.test) - 1}, got {position}.")
        return self.test.batch(torch.tensor([position])).x[0].to(self.run.device)

    def covariate(self, number: float | None = None) -> Tensor | None:
        """(1, K) what the decoder gets beside the code of a test example; None where it was trained without one.

        number: of the test example; None for one of the visitor's, which gets the most frequent value of the data.
        """
        if number is not None:
            return self.test.batch(torch.tensor([int(number)])).to(self.run.device).covariate
        usual = self.run.card.usual_covariate()
        return None if usual is None else usual.to(self.run.device)

    def called(self, number: float) -> str:
        """The name of a test example."""
        return names_of(self.test, torch.tensor([int(number)]))[0]

    def uploaded(self, path: str | Path) -> Tensor:
        """A picture file, resized and rounded to the run's data: *shape. UserError: too large, broken, or no
        picture."""
        size = os.path.getsize(path)
        if size > MOST_BYTES:
            raise UserError(f"the file has {size:,} bytes, expected at most {MOST_BYTES:,}: make it smaller.")
        encoded = Path(path).read_bytes()
        try:
            mode, (height, width) = header(encoded, "the file")
            if height * width > MOST_PIXELS:
                raise UserError(f"the picture has {width}x{height} pixels, expected at most {MOST_PIXELS:,}.")
            channels = self.run.card.shape[0]
            wanted = "I;16" if mode == "I;16" and channels == 1 else {1: "L", 3: "RGB", 4: "RGBA"}[channels]
            pixels = decode(encoded, "the file", "L" if mode == "F" else wanted)
        except UserError as reason:
            text = re.sub(r"\. Remove it, or pass .*", ".", str(reason))
            raise UserError(text) from reason
        except (ValueError, MemoryError, Image.DecompressionBombError) as reason:
            raise UserError(f"the file cannot be read as a picture ({type(reason).__name__}).") from reason
        return self._fitted(pixels.astype(np.float32) / (65535 if pixels.dtype == np.uint16 else 255))

    def typed(self, text: str) -> Tensor:
        """A row of a table, as numbers with commas or blanks between them, in the units of the data."""
        words = [word for word in re.split(r"[\s,;]+", text.strip()) if word]
        (count,) = self.run.card.shape
        try:
            values = torch.tensor([float(word) for word in words])
        except ValueError as error:
            raise UserError("expected numbers with commas between them.") from error
        if len(values) != count or not bool(values.isfinite().all()):
            raise UserError(f"expected {amount(count, 'finite number')}, got {len(values)}.")
        scaling = self.run.scaling()
        return (values if scaling is None else (values - scaling[0]) / scaling[1]).float().to(self.run.device)

    @torch.no_grad()
    def inspect(
        self, x: Tensor, seed: int = 0, count: int = 4, exactly: bool = True, covariate: Tensor | None = None
    ) -> Inspection:
        """Code, reconstructions and neighbours of one example (*shape). covariate: see `covariate`, here and below."""
        exact = self._exact(x, covariate) if exactly else None
        if not self.model.has_code:
            return Inspection(x, exact=exact)
        code = self.model.encode(x[None]).mean[0].cpu().numpy()
        again = None
        if self.decodes:
            times = count if self.denoises else 1
            draws = self._draws(seed)
            again = self.model.reconstruct(x[None], draws, steps=STEPS, per_code=times, covariate=covariate)
        near = nearest(code[None], self.train_codes, 6)[0]
        index = self.searched[torch.from_numpy(near)]
        train = self.splits.train
        names = [class_name(train, -1 if train.labels is None else int(train.labels[i])) for i in index.tolist()]
        return Inspection(x, code, again, exact, train.batch(index).x, names)

    @torch.no_grad()
    def at_noise(
        self, x: Tensor, log_snr: float, t: float | None = None, seed: int = 0, covariate: Tensor | None = None
    ) -> AtNoise:
        """One example at a noise level; t: of a time-conditioned code, None for that of the noise level."""
        model = self.model
        noise, denoiser = self.diffusion.noise, self.diffusion.given(covariate).denoiser
        many = x.expand(NOISES, *x.shape)
        at = noise.time(torch.full((NOISES,), float(log_snr), device=x.device))
        eps = self._draws(seed).normal(*many.shape)
        x_t = noise.add(many, eps, at)
        alpha, sigma = (float(scale[0]) for scale in noise.scales(at))
        scaled = x_t[0] / (alpha**2 + sigma**2) ** 0.5
        if not model.has_code:
            return AtNoise(scaled, denoiser(x_t[:1], at[:1]).x[0], None, None, None)
        z = model.encode(x[None], (at[:1] if t is None else t) if model.timed else None).mean.expand(NOISES, -1)
        given = denoiser(x_t, at, z)
        try:
            profiled(model)
        except UserError:
            return AtNoise(scaled, None, given.x[0], None, None)
        without = denoiser(x_t, at, None)
        gain = 0.5 * (sum_features((eps - without.eps) ** 2) - sum_features((eps - given.eps) ** 2))
        return AtNoise(scaled, without.x[0], given.x[0], float(gain.mean()), float(gain.std() / NOISES**0.5))

    @torch.no_grad()
    def between(self, a: Tensor, b: Tensor, points: int = 8, seed: int = 0, covariate: Tensor | None = None) -> Tensor:
        """a, decoded points on the line between the codes, and b: (points + 2, *shape)."""
        made = self.model.interpolate(a, b, points, seed, steps=STEPS, covariate=covariate)
        return torch.cat([a[None], made, b[None]])

    @torch.no_grad()
    def walk(
        self,
        x: Tensor,
        direction: np.ndarray,
        reach: float,
        points: int = 7,
        seed: int = 0,
        covariate: Tensor | None = None,
    ) -> Tensor:
        """Decoded from the code of x moved by -reach ... +reach along a direction (d,), all from one noise."""
        shares = torch.linspace(-reach, reach, points, device=x.device)[:, None]
        z = self.model.encode(x[None]).mean + shares * torch.from_numpy(direction).to(x)
        x_1 = self._draws(seed).normal(1, *x.shape).expand(points, *x.shape)
        path = (lambda t: z) if self.model.timed else z
        return self.model.decode(path, points, self._draws(seed), replace(SMOOTH, steps=STEPS), x_1, covariate)

    def direction(self, kind: str, which: str) -> np.ndarray:
        """(d,) one standard deviation of the codes along an axis of the code, a principal direction, or a class."""
        if which not in self.directions(kind):
            raise UserError(f"there is no {kind} {which!r}.")
        place = self.directions(kind).index(which)
        if kind == "number":
            line = np.eye(self.train_codes.shape[1])[place]
        elif kind == "principal direction":
            line = principal(self.train_codes, DIRECTIONS)[place]
        else:
            line = self.towards[place]
        return (line * float((self.train_codes @ line).std())).astype(np.float32)

    def directions(self, kind: str) -> list[str]:
        """The names of the directions of a kind: number, principal direction, class."""
        if kind == "class":
            return list(self.splits.train.label_names or []) if len(self.towards) else []
        dim = self.train_codes.shape[1]
        return [str(i) for i in range(dim if kind == "number" else min(DIRECTIONS, dim, len(self.train_codes)))]

    @torch.no_grad()
    def samples(self, seed: float, count: int = 16) -> Tensor:
        """New examples; the same for the same seed."""
        return self.model.sample(count, self._draws(int(seed)), steps=STEPS)

    @cached_property
    def searched(self) -> Tensor:
        """Positions of the training examples among which neighbours are searched."""
        return self.splits.train.evenly(SEARCHED)

    @cached_property
    def train_codes(self) -> np.ndarray:
        """Their codes (N, d)."""
        return codes(self.model, self.splits.train.subset(self.searched))

    @cached_property
    def towards(self) -> np.ndarray:
        """(K, d) of length one: towards each class, the weights of a linear probe on the codes; none without labels."""
        train = self.splits.train
        none = np.zeros((0, self.train_codes.shape[1]))
        if train.labels is None or not train.label_names:
            return none
        y = train.labels[self.searched].cpu().numpy()
        kept = y >= 0
        if len(np.unique(y[kept])) < 2:
            return none
        from sklearn.linear_model import LogisticRegression

        fit = LogisticRegression(C=0.1, max_iter=300).fit(self.train_codes[kept], y[kept])
        weights = np.concatenate([-fit.coef_, fit.coef_]) if len(fit.classes_) == 2 else fit.coef_
        lines = np.zeros((len(train.label_names), self.train_codes.shape[1]))
        lines[fit.classes_] = weights
        return lines / np.maximum(np.linalg.norm(lines, axis=1, keepdims=True), 1e-12)

    @cached_property
    def mapped(self) -> tuple[Tensor, np.ndarray]:
        """Positions of the test examples on the map, and their places in pixels (N, 2)."""
        index = self.test.evenly(MAPPED)
        own = codes(self.model, self.test.subset(index))
        two = flat(own, "t-SNE" if len(own) > 12 else "PCA")
        low, high = two.min(0), two.max(0)
        room = np.array(SIDE) - 40
        return index, 20 + (two - low) / np.maximum(high - low, 1e-9) * room

    def map(self, chosen: int | None = None) -> Image.Image:
        """The map as a picture, one example marked."""
        index, places = self.mapped
        scale = 2
        picture = Image.new("RGB", (SIDE[0] * scale, SIDE[1] * scale), "#f3f1eb")
        pen = ImageDraw.Draw(picture)
        labels = self.test.labels
        for i, (x, y) in zip(index.tolist(), (places * scale).tolist(), strict=True):
            label = -1 if labels is None else int(labels[i])
            fill = "#3778bf" if label < 0 else f"#{COLOURS[label % len(COLOURS)]}"
            pen.ellipse((x - 8, y - 8, x + 8, y + 8), fill=fill, outline="#ffffff", width=1)
        if chosen is not None and chosen in index.tolist():
            x, y = places[index.tolist().index(chosen)] * scale
            pen.ellipse((x - 16, y - 16, x + 16, y + 16), outline="#1d242c", width=5)
        return picture

    def pointed_at(self, x: float, y: float) -> int:
        """The number of the test example whose dot is nearest to a place on the map, in pixels of its picture."""
        index, places = self.mapped
        return int(index[int(((places * 2 - np.array([x, y])) ** 2).sum(1).argmin())])

    def _exact(self, x: Tensor, covariate: Tensor | None) -> Tensor | None:
        try:
            return self.model.reconstruct_exactly(x[None], EXACT_STEPS, covariate)[0]
        except UserError:
            return None

    def _draws(self, seed: int) -> Draws:
        return Draws.of(seed, self.run.device)

    def _fitted(self, pixels: np.ndarray) -> Tensor:
        """Pixels (C, H, W) in [0, 1], centre-cropped, resized to the run's shape and rounded to its grey levels."""
        _, height, width = self.run.card.shape
        x = torch.from_numpy(pixels)[None]
        share = min(x.shape[2] / height, x.shape[3] / width)
        high, wide = (max(1, round(side * share)) for side in (height, width))
        top, left = (x.shape[2] - high) // 2, (x.shape[3] - wide) // 2
        x = x[:, :, top : top + high, left : left + wide]
        x = torch.nn.functional.interpolate(x, (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)
        bins = self.run.card.bins
        if bins is not None:
            x = Grid(bins).x((x * bins).floor().clamp(max=bins - 1))
        else:
            x = 2 * x - 1
        return x.to(self.run.device)
