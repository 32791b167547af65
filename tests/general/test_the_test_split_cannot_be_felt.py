"""Oracle 1: what trains, fits or chooses is bit-identical whatever the test split holds; validation chooses only."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from diffrep.data import load
from diffrep.probes import few_labels, linear, mlp, neighbours
from diffrep.probes.protocols import DRAWN, ONCE, protocols
from every_measure import ROWS, leaves, opposite, splits, without_a_row
from tiny import EVERY, base, same, source, train, weights

LEARN_LABELS = {"classifier"}  # all others are said to use none
SAY_VALIDATION = {"read_layers", "read_times"}  # measures that state an accuracy on it
CHOSEN = ("strength", "k", "metric", "epoch", "valid_accuracy", "layer", "log_snr", "t", "way", "grid", "reader", "dim")
ACCURACIES = {"accuracy", "balanced", "auroc", "draws", "linear", "knn"}  # one less itself for the opposite class
ERRORS = {"se", "low", "high", "sd", "test_se", "linear_se", "knn_se", "most_frequent", "key"}  # and what else may move


@pytest.mark.slow
@pytest.mark.parametrize("method", EVERY)
def test_training_feels_no_test_split(method):
    """Weights, fitted priors and the log after three steps, with other examples in test and valid, and other labels."""
    labels = 0 if method in LEARN_LABELS else 1
    other = train(method, data=source(test=1, valid=1, labels=labels))
    assert same(weights(base(method)), weights(other)) == []
    log, of_other = ((run.directory / "metrics.jsonl").read_text() for run in (base(method), other))
    assert log == of_other  # by which the doctor judges
    if method in LEARN_LABELS:
        assert same(weights(base(method)), weights(train(method, data=source(labels=1))))


@pytest.mark.slow
def test_a_table_is_standardised_by_its_training_rows():
    """The scaler of a table, and all that is learned after it."""
    one = train("vae", data=source(table=True))
    two = train("vae", data=source(test=1, valid=1, table=True))
    assert one.card.scaling == two.card.scaling and same(weights(one), weights(two)) == []


def test_a_table_with_gaps_and_words_is_read_by_its_training_rows(tmp_path):
    """What fills an empty cell, and which words get a number: the training rows stay with far test rows of new words,
    which are told of."""
    of = ["train", "valid", "test"] * 20
    rows = [(split, (i % 7) / 3 if i % 5 else "", "ab"[i % 4 // 2], "uvw"[i % 9 // 3]) for i, split in enumerate(of)]
    one, two = (tmp_path / name for name in ("one.csv", "two.csv"))
    for path, far in ((one, rows), (two, [row if row[0] != "test" else (*row[:1], 1e6, "c", "x") for row in rows])):
        path.write_text("\n".join(["split,number,first,second", *(",".join(map(str, row)) for row in far)]))
    first, second = (load(str(path)).train for path in (one, two))
    assert first.shape == (1 + 1 + 2 + 3,)  # the number and where it is missing, and one for each word
    x = first.batch(torch.arange(20)).x
    assert torch.equal(x, second.batch(torch.arange(20)).x) and x.isfinite().all()
    assert "words that training lacks (c)" in " ".join(second.reading.notes)


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


@cache
def measured(name: str) -> dict[str, Any]:
    """What the measure of a row says of its run and the tiny data, by the place in its result."""
    return dict(leaves(ROWS[name].call(base(ROWS[name].method), splits())))


def called(place: str) -> str:
    """ "combined/2/way" -> "way", "draws/0" -> "draws"."""
    return [word for word in place.split("/") if not word.isdecimal()][-1]


def test_every_measure_has_a_row():
    """A measure that is added says in tests/every_measure.py how it is called and which splits it reads."""
    assert without_a_row() == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "train" in row.reads])
def test_a_measure_chooses_without_the_labels_of_test(name):
    """With the other one of two classes for every test example each accuracy becomes one less itself, so that what is
    chosen by it would be the worst in place of the best. All else but its errors stays, to the last bit."""
    one = measured(name)
    two = dict(leaves(ROWS[name].call(base(ROWS[name].method), opposite(splits()))))
    for place, value in one.items():
        if called(place) in ACCURACIES and isinstance(value, float):
            assert value + two[place] == pytest.approx(1), place
        elif called(place) not in ERRORS:
            assert value == two[place], place


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "valid" in row.reads])
def test_what_is_said_of_validation_is_said_of_it(name):
    """With the other one of two classes for every validation example each accuracy on it is another; the measures that
    state one are named here."""
    one = {place: value for place, value in measured(name).items() if called(place) == "valid_accuracy"}
    assert bool(one) == (name in SAY_VALIDATION)
    two = dict(leaves(ROWS[name].call(base(ROWS[name].method), opposite(splits(), "valid")))) if one else {}
    assert [place for place, value in one.items() if value == two[place] != 0.5] == []


@pytest.mark.slow
def test_ways_of_combining_times_differ_on_test():
    """So that the best of them on test is another one where the labels of test are the opposite."""
    found = {value for place, value in measured("read_times").items() if re.fullmatch(r"/combined/\d+/accuracy", place)}
    assert len(found) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_measure_chooses_without_the_examples_of_test(name):
    """With other test examples and labels what is chosen stays, and what is said of test moves; where a measure is said
    not to read the validation split, another one changes nothing."""
    one, row = measured(name), ROWS[name]
    run = base(row.method)
    two = dict(leaves(row.call(run, splits(test=1))))
    for place, value in one.items():
        assert called(place) not in CHOSEN or value == two[place], place
    assert any(isinstance(value, float) and value != two.get(place) for place, value in one.items())
    if "valid" not in row.reads:
        three = dict(leaves(row.call(run, splits(valid=1))))
        assert [place for place, value in three.items() if value != one[place]] == []
