"""A summary of a run, from the files in its directory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from diffrep import config
from diffrep.amounts import amount
from diffrep.config import Settings
from diffrep.errors import UserError
from diffrep.probes.result import Result, error_of, score
from diffrep.runs.records import DISTANCE, FACTORS, METRICS, PROBES, PROFILE, current


@dataclass(frozen=True)
class Column:
    """How a table shows a number: its heading, decimals, and whether the least is the best (None: neither)."""

    heading: str
    digits: int
    lowest: bool | None = None


def number(heading: str | None = None, digits: int = 0, lowest: bool | None = None) -> Any:
    """A number that a run may lack; with a heading it is a column of tables."""
    return field(default=None, metadata={"column": heading and Column(heading, digits, lowest)})


@dataclass(frozen=True)
class Numbers:
    """The numbers of a run that tables compare; None where its directory does not have them.

    `..._se` is the standard error of the number before it, `..._low` and `..._high` are the ends of its 95 % interval.
    images_per_second, examples and seconds are of training.
    """

    bits_per_dim: float | None = number("bits/dim", 4, lowest=True)
    bits_per_dim_se: float | None = number()
    rate_nats: float | None = number("rate (nats)", 2)
    refined_bits_per_dim: float | None = number("bits/dim, refined codes", 4, lowest=True)
    refined_bits_per_dim_se: float | None = number()
    refined_rate_nats: float | None = number("rate, refined codes", 2)
    information_nats: float | None = number("information (nats)", 2)
    information_nats_se: float | None = number()
    active_units: int | None = number("active units", 1)
    probe_linear: float | None = number("linear probe", 4, lowest=False)
    probe_linear_se: float | None = number()
    probe_linear_low: float | None = number()
    probe_linear_high: float | None = number()
    probe_linear_balanced: float | None = number("linear, balanced", 4)
    probe_linear_auroc: float | None = number("linear, AUROC", 4)
    probe_knn: float | None = number("kNN probe", 4, lowest=False)
    probe_knn_se: float | None = number()
    probe_knn_low: float | None = number()
    probe_knn_high: float | None = number()
    probe_few1: float | None = number("1 label a class", 4, lowest=False)
    probe_few1_se: float | None = number()
    probe_few1_low: float | None = number()
    probe_few1_high: float | None = number()
    probe_few10: float | None = number("10 labels a class", 4, lowest=False)
    probe_few10_se: float | None = number()
    probe_few10_low: float | None = number()
    probe_few10_high: float | None = number()
    frechet: float | None = number("Frechet distance", 2, lowest=True)
    images_per_second: float | None = number("images/s", 0)
    parameters: int | None = number("parameters", 0)
    examples: int | None = number()
    seconds: float | None = number()

    def value(self, name: str) -> float | None:
        """The number of that name; None where the name ends in `_se` and there is no such number."""
        return getattr(self, name, None) if name.endswith("_se") else getattr(self, name)

    def ends(self, name: str) -> tuple[float, float] | None:
        """The ends of the 95 % interval of the number of that name, where they are known."""
        low, high = getattr(self, f"{name}_low", None), getattr(self, f"{name}_high", None)
        return None if low is None or high is None else (low, high)


COLUMNS: dict[str, Column] = {f.name: column for f in fields(Numbers) if (column := f.metadata["column"])}


def numbers(directory: Path) -> Numbers:
    """The numbers of a run; None where a file lacks them, is missing, or is about other weights.

    UserError: a file that cannot be read.
    """
    results = current(directory)
    metrics, profile = results[METRICS], results[PROFILE]
    bound, refined = metrics.get("bound") or {}, metrics.get("refined", {})
    seconds, examples = _seconds(directory), (metrics.get("trained") or {}).get("examples")
    return Numbers(
        bits_per_dim=bound.get("bits_per_dim"),
        bits_per_dim_se=bound.get("bits_per_dim_se"),
        rate_nats=metrics.get("rate_nats"),
        refined_bits_per_dim=refined.get("bits_per_dim"),
        refined_bits_per_dim_se=refined.get("bits_per_dim_se"),
        refined_rate_nats=refined.get("rate_nats"),
        information_nats=profile.get("integral_nats"),
        information_nats_se=profile.get("integral_se"),
        active_units=metrics.get("active_units"),
        frechet=results[DISTANCE].get("frechet"),
        images_per_second=examples / seconds if examples and seconds else None,
        parameters=metrics.get("parameters"),
        examples=examples,
        seconds=seconds,
        **accuracies(_of_codes(metrics.get("probes", {})), ("linear", "knn")),
        **accuracies(results[PROBES].get("scores", {}).get("code", {}), ("few-1", "few-10")),
    )


def accuracies(results: Mapping[str, Result], protocols: Sequence[str]) -> dict[str, Any]:
    """Those of the protocols that have an accuracy, as fields of `Numbers`: "few-10" is probe_few10, with its error and
    interval; and what stands beside the linear probe."""
    numbers: dict[str, Any] = {}
    for protocol in protocols:
        result = results.get(protocol, {})
        if "accuracy" not in result:
            continue
        name, error = f"probe_{protocol.replace('-', '')}", error_of(result)
        numbers |= {name: result["accuracy"], f"{name}_se": None if math.isnan(error) else error}
        if "test_se" in result:  # over draws: of these and of the test examples both
            numbers |= {f"{name}_low": result["accuracy"] - 2 * error, f"{name}_high": result["accuracy"] + 2 * error}
        elif "low" in result:
            numbers |= {f"{name}_low": result["low"], f"{name}_high": result["high"]}
        if protocol == "linear":
            numbers |= {f"{name}_{word}": result.get(word) for word in ("balanced", "auroc")}
    return numbers


def _of_codes(probes: Mapping[str, Any]) -> dict[str, Result]:
    """The results of `evaluate`, in older files without their protocols."""
    plain = {
        name: {"accuracy": probes[name], "se": probes.get(f"{name}_se")} for name in ("linear", "knn") if name in probes
    }
    return {name: probes.get(f"{name}_protocol", result) for name, result in plain.items()}


def distance_protocol(directory: Path) -> str | None:
    """Features and number of samples of the distance of a run; None where it has none."""
    far = current(directory)[DISTANCE]
    return f"{far['features']}, {amount(far['samples'], 'sample')}" if "frechet" in far else None


def refined_with(directory: Path) -> str | None:
    """How the codes of a run were refined; None where they were not."""
    refined = current(directory)[METRICS].get("refined")
    return refined and f"{refined['steps']} by {refined['protocol']}"


def factors(directory: Path) -> dict[str, float]:
    """Name of each factor -> accuracy or R^2 of its probe."""
    results = current(directory)[FACTORS].get("factors", {})
    return {name: value for name, result in results.items() if (value := score(result)) is not None}


def changed(settings: Settings) -> list[str]:
    """The settings that are not the defaults, as name=value; but for the data, whose path is of one machine."""
    plain = Settings()
    values = {name: config.value(settings, name) for name in config.names() if name != "data.source"}
    return [f"{name}={_text(v)}" for name, v in values.items() if v != config.value(plain, name)]


def _text(value: object) -> str:
    """As `--set` reads it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _seconds(directory: Path) -> float | None:
    """Seconds of training, from the last line of the timings."""
    path = directory / "timings.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    try:
        whole = [line for line in lines if line.endswith(b"\n")]  # a kill may cut the last one
        return float(json.loads(whole[-1])["seconds"]) if whole else None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a valid log any more: repair it, or move it away.") from error
