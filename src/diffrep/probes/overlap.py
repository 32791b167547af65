"""Examples of the test split that also occur in train."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

from diffrep.amounts import amount


def overlap(train: np.ndarray, test: np.ndarray) -> int:
    """How many rows of test (n, w) are rows of train (N, w) too, byte for byte: `Examples.digests`, or features."""
    train_rows = {row.tobytes() for row in train}
    return sum(row.tobytes() in train_rows for row in test)


def sentence(shared: int, of: int) -> str | None:
    """A warning where `shared` of the test examples occur in train; None where none do."""
    if not shared:
        return None
    return (
        f"the training split has {shared:,} of the {amount(of, 'test example')} ({shared / of:.1%}) in it, so the"
        " scores are too good: remove the copies."
    )
