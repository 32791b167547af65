"""Commands that write pages: a report of a run, and a list of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffrep.commands.console import progress, say, say_json
from diffrep.commands.options import Device, Json, Moved, RunPath

HERE = "127.0.0.1"


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: diffrep report runs/a")(report)
    app.command(epilog="Example: diffrep explore runs/a")(explore)
    app.command(epilog="Example: diffrep runs runs/")(runs)


def report(
    run: RunPath,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write (RUN/report.html)")] = None,
    data: Moved = None,
    device: Device = "auto",
) -> None:
    """Write the numbers and pictures of a run as one HTML file, which needs no network."""
    from diffrep.commands.gallery import check_place
    from diffrep.pages.run_page import report as write

    if output is not None:
        check_place(output, ".html")
    with progress() as update:
        path = write(run, output, device=device, progress=update, data=data)
    say(f"The report is in {path}. Open it in a browser.")


def explore(
    run: RunPath,
    host: Annotated[str, typer.Option(help="address to listen on; any but this machine's own needs --password")] = HERE,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 7860,
    password: Annotated[
        str | None, typer.Option(envvar="DIFFREP_PASSWORD", help="asked for with the user name diffrep")
    ] = None,
    data: Moved = None,
    device: Device = "auto",
) -> None:
    """Open a page in the browser to look at examples, codes, noise, walks and samples; needs the extra `app`."""
    from diffrep.pages.app import check, serve
    from diffrep.pages.explorer import Explorer

    check(host, password)
    explorer = Explorer.of(run, device, data)
    say(f"Open http://{host}:{port} in a browser; Ctrl-C ends it.")
    serve(explorer, host, port, password)


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder with runs, at any depth")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs in a folder: method, data, age and main numbers, the newest first."""
    from diffrep.commands.console import show_rows
    from diffrep.pages.listing import listing, rows_of

    rows = listing(folder)
    say_json(rows) if as_json else show_rows(rows_of(rows))
