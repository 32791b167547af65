"""Codes, their priors, and the weights that keep a code alive: closed forms of Gaussians, and toys with known ends."""

import math

import pytest
import torch

from diffrep.codes.posteriors import Code, Deterministic, FixedRate, Gaussian
from diffrep.codes.priors import FittedNormal, StandardNormal
from diffrep.models.code_use import told_apart
from diffrep.models.loss_weights import Constant, FreeBits, TargetRate, WarmUp
from diffrep.nets.encoders import MLPEncoder
from diffrep.shapes import Draws
from oracles import gaussian_kl


@pytest.fixture
def code() -> Code:
    generator = torch.Generator().manual_seed(0)
    return Code(torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator) + 0.2)


def test_log_prob_is_a_diagonal_gaussian(code):
    """By torch's multivariate normal with the covariance spelled out."""
    z = torch.randn(5, 3)
    truth = torch.distributions.MultivariateNormal(code.mean, torch.diag_embed(code.spread**2)).log_prob(z)
    torch.testing.assert_close(code.log_prob(z), truth)


def test_samples_of_a_code_have_its_moments(code):
    """mean + spread * noise; a point is its own sample."""
    z = torch.stack([code.sample(noise) for noise in torch.randn(20_000, 5, 3)])
    assert ((z.mean(0) - code.mean).abs() < 5 * code.spread / math.sqrt(20_000)).all()
    torch.testing.assert_close(z.std(0), code.spread, rtol=0.04, atol=0)
    assert Code(code.mean).sample(torch.randn(5, 3)) is code.mean


@pytest.mark.parametrize("timed", [False, True])
def test_posteriors(timed):
    """d numbers each, in float32; spreads positive and near one half at first; a timed code needs its time and sees it,
    another ignores it."""
    torch.manual_seed(0)
    x, log_snr = torch.randn(200, 6), torch.linspace(-5, 5, 200)
    for kind in (Deterministic, Gaussian):
        posterior = kind(MLPEncoder((6,), width=16, depth=2, time=timed), 4, timed)
        said = posterior(x, log_snr)
        assert said.mean.shape == (200, 4) and said.mean.dtype == torch.float32
        assert (said.spread is None) == posterior.deterministic
        if said.spread is not None:
            assert (said.spread > 0).all() and 0.3 < float(said.spread.mean()) < 0.7
        assert torch.equal(posterior(x, -log_snr).mean, said.mean) != timed


@pytest.mark.parametrize("dim, rate", [(4, 0.5), (32, 12.0), (128, 25.0)])
def test_a_rate_by_construction_is_that_rate(dim, rate):
    """Whatever the encoder says, KL(q(z | x) || N(0, I)) is the rate asked for: by matrices and by our own formula."""
    torch.manual_seed(0)
    posterior = FixedRate(MLPEncoder((6,), width=16, depth=2), dim, rate)
    code = posterior(100 * torch.randn(20, 6))
    torch.testing.assert_close(StandardNormal(dim).rate(code, code.mean), torch.full((20,), rate), rtol=0, atol=1e-5)
    mean, spread = code.mean[0].double(), code.spread[0].double()
    zero, one = torch.zeros(dim).double(), torch.eye(dim).double()
    assert float(gaussian_kl(mean, (spread**2).diag(), zero, one)) == pytest.approx(rate, abs=1e-5)


def test_the_standard_normal_rate_is_the_kl(code):
    """Example by example against the KL of two Gaussians by matrices."""
    rate = StandardNormal(3).rate(code, code.mean)
    for mean, spread, nats in zip(code.mean.double(), code.spread.double(), rate, strict=True):
        truth = gaussian_kl(mean, (spread**2).diag(), torch.zeros(3).double(), torch.eye(3).double())
        assert float(nats) == pytest.approx(float(truth), rel=1e-5)
    standard = Code(torch.zeros(2, 3), torch.ones(2, 3))
    assert StandardNormal(3).rate(standard, standard.mean).tolist() == [0.0, 0.0]


def test_the_fitted_normal_finds_the_distribution():
    """Fitted to draws of a correlated Gaussian it states their density, and its samples have their covariance."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.2, 0.9]])
    mean = torch.tensor([1.0, -2.0, 0.5])
    prior = FittedNormal(3)
    prior.fit(torch.randn(50_000, 3, generator=generator) @ matrix.T + mean)
    truth = torch.distributions.MultivariateNormal(mean, scale_tril=matrix)
    z = truth.sample((200,))
    torch.testing.assert_close(prior.log_prob(z), truth.log_prob(z), rtol=0, atol=0.1)
    drawn = prior.sample(50_000, Draws.of(0))
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.T.cov(), matrix @ matrix.T, rtol=0, atol=0.03)
    again = FittedNormal(3)
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again.log_prob(z), prior.log_prob(z))


def test_the_fitted_normal_takes_what_there_is():
    """One code, fewer codes than numbers, a number that never moves: still a distribution."""
    for codes in (torch.randn(1, 4), torch.randn(3, 4), torch.randn(50, 4) * torch.tensor([1.0, 0.0, 1.0, 1.0])):
        prior = FittedNormal(4)
        prior.fit(codes)
        assert prior.sample(5, Draws.of(0)).isfinite().all() and prior.log_prob(codes).isfinite().all()


def test_the_fitted_normal_rate_is_unbiased(code):
    """Its one-sample estimate at z ~ q has the KL as its mean."""
    prior = FittedNormal(3)
    prior.fit(torch.randn(500, 3, generator=torch.Generator().manual_seed(1)) * 1.5 + 0.3)
    one = Code(code.mean[:1].expand(40_000, -1), code.spread[:1].expand(40_000, -1))
    nats = prior.rate(one, one.sample(torch.randn(40_000, 3))).double()
    covariance = (prior.factor @ prior.factor.T).double()
    truth = gaussian_kl(code.mean[0].double(), (code.spread[0] ** 2).diag().double(), prior.mean.double(), covariance)
    assert abs(float(nats.mean() - truth)) < 4 * float(nats.std()) / 200


def test_a_constant_weight():
    """beta times the term."""
    assert Constant(2.5)(torch.tensor([1.0, 2.0])).tolist() == [2.5, 5.0]


def test_warm_up_rises_in_training_alone():
    """From a quarter to the whole in four steps, and stays; a pass is not a step."""
    weight, term = WarmUp(2.0, 4), torch.ones(3)
    seen = []
    for _ in range(6):
        weight(term)
        seen.append(float(weight(term)[0]))
        weight.advance()
    assert seen == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_free_bits_cost_nothing():
    """Below the free nats (on the batch mean) no gradient and no cost; above, the whole rate."""
    weight = FreeBits(3.0, 2.0)
    for values, factor in [([1.0, 4.0], 0.0), ([3.5, 4.0], 2.0)]:
        term = torch.tensor(values, requires_grad=True)
        priced = weight(term)
        (gradient,) = torch.autograd.grad(priced.sum(), term)
        assert priced.tolist() == [factor * v for v in values] and gradient.tolist() == [factor] * 2


@pytest.mark.slow
@pytest.mark.parametrize("nats", [2.0, 12.0])
def test_the_target_rate_is_reached(nats):
    """A toy whose decoder gains 30 (1 - exp(-rate / 10)) nats from `rate`: gradient descent would take far more or
    far less; under the controller it settles at the target, and the weight at the slope 3 exp(-rate / 10)."""
    torch.manual_seed(0)
    weight, rate = TargetRate(nats), torch.tensor(0.5, requires_grad=True)
    optimiser = torch.optim.Adam([rate], lr=0.05)
    for _ in range(3000):
        loss = -30 * (1 - torch.exp(-rate / 10)) + weight(rate.expand(8)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        weight.advance()
    assert float(rate) == pytest.approx(nats, rel=0.05)
    price = float(weight.eval()(torch.full((1,), nats))) / nats
    assert price == pytest.approx(3 * math.exp(-nats / 10), rel=0.15)


def test_a_target_is_positive():
    """Nothing can be held at no nats."""
    with pytest.raises(ValueError, match="positive"):
        TargetRate(0.0)


@pytest.mark.parametrize("make", [lambda: WarmUp(1.0, 10), lambda: TargetRate(5.0)])
def test_a_weight_is_resumed(make):
    """What a weight has learned lies in its buffers: saved after some steps and loaded, it goes on as it would have."""
    terms = [torch.rand(4) * 10 for _ in range(6)]
    unbroken = make()
    expected = [(unbroken(term), unbroken.advance())[0] for term in terms]
    first, second = make(), make()
    for term in terms[:3]:
        first(term)
        first.advance()
    second.load_state_dict(first.state_dict())
    for term, value in zip(terms[3:], expected[3:], strict=True):
        assert torch.equal(second(term), value)
        second.advance()
    frozen = second.eval().state_dict()
    before = {name: value.clone() for name, value in frozen.items()}
    second(terms[0])
    assert all(torch.equal(before[name], value) for name, value in second.state_dict().items())


def test_what_a_batch_tells_apart_lies_between_nothing_and_its_log():
    """Equal codes tell nothing; codes far apart tell log B, all that B examples can show; NaN is no error."""
    same, apart = torch.zeros(16, 3), 100 * torch.arange(16.0)[:, None].expand(-1, 3)
    for mean, nats in ((same, 0.0), (apart, math.log(16))):
        code = Code(mean, torch.ones(16, 3))
        assert float(told_apart(code, code.sample(torch.randn(16, 3)))) == pytest.approx(nats, abs=1e-5)
    assert told_apart(Code(same.fill_(math.nan), torch.ones(16, 3)), torch.zeros(16, 3)).isnan()
