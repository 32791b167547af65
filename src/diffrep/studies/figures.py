"""The figures of a study: bits/dim against rate, probes side by side, and probes against seconds of training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffrep.studies.aggregate import groups, mean_and_error
from diffrep.studies.row import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"


def frontier(rows: Sequence[Row]) -> bytes | None:
    """A PNG: bits/dim against rate, a point with two standard errors for each run with a code (hollow with refined
    codes), the mean of those without as a line in the colour of the same choices; None where no run has a bound."""
    bounded = [row for row in rows if row.numbers.bits_per_dim is not None]
    if not bounded:
        return None
    figure, axes = _figure("rate (nats)", "bits/dim (\N{PLUS-MINUS SIGN} 2 standard errors)")
    colours = _colours(bounded)
    names = list(dict.fromkeys(row.name for row in bounded if row.code))
    for group in groups(bounded):
        label, colour = _label(group[0]), colours[_key(group[0])]
        if not group[0].code:
            mean, _ = mean_and_error(row.numbers.bits_per_dim for row in group)
            assert mean is not None, "rows without a bound were left out"
            axes.axhline(mean, color=colour, linewidth=1.2, linestyle="--", label=label)
            continue
        own = [(n.rate_nats, n.bits_per_dim, n.bits_per_dim_se) for n in (row.numbers for row in group)]
        refined = [
            (n.refined_rate_nats, n.refined_bits_per_dim, n.refined_bits_per_dim_se)
            for n in (row.numbers for row in group)
            if n.refined_bits_per_dim is not None
        ]
        for points, fill, words in ((own, colour, ""), (refined, "none", ", refined codes")):
            if points:
                rate, bits, error = zip(*points, strict=True)
                axes.errorbar(
                    rate,
                    bits,
                    yerr=[2 * se for se in error],
                    fmt=MARKERS[names.index(group[0].name) % len(MARKERS)],
                    color=colour,
                    markerfacecolor=fill,
                    markersize=5,
                    capsize=2,
                    linewidth=1,
                    label=label + words,
                )
    return _png(figure, axes)


def probe_bars(rows: Sequence[Row]) -> bytes | None:
    """A PNG: mean accuracy of the probes of each run over seeds, with two standard errors; None without a probe."""
    scores = {
        "linear": [[row.numbers.probe_linear for row in group] for group in groups(rows)],
        "kNN": [[row.numbers.probe_knn for row in group] for group in groups(rows)],
    }
    labels = [_label(group[0]) for group in groups(rows)]
    kept = [i for i in range(len(labels)) if any(v is not None for columns in scores.values() for v in columns[i])]
    shown = {
        name: pairs
        for name, columns in scores.items()
        if any(v is not None for c in columns for v in c)
        for pairs in [[mean_and_error(columns[i]) for i in kept]]
    }
    if not kept:
        return None
    figure, axes = _figure("accuracy (\N{PLUS-MINUS SIGN} 2 standard errors)", "")
    for place, (name, pairs) in enumerate(shown.items()):
        axes.barh(
            [i + place / (len(shown) + 0.5) for i in range(len(kept))],
            [mean or 0.0 for mean, _ in pairs],
            xerr=[2 * (error or 0.0) for _, error in pairs],
            height=1 / (len(shown) + 0.5),
            capsize=2,
            label=f"{name} probe",
        )
    axes.set_yticks(range(len(kept)), [labels[i] for i in kept])
    axes.invert_yaxis()
    lowest = min(v for columns in scores.values() for column in columns for v in column if v is not None)
    axes.set_xlim(max(0.0, lowest - 0.1), 1.0)
    return _png(figure, axes)


def curves(budgets: Sequence[Sequence[Row]]) -> bytes | None:
    """A PNG: accuracy against seconds of training, a line for each method and a panel for each probe.

    budgets: the rows of the benchmark under each budget. A point is the mean over the seeds of one, with two standard
    errors: over seeds, and of the test examples where there is one seed. Features that need no training are a dashed
    line. None where no row has a probe.
    """
    panels = {"linear probe": "probe_linear", "kNN": "probe_knn", "10 labels a class": "probe_few10"}
    rows = [row for budget in budgets for row in budget]
    panels = {title: key for title, key in panels.items() if any(row.numbers.value(key) is not None for row in rows)}
    if not panels:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 3.6 * len(panels), 4.5), layout="constrained")
    for axes, (title, key) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for number, name in enumerate(dict.fromkeys(row.name for row in rows)):
            marker, style = MARKERS[number // 10 % len(MARKERS)], {"color": f"C{number % 10}", "linewidth": 1.2}
            points = [_point([row for row in budget if row.name == name], key) for budget in budgets]
            trained = sorted((x, mean, error) for x, mean, error in points if x is not None and mean is not None)
            untrained = [mean for x, mean, _ in points if x is None and mean is not None]
            if trained:
                x, y, errors = zip(*trained, strict=True)
                doubled = [2 * error for error in errors]
                axes.errorbar(x, y, yerr=doubled, marker=marker, markersize=4, capsize=2, label=name, **style)
            elif untrained:
                axes.axhline(untrained[-1], linestyle="--", label=name, **style)
        _seconds(axes, [_point([row for row in budget if row.numbers.seconds], key)[0] for budget in budgets])
        axes.set(title=title, xlabel="seconds of training")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("accuracy (\N{PLUS-MINUS SIGN} 2 standard errors)")
    return _png(figure, figure.axes[-1])


def _point(rows: Sequence[Row], key: str) -> tuple[float | None, float | None, float]:
    """Mean seconds of training (None: not trained), mean and standard error of a number, over seeds."""
    mean, error = mean_and_error(row.numbers.value(key) for row in rows)
    if len(rows) == 1:
        error = rows[0].numbers.value(f"{key}_se")
    return mean_and_error(row.numbers.seconds for row in rows)[0], mean, error or 0.0


def _seconds(axes: Axes, budgets: Sequence[float | None]) -> None:
    """A logarithmic axis of seconds with a tick at each budget."""
    ticks = sorted({float(f"{seconds:.2g}") for seconds in budgets if seconds})
    axes.set_xscale("log")
    axes.minorticks_off()
    if ticks:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlim(ticks[0] / 1.3, ticks[-1] * 1.3)


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure, axes: Axes) -> bytes:
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _key(row: Row) -> tuple[str, ...]:
    """The key of a colour: the choices of the axes, or without axes the run and its twin."""
    return tuple(row.axes.values()) or (row.name.removesuffix(", twin"),)


def _colours(rows: Sequence[Row]) -> dict[tuple[str, ...], str]:
    keys = list(dict.fromkeys(map(_key, rows)))
    return {key: f"C{i % 10}" for i, key in enumerate(keys)}


def _label(row: Row) -> str:
    return ", ".join([row.name, *row.axes.values()])
