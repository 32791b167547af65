"""What a run is worth, in three sentences: is its code alive, what does the code know, what does it cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffrep.pages.known import Known

SURE = 2.0  # standard errors between two numbers that are called different


@dataclass(frozen=True)
class Verdict:
    """Three sentences; good: True, False, or None where nobody knows yet."""

    alive: str
    knows: str
    costs: str
    good: bool | None

    @property
    def sentences(self) -> tuple[str, str, str]:
        return self.alive, self.knows, self.costs


def verdict(run: Known | str | Path) -> Verdict:
    """The verdict on a run, from its directory alone. UserError where there is no run."""
    known = run if isinstance(run, Known) else Known.of(run)
    word = known.health.verdict
    good = {"alive": True, "no code": None, "too early": None}.get(word, False)
    return Verdict(_alive(known), _knows(known), _costs(known), good)


def _alive(known: Known) -> str:
    word = known.health.verdict
    if word == "no code":
        return f"{known.settings.method} has no code: it models the data and nothing else."
    if word == "too early":
        return known.health.sentences[0]
    if word != "alive":
        return " ".join(known.health.sentences)
    rate, units = known.metrics.get("rate_nats"), known.metrics.get("active_units")
    parts = []
    if rate is not None:
        parts.append(f"it holds {rate:.1f} nats an example")
    if units is not None:
        parts.append(f"{units} of its {known.settings.code.dim} numbers are active")
    gap = None if known.health.numbers is None else known.health.numbers.gap
    if gap is not None and not parts:
        parts.append(f"an example that is shown another one's code loses {gap:.1f} nats")
    return f"The code is alive{': ' if parts else ''}{', and '.join(parts)}."


def _knows(known: Known) -> str:
    if known.health.verdict == "no code":
        return f"What its layers know is not measured here; `{known.command('readout')}` asks them."
    own = _accuracy(known, "code")
    if own is None:
        why = known.metrics.get("no_probe")
        if why:
            return f"What the code knows is not measured by labels: {_plain(why)}."
        return f"What the code knows is not measured yet; `{known.command('evaluate')}` asks it."
    said = f"From the code, a linear model tells the class of {_share(own)} of the test examples"
    others = [(name, found) for name in ("pixels", "pca") if (found := _accuracy(known, name)) is not None]
    if not others:
        return f"{said}; `{known.command('probe')}` sets raw pixels and PCA beside it."
    name, best = max(others, key=lambda pair: pair[1][0])
    error = (own[1] ** 2 + best[1] ** 2) ** 0.5
    gain = own[0] - best[0]
    words = {"pixels": "the raw values", "pca": "as many principal components"}[name]
    if abs(gain) <= SURE * error:
        return f"{said}; from {words}, {_share(best)}. So few test examples do not show a difference."
    return f"{said}, which is {'more' if gain > 0 else 'less'} than from {words}: {_share(best)}."


def _costs(known: Known) -> str:
    metrics = known.metrics
    if not metrics:
        return f"What an example costs is not measured yet; `{known.command('evaluate')}` states the bound."
    bound = metrics.get("bound")
    if bound is None:
        return f"There is no bound on what an example costs: {_plain(metrics.get('no_bound', 'none was stated'))}."
    density = "density" in bound.get("unit", "")
    value = f"{bound['bits_per_dim']:.3f} ± {bound['bits_per_dim_se']:.3f}"
    said = f"An example costs at most {value} bits for each of its numbers"
    if density:
        said = f"The density of an example costs at most {value} bits for each of its numbers (below zero is possible)"
    if metrics.get("rate_nats"):
        of = f", {bound['rate'] / bound['bits_per_dim']:.0%} of it" if not density and bound["bits_per_dim"] > 0 else ""
        said += f"; the code takes {metrics['rate_nats']:.1f} nats an example{of}"
    return f"{said}."


def _accuracy(known: Known, kind: str) -> tuple[float, float] | None:
    """Accuracy of the linear probe on features of a kind, and its standard error."""
    result = known.probes.get("scores", {}).get(kind, {}).get("linear")
    if result is not None and "accuracy" in result:
        return result["accuracy"], result["se"]
    probes = known.metrics.get("probes") or {}
    return (probes["linear"], probes["linear_se"]) if kind == "code" and "linear" in probes else None


def _share(found: tuple[float, float]) -> str:
    return f"{100 * found[0]:.1f} ± {100 * found[1]:.1f} %"


def _plain(reason: str) -> str:
    """A reason without its full stop."""
    return reason.strip().rstrip(".")
