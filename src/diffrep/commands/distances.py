"""Commands that hold a run against its data: samples against examples, codes against known factors."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from diffrep.commands.console import progress, say, show_rows
from diffrep.commands.options import Device, Json, RunPath, Sampler, Seed, Steps


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: diffrep distance runs/a --features run:runs/classifier")(distance)
    app.command(epilog="Example: diffrep disentangle runs/a")(disentangle)


def distance(
    run: RunPath,
    features: Annotated[
        str, typer.Option(help="run:PATH (codes of a run), pixels, inception[:WEIGHTS] or dino[:MODEL]")
    ] = "pixels",
    n: Annotated[int, typer.Option("-n", min=20, help="samples, and examples that they are held against")] = 2000,
    sampler: Sampler = None,
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Hold samples against the test split: Frechet, kernel distance, precision, recall -> RUN/distance.json."""
    from diffrep import runs
    from diffrep.measures.distance import distance as measure
    from diffrep.measures.distance import table

    loaded = runs.load(run, device)
    with progress() as update:
        facts = measure(loaded, features, n, None, sampler, steps, seed, update)
    if as_json:
        print(json.dumps(facts))
        return
    show_rows([("against test", "samples", "training data"), *table(facts)])
    say(f"{facts['samples']:,} of each, features: {facts['features']}, {facts['protocol']}")


def disentangle(
    run: RunPath,
    t: Annotated[float | None, typer.Option(min=0, max=1, help="noise level of a time-conditioned code")] = None,
    most: Annotated[int, typer.Option(min=20, help="examples that the boosted trees of DCI use")] = 4000,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Hold single numbers of the code against the known factors of the data -> RUN/disentangle.json."""
    from diffrep import runs
    from diffrep.measures.disentangle import disentangle as measure
    from diffrep.measures.disentangle import table

    loaded = runs.load(run, device)
    with progress() as update:
        facts = measure(loaded, None, t, most, update)
    print(json.dumps(facts)) if as_json else show_rows(table(facts), head=False)
