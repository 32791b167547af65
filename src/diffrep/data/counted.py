"""Counts of the grey levels of training examples, each made where a model first asks for it."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from diffrep.data.examples import Examples
from diffrep.data.mixture import groups_of, mixture
from diffrep.data.places import GROUPS, places
from diffrep.shapes import Mixture


class GreyLevels:
    """`shapes.Counted` of training examples; latent: the number of latent classes. Continuous data have None of all."""

    def __init__(self, examples: Examples, latent: int):
        self.examples, self.latent = examples, latent

    @cached_property
    def histogram(self) -> Tensor | None:
        return self.examples.histogram()

    @cached_property
    def places(self) -> tuple[Tensor, Tensor] | None:
        return places(self.examples)

    @cached_property
    def mixture(self) -> Mixture | None:
        groups = groups_of(self.examples.shape, self.latent)
        return mixture(self.examples, self.latent, self.places if groups == GROUPS else places(self.examples, groups))
