"""Measures of how single numbers of a run's code correspond to factors of its data, and their file."""

from __future__ import annotations

import numpy as np

from diffrep.amounts import amount
from diffrep.data import Examples, Splits
from diffrep.errors import UserError
from diffrep.measures.asked import asked
from diffrep.measures.evaluate import codes
from diffrep.probes import disentanglement as scores
from diffrep.probes import hypersphere
from diffrep.probes.factors import is_discrete
from diffrep.progress import Progress, counting, silent
from diffrep.runs.records import DISENTANGLE
from diffrep.runs.results import Disentangled
from diffrep.runs.run import Run


def disentangle(
    run: Run, splits: Splits | None = None, t: float | None = None, most: int = 4000, progress: Progress = silent
) -> Disentangled:
    """DCI, MIG, SAP, TAD, alignment and uniformity of the mean codes of the test split -> RUN/disentangle.json.

    Factors are the label and those that the data names (`Examples.factors`); "left_out" says which were not used and
    why. Examples with a missing factor are left out. t: noise level of a time-conditioned code (1/2). most: examples
    that the trees of DCI use. Alignment pairs each example with the next of its class; None without labels.
    UserError: a model without a code, data without factors.
    """
    test = (splits or run.splits()).test
    named, left_out = factors_of(test)
    if not named:
        why = "".join(f"; {name} {reason}" for name, reason in left_out.items())
        raise UserError(
            f"{test.name} names no factor to compare codes with{why}. Give labels, or factors in metadata.csv or .npz."
        )
    z = codes(run.model, test, t, progress=counting("codes", len(test), progress))
    values = np.stack([column for column, _ in named.values()], 1)
    whole = np.isfinite(values).all(1)
    z, values, kinds = z[whole], values[whole], [discrete for _, discrete in named.values()]
    count = counting("boosted trees", len(named), progress)
    result: Disentangled = {
        "method": run.settings.method,
        "data": run.card.source,
        "examples": len(z),
        "dim": z.shape[1],
        "factors": list(named),
        "left_out": left_out,
        "mig": scores.mig(z, values, kinds),
        "sap": scores.sap(z, values, kinds),
        "tad": scores.tad(z, values, kinds),
        "dci": scores.dci(z, values, kinds, most, progress=count),
        "uniformity": hypersphere.uniformity(z),
        "alignment": _alignment(z, values[:, list(named).index("label")]) if "label" in named else None,
        "sphere_protocol": hypersphere.PROTOCOL,
        "options": asked(disentangle, t=t, most=most),
    }
    return run.keep(DISENTANGLE, result)


def factors_of(examples: Examples) -> tuple[dict[str, tuple[np.ndarray, bool]], dict[str, str]]:
    """Name -> its values (N,) float64, NaN where missing, and whether they are classes; name -> why it is left out.

    Words are classes; numbers are classes where they are at most 20 different whole numbers. A factor needs two values;
    a column of words with a different one for every second example or more is left out.
    """
    columns: dict[str, np.ndarray] = {} if examples.labels is None else {"label": examples.labels.cpu().numpy()}
    kept: dict[str, tuple[np.ndarray, bool]] = {}
    left_out: dict[str, str] = {}
    for name, column in {**columns, **examples.factors}.items():
        words = column.dtype.kind not in "biuf"
        if words:
            column = np.array([str(value) for value in column])
            values = np.unique(column, return_inverse=True)[1].astype(np.float64)
            values[column == ""] = np.nan
        else:
            values = column.astype(np.float64)
            values[(column == -1) & (name == "label")] = np.nan
        present = values[np.isfinite(values)]
        different = len(np.unique(present))
        if different < 2:
            left_out[name] = "has one value"
        elif words and 2 * different > len(present):
            left_out[name] = "is a name of its own for nearly each example"
        else:
            kept[name] = values, words or name == "label" or is_discrete(present)
    return kept, left_out


def table(result: Disentangled) -> list[tuple[str, str]]:
    """The rows that the command prints."""
    d, tad = result["dci"], result["tad"]
    alone = " (one factor alone: nothing can be mixed)" if len(result["factors"]) == 1 else ""
    three = "  ".join(f"{name} {d[name]:.3f}" for name in ("disentanglement", "completeness", "informativeness"))
    aligned = "" if result["alignment"] is None else f"alignment of a class {result['alignment']:.3f}  "
    captured = f"{tad['captured']} of {amount(tad['attributes'], 'attribute')}"
    rows = [
        ("DCI", f"{three}{alone}   ({d['protocol']})"),
        *((name.upper(), f"{result[name]['score']:.3f}   ({result[name]['protocol']})") for name in ("mig", "sap")),
        ("TAD", f"{tad['score']:.3f}, {captured} ({tad['protocol']})"),
        ("on the sphere", f"{aligned}uniformity {result['uniformity']:.3f}   ({result['sphere_protocol']})"),
        ("factors", ", ".join(result["factors"])),
        *((f"without {name}", f"it {why}") for name, why in result["left_out"].items()),
    ]
    return [
        *rows,
        ("measured on", f"{amount(result['examples'], 'test example')}, codes of {amount(result['dim'], 'number')}"),
    ]


def _alignment(z: np.ndarray, labels: np.ndarray) -> float | None:
    """Over pairs of an example and the next of its class, the last with the first; None where no class has two."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    pairs = np.concatenate([np.stack([m, np.roll(m, -1)]) for m in members if len(m) > 1] or [np.zeros((2, 0), int)], 1)
    return hypersphere.alignment(z[pairs[0]], z[pairs[1]]) if pairs.size else None
