"""The command line: parse, call, print."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from diffrep.amounts import amount
from diffrep.commands import distances, exports, pages, pictures, probes, readouts, studies
from diffrep.commands.console import (
    Count,
    hush,
    leave,
    out,
    progress,
    say,
    say_aside,
    say_json,
    say_next,
    show_metrics,
    show_pairs,
    show_reading,
    show_rows,
    usage,
)
from diffrep.commands.options import CodeTime, DataSource, Device, Json, Moved, Output, RunPath, SharedRun, SkipBad
from diffrep.errors import UserError, lacks_memory, reason_of
from diffrep.training.memory import keep_memory

app = typer.Typer(
    name="diffrep",
    help="Learn representations by denoising: train, measure, encode, sample.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)

SHARED = ("train", "encode")  # commands whose work several processes share
INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
BROKEN = (
    errno.EIO,
    errno.ESTALE,
    errno.ENODEV,
    errno.ENXIO,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
)  # disks, or their network
UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]  # typer does not name it


@app.callback()
def everywhere(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print only warnings, errors and --json")] = False,
) -> None:
    """Learn representations by denoising: train, measure, encode, sample."""
    hush(quiet)
    processes = os.environ.get("WORLD_SIZE") or "1"
    if processes != "1" and context.invoked_subcommand not in SHARED:
        raise UserError(
            f"diffrep {context.invoked_subcommand} works in one process, and WORLD_SIZE says {processes}: start it"
            f" without torchrun, which is for {' and '.join(SHARED)}."
        )


@app.command(epilog="Example: diffrep train --data digits --method vae-vdm --out runs/a --budget 60s")
def train(
    out_: Annotated[Path, typer.Option("--out", help="run directory; an existing run is continued to its budget")],
    data: Annotated[str | None, typer.Option(help="name of a data set, folder, file, or hub name")] = None,
    method: Annotated[str | None, typer.Option(help="`diffrep methods` lists them")] = None,
    budget: Annotated[str | None, typer.Option(help="120s, 10m, 20000ex or 3epochs")] = None,
    config_: Annotated[Path | None, typer.Option("--config", help="settings, TOML or JSON")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="one setting, such as train.lr=1e-3")] = None,
    detail: Annotated[
        str | None,
        typer.Option(
            help="level of detail: which noise levels the loss weights: coarse, balanced, fine, band:low:high (log-SNR)"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="seed of all random numbers of the run")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
    skip_bad: SkipBad = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="remove the existing run and train again (with its settings, unless --data is given)"
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a method on data into a run directory."""
    from diffrep import config, runs
    from diffrep.data import Reading
    from diffrep.training.process import main_process

    words = {
        "data.source": data,
        "method": method,
        "train.budget": budget,
        "detail": detail,
        "seed": seed,
        "train.device": device,
        "data.skip_bad": "true" if skip_bad else None,
    }
    changes = [*(set_ or []), *(f"{name}={value}" for name, value in words.items() if value is not None)]
    saved = out_ / runs.SETTINGS
    if config_ is not None:
        settings = config.load(config_, changes)
    elif saved.is_file() and not (restart and data):
        settings = config.load(saved, changes)
    else:
        settings = config.override(config.Settings(), changes)

    def tell(reading: Reading) -> None:
        if not as_json:
            say(f"{reading.source} is read as {reading.line()}.")
        for sentence in reading.doubts():
            say_aside(sentence)

    run = runs.train(settings, out_, restart, tell=tell)
    result = run.result
    assert result is not None
    summary = {
        "run": str(out_),
        "method": settings.method,
        "step": result.step,
        "examples": result.examples,
        "seconds": round(result.seconds, 3),
        "skipped_steps": result.skipped,
        "skipped_files": run.card.skipped,
        "interrupted": result.interrupted,
    }
    if as_json and main_process():
        say_json(summary)
    elif main_process() and not result.interrupted:
        if run.card.skipped:
            say(f"{amount(run.card.skipped, 'file')} could not be read: skipped.")
        had = f"{amount(result.examples, 'example')} in {amount(result.step, 'step')}, {result.seconds:.0f} s"
        if result.step == result.resumed > 0:
            say(
                f"Nothing is left to do: {out_} has had {had}, and the budget is {settings.train.budget}: give a larger"
                " --budget."
            )
        else:
            speed = result.examples / max(result.seconds, 1e-9)
            say(f"{settings.method} on {run.card.source}: {had} ({speed:,.0f} examples/s).")
        say_next(
            (f"diffrep evaluate {shlex.quote(str(out_))}", "measures it"),
            (f"diffrep report {shlex.quote(str(out_))}", "shows it, as one HTML file"),
        )
    if result.interrupted:
        sys.exit(INTERRUPTED)


@app.command(epilog="Example: diffrep evaluate runs/a")
def evaluate(
    run: RunPath,
    levels: Annotated[
        int | None, typer.Option(min=1, help="noise levels for each test example; a pilot chooses if left out")
    ] = None,
    flow: Annotated[
        int, typer.Option(min=0, help="also the likelihood of the probability flow, on this many examples (no code)")
    ] = 0,
    refine: Annotated[int, typer.Option(min=0, help="also the bound of codes refined by this many gradient steps")] = 0,
    data: Moved = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a run on its whole test split: the bound, the rate, active units, probes -> RUN/metrics.json."""
    from diffrep import runs
    from diffrep.measures.evaluate import evaluate as measure
    from diffrep.pages import verdict
    from diffrep.training.process import main_process

    loaded = runs.load(run, device, data)
    splits = loaded.splits()
    with progress() as update:
        metrics = measure(loaded, splits, levels, flow=flow, refine=refine, progress=update)
    if main_process():
        if as_json:
            say_json(metrics)
            return
        show_metrics(metrics)
        for sentence in verdict(run).sentences:
            say(sentence)


@app.command(epilog="Example: diffrep profile runs/a")
def profile(
    run: RunPath,
    levels: Annotated[int, typer.Option(min=1, help="noise levels for each test example")] = 32,
    n: Annotated[int | None, typer.Option("-n", min=2, help="number of test examples (the whole split)")] = None,
    data: Moved = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Show the nats that the code carries at each noise level -> RUN/profile.json and RUN/profile.png."""
    from diffrep import runs
    from diffrep.measures.profile import profile as measure
    from diffrep.measures.profile import sentences, table

    loaded = runs.load(run, device, data)
    with progress() as update:
        result = measure(loaded, levels=levels, most=n, progress=update)
    if as_json:
        say_json(result)
        return
    show_rows(table(result), head=False)
    say(" ".join(sentences(result)))


@app.command(epilog="Example: diffrep encode runs/a photos/ -o codes.parquet")
def encode(
    run: SharedRun,
    data: DataSource,
    output: Output,
    obsm: Annotated[str | None, typer.Option(help="name of the codes in a .h5ad file (X_diffrep)")] = None,
    t: CodeTime = None,
    t_grid: Annotated[
        int | None, typer.Option("--t-grid", min=1, help="number of values of t, evenly spaced between 0 and 1")
    ] = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the code of every example of a data set to Parquet, one row each. The codes of cells may go into a copy of
    their .h5ad file, too. Each process writes a shard."""
    from diffrep import runs
    from diffrep.commands.gallery import check_place
    from diffrep.runs.encode import embed, embed_cells
    from diffrep.runs.inputs import examples_of
    from diffrep.training.process import place

    if t is not None and t_grid is not None:
        raise UserError("--t and --t-grid both choose noise levels; give one of them.")
    check_place(output, ".parquet", ".h5ad")
    into_cells = output.suffix.lower() == ".h5ad"
    if into_cells and (not data.lower().endswith(".h5ad") or t_grid is not None):
        raise UserError(f"{output} takes one code for each cell of a .h5ad file: give such data, and no --t-grid.")
    if obsm is not None and not into_cells:
        raise UserError("--obsm names codes in a .h5ad file: give one with -o, or leave it out.")
    here = place(device)
    if into_cells and here.processes > 1:
        raise UserError(f"{output} is one file, and {here.processes} processes would each write it: start one process.")
    loaded = runs.load(run, device)
    examples = examples_of(loaded, data, skip_bad)
    times: tuple[float, ...] = () if t is None else (t,)
    if t_grid is not None:
        times = tuple((i + 0.5) / t_grid for i in range(t_grid))
    with progress() as update:
        done = Count("encode", len(examples), update)
        if into_cells:
            path = embed_cells(loaded.model, examples, data, output, obsm or "X_diffrep", t, done)
        else:
            path = embed(loaded.model, examples, output, times, here.rank, here.processes, progress=done)
    summary = {"file": str(path), "examples": done.count, "dim": loaded.code_dim}
    say_json(summary) if as_json else say(f"{amount(done.count, 'code')} in {path}")


@app.command(epilog="Example: diffrep methods --json")
def methods(as_json: Json = False) -> None:
    """List every method: one line, whether it has a code and a bound on -log p(x), and its paper."""
    from diffrep.methods.catalog import METHODS

    if as_json:
        say_json([{"name": name, **m.as_dict()} for name, m in METHODS.items()])
        return
    table = Table("method", "what it is", "code", "bound", "paper", box=None)
    for name, m in METHODS.items():
        table.add_row(name, m.summary, "yes" if m.has_code else "no", "yes" if m.has_bound else "no", m.paper)
    out.print(table)


@app.command(epilog="Example: diffrep settings | grep code")
def settings(as_json: Json = False) -> None:
    """List every setting of `train --set` and `--config` with its default and its meaning."""
    from diffrep import config

    flat = {name: (config.value(config.Settings(), name), meaning) for name, meaning in config.names().items()}
    if as_json:
        say_json([{"name": n, "default": d, "meaning": m} for n, (d, m) in flat.items()])
        return
    table = Table("setting", "default", "meaning", box=None)
    for name, (default, meaning) in flat.items():
        table.add_row(name, "none" if default is None else str(default), meaning)
    out.print(table)


@app.command(epilog="Example: diffrep data photos/")
def data(
    source: Annotated[
        str, typer.Argument(metavar="DATA", help="name of a data set, folder, file, or hub name")
    ] = "digits",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="one setting, such as data.layout=nhwc or data.label_column=age")
    ] = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Read a data set and show its shape, splits and labels, how it is read and what was guessed. Changes nothing."""
    from diffrep import config, runs

    changes = [*(set_ or []), f"data.source={source}", *(["data.skip_bad=true"] if skip_bad else [])]
    splits = runs.splits_of(config.override(config.Settings(), changes))
    card, reading = runs.DataCard.of(splits), splits.train.reading
    if as_json:
        say_json({**card.public(), "reading": reading.as_dict(), "doubts": reading.doubts()})
        return
    show_pairs(card.facts_in_words(splits))
    show_reading(reading.lines())
    for sentence in reading.doubts():
        say(f"? {sentence}")


@app.command(epilog="Example: diffrep doctor runs/a")
def doctor(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="a run whose code is examined")] = None,
    as_json: Json = False,
) -> None:
    """Tell whether the code of a run is alive, and why not; without RUN, show versions, device and speed."""
    from diffrep.commands.doctor import examine
    from diffrep.runs.diagnosis import checkup

    if run is None:
        result = examine()
        say_json(result) if as_json else show_pairs(result)
        return
    checked = checkup(run)
    say_json(checked.written()) if as_json else say(" ".join(checked.sentences))


pictures.add_to(app)
probes.add_to(app)
readouts.add_to(app)
exports.add_to(app)
distances.add_to(app)
studies.add_to(app)
pages.add_to(app)


def _of_the_machine(error: OSError | MemoryError | RuntimeError) -> str:
    """One sentence about what the machine lacks; raises the error again where it is a mistake of ours."""
    if lacks_memory(error):
        return (
            f"memory ran out ({reason_of(error)}): take fewer examples at a time (train.batch), a smaller model, or a"
            " machine with more; what was saved before is intact."
        )
    place = getattr(error, "filename", None) or "a file"
    if isinstance(error, OSError) and error.errno in NO_PLACE:
        return f"{place} cannot be written ({error.strerror}): free some space or pick another."
    if isinstance(error, OSError) and error.errno in BROKEN:
        return (
            f"{place} cannot be read or written ({error.strerror}): check its disk or network; what was saved before is"
            " intact."
        )
    raise error


def main() -> None:
    """The entry point: a user's mistake is one sentence and exit code 2, Ctrl-C one and 130."""
    keep_memory()
    warnings.formatwarning = lambda message, *_: f"diffrep: {' '.join(str(message).split())}\n"
    try:
        code = app(standalone_mode=False)
    except UserError as mistake:
        leave(str(mistake))
    except UsageError as mistake:
        text = usage(mistake)
        sys.exit(2) if text is None else leave(text)
    except (OSError, MemoryError, RuntimeError) as error:
        leave(_of_the_machine(error))
    if code == INTERRUPTED:  # so typer reports Ctrl-C
        leave("interrupted; files are whole or absent.", INTERRUPTED)
    sys.exit(code or 0)
