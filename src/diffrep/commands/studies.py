"""Commands for several runs: a study, a benchmark, a comparison."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffrep.amounts import amount
from diffrep.commands.console import progress, say, say_aside, say_json
from diffrep.commands.options import Device, Json
from diffrep.errors import UserError

if TYPE_CHECKING:
    from diffrep.studies.row import StudyFile

Folder = Annotated[Path, typer.Option("--output", "-o", help="folder of the results; an existing one is continued")]


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: diffrep study studies/alive-digits.toml -o results/alive")(study)
    app.command(epilog="Example: diffrep benchmark --data digits --total 30m -o results/benchmark")(benchmark)
    app.command(epilog="Example: diffrep compare runs/a runs/b --csv runs.csv")(compare)


def study(
    file: Annotated[
        Path, typer.Argument(metavar="STUDY.toml", help="runs, axes, seeds, budget and measurements, in a file")
    ],
    output: Folder,
    data: Annotated[str | None, typer.Option(help="data in place of that of the file")] = None,
    only: Annotated[str | None, typer.Option(help="only the run of this name, with its twins")] = None,
    as_json: Json = False,
) -> None:
    """Train and measure a grid of runs, with twins without a code -> study.json, tables and figures in one folder."""
    from diffrep.studies import plan
    from diffrep.studies.aggregate import table
    from diffrep.studies.row import rows_of
    from diffrep.studies.study import study as carry_out
    from diffrep.studies.table import markdown

    content = carry_out(plan.read(file, data), output, only, say_aside, progress)
    page = _page(content, output, f"diffrep study {file} -o {output}")
    say_json(content) if as_json else say(markdown(table(rows_of(content))) + f"\n{page} shows them.")


def benchmark(
    data: Annotated[str, typer.Option(help="name of a data set, folder, file, or hub name; it needs labels")],
    output: Folder,
    budget: Annotated[str | None, typer.Option(help="of each run: 120s, 10m, 20kex; several: 1m,3m,10m")] = None,
    total: Annotated[
        str | None, typer.Option(help="in place of --budget: time for all runs and their evaluation")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="names with commas; all with a code, and pixels, pca, random-encoder")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="runs of each method")] = 3,
    set_: Annotated[list[str] | None, typer.Option("--set", help="one setting of all runs")] = None,
    levels: Annotated[int, typer.Option(min=1, help="noise levels for each test example in the bound")] = 8,
    as_json: Json = False,
) -> None:
    """Train and probe methods under one budget, and pixels, PCA and an untrained encoder -> benchmark.json."""
    from diffrep.probes.protocols import names_of
    from diffrep.studies.aggregate import table
    from diffrep.studies.benchmark import Design
    from diffrep.studies.benchmark import benchmark as judge
    from diffrep.studies.curves import CURVES
    from diffrep.studies.curves import curves as draw
    from diffrep.studies.row import rows_of
    from diffrep.studies.table import markdown

    changes = tuple(set_ or ())
    design = Design(names_of(methods), seeds, changes, levels)
    if budget is not None and "," in budget:
        if total is not None:
            raise UserError("expected --budget or --total, got both; leave one out.")
        several = draw(data, output, budget.split(","), design, say=say_aside, watch=progress)
        tables = [f"{content['budget']}\n\n{markdown(table(rows_of(content)))}" for content in several]
        say_json(several) if as_json else say("\n".join([*tables, f"{output / CURVES} shows them."]))
        return
    content = judge(data, output, design, budget=budget, total=total, say=say_aside, watch=progress)
    words = ["diffrep", "benchmark", "--data", data, "-o", str(output), "--seeds", str(seeds), "--levels", str(levels)]
    words += ["--budget", str(content["budget"]), *(["--methods", methods] if methods else [])]
    words += [word for change in changes for word in ("--set", change)]
    page = _page(content, output, shlex.join(words))
    say_json(content) if as_json else say(markdown(table(rows_of(content))) + f"\n{page} shows them.")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="directories of runs on the same data")],
    measured: Annotated[bool, typer.Option("--measure", help="first measure missing numbers")] = False,
    csv: Annotated[Path | None, typer.Option(help="also write the table as CSV")] = None,
    latex: Annotated[Path | None, typer.Option(help="also write it as LaTeX")] = None,
    html: Annotated[Path | None, typer.Option(help="also write a page with charts")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Show runs side by side; the best is bold where its interval of two standard errors overlaps no other."""
    from diffrep.files import write_bytes
    from diffrep.studies import compare as comparison
    from diffrep.studies import table as tables

    with progress() as update:
        compared = comparison.compare(runs, measured, device, update)
    shown = comparison.table(compared)
    for place, text in ((csv, tables.comma_separated), (latex, tables.latex)):
        if place is not None:
            write_bytes(place, text(shown).encode())
    if html is not None:
        from diffrep.pages import comparison as page

        words = shlex.join(["diffrep", "compare", *map(str, runs), "--html", str(html)])
        numbers = {side.run: [side.numbers] for side in compared.runs}
        page(html, "Runs compared", amount(len(runs), "run"), shown.without_empty(), numbers, [words])
    say_json(compared.written()) if as_json else say(tables.markdown(shown.without_empty()))


def _page(content: StudyFile, folder: Path, command: str) -> Path:
    """The results of a study or a benchmark as a page in its folder."""
    from diffrep.pages import comparison as page
    from diffrep.pages.side_by_side import of_rows
    from diffrep.studies.aggregate import table
    from diffrep.studies.row import rows_of

    rows = rows_of(content)
    made_with = {name: value for name, value in content.items() if name in ("commit", "hardware", "settings")}
    return page(
        folder / "report.html",
        content["study"],
        content.get("about", ""),
        table(rows),
        of_rows(rows),
        [command],
        made_with,
    )
