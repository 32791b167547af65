"""Many examples are made a few at a time, and which ones stand together changes none of them."""

import pytest
import torch

from diffrep.config import Settings, override
from diffrep.denoising.denoiser import Prediction
from diffrep.denoising.noise import LinearGamma
from diffrep.denoising.samplers import ENOUGH, STEPS, Sampling, sample
from diffrep.methods.catalog import build
from diffrep.models import generative
from diffrep.models.warm_start import Uniform, sample_from
from diffrep.shapes import Draws, Facts, expand
from diffrep.testing import SMALL


@pytest.fixture(params=["vae-vdm", "vdm", "vae"])
def model(request):
    settings = override(Settings(), [f"method={request.param}", *SMALL])
    return build(settings, Facts((1, 4, 4), 2), warn=False).eval()


def made(model, n: int, sampler: str = "dpm") -> dict[str, torch.Tensor]:
    """n examples in each of the ways that there are; rows of x and z do not depend on n."""
    x, z = (torch.randn(*shape, generator=torch.Generator().manual_seed(1)) for shape in ((7, 1, 4, 4), (7, 3)))
    x, how = x[:n], {"seed": 5, "steps": 2, "sampler": sampler}
    ways = {"sampled": model.sample(n, **how)}
    if model.has_code:
        ways["decoded"] = model.decode_each(z[:n], 5, Sampling(sampler, 2))
        ways["reconstructed"] = model.reconstruct(x, **how)
    if model.by_steps:
        ways["begun later"] = sample_from(Uniform(-torch.ones(1, 4, 4), torch.ones(1, 4, 4)), model, 0.6, n, 5)
        ways["exact"] = model.reconstruct_exactly(x, 2)
    return ways


def test_an_example_is_the_same_in_any_batch(model, monkeypatch):
    """Among 7, among 2, and in batches of 3, by a sampler that draws noise: example i is that of the seed and of i."""
    whole, few = made(model, 7, "ancestral"), made(model, 2, "ancestral")
    monkeypatch.setattr(generative, "AT_ONCE", 3)
    for way, cut in made(model, 7, "ancestral").items():
        torch.testing.assert_close(cut, whole[way], rtol=1e-4, atol=1e-5, msg=way)
        torch.testing.assert_close(few[way], whole[way][:2], rtol=1e-4, atol=1e-5, msg=way)
        assert len(whole[way].unique(dim=0)) == 7, way


@pytest.mark.parametrize("sampler", STEPS)
def test_no_sampler_mixes_the_noise_of_examples(sampler):
    """The same of each sampler alone, with the ideal denoiser of N(0, I)."""
    noise = LinearGamma(-6.0, 4.0)

    def denoise(x_t, t):
        alpha, sigma = noise.scales(t)
        return Prediction.from_x(expand(alpha / (alpha**2 + sigma**2), x_t) * x_t, x_t, alpha, sigma)

    def drawn(places: range) -> torch.Tensor:
        draws, how = Draws.of_each(5, places), Sampling(sampler, 3)
        return sample(denoise, noise, draws.normal(len(places), 4), how.step, how.times(noise), draws)

    whole = drawn(range(7))
    assert torch.equal(drawn(range(2, 5)), whole[2:5]) and len(whole.unique(dim=0)) == 7


def test_no_batch_is_larger_than_it_may_be(model, monkeypatch):
    """Memory is that of a batch: no network gets more examples than `AT_ONCE`, however many are asked for."""
    monkeypatch.setattr(generative, "AT_ONCE", 3)
    largest = 0

    def look(module, given):
        nonlocal largest
        largest = max([largest, *(len(value) for value in given if isinstance(value, torch.Tensor) and value.ndim)])

    for network in model.networks:
        network.register_forward_pre_hook(look)
    assert all(len(examples) == 7 for examples in made(model, 7).values())
    assert largest == 3


def test_the_numbers_of_an_example_follow_from_seed_and_place():
    """In another order, beside others, or alone; another seed or place has others, and so has the next call."""
    several, alone = Draws.of_each(2, [4, 7, 9]), Draws.of_each(2, [7])
    first = several.normal(3, 5)
    assert torch.equal(first[1], alone.normal(1, 5)[0]) and torch.equal(
        several.uniform(3, 2)[1], alone.uniform(1, 2)[0]
    )
    assert len(torch.cat([first, several.normal(3, 5), Draws.of_each(3, [4, 7, 9]).normal(3, 5)]).unique(dim=0)) == 9
    with pytest.raises(ValueError):
        several.normal(2, 5)


def test_every_sampler_takes_few_steps_by_default():
    """At most 20 each."""
    assert ENOUGH.keys() == STEPS.keys() and max(ENOUGH.values()) <= 20
