"""What the command line shows: progress where it takes longer than two seconds, and tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

out, err = Console(), Console(stderr=True)


class Count:
    """Adds up examples done and shows them."""

    def __init__(self, what: str, total: int, update):
        self.what, self.total, self.update, self.count = what, total, update, 0

    def __call__(self, more: int) -> None:
        self.count += more
        self.update(self.what, self.count, self.total)


@contextmanager
def progress(total: int) -> Iterator:
    """A progress bar with time left on a terminal, nothing elsewhere; shown once two seconds have passed."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    tasks: dict[str, TaskID] = {}
    began, started = time.monotonic(), False

    def update(what: str, done: int, of: int) -> None:
        nonlocal started
        if not started and time.monotonic() - began > 2:
            bar.start()
            started = True
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=of)
        bar.update(tasks[what], completed=done, total=of)

    try:
        yield update
    finally:
        if started:
            bar.stop()


def show_metrics(metrics: dict) -> None:
    """The parts add up, an error bar, the number of examples and the protocol."""
    table = Table(show_header=False, box=None)
    bound = metrics["bound"]
    if bound is None:
        table.add_row("bound", f"none: {metrics['no_bound']}")
        for name, value in (metrics.get("denoising") or {}).items():
            table.add_row(name.replace("_", " "), f"{value:.4f} bits/dim of denoising, not a bound")
    else:
        parts = "  ".join(f"{name} {bound[name]:.4f}" for name in ("diffusion", "prior", "reconstruction", "rate"))
        table.add_row(
            bound["unit"], f"[bold]{bound['bits_per_dim']:.4f}[/] +- {bound['bits_per_dim_se']:.4f}   {parts}"
        )
        if metrics["active_units"] is not None:
            table.add_row("code", f"rate {metrics['rate_nats']:.2f} nats, {metrics['active_units']} active units")
    if "linear" in metrics["probes"]:
        p = metrics["probes"]
        table.add_row(
            "linear probe", f"{p['linear']:.4f} +- {p['linear_se']:.4f}   ({p['linear_protocol']['protocol']})"
        )
    table.add_row(
        "measured on",
        f"{metrics['examples']:,} test examples, {metrics['levels']} noise levels each, EMA weights,"
        f" {metrics['protocol']}",
    )
    out.print(table)
