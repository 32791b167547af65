"""Commands that compare a run with its data: samples with examples, codes with factors."""

from __future__ import annotations

from typing import Annotated

import typer

from diffrep.commands.console import progress, say, say_json, show_rows
from diffrep.commands.options import CodeTime, Device, Json, Moved, RunPath, Sampler, Seed, Spacing, Steps


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: diffrep distance runs/a --features run:runs/classifier")(distance)
    app.command(epilog="Example: diffrep disentangle runs/a")(disentangle)


def distance(
    run: RunPath,
    features: Annotated[
        str, typer.Option(help="run:PATH (codes of a run), pixels, inception[:WEIGHTS] or dino[:MODEL]")
    ] = "pixels",
    n: Annotated[int, typer.Option("-n", min=20, help="samples, and examples to compare them with")] = 2000,
    sampler: Sampler = None,
    steps: Steps = None,
    spacing: Spacing = None,
    seed: Seed = 0,
    data: Moved = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare samples with the test split by Frechet distance, kernel distance, precision and recall ->
    RUN/distance.json."""
    from diffrep import runs
    from diffrep.denoising.samplers import sampling_of
    from diffrep.measures.distance import distance as measure
    from diffrep.measures.distance import table

    loaded = runs.load(run, device, data)
    sampling = sampling_of(loaded.model.by_steps, sampler, steps, spacing)
    with progress() as update:
        result = measure(loaded, features, n, None, sampling, seed, update)
    if as_json:
        say_json(result)
        return
    show_rows([("against test", "samples", "training data"), *table(result)])
    say(f"{result['samples']:,} of each, features: {result['features']}, {result['protocol']}")


def disentangle(
    run: RunPath,
    t: CodeTime = None,
    most: Annotated[int, typer.Option(min=20, help="examples that the boosted trees of DCI use")] = 4000,
    data: Moved = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare single numbers of the code with the factors of the data -> RUN/disentangle.json."""
    from diffrep import runs
    from diffrep.measures.disentangle import disentangle as measure
    from diffrep.measures.disentangle import table

    loaded = runs.load(run, device, data)
    with progress() as update:
        result = measure(loaded, None, t, most, update)
    say_json(result) if as_json else show_rows(table(result), head=False)
