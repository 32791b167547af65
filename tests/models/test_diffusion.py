"""The diffusion model as a whole: whose gradient goes where, what low precision may touch, what dropping means."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from diffrep.codes.posteriors import Deterministic, Gaussian
from diffrep.codes.priors import StandardNormal
from diffrep.denoising import terms
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, coarse, likelihood, share
from diffrep.denoising.noise import LearnedGamma, LinearGamma
from diffrep.denoising.parameterisations import EDM, X
from diffrep.errors import UserError
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.step_terms import denoise, fool, in_steps, prior, rate, reconstruct
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import MLPDecoder
from diffrep.nets.encoders import MLPEncoder
from diffrep.shapes import Batch, Draws
from oracles import ExactNetwork, bound_nats
from oracles import Gaussian as GaussianData

ENDS = (-7.0, 4.0)


def model(noise=None, bins=None, drop=0.0, timed=False, gaussian=True, extra=None) -> DiffusionModel:
    torch.manual_seed(0)
    encoder = MLPEncoder((6,), width=16, depth=2, time=timed)
    return DiffusionModel(
        (6,),
        bins,
        Denoiser(
            MLPDecoder((6,), width=16, blocks=1, conditioning=Conditioning(3)), noise or LinearGamma(*ENDS), EDM(0.5)
        ),
        Objective({"diffusion": denoise, **({"rate": rate} if gaussian else {}), **(extra or {})}, Levels(likelihood)),
        Coding((Gaussian if gaussian else Deterministic)(encoder, 3, timed), StandardNormal(3), drop=drop),
    )


def batch(size: int = 12, seed: int = 0, bins: int | None = None) -> Batch:
    generator = torch.Generator().manual_seed(9)
    x = 0.5 * torch.randn(size, 6, generator=generator)
    if bins:
        x = (((x.clamp(-0.99, 0.99) + 1) * bins / 2).floor() + 0.5) * 2 / bins - 1
    return Batch(x, torch.arange(size), draws=Draws.of(seed))


def test_the_inside_of_gamma_follows_the_squared_loss():
    """Two routes: the hook in the one backward of the mean loss, and autograd of mean(loss^2) / D on the same draws;
    the weights of the networks get the gradient of the mean loss and nothing else."""
    noise = LearnedGamma(*ENDS, hidden=8)
    hooked, plain = model(noise), model(deepcopy(noise))
    sum(term.mean() for term in hooked.loss(batch()).values()).backward()

    draws, x = Draws.of(0), batch().x
    t = plain.levels.draw(plain.noise, draws, len(x))
    eps = draws.normal(*x.shape)
    code = plain.posterior(x)
    z = code.sample(draws.normal(*code.mean.shape))
    said = plain.denoiser(plain.noise.add(x, eps, t), t, z)
    loss = 0.5 * likelihood(plain.noise, t) * ((eps - said.eps) ** 2).sum(1)
    own = [p for p in plain.noise.parameters()]
    for ours, theirs in zip(
        hooked.noise.parameters(), torch.autograd.grad((loss**2).mean() / 6, own, retain_graph=True), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-3, atol=1e-4)
    (loss.mean() + plain.prior.rate(code, z).mean()).backward()
    for part in ("denoiser.network", "posterior"):
        pairs = zip(hooked.get_submodule(part).parameters(), plain.get_submodule(part).parameters(), strict=True)
        for ours, theirs in pairs:
            assert (ours.grad is None) == (theirs.grad is None)
            if ours.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_training_the_inside_of_gamma_lowers_the_variance():
    """With an exact denoiser that does not move, the mean of the loss stays where it is and its variance falls."""
    torch.manual_seed(0)
    data = GaussianData.of(6)
    noise = LearnedGamma(-9.0, 5.0, hidden=16)
    exact = DiffusionModel(
        (6,), None, Denoiser(ExactNetwork(data), noise, X()), Objective({"diffusion": denoise}, Levels(likelihood))
    )
    exact.denoiser.network.requires_grad_(False)

    def losses(seed: int, size: int) -> torch.Tensor:
        x = data.draw(size, seed).float()
        return exact.loss(Batch(x, torch.arange(size), draws=Draws.of(seed)))["diffusion"]

    before = losses(1, 20_000).detach().double()
    optimiser = torch.optim.Adam(noise.parameters(), lr=0.02)
    for step in range(150):
        optimiser.zero_grad()
        losses(100 + step, 256).mean().backward()
        optimiser.step()
    after = losses(1, 20_000).detach().double()
    assert float(after.var()) < 0.9 * float(before.var())
    error = float((before.var() + after.var()).sqrt()) / 20_000**0.5
    assert abs(float(before.mean() - after.mean())) < 4 * error


def test_every_part_has_a_gradient_at_the_first_step():
    """The code is heard at once: no layer at zero stands between the loss and the encoder."""
    tried = model(drop=0.5)
    sum(term.mean() for term in tried.loss(batch()).values()).backward()
    for groups in tried.players().values():
        for parameters in groups.values():
            assert parameters and all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    diffusion = model(gaussian=False)
    diffusion.loss(batch())["diffusion"].mean().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in diffusion.posterior.parameters())


def test_players_hold_every_parameter_once():
    """Nothing is trained twice and nothing is forgotten."""
    tried = model(LearnedGamma(*ENDS, hidden=8))
    owned = [id(p) for groups in tried.players().values() for parameters in groups.values() for p in parameters]
    assert sorted(owned) == sorted(id(p) for p in tried.parameters())
    assert set(tried.players()["model"]) == {"decoder", "noise", "encoder"}


def test_a_dropped_code_is_the_null_code():
    """Where the code is dropped the prediction is the one without a code, elsewhere the one with it; about the share
    asked for is dropped."""
    tried = model(drop=0.5)
    step = tried.noised(batch(200))
    without, with_code = (tried.denoiser(step.x_t, step.t, z) for z in (None, step.z))
    dropped = step.kept == 0
    torch.testing.assert_close(step.prediction.x[dropped], without.x[dropped])
    torch.testing.assert_close(step.prediction.x[~dropped], with_code.x[~dropped])
    assert 70 < int(dropped.sum()) < 130


def test_parts_of_a_batch_make_the_same_loss():
    """A step cut in two sees the times, the noise and the codes of the whole: its losses, one after the other."""
    tried, whole = model(drop=0.3), batch(12)
    halves = [
        Batch(x, torch.arange(6), draws=Draws.of(0, shard=part, shards=2)) for part, x in enumerate(whole.x.split(6))
    ]
    expected = tried.loss(whole)
    parts = [tried.loss(half) for half in halves]
    for name, nats in expected.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), nats, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noise", [LinearGamma(*ENDS), LearnedGamma(*ENDS, hidden=8)], ids=["linear", "learned"])
def test_low_precision_touches_networks_alone(noise):
    """Under bf16 every term is float32, and times, log-SNR and x_t are what they are without it, bit by bit."""
    tried = model(noise)
    plain = tried.noised(batch())
    with torch.autocast("cpu", torch.bfloat16):
        low, loss = tried.noised(batch()), tried.loss(batch())
    for name in ("t", "log_snr", "x_t", "weight", "eps"):
        assert torch.equal(getattr(plain, name), getattr(low, name))
    assert {nats.dtype for nats in loss.values()} == {torch.float32}
    assert not torch.equal(plain.prediction.eps, low.prediction.eps)  # the network did run in bf16
    torch.testing.assert_close(plain.prediction.eps, low.prediction.eps, rtol=0, atol=0.2)


def test_a_timed_code_hears_its_time():
    """The code of one x changes with t; a code that does not depend on t says so when asked for one at t."""
    timed, plain, x = model(timed=True), model(), batch().x
    early, late = timed.encode(x, 0.1), timed.encode(x, torch.full((12,), 0.9))
    assert not torch.allclose(early.mean, late.mean)
    torch.testing.assert_close(timed.encode(x).mean, timed.encode(x, 0.5).mean)
    with pytest.raises(UserError, match="does not depend on t"):
        plain.encode(x, 0.5)
    with pytest.raises(UserError, match="time-conditioned"):
        timed.bound(batch())


def test_codes_of_the_wrong_size_are_named():
    """Before anything is computed, with both sizes."""
    with pytest.raises(UserError, match=r"\(4, 3\), got \(4, 2\)"):
        model().decode(torch.zeros(4, 2), 4, Draws.of(0))


def test_the_ends_of_a_learned_range():
    """With learned ends the loss holds prior and reconstruction, and its mean over ideal denoisers is the bound's:
    -log p(x) + what the ends cost; so the ends have a gradient that is that of the cost."""
    data = GaussianData.of(6)
    x = data.draw(20_000).float()

    def total(ends: tuple[float, float]) -> tuple[float, float, torch.Tensor]:
        noise = LinearGamma(*ends, learned=True)
        exact = DiffusionModel(
            (6,),
            None,
            Denoiser(ExactNetwork(data), noise, X()),
            Objective({"diffusion": denoise, "prior": prior, "reconstruction": reconstruct}, Levels(likelihood)),
        )
        nats = sum(exact.loss(Batch(x, torch.arange(len(x)), draws=Draws.of(0))).values())
        nats.mean().backward()
        gap = nats.detach().double() + data.log_prob(x.double())
        return float(gap.mean()), float(gap.std()) / len(x) ** 0.5, noise.ends.grad

    mean, error, slope = total((-4.0, 3.0))
    assert abs(mean - bound_nats(data, -4.0, 3.0)) < 3.5 * error
    h = 0.01
    by_ends = [
        (bound_nats(data, -4.0 + h, 3.0) - bound_nats(data, -4.0 - h, 3.0)) / (2 * h),
        (bound_nats(data, -4.0, 3.0 + h) - bound_nats(data, -4.0, 3.0 - h)) / (2 * h),
    ]
    torch.testing.assert_close(slope.double(), torch.tensor(by_ends).double(), rtol=0.1, atol=0.05)


def test_a_finite_chain_is_the_sum_over_its_steps():
    """`in_steps` looks from t back to t - 1/T: its mean on the grid is the hand-made loss of each step."""
    data, steps = GaussianData.of(6), 8
    noise = LinearGamma(*ENDS)
    chain = DiffusionModel(
        (6,), None, Denoiser(ExactNetwork(data), noise, X()), Objective({"d": in_steps(steps)}, Levels(steps=steps))
    )
    x = data.draw(40_000).float()
    nats = chain.loss(Batch(x, torch.arange(len(x)), draws=Draws.of(0)))["d"].detach().double()
    values = data.spectrum[0]
    snr = torch.exp(-torch.linspace(*ENDS, steps + 1, dtype=torch.float64))
    missing = (values / (1 + snr[1:, None] * values)).sum(1)
    exact = float(((snr[:-1] - snr[1:]) * missing).sum() / 2)
    assert abs(float(nats.mean()) - exact) < 4 * float(nats.std()) / len(x) ** 0.5


def test_the_rate_of_a_model_with_grey_levels():
    """The bound's rate is the KL of the code it encodes to, and its reconstruction that of x_0 at the clean end."""
    tried, data = model(bins=16), batch(200, bins=16)
    said = tried.bound(data)
    code = tried.encode(data.x)
    torch.testing.assert_close(said["rate"], tried.prior.rate(code, code.mean))
    alpha, sigma = tried.noise.scales(torch.zeros(200))
    x_0 = tried.noise.add(data.x, torch.randn(200, 6), torch.zeros(200))
    other = terms.reconstruction(data.x, x_0, alpha, sigma, 16)
    error = float((said["reconstruction"].var() + other.var()).sqrt()) / 200**0.5
    assert abs(float(said["reconstruction"].mean() - other.mean())) < 4 * error + 1e-4


def test_the_critic_judges_what_it_is_shown():
    """The critic's player sees x and the denoised x without a gradient to the model; the model's player fools it."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.scale * x.sum(1)

    torch.manual_seed(0)
    denoiser = Denoiser(MLPDecoder((6,), width=16, blocks=1), LinearGamma(*ENDS), EDM(0.5))
    tried = DiffusionModel((6,), None, denoiser, Objective({"fool": fool}, Levels(likelihood)), critic=Sum())
    data = batch()
    judged = tried.loss(data, "critic")["judge"]
    fake = tried.noised(batch()).prediction.x
    torch.testing.assert_close(judged, 0.5 * (data.x.sum(1) - 1) ** 2 + 0.5 * fake.detach().sum(1) ** 2)
    judged.mean().backward()
    assert all(p.grad is None for p in denoiser.parameters()) and tried.critic.scale.grad is not None
    torch.testing.assert_close(tried.loss(batch())["fool"], 0.5 * (fake.sum(1) - 1) ** 2)
    assert set(tried.players()) == {"model", "critic"}


def test_levels_that_teach_the_code_gate_the_decoders_gradient_alone():
    """In float64: each example's gradient of the denoising loss to its z is gate times the ungated one, that of the
    decoder's weights and the losses are the same, and so is what the rate sends back."""

    def gradients(gate):
        made = model(drop=0.5).double()
        made.gate = gate
        with torch.random.fork_rng():
            step = made.noised(Batch(batch().x.double(), torch.arange(12), draws=Draws.of(0)))
        values = {name: term(step) for name, term in made.terms.items()}
        weights = [*made.denoiser.network.parameters()]
        to_z = torch.autograd.grad(values["diffusion"].sum(), step.z, retain_graph=True)[0]
        to_weights = torch.autograd.grad(values["diffusion"].sum(), weights, retain_graph=True, allow_unused=True)
        to_mean = torch.autograd.grad(values["rate"].sum(), step.code.mean)[0]
        return step, values, to_z, to_weights, to_mean

    chosen = share(coarse(768), likelihood)
    step, values, to_z, to_weights, to_mean = gradients(chosen)
    _, plain, whole, plain_weights, plain_mean = gradients(None)
    u = step.log_snr.double() + 3
    torch.testing.assert_close(
        chosen(step.model.noise, step.t).double(), 1 / torch.cosh(u / 2) ** 2, rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close(to_z, whole * chosen(step.model.noise, step.t)[:, None])
    assert all(torch.equal(values[name], plain[name]) for name in values)
    for one, other in zip(to_weights, plain_weights, strict=True):
        assert one is other is None or torch.equal(one, other)
    assert torch.equal(to_mean, plain_mean)
