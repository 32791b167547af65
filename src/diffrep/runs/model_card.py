"""The card of a shared run: its method, its numbers with their protocols, and how to use it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from diffrep.amounts import amount, plus_minus
from diffrep.methods import catalog
from diffrep.runs.card import form
from diffrep.runs.directory import weights_metadata
from diffrep.runs.records import DISTANCE, METRICS, PROBES, current
from diffrep.runs.summary import changed, distance_protocol

if TYPE_CHECKING:
    from diffrep.runs.run import Run


def text(run: Run, data: str) -> str:
    """The card as Markdown, with the header that the hub reads. data: the name of the data, without its place."""
    method = catalog.method(run.settings.method)
    rows = [*_rows(run)]
    table = ["| what | value | how it was got |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    nothing = "Nothing was measured before the run was handed on: `diffrep evaluate` on it states the bound."
    trained, card = weights_metadata(run.directory), run.card
    settings = changed(run.settings)
    paper = f" ({method.paper})" if method.paper else ""
    sizes = ", ".join(f"{count:,} {split}" for split, count in card.examples.items())
    return "\n".join(
        [
            "---",
            "library_name: diffrep",
            "tags:",
            *(f"- {tag}" for tag in ("diffrep", "representation-learning", "diffusion")),
            "---",
            f"# {run.settings.method} on {data}",
            f"{method.summary}{paper}. A code of {amount(run.code_dim, 'number')} for each example of"
            f" {form(card.shape, card.bins)} data.",
            "",
            "```python",
            "import diffrep",
            "",
            'run = diffrep.load("FOLDER or org/name")',
            "code = run.encode(x).mean  # x: raw examples like those of the training",
            "```",
            "",
            "## Numbers",
            *(table if rows else [nothing]),
            "",
            "## Data",
            f"{data}: {sizes}. Preparation: {card.prepared or 'none but the scale'}. Fingerprints (SHA-256 over the"
            f" examples in their order): {', '.join(f'{k} {v}' for k, v in card.fingerprints.items())}.",
            "",
            "## Training",
            f"{amount(trained.get('examples', 0), 'example')} in {amount(trained.get('step', 0), 'step')}; the weights"
            f" are their average. diffrep {metadata.version('diffrep')}. Settings that are not the defaults:"
            f" {', '.join(f'`{setting}`' for setting in settings) or 'none'}.",
            "",
        ]
    )


def _rows(run: Run) -> Iterator[tuple[str, str, str]]:
    """(what, value with its standard error, how it was got) of every number that the run's files of results state."""
    results = current(run.directory)
    metrics = results[METRICS]
    if bound := metrics.get("bound"):
        how = (
            f"{metrics['protocol']}: an upper bound on -log p(x) at weight one, "
            f"{amount(metrics['examples'], 'test example')}, {amount(metrics['levels'], 'noise level')} each"
        )
        yield "bits/dim", plus_minus(bound["bits_per_dim"], bound.get("bits_per_dim_se")), how
        yield "rate of the code", f"{metrics['rate_nats']:.2f} nats", "mean KL(q(z given x), p(z)), the same examples"
    for name, words in (("linear", "linear probe"), ("knn", "kNN probe")):
        probes = metrics.get("probes", {})
        if name in probes:
            yield words, plus_minus(probes[name], probes.get(f"{name}_se")), _probe(probes.get(f"{name}_protocol", {}))
    for protocol, result in results[PROBES].get("scores", {}).get("code", {}).items():
        value = result.get("accuracy", result.get("r2"))
        if value is not None and protocol not in ("linear", "knn"):
            yield f"{protocol} probe", plus_minus(value, result.get("se")), _probe(result)
    if (far := distance_protocol(run.directory)) is not None:
        yield "Frechet distance of samples", f"{results[DISTANCE]['frechet']:.2f}", f"features {far}"


def _probe(result: dict) -> str:
    measure = "accuracy" if "accuracy" in result else "R^2"
    return (
        f"{result.get('protocol', 'protocol not stated')}: {measure} on"
        f" {amount(result.get('examples', 0), 'test example')},"
        f" learned from {result.get('train_examples', 0):,} of training"
    )
