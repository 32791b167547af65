"""How long a training step of a network takes, against the default U-Net: python benchmarks/networks.py

One process, two threads, batch 128 of 1x28x28, channels_last; the least of several forward and backward passes, the
settings taken in turn, because other work on the machine only ever adds time. `--compile` adds torch.compile.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import sys
import time

import torch
from torch import nn

from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import UNet
from diffrep.nets.encoders import ConvEncoder, ViT, WideResNet

SHAPE, BATCH, CODE, ROUNDS = (1, 28, 28), 128, 32, 5

DECODERS = {
    "UNet, default: 32 x (1, 2, 2)": UNet(SHAPE, conditioning=Conditioning(CODE, fourier=(7, 8))),
    "32 x (1, 2, 2), attention at 7x7": UNet(SHAPE, attention=(2,), conditioning=Conditioning(CODE, fourier=(7, 8))),
    "32 x (1, 2, 2), code drawn": UNet(SHAPE, conditioning=Conditioning(CODE, fourier=(7, 8), drawn=True)),
    "24 x (1, 2, 4)": UNet(SHAPE, width=24, multipliers=(1, 2, 4), conditioning=Conditioning(CODE, fourier=(7, 8))),
    "16 x (1, 2, 4)": UNet(SHAPE, width=16, multipliers=(1, 2, 4), conditioning=Conditioning(CODE, fourier=(7, 8))),
    "16 x (1, 2, 4), no code": UNet(SHAPE, width=16, multipliers=(1, 2, 4), conditioning=Conditioning(fourier=(7, 8))),
    "16 x (1, 4, 4)": UNet(SHAPE, width=16, multipliers=(1, 4, 4), conditioning=Conditioning(CODE, fourier=(7, 8))),
    "16 x (1, 2, 4, 8)": UNet(
        SHAPE, width=16, multipliers=(1, 2, 4, 8), conditioning=Conditioning(CODE, fourier=(7, 8))
    ),
    "16 x (1,), 4 blocks, full resolution": UNet(
        SHAPE, 16, multipliers=(1,), blocks=4, conditioning=Conditioning(CODE)
    ),
}
ENCODERS = {
    "ConvEncoder 16": ConvEncoder(SHAPE, width=16),
    "ConvEncoder 32": ConvEncoder(SHAPE, width=32),
    "ConvEncoder 32, time": ConvEncoder(SHAPE, width=32, time=True),
    "ViT 128 x 4": ViT(SHAPE),
    "WideResNet-10-2": WideResNet(SHAPE, depth=10),
}


def seconds(net: nn.Module, run, arguments: tuple[torch.Tensor, ...]) -> float:
    """One forward and backward pass."""
    net.zero_grad(set_to_none=True)
    start = time.perf_counter()
    run(*arguments).square().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    x = torch.randn(BATCH, *SHAPE).to(memory_format=torch.channels_last)
    log_snr, z = torch.linspace(-5, 13.3, BATCH), torch.randn(BATCH, CODE)
    runs = {}
    for name, net in (DECODERS | ENCODERS).items():
        net.to(memory_format=torch.channels_last)
        code = (z,) if getattr(net, "code_dim", 0) else ()
        timed = (log_snr, *code) if name in DECODERS or "time" in name else ()
        runs[name] = (net, net, (x, *timed))
        if "--compile" in sys.argv and name in list(DECODERS)[:5:4]:
            runs[f"{name}, compiled"] = (net, torch.compile(net), (x, *timed))
    best = {name: float("inf") for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            best[name] = min(best[name], seconds(*run))
    unit = next(iter(best.values()))
    print(f"{'network':42s} {'parameters':>10s} {'ms a step':>10s} {'ratio':>6s}")
    for name, took in best.items():
        count = sum(p.numel() for p in runs[name][0].parameters())
        print(f"{name:42s} {count:10,d} {1000 * took:10.1f} {took / unit:6.2f}")


if __name__ == "__main__":
    main()
