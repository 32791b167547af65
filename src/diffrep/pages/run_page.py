"""The report of a run: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

import torch

from diffrep import runs
from diffrep.data import Splits
from diffrep.errors import UserError
from diffrep.files import write_bytes
from diffrep.pages import sections
from diffrep.pages.judgement import verdict
from diffrep.pages.known import Known
from diffrep.pages.page import Page
from diffrep.pages.shown import LEVELS, Shown, shown
from diffrep.progress import Progress, silent
from diffrep.runs.records import REPORT

SHARE = 0.01  # of what a code carries that lies outside of the noise levels shown, on each side


def report(
    directory: str | Path,
    output: str | Path | None = None,
    splits: Splits | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Path:
    """Write all that is known of a run, and pictures of what it makes, as one HTML file -> its path.

    output: RUN/report.html where left out. splits: the run's data, where it was trained on an array in memory. Nothing
    is measured anew: what is missing stands there with its command. UserError where there is no run, or its data have
    changed.
    """
    known = Known.of(directory)
    seen, why = None, ""
    try:
        run = runs.load(directory, device)
        seen = shown(run.model, splits or run.splits(), levels_of(known), progress)
    except UserError as reason:
        why = f"There are no pictures: {str(reason).rstrip('.')}."
    path = Path(output) if output is not None else known.directory / REPORT
    write_bytes(path, page(known, seen, why).html().encode())
    return path


def page(known: Known, seen: Shown | None, why: str = "") -> Page:
    """The page of a run, with its pictures where there are any (why: not)."""
    said = verdict(known)
    parts = [
        sections.what(known),
        *sections.pictures(known, seen, why),
        sections.information(known, seen),
        sections.code_map(known, seen),
        sections.probes(known),
        sections.bound(known),
        sections.units(known, seen),
        sections.training(known),
        sections.again(known),
    ]
    return Page(
        title=known.directory.resolve().name,
        subtitle=f"{known.settings.method} on {known.data}",
        sections=parts,
        sentences=[("Alive?", said.alive), ("Knows", said.knows), ("Costs", said.costs)],
        mood={True: "good", False: "bad", None: ""}[said.good],
        facts=_headline(known),
    )


def levels_of(known: Known) -> torch.Tensor | None:
    """Log-SNRs (LEVELS,) between which the code carries all but its outer hundredths; None without a profile."""
    if not known.profile:
        return None
    at, nats = torch.tensor(known.profile["log_snr"]), torch.tensor(known.profile["nats_per_log_snr"])
    mass = nats.clamp(min=0).cumsum(0)
    low, high = at[0], at[-1]
    if float(mass[-1]) > 0:
        low, high = (at[int((mass / mass[-1] < share).sum())] for share in (SHARE, 1 - SHARE))
    return torch.linspace(float(low), float(high), LEVELS)


def _headline(known: Known) -> list[tuple[str, str]]:
    form = {
        "bits_per_dim": ("bits/dim", "{:.3f}"),
        "rate_nats": ("rate, nats", "{:.1f}"),
        "active_units": ("active numbers", "{:.0f}"),
        "probe_linear": ("linear probe", "{:.1%}"),
        "information_nats": ("used by the decoder, nats", "{:.1f}"),
        "parameters": ("parameters", "{:,}"),
    }
    return [
        (name, shape.format(value))
        for key, (name, shape) in form.items()
        if (value := known.numbers.value(key)) is not None
    ]
