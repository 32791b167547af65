"""The command that writes a run's encoder for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffrep.commands.console import progress, say, say_json
from diffrep.commands.options import CodeTime, Json, Output, SharedRun


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: diffrep export runs/a -o encoder.onnx")(export)


def export(
    run: SharedRun,
    output: Output,
    prepared: Annotated[
        bool, typer.Option("--prepared", help="the input is x itself, in [-1, 1] or standardised, not raw examples")
    ] = False,
    t: CodeTime = None,
    as_json: Json = False,
) -> None:
    """Write the encoder as .onnx or .pt2 (extra `export`), after a check that its codes equal the model's."""
    from diffrep import runs
    from diffrep.commands.gallery import check_place
    from diffrep.runs.export import SUFFIXES

    check_place(output, *SUFFIXES)
    loaded = runs.load(run, "cpu")
    with progress() as update:
        update("export", 0, None)
        path = loaded.export(Path(output), prepared, t)
    summary = {"file": str(path), "bytes": path.stat().st_size, "dim": loaded.code_dim}
    say_json(summary) if as_json else say(f"The encoder is in {path}; its codes equal the model's to 1e-4.")
