"""The codes of a run, judged: which arrays a protocol meets, what stands beside, and what is made only once."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from diffrep import data, runs
from diffrep.config import override
from diffrep.data import Splits
from diffrep.errors import UserError
from diffrep.files import unsealed
from diffrep.measures import evaluate, kept_scores, probe, readout, stored_codes
from diffrep.methods.catalog import build
from diffrep.probes.protocols import Protocol, protocols
from diffrep.probes.references import pixels
from diffrep.probes.result import error_of
from diffrep.progress import silent
from diffrep.runs.records import digest, weights_digest
from runs_at_hand import diffrep, one_sentence, run_of
from samples import parts_of


@pytest.fixture
def run(tmp_path) -> runs.Run:
    """A copy of a small run, so that its files can be written and broken."""
    shutil.copytree(run_of("ae"), tmp_path / "run")
    return runs.load(tmp_path / "run")


@pytest.fixture
def met(monkeypatch) -> list:
    """The arrays that a protocol is given, in place of every protocol's own."""
    seen: list = []

    def measure(train, valid, test, tell):
        seen.append((train, valid, test))
        return {"accuracy": 0.5, "se": 0.1, "protocol": "spy-1"}

    monkeypatch.setattr(probe, "protocols", lambda *_: {"spy": Protocol(measure, {"protocol": "spy-1"})})
    return seen


def test_a_protocol_meets_the_codes_of_every_example_in_order(run, met):
    """Train, validation and test are the run's own, as they are: no other views of them, no example twice or left out,
    the last partial batch with them, and each code beside its own label. Asked of the model one split at a time."""
    probe.probe(run)
    splits = run.splits()
    for (features, labels), part in zip(met[0], parts_of(splits), strict=True):
        batch = part.batch(torch.arange(len(part)))
        np.testing.assert_allclose(features, run.model.encode(batch.x).mean.numpy(), atol=1e-5)
        assert np.array_equal(labels, batch.label.numpy())
    assert [len(y) for _, y in met[0]] == [1258, 180, 359]


def test_validation_and_train_share_nothing(run, met):
    """What is chosen by is not what was learned from: no row of one split's pixels is in another's."""
    probe.probe(run)
    train, valid, test = ({row.tobytes() for row in x} for x, _ in met[1])
    assert len(train) > 1000 and not (train & valid or train & test or valid & test)


def test_references_stand_beside(run, met):
    """Pixels, as many principal components as the code has numbers, and the encoder as it was before training."""
    found = probe.probe(run)
    assert found["dims"] == {"code": 32, "pixels": 64, "pca": 32, "random-encoder": 32}
    untrained = build(run.settings, run.card.facts()).eval()
    test = run.splits().test
    np.testing.assert_allclose(met[1][2][0], pixels(test))
    np.testing.assert_allclose(met[3][2][0], evaluate.codes(untrained, test), atol=1e-6)
    assert np.abs(met[3][2][0] - met[0][2][0]).max() > 1e-3


def test_scores_are_scikit_learns_on_the_saved_codes(run):
    """From the files in RUN/features alone, by hand, to the last digit."""
    found = probe.probe(run, asked=probe.Probing(names=["linear"]))
    parts = []
    for part in parts_of(run.splits()):
        key = digest("codes-1", weights_digest(run.model.state_dict()), part.fingerprint, None)
        (path,) = (run.directory / "features").glob(f"code-*-{key}.npz")
        with np.load(path, allow_pickle=False) as saved:
            assert saved["data"] == part.fingerprint and saved["protocol"] == "codes-1"
            parts.append((saved["codes"].astype(np.float64), part.labels.numpy()))
    scaler = StandardScaler().fit(parts[0][0])
    (x, y), (x_valid, y_valid), (x_test, y_test) = ((scaler.transform(x), y) for x, y in parts)
    fits = [LogisticRegression(C=c, max_iter=1000).fit(x, y) for c in (0.001, 0.01, 0.1, 1, 10)]
    best = max(fits, key=lambda fit: fit.score(x_valid, y_valid))
    assert found["scores"]["code"]["linear"]["accuracy"] == best.score(x_test, y_test)
    assert found == unsealed(run.directory / "probes.json")


def test_what_was_stopped_goes_on(run, monkeypatch):
    """Stopped in the middle of its protocols, the same call makes no code and no finished result again."""
    made, judged = [], []
    real = evaluate.codes
    monkeypatch.setattr(stored_codes, "codes", lambda *a, **k: made.append(1) or real(*a, **k))

    def stopping(after: int):
        def measure(train, valid, test, tell):
            if len(judged) == after:
                raise KeyboardInterrupt
            judged.append(1)
            return {"accuracy": float(len(judged)), "se": 0.1, "protocol": "spy-1"}

        return lambda *_: {"spy": Protocol(measure, {"protocol": "spy-1"})}

    monkeypatch.setattr(probe, "protocols", stopping(2))
    with pytest.raises(KeyboardInterrupt):
        probe.probe(run)
    assert (len(made), len(judged)) == (3, 2)  # codes of the untrained encoder wait until a protocol asks for them
    monkeypatch.setattr(probe, "protocols", stopping(99))
    found = probe.probe(run)
    assert (len(made), len(judged)) == (6, 4)
    assert [found["scores"][kind]["spy"]["accuracy"] for kind in found["scores"]] == [1, 2, 3, 4]


def test_other_weights_labels_or_protocols_are_measured_anew(run):
    """A result stays with what it was measured on; old codes make room for those of new weights."""
    first = probe.probe(run, asked=probe.Probing(names=["knn"]))
    more = probe.probe(run, asked=probe.Probing(few=[2], repeats=2, names=["few"]))
    assert more["scores"]["code"]["knn"] == first["scores"]["code"]["knn"] and "few-2" in more["scores"]["code"]
    other = probe.probe(run, asked=probe.Probing(few=[2], repeats=3, names=["few"]))["scores"]["code"]
    assert other["few-2"]["draws"] == 3 and "knn" in other
    files = {path.name for path in (run.directory / "features").iterdir()}
    with torch.no_grad():
        next(run.model.parameters()).add_(0.1)
    changed = probe.probe(run, asked=probe.Probing(names=["linear"]))
    assert "knn" not in changed["scores"]["code"] and changed["key"] != first["key"]
    now = {path.name for path in (run.directory / "features").iterdir()}
    assert len(now) == 6 and now & files == {name for name in files if name.startswith("random")}


def test_references_are_scored_once_for_all_runs_on_the_same_data(run, tmp_path, monkeypatch):
    """A second run on the same splits scores its own codes alone, whatever its weights; the numbers beside them are
    the first run's. Other labels, other code sizes and other data have scores of their own; so has a broken file."""
    first, judged = probe.probe(run, twins(0), probe.Probing(names=["knn"])), []
    real = protocols

    def counted(*asked):
        made = real(*asked)["knn"]
        return {
            "knn": replace(made, measure=lambda *a, tell: judged.append(len(a[0][0])) or made.measure(*a, tell=tell))
        }

    monkeypatch.setattr(probe, "protocols", counted)
    shutil.copytree(run.directory, tmp_path / "other")
    (tmp_path / "other" / "probes.json").unlink()
    other = runs.load(tmp_path / "other")
    with torch.no_grad():
        next(other.model.parameters()).mul_(0.5)
    again = probe.probe(other, twins(0), probe.Probing(names=["knn"]))
    assert len(judged) == 1 and again["weights"] != first["weights"]
    for kind in ("pixels", "pca", "random-encoder"):
        assert again["scores"][kind] == first["scores"][kind] and again["dims"] == first["dims"]
    turned = replace(twins(0), test=replace(twins(0).test, labels=(twins(0).test.labels + 1) % 10))
    probe.probe(other, turned, probe.Probing(names=["knn"]))
    assert len(judged) == 5
    probe.probe(other, twins(3), probe.Probing(names=["knn"]))
    assert len(judged) == 9
    for file in kept_scores.cache().iterdir():
        file.write_text(file.read_text()[:20])
    (tmp_path / "other" / "probes.json").unlink()
    assert probe.probe(other, twins(0), probe.Probing(names=["knn"]))["scores"] == again["scores"] and len(judged) == 13


def test_scores_of_two_protocols_are_kept_beside_each_other(run):
    """Each of the three references has a file for each protocol: none takes the place of another."""
    found = probe.probe(run, twins(0), probe.Probing(names=["linear", "knn"]))["scores"]
    kept = [json.loads(file.read_text()) for file in kept_scores.cache().iterdir()]
    expected = [found[kind][name] for kind in ("pixels", "pca", "random-encoder") for name in ("linear", "knn")]
    assert sorted(row["accuracy"] for row in kept) == sorted(row["accuracy"] for row in expected)


def test_an_untrained_encoder_is_that_of_its_settings(run):
    """The noise level of a time is in no weight; how long a run is trained changes no encoder that is not trained."""

    def origin(change: str) -> tuple:
        other = replace(run, settings=override(run.settings, [change]))
        return probe._features(other, parts_of(run.splits()), None, True, silent)["random-encoder"].origin

    assert origin("noise.gamma_1=4") != origin("noise.gamma_1=5") == origin("train.budget=7ex")


def test_an_untrained_encoder_is_that_of_its_weights_and_time(run, monkeypatch):
    """Other first weights by the same settings, or codes at another time, have another origin."""
    monkeypatch.setattr(probe, "stored_codes", lambda *a, **how: np.zeros((1, 3)))

    def origin(t: float | None, scale: float) -> tuple:
        def scaled(*given, **how):
            model = build(*given, **how)
            with torch.no_grad():
                next(model.parameters()).mul_(scale)
            return model

        monkeypatch.setattr(probe, "build", scaled)
        return probe._features(run, parts_of(run.splits()), t, True, silent)["random-encoder"].origin

    assert origin(0.3, 1) == origin(0.3, 1) and origin(0.3, 1) not in (origin(0.5, 1), origin(0.3, 2))


def test_a_cache_that_cannot_be_written_costs_time_alone(run, met, tmp_path, monkeypatch):
    """One warning for each score, and the scores."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DIFFREP_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept for other runs"):
        found = probe.probe(run)
    assert len(found["scores"]) == 4


def test_other_labels_are_measured_anew(run):
    """Labels are no part of a fingerprint of the data, yet of what a probe says."""
    splits = twins(0)
    first = probe.probe(run, splits, probe.Probing(names=["knn"]))
    other = replace(splits, test=replace(splits.test, labels=(splits.test.labels + 1) % 10))
    again = probe.probe(run, other, probe.Probing(names=["knn"]))
    assert again["scores"]["pixels"]["knn"]["accuracy"] < 0.2 < first["scores"]["pixels"]["knn"]["accuracy"]


def test_a_broken_file_of_codes_is_made_anew(run):
    """Cut short by a full disk, say: the numbers come out the same."""
    first = probe.probe(run, asked=probe.Probing(names=["knn"]))
    for path in (run.directory / "features").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    (run.directory / "probes.json").unlink()
    assert probe.probe(run, asked=probe.Probing(names=["knn"])) == first


def test_time_conditioned_codes_are_kept_apart(tmp_path, met):
    """t reaches the encoder, and is part of the name of the file."""
    shutil.copytree(run_of("tdrl"), tmp_path / "run")
    run = runs.load(tmp_path / "run")
    for t in (0.2, 0.8):
        probe.probe(run, asked=probe.Probing(t=t))
    test = run.splits().test
    for at, t in ((0, 0.2), (4, 0.8)):
        np.testing.assert_allclose(met[at][2][0], evaluate.codes(run.model, test, t), atol=1e-6)
    assert not np.allclose(met[0][2][0], met[4][2][0])


def twins(train_copies: int) -> Splits:
    """The digits in splits that a source gives, with some of the training examples in test too."""
    digits = data.whole("digits")
    train, valid = digits.subset(torch.arange(1000)), digits.subset(torch.arange(1000, 1200))
    rows = torch.cat([torch.arange(1200, 1400), torch.arange(train_copies)])
    return Splits(train, valid, digits.subset(rows))


@pytest.mark.parametrize("copies", [0, 7])
def test_copies_of_train_in_test_are_said_with_every_result(copies, run, met):
    """The number stands in each result, and a warning where there are any; of all of train, not of what is fitted."""
    found = probe.probe(run, twins(copies), probe.Probing(most=100))
    assert {result["spy"]["overlap"] for result in found["scores"].values()} == {copies} == {found["overlap"]}
    assert (found["warning"] is not None) == (copies > 0)
    assert found["examples"] == {"train": 100, "valid": 200, "test": 200 + copies}


def test_labelled_examples_come_first(run, met):
    """Of a set of which few have labels, the cap takes those; they are spread over the split."""
    splits, labels = few_of_many()
    probe.probe(run, splits, probe.Probing(most=80))
    y = met[0][0][1]
    assert len(y) == 80 and (y >= 0).sum() == 50
    probe.probe(run, splits, probe.Probing(most=10))
    few = labels[::20][[0, 5, 10, 16, 21, 27, 32, 38, 43, 49]]  # ten of fifty, from the first to the last
    assert np.array_equal(met[4][0][1], few.numpy())


def few_of_many() -> tuple[Splits, torch.Tensor]:
    """A training split in which one of twenty has a label, and its labels."""
    splits = twins(0)
    labels = torch.full((1000,), -1)
    labels[::20] = splits.train.labels[::20]
    return replace(splits, train=replace(splits.train, labels=labels)), labels


def test_every_cap_takes_labelled_examples_first(tmp_path, monkeypatch):
    """Evaluate, studies and read-outs are capped by the same rule as probe: all fifty labels are there among eighty."""
    shutil.copytree(run_of("drl"), tmp_path / "run")
    run, splits = runs.load(tmp_path / "run"), few_of_many()[0]
    said = evaluate.evaluate(run, splits, levels=1, probe_examples=80)["probes"]
    assert said["linear_protocol"]["train_examples"] == 50 == said["knn_protocol"]["train_examples"]
    train = evaluate.probe_splits(splits, most=80)[0]
    assert len(train) == 80 and (train.labels >= 0).sum() == 50
    net = readout.read_layers(run, splits, levels=1, search=80, most=80)
    assert net["search_examples"][0] == 80 and net["probe"]["train_examples"] == 50


def test_evaluate_says_linear_and_knn(run):
    """Both stand in metrics.json under their names, with errors; they are what the protocols say on these codes."""
    said = evaluate.evaluate(run, levels=1)["probes"]
    scores = probe.probe(run)["scores"]["code"]
    for name in ("linear", "knn"):
        assert said[name] == pytest.approx(scores[name]["accuracy"], abs=1e-9) and said[f"{name}_se"] > 0
        assert said[f"{name}_protocol"]["protocol"] == {"linear": "linear-2", "knn": "knn-1"}[name]
    assert said["overlap"] == 0 and evaluate.evaluate(run, twins(7), levels=1)["probes"]["overlap"] == 7


@pytest.mark.parametrize(
    "words, said",
    [
        (("--protocols", "liner"), "Did you mean 'linear'"),
        (("--protocols", "regression"), None),
        (("--protocols", "linear,regression"), "classes, which regression is not for"),
        (("--protocols", "few"), "--few 1,10"),
        (("--few", "1,x"), "--few 1,5,10"),
        (("--few", "0"), "--few 1,5,10"),
        (("--few", "500"), "ask for fewer"),
        (("--t", "0.3"), "does not depend on t"),
        (("--labels", "colour"), "unknown labels 'colour'. Leave out --labels for the labels of the data."),
        (("--draws", "1"), "--help"),
        (("--draws", "5"), "give --few"),
    ],
)
def test_mistakes_are_one_sentence(words, said, tmp_path, capsys):
    """With the fix in it, exit code 2; whole numbers may be regressed on where one asks for it."""
    shutil.copytree(run_of("ae"), tmp_path / "run")
    capsys.readouterr()
    assert diffrep("probe", tmp_path / "run", *words) == (0 if said is None else 2)
    assert said is None or said in one_sentence(capsys)


def test_what_has_no_code_or_is_no_run_is_one_sentence(tmp_path, capsys):
    """A method without a code, a folder without a run, a file of another kind, nothing at all."""
    run = run_of("ddpm")
    capsys.readouterr()
    (tmp_path / "notes.doc").write_text("x")
    for what, said in (
        (run, "no code to probe"),
        (tmp_path, "is not a run"),
        (tmp_path / "notes.doc", ".npz, .npy, .parquet, .csv, .tsv or .txt"),
        (tmp_path / "none.npz", "does not exist"),
    ):
        assert diffrep("probe", what) == 2
        assert said in one_sentence(capsys)


def test_the_table_and_the_json_say_the_same(tmp_path, capsys):
    """Every number of the table is one of the file's, rounded; the file is what --json prints."""
    shutil.copytree(run_of("ae"), tmp_path / "run")
    capsys.readouterr()
    assert diffrep("probe", tmp_path / "run", "--few", 2, "--draws", 3, "--protocols", "knn", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == unsealed(tmp_path / "run" / "probes.json")
    assert list(found["scores"]["pixels"]) == ["knn", "few-2"]
    assert diffrep("probe", tmp_path / "run", "--few", 2, "--draws", 3, "--protocols", "knn") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for results in found["scores"].values():
        for result in results.values():
            assert f"{result['accuracy']:.3f} +- {error_of(result):.3f}" in shown
    assert "359 test" in shown and "over 3 draws" in shown


def test_names_and_their_order():
    """What is asked for, once each; few labels where their number is given; numbers are regressed on."""
    assert list(protocols(None)) == ["linear", "knn"] and list(protocols(None, numbers=True)) == ["regression"]
    assert list(protocols(["knn", "knn"], [1, 5])) == ["knn", "few-1", "few-5"]
    assert list(protocols(["spreading"], [2])) == ["spreading-2"]
    with pytest.raises(UserError, match="numbers, which linear is not for"):
        protocols(["linear"], numbers=True)
    with pytest.raises(UserError, match="no classes to draw"):
        protocols(None, [1], numbers=True)
