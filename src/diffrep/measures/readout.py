"""Probes on the layers of a run's decoder and on its codes at several times, and their files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffrep import data
from diffrep.amounts import amount, plus_minus
from diffrep.data import Splits
from diffrep.errors import UserError
from diffrep.evaluation import layers as readout
from diffrep.evaluation import times as over_times
from diffrep.evaluation.times import LINEAR, WAYS, Score, TimedSplits, codes_over_times, even_times
from diffrep.files import write_bytes
from diffrep.measures.asked import asked
from diffrep.progress import Progress, counting, silent
from diffrep.runs.records import PICTURES, READOUT, TIMES
from diffrep.runs.results import ManyTimes, OneTime, ReadoutFile, TimesFile
from diffrep.runs.run import Run

KS = (1, 2, 5, 10)  # how many times are combined


def read_layers(
    run: Run,
    splits: Splits | None = None,
    levels: int = readout.LEVELS,
    search: int = 2000,
    most: int = 20_000,
    seed: int = 0,
    progress: Progress = silent,
) -> ReadoutFile:
    """The read-out of the decoder of a run (see `evaluation.layers`) -> RUN/readout.json, and returned."""
    probed = readout.of_model(run.model)
    result: ReadoutFile = {
        "method": run.settings.method,
        "data": run.card.source,
        **readout.readout(probed, splits or run.splits(), levels, search, most, seed, progress),
        "options": asked(read_layers, levels=levels, search=search, most=most, seed=seed),
    }
    return run.keep(READOUT, result)


def read_pipeline(folder: Path, source: str, device: str = "cpu", seed: int = 0, **how: Any) -> ReadoutFile:
    """The same of the U-Net of a diffusers pipeline, on the examples of `source`; nothing is written. how: levels,
    search, most, progress, as in `read_layers`. UserError: pictures of other channels than it takes."""
    probed, splits = readout.of_pipeline(folder), data.load(source, seed=seed)
    unet: Any = probed.network.to(device)
    shape, channels = splits.train.shape, unet.config.in_channels
    if len(shape) != 3 or shape[0] != channels:
        held = "x".join(map(str, shape))
        raise UserError(f"{folder} takes pictures of {channels} channels and {source} holds {held}: give others.")
    result = readout.readout(probed, splits, seed=seed, **how)
    return {"method": type(unet).__name__, "data": source, **result}


def read_times(
    run: Run,
    splits: Splits | None = None,
    ks: Sequence[int] = KS,
    epochs: int = 100,
    seeds: int = 1,
    most: int = 20_000,
    progress: Progress = silent,
) -> TimesFile:
    """Accuracy by single time, and by number of times and way of combining -> RUN/times.json, times.png, and returned.

    The best of either kind is chosen on validation. At most `most` training examples, evenly chosen. UserError
    for a code that does not depend on t, or data without labels.
    """
    splits = splits or run.splits()
    train = splits.train.subset(splits.train.labelled_first(most))
    rows = [split.labelled() for split in (train, splits.valid, splits.test)]
    every = sorted({t for k in ks for t in even_times(k)})
    count = counting("codes", sum(len(split) for split, _ in rows), progress)
    coded = [(codes_over_times(run.model, split, every, progress=count), y) for split, y in rows]

    def at(times: Sequence[float]) -> TimedSplits:
        columns = [every.index(t) for t in times]
        first, second, third = ((codes[:, columns], y) for codes, y in coded)
        return first, second, third

    singles: list[OneTime] = []
    combined: list[ManyTimes] = []
    alone = even_times(max(ks))
    for i, t in enumerate(alone):
        progress("single times", i, len(alone))
        mlp = over_times.combined("concat", at([t]), epochs, seeds)
        singles.append({"t": t, "linear": over_times.combined_linear("concat", at([t])), "mlp": mlp})
    for k in ks:
        for way in WAYS:
            combined_codes = at(even_times(k))
            reader = "mlp" if way in LINEAR else "own"
            score = over_times.combined(way, combined_codes, epochs, seeds, progress)
            combined.append({"k": k, "way": way, "reader": reader, **score})
            if way in LINEAR:
                combined.append(
                    {"k": k, "way": way, "reader": "linear", **over_times.combined_linear(way, combined_codes)}
                )
    best = max(singles, key=lambda row: row["mlp"]["valid_accuracy"])
    result: TimesFile = {
        "method": run.settings.method,
        "data": run.card.source,
        "examples": len(rows[2][0]),
        "train_examples": len(rows[0][0]),
        "epochs": epochs,
        "seeds": seeds,
        "protocol": over_times.PROTOCOL,
        "single": singles,
        "combined": combined,
        "best_single": {"t": best["t"], **best["mlp"]},
        "best_combined": max(combined, key=lambda row: row["valid_accuracy"]),
        "options": asked(read_times, ks=tuple(ks), epochs=epochs, seeds=seeds, most=most),
    }
    write_bytes(run.directory / PICTURES[TIMES], picture(result))
    return run.keep(TIMES, result)


def readout_table(result: ReadoutFile) -> list[list[str]]:
    """Validation accuracy by layer and log-SNR, the head first."""
    log_snrs = list(dict.fromkeys(cell["log_snr"] for cell in result["grid"]))
    cells = {(cell["layer"], cell["log_snr"]): f"{cell['valid_accuracy']:.3f}" for cell in result["grid"]}
    layers = dict.fromkeys(layer for layer, _ in cells)
    rows = [[layer, *(cells[layer, at] for at in log_snrs)] for layer in layers]
    return [["layer", *(f"log-SNR {at:.1f}" for at in log_snrs)], *rows]


def single_table(result: TimesFile) -> list[list[str]]:
    """Test accuracy by time, of both probes, the head first."""
    rows = [[f"{row['t']:.3f}", _with_error(row["linear"]), _with_error(row["mlp"])] for row in result["single"]]
    return [["t", "linear", "mlp"], *rows]


def combined_table(result: TimesFile) -> list[list[str]]:
    """Test accuracy by number of times, and by way of combining them and probe, the head first."""
    rows: dict[int, dict[str, str]] = {}
    for row in result["combined"]:
        name = f"{row['way']}, {row['reader']}" if row["way"] in LINEAR else row["way"]
        rows.setdefault(row["k"], {})[name] = _with_error(row)
    names = list(next(iter(rows.values())))
    return [["times", *names], *([str(k), *(row[name] for name in names)] for k, row in rows.items())]


def _with_error(row: Score) -> str:
    return plus_minus(row["accuracy"], row["se"])


def picture(result: TimesFile) -> bytes:
    """A PNG file: accuracy of the perceptron on the code of each time, with its error; dashed: the best of several."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    rows, best = result["single"], result["best_combined"]
    at = [row["t"] for row in rows]
    axes.errorbar(at, [row["mlp"]["accuracy"] for row in rows], [row["mlp"]["se"] for row in rows], marker="o", ms=4)
    axes.axhline(best["accuracy"], color="#666666", linestyle="--", linewidth=1)
    axes.annotate(
        f"{amount(best['k'], 'time')}, {best['way']}",
        (1, best["accuracy"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        color="#666666",
    )
    axes.set_xlabel("t of the code (0: data, 1: noise)")
    axes.set_ylabel("accuracy on the test split")
    axes.set_xlim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
