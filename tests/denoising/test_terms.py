"""Loss terms against closed forms on Gaussian data, sums over all grey levels, and two routes to one number."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from diffrep.codes.posteriors import Deterministic
from diffrep.codes.priors import StandardNormal
from diffrep.denoising import terms
from diffrep.denoising.denoiser import Denoiser, Prediction
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import VE, VP, LearnedGamma, LinearGamma
from diffrep.denoising.parameterisations import X
from diffrep.models.autoencoder import Autoencoder
from diffrep.nets.decoders import MLPGenerator
from diffrep.nets.encoders import MLPEncoder
from diffrep.shapes import Draws, bits_per_dim
from oracles import ExactNetwork, Gaussian, diffusion_nats

ENDS = (-6.0, 4.0)


def mean_loss(gaussian, noise, weight, batch=40_000, answer=1.0, seed=0) -> tuple[float, float]:
    """Mean and standard error of `denoising` under weight(noise, t), over data, times and noise."""
    draws = Draws.of(seed)
    t = Levels(weight).draw(noise, draws, batch)
    x = gaussian.draw(batch, seed).float()
    eps = draws.normal(*x.shape)
    said = Denoiser(ExactNetwork(gaussian, answer), noise, X())(noise.add(x, eps, t), t)
    loss = terms.denoising(eps, said, weight(noise, t)).detach().double()
    return float(loss.mean()), float(loss.std() / math.sqrt(batch))


@pytest.mark.parametrize("process", [VE(0.05, 10.0), VP(), LinearGamma(*ENDS)])
@pytest.mark.parametrize("answer", [1.0, 0.7])
def test_the_constant_of_denoising_score_matching(process, answer):
    """Equation 1: E|eps - eps_hat|^2 = sigma^2 E|s - grad log p_t|^2 + a constant that no score can remove.

    The constant is sigma^2 E|grad log p_t(x_t | x) - grad log p_t(x_t)|^2 = D - sum of sigma^2 / (alpha^2 v + sigma^2);
    it is what a code can lower. The score error is computed from Gaussian scores, by a linear solve.
    """
    gaussian, t = Gaussian.of(4, seed=3), 0.35
    x = gaussian.draw(60_000, seed=1)
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    at = torch.full((len(x),), t)
    alpha, sigma = (float(part[0]) for part in process.scales(at))
    x_t = alpha * x + sigma * eps
    said = Denoiser(ExactNetwork(gaussian, answer), process, X())(x_t, at)
    loss = 2 * terms.denoising(eps, said, torch.ones(len(x))).detach()
    error = ((said.score - gaussian.score(process, x_t, t)) ** 2).sum(1).detach() * sigma**2
    values = gaussian.spectrum[0]
    constant = 4 - float((sigma**2 / (alpha**2 * values + sigma**2)).sum())
    gap = loss - error - constant
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(len(gap))
    assert float(error.mean()) < 1e-6 if answer == 1 else float(error.mean()) > 0.01


def test_the_continuous_diffusion_loss_in_closed_form():
    """1/2 int gamma' E|eps - eps_hat|^2 dt of the ideal denoiser is 1/2 sum log((1 + SNR_0 v) / (1 + SNR_1 v))."""
    gaussian = Gaussian.of(2, 3)
    mean, error = mean_loss(gaussian, LinearGamma(*ENDS), likelihood)
    assert abs(mean - diffusion_nats(gaussian, *ENDS)) < 3.5 * error
    assert error < 0.01 * mean


def test_mmse_integrates_to_information():
    """I-MMSE (Guo et al. 2005) in one dimension: 1/2 int_0^snr mmse = 1/2 log(1 + snr v), the information in nats.

    From no signal at all (log-SNR -20) to snr = e^3; the library's loss is the integrand over log-SNR."""
    variance = 0.49
    gaussian = Gaussian(torch.zeros(1).double(), torch.tensor([[variance]]).double(), (1,))
    mean, error = mean_loss(gaussian, LinearGamma(-3.0, 20.0), likelihood)
    assert abs(mean - 0.5 * math.log1p(math.exp(3) * variance)) < 3.5 * error


@pytest.mark.parametrize("seed", [0, 1])
def test_the_continuous_loss_does_not_see_the_inside_of_gamma(seed):
    """Any monotone gamma between the same ends gives the same loss (VDM, Section 5.1)."""
    torch.manual_seed(seed)
    noise = LearnedGamma(*ENDS, hidden=16)
    with torch.no_grad():
        noise.l3.mul_(30)  # far from a line
    middle = float(-noise.log_snr(torch.tensor([0.5])))
    gaussian = Gaussian.of(3)
    mean, error = mean_loss(gaussian, noise, likelihood)
    assert abs(mean - diffusion_nats(gaussian, *ENDS)) < 3.5 * error
    assert abs(middle - sum(ENDS) / 2) > 0.1


def test_a_step_of_the_chain_is_a_divergence_of_two_gaussians():
    """Steps 3 and 4 of docs/bound.md: the KL of q(x_s | x_t, x), by Bayes' rule, to the same with x_hat for x."""
    draws, steps = Draws.of(0), 5
    gamma_t, gamma_s = torch.tensor([[1.2], [-3.0]]), torch.tensor([[0.4], [-5.0]])
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (((-g).sigmoid().sqrt(), g.sigmoid().sqrt()) for g in (gamma_t, gamma_s))
    x, x_hat, eps = draws.normal(2, 4), draws.normal(2, 4), draws.normal(2, 4)
    x_t = alpha_t * x + sigma_t * eps
    ratio = alpha_t / alpha_s
    variance = sigma_t**2 - ratio**2 * sigma_s**2  # of x_t given x_s
    precision = 1 / sigma_s**2 + ratio**2 / variance
    q, p = (
        Normal((alpha_s * end / sigma_s**2 + ratio * x_t / variance) / precision, precision**-0.5 * torch.ones(2, 4))
        for end in (x, x_hat)
    )
    said = Prediction.from_x(x_hat, x_t, alpha_t[:, 0], sigma_t[:, 0])
    loss = terms.diffusion_in_steps(eps, said, gamma_t[:, 0], gamma_s[:, 0], steps)
    torch.testing.assert_close(loss / steps, kl_divergence(q, p).sum(1), rtol=1e-3, atol=1e-4)


def test_diffusion_in_steps_falls_to_the_continuous_loss():
    """T steps: each in closed form from the errors of eps on the grid; always above the integral, and falling to it."""
    gaussian, noise, batch = Gaussian.of(3), LinearGamma(*ENDS), 4000
    denoise = Denoiser(ExactNetwork(gaussian), noise, X())
    values, continuous = gaussian.spectrum[0], diffusion_nats(gaussian, *ENDS)
    losses = []
    for steps in (4, 16, 64):
        t = torch.arange(1, steps + 1).repeat_interleave(batch) / steps
        x, eps = gaussian.draw(len(t)).float(), torch.randn(len(t), 3, generator=torch.Generator().manual_seed(1))
        said = denoise(noise.add(x, eps, t), t)
        gamma_t, gamma_s = -noise.log_snr(t), -noise.log_snr(t - 1 / steps)
        loss = terms.diffusion_in_steps(eps, said, gamma_t, gamma_s, steps).detach().double()
        snr = torch.exp(-torch.linspace(*ENDS, steps + 1, dtype=torch.float64))
        missing = (values / (1 + snr[1:, None] * values)).sum(1)  # E|x - x_hat|^2 at each t > 0
        exact = float(((snr[:-1] - snr[1:]) * missing).sum() / 2)
        assert abs(float(loss.mean()) - exact) < 4 * float(loss.std()) / math.sqrt(len(loss))
        losses.append(exact)
    assert losses[0] > losses[1] > losses[2] > continuous
    assert losses[2] - continuous < 0.1 * (losses[0] - continuous)


def reconstruction_by_hand(x, x_0, alpha: float, sigma: float, bins: int) -> torch.Tensor:
    """-log softmax over all levels, float64; x, x_0 (B, D)."""
    levels = (2 * torch.arange(bins, dtype=torch.float64) + 1) / bins - 1
    energy = -0.5 * ((x_0.double()[..., None] / alpha - levels) * alpha / sigma) ** 2
    own = ((x.double() + 1) * bins / 2 - 0.5).round().long()
    return -torch.log_softmax(energy, -1).gather(-1, own[..., None])[..., 0].sum(1)


@pytest.mark.parametrize("widths", [0.1, 1 / 6, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("bins", [2, 17, 256, 65536])
def test_windowed_reconstruction_is_the_sum_over_all_levels(bins, widths):
    """A window that follows the noise gives the softmax over all levels, from noise of a tenth of a level to thirty."""
    generator = torch.Generator().manual_seed(0)
    alpha, sigma = 0.9, 0.9 * widths * 2 / bins
    levels = torch.randint(0, bins, (3, 4), generator=generator)
    levels[0, 0], levels[0, 1] = 0, bins - 1
    x = (2 * levels + 1) / bins - 1
    x_0 = alpha * x + sigma * torch.randn(3, 4, generator=generator)
    said = terms.reconstruction(x, x_0, torch.full((3,), alpha), torch.full((3,), sigma), bins)
    # float32 holds 65536 levels to a part in a hundred of one: the energy of a level is as exact as that
    atol = 4e-4 if bins < 65536 else 4e-2 / widths
    torch.testing.assert_close(said.double(), reconstruction_by_hand(x, x_0, alpha, sigma, bins), rtol=1e-3, atol=atol)


@pytest.mark.parametrize("bins", [2, 17, 256])
def test_discretised_likelihood_sums_to_one(bins):
    """Over all levels that one pixel can have, given x_0 anywhere, even outside of the levels."""
    x = ((2 * torch.arange(bins) + 1) / bins - 1)[:, None]
    for x_0 in (-1.1, -0.3, 0.0, 0.77, 1.0):
        nats = terms.reconstruction(x, torch.full((bins, 1), x_0), torch.ones(bins), torch.full((bins,), 0.03), bins)
        assert float(torch.exp(-nats.double()).sum()) == pytest.approx(1, abs=2e-3)


def test_the_window_does_not_grow_with_the_levels():
    """At noise of a sixth of a level, 65536 levels make as many numbers as 256; a full sum would make 256 times as
    many."""

    class Counting(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, operation, types, arguments=(), named=None):
            made = operation(*arguments, **(named or {}))
            self.numbers += made.numel() if isinstance(made, torch.Tensor) else 0
            return made

    def numbers(bins: int) -> int:
        x = torch.zeros(4, 10) + 1 / bins
        with Counting() as count:
            terms.reconstruction(x, x.clone(), torch.ones(4), torch.full((4,), 2 / bins / 6), bins)
        return count.numbers

    assert 0 < numbers(65536) < 2 * numbers(256)


def test_density_is_a_gaussian():
    """-log N(x; x_0/alpha, (sigma/alpha)^2) by torch's own normal distribution."""
    x, x_0 = torch.randn(2, 3, 2, 2)
    alpha, sigma = torch.tensor([0.9, 0.5, 1.0]), torch.tensor([0.1, 0.7, 2.0])
    wide = (sigma / alpha)[:, None, None]
    truth = -torch.distributions.Normal(x_0 / alpha[:, None, None], wide).log_prob(x).sum((1, 2))
    torch.testing.assert_close(terms.density(x, x_0, alpha, sigma), truth)


def surprise(x, mean, spread: float, bins: int | None) -> torch.Tensor:
    """-log p(x | z) of an autoencoder whose generator says `mean`; (B,)."""
    posterior = Deterministic(MLPEncoder((1,), width=4), 1)
    model = Autoencoder((1,), bins, posterior, MLPGenerator((1,), 1), StandardNormal(1))
    model.log_spread.data.fill_(math.log(spread))
    return model.surprise(x, mean)


@pytest.mark.parametrize("spread", [0.003, 0.3, 10.0])
@pytest.mark.parametrize("bins", [2, 17, 256])
def test_cells_of_a_gaussian_sum_to_one(bins, spread):
    """The masses of all levels' cells, of which the outer ones reach to infinity, are one wherever the mean is."""
    x = ((2 * torch.arange(bins) + 1) / bins - 1)[:, None]
    for mean in (-1.1, -1.0, 0.13, 1.0):
        mass = torch.exp(-surprise(x, torch.full((bins, 1), mean), spread, bins).double())
        assert float(mass.sum()) == pytest.approx(1, abs=1e-3)


def test_cells_have_their_masses():
    """Against torch's own distribution function, inside and at both edges."""
    x, normal = torch.tensor([[-0.75], [-0.25], [0.25], [0.75]]), torch.distributions.Normal(0.1, 0.4)
    edges = normal.cdf(torch.tensor([-0.5, 0.0, 0.5]))
    truth = torch.stack([edges[0], edges[1] - edges[0], edges[2] - edges[1], 1 - edges[2]])
    torch.testing.assert_close(torch.exp(-surprise(x, torch.full((4, 1), 0.1), 0.4, 4)), truth)


def test_cells_have_finite_gradients_far_away():
    """A generator that is far off, in the outer cells as in the inner ones, is still told where to go."""
    x = torch.tensor([-255 / 256, -255 / 256, 1 / 256, 1 / 256, 255 / 256, 255 / 256])[:, None]
    mean = torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, -3.0])[:, None].requires_grad_()
    value = surprise(x, mean, 0.01, 256)
    (gradient,) = torch.autograd.grad(value.sum(), mean)
    assert value.isfinite().all() and gradient.isfinite().all()
    assert gradient[:, 0].sign().tolist() == [1, 0, 1, -1, 0, -1]  # beyond an outer cell's end nothing is wrong


def test_sliced_and_denoising_score_matching_share_their_minimiser():
    """Score models s(x) = -a x on noisy Gaussian data: sliced score matching is D (a^2 v / 2 - a), least at a = 1/v;
    denoising score matching of the same data has its least value there too. Least squares of a parabola in a."""
    generator = torch.Generator().manual_seed(0)
    x = 0.8 * torch.randn(40_000, 3, generator=generator)
    eps, v = torch.randn(2, 40_000, 3, generator=generator)
    sigma = 0.3
    x_t, at = x + sigma * eps, torch.full((40_000,), sigma)
    variance = 0.64 + sigma**2
    points = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    def sliced(a: float) -> torch.Tensor:
        return terms.sliced_score(lambda y: -a * y, x_t, v).detach()

    def denoising(a: float) -> torch.Tensor:
        said = Prediction.from_eps(a * sigma * x_t, x_t, torch.ones_like(at), at)  # eps = -sigma s
        return terms.denoising(eps, said, torch.ones_like(at))

    for objective in (sliced, denoising):
        losses = torch.stack([objective(float(a)).double().mean() for a in points])
        c2, c1, _ = torch.linalg.solve(torch.stack([points**2, points, points**0], 1), losses)
        assert float(-c1 / (2 * c2)) == pytest.approx(1 / variance, rel=0.02)
    assert float(sliced(1.0).mean()) == pytest.approx(3 * (variance / 2 - 1), rel=0.02)


def test_sliced_score_matching_is_exact_for_a_fixed_direction():
    """v' (grad s) v + 1/2 |s|^2 of a linear score s = A x, worked out: v' A v + 1/2 |A x|^2."""
    torch.manual_seed(0)
    matrix, x, v = torch.randn(4, 4), torch.randn(6, 4), torch.randn(6, 4)
    truth = torch.einsum("bi,ij,bj->b", v, matrix, v) + 0.5 * ((x @ matrix.T) ** 2).sum(1)
    torch.testing.assert_close(terms.sliced_score(lambda y: y @ matrix.T, x, v), truth, rtol=1e-4, atol=1e-4)


def test_mmd_is_unbiased():
    """Its mean over draws from one distribution is zero; from two it is the population value, by pairs of its own."""

    def estimates(shift: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        pairs = [torch.randn(2, 20, 3, generator=generator) for _ in range(400)]
        return torch.stack([terms.mmd(z + shift, prior).mean() for z, prior in pairs]).double()

    same, apart = estimates(0.0), estimates(1.0)
    assert abs(float(same.mean())) < 3 * float(same.std()) / 20

    def kernel(a, b):
        return (6 / (6 + ((a - b) ** 2).sum(1))).mean()

    generator = torch.Generator().manual_seed(1)
    a, b, c, d = torch.randn(4, 200_000, 3, generator=generator)
    population = float(kernel(a + 1, b + 1) + kernel(c, d) - 2 * kernel(a + 1, c))
    assert abs(float(apart.mean()) - population) < 4 * float(apart.std()) / 20
    assert terms.mmd(torch.randn(1, 3), torch.randn(1, 3)).tolist() == [0.0]  # one example says nothing


def test_least_squares_gan_terms():
    """The critic is content at (1, 0), the denoiser at 1; a critic that says 1/2 of everything has lost 1/4."""
    half, zero, one = torch.full((3,), 0.5), torch.zeros(3), torch.ones(3)
    assert terms.judge(one, zero).tolist() == [0.0] * 3 and terms.judge(half, half).tolist() == [0.25] * 3
    assert terms.judge(zero, one).tolist() == [1.0] * 3 and terms.judge(zero, zero).tolist() == [0.5] * 3
    assert terms.fool(one).tolist() == [0.0] * 3 and terms.fool(zero).tolist() == [0.5] * 3


def test_l1_of_a_code():
    """The sum of absolute values, for each example."""
    assert terms.l1(torch.tensor([[1.0, -2.0], [0.0, 0.5]])).tolist() == [3.0, 0.5]


def test_bits_per_dim_of_a_uniform_guess():
    """Guessing each of 256 levels alike costs log 256 nats a number, which is 8 bits; of 5 levels log2 5."""
    for bins, shape in [(256, (3, 4, 4)), (5, (7,))]:
        assert bits_per_dim(math.prod(shape) * math.log(bins), shape) == pytest.approx(math.log2(bins))
