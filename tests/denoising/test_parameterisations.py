"""What an output means: by cycles, by the ideal output worked out by hand, and by brute force over the grey levels."""

import pytest
import torch

from diffrep.denoising.denoiser import Denoiser, Prediction
from diffrep.denoising.grey_levels import lattice
from diffrep.denoising.noise import VE, VP, Cosine, LinearGamma
from diffrep.denoising.parameterisations import EDM, Eps, Marginal, Score, V, X
from oracles import ExactNetwork, Gaussian, LinearGaussian

BINS = 9
SHAPE = (2, 3, 3)
torch.manual_seed(0)
HISTOGRAM = torch.rand(2, BINS).pow(3) * 1000
KINDS = {
    "eps": Eps(),
    "x": X(),
    "v": V(),
    "score": Score(),
    "edm": EDM(0.7),
    "marginal": Marginal(2, BINS, HISTOGRAM),
}
PROCESSES = {"ve": VE(0.01, 50.0), "vp": VP(), "cosine": Cosine(), "linear": LinearGamma()}


def ideal_output(kind: str, x, eps, x_t, alpha, sigma):
    """The output that states the true x, from each paper's definition of its target."""
    power = 0.49 * alpha**2 + sigma**2
    return {
        "eps": lambda: eps - x_t / (alpha**2 + sigma**2).sqrt(),
        "x": lambda: x,
        "v": lambda: (alpha * eps - sigma * x) / (alpha**2 + sigma**2).sqrt(),
        "score": lambda: -eps,
        "edm": lambda: (x - alpha * 0.49 / power * x_t) / (0.7 * sigma / power.sqrt()),
    }[kind]()


def noisy(noise, t: float, batch: int = 5):
    """x, eps, x_t, alpha, sigma at one time; alpha and sigma with the axes of x; float64."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.randint(0, BINS, (batch, *SHAPE), generator=generator).double() + 0.5) * 2 / BINS - 1
    eps = torch.randn(batch, *SHAPE, generator=generator, dtype=torch.float64)
    alpha, sigma = (part.double()[:, None, None, None] for part in noise.scales(torch.full((batch,), t)))
    return x, eps, alpha * x + sigma * eps, alpha, sigma


@pytest.mark.parametrize("t", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_output_stays_on_x_t(kind, process, t):
    """Whatever the network says, x and eps belong to the same x_t = alpha x + sigma eps."""
    x, _, x_t, alpha, sigma = (part.float() for part in noisy(PROCESSES[process], t))
    _, finish = KINDS[kind](x_t, alpha, sigma)
    x_hat, eps_hat = finish(torch.randn_like(x))
    torch.testing.assert_close(alpha * x_hat + sigma * eps_hat, x_t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", ["eps", "x", "v", "score", "edm"])
def test_the_ideal_output_gives_x_back(kind, process, t):
    """The target that a paper states for its output, put in as output, returns the true x and eps."""
    x, eps, x_t, alpha, sigma = noisy(PROCESSES[process], t)
    _, finish = KINDS[kind](x_t, alpha, sigma)
    x_hat, eps_hat = finish(ideal_output(kind, x, eps, x_t, alpha, sigma))
    torch.testing.assert_close(x_hat, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(eps_hat, eps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_score_of_a_prediction(process):
    """At the truth, score = -(x_t - alpha x) / sigma^2, whichever of x and eps is said."""
    x, eps, x_t, alpha, sigma = noisy(PROCESSES[process], 0.4)
    a, s = alpha.flatten(), sigma.flatten()
    for prediction in (Prediction.from_x(x, x_t, a, s), Prediction.from_eps(eps, x_t, a, s)):
        torch.testing.assert_close(prediction.score, (alpha * x - x_t) / sigma**2)
        torch.testing.assert_close(prediction.x, x, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(prediction.eps, eps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_score_of_the_ideal_denoiser(process):
    """-eps_hat / sigma of E[x | x_t] is the gradient of the log density of x_t (Tweedie), which a Gaussian states."""
    gaussian, noise = Gaussian.of(*SHAPE), PROCESSES[process]
    x_t = gaussian.draw_noisy(noise, 0.6, 4)
    said = Denoiser(ExactNetwork(gaussian), noise, X())(x_t.float(), torch.full((4,), 0.6))
    expected = gaussian.score(noise, x_t, 0.6)
    torch.testing.assert_close(said.score.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_edm_with_output_zero_is_ideal_on_white_data():
    """E[x | x_t] of x ~ N(0, sd^2 I) is what EDM adds to the output; std[x | x_t] is the scale of the rest."""
    truth = LinearGaussian.of(6, 2, noise=0.7).given_code  # N(0, 0.7^2 I)
    x_t = torch.randn(4, 6)
    alpha, sigma = torch.full((4, 1), 0.8), torch.full((4, 1), 0.6)
    _, finish = EDM(0.7)(x_t, alpha, sigma)

    class Fixed:
        def scales(self, t):
            return alpha[:, 0], sigma[:, 0]

    torch.testing.assert_close(finish(torch.zeros(4, 6))[0], truth.denoiser(Fixed())(x_t, torch.zeros(4)).x)
    spread = finish(torch.ones(4, 6))[0] - finish(torch.zeros(4, 6))[0]
    posterior = (1 / (1 / 0.49 + 0.64 / 0.36)) ** 0.5  # precisions add
    torch.testing.assert_close(spread, torch.full_like(spread, posterior))


def posterior_by_hand(counts: torch.Tensor, y: torch.Tensor, s: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of a grey level given y = level + s noise, a sum over all levels; float64.

    One count in a thousand lies spread over all levels, as the table promises."""
    bins = len(counts)
    levels = torch.tensor([2 * (k + 0.5) / bins - 1 for k in range(bins)], dtype=torch.float64)
    prior = 0.999 * counts.double() / counts.sum() + 0.001 / bins
    share = torch.softmax(prior.log() - 0.5 * ((y.double()[:, None] - levels) / s) ** 2, 1)
    mean = (share * levels).sum(1)
    return mean, (share * (levels - mean[:, None]) ** 2).sum(1).sqrt()


@pytest.mark.parametrize("bins", [2, 9, 256])
def test_marginal_moments_by_brute_force(bins):
    """The table agrees with the sum over all levels, each channel with its own histogram, from noise a tenth of a
    level to noise that drowns everything: where the noisy values fall, and in the tails beyond them."""
    torch.manual_seed(bins)
    histogram = torch.rand(2, bins).pow(4) * 100
    histogram[:, bins // 2] += 300  # a level that is much more common, like a background
    marginal = Marginal(2, bins, histogram)
    for s in (0.02, 0.05, 0.2, 1.0, 5.0, 50.0):
        for channel in range(2):
            level = torch.multinomial(histogram[channel], 1000, replacement=True)
            y = 2 * (level + 0.5) / bins - 1 + s * torch.randn(1000)
            tails = torch.tensor([-1 - 4 * s, 1 + 4 * s])  # the table reaches 5 s
            said = marginal.moments(torch.cat([y, tails])[:, None].expand(-1, 2), torch.full((1002, 1), s))
            for table, hand in zip(said, posterior_by_hand(histogram[channel], torch.cat([y, tails]), s), strict=True):
                gap = (table[:, channel] - hand).abs()
                assert gap[:1000].mean() < 1e-3 and gap[1000:].max() < 5e-3


def test_marginal_of_a_gaussian_histogram_is_edm():
    """Where the levels follow N(0, sd^2) finely enough, the marginal is Karras et al.'s preconditioning."""
    bins, sd = 256, 0.25
    levels = 2 * (torch.arange(bins, dtype=torch.float64) + 0.5) / bins - 1
    marginal = Marginal(1, bins, torch.exp(-0.5 * (levels / sd) ** 2)[None] * 1e6)
    y, output = torch.linspace(-0.5, 0.5, 50)[:, None], torch.ones(50, 1)
    for s in (0.1, 0.3, 1.0):
        alpha, sigma = torch.full((50, 1), 0.9), torch.full((50, 1), 0.9 * s)
        by_table, by_formula = marginal(0.9 * y, alpha, sigma)[1], EDM(sd)(0.9 * y, alpha, sigma)[1]
        for out in (0 * output, output):
            torch.testing.assert_close(by_table(out)[0], by_formula(out)[0], rtol=0, atol=0.012)


def test_marginal_of_65536_levels():
    """Levels are grouped, so the table stays as small; at noise wider than a group nothing is lost by it."""
    bins = 65536
    counts = torch.rand(1, bins)
    marginal = Marginal(1, bins, counts)
    assert marginal.table.shape == Marginal(1, 256, torch.ones(1, 256)).table.shape
    y = torch.linspace(-1.1, 1.1, 60)
    for s in (0.02, 0.3):
        mean, std = marginal.moments(y[:, None], torch.full((60, 1), s))
        true_mean, true_std = posterior_by_hand(counts[0], y, s)
        assert (mean[:, 0] - true_mean).abs().max() < 5e-3 and (std[:, 0] - true_std).abs().max() < 5e-3


@pytest.mark.parametrize("bins", [1024, 65536])
def test_the_data_end_is_within_a_level(bins):
    """With noise of a sixth of a level each pixel's own value tells its level, however many levels there are."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * (torch.randint(bins, (2000, 1), generator=generator) + 0.5) / bins - 1
    s = torch.full((2000, 1), 2 / bins / 6)
    mean, std = Marginal(1, bins, torch.ones(1, bins)).moments(x + s * torch.randn(x.shape, generator=generator), s)
    assert (mean - x).abs().mean() * bins / 2 < 0.05 and std.mean() * bins / 2 < 0.1


def test_lattice_is_the_posterior_of_even_levels():
    """By hand, over all levels at once: the mean and the spread that Bayes' rule gives, inside of the range."""
    bins = 301
    y = torch.linspace(-0.8, 0.8, 77, dtype=torch.float64)
    for width in (0.05, 1 / 6, 0.4, 0.9, 1.5, 5.0):
        s = width * 2 / bins
        hand = posterior_by_hand(torch.ones(bins, dtype=torch.float64), y, s)
        for said, true in zip(lattice(y[:, None], torch.tensor(s, dtype=torch.float64), bins), hand, strict=True):
            assert (said[:, 0] - true).abs().max() < 5e-3 * 2 / bins


def test_marginal_is_finite_at_both_ends():
    """Noise far below a level and far above the data, y far outside: moments stay finite and inside the data."""
    marginal = KINDS["marginal"]
    for s in (1e-8, 1e-3, 1.0, 1e4):
        mean, std = marginal.moments(torch.linspace(-1e3, 1e3, 41).expand(2, -1).T, torch.full((41, 1), s))
        assert mean.isfinite().all() and std.isfinite().all()
        assert (mean.abs() <= 1).all() and (std >= 0).all() and (std <= 1).all()


def test_a_loaded_table_is_the_made_one():
    """A saved model holds its table: one built without a histogram and loaded says the same."""
    empty = Marginal(2, BINS)
    empty.load_state_dict(KINDS["marginal"].state_dict())
    y = torch.randn(7, 2)
    loaded, made = (marginal.moments(y, torch.ones(7, 1)) for marginal in (empty, KINDS["marginal"]))
    assert torch.equal(loaded[0], made[0]) and torch.equal(loaded[1], made[1])


def test_the_network_sees_the_moments_of_the_marginal():
    """`channels` times the data's channels are shown beside x_t: first the means, then the standard deviations."""
    x, _, x_t, alpha, sigma = (part.float() for part in noisy(PROCESSES["vp"], 0.3))
    extra, _ = KINDS["marginal"](x_t, alpha, sigma)
    mean, std = KINDS["marginal"].moments(x_t / alpha, sigma / alpha)
    assert extra.shape[1] == KINDS["marginal"].channels * x.shape[1]
    assert torch.equal(extra[:, :2], mean) and torch.equal(extra[:, 2:], std)
    assert all(KINDS[kind](x_t, alpha, sigma)[0] is None for kind in KINDS if kind != "marginal")


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_network_runs_in_low_precision(kind):
    """Under bf16 the schedule and what is made of the output stay float32: eps at low noise needs all its digits."""

    class Convolution(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(2, 2, 1)

        def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
            out = self.layer(x_t)
            self.seen = (out.dtype, log_snr.dtype)
            return out

    net, t = Convolution(), torch.linspace(0, 1, 5)
    noise = PROCESSES["linear"]
    x = torch.randn(5, *SHAPE)
    x_t = noise.add(x, torch.randn_like(x), t)
    with torch.autocast("cpu", torch.bfloat16):
        said = Denoiser(net, noise, KINDS[kind])(x_t, t)
    assert net.seen == (torch.bfloat16, torch.float32)
    assert {said.x.dtype, said.eps.dtype, said.alpha.dtype, said.sigma.dtype} == {torch.float32}
    alpha, sigma = (part[:, None, None, None] for part in noise.scales(t))
    torch.testing.assert_close(alpha * said.x + sigma * said.eps, x_t, rtol=1e-5, atol=1e-5)
