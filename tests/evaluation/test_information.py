"""What a code knows, on linear-Gaussian data where all of it has a closed form: profile, rate, I(x; z), its gap."""

import math

import pytest
import torch
from torch import nn

from diffrep.codes.posteriors import Code, Posterior
from diffrep.codes.priors import StandardNormal
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import VE, LearnedGamma, LinearGamma
from diffrep.denoising.parameterisations import X
from diffrep.errors import UserError
from diffrep.evaluation.information import Profile, denoisings, mutual_information, profile, profile_over_times
from diffrep.evaluation.mutual_information import mutual_information as bounds_of
from diffrep.models.autoencoder import Autoencoder
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.step_terms import denoise, rate
from diffrep.shapes import Batch, Draws, mean_and_error
from oracles import (
    ExactConditional,
    ExactPosterior,
    Gaussian,
    LinearCode,
    LinearGaussian,
    diffusion_nats,
    examples_of,
    profile_nats,
)

pytestmark = pytest.mark.slow

ENDS = (-9.0, 5.0)
TRUTH = LinearGaussian.of(6, 3)


def ideal() -> LinearCode:
    """The true posterior: q(z) is the prior, so the rate is I(x; z)."""
    return LinearCode(TRUTH.data, *TRUTH.posterior)


def blurred() -> LinearCode:
    """A worse one: mixed and shrunk units with the spread of a careless encoder."""
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(3, 6, generator=generator, dtype=torch.float64) / 2
    return LinearCode(TRUTH.data, matrix, torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64))


def empty() -> LinearCode:
    """A collapsed one: it says nothing about x."""
    return LinearCode(TRUTH.data, torch.zeros(3, 6).double(), torch.ones(3).double())


CODES = [ideal(), blurred()]
NAMES = ["ideal", "blurred"]


def model_of(code: LinearCode, network=None, noise=None, drop: float = 0.1, posterior=None) -> DiffusionModel:
    return DiffusionModel(
        code.data.shape,
        None,
        Denoiser(network or ExactConditional(code), noise or LinearGamma(*ENDS), X()),
        Objective({"diffusion": denoise, "rate": rate}, Levels(likelihood)),
        Coding(posterior or ExactPosterior(code), StandardNormal(len(code.spread)), drop=drop),
    )


def examples(n: int):
    return examples_of(TRUTH.data.draw(n).numpy())


def cells(code: LinearCode, seen: Profile) -> torch.Tensor:
    """The mean of the closed-form profile over each cell, (K,), by the midpoint rule on a fine grid."""
    fine = seen.log_snr[:, None] + seen.width * ((torch.arange(64) + 0.5) / 64 - 0.5)
    return profile_nats(code.data, code.given_code, fine.flatten()).view(len(seen.log_snr), 64).mean(1)


def within(value: float, error: float, exact: float, errors: float = 2.0) -> bool:
    return abs(value - exact) < errors * error


@pytest.mark.parametrize("code", CODES, ids=NAMES)
@pytest.mark.parametrize("noise", [LinearGamma(*ENDS), LearnedGamma(*ENDS, hidden=16), VE(0.01, 50.0)])
def test_the_profile_has_its_closed_form(code, noise):
    """I-MMSE for the ideal denoiser, cell by cell: half the drop of the mean error of eps, for every process."""
    seen = profile(model_of(code, noise=noise), examples(2000), levels=12)
    gap = (seen.nats_per_log_snr - cells(code, seen)) / seen.se
    assert (gap.abs() < 3.5).all()
    assert float((gap**2).mean()) < 2  # and their errors are of the size that they claim
    assert float(seen.se.max()) < 0.05 * float(seen.nats_per_log_snr.max()) + 0.005


@pytest.mark.parametrize("code", CODES, ids=NAMES)
def test_integral_rate_and_share(code):
    """What is carried between the ends of the process is the drop of the ideal diffusion loss, close to I(x; z); what
    is paid is the rate; units are active where their means move."""
    seen = profile(model_of(code), examples(4000), levels=16, batch=1000)
    carried, error = seen.integral()
    exact = diffusion_nats(code.data, *ENDS) - diffusion_nats(code.given_code, *ENDS)
    assert within(carried, error, exact) and error < 0.02 * exact
    assert exact == pytest.approx(code.information, abs=0.1)
    assert within(seen.rate_nats, mean_and_error(seen.rates)[1], code.rate)
    share, share_error = seen.used_share()
    assert within(share, share_error, exact / code.rate) and share_error < 0.02
    assert seen.active_units == 3


def test_the_peak_is_where_it_must_be():
    """One axis of variance v known up to r has its profile's maximum at SNR = 1 / sqrt(v r), by differentiation."""
    data = Gaussian(torch.zeros(1).double(), torch.ones(1, 1).double(), (1,))
    code = LinearCode(data, torch.ones(1, 1).double(), torch.tensor([0.1], dtype=torch.float64))
    left = float(code.given_code.covariance)
    seen = profile(model_of(code), examples_of(data.draw(4000).numpy()), levels=14, batch=4000)
    assert abs(seen.peak + math.log(left) / 2) <= 1.5 * seen.width


@pytest.mark.parametrize("code", CODES, ids=NAMES)
def test_mutual_information_lies_between_its_bounds(code):
    """The mean over all examples bounds I(x; z) from below, that over the others from above; 1,000 examples of three
    numbers close the bracket to a twentieth of a nat, of which log N would allow 6.9."""
    found = mutual_information(model_of(code), examples(1000), codes_per_example=4)
    (lower, lower_error), (upper, upper_error) = mean_and_error(found.lower), mean_and_error(found.upper)
    assert lower - 2 * lower_error < code.information < upper + 2 * upper_error
    assert upper - lower < 0.2
    assert lower_error < 0.05


@pytest.mark.parametrize("code", CODES, ids=NAMES)
def test_the_aggregate_gap_lies_between_its_bounds(code):
    """KL(q(z) || p(z)) in closed form: nought for the true posterior, the price of a prior that does not fit else."""
    x = TRUTH.data.draw(1000).float()
    said = ExactPosterior(code)(x)
    rates = StandardNormal(3).rate(said, said.mean)
    low, high = bounds_of(said, Draws.of(0), codes_per_example=4).gap(rates)
    (lower, lower_error), (upper, upper_error) = mean_and_error(low), mean_and_error(high)
    assert lower - 2 * lower_error < code.gap < upper + 2 * upper_error
    assert upper - lower < 0.2


def test_directions_hold_where_examples_are_few():
    """Over many small splits the mean of the lower bound stays below I(x; z) and below log N, that of the upper above:
    the direction is that of expectations, and four examples make both visibly loose."""
    code = ideal()
    x = TRUTH.data.draw(4 * 400).float().view(400, 4, 6)
    posterior, draws = ExactPosterior(code), Draws.of(0)
    splits = [posterior(part) for part in x]
    found = [bounds_of(said, draws) for said in splits]
    lower, upper = (torch.stack([getattr(f, side).mean() for f in found]) for side in ("lower", "upper"))
    assert float(lower.mean()) < code.information - 3 * mean_and_error(lower)[1]
    assert float(upper.mean()) > code.information + 3 * mean_and_error(upper)[1]
    assert all(float(f.lower.max()) <= math.log(4) + 1e-9 for f in found)


def test_the_bounds_are_those_of_their_definition():
    """Another route to the same numbers: densities of torch.distributions, in loops, at the same codes."""
    means, spreads = torch.randn(5, 2), torch.rand(5, 2) + 0.3
    found = bounds_of(Code(means, spreads), Draws.of(3))
    z = means + spreads * Draws.of(3).normal(5, 2)
    log_q = torch.distributions.Normal(means.double(), spreads.double()).log_prob(z.double()[:, None]).sum(-1)
    for i in range(5):
        others = torch.tensor([j for j in range(5) if j != i])
        lower, upper = (float(log_q[i, i] - of.exp().mean().log()) for of in (log_q[i], log_q[i, others]))
        assert float(found.lower[i]) == pytest.approx(lower, abs=1e-6)
        assert float(found.upper[i]) == pytest.approx(upper, abs=1e-6)


def test_an_empty_code_carries_nothing():
    """Where the conditional denoiser is the unconditional one, both branches agree to rounding, example by example."""
    seen = profile(model_of(empty()), examples(200), levels=8)
    assert float(seen.gains.abs().max()) < 1e-5
    assert seen.active_units == 0
    found = mutual_information(model_of(empty()), examples(200))
    assert float(found.lower.abs().max()) < 1e-9 and float(found.upper.abs().max()) < 1e-9


class FirstUnit(nn.Module):
    """A decoder that knows only the first number of the code, and uses that one ideally."""

    def __init__(self, code: LinearCode):
        super().__init__()
        self.known = ExactConditional(LinearCode(code.data, code.matrix[:1], code.spread[:1]))

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
        return self.known(x_t, log_snr, None if z is None else z[:, :1])


def test_what_the_decoder_ignores_is_paid_but_not_used():
    """The profile is the decoder's: with a code of three units of which it hears one, it carries that one's nats, while
    the code itself still holds them all."""
    code = ideal()
    part = LinearCode(code.data, code.matrix[:1], code.spread[:1])
    seen = profile(model_of(code, network=FirstUnit(code)), examples(4000), levels=16, batch=1000)
    exact = diffusion_nats(code.data, *ENDS) - diffusion_nats(part.given_code, *ENDS)
    assert within(*seen.integral(), exact)
    share, error = seen.used_share()
    assert share + 3 * error < 0.6


def test_pairing_lowers_the_error():
    """The same x_t in both branches: against two runs with noise of their own, the standard error falls by half."""
    model, x = model_of(ideal()), TRUTH.data.draw(1000).float()
    seen = profile(model, examples(1000), levels=8)
    without, given = (
        model.denoising_by_level(Batch(x, torch.arange(len(x)), draws=Draws.of(seed)), 8, with_code=seed == 1).mean(1)
        for seed in (0, 1)
    )
    assert seen.integral()[1] < 0.5 * mean_and_error(without - given)[1]


class Point(Posterior):
    """z = A x, without spread."""

    deterministic, timed = True, False

    def __init__(self, code: LinearCode):
        super().__init__()
        self.dim, self.encoder = len(code.spread), nn.Identity()
        self.register_buffer("matrix", code.matrix.float())

    def forward(self, x, log_snr=None):
        return Code(x @ self.matrix.T)


def test_a_deterministic_code_has_a_profile_and_no_rate():
    """A x without noise is the limit of a small spread: its profile is finite between the ends, its price is not."""
    sharp = LinearCode(TRUTH.data, ideal().matrix, torch.full((3,), 1e-5).double())
    model = model_of(sharp, posterior=Point(sharp))
    seen = profile(model, examples(2000), levels=12)
    assert within(*seen.integral(), diffusion_nats(sharp.data, *ENDS) - diffusion_nats(sharp.given_code, *ENDS))
    assert seen.rate_nats == math.inf and seen.used_share() == (0.0, 0.0)
    with pytest.raises(UserError, match="deterministic code has no finite"):
        mutual_information(model, examples(10))


class Timed(Posterior):
    """A code that grows with the log-SNR at which it is asked for; `fixed`: one that ignores it."""

    deterministic = False

    def __init__(self, code: LinearCode, fixed: float | None = None):
        super().__init__()
        self.exact, self.encoder, self.dim = ExactPosterior(code), nn.Identity(), len(code.spread)
        self.fixed, self.timed = fixed, fixed is None

    def forward(self, x, log_snr=None):
        said = self.exact(x)
        at = log_snr if self.fixed is None else torch.full((len(x),), self.fixed)
        return Code(said.mean * (1 + at[:, None] / 20), said.spread)


def test_the_code_of_each_time_has_its_row():
    """Two routes: the row of t' is the profile of a model whose code does not depend on t and is that of t'."""
    code, times = ideal(), [0.2, 0.7]
    rows = profile_over_times(model_of(code, posterior=Timed(code)), examples(300), times, levels=6)
    for t, row in zip(times, rows, strict=True):
        log_snr = float(LinearGamma(*ENDS).log_snr(torch.tensor([t])))
        alone = profile(model_of(code, posterior=Timed(code, log_snr)), examples(300), levels=6)
        torch.testing.assert_close(row.gains, alone.gains)
        assert row.rates is None
    own = profile(model_of(code, posterior=Timed(code)), examples(300), levels=6)  # the code of each level at its level
    assert not torch.allclose(own.gains, rows[0].gains) and own.rates is None and own.active_units is None


def test_denoisings_are_those_of_the_denoiser():
    """x_t, then E[x | x_t] and E[x | x_t, z] at the code's mean: with the code nearer to x where noise is high."""
    code, x = ideal(), TRUTH.data.draw(500).float()
    log_snr = torch.tensor([-4.0, 0.0, 8.0])
    x_t, without, given = denoisings(model_of(code), x, log_snr, Draws.of(0))
    assert x_t.shape == without.shape == given.shape == (3, 500, 6)
    ideal_x = ExactConditional(code)(x_t[0], torch.full((500,), -4.0), ExactPosterior(code)(x).mean)
    torch.testing.assert_close(given[0], ideal_x, rtol=1e-3, atol=1e-4)
    errors = [((shown - x) ** 2).mean((1, 2)) for shown in (without, given)]
    assert errors[1][0] < 0.5 * errors[0][0]
    assert float(((x_t[2] - x) ** 2).mean()) < 0.001


def test_a_profile_that_cannot_be_had_is_refused():
    """One sentence each: no code, no noise levels, no code dropout, a code without t, too few examples."""
    code = ideal()
    without = DiffusionModel((6,), None, model_of(code).denoiser, Objective({"diffusion": denoise}, Levels(likelihood)))
    with pytest.raises(UserError, match="no code to profile"):
        profile(without, examples(2))
    vae = Autoencoder((6,), None, ExactPosterior(code), nn.Linear(3, 6), StandardNormal(3))
    with pytest.raises(UserError, match="no noise levels"):
        profile(vae, examples(2))
    with pytest.raises(UserError, match=r"code\.drop=0; train again with --set code\.drop=0\.1"):
        profile(model_of(code, drop=0.0), examples(2))
    with pytest.raises(UserError, match="same at all t"):
        profile_over_times(model_of(code), examples(2), [0.5])
    with pytest.raises(UserError, match="at least two, got 1"):
        mutual_information(model_of(code), examples(1))
