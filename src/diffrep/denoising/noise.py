"""Forward processes: the scales alpha and sigma of signal and noise in x_t at each time t."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.shapes import Data, PerExample, Time, expand, sum_features

HALVINGS = 30  # of [0, 1], to within 1e-9


class Noise(nn.Module, ABC):
    """Gaussian forward process q(x_t | x) = N(alpha x, sigma^2 I), for t in [0, 1] (0 is data, 1 is noise).

    A process states `log_scales`; everything else follows by differentiation (Song et al. 2021, Eq. 5).
    It states logarithms because float32 cannot hold 1 - alpha where the data is nearly clean.
    """

    learns_ends: bool = False  # True: the loss has the terms prior and reconstruction
    free_inside: bool = False  # True: gamma between its ends is trained on the variance of the loss, not on its mean

    @abstractmethod
    def log_scales(self, t: Time) -> tuple[Time, Time]:
        """(log alpha, log sigma) at t, each of t's shape; float32."""

    def scales(self, t: Time) -> tuple[Time, Time]:
        """Signal and noise scale (alpha, sigma) at t, each of t's shape; float32."""
        log_alpha, log_sigma = self.log_scales(t)
        return log_alpha.exp(), log_sigma.exp()

    def log_snr(self, t: Time) -> Time:
        """log(alpha^2 / sigma^2): squares, so a factor of two against log(alpha / sigma)."""
        log_alpha, log_sigma = self.log_scales(t)
        return 2 * (log_alpha - log_sigma)

    def log_snr_slope(self, t: Time) -> Time:
        """d log_snr / dt, negative; differentiable again where the process has parameters."""
        return self._slope(self.log_snr, t)

    def drift_diffusion(self, t: Time) -> tuple[Time, Time]:
        """f and g of dx = f x dt + g dw: f = d log alpha / dt, g^2 = -sigma^2 d log_snr / dt (VDM, Appendix A)."""
        f = self._slope(lambda u: self.log_scales(u)[0], t)
        _, sigma = self.scales(t)
        return f, (-self.log_snr_slope(t)).clamp(min=0).sqrt() * sigma

    def add(self, x: Data, eps: Data, t: Time) -> Data:
        """x_t = alpha x + sigma eps, a draw from the marginal q(x_t | x)."""
        alpha, sigma = self.scales(t)
        return expand(alpha, x) * x + expand(sigma, x) * eps

    def time(self, log_snr: Time) -> Time:
        """The t in [0, 1] at which the process has this log-SNR, by bisection (log_snr falls in t); no gradient."""
        with torch.no_grad():
            low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                noisier = self.log_snr(middle) > log_snr
                low, high = torch.where(noisier, middle, low), torch.where(noisier, high, middle)
            return (low + high) / 2

    def start_scale(self) -> Tensor:
        """The standard deviation sqrt(alpha_1^2 + sigma_1^2) of p(x_1) = N(0, . I), from which sampling starts; ().

        It has the device and the precision of the numbers of the process."""
        own = next((p for p in [*self.parameters(), *self.buffers()]), torch.empty(0))
        alpha, sigma = self.scales(torch.ones(1, device=own.device, dtype=own.dtype))
        return (alpha**2 + sigma**2).sqrt()[0]

    def prior_loss(self, x: Data, start: tuple[Tensor, Tensor] | None = None) -> PerExample:
        """KL(q(x_1 | x) || p(x_1)) in nats (VDM, Eq. 11). start: mean and standard deviation of p(x_1), else 0 and
        start_scale."""
        alpha, sigma = self.scales(torch.ones(len(x), device=x.device))
        mean, std = (0.0, self.start_scale()) if start is None else start
        ratio = expand(sigma, x) / std
        return 0.5 * sum_features(ratio**2 + ((expand(alpha, x) * x - mean) / std) ** 2 - 1 - 2 * ratio.log())

    def _slope(self, function: Callable[[Time], Time], t: Time) -> Time:
        with torch.enable_grad():
            u = t if t.requires_grad else t.detach().requires_grad_()
            learned = any(p.requires_grad for p in self.parameters())
            (slope,) = torch.autograd.grad(function(u).sum(), u, create_graph=learned or t.requires_grad)
        return slope if torch.is_grad_enabled() else slope.detach()


class VE(Noise):
    """Variance exploding: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021, Eq. 30; DRL)."""

    sigma: Tensor

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        super().__init__()
        _positive_range("VE sigma_min, sigma_max", sigma_min, sigma_max)
        self.register_buffer("sigma", torch.tensor([sigma_min, sigma_max]), persistent=False)

    def log_scales(self, t: Time) -> tuple[Time, Time]:
        low, high = self.sigma.log()
        return 0 * t, low + t * (high - low)


class VP(Noise):
    """Variance preserving: log alpha = -t^2 (beta_1 - beta_0) / 4 - t beta_0 / 2, sigma^2 = 1 - alpha^2 (Eq. 33).

    Times below t_min count as t_min, as in Song et al. 2021 (Appendix C): at t = 0 the log-SNR would be infinite.
    """

    beta: Tensor

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-5):
        super().__init__()
        _positive_range("VP beta_min, beta_max", beta_min, beta_max)
        self.register_buffer("beta", torch.tensor([beta_min, beta_max]), persistent=False)
        self.t_min = t_min

    def log_scales(self, t: Time) -> tuple[Time, Time]:
        log_alpha = _log_alpha_vp(t.clamp(min=self.t_min), self.beta)
        return log_alpha, 0.5 * torch.log(-torch.expm1(2 * log_alpha))


class SubVP(Noise):
    """Sub-VP: alpha as in VP, sigma = 1 - alpha^2 (Song et al. 2021, Eq. 36)."""

    beta: Tensor

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3):
        super().__init__()
        _positive_range("SubVP beta_min, beta_max", beta_min, beta_max)
        self.register_buffer("beta", torch.tensor([beta_min, beta_max]), persistent=False)
        self.t_min = t_min

    def log_scales(self, t: Time) -> tuple[Time, Time]:
        log_alpha = _log_alpha_vp(t.clamp(min=self.t_min), self.beta)
        return log_alpha, torch.log(-torch.expm1(2 * log_alpha))


class Cosine(Noise):
    """alpha = cos(pi u / 2), sigma = sin(pi u / 2), u linear in t between the stated log-SNRs (Nichol 2021)."""

    ends: Tensor

    def __init__(self, log_snr_min: float = -15.0, log_snr_max: float = 15.0):
        super().__init__()
        if not log_snr_min < log_snr_max:
            raise ValueError(f"Cosine expects log_snr_min < log_snr_max, got {log_snr_min} and {log_snr_max}")
        ends = torch.atan(torch.tensor([-log_snr_max / 2, -log_snr_min / 2], dtype=torch.float64).exp()) * 2 / math.pi
        self.register_buffer("ends", ends.float(), persistent=False)

    def log_scales(self, t: Time) -> tuple[Time, Time]:
        angle = (self.ends[0] + t * (self.ends[1] - self.ends[0])) * math.pi / 2
        return angle.cos().log(), angle.sin().log()


class LinearGamma(Noise):
    """gamma = gamma_0 + (gamma_1 - gamma_0) t, variance preserving (VDM, Eqs. 3, 4). Its ends may be learned."""

    ends: Tensor

    def __init__(self, gamma_0: float = -13.3, gamma_1: float = 5.0, learned: bool = False):
        super().__init__()
        _rising("gamma_0, gamma_1", gamma_0, gamma_1)
        ends, self.learns_ends = torch.tensor([float(gamma_0), float(gamma_1)]), learned
        if learned:
            self.ends = nn.Parameter(ends)
        else:
            self.register_buffer("ends", ends, persistent=False)

    def log_scales(self, t: Time) -> tuple[Time, Time]:
        return _log_scales_of(self.ends[0] + (self.ends[1] - self.ends[0]) * t)


class LearnedGamma(Noise):
    """A monotone network between pinned ends: gamma = gamma_0 + (gamma_1 - gamma_0) (l(t) - l(0)) / (l(1) - l(0)).

    l(t) = l1(t) + l3(phi(l2(2t - 1))) with |weights| and phi = 2 sigmoid - 1 (VDM, Appendix H); the continuous bound
    depends on gamma through its ends alone, so the values between them can lower the variance of the estimate.
    """

    free_inside = True

    ends: Tensor

    def __init__(self, gamma_0: float = -13.3, gamma_1: float = 5.0, hidden: int = 1024):
        super().__init__()
        _rising("gamma_0, gamma_1", gamma_0, gamma_1)
        self.register_buffer("ends", torch.tensor([float(gamma_0), float(gamma_1)]), persistent=False)
        self.l1 = nn.Parameter(torch.tensor([gamma_1 - gamma_0]))  # with an axis, along which FSDP cuts
        self.l2_weight, self.l2_bias = nn.Parameter(torch.randn(hidden)), nn.Parameter(torch.randn(hidden))
        self.l3 = nn.Parameter(torch.randn(hidden))

    def log_scales(self, t: Time) -> tuple[Time, Time]:
        return _log_scales_of(self.gamma(t))

    def gamma(self, t: Time) -> Time:
        """-log_snr at t; exactly gamma_0 at 0 and gamma_1 at 1."""
        start, end = self._monotone(torch.zeros_like(t[:1])), self._monotone(torch.ones_like(t[:1]))
        return self.ends[0] + (self.ends[1] - self.ends[0]) * (self._monotone(t) - start) / (end - start)

    def _monotone(self, t: Time) -> Time:
        hidden = 2 * torch.sigmoid(self.l2_weight.abs() * (2 * t[:, None] - 1) + self.l2_bias) - 1
        return self.l1.abs() * t + (hidden * self.l3.abs()).sum(1) / len(self.l3)


def variance_gradient(
    scales: tuple[Time, Time], log_snr: Time, weight: Tensor, dims: int
) -> tuple[tuple[Time, Time], Time, Tensor, Callable[[PerExample], None]]:
    """The same values, with the gradient of loss^2 to the noise process in place of that of loss (VDM, Appendix I.2).

    Between its ends gamma(t) changes the variance of the loss and not its mean. Since d loss^2 = 2 loss d loss, the
    backward pass multiplies each example's gradient by twice its loss, which `settle` must state first. The loss is
    divided by the number of dimensions, so that the size of the gradient depends little on the data.
    """
    factor: list[Tensor] = []

    def scaled(value: Time) -> Time:
        if not value.requires_grad:
            return value
        value = value.clone()
        value.register_hook(lambda gradient: gradient * factor[0])
        return value

    def settle(loss: PerExample) -> None:
        factor.append(2 * loss / dims)

    return (scaled(scales[0]), scaled(scales[1])), scaled(log_snr), scaled(weight), settle


def _log_alpha_vp(t: Time, beta: Tensor) -> Time:
    return -0.25 * t**2 * (beta[1] - beta[0]) - 0.5 * t * beta[0]


def _log_scales_of(gamma: Time) -> tuple[Time, Time]:
    """alpha^2 = sigmoid(-gamma), sigma^2 = sigmoid(gamma)."""
    return 0.5 * F.logsigmoid(-gamma), 0.5 * F.logsigmoid(gamma)


def _rising(names: str, low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"{names}: expected the first below the second, got {low} and {high}")


def _positive_range(names: str, low: float, high: float) -> None:
    if not 0 < low < high:
        raise ValueError(f"{names}: expected 0 < first < second, got {low} and {high}")
