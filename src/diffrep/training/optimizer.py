"""The optimiser of one player, over named groups with separate clipping; its state is plain tensors."""

from __future__ import annotations

import math
from collections.abc import Set

import torch
from torch import Tensor, nn

from diffrep.training.muon import Muon
from diffrep.training.sharding import part_of, whole

Groups = dict[str, list[nn.Parameter]]  # the parameters of a player by group, such as encoder and decoder


def optimizer(
    groups: Groups, kernels: Set[nn.Parameter], *, lr: float, beta1: float, beta2: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Muon for the kernels, AdamW (Loshchilov and Hutter 2019) for the rest, and for all where there are no kernels.

    Matrices and kernels decay, vectors and scalars do not.
    """
    parameters = [p for group in groups.values() for p in group]
    parts = [
        {"params": [p for p in parameters if p in kernels], "weight_decay": weight_decay, "kernel": True},
        {"params": [p for p in parameters if p.ndim >= 2 and p not in kernels], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    kept = [{"kernel": False, **part} for part in parts if part["params"]]
    return Muon(kept, lr=lr, betas=(beta1, beta2))


def clip_groups(groups: Groups, limit: float | None) -> dict[str, Tensor]:
    """Scale the gradient of each group to a norm of at most `limit`, each separately; returns the norms before
    clipping."""
    norms = {}
    for name, parameters in groups.items():
        gradients = [p.grad for p in parameters if p.grad is not None]
        total = nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
        if limit is not None and gradients:
            nn.utils.clip_grads_with_norm_([p for p in parameters if p.grad is not None], limit, total)
        norms[name] = whole(total)
    return norms


def rate_factor(progress: float, *, warmup: float, schedule: str) -> float:
    """The factor on the learning rate at a progress in [0, 1]: a linear rise over `warmup`, times cosine or
    constant."""
    rise = min(1.0, progress / warmup) if warmup > 0 else 1.0
    return rise * {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "constant": 1.0}[schedule]


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as "<parameter number>/<name>" -> tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{number}/{name}": value for number, entry in state.items() for name, value in entry.items()}


@torch.no_grad()
def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Continue from `state_tensors`; each tensor gets the memory layout of its parameter, so that sums are the same."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split("/")
        like = parameters[int(number)]
        own = value if name == "step" else torch.empty_like(like).copy_(part_of(value, like))
        state.setdefault(int(number), {})[name] = own
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
