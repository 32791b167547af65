"""Commands that fit classifiers to a run: to its layers, to its codes over times, and with few labels."""

from __future__ import annotations

from typing import Annotated

import typer

from diffrep.amounts import amount, plus_minus
from diffrep.commands.console import progress, say, say_json, show_rows
from diffrep.commands.options import Device, Json, Moved, RunPath, Seed
from diffrep.errors import UserError


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: diffrep readout runs/a --levels 7")(readout)
    app.command(epilog="Example: diffrep times runs/a --times 1,2,5,10")(times)
    app.command(epilog="Example: diffrep semi runs/a --labels-per-class 10")(semi)


def readout(
    run: RunPath,
    levels: Annotated[int, typer.Option(min=1, help="noise levels of the search, log-SNR 2 to 8")] = 7,
    search: Annotated[int, typer.Option(min=2, help="examples of train and of validation in the search")] = 2000,
    most: Annotated[int, typer.Option(min=2, help="training examples of the probe at the end")] = 20_000,
    seed: Seed = 0,
    data: Moved = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Probe the decoder's layers; layer and noise level are chosen on validation -> RUN/readout.json. RUN may be a
    folder of a diffusers pipeline, with --data."""
    from diffrep import runs
    from diffrep.measures.readout import read_layers, read_pipeline, readout_table
    from diffrep.training.process import place

    if (run / "model_index.json").is_file():
        if data is None:
            raise UserError(f"{run} is a pipeline of diffusers: give the pictures to read it on with --data.")
        how = {"levels": levels, "search": search, "most": most}
        with progress() as update:
            result = read_pipeline(run, data, str(place(device).device), seed, **how, progress=update)
    else:
        loaded = runs.load(run, device, data)
        with progress() as update:
            result = read_layers(loaded, None, levels, search, most, seed, update)
    if as_json:
        say_json(result)
        return
    show_rows(readout_table(result))
    say(
        f"Of these validation accuracies, {result['layer']} at log-SNR {result['log_snr']:.1f} is best; on all"
        f" {amount(result['probe']['examples'], 'test example')}: {plus_minus(result['accuracy'], result['se'])}"
        f" ({result['protocol']}, {result['probe']['protocol']})."
    )


def times(
    run: RunPath,
    times_: Annotated[str, typer.Option("--times", help="numbers of times to combine")] = "1,2,5,10",
    epochs: Annotated[int, typer.Option(min=1, help="most epochs of each network")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="fits of each network")] = 1,
    most: Annotated[int, typer.Option(min=2, help="most training examples")] = 20_000,
    data: Moved = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Probe a time-conditioned code at single times, and at several together -> RUN/times.json and times.png."""
    from diffrep import runs
    from diffrep.measures.readout import combined_table, read_times, single_table

    ks = times_.split(",")
    if not all(k.strip().isdecimal() and int(k) for k in ks):
        raise UserError(f"--times expects numbers such as 1,2,5,10, got {times_!r}.")
    loaded = runs.load(run, device, data)
    with progress() as update:
        result = read_times(loaded, None, sorted({int(k) for k in ks}), epochs, seeds, most, update)
    if as_json:
        say_json(result)
        return
    show_rows(single_table(result))
    show_rows(combined_table(result))
    single, several = result["best_single"], result["best_combined"]
    say(
        f"By validation: of single times t = {single['t']:.2f}, {plus_minus(single['accuracy'], single['se'])} on test;"
        f" of several {several['way']} of {several['k']}, {plus_minus(several['accuracy'], several['se'])}"
        f" ({amount(result['examples'], 'test example')}, {result['protocol']})."
    )


def semi(
    run: RunPath,
    labels_per_class: Annotated[int, typer.Option(min=1, help="labelled training examples of each class")] = 10,
    seeds: Annotated[int, typer.Option(min=1, help="draws of the labels")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="steps of each fit")] = 300,
    most: Annotated[int, typer.Option(min=1, help="most unlabelled training examples")] = 10_000,
    budget: Annotated[str | None, typer.Option(help="time, such as 2m, that lowers --steps to what fits")] = None,
    data: Moved = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare ways to use few labels: frozen probe, fine-tuning, pseudo-labels of a graph -> RUN/semi.json."""
    from diffrep import runs
    from diffrep.measures.semi import semi as measure
    from diffrep.measures.semi import table

    loaded = runs.load(run, device, data)
    with progress() as update:
        result = measure(loaded, None, labels_per_class, seeds, steps, most, update, budget)
    if as_json:
        say_json(result)
        return
    show_rows(table(result))
    say(
        f"{amount(result['labels_per_class'], 'label')} of each class, {amount(result['seeds'], 'draw')},"
        f" {amount(result['steps'], 'step')} a fit,"
        f" {amount(result['unlabelled_examples'], 'example')} without, nothing chosen;"
        f" {amount(result['examples'], 'test example')},"
        f" {', '.join(result['protocol'])}."
    )
