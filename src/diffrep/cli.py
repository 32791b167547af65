"""The command line: parse, call, print."""

from __future__ import annotations

import errno
import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from diffrep.commands import readouts
from diffrep.commands.options import DataSource, Device, Json, Output, RunPath, Sampler, Seed, SkipBad, Steps
from diffrep.console import (
    Count,
    leave,
    out,
    progress,
    say,
    say_aside,
    show_facts,
    show_metrics,
    usage,
)
from diffrep.errors import UserError

app = typer.Typer(
    name="diffrep",
    help="Learn representations by denoising: train, measure, encode, sample.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # typer does not name it


@app.command(epilog="Example: diffrep train --data digits --method vae-vdm --out runs/a --budget 60s")
def train(
    out_: Annotated[Path, typer.Option("--out", help="run directory; an existing run is continued to its budget")],
    data: Annotated[str | None, typer.Option(help="name of a data set, folder, file, or hub name")] = None,
    method: Annotated[str | None, typer.Option(help="`diffrep methods` lists them")] = None,
    budget: Annotated[str | None, typer.Option(help="120s, 10m, 20000ex or 3epochs")] = None,
    config_: Annotated[Path | None, typer.Option("--config", help="settings, TOML or JSON")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="one setting, such as train.lr=1e-3")] = None,
    detail: Annotated[str | None, typer.Option(help="where on the noise axis the loss looks")] = None,
    seed: Annotated[int | None, typer.Option(help="names the random numbers of the run")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
    skip_bad: SkipBad = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="begin anew: removes the run that is there (whose settings stay without --data)"
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a method on data into a run directory."""
    from diffrep import config, runs
    from diffrep.training import main_process

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
    known = out_ / runs.SETTINGS
    if config_ is not None:
        settings = config.load(config_, changes)
    elif known.is_file() and not (restart and data):
        settings = config.load(known, changes)
    else:
        settings = config.override(config.Settings(), changes)
    run = runs.train(settings, out_, restart)
    result = run.result
    assert result is not None
    facts = {
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
        print(json.dumps(facts))
    elif main_process() and not result.interrupted:
        if run.card.skipped:
            say(f"{run.card.skipped} files could not be read and were skipped.")
        if result.step == result.resumed > 0:
            say(f"Nothing is left to do: {out_} has had its budget of {settings.train.budget}; give a larger --budget.")
        speed = result.examples / max(result.seconds, 1e-9)
        say(
            f"{settings.method} on {run.card.source}: {result.examples:,} examples in {result.step:,} steps, "
            f"{result.seconds:.0f} s ({speed:,.0f} examples/s). `diffrep evaluate {out_}` measures it."
        )
    if result.interrupted:
        sys.exit(INTERRUPTED)


@app.command(epilog="Example: diffrep evaluate runs/a")
def evaluate(
    run: RunPath,
    levels: Annotated[int, typer.Option(min=1, help="noise levels for each test example")] = 8,
    flow: Annotated[int, typer.Option(min=0, help="also the flow's likelihood on so many examples (no code)")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a run on its whole test split: the bound, the rate, active units, probes -> RUN/metrics.json."""
    from diffrep import runs
    from diffrep.measures import evaluate as measure
    from diffrep.training import main_process

    loaded = runs.load(run, device)
    splits = loaded.splits()
    with progress() as update:
        metrics = measure(loaded, splits, levels, flow=flow, progress=update)
    if main_process():
        print(json.dumps(metrics)) if as_json else show_metrics(metrics)


@app.command(epilog="Example: diffrep profile runs/a")
def profile(
    run: RunPath,
    levels: Annotated[int, typer.Option(min=1, help="noise levels for each test example")] = 32,
    n: Annotated[int | None, typer.Option("-n", min=2, help="so many test examples, not the whole split")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Show what the code carries at each noise level, in nats -> RUN/profile.json and RUN/profile.png."""
    from diffrep import runs
    from diffrep.profile import profile as measure
    from diffrep.profile import sentences, table

    loaded = runs.load(run, device)
    with progress() as update:
        facts = measure(loaded, levels=levels, most=n, progress=update)
    if as_json:
        print(json.dumps(facts))
        return
    shown = Table(show_header=False, box=None)
    for row in table(facts):
        shown.add_row(*row)
    out.print(shown)
    say(" ".join(sentences(facts)))


@app.command(epilog="Example: diffrep encode runs/a photos/ -o codes.parquet")
def encode(
    run: RunPath,
    data: DataSource,
    output: Output,
    t: Annotated[float | None, typer.Option(min=0, max=1, help="noise level of a time-conditioned code")] = None,
    t_grid: Annotated[int | None, typer.Option("--t-grid", min=1, help="so many noise levels, even in (0, 1)")] = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the code of every example of a data set to Parquet, one row each; processes write a shard each."""
    from diffrep import runs, training
    from diffrep.embed import embed
    from diffrep.gallery import check_place
    from diffrep.inputs import examples_of

    if t is not None and t_grid is not None:
        raise UserError("--t and --t-grid both choose noise levels; give one of them.")
    check_place(output, ".parquet")
    loaded, here = runs.load(run, device), training.place(device)
    examples = examples_of(loaded, data, skip_bad)
    times: tuple[float, ...] = () if t is None else (t,)
    if t_grid is not None:
        times = tuple((i + 0.5) / t_grid for i in range(t_grid))
    with progress() as update:
        done = Count("encode", len(examples), update)
        path = embed(loaded.model, examples, output, times, here.part, here.parts, progress=done)
    facts = {"file": str(path), "examples": done.count, "dim": loaded.settings.code.dim}
    print(json.dumps(facts)) if as_json else say(f"{done.count:,} codes in {path}")


@app.command(epilog="Example: diffrep reconstruct runs/a digits -o out.png")
def reconstruct(
    run: RunPath,
    data: DataSource,
    output: Output,
    n: Annotated[int, typer.Option("-n", min=1, help="examples, spread over the data")] = 8,
    per_code: Annotated[
        int | None, typer.Option(min=1, help="decodings of each code, each from other noise (3)")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="from the example's own noise, found by inversion with heun")
    ] = False,
    sampler: Annotated[str | None, typer.Option(help="ancestral, ddim, dpm, heun or pc (dpm)")] = None,
    steps: Steps = 50,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw examples above their reconstructions from the code alone (or, exactly, from code and noise)."""
    import torch

    from diffrep import runs
    from diffrep.gallery import check_place, save_grid
    from diffrep.inputs import examples_of
    from diffrep.sample import step_named
    from diffrep.shapes import Draws

    if exact and (per_code is not None or sampler is not None):
        raise UserError("--exact walks back from the one noise of each example: leave out --per-code and --sampler.")
    check_place(output, ".png")
    step_named(sampler or "dpm")
    loaded = runs.load(run, device)
    examples = examples_of(loaded, data)
    index = torch.linspace(0, len(examples) - 1, min(n, len(examples))).long()
    where = loaded.device
    x, draws = examples.batch(index).x.to(where), Draws.of(seed, where)
    with progress() as update:
        update("reconstruct", 0, None)
        if exact:
            rows = [x, loaded.model.reconstruct_exactly(x, steps)]
        else:
            times = per_code or 3
            again = loaded.model.reconstruct(x, draws, sampler or "dpm", steps, times)
            rows = [x, *again.unflatten(0, (len(x), times)).transpose(0, 1)]
    save_grid(torch.cat(rows), output, columns=len(x))
    say(f"{len(x)} examples and their reconstructions in {output}")


@app.command(epilog="Example: diffrep sample runs/a -n 64 -o out.png")
def sample(
    run: RunPath,
    output: Output,
    n: Annotated[int | None, typer.Option("-n", min=1, help="how many (64)")] = None,
    sampler: Sampler = "dpm",
    steps: Steps = 50,
    codes: Annotated[
        Path | None, typer.Option(help="Parquet or .npy file of codes (n, d), in place of the prior: one example each")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw new examples: a code from the prior (or from a file), then the decoder."""
    from diffrep import runs
    from diffrep.gallery import check_place, save_grid
    from diffrep.inputs import read_codes
    from diffrep.sample import step_named
    from diffrep.shapes import Draws

    if codes is not None and n is not None:
        raise UserError("--codes gives one example for each code: leave out -n.")
    check_place(output, ".png")
    step_named(sampler)
    loaded = runs.load(run, device)
    where = loaded.device
    with progress() as update:
        update("sample", 0, None)
        if codes is None:
            x = loaded.model.sample(n or 64, Draws.of(seed, where), sampler, steps)
        else:
            z = read_codes(codes).to(where)
            x = loaded.model.decode(z, len(z), Draws.of(seed, where), sampler, steps)
    save_grid(x, output)
    say(f"{len(x)} samples in {output}")


@app.command(epilog="Example: diffrep interpolate runs/a 0 7 -o out.png")
def interpolate(
    run: RunPath,
    a: Annotated[str, typer.Argument(metavar="A", help="an image file, or the position of a test example")],
    b: Annotated[str, typer.Argument(metavar="B", help="the same")],
    output: Output,
    points: Annotated[int, typer.Option(min=2, help="pictures, both ends included")] = 8,
    sampler: Sampler = "dpm",
    steps: Steps = 50,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw the way from A to B: codes on the straight line between theirs, all from the same noise."""
    import torch

    from diffrep import runs
    from diffrep.gallery import check_place, save_grid
    from diffrep.inputs import one_example
    from diffrep.sample import step_named
    from diffrep.shapes import Draws

    check_place(output, ".png")
    step_named(sampler)
    loaded = runs.load(run, device)
    where = loaded.device
    from_a, from_b = (one_example(loaded, end).to(where) for end in (a, b))
    with progress() as update:
        update("interpolate", 0, None)
        x = loaded.model.interpolate(from_a, from_b, points, Draws.of(seed, where), sampler, steps)
    save_grid(torch.cat([from_a[None], x, from_b[None]]), output, columns=points + 2)
    say(f"A, {points} points from its code to B's, and B, in {output}")


@app.command(epilog="Example: diffrep study studies/alive-digits.toml -o results/alive")
def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="runs, axes, seeds, budget, what is measured")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the study; one that is there goes on")],
    data: Annotated[str | None, typer.Option(help="in place of the data that the file names")] = None,
    only: Annotated[str | None, typer.Option(help="the run of this name alone, with its twins")] = None,
    as_json: Json = False,
) -> None:
    """Make and measure a grid of runs, with twins without a code -> study.json, tables and figures in one folder."""
    from diffrep import plan
    from diffrep.results import table
    from diffrep.study import study as carry_out
    from diffrep.table import markdown

    found = carry_out(plan.read(file, data), output, only, say_aside, progress)
    print(json.dumps(found)) if as_json else say(markdown(table(found["runs"])))


@app.command(epilog="Example: diffrep methods --json")
def methods(as_json: Json = False) -> None:
    """List every method with one line and its paper."""
    from diffrep.recipes import METHODS

    if as_json:
        print(json.dumps([{"name": n, "summary": m.summary, "paper": m.paper} for n, m in METHODS.items()]))
        return
    table = Table("method", "what it is", "paper", box=None)
    for name, m in METHODS.items():
        table.add_row(name, m.summary, m.paper)
    out.print(table)


@app.command(epilog="Example: diffrep settings | grep code")
def settings(as_json: Json = False) -> None:
    """List every setting of `train --set` and `--config` with its default and its meaning."""
    from diffrep import config

    flat = {name: (config.value(config.Settings(), name), meaning) for name, meaning in config.names().items()}
    if as_json:
        print(json.dumps([{"name": n, "default": d, "meaning": m} for n, (d, m) in flat.items()]))
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
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Read a data set and say what diffrep sees: shape, levels, splits, labels, fingerprint. Changes nothing."""
    from dataclasses import asdict

    from diffrep import config, runs

    settings = config.override(config.Settings(), [f"data.source={source}"])
    if skip_bad:
        settings = config.override(settings, ["data.skip_bad=true"])
    card = asdict(runs.DataCard.of(runs.splits_of(settings)))
    card["scaling"] = card["scaling"] is not None
    if as_json:
        print(json.dumps(card))
        return
    show_facts(card)


@app.command(epilog="Example: diffrep doctor runs/a")
def doctor(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="a run whose code is looked at")] = None,
    as_json: Json = False,
) -> None:
    """Say whether the code of a run is alive, and why not; without RUN, what is installed and how fast it is here."""
    from diffrep.checkup import checkup
    from diffrep.doctor import examine

    facts: dict = examine() if run is None else checkup(run)
    if as_json:
        print(json.dumps(facts))
    elif run is None:
        show_facts(facts)
    else:
        say(" ".join(facts["sentences"]))


readouts.add_to(app)


def main() -> None:
    """The entry point: a user's mistake is one sentence and exit code 2, Ctrl-C one and 130."""
    warnings.formatwarning = lambda message, *_: f"diffrep: {' '.join(str(message).split())}\n"
    try:
        code = app(standalone_mode=False)
    except UserError as mistake:
        leave(str(mistake))
    except UsageError as mistake:
        text = usage(mistake)
        sys.exit(2) if text is None else leave(text)
    except OSError as error:
        if error.errno not in NO_PLACE:
            raise
        leave(f"{error.filename or 'a file'} cannot be written ({error.strerror}): free some space or pick another.")
    if code == INTERRUPTED:  # so typer reports Ctrl-C
        leave("interrupted; files are whole or absent.", INTERRUPTED)
    sys.exit(code or 0)
