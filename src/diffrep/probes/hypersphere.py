"""How codes lie on the unit sphere: alignment and uniformity (Wang and Isola 2020). Arrays in, numbers out.

Codes (N, d) are divided by their length first, as in the paper.
"""

from __future__ import annotations

import math

import numpy as np

from diffrep.errors import UserError

PROTOCOL = "hypersphere-1"  # alpha = 2, t = 2, codes of length one, all pairs of different examples


def alignment(codes: np.ndarray, others: np.ndarray, alpha: float = 2.0) -> float:
    """E |f(x) - f(y)|^alpha over positive pairs, row i of both (N, d) (Eq. 4); 0 where pairs agree, 2 by chance."""
    if np.shape(codes) != np.shape(others):
        raise UserError(f"expected a pair in each row, got codes of {np.shape(codes)} and {np.shape(others)}")
    return float((np.linalg.norm(_on_sphere(codes) - _on_sphere(others), axis=1) ** alpha).mean())


def uniformity(codes: np.ndarray, t: float = 2.0, chunk: int = 1000) -> float:
    """log E exp(-t |f(x) - f(y)|^2) over all pairs of different rows (Eq. 5), nats; lower is more even.

    For a uniform distribution on the sphere in d dimensions it is log(Gamma(d/2) I_(d/2-1)(2t) / t^(d/2-1)) - 2t.
    Counted in chunks of rows: memory O(chunk N).
    """
    u = _on_sphere(codes)
    if len(u) < 2:
        raise UserError(f"uniformity compares examples: expected at least two, got {len(u)}; give more.")
    total = 0.0
    for first in range(0, len(u), chunk):
        total += float(np.exp(2 * t * (u[first : first + chunk] @ u.T - 1)).sum())
    own = float(np.exp(2 * t * ((u * u).sum(1) - 1)).sum())
    return math.log((total - own) / (len(u) * (len(u) - 1)))


def _on_sphere(codes: np.ndarray) -> np.ndarray:
    codes = np.asarray(codes, np.float64)
    if codes.ndim != 2:
        raise UserError(f"expected codes of shape (N, d), got {codes.shape}")
    length = np.linalg.norm(codes, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise UserError("a code that is zero or not finite has no direction; leave those examples out.")
    return codes / length
