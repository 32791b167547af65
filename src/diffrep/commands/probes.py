"""The command that probes codes, or any features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffrep.commands.console import progress, say, say_json, show_rows
from diffrep.commands.options import CodeTime, Device, Json, Moved
from diffrep.errors import UserError


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: diffrep probe runs/a --protocols linear,knn --few 1,10")(probe)


def probe(
    what: Annotated[Path, typer.Argument(metavar="RUN|FEATURES", help="a run, or a .npz, .npy or .parquet file")],
    labels: Annotated[str | None, typer.Option(help="column of the data or the file, or a .npy file of labels")] = None,
    protocols: Annotated[
        str | None, typer.Option(help="linear, knn, svm, mlp, few, spreading, regression (linear,knn)")
    ] = None,
    few: Annotated[str | None, typer.Option(help="labels of each class for few and spreading, such as 1,5,10")] = None,
    t: CodeTime = None,
    repeats: Annotated[int | None, typer.Option("--draws", min=2, help="draws of few labels (20)")] = None,
    most: Annotated[int, typer.Option(min=2, help="most training examples; labelled ones come first")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="seed of the draws, and of the splits of a file without splits")] = 0,
    data: Moved = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Fit simple models to a run's codes, and to pixels, PCA and an untrained encoder -> RUN/probes.json. A file of
    features can be probed too."""
    from diffrep import runs
    from diffrep.measures import probe as probing
    from diffrep.probes.protocols import counts_of, names_of

    if data is not None and not what.is_dir():
        raise UserError(f"--data says where the data of a run lies and {what} is no run: leave it out.")
    if repeats is not None and not few:
        raise UserError("--draws says how often few labels are drawn: give --few too, such as --few 1,10.")
    repeats = repeats or probing.USUAL.repeats
    asked = probing.Probing(labels, names_of(protocols), counts_of(few), t, repeats, most, seed)
    loaded = runs.load(what, device, data) if what.is_dir() else None
    with progress() as update:
        if loaded is None:
            result = probing.probe_file(what, asked, progress=update)
        else:
            result = probing.probe(loaded, None, asked, progress=update)
    if as_json:
        say_json(result)
        return
    show_rows(probing.rows_of(result))
    for sentence in probing.sentences(result):
        say(sentence)
