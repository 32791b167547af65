"""Probes on the codes of a run and on reference features, or on a file of features."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch

from diffrep.amounts import amount, item, plus_minus
from diffrep.data import Examples, Splits, feature_files
from diffrep.data.examples import labelled_first
from diffrep.data.raw import as_labels, is_class_column, is_target, missing_label, numbered
from diffrep.data.splits import cut
from diffrep.errors import UserError, unknown
from diffrep.measures import kept_scores
from diffrep.measures.at_once import at_once
from diffrep.measures.evaluate import PROBED
from diffrep.measures.stored_codes import stored_codes
from diffrep.methods.catalog import build
from diffrep.probes.overlap import overlap, sentence
from diffrep.probes.protocols import OF_NUMBERS, Protocol, protocols
from diffrep.probes.references import RANDOM, Features, references
from diffrep.probes.result import Result, error_of, score
from diffrep.progress import Part, Progress, counting, silent
from diffrep.runs import records
from diffrep.runs.records import FEATURES, PROBES, digest, read, weights_digest
from diffrep.runs.results import Probes
from diffrep.runs.run import Run

CODE = "code"
BESIDE = {"balanced": "balanced", "auroc": "AUROC"}  # numbers beside an accuracy -> their words
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Probing:
    """The choice of probes and of their data.

    labels: a factor of the data in place of its labels; for numbers that are not whole the probe is a regression.
    names, few, repeats, seed: see `protocols`. t: noise level of a time-conditioned code. most: training examples,
    labelled ones first.
    """

    labels: str | None = None
    names: Sequence[str] | None = None
    few: Sequence[int] = ()
    t: float | None = None
    repeats: int = 20
    most: int = PROBED
    seed: int = 0

    def protocols(self, numbers: bool, classes: Sequence[str] | None = None) -> dict[str, Protocol]:
        """The protocols of these names; numbers: the targets are quantities, not classes. classes: their names."""
        return protocols(self.names, self.few, self.repeats, self.seed, numbers, classes)


USUAL = Probing()  # the default


def probe(
    run: Run, splits: Splits | None = None, asked: Probing = USUAL, beside: bool = True, progress: Progress = silent
) -> Probes:
    """Probes on the codes of a run, on pixels, PCA and its untrained encoder -> RUN/probes.json, and returned.

    beside: with the references. Numbers that are not whole, or hardly repeat, are regressed on unless classes are asked
    for. Earlier results with the same weights, data, labels and t are kept, and codes in RUN/features are reused.
    """
    model, t = run.model, asked.t
    if not model.has_code:
        raise UserError(f"{run.settings.method} has no code to probe; `diffrep methods` lists methods that have one.")
    splits = splits or run.splits()
    probed = [splits.train, splits.valid, splits.test]
    called, given = asked.labels or "label", splits.train.label_names if asked.labels is None else None
    targets, numbers, classes = _targets([_column(split, asked.labels) for split in probed], called, asked.names, given)
    chosen = asked.protocols(numbers, classes)
    model.need_code(t)
    rows = labelled_first(_has_target(targets[0]), asked.most)
    probed[0], targets[0] = splits.train.subset(torch.from_numpy(rows)), targets[0][rows]
    weights = weights_digest(model.state_dict())
    about: Probes = {
        "method": run.settings.method,
        "data": run.card.source,
        **_about(called, classes, targets, overlap(splits.train.digests, splits.test.digests)),
        "t": t,
        "options": {} if asked.most == USUAL.most else {"most": asked.most},
        "weights": weights,
        "key": digest(weights, *(split.fingerprint for split in probed), t, *(y.tobytes() for y in targets)),
    }

    def keep(result: Probes) -> None:
        records.keep(run.directory, PROBES, result, weights)

    features = _features(run, probed, t, beside, progress)
    return _judged(features, targets, chosen, about, _before(run.directory / PROBES, about["key"]), keep, progress)


def probe_file(
    path: str | Path, asked: Probing = USUAL, valid: float = 0.1, test: float = 0.2, progress: Progress = silent
) -> Probes:
    """Probes on the features of a file, with its own splits or those that the seed cuts; see `probe`, `feature_files`.

    There is no data for references. Where splits are cut, rows without a label are for training.
    """
    path = Path(path)
    file = feature_files.read(path, asked.labels, asked.t)
    (every,), numbers, classes = _targets([file.labels], file.label_name, asked.names)
    rows = _cut(file.split, _has_target(every), str(path), valid, test, asked.seed)
    targets = [every[rows[split]] for split in SPLITS]
    chosen = asked.protocols(numbers, classes)
    x = [np.ascontiguousarray(file.x[rows[split]]) for split in SPLITS]
    shared = overlap(x[0], x[2])
    kept = labelled_first(_has_target(targets[0]), asked.most)
    x[0], targets[0] = x[0][kept], targets[0][kept]
    about: Probes = {"data": str(path), **_about(file.label_name, classes, targets, shared), "t": asked.t}
    about["notes"] = [*file.notes, *about["notes"]]
    features = {path.stem: Features(x[0].shape[1], lambda: x)}
    return _judged(features, targets, chosen, about, {}, lambda result: None, progress)


def rows_of(result: Probes) -> list[list[str]]:
    """A row for each protocol and each number beside an accuracy, a column for each kind of features, with names."""
    scores = result["scores"]
    names = list(dict.fromkeys(name for results in scores.values() for name in results))
    head = ["R^2" if result["classes"] is None else "accuracy", *scores]
    rows = [head, ["features", *(str(result["dims"][kind]) for kind in scores)]]
    for name in names:
        results = [kinds.get(name) for kinds in scores.values()]
        rows.append([name, *map(_cell, results)])
        for beside, word in BESIDE.items():
            if any(beside in (one or {}) for one in results):
                rows.append([f"  {word}", *(_number(one, beside) for one in results)])
    return rows


def sentences(result: Probes) -> list[str]:
    """The examples behind the numbers, the meaning of the errors, notes, and a warning if there is one."""
    count = result["examples"]
    text = f"{count['test']:,} test, {count['valid']:,} validation, {count['train']:,} training examples with a label"
    if result["most_frequent"] is not None:
        classes = amount(result["classes"] or 0, "class")
        text += f", {classes}; the most frequent one would score {result['most_frequent']:.3f}"
    repeats = {r["draws"] for results in result["scores"].values() for r in results.values() if "draws" in r}
    over = f"; of a few labels, over {' or '.join(map(str, sorted(repeats)))} draws of them too" if repeats else ""
    what = "one standard error" if result["classes"] is None else "half of Wilson's interval at one standard error"
    warning = [result["warning"]] if result["warning"] else []
    return [f"{text}.", f"+- is {what}{over}.", *result.get("notes", []), *warning]


def _features(
    run: Run, probed: list[Examples], t: float | None, beside: bool, progress: Progress
) -> dict[str, Features]:
    """The codes of the run and, with `beside`, the references."""
    folder, total = run.directory / FEATURES, sum(map(len, probed))
    count = counting("codes", total, progress)
    own = [stored_codes(folder, CODE, run.model, split, t, count) for split in probed]
    codes = {CODE: Features(own[0].shape[1], lambda: own)}
    if not beside:
        return codes
    untrained = build(run.settings, run.card.facts(), warn=False).to(run.device).eval()
    guesses = counting("codes of an untrained encoder", total, progress)
    others = run.settings.model_dump(exclude={"data", "train"})  # the noise level of a time is in no weight
    beginning = digest(weights_digest(untrained.state_dict()), t, others)
    guess = partial(stored_codes, folder, RANDOM, untrained, t=t, progress=guesses)
    return codes | references(probed, codes[CODE].dim, guess, beginning)


def _judged(
    features: Mapping[str, Features],
    targets: Sequence[np.ndarray],
    chosen: Mapping[str, Protocol],
    about: Probes,
    before: Probes,
    keep: Callable[[Probes], None],
    progress: Progress,
) -> Probes:
    """Every protocol on every kind of features; results of `before` are kept, each new result is written at once.

    Features of a known origin are references: their scores are those of any run on the same data.
    """
    scores: dict[str, dict[str, Result]] = {kind: {} for kind in features} | before.get("scores", {})
    dims = before.get("dims", {}) | {kind: x.dim for kind, x in features.items()}
    result: Probes = {**about, "dims": dims, "scores": scores}
    count = counting("probes", len(features) * len(chosen), progress)
    order = list(dict.fromkeys([*(name for results in scores.values() for name in results), *chosen]))
    places = [(name, kind) for name in chosen for kind in features]
    left = [(name, kind) for name, kind in places if not chosen[name].made(scores[kind].get(name))]
    work = {(name, kind): partial(_score, features[kind], targets, chosen[name]) for name, kind in left}
    count(len(places) - len(left))

    def said(place: tuple[str, str], done: int, of: int) -> None:
        progress("{} probe of {}".format(*place), done, of)

    complaints: dict[str, None] = {}
    for (name, kind), (measured, complaint) in at_once(work, said):
        scores[kind][name] = {**measured, "overlap": about["overlap"]}
        scores[kind] = {name: scores[kind][name] for name in order if name in scores[kind]}
        keep(result)
        count(1)
        if complaint is not None:
            complaints[complaint] = None
    for complaint in complaints:
        warnings.warn(complaint, stacklevel=3)
    keep(result)
    return result


def _score(
    features: Features, targets: Sequence[np.ndarray], protocol: Protocol, tell: Part
) -> tuple[Result, str | None]:
    """What a protocol measures, or what it measured for another run; why that could not be kept."""
    key = None
    if features.origin is not None:
        labels = (targets[0].dtype.str, *(y.tobytes() for y in targets))
        key = digest(features.origin, sorted(protocol.stamp.items()), *labels)
        if (kept := kept_scores.kept(key, protocol.stamp)) is not None:
            return kept, None
    train, valid, test = zip(features.of_splits, targets, strict=True)
    measured = protocol.measure(train, valid, test, tell=tell)
    return measured, None if key is None else kept_scores.keep(key, measured)


def _column(split: Examples, name: str | None) -> np.ndarray:
    """The labels of a split, or one of its factors."""
    if name is None:
        return split.require_labels().cpu().numpy()
    if name not in split.factors:
        raise _no_such_labels(split, name)
    return split.factors[name]


def _no_such_labels(split: Examples, name: str) -> UserError:
    """The error for labels that are none: what else there is, and what was named instead."""
    learned = name in (*(split.reading.features or ()), *split.reading.words)
    what = f"{name!r} is one of the features that the model learned from, and no label" if learned else ""
    has = [*(["leave out --labels for the labels of the data"] if split.labels is not None else [])]
    has += [f"name one of its factors ({', '.join(map(item, sorted(split.factors)))})"] if split.factors else []
    do = ", or ".join(has) or "name a column with data.label_column, and train a run on it"
    if learned:
        return UserError(f"{what}: {do}.")
    return unknown("labels", name, split.factors, f"{do[0].upper()}{do[1:]}.")


def _targets(
    columns: list[np.ndarray], name: str, names: Sequence[str] | None, given: Sequence[str] | None = None
) -> tuple[list[np.ndarray], bool, list[str] | None]:
    """Labels as they are written, of each split -> (N,) each: classes with -1 for none, or numbers with NaN for none;
    whether they are numbers; the names of the classes.

    They are numbers where some are not whole, or where regression is what is asked for; whole ones that hardly repeat
    are, unless classes are asked for. given: names of labels that are numbers of classes.
    """
    every, ends = np.concatenate(columns), np.cumsum([len(column) for column in columns])[:-1]
    regressed = tuple(names or ()) == OF_NUMBERS
    if every.dtype.kind in "biuf" and given is None:
        if not is_class_column(every) or regressed or (is_target(every) and not names):
            return np.split(every.astype(np.float64), ends), True, None
    elif every.dtype.kind in "biuf" and regressed:
        return np.split(np.where(every >= 0, every, np.nan).astype(np.float64), ends), True, None
    labels = as_labels(every, f"{name!r}")
    classes, called = numbered(labels, None, missing_label(labels.tolist())[0] if given is None else -1)
    if classes is None or called is None:
        raise UserError(f"{name!r} holds no label, and the probe needs some: name another column.")
    if given is not None:
        called = [given[int(k)] for k in called]
    return np.split(classes.numpy(), ends), False, called


def _cut(
    split: np.ndarray | None, known: np.ndarray, name: str, valid: float, test: float, seed: int
) -> dict[str, np.ndarray]:
    """Positions of each split: those given, or a cut of the rows that have a label, where the others train."""
    if split is not None or known.all() or not known.any():
        return {part: rows.numpy() for part, rows in cut(len(known), split, name, valid, test, seed).items()}
    labelled, others = np.flatnonzero(known), np.flatnonzero(~known)
    rows = {part: labelled[rows.numpy()] for part, rows in cut(len(labelled), None, name, valid, test, seed).items()}
    return {**rows, "train": np.sort(np.concatenate([rows["train"], others]))}


def _has_target(y: np.ndarray) -> np.ndarray:
    return np.isfinite(y) if y.dtype.kind == "f" else y >= 0


def _about(called: str, names: list[str] | None, targets: list[np.ndarray], shared: int) -> Probes:
    train, test = targets[0], targets[2]
    about: Probes = {
        "labels": called,
        "classes": None if names is None else len(np.unique(train[train >= 0])),
        "class_names": names,
        "examples": {split: int(_has_target(y).sum()) for split, y in zip(SPLITS, targets, strict=True)},
        "most_frequent": None,
        "overlap": shared,
        "warning": sentence(shared, len(test)),
        "notes": [],
    }
    if names is not None and (train >= 0).any() and (test >= 0).any():
        about["most_frequent"] = float((test[test >= 0] == np.bincount(train[train >= 0]).argmax()).mean())
        strange = sorted(set(test[test >= 0].tolist()) - set(train.tolist()))
        if strange:
            lost = int(np.isin(test, strange).sum())
            shown = ", ".join(names[k] for k in strange[:5]) + (", ..." if len(strange) > 5 else "")
            about["notes"].append(
                f"{amount(lost, 'test example')} of classes that training does not have ({shown}) count as wrong."
            )
        if is_target(train[train >= 0]) and all(name.removeprefix("-").isdigit() for name in names):
            about["notes"].append(
                f"{called!r} holds {len(names):,} whole numbers that hardly repeat, and each is a class here:"
                " `--protocols regression` takes them for quantities."
            )
    return about


def _before(path: Path, key: str) -> Probes:
    """The results in a file of the same key; empty where the file is missing, broken or of another key."""
    try:
        result = cast(Probes, read(path))
    except UserError:
        return {}
    return result if result.get("key") == key else {}


def _cell(result: Result | None) -> str:
    return "" if result is None else plus_minus(score(result) or 0.0, error_of(result), ".3f")


def _number(result: Result | None, name: str) -> str:
    value = (result or {}).get(name, "")
    if value is None or (isinstance(value, float) and math.isnan(value)):  # a file has null for nan
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else ""
