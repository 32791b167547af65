"""A prior that is a variational diffusion model of codes."""

from __future__ import annotations

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code
from diffrep.codes.priors import Prior, descend
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import LinearGamma
from diffrep.denoising.parameterisations import EDM
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.step_terms import denoise, prior, reconstruct
from diffrep.nets.decoders import MLPDecoder
from diffrep.shapes import Batch, CodeVector, Draws, PerExample

STEPS = 50  # of the sampler: its network is small


class LatentDiffusion(Prior):
    """p(z) of a variational diffusion model (Kingma et al. 2021; Vahdat et al. 2021).

    `log_prob` is a lower bound, so the rate is an upper bound and the whole stays a bound. Before training it is N(0,
    I): the network's output is near zero, and the parameterisation adds it to the ideal denoiser of N(0, I). levels:
    noise levels for each code in training; eight times as many in evaluation.

    The random numbers of an estimate depend on the codes alone, so the same codes have the same log_prob.
    """

    def __init__(
        self, dim: int, width: int = 128, blocks: int = 3, levels: int = 4, gamma_0: float = -10.0, gamma_1: float = 5.0
    ):
        super().__init__()
        denoiser = Denoiser(MLPDecoder((dim,), width, blocks), LinearGamma(gamma_0, gamma_1), EDM(1.0))
        bound = Objective({"diffusion": denoise, "prior": prior, "reconstruction": reconstruct}, Levels(likelihood))
        self.model, self.levels = DiffusionModel((dim,), None, denoiser, bound), levels

    def fit(self, codes: Tensor) -> None:
        """codes (N, d) of about unit variance: 800 steps of Adam."""
        descend(self, lambda z: -self.log_prob(z), codes, steps=800, lr=3e-3)

    def sample(self, n: int, draws: Draws) -> CodeVector:
        return self.model.sample(n, draws, steps=STEPS)

    def log_prob(self, z: CodeVector) -> PerExample:
        """(B,) a lower bound on log p(z), nats, at stratified times; differentiable in z and in the denoiser."""
        levels = self.levels if self.training else 8 * self.levels
        repeated = z.repeat(levels, 1)
        seed = int(z.detach().double().sum().view(torch.int64))
        batch = Batch(repeated, torch.arange(len(repeated)), draws=Draws.of(seed, z.device))
        nats = torch.stack([*self.model.loss(batch).values()]).sum(0)
        return -nats.unflatten(0, (levels, len(z))).mean(0)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        """An upper bound on KL(q(z | x) || p(z)), estimated at z."""
        return code.log_prob(z) - self.log_prob(z)
