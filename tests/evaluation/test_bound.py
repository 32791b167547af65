"""The bound of models whose exact likelihood is known, and the traps that numbers in bits per dimension fell into."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from diffrep.codes.posteriors import Deterministic
from diffrep.codes.priors import StandardNormal
from diffrep.data.batches import batches
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, high_noise, likelihood
from diffrep.denoising.noise import LearnedGamma, LinearGamma
from diffrep.denoising.parameterisations import X
from diffrep.errors import UserError
from diffrep.evaluation.bound import active_units, bound, effective_rank, in_steps
from diffrep.models.autoencoder import Autoencoder
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.loss_weights import Constant
from diffrep.models.step_terms import denoise, rate
from diffrep.nets.encoders import MLPEncoder
from diffrep.shapes import Batch, Draws
from oracles import (
    ExactConditional,
    ExactNetwork,
    ExactPosterior,
    Gaussian,
    LinearGaussian,
    bound_nats,
    examples_of,
    gaussian_kl,
)

pytestmark = pytest.mark.slow

ENDS = (-9.0, 5.0)


def vdm(gaussian: Gaussian, noise=None, levels=None, answer: float = 1.0) -> DiffusionModel:
    denoiser = Denoiser(ExactNetwork(gaussian, answer), noise or LinearGamma(*ENDS), X())
    return DiffusionModel(
        gaussian.shape, None, denoiser, Objective({"diffusion": denoise}, levels or Levels(likelihood))
    )


def vae_vdm(truth: LinearGaussian, beta: float = 1.0) -> DiffusionModel:
    return DiffusionModel(
        truth.data.shape,
        None,
        Denoiser(ExactConditional(truth), LinearGamma(*ENDS), X()),
        Objective({"diffusion": denoise, "rate": rate}, Levels(likelihood), {"rate": Constant(beta)}),
        Coding(ExactPosterior(truth), StandardNormal(truth.weights.shape[1])),
    )


def gap_to(total: torch.Tensor, log_prob: torch.Tensor) -> tuple[float, float]:
    """Mean of bound + log p(x), and its standard error over the examples."""
    gap = total.double() + log_prob
    return float(gap.mean()), float(gap.std()) / math.sqrt(len(gap))


@pytest.mark.parametrize("noise", [LinearGamma(*ENDS), LearnedGamma(*ENDS, hidden=16)], ids=["linear", "learned"])
def test_the_bound_of_an_ideal_vdm(noise):
    """On Gaussian data the exact denoiser's bound is -log p(x) and what its two ends cost, known in closed form."""
    gaussian = Gaussian.of(2, 2)
    x = gaussian.draw(8000)
    said = bound(vdm(gaussian, noise), examples_of(x.numpy()), levels=32, batch=4000)
    gap, error = gap_to(said.total, gaussian.log_prob(x.float().double()))
    assert abs(gap - bound_nats(gaussian, *ENDS)) < 3 * error
    assert error < 0.05  # nats; the diffusion loss alone is ten and more


def test_a_wrong_denoiser_pays():
    """The bound of a denoiser that shrinks every answer by a tenth lies above that of the ideal one."""
    gaussian = Gaussian.of(4)
    examples = examples_of(gaussian.draw(1000).numpy())
    right, wrong = (bound(vdm(gaussian, answer=answer), examples).summary() for answer in (1.0, 0.9))
    assert wrong["bits_per_dim"] > right["bits_per_dim"] + 5 * right["bits_per_dim_se"]


def test_the_bound_of_a_linear_gaussian_vae_vdm():
    """With the exact posterior and the exact denoiser given the code, rate and all, the bound is -log p(x) again.

    The ends cost what they cost for x - W z, whose place W z enters the noise end: alpha_1^2 |W z|^2 / 2."""
    truth = LinearGaussian.of(6, 3)
    x = truth.data.draw(8000)
    said = bound(vae_vdm(truth), examples_of(x.numpy()), levels=32, batch=4000)
    gap, error = gap_to(said.total, truth.data.log_prob(x.float().double()))
    placed = float((truth.weights**2).sum()) / (1 + math.exp(ENDS[1])) / 2
    assert abs(gap - bound_nats(truth.given_code, *ENDS) - placed) < 3 * error
    assert error < 0.05
    assert said.rate_nats == pytest.approx(truth.information, abs=0.15)  # E KL(q(z|x) || p(z)) = I(x; z) here
    assert said.active_units == 3


def test_the_code_carries_its_information():
    """I-MMSE: the denoising losses without and with the code differ by I(x; z) nats, level by level and in all."""
    truth = LinearGaussian.of(6, 3)
    model, x = vae_vdm(truth), truth.data.draw(4000).float()
    batch = Batch(x, torch.arange(len(x)), draws=Draws.of(0))
    gap = model.denoising_by_level(batch, 8, with_code=False).mean(1)
    batch = Batch(x, torch.arange(len(x)), draws=Draws.of(0))  # the same levels and noise
    gap = (gap - model.denoising_by_level(batch, 8).mean(1)).double()
    lost = (
        truth.information
        - float(0.5 * torch.log1p((truth.weights**2).sum(0) / (truth.noise**2 + math.exp(ENDS[0]))).sum())
        + float(0.5 * torch.log1p((truth.weights**2).sum(0) / (truth.noise**2 + math.exp(ENDS[1]))).sum())
    )
    assert abs(float(gap.mean()) - (truth.information - lost)) < 3 * float(gap.std()) / math.sqrt(len(gap))
    assert lost < 0.1 * truth.information


def test_each_level_is_that_level():
    """Column k is the loss of the k-th of `levels` equal stretches of log-SNR, from clean to noisy: its integral
    1/2 log((1 + SNR v) / (1 + SNR' v)) over the stretch, times the number of stretches."""
    gaussian, levels = Gaussian.of(3), 5
    x = gaussian.draw(20_000).float()
    nats = vdm(gaussian).denoising_by_level(Batch(x, torch.arange(len(x)), draws=Draws.of(0)), levels).double()
    snr = torch.exp(-torch.linspace(*ENDS, levels + 1, dtype=torch.float64))[:, None] * gaussian.spectrum[0]
    exact = levels * torch.log1p(snr).sum(1).diff().neg() / 2
    assert ((nats.mean(0) - exact).abs() < 4 * nats.std(0) / math.sqrt(len(x))).all()


def test_the_weight_of_the_rate_never_enters_the_bound():
    """Trap 1: training with beta = 10,000 changes the loss and leaves rate and bits/dim as they are."""
    truth = LinearGaussian.of(6, 3)
    examples = examples_of(truth.data.draw(100).numpy())
    plain, dear = (bound(vae_vdm(truth, beta), examples) for beta in (1.0, 1e4))
    assert plain.summary() == dear.summary() and plain.rate_nats == dear.rate_nats
    mean, spread = truth.posterior[0] @ truth.data.draw(100)[0], truth.posterior[1]
    kl = gaussian_kl(mean, (spread**2).diag(), torch.zeros(3).double(), torch.eye(3).double())
    assert float(plain.parts["rate"][0]) == pytest.approx(float(kl), rel=1e-5)
    batch = examples.batch(torch.arange(100), Draws.of(0))
    priced = vae_vdm(truth, 1e4).loss(batch)["rate"]
    torch.testing.assert_close(priced, 1e4 * plain.parts["rate"], rtol=1e-4, atol=1e-2)


def test_the_level_of_detail_never_enters_the_bound():
    """A model trained on high noise alone is measured at weight one like any other."""
    gaussian = Gaussian.of(4)
    examples = examples_of(gaussian.draw(200).numpy())
    one = bound(vdm(gaussian), examples).summary()
    assert one == bound(vdm(gaussian, levels=Levels(high_noise, proposal=high_noise)), examples).summary()


def test_every_example_counts_once():
    """Trap 5: the last batch is as small as it comes and none is dropped; so 7 examples in batches of 3 are 7 bounds,
    and the prior term, which has no noise in it, is each example's own."""
    gaussian = Gaussian.of(4)
    x = gaussian.draw(7)
    examples = examples_of(x.numpy())
    said = bound(vdm(gaussian), examples, levels=2, batch=3)
    assert said.total.shape == (7,)
    seen = torch.cat([part.index for part in batches(examples, 3, 0, torch.device("cpu"))])
    assert torch.equal(seen, torch.arange(7))
    whole = bound(vdm(gaussian), examples, levels=2, batch=7)
    torch.testing.assert_close(said.parts["prior"], whole.parts["prior"])
    progress = []
    bound(vdm(gaussian), examples, levels=2, batch=3, progress=progress.append)
    assert progress == [3, 3, 1]


def test_batches_do_not_share_their_noise():
    """The same examples in the next batch meet other random numbers, or the error bar would be too small."""
    gaussian = Gaussian.of(4)
    said = bound(vdm(gaussian), examples_of(gaussian.draw(5).repeat(2, 1).numpy()), batch=5)
    assert not torch.isclose(said.total[:5], said.total[5:]).any()


def test_the_size_of_a_batch_is_only_noise():
    """Other random numbers, the same bound: two sizes differ by no more than their estimates do."""
    gaussian = Gaussian.of(4)
    x = gaussian.draw(2000)
    examples = examples_of(x.numpy())
    one, other = (bound(vdm(gaussian), examples, 8, batch=size).total.double() for size in (2000, 130))
    gap = one - other
    assert abs(float(gap.mean())) < 3 * float(gap.std()) / math.sqrt(len(gap))
    few = examples_of(x[:40].numpy())
    first, again, seeded = (bound(vdm(gaussian), few, 8, batch=13, seed=seed).total for seed in (0, 0, 1))
    assert torch.equal(first, again)  # the same call says the same number
    assert not torch.equal(first, seeded)


def test_summary_adds_up():
    """Bits/dim is the sum of its parts; the standard error is that of a mean of N totals, over D ln 2."""
    gaussian = Gaussian.of(2, 3)
    said = bound(vdm(gaussian), examples_of(gaussian.draw(50).numpy()))
    summary = said.summary()
    parts = sum(summary[name] for name in ("diffusion", "prior", "reconstruction", "rate"))
    assert summary["bits_per_dim"] == pytest.approx(parts, rel=1e-6)
    nats = sum(part.double() for part in said.parts.values()).numpy()
    assert summary["bits_per_dim"] == pytest.approx(nats.mean() / (6 * math.log(2)), rel=1e-6)
    assert summary["bits_per_dim_se"] == pytest.approx(nats.std(ddof=1) / math.sqrt(50) / (6 * math.log(2)), rel=1e-5)
    assert summary["rate"] == 0 and said.active_units is None


class Blind(nn.Module):
    """A network that knows nothing but where its examples are: it answers 0."""

    def __init__(self):
        super().__init__()
        self.answer = nn.Parameter(torch.zeros(()))

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
        return self.answer * x_t


@pytest.mark.parametrize("bins", [2, 17, 256])
@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 5)])
def test_bits_know_the_levels_and_the_shape(bins, shape):
    """Trap 8: nothing assumes 8 bits. With the answer 0 the diffusion loss of x is 1/2 |x|^2 (SNR_0 - SNR_1), since
    eps - eps_hat = -(alpha / sigma) x: exact for each example, and divided by its own D ln 2."""
    raw = np.random.default_rng(0).integers(0, bins, (40, *shape))
    gamma_0 = 2.0
    model = DiffusionModel(
        shape,
        bins,
        Denoiser(Blind(), LinearGamma(gamma_0, 5.0), X()),
        Objective({"diffusion": denoise}, Levels(likelihood)),
    )
    said = bound(model, examples_of(raw, bins), levels=64)
    x = (2 * torch.from_numpy(raw).double() + 1) / bins - 1
    exact = 0.5 * (x**2).flatten(1).sum(1) * (math.exp(-gamma_0) - math.exp(-5.0))
    torch.testing.assert_close(said.parts["diffusion"].double(), exact, rtol=0.02, atol=1e-4)
    dims = math.prod(shape)
    assert said.summary()["diffusion"] == pytest.approx(float(exact.mean()) / dims / math.log(2), rel=0.02)
    # grey levels: the reconstruction is a log-probability, so never negative, and about log2(bins) in so much noise
    assert (said.parts["reconstruction"] >= 0).all()
    assert 0.2 * math.log2(bins) < said.summary()["reconstruction"] < 1.8 * math.log2(bins)


def test_a_point_has_no_bound():
    """A deterministic code says infinitely much, so there is no bound, and the model says so; nor at other times."""
    truth = LinearGaussian.of(6, 3)
    model = vae_vdm(truth)
    model.posterior = Deterministic(MLPEncoder((6,), width=4), 3)
    with pytest.raises(UserError, match="deterministic code has no finite rate"):
        bound(model, examples_of(truth.data.draw(3).numpy()))


def test_an_empty_split_is_named():
    """A share of zero for the test split, say."""
    with pytest.raises(UserError, match="empty"):
        bound(vdm(Gaussian.of(4)), examples_of(np.zeros((0, 4))))


def test_the_mode_comes_back():
    """Measuring happens in evaluation mode and leaves the model as it was."""
    model = vdm(Gaussian.of(4)).train()
    modes = []
    bound(model, examples_of(np.zeros((2, 4))), progress=lambda done: modes.append(model.training))
    assert modes == [False] and model.training


def test_active_units():
    """A unit is active where the variance of its mean over the examples exceeds 0.01."""
    means = torch.randn(1000, 3) * torch.tensor([1.0, 0.05, 0.2])
    assert active_units(means) == 2
    assert active_units(means[:1]) == 0


def test_effective_rank():
    """Equal orthogonal columns have the rank of their number, copies of one have one, and a scale changes nothing."""
    equal, one = torch.eye(8)[:, :5], torch.randn(100, 1) @ torch.tensor([[1.0, -2.0, 3.0]])
    assert effective_rank(equal) == pytest.approx(5, abs=1e-4) and effective_rank(one) == pytest.approx(1, abs=1e-4)
    normal = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    assert 5.95 < effective_rank(normal) < 6 and effective_rank(7 * normal) == pytest.approx(effective_rank(normal))


def test_a_linear_gaussian_vae():
    """The VAE's bound with the exact posterior and the exact mean W z is -log p(x): reconstruction and rate alone."""
    truth = LinearGaussian.of(6, 3, noise=0.3)

    class Mean(nn.Module):
        def forward(self, z):
            return z @ truth.weights.float().T

    model = Autoencoder((6,), None, ExactPosterior(truth), Mean(), StandardNormal(3))
    model.log_spread.data.fill_(math.log(0.3))
    x = truth.data.draw(2000)
    said = bound(model, examples_of(x.numpy()), levels=8)
    gap, error = gap_to(said.total, truth.data.log_prob(x.float().double()))
    assert abs(gap) < 3 * error and error < 0.03


def test_terms_of_the_loss_are_those_of_the_bound():
    """The mean of the trained diffusion loss is the mean of the reported one: one integral, two ways to draw it."""
    gaussian = Gaussian.of(4)
    x = gaussian.draw(20_000).float()
    model = vdm(gaussian)
    trained = model.loss(Batch(x, torch.arange(len(x)), draws=Draws.of(0)))["diffusion"].detach().double()
    reported = model.bound(Batch(x, torch.arange(len(x)), draws=Draws.of(1)), levels=1)["diffusion"].double()
    error = math.hypot(float(trained.std()), float(reported.std())) / math.sqrt(len(x))
    assert abs(float(trained.mean() - reported.mean())) < 3.5 * error


def chain_nats(gaussian: Gaussian, steps: int) -> float:
    """The T-step diffusion loss of the ideal denoiser: the mean error of eps along an axis of variance v is
    SNR v / (1 + SNR v), summed over the steps with 1/2 expm1(gamma_t - gamma_s); nats."""
    gamma = torch.linspace(*ENDS, steps + 1).double()
    snr = (-gamma[1:]).exp()[:, None] * gaussian.spectrum[0]
    return float((0.5 * torch.expm1(gamma.diff()) * (snr / (1 + snr)).sum(1)).sum())


@pytest.mark.parametrize("steps", [3, 20, 5000])
def test_the_bound_of_a_finite_chain(steps):
    """Its diffusion loss is the sum over the chain, exact for an ideal denoiser, and nears the continuous one as T
    grows; the other parts stay. Every code is seen with its own z."""
    gaussian = Gaussian.of(4)
    examples, model = examples_of(gaussian.draw(3000).numpy()), vdm(gaussian)
    whole = bound(model, examples, levels=16, batch=3000)
    chain = in_steps(model, whole, examples, steps, batch=3000)
    nats = chain.parts["diffusion"].double()
    error = float(nats.std()) / math.sqrt(len(nats))
    assert abs(float(nats.mean()) - chain_nats(gaussian, steps)) < 3.5 * error
    assert all(torch.equal(chain.parts[name], whole.parts[name]) for name in ("prior", "reconstruction"))
    gap = chain.summary()["bits_per_dim"] - whole.summary()["bits_per_dim"]
    assert abs(gap) < 0.02 if steps == 5000 else gap > 0.02  # few steps are a worse bound


def test_a_finite_chain_with_a_code_is_told_it():
    """The ideal denoiser given z has the loss of x - W z, whatever z is; the rate is that of the continuous bound."""
    truth = LinearGaussian.of(6, 3)
    examples, model = examples_of(truth.data.draw(3000).numpy()), vae_vdm(truth)
    whole = bound(model, examples, levels=4, batch=3000)
    chain = in_steps(model, whole, examples, 20, batch=3000)
    nats = chain.parts["diffusion"].double()
    expected = chain_nats(truth.given_code, 20)
    assert abs(float(nats.mean()) - expected) < 3.5 * float(nats.std()) / math.sqrt(len(nats))
    assert expected < chain_nats(truth.data, 20) - 1
    assert torch.equal(chain.parts["rate"], whole.parts["rate"])
