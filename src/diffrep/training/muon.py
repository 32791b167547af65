"""Muon: steps of the same size in every direction of a kernel; AdamW for all that is no kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffrep.training.sharding import part_of, whole

FACTOR = 7.0  # spectral norm of a step of a kernel, in learning rates of AdamW
MOMENTUM = 0.95
ITERATIONS, COEFFICIENTS = 3, (3.4445, -4.7750, 2.0315)
LEAST = 8  # rows and columns; below that a kernel is an input or output layer


def kernels(modules: Iterable[nn.Module]) -> set[nn.Parameter]:
    """The weights of linear and convolution layers that are matrices of at least `LEAST` rows and columns."""
    layers = [m for m in modules if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    weights = {layer._parameters.get("weight") for layer in layers}  # None: computed from other parameters
    return {w for w in weights if w is not None and min(w.flatten(1).shape) >= LEAST}


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """U S V^T -> near U V^T, by Newton-Schulz iterations: the larger singular values become 0.7 to 1.2.

    Jordan et al. take five iterations; here three are taken.

    matrices: (rows, columns) each, of any shape and scale. An iterate is a polynomial of X X^T times X, so the products
    are of the shorter side alone, and those of matrices with one shorter side are computed together.
    """
    wide = [x if x.shape[0] <= x.shape[1] else x.mT for x in matrices]
    wide = [x / (x.norm() + 1e-12) for x in wide]
    sides: dict[int, list[int]] = {}
    for place, x in enumerate(wide):
        sides.setdefault(x.shape[0], []).append(place)
    for places in sides.values():
        total = _polynomial(torch.stack([wide[place] @ wide[place].mT for place in places]))
        for place, factor in zip(places, total, strict=True):
            wide[place] = factor @ wide[place]
    return [x if x.shape == matrix.shape else x.mT for x, matrix in zip(wide, matrices, strict=True)]


def _polynomial(gram: Tensor) -> Tensor:
    """X X^T (k, n, n) -> the matrix (k, n, n) by which all iterations together multiply X."""
    total = factor = _factor(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        total = total @ factor
    return total


def _factor(gram: Tensor) -> Tensor:
    """a I + b G + c G^2, by which one iteration multiplies X."""
    a, b, c = COEFFICIENTS
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024) for the groups with kernel=True, AdamW for the others; one learning rate for both.

    A kernel (out, in, ...) is the matrix (out, in * ...). Its step is the orthogonalised Nesterov momentum of its
    gradient times FACTOR * lr * max(1, out / in)^(1/2).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient."""
        gradients: dict[nn.Parameter, Tensor] = {}
        for group in self.param_groups:
            if group["kernel"]:
                own = {kernel: kernel.grad for kernel in group["params"] if kernel.grad is not None}
                self._step_kernels(own, group["lr"], group["weight_decay"])
                gradients |= own
        for kernel in gradients:
            kernel.grad = None  # AdamW skips it
        value = super().step(closure)
        for kernel, gradient in gradients.items():
            kernel.grad = gradient
        return value

    def _step_kernels(self, gradients: dict[nn.Parameter, Tensor], lr: float, weight_decay: float) -> None:
        steps = []
        for kernel, gradient in gradients.items():
            state = self.state[kernel]
            if not state:
                state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(kernel)}  # AdamW looks for a step
            state["step"] += 1
            momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
            steps.append(gradient.lerp(momentum, MOMENTUM).flatten(1))
        for kernel, step in zip(gradients, orthogonalised([whole(step) for step in steps]), strict=True):
            scale = FACTOR * max(1.0, step.shape[0] / step.shape[1]) ** 0.5
            kernel.mul_(1 - lr * weight_decay).add_(part_of(step, kernel), alpha=-lr * scale)
