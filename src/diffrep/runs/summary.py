"""What is known of a run, from the files in its directory."""

from __future__ import annotations

import json
from pathlib import Path

from diffrep import config
from diffrep.config import Settings
from diffrep.errors import UserError
from diffrep.probes.factors import score
from diffrep.runs.records import DISTANCE, FACTORS, METRICS, PROBES, PROFILE, current
from diffrep.runs.run import SETTINGS

NUMBERS = (
    "bits_per_dim",
    "bits_per_dim_se",
    "rate_nats",
    "refined_bits_per_dim",
    "refined_bits_per_dim_se",
    "refined_rate_nats",
    "information_nats",
    "information_nats_se",
    "active_units",
    "probe_linear",
    "probe_linear_se",
    "probe_knn",
    "probe_knn_se",
    "probe_few1",
    "probe_few1_se",
    "probe_few10",
    "probe_few10_se",
    "frechet",
    "images_per_second",
    "parameters",
    "examples",
    "seconds",
)


def numbers(directory: Path) -> dict[str, float | int | None]:
    """NUMBERS of a run: bits/dim, nats, accuracies, ...; None where a file does not say, is not there, or is of other
    weights than the run's now.

    images_per_second, examples and seconds are of training alone. UserError: a file that cannot be read.
    """
    known = current(directory)
    metrics, profile = known[METRICS], known[PROFILE]
    bound, trained = metrics.get("bound") or {}, metrics.get("trained") or {}
    probes, far = metrics.get("probes", {}), known[DISTANCE]
    refined = metrics.get("refined", {})
    seconds, examples = _seconds(directory), trained.get("examples")
    found = {
        "bits_per_dim": bound.get("bits_per_dim"),
        "bits_per_dim_se": bound.get("bits_per_dim_se"),
        "rate_nats": metrics.get("rate_nats"),
        **{f"refined_{name}": refined.get(name) for name in ("bits_per_dim", "bits_per_dim_se", "rate_nats")},
        "information_nats": profile.get("integral_nats"),
        "information_nats_se": profile.get("integral_se"),
        "active_units": metrics.get("active_units"),
        **{f"probe_{name}": probes.get(name) for name in ("linear", "linear_se", "knn", "knn_se")},
        **dict.fromkeys(name for name in NUMBERS if name.startswith("probe_few")),
        **accuracies(known[PROBES].get("scores", {}).get("code", {})),
        "frechet": far.get("frechet"),
        "images_per_second": examples / seconds if examples and seconds else None,
        "parameters": metrics.get("parameters"),
        "examples": examples,
        "seconds": seconds,
    }
    return {name: found[name] for name in NUMBERS}


def accuracies(results: dict[str, dict]) -> dict[str, float]:
    """Protocol -> result, to probe_linear, probe_linear_se, probe_few10, ...; nothing of a probe that could not be."""
    known = {f"probe_{name.replace('-', '')}": result for name, result in results.items() if "accuracy" in result}
    known = {name: result for name, result in known.items() if name in NUMBERS}
    return {n: r["accuracy"] for n, r in known.items()} | {f"{n}_se": r["se"] for n, r in known.items()}


def seen_with(directory: Path) -> str | None:
    """What the distance of a run is one of: features and number of samples; None where there is none."""
    far = current(directory)[DISTANCE]
    return f"{far['features']}, {far['samples']:,} samples" if "frechet" in far else None


def refined_with(directory: Path) -> str | None:
    """How the codes of a run were refined; None where they were not."""
    refined = current(directory)[METRICS].get("refined")
    return refined and f"{refined['steps']} by {refined['protocol']}"


def factors(directory: Path) -> dict[str, float]:
    """Name of each known factor -> what a simple model reads of it: accuracy, or R^2."""
    results = current(directory)[FACTORS].get("factors", {})
    return {name: value for name, result in results.items() if (value := score(result)) is not None}


def settings_of(directory: Path) -> Settings:
    """The settings of a run; UserError where there is none."""
    if not (directory / SETTINGS).is_file():
        raise UserError(f"{directory} is not a run: it has no {SETTINGS}. Train one with `diffrep train --out`.")
    return config.load(directory / SETTINGS)


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
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return json.loads(lines[-1])["seconds"] if lines else None
