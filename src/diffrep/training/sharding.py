"""Weights of which each process holds a part (FSDP2): cut, gathered and filled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffrep.training.process import Place

GATHERED = 100_000  # parameters of a module that is gathered by itself


def cut(model: Any, here: Place) -> Any:
    """A copy of a model on this device, of whose weights each process holds a part; see `fully_shard` of PyTorch.

    Its forward gathers them. Inside its networks the weights of a module with at least `GATHERED` of them are whole
    only while the module computes; all others are whole during a step.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = deepcopy(model).to(here.device)
    mesh = init_device_mesh(here.device.type, (here.processes,))
    kept = {p for p in model.parameters() if p.dtype != torch.float32}
    held = set(kept)
    for network in model.networks:
        for module in reversed([*network.modules()][1:]):  # the inner ones first
            own = set(module.parameters()) - held
            if sum(p.numel() for p in own) >= GATHERED and type(module).forward is not nn.Module.forward:
                fully_shard(module, mesh=mesh, ignored_params=kept)
                held |= set(module.parameters())
    model = fully_shard(model, mesh=mesh, ignored_params=kept)
    model.no_sync = partial(_no_sync, model)  # as DistributedDataParallel has it
    return model


@contextmanager
def _no_sync(model: Any) -> Iterator[None]:
    """Gradients are added up inside, each process its own."""
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """The weights of a model that was cut are whole inside, but for those that their modules gather."""
    in_parts = hasattr(model, "unshard")
    if in_parts:
        model.unshard()
    try:
        yield
    finally:
        if in_parts:
            model.reshard()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process holds a part; every process must ask. Another tensor stays as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def first_process_gets(tensors: dict[str, Tensor], here: Place) -> dict[str, Tensor]:
    """Whole tensors for the first process to write, none for others; one after the other, so that memory holds one."""
    mine = {}
    for name, value in tensors.items():
        full = whole(value)
        if here.main:
            mine[name] = value if full is value else full.cpu()
    return mine


def part_of(tensor: Tensor, like: Any) -> Tensor:
    """The part of a whole tensor that this process holds of `like`, shaped like it; no process sends anything."""
    tensor = tensor.reshape(like.shape)
    if not hasattr(like, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
