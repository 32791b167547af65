"""What simple models read from the codes of a run, with the references beside; or from a file of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from diffrep.data import Examples, Splits, feature_files
from diffrep.data.examples import labelled_first
from diffrep.data.raw import as_labels, is_class_column, numbered
from diffrep.data.splits import cut
from diffrep.errors import UserError, unknown
from diffrep.measures.evaluate import PROBED
from diffrep.measures.stored_codes import stored_codes
from diffrep.methods.catalog import build
from diffrep.plus_minus import plus_minus
from diffrep.probes.overlap import overlap, sentence
from diffrep.probes.protocols import OF_NUMBERS, Protocol, protocols
from diffrep.probes.references import RANDOM, references
from diffrep.probes.result import Result, score
from diffrep.progress import Progress, counting, silent
from diffrep.runs import records
from diffrep.runs.records import FEATURES, PROBES, digest, read, weights_digest
from diffrep.runs.results import Probes
from diffrep.runs.run import Run

CODE = "code"
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Probing:
    """What is asked of features.

    labels: a factor of the data in place of its labels; numbers that are not whole are regressed on. names, few, draws,
    seed: see `protocols`. t: noise level of a time-conditioned code. most: training examples, labelled ones first.
    """

    labels: str | None = None
    names: Sequence[str] | None = None
    few: Sequence[int] = ()
    t: float | None = None
    draws: int = 20
    most: int = PROBED
    seed: int = 0

    def protocols(self, numbers: bool) -> dict[str, Protocol]:
        """The protocols of these names; numbers: the targets are quantities, not classes."""
        return protocols(self.names, self.few, self.draws, self.seed, numbers)


USUAL = Probing()  # what each run is asked


def probe(
    run: Run, splits: Splits | None = None, asked: Probing = USUAL, beside: bool = True, progress: Progress = silent
) -> Probes:
    """The codes of a run, and pixels, PCA and its untrained encoder, judged on its splits -> RUN/probes.json, returned.

    beside: with the references. What was measured before with the same weights, data, labels and t is kept, and codes
    in RUN/features are not made again.
    """
    model, t = run.model, asked.t
    if not model.has_code:
        raise UserError(f"{run.settings.method} has no code to probe; `diffrep methods` lists methods that have one.")
    splits = splits or run.splits()
    parts = [splits.train, splits.valid, splits.test]
    called = asked.labels or "label"
    targets, numbers = _targets([_column(part, asked.labels) for part in parts], called, asked.names)
    chosen = asked.protocols(numbers)
    model.need_code(t)
    rows = labelled_first(_known(targets[0]), asked.most)
    parts[0], targets[0] = splits.train.subset(torch.from_numpy(rows)), targets[0][rows]
    weights = weights_digest(model.state_dict())
    facts: Probes = {
        "method": run.settings.method,
        "data": run.card.source,
        **_facts(called, numbers, targets, overlap(splits.train.digests, splits.test.digests)),
        "t": t,
        "weights": weights,
        "key": digest(weights, *(part.fingerprint for part in parts), t, *(y.tobytes() for y in targets)),
    }

    def keep(found: Probes) -> None:
        records.keep(run.directory, PROBES, found, weights)

    features = _features(run, parts, t, beside, progress)
    return _judged(features, targets, chosen, facts, _before(run.directory / PROBES, facts["key"]), keep, progress)


def probe_file(
    path: str | Path, asked: Probing = USUAL, valid: float = 0.1, test: float = 0.2, progress: Progress = silent
) -> Probes:
    """The features of a file judged on its own splits, or on those that the seed cuts; see `probe`, `feature_files`.

    There is no data beside them, so there are no references.
    """
    path = Path(path)
    file = feature_files.read(path, asked.labels, asked.t)
    split = cut(len(file.x), file.split, str(path), valid, test, asked.seed)
    rows = {name: index.numpy() for name, index in split.items()}
    targets, numbers = _targets([file.labels[rows[part]] for part in PARTS], file.label_name, asked.names)
    chosen = asked.protocols(numbers)
    x = [np.ascontiguousarray(file.x[rows[part]]) for part in PARTS]
    shared = overlap(x[0], x[2])
    kept = labelled_first(_known(targets[0]), asked.most)
    x[0], targets[0] = x[0][kept], targets[0][kept]
    facts: Probes = {"data": str(path), **_facts(file.label_name, numbers, targets, shared), "t": asked.t}
    return _judged({path.stem: x}, targets, chosen, facts, {}, lambda found: None, progress)


def rows_of(facts: Probes) -> list[list[str]]:
    """A row for each protocol and a column for each kind of features, the names of both with them."""
    scores = facts["scores"]
    names = list(dict.fromkeys(name for results in scores.values() for name in results))
    head = ["R^2" if facts["classes"] is None else "accuracy", *scores]
    sizes = ["features", *(str(facts["dims"][kind]) for kind in scores)]
    return [head, sizes, *([name, *(_cell(results.get(name)) for results in scores.values())] for name in names)]


def sentences(facts: Probes) -> list[str]:
    """On what the numbers were measured, and what to mind."""
    count = facts["examples"]
    said = f"{count['test']:,} test, {count['valid']:,} validation and {count['train']:,} training examples"
    if facts["most_frequent"] is not None:
        said += f", {facts['classes']} classes; the most frequent one would score {facts['most_frequent']:.3f}"
    draws = {r["draws"] for results in facts["scores"].values() for r in results.values() if "draws" in r}
    over = f"; of a few labels, over {' or '.join(map(str, sorted(draws)))} draws of them" if draws else ""
    return [f"{said}.", f"+- is one standard error{over}.", *([facts["warning"]] if facts["warning"] else [])]


def _features(
    run: Run, parts: list[Examples], t: float | None, beside: bool, progress: Progress
) -> dict[str, list[np.ndarray]]:
    """The codes of the run, and the references where they are to stand beside: name -> features (N, d) of each part."""
    folder, total = run.directory / FEATURES, sum(map(len, parts))
    count = counting("codes", total, progress)
    own = [stored_codes(folder, CODE, run.model, part, t, count) for part in parts]
    if not beside:
        return {CODE: own}
    untrained = build(run.settings, run.card.facts(), warn=False).to(run.device).eval()
    guesses = counting("codes of an untrained encoder", total, progress)
    return {
        CODE: own,
        **references(parts, own[0].shape[1], lambda part: stored_codes(folder, RANDOM, untrained, part, t, guesses)),
    }


def _judged(
    features: Mapping[str, Sequence[np.ndarray]],
    targets: Sequence[np.ndarray],
    chosen: Mapping[str, Protocol],
    facts: Probes,
    before: Probes,
    keep: Callable[[Probes], None],
    progress: Progress,
) -> Probes:
    """Every protocol on every kind of features; what was measured `before` stays, each new result is kept at once."""
    scores: dict[str, dict[str, Result]] = {kind: {} for kind in features} | before.get("scores", {})
    dims = before.get("dims", {}) | {kind: x[0].shape[1] for kind, x in features.items()}
    found: Probes = {**facts, "dims": dims, "scores": scores}
    count = counting("probes", len(features) * len(chosen), progress)
    count(0)
    for name, protocol in chosen.items():
        for kind, x in features.items():
            if not protocol.made(scores[kind].get(name)):
                train, valid, test = zip(x, targets, strict=True)
                scores[kind][name] = {**protocol.measure(train, valid, test), "overlap": facts["overlap"]}
                keep(found)
            count(1)
    keep(found)
    return found


def _column(part: Examples, name: str | None) -> np.ndarray:
    """The labels of a split, or one of its factors."""
    if name is None:
        return part.require_labels().cpu().numpy()
    if name not in part.factors:
        raise unknown("factor", name, part.factors, "" if part.factors else "This data has labels alone.")
    return part.factors[name]


def _targets(columns: list[np.ndarray], name: str, names: Sequence[str] | None) -> tuple[list[np.ndarray], bool]:
    """Labels as they are written, of each split -> (N,) each: classes with -1 for none, or numbers with NaN for none.

    They are numbers where some are not whole, or where regression is what is asked for.
    """
    every, ends = np.concatenate(columns), np.cumsum([len(column) for column in columns])[:-1]
    if every.dtype.kind in "biuf" and (not is_class_column(every) or tuple(names or ()) == OF_NUMBERS):
        return np.split(every.astype(np.float64), ends), True
    found = numbered(as_labels(every, f"{name!r}"))[0]
    if found is None:
        raise UserError(f"{name!r} holds no label at all, which are needed here: name another column.")
    return np.split(found.numpy(), ends), False


def _known(y: np.ndarray) -> np.ndarray:
    return np.isfinite(y) if y.dtype.kind == "f" else y >= 0


def _facts(called: str, numbers: bool, targets: list[np.ndarray], shared: int) -> Probes:
    train, test = targets[0], targets[2]
    facts: Probes = {
        "labels": called,
        "classes": None if numbers else len(np.unique(train[train >= 0])),
        "examples": {part: len(y) for part, y in zip(PARTS, targets, strict=True)},
        "most_frequent": None,
        "overlap": shared,
        "warning": sentence(shared, len(test)),
    }
    if not numbers and (train >= 0).any() and (test >= 0).any():
        facts["most_frequent"] = float((test[test >= 0] == np.bincount(train[train >= 0]).argmax()).mean())
    return facts


def _before(path: Path, key: str) -> Probes:
    """A file that was written for the same key; nothing where there is no such file, or it is broken."""
    try:
        found = cast(Probes, read(path))
    except UserError:
        return {}
    return found if found.get("key") == key else {}


def _cell(result: Result | None) -> str:
    return "" if result is None else plus_minus(score(result) or 0.0, result["se"], ".3f")
