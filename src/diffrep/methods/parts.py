"""The parts that recipes choose from, built from their sections of the settings for the given data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from diffrep.codes import build as codes
from diffrep.codes.posteriors import Deterministic, Gaussian, Posterior
from diffrep.codes.priors import Prior
from diffrep.config import Settings, chosen
from diffrep.data.views import Hide, Split, View, chain, crop, drop, erase, flip, hidden, jitter, noisy, thinned
from diffrep.denoising import build as denoising
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Density, Levels, coarse_patch, share, uniform
from diffrep.denoising.noise import Noise
from diffrep.denoising.parameterisations import Parameterisation
from diffrep.denoising.start import Start
from diffrep.errors import UserError
from diffrep.kinds import PRIORS, made
from diffrep.models import build as weights
from diffrep.models.loss_weights import Lag, Weight
from diffrep.nets import build as nets
from diffrep.nets.decoders import Decoder
from diffrep.nets.encoders import Encoder
from diffrep.nets.gap import Filled
from diffrep.shapes import Facts

HELD = 12.0  # nats
WIDE, HELD_WIDE = 64, 22.0  # numbers of a wide code, and the nats of one


@dataclass(frozen=True)
class Parts:
    """The parts of a model, each from its section of the settings. A recipe names those that its method has."""

    settings: Settings
    facts: Facts

    @property
    def code_dim(self) -> int:
        """Numbers in a code: those of the settings, or the usual ones for this data."""
        return self.settings.code.size(self.facts.shape)

    @property
    def held(self) -> float:
        """The target rate of methods with a Gaussian code, in nats, where the settings give neither rate nor weight."""
        return HELD_WIDE if self.code_dim >= WIDE else HELD

    def denoiser(self, noise: str, code: bool = False, coarse: bool = False) -> Denoiser:
        """noise: the process of the method's paper, used for "auto". code: whether it gets a code.

        coarse: whether its loss has the detail of `coarse_levels`.
        """
        observed = code and self.settings.decoder.observe_code is not False
        parameterisation = self._parameterisation(observed)
        patch = self._patch(coarse, observed and parameterisation.fuses)
        observation = None
        if observed:
            settings = self.settings.decoder
            observation = denoising.observation(
                settings, self.facts.shape, self._code_dim(code), parameterisation, patch, len(self.facts.covariates)
            )
        network = self._network(parameterisation, code, patch)
        return Denoiser(network, self._noise(noise), parameterisation, observation, self.facts.covariates)

    def filled(self, noise: str) -> Denoiser:
        """A decoder without a code, and a second one that adds the correction from the code."""
        parameterisation = self._parameterisation()
        plain, gap = (self._network(parameterisation, code, self._patch()) for code in (False, True))
        filled = Filled(plain, gap)
        return Denoiser(filled, self._noise(noise), parameterisation, covariates=self.facts.covariates)

    def start(self, code: bool = False) -> Start:
        """p(x_1 | z), from which the chain starts."""
        return denoising.start(self.settings.decoder, self.facts, self._code_dim(code))

    def begin(self) -> Start | None:
        """The distribution of x_1 in sampling: the moments of the data at t = 1, where they are counted."""
        return denoising.matched(self.facts)

    def encoder(self, time: bool = False, **fixed: float) -> Encoder:
        """fixed: what the method sets itself, in place of the settings of the encoder."""
        return nets.encoder(self.settings.encoder, self.facts.shape, time, **fixed)

    def random(self, time: bool = False) -> Posterior:
        """q(z | x), Gaussian, of a fixed rate, or categorical."""
        return codes.random(self.settings.code, self.code_dim, self.encoder(time), self.held, time)

    def gaussian(self) -> Posterior:
        return Gaussian(self.encoder(), self.code_dim)

    def deterministic(self, time: bool = False, **fixed: float) -> Posterior:
        if self.settings.code.kind != "auto":
            raise UserError(
                f"{self.settings.method} has a deterministic code, got code.kind={self.settings.code.kind}; leave it"
                " out, or train vdrl, vae-vdm or vae"
            )
        return Deterministic(self.encoder(time, **fixed), self.code_dim, time)

    def prior(self, own: str = "normal") -> Prior:
        """p(z) of a random code, trained with it; own: the method's prior, used for "auto"."""
        return codes.prior(self.settings.prior, self.settings.code, self.code_dim, own, self._density)

    def prior_after(self, own: str = "normal") -> Prior:
        """p(z) of a deterministic code, fitted after training; own: the prior of the paper, used for "auto"."""
        return codes.prior_after(self.settings.prior, self.code_dim, own, self._density)

    def generator(self) -> nn.Module:
        return nets.generator(self.settings.decoder, self.facts.shape, self.code_dim)

    def head(self, inputs: int | None = None) -> nn.Module:
        """The projection of a code, or of `inputs` numbers, for a loss that compares views."""
        return nets.head(self.code_dim if inputs is None else inputs)

    def critic(self) -> nn.Module:
        return nets.critic(self.settings.decoder, self.facts.shape)

    def view(self) -> View:
        v = self.settings.views
        if len(self.facts.shape) < 3:
            return chain(drop(v.drop), noisy(v.noise))
        mirrored = (flip,) if v.flip else ()
        return chain(crop(v.crop), *mirrored, jitter(v.jitter), erase(v.erase), noisy(v.noise))

    def view_or_split(self) -> tuple[View | None, Split | None]:
        """What an encoder sees of x beside a decoder: a view; of counts a part, of which the decoder makes the rest."""
        share = self.settings.views.thin if self.facts.counts is not None else 0.0
        if not share or self.facts.counts is None:
            return self.view(), None
        return None, thinned(*self.facts.counts, share)

    def hide(self) -> Hide:
        """Patches of about a quarter of the shortest axis; the numbers of a vector one by one."""
        spatial = self.facts.shape[1:]
        return partial(hidden, share=self.settings.views.mask, side=max(1, min(spatial) // 4) if spatial else 1)

    def levels(self, own: Density, name: str | None = None) -> Levels:
        """The level of detail that the settings name, or `name`; the method's own for "auto"."""
        return weights.levels(name or self.settings.detail, self.settings.anneal, own, self.facts.shape)

    def coarse_levels(self) -> Levels:
        """The level of detail of the settings; for "auto" coarse, so that a code holds the class."""
        return self.levels(uniform, chosen(self.settings.detail, "coarse"))

    def gate(self, measure: Density, own: str = "decoder") -> Density | None:
        """The share of the decoder's loss, of weight `measure`, that trains the encoder; None: all of it.

        own: the level of detail that trains the encoder, used for "auto".
        """
        name = chosen(self.settings.code.detail, own)
        return None if name == "decoder" else share(denoising.density(name, self.facts.shape), measure)

    def decoder_weight(self) -> Weight | None:
        return weights.decoder_weight(self.settings.anneal)

    def rate_weight(self, rate: float | None = None, beta: float = 1.0) -> Weight:
        """The weight of the rate; by default the method's own target rate or beta."""
        return weights.rate_weight(self.settings.code, self.code_dim, rate, beta)

    def lag(self, rate: Weight) -> Lag | None:
        """Extra steps of the encoder, where the settings ask for them; rate: the weight of the rate."""
        return weights.lag(self.settings.code, rate)

    def _parameterisation(self, observed: bool = False) -> Parameterisation:
        return denoising.parameterisation(self.settings.predicts, self.settings.decoder, self.facts, observed)

    def _network(self, parameterisation: Parameterisation, code: bool, patch: int) -> Decoder:
        extra = parameterisation.channels * self.facts.shape[0]
        covariates = len(self.facts.covariates)
        return nets.decoder(self.settings.decoder, self.facts.shape, self._code_dim(code), extra, patch, covariates)

    def _patch(self, coarse: bool = False, observed: bool = False) -> int:
        """The side of the decoder's patches: where its loss is coarse, finer things than a patch hardly show.

        observed: whether a generator estimates x from the code, in patches too. 1 where no network has patches.
        """
        perceptron = chosen(self.settings.decoder.kind, "unet") == "mlp"
        if len(self.facts.shape) == 1 or (perceptron and not observed):
            return 1
        coarse = coarse and chosen(self.settings.detail, "coarse") == "coarse"
        side, largest = self.settings.decoder.patch, max(self.facts.shape[1:])
        if side is not None and side > largest:
            raise UserError(
                f"decoder.patch is {side} and the longest side of an example is {largest}: give at most {largest}."
            )
        return side or (coarse_patch(self.facts.shape) if coarse else 1)

    def _density(self, name: str, dim: int) -> Prior:
        return made(PRIORS[name], self.settings.prior, dim)

    def _noise(self, own: str) -> Noise:
        return denoising.noise(self.settings.noise, own, self.facts.bins)

    def _code_dim(self, code: bool) -> int:
        return self.code_dim if code else 0
