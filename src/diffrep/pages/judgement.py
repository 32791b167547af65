"""A verdict on a run in three sentences: is its code alive, what can be read from it, how good is the bound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffrep.amounts import amount
from diffrep.pages.run_files import RunFiles

SURE = 2.0  # standard errors between two numbers that count as different


@dataclass(frozen=True)
class Verdict:
    """Three sentences; good: True, False, or None where it is too early to tell."""

    alive: str
    knows: str
    costs: str
    good: bool | None

    @property
    def sentences(self) -> tuple[str, str, str]:
        return self.alive, self.knows, self.costs


def verdict(run: RunFiles | str | Path) -> Verdict:
    """The verdict on a run, from its directory alone. UserError where there is no run."""
    files = run if isinstance(run, RunFiles) else RunFiles.of(run)
    word = files.health.verdict
    good = {"alive": True, "no code": None, "too early": None}.get(word, False)
    return Verdict(_alive(files), _knows(files), _costs(files), good)


def _alive(files: RunFiles) -> str:
    word = files.health.verdict
    if word == "no code":
        return f"{files.settings.method} has no code: it models the data and nothing else."
    if word == "too early":
        return files.health.sentences[0]
    if word != "alive":
        return " ".join(files.health.sentences)
    rate, units = files.metrics.get("rate_nats"), files.metrics.get("active_units")
    phrases = []
    if rate is not None:
        phrases.append(f"it holds {rate:.1f} nats an example")
    if units is not None:
        dim = files.settings.code.size(files.card.shape)
        phrases.append(f"{units} of its {amount(dim, 'number')} {'is' if units == 1 else 'are'} active")
    gap = None if files.health.numbers is None else files.health.numbers.gap
    if gap is not None and not phrases:
        phrases.append(f"with the code of another example the loss rises by {gap:.1f} nats")
    return f"The code is alive{': ' if phrases else ''}{', and '.join(phrases)}."


def _knows(files: RunFiles) -> str:
    if files.health.verdict == "no code":
        return f"Its layers are not measured here; `{files.command('readout')}` probes them."
    own = _accuracy(files, "code")
    if own is None:
        why = files.metrics.get("no_probe")
        if why:
            return f"No label was predicted from the code: {_plain(why)}."
        if not files.card.label_names:
            return "No label is predicted from the code: the data have none."
        return f"No label was predicted from the code yet; `{files.command('evaluate')}` does so."
    text = f"From the code, a linear model predicts the class of {_share(own)} of the test examples"
    others = [(name, score) for name in ("pixels", "pca") if (score := _accuracy(files, name)) is not None]
    if not others:
        return f"{text}; `{files.command('probe')}` compares it with raw pixels and PCA."
    name, best = max(others, key=lambda pair: pair[1][0])
    error = (own[1] ** 2 + best[1] ** 2) ** 0.5
    gain = own[0] - best[0]
    words = {"pixels": "the raw values", "pca": "as many principal components"}[name]
    if abs(gain) <= SURE * error:
        return f"{text}; from {words}, {_share(best)}. With so few test examples the difference is not significant."
    return f"{text}, which is {'more' if gain > 0 else 'less'} than from {words}: {_share(best)}."


def _costs(files: RunFiles) -> str:
    metrics = files.metrics
    if not metrics:
        return f"The bound is not measured yet; `{files.command('evaluate')}` measures it."
    bound = metrics.get("bound")
    if bound is None:
        return f"There is no bound on -log p(x): {_plain(metrics.get('no_bound', 'none was stated'))}."
    density = "density" in bound.get("unit", "")
    value = f"{bound['bits_per_dim']:.3f} ± {bound['bits_per_dim_se']:.3f}"
    text = f"The bound on -log p(x) is {value} bits for each number of an example"
    if density:
        text = f"The bound on -log p(x), a density, is {value} bits for each number (it may be negative)"
    if metrics.get("rate_nats") and files.health.verdict != "too early":
        text += f"; the rate of the code is {metrics['rate_nats']:.1f} nats an example"
        if not density and bound["bits_per_dim"] > 0:
            text += f", {bound['rate'] / bound['bits_per_dim']:.0%} of the bound"
    return f"{text}."


def _accuracy(files: RunFiles, kind: str) -> tuple[float, float] | None:
    """Accuracy of the linear probe on features of a kind, and its standard error."""
    result = files.probes.get("scores", {}).get(kind, {}).get("linear")
    if result is not None and "accuracy" in result:
        return result["accuracy"], result["se"]
    probes = files.metrics.get("probes") or {}
    return (probes["linear"], probes["linear_se"]) if kind == "code" and "linear" in probes else None


def _share(score: tuple[float, float]) -> str:
    return f"{100 * score[0]:.1f} ± {100 * score[1]:.1f} %"


def _plain(reason: str) -> str:
    """A reason without its full stop."""
    return reason.strip().rstrip(".")
