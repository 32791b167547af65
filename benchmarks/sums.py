"""Sums of memory, disk, traffic and time of large runs: python benchmarks/sums.py prints the tables of docs/large.md.

Each function is a formula of that page; tests/general/test_sums.py holds them to small cases, at one process and at
two.
"""

from dataclasses import dataclass
from math import prod

import machine
import torch

from diffrep.data.streams.order import BUFFER
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import UNet
from diffrep.training.muon import kernels

FLOAT = 4  # bytes
SHAPE, WIDTH, MULTIPLIERS, BLOCKS, DIM = (3, 64, 64), 384, (1, 2, 3, 4), 3, 256
SPEED = 2e14  # FLOP/s of a process, an assumption: a fifth of what an H100 is sold for in bf16
STORED = prod(SHAPE)  # bytes of an example: grey levels
SETS = {"ImageNet, 100 epochs": (1_281_167, 100), "a billion pictures, one epoch": (1_000_000_000, 1)}


@dataclass(frozen=True)
class Net:
    """Weights of a model, how many of them are kernels that Muon trains, and FLOP of a forward pass of an example."""

    weights: int
    kernels: int
    forward: float


def optimiser(net: Net) -> int:
    """Bytes: a momentum of each kernel; the mean of gradients and of their squares of every other weight."""
    return FLOAT * (net.kernels + 2 * (net.weights - net.kernels))


def training(net: Net, processes: int = 1) -> float:
    """Bytes of weights, gradient, average and optimiser; of a process, where each of several holds a part."""
    return (3 * FLOAT * net.weights + optimiser(net)) / processes


def muon(net: Net) -> int:
    """Bytes that a step of Muon takes for a moment: of each kernel its momentum and the step that is made of it."""
    return 2 * FLOAT * net.kernels


def checkpoint(net: Net) -> int:
    """Bytes of weights, average and optimiser in a file."""
    return 2 * FLOAT * net.weights + optimiser(net)


def buffer(example: int, processes: int = 1) -> float:
    """Bytes of a stream's blocks in a process; example: bytes as it is stored."""
    return BUFFER * example / processes


def codes(examples: int, dim: int) -> int:
    """Bytes of the column of codes."""
    return FLOAT * examples * dim


def traffic(net: Net, processes: int, parts: bool) -> float:
    """Bytes that a process sends in a step, in rings: a gradient is summed and spread, which are two rounds; weights
    that lie in parts are gathered twice, and the gradient is summed once."""
    return (3 if parts else 2) * FLOAT * net.weights * (processes - 1) / processes


def seconds(net: Net, examples: int, processes: int = 1) -> float:
    """Of training: a step takes three forward passes, one forward and two backward."""
    return 3 * net.forward * examples / (SPEED * processes)


def decoder() -> Net:
    """The U-Net of the page, counted without memory for it."""
    with torch.device("meta"):
        net = UNet(SHAPE, WIDTH, MULTIPLIERS, BLOCKS, conditioning=Conditioning(DIM))
        x, log_snr, z = torch.zeros(1, *SHAPE), torch.zeros(1), torch.zeros(1, DIM)
        with torch.no_grad():
            forward = machine.flops(lambda: net(x, log_snr, z))
    return net_of(net, forward)


def net_of(model: torch.nn.Module, forward: float = 0.0) -> Net:
    """Weights and kernels of a model."""
    return Net(*(sum(p.numel() for p in some) for some in (model.parameters(), kernels(model.modules()))), forward)


def main() -> None:
    net = decoder()
    print(f"{net.weights / 1e6:.0f} million weights, {net.forward / 1e9:.0f} GFLOP a forward pass.")
    print(f"A step of Muon takes more for a moment, {muon(net) / 1e9:.1f} GB here.\n")
    print("| processes | training, whole | training, in parts | sent in a step, whole | in parts | buffer |")
    print("|---|---|---|---|---|---|")
    for n in (1, 2, 8, 64):
        sent = (traffic(net, n, parts) for parts in (False, True))
        cells = (training(net), training(net, n), *sent)
        gigabytes = " | ".join(f"{cell / 1e9:.1f} GB" for cell in cells)
        print(f"| {n} | {gigabytes} | {buffer(STORED, n) / 1e6:.1f} MB |")
    print(f"\nA checkpoint: {checkpoint(net) / 1e9:.1f} GB.\n")
    print("| set | as it is stored | codes | training on 1 | on 8 | on 64 |")
    print("|---|---|---|---|---|---|")
    for name, (examples, epochs) in SETS.items():
        days = (seconds(net, examples * epochs, n) / 86_400 for n in (1, 8, 64))
        sizes = f"{examples * STORED / 1e9:,.0f} GB | {codes(examples, DIM) / 1e9:,.1f} GB"
        print(f"| {name} | {sizes} | " + " | ".join(f"{day:.1f} days" for day in days) + " |")


if __name__ == "__main__":
    main()
