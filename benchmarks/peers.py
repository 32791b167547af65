"""A training step of diffrep beside those of other libraries (make peers):

build/peers/bin/python benchmarks/peers.py [PAIR ...] [--shape 1 28 28] [--batch 16] [--rounds 3] [--out FILE]

Loss, gradient and AdamW on one batch, one thread, in turn: ours, theirs, ours, theirs; CPU time, least of the rounds.
A U-Net of a peer has three resolutions with one block each, as ours of 32 channels, and the width whose loss takes most
nearly as many FLOPs by torch's counter; what is left of the difference is divided out. Autoencoders and SimCLR get our
own networks and views, so there the FLOPs are equal. Each peer is taken in the memory layout in which it is faster.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import machine
import record
import torch
from torch import Tensor, nn
from torch import library as operators

from diffrep.config import Settings, override
from diffrep.methods.catalog import build
from diffrep.models.base import Model
from diffrep.shapes import Batch, Draws, Facts

WIDTH = 32  # of our decoder; twice the default, since a peer as small as that would have 8 channels
WIDTHS = range(8, 49, 4)  # of a peer's U-Net
ROUND = 0.3  # seconds at least of a measurement


@dataclass(frozen=True)
class Trained:
    """Networks, and the loss of a batch."""

    module: nn.Module
    loss: Callable[[Tensor], Tensor]


def ours(method: str, shape: tuple[int, ...]) -> tuple[Model, Trained]:
    facts = Facts(shape, 256, classes=10)
    model = build(override(Settings(), [f"method={method}", f"decoder.width={WIDTH}"]), facts, warn=False).train()

    def loss(x: Tensor) -> Tensor:
        index = torch.arange(len(x))
        return torch.stack([*model.loss(Batch(x, index, draws=Draws.of(0))).values()]).sum() / x.numel()

    return model, Trained(model, loss)


def diffusers(shape: tuple[int, ...], width: int) -> Trained:
    from diffusers import DDPMScheduler, UNet2DModel

    widths, noise = (width, 2 * width, 4 * width), DDPMScheduler()
    net = UNet2DModel(shape[-1], shape[0], shape[0], layers_per_block=1, block_out_channels=widths, norm_num_groups=4,
                      down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3,
                      add_attention=False)  # fmt: skip

    def loss(x: Tensor) -> Tensor:
        eps, t = torch.randn_like(x), torch.randint(0, noise.config.num_train_timesteps, (len(x),))
        return nn.functional.mse_loss(net(noise.add_noise(x, eps, t), t).sample, eps)

    return Trained(net, loss)


def denoising_diffusion_pytorch(shape: tuple[int, ...], width: int) -> Trained:
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    net = Unet(dim=width, dim_mults=(1, 2, 4), channels=shape[0])
    diffusion = GaussianDiffusion(net, image_size=shape[-1], auto_normalize=False)
    return Trained(diffusion, diffusion)


def azula(shape: tuple[int, ...], width: int) -> Trained:
    from azula.denoise import KarrasDenoiser
    from azula.nn.layers import SineEncoding
    from azula.nn.unet import UNet
    from azula.noise import VPSchedule

    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Sequential(SineEncoding(64), nn.Linear(64, 64), nn.SiLU())
            self.net = UNet(shape[0], shape[0], mod_features=64, hid_channels=(width, 2 * width, 4 * width),
                            hid_blocks=(1, 1, 1))  # fmt: skip

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.net(x, self.time(t))

    denoiser = KarrasDenoiser(Timed(), VPSchedule())
    return Trained(denoiser, lambda x: denoiser.loss(x, torch.rand(len(x))).mean())


def pythae(model: Model, shape: tuple[int, ...]) -> Trained:
    from pythae.models import AE, VAE, AEConfig, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    posterior, generator = copy.deepcopy(model.posterior), copy.deepcopy(model.generator)
    random, code = not posterior.deterministic, model.encode(torch.zeros(1, *shape)).mean
    sizes = {"input_dim": shape, "latent_dim": code.shape[1]}

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.posterior = posterior

        def forward(self, x: Tensor) -> ModelOutput:
            code = self.posterior(x)
            spread = {"log_covariance": 2 * code.spread.log()} if random else {}
            return ModelOutput(embedding=code.mean, **spread)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.generator = generator

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.generator(z))

    made = VAE(VAEConfig(**sizes), Encoder(), Decoder()) if random else AE(AEConfig(**sizes), Encoder(), Decoder())
    return Trained(made, lambda x: made({"data": x}).loss)


def name_operators() -> None:
    """torchvision for GPUs beside a torch for CPUs has no operators; peers use none, but importing it asks for two."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        LIBRARIES.append(operators.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            LIBRARIES[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


LIBRARIES: list[operators.Library] = []  # what they define goes with them


def lightly(model: Model, shape: tuple[int, ...]) -> Trained:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    linear = [layer for layer in model.head.modules() if isinstance(layer, nn.Linear)]
    head = SimCLRProjectionHead(linear[0].in_features, linear[0].out_features, linear[-1].out_features)
    posterior, contrast = copy.deepcopy(model.posterior), NTXentLoss(temperature=0.5)

    def loss(x: Tensor) -> Tensor:
        draws = Draws.of(0)
        return contrast(*(head(posterior(model.view(x, draws)).mean) for _ in range(2)))

    return Trained(nn.ModuleList([posterior, head]), loss)


PEERS: dict[str, tuple[str, str, Callable]] = {  # name -> our method, package, peer
    "azula": ("vdm", "azula", azula),
    "diffusers": ("vdm", "diffusers", diffusers),
    "denoising-diffusion-pytorch": ("vdm", "denoising-diffusion-pytorch", denoising_diffusion_pytorch),
    "pythae AE": ("ae", "pythae", pythae),
    "pythae VAE": ("vae", "pythae", pythae),
    "lightly SimCLR": ("simclr", "lightly", lightly),
}


def matched(make: Callable, shape: tuple[int, ...], target: float, x: Tensor) -> tuple[int, Trained]:
    """The width at which a peer's loss takes most nearly `target` FLOPs an example, and the peer."""

    def distance(width: int) -> float:
        made = make(shape, width)
        with torch.no_grad():
            return abs(machine.flops(lambda: made.loss(x)) / len(x) / target - 1)

    width = min(WIDTHS, key=distance)
    return width, make(shape, width)


def step(trained: Trained, x: Tensor) -> Callable[[], None]:
    descent = torch.optim.AdamW(trained.module.parameters(), lr=1e-4)

    def work() -> None:
        descent.zero_grad(set_to_none=True)
        trained.loss(x).backward()
        descent.step()

    return work


def in_turn(works: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """CPU seconds of a call of each, the least of the rounds."""
    best: dict[str, float] = {}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            calls, began = 0, time.process_time()
            while time.process_time() - began < ROUND:
                work()
                calls += 1
            best[name] = min(best.get(name, float("inf")), (time.process_time() - began) / calls)
    return best


def compared(name: str, shape: tuple[int, ...], batch: int, rounds: int) -> dict:
    """Milliseconds of a step, FLOPs of its loss and gradient, and the time of a peer over ours at equal FLOPs."""
    method, package, make = PEERS[name]
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    last = x.contiguous(memory_format=torch.channels_last)
    model, own = ours(method, shape)
    with torch.no_grad():
        target = machine.flops(lambda: own.loss(x[:2])) / 2
    width, peer = (None, make(model, shape)) if make in (pythae, lightly) else matched(make, shape, target, x[:2])
    peer.module.train()
    operations = {
        side: machine.flops(lambda of=of: of.loss(x).backward()) // batch
        for side, of in (("ours", own), ("peer", peer))
    }
    works = {"peer": step(peer, x)}
    aside = in_turn(works, 1)["peer"]
    peer.module.to(memory_format=torch.channels_last)
    turned = in_turn({"peer": step(peer, last)}, 1)["peer"]
    if aside < turned:
        peer.module.to(memory_format=torch.contiguous_format)
    own.module.to(memory_format=torch.channels_last)
    spent = in_turn({"ours": step(own, last), "peer": step(peer, x if aside < turned else last)}, rounds)
    return {
        "method": method,
        "version": version(package),
        "width": width,
        "layout": "contiguous" if aside < turned else "channels last",
        "ms": {side: 1000 * seconds for side, seconds in spent.items()},
        "flops_per_example": operations,
        "parameters": {s: sum(p.numel() for p in of.module.parameters()) for s, of in (("ours", own), ("peer", peer))},
        "peer_over_ours": spent["peer"] / operations["peer"] / (spent["ours"] / operations["ours"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=list(PEERS))
    parser.add_argument("--shape", type=int, nargs=3, default=(1, 28, 28))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if unknown := set(given.pairs) - set(PEERS):
        parser.error(f"no such pairs: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    name_operators()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    about = record.about(seed=0, shape=list(given.shape), batch=given.batch, rounds=given.rounds)
    pairs: dict[str, dict] = {}
    for name in given.pairs:
        pairs[name] = compared(name, tuple(given.shape), given.batch, given.rounds)
        print(name, pairs[name], flush=True)
        record.write(given.out, {**about, "pairs": pairs})


if __name__ == "__main__":
    main()
