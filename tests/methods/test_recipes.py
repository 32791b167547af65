"""Every method on an image, a signal and a vector: it trains, and does all that it can; what it cannot, it says."""

import itertools
import math

import pytest
import torch
from torch import nn

from diffrep import config
from diffrep.config import Settings, override
from diffrep.denoising.build import DETAILS
from diffrep.denoising.noise import VE
from diffrep.denoising.samplers import Sampling
from diffrep.errors import UserError
from diffrep.methods.catalog import METHODS, build, method
from diffrep.methods.parts import Facts
from diffrep.models.contrast import nt_xent
from diffrep.shapes import Batch, Draws, expand

pytestmark = pytest.mark.slow

SMALL = (
    "decoder.width=4",
    "decoder.multipliers=[1, 2]",
    "encoder.width=4",
    "encoder.depth=1",
    "code.dim=3",
    "code.drop=0.5",
)
NOISES = {
    "ve": "VE",
    "vp": "VP",
    "subvp": "SubVP",
    "cosine": "Cosine",
    "linear": "LinearGamma",
    "learned-ends": "LinearGamma",
    "learned": "LearnedGamma",
}  # word of noise.kind -> class
PREDICTS = {"eps": "Eps", "x": "X", "v": "V", "score": "Score", "edm": "EDM", "marginal": "MarginalMixture"}
FIRST = -3 - math.log(5 / 768)  # log-SNR at which the coarsest of five numbers shows
LOOKS = {
    "uniform": lambda slope, log_snr: torch.ones_like(slope),
    "likelihood": lambda slope, log_snr: slope,
    "high-noise": lambda slope, log_snr: slope / torch.exp(log_snr / 2),
    "low-noise": lambda slope, log_snr: slope / (1 + torch.exp(-log_snr)),
    "coarse": lambda slope, log_snr: slope / torch.cosh((log_snr - FIRST) / 2) ** 2,
    "balanced": lambda slope, log_snr: slope / torch.cosh((log_snr - (FIRST + 0.5) / 2) / 2.5 / 2) ** 2,
    "fine": lambda slope, log_snr: slope / torch.cosh((log_snr - 0.5) / 2) ** 2,
    "band:-2:3": lambda slope, log_snr: slope * ((log_snr >= -2) & (log_snr <= 3)),
}  # level of detail of five numbers -> its measure of t, by -d log_snr / dt and log-SNR
KINDS = {"image": ((1, 6, 5), 4), "signal": ((2, 9), None), "vector": ((5,), None)}
CODELESS = {name for name, method in METHODS.items() if not method.has_code}
ENCODERS = {name for name, method in METHODS.items() if not method.decodes}
AUTOENCODERS = {name for name, method in METHODS.items() if method.decodes and method.noise is None}
TIMED = {"tdrl", "tvdrl"}
CRITIC = {"adversarial", "adversarial-drl"}


def data(kind: str, size: int = 16) -> Batch:
    shape, bins = KINDS[kind]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, *shape, generator=generator)
    if bins:
        x = (2 * torch.randint(0, bins, x.shape, generator=generator) + 1) / bins - 1
    return Batch(x, torch.arange(size), label=torch.arange(size) % 3, draws=Draws.of(0))


def made(name: str, kind: str, *changes: str):
    shape, bins = KINDS[kind]
    settings = config.override(config.Settings(method=name), [*SMALL, *changes])
    return build(settings, Facts(shape, bins, classes=3))


SIGNALS = {"vae-vdm", "tdrl", "adversarial", "pdae", "soda-simclr", "mae", "vae", "byol"}  # one of each kind of model


def every(names=METHODS):
    """Methods on each kind of data; signals, whose networks are those of images, by all methods in the long form."""
    marks = {name: [] if name in SIGNALS else [pytest.mark.long] for name in names}
    return [
        pytest.param(name, kind, id=f"{name}-{kind}", marks=marks[name] if kind == "signal" else [])
        for name in names
        for kind in KINDS
    ]


@pytest.mark.parametrize("name, kind", every(sorted(set(METHODS) - {"random-encoder"})))
def test_every_parameter_learns_from_the_first_step(name, kind):
    """Each player's parameters all get a finite gradient, the encoder's a nonzero one: a code that is not heard at the
    first step is often never heard (trap: a zero-initialised layer between code and loss)."""
    model = made(name, kind)
    assert set(model.players()) == ({"model", "critic"} if name in CRITIC else {"model"})
    for player, groups in model.players().items():
        model.zero_grad(set_to_none=True)
        loss = sum(model.loss(data(kind), player).values())
        assert loss.shape == (16,) and loss.isfinite().all()
        loss.mean().backward()
        for group, parameters in groups.items():
            assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters), group
            assert sum(float(p.grad.abs().sum()) for p in parameters) > 0, group
    owned = [id(p) for groups in model.players().values() for parameters in groups.values() for p in parameters]
    assert sorted(owned) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", sorted(set(METHODS) - CODELESS - AUTOENCODERS - ENCODERS))
def test_the_data_alone_reaches_the_encoder(name):
    """Without its price, the code's gradient is that of denoising: it is not zero at the first step for any method."""
    model = made(name, "image", "code.drop=0.0")
    terms = model.loss(data("image"))
    next(terms[term] for term in ("denoising", "diffusion") if term in terms).mean().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in model.posterior.parameters() if p.ndim > 1)


@pytest.mark.parametrize("name, kind", every(sorted(set(METHODS) - ENCODERS)))
def test_what_a_method_can_do(name, kind):
    """Encode, reconstruct, sample, invert, bound: of the shape of the data, finite; or a UserError says why not."""
    model, batch = made(name, kind).eval(), data(kind, 4)
    x, shape = batch.x, batch.x.shape
    options = {"steps": 3}

    def holds(y: torch.Tensor, size: int = 4) -> None:
        assert y.shape == (size, *shape[1:]) and y.isfinite().all()
        assert KINDS[kind][1] is None or float(y.abs().max()) <= 1

    holds(model.sample(4, Draws.of(0), **options))
    if name in CODELESS:
        assert not model.has_code
        for ask in (lambda: model.encode(x), lambda: model.reconstruct(x, Draws.of(0), **options)):
            with pytest.raises(UserError, match="no code"):
                ask()
    else:
        code = model.encode(x)
        assert code.mean.shape == (4, 3) and code.mean.isfinite().all()
        holds(model.reconstruct(x, Draws.of(0), per_code=2, **options), 8)
        holds(model.interpolate(x[:1], x[1:2], 5, **options), 5)
        assert model.timed == (name in TIMED)
    if name in AUTOENCODERS:
        with pytest.raises(UserError, match="without noise"):
            model.invert(x)
    else:
        assert model.invert(x, steps=3).shape == shape
        assert model.reconstruct_exactly(x, steps=3).shape == shape
    if METHODS[name].has_bound:
        bound = model.bound(batch, levels=2)
        assert sum(bound.values()).shape == (4,) and sum(bound.values()).isfinite().all()
        assert ("rate" in bound) == model.has_code
    else:
        with pytest.raises(UserError, match="no finite rate"):
            model.bound(batch)


@pytest.mark.parametrize("name, kind", every(sorted(ENCODERS)))
def test_a_method_that_only_encodes_says_so(name, kind):
    """It gives codes, and one sentence for all that would need a decoder."""
    model, batch = made(name, kind).eval(), data(kind, 4)
    assert model.encode(batch.x).mean.shape == (4, 3) and model.has_code and not model.timed
    assert bool(model.players()["model"]) == (name != "random-encoder")  # the floor, on which nothing learns
    asked = {
        "no examples": (
            lambda: model.sample(2),
            lambda: model.reconstruct(batch.x),
            lambda: model.interpolate(batch.x[:1], batch.x[1:2]),
        ),
        "no x_1": (lambda: model.invert(batch.x),),
        "no noise": (lambda: model.denoising_by_level(batch),),
        "no bound": (lambda: model.bound(batch),),
        "no probability flow": (lambda: model.flow_bound(batch),),
        "does not depend on t": (lambda: model.encode(batch.x, 0.5),),
    }
    for said, asks in asked.items():
        for ask in asks:
            with pytest.raises(UserError, match=said):
                ask()


@pytest.mark.parametrize("name", sorted(set(METHODS) - CODELESS - ENCODERS))
def test_reconstructions_start_from_the_code(name):
    """Two examples with one noise decode apart, one code with one noise alike."""
    model, x = made(name, "vector").eval(), data("vector", 2).x
    same = x[:1].expand(2, -1)
    path = model.code_path(torch.cat([same, x]))
    noise = torch.randn(1, 5).expand(4, -1)
    y = model.decode(path, 4, Draws.of(0), Sampling("heun", 4), noise)
    torch.testing.assert_close(y[0], y[1])
    assert (y[2] - y[3]).abs().max() > 1e-6


def test_the_seed_names_the_weights():
    """The same settings make the same model whatever was drawn before, another seed another; drawing goes on as if
    nothing had been built."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = made("vae-vdm", "vector").state_dict()
    assert torch.equal(torch.rand(1), expected)
    again, other = made("vae-vdm", "vector").state_dict(), made("vae-vdm", "vector", "seed=1").state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "name, changes, patch",
    [
        ("drl", (), 4),
        ("soda", (), 4),
        ("soda-simclr", (), 4),
        ("drl", ("detail=uniform",), 1),
        ("drl", ("decoder.patch=2",), 2),
        ("vae-vdm", (), 1),
        ("vae-vdm", ("detail=coarse",), 1),  # teaches the code; the decoder learns from all
    ],
)
def test_a_coarse_loss_has_a_decoder_of_patches(name, changes, patch):
    """28x28 pictures: 7x7 patches where the loss is coarse, pixels where it looks at all levels; the settings win."""
    chosen = override(Settings(), [f"method={name}", *SMALL, *changes])
    net = build(chosen, Facts((1, 28, 28), 4)).denoiser.network
    assert net.patch == patch and net.stem.in_channels == net.inputs * patch**2


@pytest.mark.parametrize(
    "shape, changes, dim",
    [((1, 8, 8), (), 32), ((1, 16, 16), (), 64), ((255,), (), 32), ((1, 28, 28), ("code.dim=5",), 5)],
)
def test_a_code_is_larger_for_larger_examples(shape, changes, dim):
    """32 numbers, or 64 for 256 of x or more; the settings win."""
    small = [change for change in SMALL if not change.startswith("code.dim")]
    model = build(override(Settings(), ["method=drl", *small, *changes]), Facts(shape, None))
    assert model.encode(torch.zeros(2, *shape)).mean.shape == (2, dim)


def test_a_patch_larger_than_the_picture_is_refused():
    """All else would be padding: the longest side is the largest patch, and one more is a mistake."""
    facts = Facts((1, 6, 5), 4)
    largest = build(override(Settings(), ["method=drl", *SMALL, "decoder.patch=6"]), facts).denoiser.network
    assert largest.patch == 6
    with pytest.raises(UserError, match=r"decoder\.patch is 7 and the longest side of an example is 6"):
        build(override(Settings(), ["method=drl", *SMALL, "decoder.patch=7"]), facts)


@pytest.mark.parametrize("method", ["vae-vdm", "vdrl"])
def test_the_held_rate_grows_with_the_code(method):
    """12 nats in 32 numbers, 22 in 64, or what the settings say."""
    for shape, own, nats in (((1, 8, 8), (), 12), ((1, 16, 16), (), 22), ((1, 8, 8), ("code.rate=3",), 3)):
        changes = ["decoder.width=4", "decoder.multipliers=[1, 2]", "encoder.width=4", *own]
        assert build(override(Settings(method=method), changes), Facts(shape, 4)).target == nats


def test_the_clean_end_follows_the_levels():
    """Where the settings leave gamma_0 open, sigma_0 / alpha_0 is an eighth of the distance of two grey levels, or what
    noise.sigma_0 says."""
    for bins, share in itertools.product((2, 16, 256, 65536), (1 / 8, 1 / 6)):
        facts, own = Facts((1, 6, 5), bins), [] if share == 1 / 8 else [f"noise.sigma_0={share}"]
        model = build(config.override(config.Settings(method="vdm"), [*SMALL, "predicts=eps", *own]), facts)
        alpha, sigma = model.noise.scales(torch.zeros(1))
        assert float(sigma) == pytest.approx(2 / bins * share, rel=0.03)  # sigma, of which alpha = 1 nearly
        assert float(alpha) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("predicts", PREDICTS)
def test_noises_and_predictions_combine(noise, predicts):
    """Any of one with any of the other is what its name says, predicts x and eps that make up x_t, and trains."""
    model = made("drl", "image", f"noise.kind={noise}", f"predicts={predicts}")
    assert type(model.noise).__name__ == NOISES[noise]
    assert type(model.denoiser.parameterisation).__name__ == PREDICTS[predicts]
    step = model.noised(data("image"))
    alpha, sigma = (expand(scale, step.x) for scale in model.noise.scales(step.t))
    torch.testing.assert_close(alpha * step.prediction.x + sigma * step.prediction.eps, step.x_t, rtol=1e-3, atol=1e-3)
    loss = sum(model.loss(data("image")).values())
    loss.mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert loss.isfinite().all() and gradients and all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", [*LOOKS])
def test_levels_of_detail_by_name(name):
    """Each name is the density of its definition, of which the loss draws its times; and there is no other."""
    levels, noise = made("drl", "vector", f"detail={name}").levels, VE(0.01, 50.0)
    t = torch.linspace(0.05, 0.95, 19)
    slope, log_snr = -noise.log_snr_slope(t), noise.log_snr(t)
    torch.testing.assert_close(levels.looks(noise, t), LOOKS[name](slope, log_snr))
    torch.testing.assert_close(levels.proposal(noise, t), levels.looks(noise, t))
    assert {*LOOKS} == {*DETAILS, "band:-2:3"}


@pytest.mark.parametrize(
    "name, kind, changes, said",
    [
        ("vae_vdm", "vector", (), "Did you mean 'vae-vdm'"),
        ("drl", "vector", ("detail=high",), "unknown level of detail"),
        ("drl", "vector", ("detail=band:3:1",), "low < high"),
        ("drl", "vector", ("detail=band:3",), "band:low:high"),
        ("drl", "vector", ("predicts=marginal",), "predicts=edm"),
        ("vdrl", "vector", ("code.rate=5.0", "code.beta=1.0"), "rate and .*beta"),
        ("drl", "image", ("encoder.kind=wideresnet", "encoder.depth=11"), "11"),
    ],
)
def test_mistakes_in_settings(name, kind, changes, said):
    """One sentence with what came and what would do."""
    with pytest.raises(UserError, match=said):
        made(name, kind, *changes)
    with pytest.raises(UserError, match="lists all"):
        method("nothing")


def test_the_price_of_a_code():
    """Given beta it is a factor; left open, a Gaussian code is held at a rate, and only by its weight in the loss."""
    plain, dear = (made("vdrl", "vector", f"code.beta={beta}").loss(data("vector")) for beta in (1.0, 50.0))
    torch.testing.assert_close(50 * plain["rate"], dear["rate"])
    torch.testing.assert_close(plain["denoising"], dear["denoising"])
    free = made("vdrl", "vector", "code.beta=1.0", "code.free_bits=100.0").loss(data("vector"))
    assert float(free["rate"].sum()) == 0
    warm = made("vdrl", "vector", "code.beta=1.0", "code.warmup=10").loss(data("vector"))
    torch.testing.assert_close(warm["rate"], plain["rate"] / 10)


def test_a_gated_code_is_the_same_model_everywhere():
    """Loss by level, with the code and without, is one number where the code is not seen, and differs where it is."""
    model = made("vae-vdm", "image", "decoder.code_until=0.0", "noise.kind=linear").eval()
    with_code, without = (model.denoising_by_level(data("image"), 8, with_code=seen) for seen in (True, False))
    same = (with_code == without).all(0).tolist()  # levels fall in log-SNR from -gamma_0 to -gamma_1
    low, high = -model.noise.ends.tolist()[1], -model.noise.ends.tolist()[0]
    edges = torch.linspace(high, low, 9)
    above = [equal for equal, least in zip(same, edges[1:].tolist(), strict=True) if least >= 0]
    below = [equal for equal, most in zip(same, edges[:-1].tolist(), strict=True) if most < 0]
    assert above and all(above) and below and not any(below)


def test_l1_of_a_deterministic_code():
    """Weighted by the settings, for drl."""
    model = made("drl", "vector", "code.l1=0.1")
    loss = model.loss(data("vector"))
    torch.testing.assert_close(loss["l1"], 0.1 * model.encode(data("vector").x).mean.abs().sum(1))


@pytest.mark.parametrize(
    "method, change",
    [
        ("ddpm", "code.dim=4"),
        ("drl", "code.rate=4"),
        ("vae", "noise.gamma_1=6"),
        ("vdm", "noise.sigma_max=9"),
        ("ae", "detail=uniform"),
    ],
)
def test_settings_without_effect_are_told(method, change):
    """A setting that the method never reads would be accepted and ignored in silence: it is named."""
    settings = override(Settings(), [f"method={method}", change])
    with pytest.warns(UserWarning, match=change.split("=")[0]):
        build(settings, Facts((1, 8, 8), 17))


@pytest.mark.parametrize("method", ["vdm", "vae-vdm"])
def test_a_finite_chain_trains_on_its_own_bound(method):
    """On the grid of a long chain the loss is that of continuous time, as T/2 expm1(d gamma) is 1/2 gamma' to 1/T."""
    settings = override(Settings(), [f"method={method}", "noise.kind=linear", "decoder.width=8", "encoder.width=8"])
    x = torch.rand(64, 1, 8, 8) * 2 - 1
    losses = {}
    for steps in ("none", "4096", "3"):
        model = build(override(settings, [f"noise.steps={steps}"]), Facts((1, 8, 8), 17)).eval()
        terms = [model(Batch(x, torch.arange(64), draws=Draws.of(seed)))["diffusion"].detach() for seed in range(8)]
        losses[steps] = torch.cat(terms).mean().item()
    assert losses["4096"] == pytest.approx(losses["none"], rel=0.02)
    assert losses["3"] > 1.3 * losses["none"]  # few steps are a worse bound


def test_mmd_draws_codes_to_the_normal():
    """Descending the term alone moves codes that start far from N(0, I) to it."""
    settings = override(Settings(), ["method=drl", "code.mmd=1000", "code.dim=4", "decoder.width=8", "encoder.width=8"])
    model = build(settings, Facts((1, 8, 8), 17))
    x = torch.rand(64, 1, 8, 8) * 2 - 1
    with torch.no_grad():
        model.posterior.mean.bias.add_(4.0)
    optimizer = torch.optim.Adam(model.posterior.parameters(), 0.03)
    for seed in range(60):
        loss = model(Batch(x, torch.arange(64), draws=Draws.of(seed)))["mmd"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = model.encode(x).mean
    assert z.mean().abs() < 0.5 and 0.3 < z.std() < 2


def test_soda_simclr_is_soda_and_a_contrast_of_two_views_of_its_code():
    """The denoising term is soda's, bit for bit; the other is SimCLR's loss of two views drawn in turn from the same
    numbers, times its weight, and its gradient reaches encoder and head through both views."""
    soda, model = made("soda", "image"), made("soda-simclr", "image", "views.denoise_every=1")
    assert isinstance(model.head, nn.Module)
    model.load_state_dict(soda.state_dict(), strict=False)
    drawn = []
    view = model.view
    model.view = lambda x, draws: drawn.append(view(x, draws)) or drawn[-1]
    losses = model.loss(data("image"))
    torch.testing.assert_close(losses["denoising"], soda.loss(data("image"))["denoising"], rtol=0, atol=0)
    assert len(drawn) == 2 and not torch.equal(*drawn)
    a, b = (model.head(model.posterior(x).mean) for x in drawn)
    expected = 50 * nt_xent(a, b, 0.5)["contrast"]
    torch.testing.assert_close(losses["contrast"], expected)
    ours, theirs = (
        torch.autograd.grad(value.sum(), [*model.posterior.parameters(), *model.head.parameters()], retain_graph=True)
        for value in (losses["contrast"], expected)
    )
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(UserError, match="batch of one"):
        model.loss(data("image", 1))


def test_each_fourth_example_is_denoised_and_all_codes_are_compared():
    """The mean over the batch is that over two of eight, written out; its gradient reaches their codes alone, that of
    the contrast all codes. Noise, noise levels and codes are those that these examples have where all are denoised."""
    model, batch = made("soda-simclr", "image", "code.drop=0.0"), data("image", 8)
    step = model.noised(batch)
    assert torch.equal(step.whole, batch.x) and torch.equal(step.x, batch.x[[0, 4]])
    model.denoised = slice(None, None, 1)
    every = model.noised(data("image", 8))
    for name in ("t", "eps", "x_t", "log_snr", "weight", "kept"):
        assert torch.equal(getattr(step, name), getattr(every, name)[[0, 4]]), name
    assert torch.equal(step.z, every.z)
    torch.testing.assert_close(step.prediction.x, every.prediction.x[[0, 4]])
    wrong = (step.eps - step.prediction.eps).flatten(1).square().sum(1)
    denoising, contrast = (term(step) for term in model.terms.values())
    assert denoising.shape == contrast.shape == (8,) and denoising.nonzero().flatten().tolist() == [0, 4]
    torch.testing.assert_close(denoising.mean(), (0.5 * step.weight * wrong).mean())
    told = [torch.autograd.grad(term.sum(), step.code.mean, retain_graph=True)[0] for term in (denoising, contrast)]
    assert [of_term.abs().sum(1).gt(0).tolist() for of_term in told] == [[k in (0, 4) for k in range(8)], [True] * 8]


def test_a_learned_process_follows_the_examples_that_are_denoised():
    """Its gradient is that of the two of eight alone, whose losses weigh four times as much in the mean."""
    few, every = (made("soda-simclr", "image", "noise.kind=learned", "code.drop=0.0") for _ in range(2))
    every.load_state_dict(few.state_dict())
    every.denoised = slice(None, None, 1)
    few.terms["denoising"](few.noised(data("image", 8))).mean().backward()
    every.terms["denoising"](every.noised(data("image", 8)))[[0, 4]].mean().backward()
    for one, two in zip(few.noise.parameters(), every.noise.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    assert any(p.grad is not None and p.grad.any() for p in few.noise.parameters())


@pytest.mark.parametrize("lost", [0, 1])
def test_a_loss_that_is_not_finite_names_the_noise_level_of_a_denoised_example(lost):
    """A code that is not finite spoils the contrast of all, whether its own example is denoised or not."""
    model, batch = made("soda-simclr", "image"), data("image", 8)
    batch.x[lost] = float("nan")
    model.loss(batch)
    assert torch.equal(model.health["log_snr_not_finite"], model.noised(data("image", 8)).log_snr[0])


def test_soda_without_views_is_drl():
    """The view is all that it adds: with views that change nothing each term is drl's, and with others it is not."""
    still = ("views.crop=1.0", "views.jitter=0.0", "views.erase=0.0", "views.noise=0.0", "noise.kind=cosine")
    losses = {
        name: made(name, "image", "noise.kind=cosine").loss(data("image"))["denoising"] for name in ("drl", "soda")
    }
    model = made("soda", "image", *still)
    model.view = lambda x, draws: x
    torch.testing.assert_close(model.loss(data("image"))["denoising"], losses["drl"])
    assert (losses["soda"] - losses["drl"]).abs().max() > 1e-3
    x = data("image").x
    torch.testing.assert_close(made("soda", "image", *still).view(x, Draws.of(0)), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.encode(x).mean, made("drl", "image").encode(x).mean)


def test_infodiffusion_prices_its_gaussian_code_by_mmd_alone():
    """No rate in the loss, code.mmd sets the weight; the bound that is reported has the rate."""
    batch = data("vector")
    small, large = (made("infodiffusion", "vector", f"code.mmd={w}").loss(data("vector")) for w in (1.0, 30.0))
    assert set(small) == {"denoising", "mmd"}
    torch.testing.assert_close(30 * small["mmd"], large["mmd"])
    torch.testing.assert_close(small["denoising"], large["denoising"])
    assert float(made("infodiffusion", "vector").eval().bound(batch)["rate"].min()) > 0
