"""Read-outs of a decoder's layers: the very tensors of a run by hand, and a choice by validation alone."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from diffrep.config import Settings, override
from diffrep.data import Splits
from diffrep.errors import UserError
from diffrep.evaluation.layers import (
    blocks_of,
    features,
    noise_seed,
    of_diffusers,
    of_model,
    pooled,
    readout,
    recording,
)
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.probes.linear import linear
from diffrep.shapes import Draws
from oracles import examples_of
from small import NARROW

pytestmark = pytest.mark.slow

SHAPE = (1, 8, 8)
SMALL = [*NARROW, "code.dim=4"]


def model_of(method: str, *changes: str, shape: tuple[int, ...] = SHAPE):
    return build(override(Settings(), [f"method={method}", *SMALL, *changes]), Facts(shape, 17)).eval()


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Two classes, told by the brightness of the pictures, with much noise."""
    rng = np.random.default_rng(0)

    def part(name: str, size: int):
        y = rng.integers(0, 2, size)
        x = np.clip(rng.normal(6 + 3 * y[:, None, None, None], 4, (size, *SHAPE)).round(), 0, 16)
        return replace(examples_of(x.astype(np.uint8), 17, torch.from_numpy(y)), split=name)

    return Splits(part("train", 60), part("valid", 40), part("test", 50))


def test_what_is_heard_is_what_a_run_by_hand_gives():
    """The U-Net's forward pass written out block by block leaves the same tensors, the null code among its inputs."""
    model = model_of("drl", "decoder.multipliers=[1,2]")
    probed, net = of_model(model), model.denoiser.network
    x, eps = Draws.of(0).normal(3, *SHAPE), Draws.of(1).normal(3, *SHAPE)
    with torch.no_grad(), recording(probed, [*probed.layers]) as outputs:
        probed.run(x, eps, 1.5)
        t = model.noise.time(torch.full((3,), 1.5))
        alpha, sigma = (v[:, None, None, None] for v in model.noise.scales(t))
        x_t = alpha * x + sigma * eps
        extra, _ = model.denoiser.parameterisation(x_t, alpha, sigma)
        seen = torch.cat([net.fourier(x_t / (alpha**2 + sigma**2).sqrt()), *([] if extra is None else [extra])], 1)
        conditions = (net.level(model.noise.log_snr(t)), net.code(net.null.expand(3, -1)))
        h, skips, by_hand = net.stem(seen), [], {}
        for name in ("down.0.0", "down.1.0"):
            h = by_hand[name] = net.get_submodule(name)(h, conditions)
            skips.append(h)
        for name in ("middle.0", "middle.1"):
            h = by_hand[name] = net.get_submodule(name)(h, conditions)
        h = by_hand["up.0.0"] = net.get_submodule("up.0.0")(h + skips.pop(), conditions)
        h = nn.functional.interpolate(net.narrow[0](h), scale_factor=2.0)
        by_hand["up.1.0"] = net.get_submodule("up.1.0")(h + skips.pop(), conditions)
    assert [*outputs] == [*by_hand]
    for name in by_hand:
        torch.testing.assert_close(outputs[name], by_hand[name])


def test_listening_ends():
    """A hook that stays would keep the last batch alive and slow every later step; the training mode comes back too."""
    model = model_of("ddpm").train()
    probed = of_model(model)
    with recording(probed, [*probed.layers]) as outputs:
        assert not probed.network.training
    probed.run(torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE), 0.0)
    assert not outputs and probed.network.training


@pytest.mark.parametrize("method, shape", [("vdm", SHAPE), ("ddpm", (5,)), ("ddpm", (2, 12))])
def test_features_are_means_over_space_of_every_example_in_order(method, shape):
    """Two routes: example by example with the noise of its batch, and all at once; vectors have no space to pool."""
    probed = of_model(model_of(method, shape=shape))
    examples = examples_of(np.random.default_rng(0).integers(0, 17, (7, *shape)).astype(np.uint8), 17)
    found = features(probed, examples, 0.5, batch=4, seed=3)
    assert [*found] == [*probed.layers] and all(len(f) == 7 for f in found.values())
    eps = torch.cat([Draws.of(3 * 1_000_003 + i).normal(n, *shape) for i, n in enumerate((4, 3))])
    name = [*probed.layers][-1]
    with torch.no_grad(), recording(probed, [name]) as outputs:
        for i in range(7):
            probed.run(examples.batch(torch.tensor([i])).x, eps[i : i + 1], 0.5)
            h = outputs[name][0]
            expected = h if h.ndim == 1 else h.reshape(len(h), -1).sum(1) / h[0].numel()
            np.testing.assert_allclose(found[name][i], expected, atol=1e-5)
    assert np.array_equal(found[name], features(probed, examples, 0.5, [name], batch=4, seed=3)[name])
    assert not np.array_equal(found[name], features(probed, examples, 0.5, [name], batch=4, seed=4)[name])


class StandIn(nn.Module):
    """The interface of a U-Net of diffusers: blocks down, one in the middle, blocks up; (sample, timestep) in."""

    def __init__(self):
        super().__init__()
        self.down_blocks = nn.ModuleList([Down(), Down()])
        self.mid_block = nn.Sequential(nn.Conv2d(1, 1, 1))
        self.up_blocks = nn.ModuleList([nn.Conv2d(1, 2, 3)])
        self.conv_out = nn.Conv2d(2, 1, 1)
        self.seen = []

    def forward(self, sample, timestep, encoder_hidden_states=None, return_dict=True):
        self.seen.append((sample, int(timestep)))
        h = sample
        for block in self.down_blocks:
            h, _ = block(h)
        return SimpleNamespace(sample=self.conv_out(self.up_blocks[0](self.mid_block(h))))


class Down(nn.Module):
    """Returns what it made and what the way up will need, as theirs do."""

    def __init__(self):
        super().__init__()
        self.resnets = nn.ModuleList([nn.Conv2d(1, 1, 3, padding=1)])

    def forward(self, h):
        h = self.resnets[0](h)
        return h, (h,)


def test_a_diffusers_network_is_read_as_it_is():
    """It is called with the timestep whose alpha^2 / (1 - alpha^2) is nearest, and with as much noise as that has."""
    network = StandIn()
    alpha2 = torch.tensor([0.99, 0.9, 0.5, 0.1])
    probed = of_diffusers(network, alpha2)
    assert [*probed.layers] == ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0"]
    assert probed.ends == pytest.approx((np.log(0.1 / 0.9), np.log(99)))
    examples = examples_of(np.random.default_rng(0).integers(0, 17, (3, *SHAPE)).astype(np.uint8), 17)
    found = features(probed, examples, 2.0, seed=5)
    sample, timestep = network.seen[-1]
    x, eps = examples.batch(torch.arange(3)).x, Draws.of(5 * 1_000_003).normal(3, *SHAPE)
    assert timestep == 1  # log 9 = 2.2
    torch.testing.assert_close(sample, 0.9**0.5 * x + 0.1**0.5 * eps)
    with torch.no_grad():
        first = network.down_blocks[0](sample)[0]
    np.testing.assert_allclose(found["down_blocks.0"], first.mean((2, 3)), atol=1e-6)
    assert [*of_diffusers(network, alpha2, ["down_blocks.1.resnets.0"]).layers] == ["down_blocks.1.resnets.0"]
    with pytest.raises(UserError, match="Did you mean 'mid_block'"):
        of_diffusers(network, alpha2, ["midblock"])


def test_the_grid_and_the_choice_are_a_search_by_hand(splits):
    """Each pair is a linear probe that validation judges; the best is refitted and the test split read once."""
    probed = of_model(model_of("ddpm", "decoder.multipliers=[1]"))
    said = readout(probed, splits, levels=2)
    names, levels = [*probed.layers], [8.0, 2.0]
    assert [(cell["layer"], cell["log_snr"]) for cell in said["grid"]] == [(n, at) for at in levels for n in names]
    y = [part.labels.numpy() for part in (splits.train, splits.valid, splits.test)]

    def read(part: int, cell: dict) -> tuple[np.ndarray, np.ndarray]:
        examples = (splits.train, splits.valid, splits.test)[part]
        return features(probed, examples, cell["log_snr"], seed=noise_seed(0, examples))[cell["layer"]], y[part]

    for cell in said["grid"]:
        valid = read(1, cell)
        assert cell["valid_accuracy"] == linear(read(0, cell), valid, valid)["accuracy"]
        assert cell["dim"] == valid[0].shape[1]
    best = max(said["grid"], key=lambda cell: cell["valid_accuracy"])
    assert (said["layer"], said["log_snr"]) == (best["layer"], best["log_snr"])
    result = linear(read(0, best), read(1, best), read(2, best))
    assert (said["accuracy"], said["se"]) == (result["accuracy"], result["se"])


def test_the_choice_does_not_look_at_the_test_split(splits):
    """Trap 7 of earlier code: with the labels of the test split shuffled the whole grid stays; and with validation
    labels that one poor pair predicts without a mistake, that pair is chosen."""
    probed = of_model(model_of("ddpm", "decoder.multipliers=[1]"))
    said = readout(probed, splits, levels=2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    other = replace(splits.test, labels=splits.test.labels[order])
    shuffled = readout(probed, Splits(splits.train, splits.valid, other), levels=2)
    assert (shuffled["layer"], shuffled["log_snr"], shuffled["grid"]) == (said["layer"], said["log_snr"], said["grid"])
    assert shuffled["accuracy"] != said["accuracy"]
    worst = min(said["grid"], key=lambda cell: cell["valid_accuracy"])
    x, x_valid = (
        features(probed, part, worst["log_snr"], [worst["layer"]], seed=noise_seed(0, part))[worst["layer"]]
        for part in (splits.train, splits.valid)
    )
    mean, std = x.mean(0), x.std(0)
    fit = LogisticRegression(C=10.0, max_iter=1000).fit((x - mean) / std, splits.train.labels)
    told = replace(splits.valid, labels=torch.from_numpy(fit.predict((x_valid - mean) / std)))
    moved = readout(probed, Splits(splits.train, told, splits.test), levels=2)
    assert (moved["layer"], moved["log_snr"], moved["valid_accuracy"]) == (worst["layer"], worst["log_snr"], 1.0)


def test_each_split_has_noise_of_its_own(splits):
    """Two splits of which the n-th examples share their noise are alike in a way that new data will not be."""
    probed, seen = of_model(model_of("ddpm", "decoder.multipliers=[1]")), []

    def run(x: torch.Tensor, eps: torch.Tensor, log_snr: float) -> None:
        seen.append(eps[:40])
        probed.run(x, eps, log_snr)

    readout(replace(probed, run=run), splits, levels=1)
    of_seed_0 = [*seen]
    seen.clear()
    readout(replace(probed, run=run), splits, levels=1, seed=1)
    assert not any(torch.equal(one, other) for one in of_seed_0 for other in seen)
    train, valid, again, *others = of_seed_0
    assert torch.equal(train, again) and torch.equal(valid, others[0])
    assert not torch.equal(train, valid) and not torch.equal(train, others[1]) and not torch.equal(valid, others[1])


def test_networks_that_cannot_be_read_say_why():
    """No noise to remove, a code that was never missing in training, no known blocks."""
    with pytest.raises(UserError, match="removes no noise"):
        of_model(model_of("ae"))
    with pytest.raises(UserError, match=r"code\.drop"):
        of_model(model_of("drl", "code.drop=0"))
    with pytest.raises(UserError, match="name layers"):
        blocks_of(nn.Sequential(nn.Linear(2, 2)))


def test_pooled_keeps_channels():
    """A map whose value is its channel has that mean; (B, F) has no space."""
    h = torch.arange(3.0)[None, :, None, None].expand(2, 3, 4, 5)
    assert torch.equal(pooled(h), torch.arange(3.0).expand(2, 3)) and pooled(torch.ones(2, 3)).shape == (2, 3)
