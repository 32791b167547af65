"""Methods train on data of one, two and three spatial axes, through `train` itself: one of each kind, or all (long)."""

import numpy as np
import pytest

import diffrep
from diffrep.methods.catalog import METHODS
from small import KINDS

SIDES = {1: (16,), 2: (8, 8), 3: (5, 5, 5)}
CASES = [
    *(pytest.param(method, 3, marks=[] if method in KINDS else pytest.mark.long) for method in METHODS),
    *((method, axes) for method in ("vae-vdm", "mae") for axes in (1, 2)),
]
SMALL = ("train.batch=8", "decoder.width=4", "decoder.multipliers=[1, 2]", "encoder.width=4")


@pytest.mark.slow
@pytest.mark.parametrize("method, axes", CASES)
def test_training_ends(method, axes, tmp_path):
    """Two steps with the settings as they are: memory layouts, networks and views take any number of axes."""
    x = np.random.default_rng(0).random((20, 2, *SIDES[axes]))
    changes = [*SMALL, "code.dim=4", "prior.kind=normal"] if METHODS[method].has_code else SMALL
    run = diffrep.train((x, np.arange(20) % 2), tmp_path / "run", method=method, budget="16ex", changes=changes)
    assert run.card.shape == (2, *SIDES[axes])
