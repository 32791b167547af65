"""Networks: shapes of every kind, a code that is always heard, parameters that can be counted by hand."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from diffrep.nets.blocks import Padding, depth_to_space, group_norm, halvings, space_to_depth
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import Decoder, Generator, MLPDecoder, MLPGenerator, UNet
from diffrep.nets.embeddings import Fourier, NoiseLevel
from diffrep.nets.encoders import ConvEncoder, Critic, MLPEncoder, ViT, WideResNet

CODE = 5
IMAGE = (2, 7, 10)


def decoders(code_dim: int = CODE, extra_channels: int = 0) -> dict[str, Decoder]:
    """Every decoder in small, in each of the forms that treat the code differently."""

    def given(*fourier: int) -> Conditioning:
        return Conditioning(code_dim, fourier=fourier, extra_channels=extra_channels)

    return {
        "unet": UNet(IMAGE, width=8, multipliers=(1, 2), attention=(1,), conditioning=given()),
        "full resolution": UNet(IMAGE, width=8, multipliers=(1,), blocks=2, conditioning=given(7, 8)),
        "drawn": UNet(IMAGE, width=8, conditioning=replace(given(), drawn=code_dim > 0)),
        "patches": UNet(IMAGE, width=8, multipliers=(1, 2), conditioning=replace(given(), drawn=code_dim > 0), patch=2),
        "mlp": MLPDecoder((6,), width=16, conditioning=given()),
        "mlp on images": MLPDecoder(IMAGE, width=16, blocks=1, conditioning=given(0)),
    }


def encoders(shape: tuple[int, ...], time: bool = False, dropout: float = 0.0) -> list[nn.Module]:
    common = {"time": time, "dropout": dropout}
    every = [MLPEncoder(shape, width=16, depth=2, **common)]
    if len(shape) > 1:
        every.append(ConvEncoder(shape, width=8, **common))
        every.append(ViT(shape, patch=4, width=16, depth=2, heads=2, **common))
    if len(shape) == 3:
        every.append(WideResNet(shape, depth=10, widen=1, **common))
    return every


NAMES = list(decoders())


def inputs(net: Decoder, batch: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, *net.shape), torch.linspace(-8, 8, batch), torch.randn(batch, CODE)


@st.composite
def shapes(draw):
    """(C, *spatial) with 1-3 axes of any length, odd and shorter than the network's downsampling among them."""
    dims = draw(st.integers(1, 3))
    return (draw(st.integers(1, 4)), *(draw(st.integers(1, {1: 40, 2: 17, 3: 9}[dims])) for _ in range(dims)))


@settings(max_examples=25, deadline=None)
@given(shape=shapes(), width=st.sampled_from([4, 6, 16]), levels=st.integers(1, 3), patch=st.integers(1, 3))
def test_unet_returns_its_input_shape(shape, width, levels, patch):
    """Padding to a multiple of patch 2^(levels - 1) happens inside: no size is refused and none is changed."""
    multipliers = (1, 2, 2)[:levels]
    net = UNet(shape, width, multipliers, conditioning=Conditioning(3, drawn=True), patch=patch)
    out = net(torch.randn(2, *shape), torch.zeros(2), torch.randn(2, 3))
    assert out.shape == (2, *shape) and out.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(shape=st.one_of(shapes(), st.tuples(st.integers(1, 12))))
def test_encoders_critic_and_generators_take_any_shape(shape):
    """`features` is what comes out, for images, signals, volumes and vectors of any size; a critic gives one number."""
    x = torch.randn(2, *shape)
    for encoder in encoders(shape):
        assert encoder(x).shape == (2, encoder.features)
    assert Critic(shape, width=4)(x).shape == (2,)
    assert MLPGenerator(shape, CODE, width=8)(torch.randn(2, CODE)).shape == x.shape
    if len(shape) > 1:
        for patch in (1, 2, 3):
            assert Generator(shape, CODE, width=4, patch=patch)(torch.randn(2, CODE)).shape == x.shape


@pytest.mark.parametrize("spatial", [(6,), (6, 9), (3, 6, 9)])
def test_patches_become_channels_and_pixels_again(spatial):
    """The channel of place (i, j) of a patch is (c side + i) side + j, as in PyTorch's pixel_unshuffle."""
    h = torch.randn(2, 4, *spatial)
    patches = space_to_depth(h, 3)
    assert patches.shape == (2, 4 * 3 ** len(spatial), *(n // 3 for n in spatial))
    assert torch.equal(depth_to_space(patches, 3), h)
    if len(spatial) == 2:
        assert torch.equal(patches, F.pixel_unshuffle(h, 3))


@given(spatial=st.lists(st.integers(1, 20), min_size=1, max_size=3), multiple=st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=40, deadline=None)
def test_padding_is_undone_by_cropping(spatial, multiple):
    """Cropping inverts padding, the padded sizes are the least multiples, and what is added repeats the border."""
    padding = Padding(tuple(spatial), multiple)
    x = torch.randn(2, 3, *spatial)
    padded = padding.pad(x)
    assert torch.equal(padding.crop(padded), x)
    assert padded.shape[2:] == padding.padded == tuple(math.ceil(n / multiple) * multiple for n in spatial)
    assert padded.amax() == x.amax() and padded.amin() == x.amin()


def test_full_resolution_commutes_with_translation():
    """Without downsampling a network of convolutions moves with its input, far from the border."""
    net = UNet((1, 64), width=8, multipliers=(1,), blocks=1)
    x = torch.zeros(1, 1, 64)
    x[..., 30:33] = torch.tensor([1.0, -2.0, 0.5])
    level = torch.zeros(1)
    reach = 1 + 4 * 2 + 1  # of 3-wide convolutions: stem, two in each of four blocks, output
    moved = net(x.roll(3, -1), level)[..., reach + 3 : -reach]
    assert torch.allclose(net(x, level).roll(3, -1)[..., reach + 3 : -reach], moved, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_code_means_the_null_code(name):
    """z = None and z = null, given by hand, are the same computation; a null that moves moves the output."""
    net = decoders()[name]
    nn.init.normal_(net.null)
    x_t, log_snr, _ = inputs(net)
    out = net(x_t, log_snr)
    assert torch.equal(out, net(x_t, log_snr, net.null.expand(4, -1)))
    (gradient,) = torch.autograd.grad(out.square().sum(), net.null)
    assert gradient.abs().min() > 0


@pytest.mark.parametrize("name", NAMES)
def test_dropped_examples_equal_a_mix_by_hand(name):
    """Where drop is True an example comes out as without a code, elsewhere as with it: examples do not mix."""
    net = decoders()[name]
    x_t, log_snr, z = inputs(net)
    drop = torch.tensor([True, False, False, True])
    mixed = net(x_t, log_snr, z, drop=drop)
    assert torch.allclose(mixed[drop], net(x_t[drop], log_snr[drop]), atol=1e-6)
    assert torch.allclose(mixed[~drop], net(x_t[~drop], log_snr[~drop], z[~drop]), atol=1e-6)


@pytest.mark.parametrize("build, drawn", [(UNet, False), (UNet, True), (MLPDecoder, False)])
def test_a_code_is_seen_below_its_noise_level_alone(build, drawn):
    """From `code_until` on each code is the null code, bit by bit; a unit below it is seen whole, between in part."""
    torch.manual_seed(0)
    net = build(IMAGE, width=8, conditioning=Conditioning(CODE, code_until=1.5, drawn=drawn))
    nn.init.normal_(net.null)
    x_t, _, z = inputs(net)
    for log_snr in (1.5, 9.0):
        level = torch.full((4,), log_snr)
        assert torch.equal(net(x_t, level, z), net(x_t, level))
        assert torch.equal(net(x_t, level, z), net(x_t, level, z, drop=torch.arange(4) < 2))
    free = build(IMAGE, width=8, conditioning=Conditioning(CODE, drawn=drawn))
    free.load_state_dict(net.state_dict())
    for log_snr, seen in ((0.5, 1.0), (-9.0, 1.0), (1.25, 0.25)):
        level, part = torch.full((4,), log_snr), (1 - seen) * net.null + seen * z
        torch.testing.assert_close(net(x_t, level, z), free(x_t, level, part))
        assert (net(x_t, level, z) - net(x_t, level)).abs().amax() > 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_code_has_a_gradient_at_the_first_step(name):
    """An encoder behind a zero-initialised path never starts to learn: each unit of z of each example must be heard."""
    net = decoders()[name]
    x_t, log_snr, z = inputs(net)
    z.requires_grad_()
    (gradient,) = torch.autograd.grad((net(x_t, log_snr, z) - x_t).square().sum(), z)
    assert (gradient.abs() > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_output_depends_on_code_and_noise_level(name):
    """Two codes, and two noise levels, give two outputs for every example."""
    net = decoders()[name]
    x_t, log_snr, z = inputs(net)
    out = net(x_t, log_snr, z)
    for other in (net(x_t, log_snr, z + 1), net(x_t, log_snr + 1, z)):
        assert ((out - other).flatten(1).norm(dim=1) > 1e-4 * out.flatten(1).norm(dim=1)).all()


def test_every_block_hears_both_conditions():
    """Each residual block has its own projection of noise level and of code, and both get a gradient."""
    net = decoders()["drawn"]
    x_t, log_snr, z = inputs(net)
    net(x_t, log_snr, z).square().sum().backward()
    films = [p.grad for name, p in net.named_parameters() if "film" in name and name.endswith("weight")]
    assert len(films) == 2 * (2 * 3 + 2) and all(gradient.abs().sum() > 0 for gradient in films)


@pytest.mark.parametrize("name", NAMES)
def test_extra_input_is_used(name):
    """The additional channels reach the output."""
    net = decoders(extra_channels=3)[name]
    x_t, log_snr, z = inputs(net)
    extra = torch.randn(4, 3, *net.shape[1:], requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x_t, log_snr, z, extra).square().sum(), extra)
    assert (gradient.abs() > 0).all()


@pytest.mark.parametrize("shape", [(6,), (1, 9), IMAGE, (1, 4, 5, 3)])
def test_time_changes_the_features(shape):
    """An encoder with time = True answers differently at another noise level, and refuses to guess one."""
    for encoder in encoders(shape, time=True):
        x = torch.randn(3, *shape)
        low, high = encoder(x, torch.full((3,), -4.0)), encoder(x, torch.full((3,), 4.0))
        assert ((low - high).norm(dim=1) > 1e-4 * low.norm(dim=1)).all()
        with pytest.raises(ValueError, match=r"expected a log_snr.*got None"):
            encoder(x)
    for encoder in encoders(shape):
        with pytest.raises(ValueError, match="expected no log_snr"):
            encoder(torch.randn(3, *shape), torch.zeros(3))


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("shape", [(6,), (1, 9), IMAGE, (1, 4, 5, 3)])
def test_every_weight_of_an_encoder_or_critic_acts(shape, time):
    """None stands beside the way from x to the features: each has a gradient."""
    level = (torch.tensor([-2.0, 1.0, 3.0]),) if time else ()
    for net in [*encoders(shape, time), *([] if time else [Critic(shape, width=8)])]:
        net(torch.randn(3, *shape), *level).square().sum().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_of_a_decoder_acts(name):
    """With a code for some examples and the null code for others."""
    net = decoders(extra_channels=1)[name]
    x_t, log_snr, z = inputs(net)
    said = net(x_t, log_snr, z, torch.randn(4, 1, *net.shape[1:]), drop=torch.tensor([True, False, False, True]))
    said.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("shape", [(6,), IMAGE])
def test_encoders_drop_features_in_training_alone(shape):
    """Two passes in training differ by what was dropped; in evaluation they are those of the same weights without."""
    x = torch.randn(3, *shape)
    plain, dropping = encoders(shape), encoders(shape, dropout=0.5)
    for whole, net in zip(plain, dropping, strict=True):
        net.load_state_dict(whole.state_dict())
        assert not torch.allclose(net(x), net(x), atol=1e-4)
        assert torch.equal(net.eval()(x), whole(x))


@pytest.mark.parametrize("shape", [(6,), IMAGE])
def test_an_example_does_not_depend_on_its_batch(shape):
    """No BatchNorm anywhere: one example alone gives what it gives in a batch, in training mode too."""
    x = torch.randn(5, *shape)
    for net in [*encoders(shape), Critic(shape, width=8)]:
        assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"z": torch.zeros(4, CODE + 1)}, r"expected a code of shape \(4, 5\), got \(4, 6\)"),
        ({"z": torch.zeros(3, CODE)}, r"expected a code of shape \(4, 5\), got \(3, 5\)"),
        ({"drop": torch.zeros(3, dtype=torch.bool)}, r"expected a mask drop of shape \(4,\), got \(3,\)"),
        ({"extra": torch.zeros(4, 1, 7, 10)}, r"expected an extra input of shape None, got \(4, 1, 7, 10\)"),
    ],
)
def test_wrong_inputs_are_named(arguments, message):
    """What was expected and what came stand in the error, for each input."""
    net = decoders()["unet"]
    with pytest.raises(ValueError, match=message):
        net(torch.zeros(4, *IMAGE), torch.zeros(4), **arguments)


def test_a_decoder_without_a_code_refuses_one():
    """A code that would be ignored is a mistake, and so is data of another shape."""
    net = UNet(IMAGE, width=8)
    with pytest.raises(ValueError, match="expected no code"):
        net(torch.zeros(4, *IMAGE), torch.zeros(4), torch.zeros(4, CODE))
    with pytest.raises(ValueError, match=r"expected data of shape .*2, 7, 10.*, got \(4, 3, 7, 10\)"):
        net(torch.zeros(4, 3, 7, 10), torch.zeros(4))
    drawn, coded = Conditioning(drawn=True), Conditioning(CODE, drawn=True)
    for build in (
        lambda: UNet(IMAGE, conditioning=drawn),
        lambda: UNet(IMAGE, attention=(3,)),
        lambda: UNet((6,)),
        lambda: MLPDecoder((6,), conditioning=coded),
    ):
        with pytest.raises(ValueError, match="expected"):
            build()


@pytest.mark.parametrize("blocks, width, code", [(2, 8, 0), (4, 16, 0), (3, 16, 7)])
def test_full_resolution_form_has_the_parameters_counted_by_hand(blocks, width, code):
    """One resolution, no skip convolutions: 2 blocks + 2 equal blocks, stem, head, the two embeddings; nothing else."""
    channels, condition = 3, 4 * width
    film = (2 if code else 1) * (condition + 1) * 2 * width
    block = 2 * (9 * width + 1) * width + film
    stem = (9 * channels * 5 + 1) * width  # x with sine and cosine of two exponents
    head = 2 * width + (9 * width + 1) * channels
    embeddings = (32 + 1) * condition + (condition + 1) * condition + ((code + 1) * condition + code if code else 0)
    net = UNet(
        (channels, 8, 8), width=width, multipliers=(1,), blocks=blocks, conditioning=Conditioning(code, fourier=(7, 8))
    )
    assert sum(p.numel() for p in net.parameters()) == stem + (2 * blocks + 2) * block + head + embeddings


def test_wide_resnet_28_2_has_28_layers_and_its_width():
    """The depth 6 n + 4 counts convolutions: 6 n in blocks, the stem, three 1x1 shortcuts; 64 * widen features."""
    net = WideResNet((3, 8, 8))
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 28
    assert net.features == 128


def test_wide_resnet_halves_at_two_of_its_stages_and_ends_with_a_mean():
    """Zagoruyko and Komodakis, Table 1: with two blocks a stage, 16, 8 and 4 positions a side."""
    net, maps = WideResNet((1, 16, 16), depth=16, widen=1), []
    for block in (*net.blocks, net.norm):
        block.register_forward_hook(lambda module, given, made: maps.append(made))
    features = net(torch.randn(3, 1, 16, 16))
    assert [h.shape[-1] for h in maps[:-1]] == [16, 16, 8, 8, 4, 4]
    torch.testing.assert_close(features, F.silu(maps[-1]).mean((2, 3)))


def test_fourier_features_are_the_harmonics():
    """sin and cos of 2^n pi x; at x = k / 2^n the sine vanishes and the cosine is (-1)^k."""
    x = torch.arange(-8, 9).reshape(1, 1, -1) / 8
    plain, sine, cosine = Fourier((3,))(x).unbind(1)
    assert torch.equal(plain, x[:, 0]) and Fourier((3,)).channels(1) == 3
    assert torch.allclose(sine, torch.zeros_like(sine), atol=1e-5)
    assert torch.allclose(cosine, 1 - 2 * (torch.arange(-8, 9) % 2).float())


def test_noise_levels_are_told_apart():
    """Over [-20, 20] no two levels half a unit apart share their sines and cosines."""
    net = NoiseLevel(8)
    features = net.frequency * torch.arange(-20, 20.5, 0.5)[:, None]
    distances = torch.pdist(torch.cat([features.sin(), features.cos()], 1))
    assert distances.min() > 0.3


def test_groups_have_four_channels_where_there_are_four():
    """A group of one channel would erase a map of one position; each group keeps at least four channels, or all."""
    for channels in range(1, 70):
        norm = group_norm(channels)
        assert channels % norm.num_groups == 0 and (norm.num_groups == 1 or channels // norm.num_groups >= 4)
    assert group_norm(32).num_groups == 8


@given(n=st.integers(1, 3000))
def test_halvings_are_the_fewest(n):
    """Halving (rounding up) that often leaves at most four positions, once fewer leaves more."""
    k = halvings((n,))
    assert math.ceil(n / 2**k) <= 4 and (k == 0 or math.ceil(n / 2 ** (k - 1)) > 4)


def test_networks_can_be_differentiated_twice():
    """Sliced score matching needs the gradient of a gradient: through padding, norms and upsampling it exists."""
    net = UNet(IMAGE, width=8, multipliers=(1, 2))
    x = torch.randn(2, *IMAGE, requires_grad=True)
    (slope,) = torch.autograd.grad(net(x, torch.zeros(2)).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), net.stem.weight)
    assert curvature.abs().sum() > 0


def test_memory_format_does_not_change_the_result():
    """channels_last is a matter of speed alone, and the network stays in it to its end."""
    net = UNet((1, 8, 8), width=16, attention=(2,), conditioning=Conditioning(CODE))
    x, log_snr, z = inputs(net)
    plain = net(x, log_snr, z)
    fast = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), log_snr, z)
    assert torch.allclose(plain, fast, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "drawn", "mlp"])
def test_networks_compile_whole(name):
    """One graph without breaks, for any batch size, that computes what the network computes."""
    net = decoders()[name]
    whole = torch.compile(net, backend="eager", fullgraph=True)
    for batch in (4, 6):
        x_t, log_snr, z = inputs(net, batch)
        drop = torch.arange(batch) % 2 == 0
        assert torch.allclose(whole(x_t, log_snr, z, drop=drop), net(x_t, log_snr, z, drop=drop), atol=1e-6)
