"""U-Nets of the diffusers library: as a decoder of a method, and read out of a pipeline's folder."""

import json

import numpy as np
import pytest
import torch

from diffrep import UserError
from diffrep.codes import Deterministic
from diffrep.data.batches import batches
from diffrep.denoising import EDM, VP, Denoiser, Levels
from diffrep.evaluation import of_pipeline
from diffrep.evaluation.layers import features
from diffrep.models import Coding, DiffusionModel, Objective
from diffrep.models.step_terms import denoise
from diffrep.nets import Conditioning, DiffusersUNet
from diffrep.testing import check_method
from oracles import examples_of
from runs_at_hand import diffrep as command
from runs_at_hand import one_sentence
from tiny import source

diffusers = pytest.importorskip("diffusers")
SHAPE = (1, 6, 5)  # of odd sides, which its two stages do not halve


def unet(**how):
    torch.manual_seed(0)
    tiny = {
        "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "block_out_channels": (8, 8), "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "add_attention": False,
    }  # fmt: skip
    return diffusers.UNet2DModel(**{**tiny, **how})


def recipe(parts):
    """A code for a U-Net of diffusers."""
    shape, dim = parts.facts.shape, parts.code_dim
    net = DiffusersUNet(
        unet(class_embed_type="identity", in_channels=shape[0], out_channels=shape[0]), shape, Conditioning(dim)
    )
    terms = Objective({"denoising": denoise}, Levels(lambda noise, t: torch.ones_like(t)))
    coding = Coding(Deterministic(parts.encoder(), dim), drop=0.1)
    return DiffusionModel(shape, parts.facts.bins, Denoiser(net, VP(), EDM(0.5)), terms, coding)


def test_a_method_with_its_network_passes_what_every_method_passes():
    """The gradient reaches the encoder, every parameter is trained, it encodes, decodes and samples."""
    check_method(recipe, {SHAPE: None})


def test_noise_level_and_code_take_the_place_of_the_class():
    """The same call by hand: both vectors summed as its class at timestep 0, on a padded picture."""
    net = DiffusersUNet(unet(class_embed_type="identity"), (1, 4, 4), Conditioning(3)).eval()
    x, log_snr, z = torch.randn(2, 1, 4, 4), torch.tensor([-1.0, 2.0]), torch.randn(2, 3)
    with torch.no_grad():
        by_hand = net.unet(x, 0, class_labels=net.level(log_snr) + net.code(z)).sample
        torch.testing.assert_close(net(x, log_snr, z), by_hand)
        assert not torch.allclose(net(x, log_snr, z), net(x, log_snr))
    with pytest.raises(UserError, match=r"expected .* class_embed_type='identity', got class_embed_type=None"):
        DiffusersUNet(unet(), SHAPE)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A tiny pipeline, saved as the library saves it."""
    folder = tmp_path_factory.mktemp("pipeline")
    diffusers.DDPMPipeline(unet(sample_size=4), diffusers.DDPMScheduler(50)).save_pretrained(folder)
    return folder


def test_a_pipeline_is_read_from_its_folder(pipeline):
    """The features are those of its own blocks on x with the noise of the timestep."""
    probed = of_pipeline(pipeline)
    assert [*probed.layers] == ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"]
    examples = examples_of(np.random.default_rng(0).integers(0, 17, (3, 1, 4, 4)).astype(np.uint8), 17)
    clean = features(probed, examples, 30.0)["down_blocks.0"]  # the cleanest timestep: 0
    again = unet(sample_size=4)
    x = examples.batch(torch.arange(3)).x
    a = diffusers.DDPMScheduler(50).alphas_cumprod[0]
    (chunk,) = batches(examples, 250, 0, torch.device("cpu"))
    x_t = a.sqrt() * x + (1 - a).sqrt() * chunk.random.normal(*x.shape)
    kept = {}
    handle = again.down_blocks[0].register_forward_hook(lambda module, given, out: kept.update(h=out[0]))
    with torch.no_grad():
        again.eval()(x_t, 0)
    handle.remove()
    np.testing.assert_allclose(clean, kept["h"].mean((2, 3)), atol=1e-5)


def test_the_command_reads_one_and_weights_that_are_no_safetensors_are_refused(pipeline, tmp_path, capsys):
    """Nothing is unpickled: a file of pickled weights is not looked at."""
    quick = ("--levels", 1, "--search", 30, "--most", 30)
    assert command("readout", pipeline, "--data", source(), *quick, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["method"] == "UNet2DModel" and len(facts["grid"]) == 5
    assert command("readout", pipeline, *quick) == 2
    assert "give the pictures to read it on with --data" in one_sentence(capsys)
    assert command("readout", pipeline, "--data", source(table=True), *quick) == 2
    assert "takes pictures of 1 channels" in one_sentence(capsys)
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    moved = weights.rename(weights.with_suffix(".bin"))
    assert command("readout", pipeline, "--data", source(), *quick) == 2
    assert "has no unet/diffusion_pytorch_model.safetensors, and no other weights are read" in one_sentence(capsys)
    moved.rename(weights)
