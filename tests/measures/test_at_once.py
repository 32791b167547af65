"""Pieces of work at once: the same results as one after another, one thread each, and an end for all of them."""

import threading
import time
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from diffrep.measures.at_once import Ended, at_once
from diffrep.probes.linear import linear
from diffrep.probes.mlp import mlp

SOON = 20  # seconds within which something must happen that happens at once


def unheard(name, done, of):
    pass


def test_each_piece_gives_what_it_gives_alone(two_threads):
    work = {k: lambda tell, k=k: k**2 for k in range(20)}
    assert dict(at_once(work, unheard)) == {k: k**2 for k in range(20)}


def test_two_pieces_run_at_once_and_with_one_thread_one_after_another(two_threads):
    both = threading.Barrier(2)
    assert len(dict(at_once({k: lambda tell: both.wait(SOON) for k in "ab"}, unheard))) == 2
    torch.set_num_threads(1)
    assert {who for _, who in at_once({k: lambda tell: threading.current_thread() for k in "ab"}, unheard)} == {
        threading.main_thread()
    }


def test_each_piece_has_one_thread_of_every_library(two_threads):
    """Of the BLAS of NumPy, and of OpenMP in the thread of the piece; afterwards the process has what it had."""

    def threads(tell):
        return [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]

    before = threads(None)
    seen = dict(at_once({k: threads for k in "ab"}, unheard))
    assert all(count == 1 for pools in seen.values() for _, count in pools) and seen["a"]
    assert threads(None) == before


def test_probes_at_once_give_what_they_give_alone(two_threads):
    """Those too that learn by gradients and draw first weights and dropout at random."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    x = (rng.normal(size=(400, 5)) + 0.5 * y[:, None]).astype(np.float32)
    train, valid, test = ((x[rows], y[rows]) for rows in np.split(np.arange(400), [150, 250]))
    probes = {f"mlp {seed}": partial(mlp, train, valid, test, epochs=2, seed=seed) for seed in range(3)}
    probes["linear"] = partial(linear, train, valid, test)
    work = {name: lambda tell, of=of: of(tell=tell) for name, of in probes.items()}
    one = {name: of() for name, of in probes.items()}
    assert dict(at_once(work, unheard)) == one


def test_a_single_piece_has_one_thread_too(two_threads):
    """So a probe scores the same alone and among others."""
    assert dict(at_once({"a": lambda tell: torch.get_num_threads()}, unheard)) == {"a": 1}
    assert not dict(at_once({}, unheard))


def test_progress_is_told_in_the_thread_that_asks(two_threads):
    said = []

    def piece(tell):
        tell(1, 2)
        tell(2, 2)

    for _ in at_once(dict.fromkeys("ab", piece), lambda *told: said.append((threading.current_thread(), *told))):
        pass
    assert {who for who, *_ in said} == {threading.main_thread()}
    assert sorted(rest for _, *rest in said) == [[name, done, 2] for name in "ab" for done in (1, 2)]


def test_an_error_ends_all_pieces(two_threads):
    """The one that runs stops where it next tells how far it is, and those that wait never begin."""
    began, ended = [], threading.Event()

    def fails(tell):
        raise ValueError("a mistake")

    def runs(tell):
        began.append("runs")
        try:
            for done in range(100 * SOON):
                time.sleep(0.01)
                tell(done, 100 * SOON)
        except Ended:
            ended.set()
            raise

    with pytest.raises(ValueError, match="a mistake"):
        list(at_once({"runs": runs, "fails": fails, **{f"waits {k}": runs for k in range(9)}}, unheard))
    assert ended.wait(SOON) and len(began) <= 3  # one may begin before all are called off


def test_warning_filters_are_as_before(two_threads):
    """Each piece changes the filters, which belong to the process, and restores them in whatever order they end."""
    both, before = threading.Barrier(2), warnings.filters[:]

    def piece(tell):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            both.wait(SOON)

    list(at_once(dict.fromkeys("ab", piece), unheard))
    assert warnings.filters == before
