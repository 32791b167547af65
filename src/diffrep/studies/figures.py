"""The figures of a study: bits/dim against rate, and probes side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

from diffrep.studies.aggregate import groups, mean_and_error

MARKERS = "osD^vP*X"


def frontier(rows: Sequence[dict]) -> bytes | None:
    """A PNG: bits/dim against rate, a point with two standard errors for each run with a code (hollow with refined
    codes), the mean of those without as a line in the colour of the same choices; None where no run has a bound."""
    known = [row for row in rows if row["bits_per_dim"] is not None]
    if not known:
        return None
    figure, axes = _figure("rate (nats)", "bits/dim (\N{PLUS-MINUS SIGN} 2 standard errors)")
    colours = _colours(known)
    names = list(dict.fromkeys(row["name"] for row in known if row["code"]))
    for group in groups(known):
        name, colour = _label(group[0]), colours[_key(group[0])]
        if not group[0]["code"]:
            mean, _ = mean_and_error(row["bits_per_dim"] for row in group)
            axes.axhline(mean, color=colour, linewidth=1.2, linestyle="--", label=name)
            continue
        for kind, fill, words in (("", colour, ""), ("refined_", "none", ", refined codes")):
            drawn = [row for row in group if row.get(f"{kind}bits_per_dim") is not None]
            if drawn:
                axes.errorbar(
                    [row[f"{kind}rate_nats"] for row in drawn],
                    [row[f"{kind}bits_per_dim"] for row in drawn],
                    yerr=[2 * row[f"{kind}bits_per_dim_se"] for row in drawn],
                    fmt=MARKERS[names.index(group[0]["name"]) % len(MARKERS)],
                    color=colour,
                    markerfacecolor=fill,
                    markersize=5,
                    capsize=2,
                    linewidth=1,
                    label=name + words,
                )
    return _png(figure, axes)


def probe_bars(rows: Sequence[dict]) -> bytes | None:
    """A PNG: mean accuracy of the probes of each run over seeds, with two standard errors; None where none is known."""
    kinds = {"linear": "probe_linear", "kNN": "probe_knn"}
    found = [group for group in groups(rows) if any(row[key] is not None for row in group for key in kinds.values())]
    if not found:
        return None
    figure, axes = _figure("accuracy (\N{PLUS-MINUS SIGN} 2 standard errors)", "")
    drawn = [kind for kind, key in kinds.items() if any(row[key] is not None for row in rows)]
    for place, kind in enumerate(drawn):
        pairs = [mean_and_error(row[kinds[kind]] for row in group) for group in found]
        at = [i + place / (len(drawn) + 0.5) for i in range(len(found))]
        axes.barh(
            at,
            [mean or 0.0 for mean, _ in pairs],
            xerr=[2 * (error or 0.0) for _, error in pairs],
            height=1 / (len(drawn) + 0.5),
            capsize=2,
            label=f"{kind} probe",
        )
    axes.set_yticks(range(len(found)), [_label(group[0]) for group in found])
    axes.invert_yaxis()
    lowest = min(row[key] for group in found for row in group for key in kinds.values() if row[key] is not None)
    axes.set_xlim(max(0.0, lowest - 0.1), 1.0)
    return _png(figure, axes)


def _figure(x: str, y: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure, axes) -> bytes:
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _key(row: dict) -> tuple[str, ...]:
    """What has one colour: the choices of the axes, or without axes the run with its twin."""
    return tuple(row["axes"].values()) or (row["name"].removesuffix(", twin"),)


def _colours(rows: Sequence[dict]) -> dict[tuple[str, ...], str]:
    keys = list(dict.fromkeys(map(_key, rows)))
    return {key: f"C{i % 10}" for i, key in enumerate(keys)}


def _label(row: dict) -> str:
    return ", ".join([row["name"], *row["axes"].values()])
