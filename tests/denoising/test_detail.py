"""Level of detail: importance sampling keeps the integral, times fall where the density says, draws are cut cleanly."""

import math

import pytest
import torch
from scipy import stats

from diffrep.denoising.detail import (
    Levels,
    balanced,
    band,
    bump,
    coarse,
    coarse_patch,
    fine,
    high_noise,
    likelihood,
    low_noise,
    semantic,
    uniform,
)
from diffrep.denoising.noise import VE, VP, Cosine, LearnedGamma, LinearGamma
from diffrep.shapes import Draws

DENSITIES = {"uniform": uniform, "likelihood": likelihood, "high": high_noise, "low": low_noise, "band": band(-3, 2)}
DENSITIES |= {"bump": bump(-1, 2)}
PROCESSES = {
    "ve": lambda: VE(0.05, 5.0),
    "linear": lambda: LinearGamma(-9.0, 5.0),
    "learned": lambda: LearnedGamma(-9.0, 5.0, hidden=16),
}


def integral(noise, density, f) -> float:
    """Of density(t) f(log_snr(t)) over t in [0, 1], by the midpoint rule."""
    t = (torch.arange(20_000) + 0.5) / 20_000
    return float((density(noise, t) * f(noise.log_snr(t))).detach().double().mean())


def f(log_snr):
    """A loss that changes along the axis but never vanishes."""
    return 1 + torch.sigmoid(log_snr)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("proposal", ["uniform", "likelihood", "high", "low"])
@pytest.mark.parametrize("measure", DENSITIES)
def test_any_proposal_gives_the_same_loss(measure, proposal, process):
    """E[weight f] is the integral of measure times f, for every density of the times."""
    torch.manual_seed(0)
    noise, levels = PROCESSES[process](), Levels(DENSITIES[measure], proposal=DENSITIES[proposal])
    t = levels.draw(noise, Draws.of(1), 40_000)
    estimate = float((levels.weight(noise, t) * f(noise.log_snr(t))).detach().double().mean())
    assert estimate == pytest.approx(integral(noise, DENSITIES[measure], f), rel=0.01)


def test_a_band_drawn_by_itself():
    """All times fall inside the band (up to a cell of the table), and its weights are the constant of the integral."""
    noise, inside = VE(0.01, 50.0), band(-3, 2)
    levels = Levels(inside, proposal=inside)
    t = levels.draw(noise, Draws.of(0), 10_000)
    assert (noise.log_snr(t) > -3.02).all() and (noise.log_snr(t) < 2.02).all()
    assert float(levels.weight(noise, t).mean()) == pytest.approx(5, rel=0.01)  # the integral of -d log_snr: its width
    assert stats.kstest(noise.log_snr(t).numpy(), "uniform", args=(-3, 5)).pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES)
def test_a_bump_is_the_same_hill_under_every_process(process):
    """Drawn by itself, log-SNR is logistic around the centre, cut to the process's range; its measure is 4 width."""
    torch.manual_seed(0)
    noise, hill = PROCESSES[process](), bump(1.0, 0.5)
    levels = Levels(hill, proposal=hill)
    t = torch.cat([levels.draw(noise, Draws.of(seed), 1) for seed in range(500)])
    log_snr = noise.log_snr(t).detach().numpy()
    assert stats.kstest(log_snr, "logistic", args=(1.0, 0.5)).pvalue > 0.01
    assert float(levels.weight(noise, t).mean()) == pytest.approx(4 * 0.5, rel=0.01)
    centre = noise.time(torch.tensor([1.0]))
    assert float(hill(noise, centre) / likelihood(noise, centre)) == pytest.approx(1, abs=1e-3)  # as in the bound


def test_presets_order_the_axis():
    """Coarse lies at higher noise than balanced and fine; enlarging a picture twice moves coarse by -log 4, fine not.

    A picture whose every pixel is doubled both ways has four times the energy, so it is seen at a quarter of the SNR.
    """
    noise = LinearGamma(-13.0, 12.0)
    t = (torch.arange(20_000) + 0.5) / 20_000

    def centre(density):
        mass = density(noise, t)
        return float((mass * noise.log_snr(t)).sum() / mass.sum())

    small, large = 3 * 16 * 16, 3 * 32 * 32
    assert centre(coarse(small)) == pytest.approx(-3, abs=0.01)
    assert centre(coarse(small)) < centre(balanced(small)) < centre(fine(small))
    assert centre(coarse(large)) - centre(coarse(small)) == pytest.approx(-math.log(4), abs=0.01)
    assert centre(fine(large)) == pytest.approx(centre(fine(small)))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 100, 60), (1, 8, 8), (2, 300), (1, 16, 16, 16)])
def test_the_mean_of_a_patch_shows_where_coarse_looks(shape):
    """The mean of side^axes numbers that are alike has as many times the SNR of one: at the centre of `coarse` below
    one for the patch, above it for one of twice the side. Vectors have no patches."""
    places, axes, side = math.prod(shape[1:]), len(shape) - 1, coarse_patch(shape)
    snr = math.exp(-3) * 768 / places  # of one number, at the centre
    assert snr * (2 * side) ** axes > 1 and (side == 1 or snr * side**axes <= 1)
    assert coarse_patch((784,)) == 1


def test_high_noise_draws_sigma_uniformly_under_ve():
    """The route through p(t) of DRL: sigma uniform on [0.01, 50] (Kolmogorov-Smirnov on independent times)."""
    noise, levels = VE(0.01, 50.0), Levels(high_noise, proposal=high_noise)
    t = torch.cat([levels.draw(noise, Draws.of(seed), 1) for seed in range(500)])
    sigma = noise.scales(t)[1].numpy()
    assert stats.kstest(sigma, "uniform", args=(0.01, 49.99)).pvalue > 0.01
    weight = levels.weight(noise, t)
    torch.testing.assert_close(weight, weight[:1].expand(500))  # drawn by what is looked at: constant weights


def test_uniform_draws_log_sigma_uniformly_under_ve():
    """The other route of DRL: t uniform is log sigma uniform; its weight is one."""
    noise, levels = VE(0.01, 50.0), Levels()
    t = torch.cat([levels.draw(noise, Draws.of(seed), 1) for seed in range(500)])
    low, high = math.log(0.01), math.log(50)
    assert stats.kstest(noise.scales(t)[1].log().numpy(), "uniform", args=(low, high - low)).pvalue > 0.01
    assert (levels.weight(noise, t) == 1).all()


@pytest.mark.parametrize("process", PROCESSES)
def test_likelihood_integrates_to_the_range_of_log_snr(process):
    """-d log_snr/dt over [0, 1] is what the log-SNR falls in all; VE falls by 2 log(sigma_max / sigma_min)."""
    torch.manual_seed(0)
    noise = PROCESSES[process]()
    expected = {"ve": 2 * math.log(100), "linear": 14.0, "learned": 14.0}[process]
    assert integral(noise, likelihood, torch.ones_like) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("process", PROCESSES)
def test_densities_in_terms_of_the_process(process):
    """Finite differences: likelihood is -d log_snr, high noise d(sigma/alpha), low noise fades above sigma = alpha."""
    torch.manual_seed(0)
    noise = PROCESSES[process]().double()
    t, h = torch.linspace(0.05, 0.95, 30, dtype=torch.float64), 1e-5

    def slope(function):
        return ((function(t + h) - function(t - h)) / (2 * h)).detach()

    falls = -slope(noise.log_snr)
    torch.testing.assert_close(likelihood(noise, t).detach(), falls, rtol=1e-5, atol=1e-5)
    ratio = slope(lambda u: noise.scales(u)[1] / noise.scales(u)[0])
    torch.testing.assert_close(high_noise(noise, t).detach() / 2, ratio, rtol=1e-5, atol=1e-5)  # any scale will do
    snr = noise.log_snr(t).exp().detach()
    torch.testing.assert_close(low_noise(noise, t).detach(), falls * snr / (1 + snr), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(semantic(noise, t).detach(), snr**0.1 / (1 + snr), rtol=1e-5, atol=1e-7)


def test_low_discrepancy_times_cover_the_axis():
    """One time in each of B equal cells: the sorted gaps are 1/B in t, or in log-SNR where the times are drawn so."""
    noise, size = VE(0.01, 50.0), 64
    t = Levels().draw(noise, Draws.of(3), size).sort().values
    torch.testing.assert_close(t.diff(), torch.full((size - 1,), 1 / size))
    noise = Cosine(-9.0, 9.0)
    log_snr = noise.log_snr(Levels(proposal=likelihood).draw(noise, Draws.of(3), size)).sort().values
    torch.testing.assert_close(log_snr.diff(), log_snr.diff().mean().expand(size - 1), rtol=0.05, atol=0.05)


def test_times_of_a_finite_chain_lie_on_its_grid():
    """T steps: t is one of 1/T, ..., 1, each as often as the others, never 0."""
    t = Levels(steps=5).draw(VP(), Draws.of(0), 1000)
    values, counts = t.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0]))
    assert (counts - 200).abs().max() <= 1


def test_a_finite_chain_draws_uniformly():
    """Each of its steps belongs to the bound once, so a density of their own for the draws is a mistake."""
    with pytest.raises(ValueError, match="uniform"):
        Levels(uniform, proposal=likelihood, steps=5)


@pytest.mark.parametrize("density", [lambda noise, t: -t, lambda noise, t: t / 0, lambda noise, t: 0 * t, band(90, 91)])
def test_densities_that_are_none(density):
    """Negative, infinite, or zero everywhere: said, not sampled."""
    with pytest.raises(ValueError, match="level of detail"):
        Levels(density, proposal=density).draw(VP(), Draws.of(0), 4)
    with pytest.raises(ValueError, match="low < high"):
        band(2, -3)


@pytest.mark.parametrize("name", ["normal", "uniform", "stratified"])
def test_parts_of_a_batch_are_the_whole(name):
    """A batch cut in parts (over processes, or accumulated) sees the numbers that the whole batch would see."""
    shape = () if name == "stratified" else (3,)
    whole = Draws.of(7)
    parts = [Draws.of(7, shard=part, shards=4) for part in range(4)]
    for _ in range(3):  # one call after another, too
        together = torch.cat([getattr(part, name)(5, *shape) for part in parts])
        assert torch.equal(getattr(whole, name)(20, *shape), together)
