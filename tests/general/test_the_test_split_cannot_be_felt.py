"""Oracle 1: what trains, fits or chooses is bit-identical whatever the test split holds; validation chooses only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffrep import runs
from diffrep.measures import evaluate, probe, readout, semi
from diffrep.probes import few_labels, linear, mlp, neighbours
from diffrep.probes.protocols import DRAWN, ONCE, protocols
from tiny import EVERY, base, same, source, train, weights

LEARN_LABELS = {"classifier"}  # all others are said to use none
CHOSEN = ("strength", "k", "metric", "epoch", "valid_accuracy", "layer", "log_snr", "t", "way", "grid", "reader", "dim")
OTHERS = source(test=1), source(valid=1)


@pytest.mark.slow
@pytest.mark.parametrize("method", EVERY)
def test_training_feels_no_test_split(method):
    """Weights and fitted priors after three steps, with other examples in test and in valid, and other labels."""
    labels = 0 if method in LEARN_LABELS else 1
    other = train(method, data=source(test=1, valid=1, labels=labels))
    assert same(weights(base(method)), weights(other)) == []
    if method in LEARN_LABELS:
        assert same(weights(base(method)), weights(train(method, data=source(labels=1))))


@pytest.mark.slow
def test_a_table_is_standardised_by_its_training_rows():
    """The scaler of a table, and all that is learned after it."""
    one = train("vae", data=source(table=True))
    two = train("vae", data=source(test=1, valid=1, table=True))
    assert one.card.scaling == two.card.scaling and same(weights(one), weights(two)) == []


@pytest.mark.slow
def test_priors_fitted_afterwards_see_training_codes_alone():
    """A mixture fitted to the codes of a deterministic encoder."""
    one, two = (
        train("ae", "prior.kind=mixture", "prior.components=2", data=d) for d in (source(), source(test=1, valid=1))
    )
    assert same(weights(one), weights(two)) == []


def clouds(seed: int, count: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    return rng.normal(size=(count, 4)) + np.eye(4)[y] * 1.2 + shift, y


@pytest.mark.parametrize("name", [*ONCE, *(n for n in DRAWN if n != "spreading")])  # which is said to be transductive
def test_probes_answer_each_test_row_by_itself(name, monkeypatch):
    """What is predicted for a row does not depend on the rows beside it, far ones too: no scale, no choice saw them."""
    numbers = name == "regression"
    train_, valid, test, far = clouds(0, 90), clouds(1, 40), clouds(2, 30), clouds(3, 30, shift=50.0)
    if numbers:
        train_, valid, test, far = ((x, x[:, 0] + 0.5 * y) for x, y in (train_, valid, test, far))
    said: list[np.ndarray] = []
    from diffrep.probes import result

    def keep(real):
        def record(predicted, *rest, **more):
            said.append(np.asarray(predicted))
            return real(predicted, *rest, **more)

        return record

    for module in (linear, mlp, neighbours, result):
        if hasattr(module, "accuracy"):
            monkeypatch.setattr(module, "accuracy", keep(module.accuracy))
    monkeypatch.setattr(linear, "explained", lambda y, p, real=linear.explained: (said.append(p), real(y, p))[1])
    monkeypatch.setattr(
        few_labels, "over_draws", lambda r, *a, real=few_labels.over_draws: (said.append(r.T), real(r, *a))[1]
    )
    (protocol,) = protocols([name], (2,) if name in DRAWN else (), 3, 0, numbers).values()
    beside = tuple(np.concatenate(pair) for pair in zip(test, far, strict=True))
    one, two = protocol.measure(train_, valid, test), protocol.measure(train_, valid, beside)
    np.testing.assert_allclose(said[1][: len(said[0])], said[0])
    assert {k: one.get(k) for k in CHOSEN} == {k: two.get(k) for k in CHOSEN}


def choices(facts: Any) -> list:
    """All that was chosen, wherever it stands in a file of results."""
    if isinstance(facts, dict):
        own = [(k, facts[k]) for k in CHOSEN if k in facts]
        return own + [found for value in facts.values() for found in choices(value)]
    return [found for value in facts for found in choices(value)] if isinstance(facts, list) else []


def measured(run: runs.Run, splits) -> dict[str, dict]:
    """Every measure of this run that chooses anything."""
    if run.settings.method == "tdrl":
        return {"times": readout.read_times(run, splits, ks=(1, 2), epochs=3)}
    if run.settings.method == "ddpm":
        return {"readout": readout.read_layers(run, splits, levels=2)}
    return {
        "evaluate": evaluate.evaluate(run, splits, levels=1),
        "probe": probe.probe(run, splits, probe.Probing(names=["linear", "knn"])),
        "semi": semi.semi(run, splits, labels_per_class=2, seeds=2, steps=4),
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ae", "tdrl", "ddpm"])
def test_measures_choose_without_the_test_split(method):
    """Strengths, neighbours, layers, levels, times and validation scores of every measure: the same with another test
    split, while the scores of test move."""
    run, other = base(method), train(method, data=source(test=1))
    one, two = measured(run, run.data), measured(run, other.data)
    for name in one:
        assert choices(one[name]) == choices(two[name]), name
    assert one != two and str(one) != str(two)
