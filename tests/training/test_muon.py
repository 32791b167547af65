"""Muon: the orthogonalised step against the singular value decomposition, and AdamW for the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from diffrep.training.muon import Muon, kernels, orthogonalised
from diffrep.training.optimizer import load_state_tensors, optimizer, state_tensors

A, B, C = 3.4445, -4.7750, 2.0315  # Jordan et al. (2024)


def by_svd(matrix: np.ndarray) -> np.ndarray:
    """Newton-Schulz written on singular values: s <- a s + b s^3 + c s^5, singular vectors as they are."""
    u, s, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(3):
        s = A * s + B * s**3 + C * s**5
    return u * s @ v


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_steps_keep_singular_vectors_and_lose_singular_values(shape, scale):
    matrix = np.random.default_rng(0).normal(size=shape)
    step = orthogonalised([torch.from_numpy(scale * matrix)])[0].numpy()
    assert np.allclose(step, by_svd(matrix), atol=1e-5)
    lengths = np.linalg.svd(step, compute_uv=False)
    assert np.median(lengths) == pytest.approx(0.95, abs=0.25) and lengths.max() < 1.25


def test_kernels_are_apart():
    """What is computed together for kernels of one shorter side does not mix them."""
    rng = np.random.default_rng(2)
    matrices = [rng.normal(size=shape) for shape in ((8, 24), (40, 8), (9, 12), (8, 24))]
    steps = orthogonalised([torch.from_numpy(matrix) for matrix in matrices])
    for step, matrix in zip(steps, matrices, strict=True):
        assert np.allclose(step.numpy(), by_svd(matrix), atol=1e-5)


def test_two_steps_of_a_kernel_by_hand():
    """Nesterov momentum, the factor of tall kernels, decay by lr * weight_decay."""
    rng = np.random.default_rng(1)
    start, first, second = (rng.normal(size=(18, 1, 3, 3)) for _ in range(3))
    kernel = nn.Parameter(torch.from_numpy(start.copy()))
    muon = Muon([{"params": [kernel], "weight_decay": 0.5, "kernel": True}], lr=0.01)
    expected, momentum = start.reshape(18, 9), np.zeros((18, 9))
    for gradient in (first, second):
        kernel.grad = torch.from_numpy(gradient.copy())
        muon.step()
        g = gradient.reshape(18, 9)
        momentum = 0.95 * momentum + 0.05 * g
        expected = expected * (1 - 0.01 * 0.5) - 0.01 * 7 * np.sqrt(2) * by_svd(0.05 * g + 0.95 * momentum)
        assert torch.equal(kernel.grad, torch.from_numpy(gradient))  # gradients are read by others
    assert np.allclose(kernel.detach().numpy().reshape(18, 9), expected, atol=1e-6)


def test_what_is_no_kernel_is_stepped_by_adamw():
    """Bit by bit: biases, norms and thin layers are those of torch's AdamW; kernels are not."""

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv1d(2, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(48, 16), nn.Linear(16, 1))

    ours, theirs = model(), model()
    matrices = kernels(ours.modules())
    assert matrices == {ours[3].weight}  # the first has 2 * 3 columns, the last has one row
    about = dict(lr=0.01, beta1=0.9, beta2=0.99, weight_decay=0.1)
    muon = optimizer({"all": list(ours.parameters())}, matrices, **about)
    decayed = [{"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": 0.1}]
    plain = [{"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(decayed + plain, lr=0.01, betas=(0.9, 0.99))
    for seed in range(3):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(seed))
            other.grad = one.grad.clone()
        muon.step()
        adamw.step()
    same = [torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True)]
    assert same == [p not in matrices for p in ours.parameters()]


def test_its_state_comes_back():
    layer = nn.Linear(8, 8)
    muon = optimizer(
        {"a": list(layer.parameters())}, kernels(layer.modules()), lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.5
    )
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    muon.step()
    kept = {name: value.clone() for name, value in state_tensors(muon).items()}
    assert set(kept) == {"0/step", "0/momentum", "1/step", "1/exp_avg", "1/exp_avg_sq"}
    other = optimizer(
        {"a": list(layer.parameters())}, kernels(layer.modules()), lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.5
    )
    load_state_tensors(other, kept)
    assert {name: value.tolist() for name, value in state_tensors(other).items()} == {
        name: value.tolist() for name, value in kept.items()
    }


def test_weights_that_are_computed_are_no_kernels():
    """Weight normalisation keeps other parameters, which AdamW steps; embeddings and attention's own too."""
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
    assert kernels([normed, nn.Embedding(16, 16), nn.LayerNorm(16)]) == set()
