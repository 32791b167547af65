"""Output of the command line: lines, tables, and progress bars after two seconds."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from diffrep.amounts import amount, plus_minus
from diffrep.files import plain
from diffrep.probes.overlap import sentence as overlaps

if TYPE_CHECKING:  # they import torch and NumPy
    from diffrep.probes.result import Result
    from diffrep.runs.results import Metrics

out, err = Console(emoji=False, markup=False), Console(stderr=True, emoji=False, markup=False)  # names are as they are

PATIENCE = 2.0  # seconds before a bar appears
EVERY = 30.0  # seconds between two lines of progress where there is no terminal

Update = Callable[[str, int, int | None], None]  # name of the work, how many are done, of how many (None: unknown)


def say(text: str) -> None:
    """A line on stdout, unchanged: brackets are no markup, and long lines are not wrapped."""
    out.print(text, highlight=False, soft_wrap=True)


def say_next(*steps: tuple[str, str]) -> None:
    """Next steps: commands, and their effects."""
    width = max(len(command) for command, _ in steps)
    for command, does in steps:
        say(f"  {command.ljust(width)}   {does}")


def hush(quiet: bool) -> None:
    """Quiet: nothing but warnings and errors, no bars; what `--json` prints stays."""
    out.quiet = quiet
    if quiet:
        os.environ["TTY_COMPATIBLE"] = "0"  # rich: no terminal, so no bars


def say_aside(text: str) -> None:
    """A line on stderr."""
    err.print(f"diffrep: {text}", highlight=False, soft_wrap=True)


def say_json(content: object) -> None:
    """JSON for machines; null for what is not a number."""
    print(json.dumps(plain(content), allow_nan=False))


class Count:
    """Adds up examples done and shows them."""

    def __init__(self, what: str, total: int, update: Update):
        self.what, self.total, self.update, self.count = what, total, update, 0

    def __call__(self, more: int) -> None:
        self.count += more
        self.update(self.what, self.count, self.total)


@contextmanager
def progress() -> Iterator[Update]:
    """A progress bar with time left on a terminal, once two seconds have passed; elsewhere a line every half minute."""
    if not err.is_terminal:
        yield _lines()
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def update(what: str, done: int, of: int | None) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=of)
        bar.update(tasks[what], completed=done, total=of, visible=done != of)  # what is done makes room

    patience = threading.Timer(PATIENCE, bar.start)  # a timer, since one call may take longer
    patience.daemon = True
    patience.start()
    try:
        yield update
    finally:
        patience.cancel()
        patience.join()
        bar.stop()


def _lines() -> Update:
    """A line of progress at most every half minute; none where one is to be quiet."""
    last = time.monotonic()

    def update(what: str, done: int, of: int | None) -> None:
        nonlocal last
        if out.quiet or time.monotonic() - last < EVERY:
            return
        last = time.monotonic()
        say_aside(what if of is None else f"{what}: {done:,} of {of:,}")

    return update


def show_pairs(pairs: dict) -> None:
    """A line for each pair: its name in words, and its value."""
    table = Table(show_header=False, box=None)
    for name, value in pairs.items():
        table.add_row(name.replace("_", " "), in_words(value))
    out.print(table)


def in_words(value: object) -> str:
    """A value as a person reads it: no brackets and no words of Python, "none" for nothing."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(item)}" for name, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value) if value not in (None, "") else "none"


def show_reading(lines: list[tuple[str, str, str]]) -> None:
    """How data is read: a line for each decision, those that were guessed marked, in words that are never markup."""
    say("")
    width = max((len(name) for name, _, _ in lines), default=0)
    for name, value, note in lines:
        say(f" {name.ljust(width)}  {value}" + (f"   ({note})" if note else ""))


def show_rows(rows: Sequence[Sequence[str]], head: bool = True) -> None:
    """A table of words; its first row is the head, unless it has none."""
    table = Table(*rows[0], box=None) if head else Table(show_header=False, box=None)
    for row in rows[1:] if head else rows:
        table.add_row(*row)
    out.print(table)


def show_metrics(metrics: Metrics) -> None:
    """The bound with its terms and error, probes, the number of examples and the protocol."""
    table = Table(show_header=False, box=None)
    bound = metrics["bound"]
    if bound is None:
        table.add_row("bound", f"none: {metrics['no_bound']}")
        if (cost := metrics.get("denoising")) is not None:
            for name, value in (("with code", cost["with_code"]), ("without code", cost["without_code"])):
                if value is not None:
                    table.add_row(f"denoising {name}", f"{value:.4f} nats/dim, which is not a bound")
    else:
        table.add_row(bound["unit"], Text(plus_minus(bound["bits_per_dim"], bound["bits_per_dim_se"]), "bold"))
        decoder = f"diffusion {bound['diffusion']:.4f}  prior {bound['prior']:.4f}"
        table.add_row("of which", f"{decoder}\nreconstruction {bound['reconstruction']:.4f}  rate {bound['rate']:.4f}")
        if "monte_carlo_se" in bound:
            errors = f"{bound['sample_se']:.4f} of the split as a sample"
            table.add_row("+- is", f"{errors}, {bound['monte_carlo_se']:.4f} of random noise levels and codes")
        if metrics["active_units"] is not None:
            units = amount(metrics["active_units"], "active unit")
            table.add_row("code", f"rate {metrics['rate_nats']:.2f} nats, {units}")
    if "worse_than_even" in metrics:
        table.add_row("mind", metrics["worse_than_even"])
    if "bound_in_steps" in metrics:
        chain = metrics["bound_in_steps"]
        bits = f"{plus_minus(chain['bits_per_dim'], chain['bits_per_dim_se'])}   diffusion {chain['diffusion']:.4f}"
        table.add_row(f"in {amount(chain['steps'], 'step')}", f"{bits}   ({chain['protocol']})")
    if "flow" in metrics:
        f = metrics["flow"]
        table.add_row(
            "probability flow",
            f"{plus_minus(f['bits_per_dim'], f['bits_per_dim_se'])} bits/dim on {amount(f['examples'], 'example')},"
            f" {amount(f['steps'], 'step')}, dequantisation: {f['dequantisation']}",
        )
    if "refined" in metrics:
        r = metrics["refined"]
        table.add_row(
            "refined codes",
            f"{plus_minus(r['bits_per_dim'], r['bits_per_dim_se'])} bits/dim, rate {r['rate_nats']:.2f} nats; the"
            f" encoder loses at least {plus_minus(r['gap_nats'], r['gap_nats_se'], '.2f')} nats on"
            f" {amount(r['examples'], 'example')}   ({r['protocol']})",
        )
    if "no_refined" in metrics:
        table.add_row("refined codes", f"none: {metrics['no_refined']}")
    p = metrics["probes"]
    if p:
        for name, result in (("linear", p["linear_protocol"]), ("knn", p["knn_protocol"])):
            table.add_row(f"{name} probe", _accuracy(result, metrics["examples"]))
    if warning := overlaps(p.get("overlap", 0), metrics["examples"]):
        table.add_row("mind", warning)
    if "no_probe" in metrics:
        table.add_row("linear probe", f"none: {metrics['no_probe']}")
    table.add_row(
        "measured on",
        f"{amount(metrics['examples'], 'test example')}, {amount(metrics['levels'], 'noise level')} each, EMA weights,"
        f" {metrics['protocol']}",
    )
    out.print(table)


def _accuracy(result: Result, examples: int) -> str:
    """With its error, what stands beside it, and on how many examples where not all have a label."""
    words = [plus_minus(result["accuracy"], result["se"])]
    if "balanced" in result:
        words.append(f"balanced {result['balanced']:.4f}")
    if result.get("auroc") is not None and not math.isnan(result["auroc"]):  # one class alone has none
        words.append(f"AUROC {result['auroc']:.4f}")
    if result["examples"] < examples:
        words.append(f"on {amount(result['examples'], 'example')} with a label")
    return f"{', '.join(words)}   ({result['protocol']})"


def usage(mistake: typer.BadParameter) -> str | None:
    """One sentence about a wrong command line; None where it was empty and help was shown."""
    context, text = mistake.ctx, mistake.format_message()
    text = " ".join(text.split()).rstrip(".")
    stop = "" if text.endswith("?") else "."
    return f"{text}{stop} See `{context.command_path if context else 'diffrep'} --help`." if text else None


def leave(sentence: str, code: int = 2) -> NoReturn:
    """Print one sentence and exit."""
    print(f"diffrep: {sentence}".replace("\n", " "), file=sys.stderr)
    sys.exit(code)
