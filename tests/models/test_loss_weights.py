"""Weights that change while training: values at known steps, state that is resumed, a report they do not touch."""

from itertools import pairwise

import pytest
import torch

from diffrep.config import Settings, override
from diffrep.denoising.detail import Levels, band, likelihood, uniform
from diffrep.denoising.noise import VE, LinearGamma
from diffrep.errors import UserError
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts, Parts
from diffrep.models.loss_weights import Annealed, Constant, Cyclic, Fading, FreeBits, Lag, TargetRate, WarmUp
from diffrep.shapes import Batch, Draws
from small import NARROW

NATS = torch.tensor([1.0, 3.0])


def weights(weight, steps: int) -> list[float]:
    """The factor at each of some steps of training."""
    seen = []
    for _ in range(steps):
        seen.append(float(weight(NATS)[0]))
        weight.advance()
    return seen


def test_cycles_rise_and_hold():
    """Cycles of 8 steps: from 0 to the weight in the first 4, then held, then again from 0."""
    cycle = [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
    assert weights(Cyclic(2.0, 8), 20) == pytest.approx(cycle * 2 + cycle[:4])


def test_a_factor_ends_at_one_and_stays():
    """From 1.5 to 1 in five steps of 0.1."""
    assert weights(Annealed(1.5, 5), 8) == pytest.approx([1.5, 1.4, 1.3, 1.2, 1.1, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("make", [lambda: Cyclic(2.0, 8), lambda: Annealed(1.5, 5)])
def test_weights_resume_and_passes_do_not_move_them(make):
    """A weight with the state of another goes on as that one would; passes without a step leave it where it is."""
    one, other = make(), make()
    weights(one, 3)
    other.load_state_dict(one.state_dict())
    still = [float(one(NATS)[0]) for _ in range(4)]
    assert still == [still[0]] * 4
    assert weights(one, 5) == weights(other, 5)


def test_a_fading_detail_goes_from_one_measure_to_the_other_at_equal_mass():
    """At the start only the band is looked at, half way both by half, at the end the likelihood alone."""
    noise, inside = LinearGamma(-9.0, 5.0), band(-3, 2)
    t = (torch.arange(4096) + 0.5) / 4096
    fading = Fading(inside, likelihood, steps=4)
    seen = []
    for _ in range(7):
        seen.append(fading(noise, t))
        fading.advance()
    outside = inside(noise, t) == 0
    assert (seen[0][outside] == 0).all()
    for k, measure in enumerate(seen):
        assert float(measure.mean()) == pytest.approx(14, rel=0.01)  # the fall of log-SNR from end to end
        share = float(measure[outside].mean()) / 14
        assert share == pytest.approx(min(k / 4, 1), abs=1e-4)
    torch.testing.assert_close(seen[4], likelihood(noise, t), rtol=0, atol=0)
    resumed = Fading(inside, likelihood, steps=4)
    resumed.load_state_dict(fading.state_dict())
    torch.testing.assert_close(resumed(noise, t), seen[6], rtol=0, atol=0)


def test_a_fading_detail_counts_steps_of_training_alone():
    """Its state is part of the levels that hold it, which move it; asking for a weight does not."""
    noise, levels = VE(0.01, 50.0), Levels(Fading(band(-3, 2), uniform, steps=10))
    t = levels.draw(noise, Draws.of(0), 5)
    for _ in range(3):
        levels.advance()
        levels.weight(noise, t)
        levels.weight(noise, t)
    Levels(uniform).advance()  # nothing there to move
    assert {name: int(value) for name, value in levels.state_dict().items()} == {"looks.step": 3}


FACTS = Facts((1, 8, 8), 16)
SMALL = [*NARROW, "code.dim=8"]
STARTS = ["anneal.steps=5", "anneal.factor=1.5", "anneal.detail=band:-3:2"]


def test_no_weight_touches_the_report():
    """The same weights of the network: the loss differs as the settings say, and the bound does not."""
    x = (torch.randint(16, (8, 1, 8, 8), generator=torch.Generator().manual_seed(0)) + 0.5) / 8 - 1
    plain = build(override(Settings(), [*SMALL, "code.beta=1"]), FACTS)
    controlled = build(override(Settings(), [*SMALL, *STARTS, "code.cycle=6"]), FACTS)
    losses, bounds = [], []
    for model in (plain, controlled):
        losses.append(model.loss(Batch(x, torch.arange(8), draws=Draws.of(1))))
        bounds.append(model.bound(Batch(x, torch.arange(8), draws=Draws.of(2)), levels=2))
    assert float(losses[0]["rate"].mean()) > 0 and float(losses[1]["rate"].mean()) == 0  # the cycle starts at zero
    assert not torch.allclose(losses[0]["diffusion"], losses[1]["diffusion"])
    for name, value in bounds[0].items():
        torch.testing.assert_close(bounds[1][name], value, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("price", ["code.cycle=6", "code.warmup=5", "code.rate=3"])
def test_a_step_in_parts_moves_weights_as_a_whole_one(price):
    """A step of 16 examples, and the same in four parts: the same losses and the same state after each of four steps,
    though the network stands still; the mean rate that the held one follows is that of all parts."""
    x = (torch.randint(16, (16, 1, 8, 8), generator=torch.Generator().manual_seed(0)) + 0.5) / 8 - 1
    whole, parted = (build(override(Settings(), [*SMALL, *STARTS, price]), FACTS) for _ in range(2))
    states = []
    for step in range(4):
        expected = whole.loss(Batch(x, torch.arange(16), draws=Draws.of(step)))
        some = [
            parted.loss(Batch(part, torch.arange(4), draws=Draws.of(step, shard=k, shards=4)))
            for k, part in enumerate(x.split(4))
        ]
        for name, nats in expected.items():
            torch.testing.assert_close(torch.cat([part[name] for part in some]), nats, rtol=1e-3, atol=1e-3)
        for model in (whole, parted):
            model.advance()
        one, other = (
            {
                name: value.clone()
                for name, value in model.state_dict().items()
                if name.startswith(("weights", "levels"))
            }
            for model in (whole, parted)
        )
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)
        states.append(one)
    assert all(any(not torch.equal(a[name], b[name]) for name in a) for a, b in pairwise(states))


def test_an_encoder_lags_while_its_rate_is_below_the_target():
    """Extra turns where the last step's mean was below, none above; or over the first steps, whatever the rate."""
    held = TargetRate(2.0)
    lag = Lag(3, 0, held)
    for nats, turns in ((1.0, 3), (4.0, 0), (1.9, 3), (2.1, 0)):
        held(torch.full((4,), nats))
        held.advance()
        assert lag.turns(10) == turns
    assert [Lag(2, 3, held).turns(step) for step in range(5)] == [2, 2, 2, 0, 0]


@pytest.mark.parametrize("method", ["vae-vdm", "vdrl"])
def test_extra_steps_by_their_setting(method):
    """A player of its own that owns what the model's encoder group owns; without a target to lag behind it is a
    mistake."""
    settings = override(Settings(method=method), [*SMALL, "code.extra_steps=2"])
    model = build(settings, FACTS)
    players = model.players()
    assert [id(p) for p in players["encoder"]["encoder"]] == [id(p) for p in players["model"]["encoder"]]
    assert model.order(0) == ["model"]  # nothing is known of the rate yet
    x = torch.zeros(4, 1, 8, 8)
    model.weights["rate"].nats = 1e6
    assert model.loss(Batch(x, torch.arange(4), draws=Draws.of(0)), "encoder").keys() >= {"rate"}
    model.advance()
    assert model.order(1) == ["model", "encoder", "encoder"]
    with pytest.raises(UserError, match=r"code\.extra_until"):
        build(override(settings, ["code.beta=1"]), FACTS)
    assert build(override(settings, ["code.beta=1", "code.extra_until=5"]), FACTS).order(4)[1:] == ["encoder"] * 2


def test_the_turn_of_a_critic_moves_no_weight():
    """A step is one step, whoever plays in it."""
    settings = override(Settings(method="adversarial-drl"), [*SMALL, *STARTS])
    model, x = build(settings, FACTS), torch.zeros(4, 1, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for player in ("model", "critic"):
        model.loss(Batch(x, torch.arange(4), draws=Draws.of(0)), player)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.advance()
    assert int(model.levels.looks.step) == 1 and int(model.weights["denoising"].step) == 1


@pytest.mark.parametrize(
    "changes, kind",
    [
        ([], TargetRate),
        (["code.rate=4"], TargetRate),
        (["code.beta=1"], Constant),
        (["code.warmup=9"], WarmUp),
        (["code.cycle=9"], Cyclic),
        (["code.free_bits=2", "code.beta=0.5"], FreeBits),
    ],
)
def test_settings_name_one_price(changes, kind):
    """What is set is what is used: a schedule alone implies beta = 1, never the method's own target."""
    parts = Parts(override(Settings(), changes), FACTS)
    assert type(parts.rate_weight(12.0)) is kind


@pytest.mark.parametrize(
    "changes",
    [
        ["code.rate=4", "code.beta=1"],
        ["code.warmup=9", "code.cycle=9"],
        ["code.rate=4", "code.free_bits=1"],
        ["anneal.steps=5"],
        ["anneal.factor=1.5"],
        ["anneal.detail=high-noise"],
    ],
)
def test_two_prices_or_half_a_start_are_refused(changes):
    """Otherwise one of them would be ignored."""
    with pytest.raises(UserError, match="expected"):
        override(Settings(), changes)


def test_a_start_from_an_unknown_detail_is_named():
    """Like every level of detail."""
    settings = override(Settings(), [*SMALL, "anneal.steps=5", "anneal.detail=hihg-noise"])
    with pytest.raises(UserError, match="high-noise"):
        build(settings, FACTS)
