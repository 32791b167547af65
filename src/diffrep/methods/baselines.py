"""Methods without diffusion, as recipes of the same parts."""

from __future__ import annotations

from typing import Any

from diffrep.codes.posteriors import Posterior
from diffrep.codes.priors import Prior
from diffrep.data.views import noisy
from diffrep.methods.parts import Parts
from diffrep.models import contrast
from diffrep.models.autoencoder import Autoencoder
from diffrep.models.base import Model
from diffrep.models.bootstrap import Bootstrap
from diffrep.models.classifier import Classifier
from diffrep.models.contrastive import Compare, Contrastive
from diffrep.models.encoder_only import Untrained


def ae(parts: Parts) -> Model:
    return _autoencoder(parts, parts.deterministic(), parts.prior_after())


def dae(parts: Parts) -> Model:
    return _autoencoder(parts, parts.deterministic(), parts.prior_after(), view=noisy(0.5))


def mae(parts: Parts) -> Model:
    return _autoencoder(parts, parts.deterministic(), parts.prior_after(), hide=parts.hide())


def vae(parts: Parts, beta: float = 1.0) -> Model:
    return _autoencoder(parts, parts.random(), parts.prior(), weights={"rate": parts.rate_weight(beta=beta)})


def beta_vae(parts: Parts) -> Model:
    return vae(parts, beta=4.0)


def simclr(parts: Parts) -> Model:
    return _contrastive(parts, contrast.simclr)


def vicreg(parts: Parts) -> Model:
    return _contrastive(parts, contrast.vicreg)


def byol(parts: Parts) -> Model:
    facts, head, predictor = parts.facts, parts.head(), parts.head(inputs=64)
    return Bootstrap(facts.shape, facts.bins, parts.deterministic(), head, predictor, parts.view(), decay=0.99)


def classifier(parts: Parts) -> Model:
    return Classifier(parts.facts.shape, parts.facts.bins, parts.deterministic(), parts.facts.classes)


def random_encoder(parts: Parts) -> Model:
    return Untrained(parts.facts.shape, parts.facts.bins, parts.deterministic(dropout=0.0))


def _autoencoder(parts: Parts, posterior: Posterior, prior: Prior, **rest: Any) -> Autoencoder:
    return Autoencoder(parts.facts.shape, parts.facts.bins, posterior, parts.generator(), prior, **rest)


def _contrastive(parts: Parts, compare: Compare) -> Contrastive:
    facts = parts.facts
    return Contrastive(facts.shape, facts.bins, parts.deterministic(), parts.head(), parts.view(), compare)
