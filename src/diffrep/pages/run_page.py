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
from diffrep.pages.page import Page
from diffrep.pages.run_files import RunFiles
from diffrep.pages.run_pictures import LEVELS, RunPictures, draw_all
from diffrep.progress import Progress, silent
from diffrep.runs.records import REPORT

OF_THE_CODE = ("rate_nats", "active_units", "information_nats")  # numbers that say little of a run that is too short
SHARE = 0.01  # of the nats of a code that lie outside of the noise levels shown, on each side


def report(
    directory: str | Path,
    output: str | Path | None = None,
    splits: Splits | None = None,
    device: str = "auto",
    progress: Progress = silent,
    data: str | None = None,
) -> Path:
    """Write the report of a run, with its numbers and pictures, as one HTML file -> its path.

    output: by default RUN/report.html. splits: the run's data, where it was trained on an array in memory. data: where
    the data lies now, if it has moved. Nothing is measured: for missing numbers the page states the command. UserError
    where there is no run, or its data have changed.
    """
    files = RunFiles.of(directory)
    pictures, why = None, ""
    try:
        run = runs.load(directory, device, data)
        pictures = draw_all(run.model, splits or run.splits(), log_snrs_of(files), progress)
    except UserError as reason:
        why = f"There are no pictures: {str(reason).rstrip('.')}."
    path = Path(output) if output is not None else files.directory / REPORT
    write_bytes(path, page(files, pictures, why).html().encode())
    return path


def page(files: RunFiles, pictures: RunPictures | None, why: str = "") -> Page:
    """The page of a run, with its pictures; why: the reason where there are none."""
    judged = verdict(files)
    content = [
        sections.what(files),
        *sections.pictures(files, pictures, why),
        sections.information(files, pictures),
        sections.code_map(files, pictures),
        sections.probes(files),
        sections.bound(files),
        sections.units(files, pictures),
        sections.training(files),
        sections.again(files),
    ]
    return Page(
        title=files.directory.resolve().name,
        subtitle=f"{files.settings.method} on {files.data}",
        sections=content,
        sentences=[("Alive?", judged.alive), ("Knows", judged.knows), ("Costs", judged.costs)],
        mood={True: "good", False: "bad", None: ""}[judged.good],
        definitions=_headline(files),
    )


def log_snrs_of(files: RunFiles) -> torch.Tensor | None:
    """Log-SNRs (LEVELS,) between the first and the last hundredth of the nats of the code; None without a profile."""
    if not files.profile:
        return None
    at, nats = torch.tensor(files.profile["log_snr"]), torch.tensor(files.profile["nats_per_log_snr"])
    mass = nats.clamp(min=0).cumsum(0)
    low, high = at[0], at[-1]
    if float(mass[-1]) > 0:
        low, high = (at[int((mass / mass[-1] < share).sum())] for share in (SHARE, 1 - SHARE))
    return torch.linspace(float(low), float(high), LEVELS)


def _headline(files: RunFiles) -> list[tuple[str, str]]:
    form = {
        "bits_per_dim": ("bits/dim", "{:.3f}"),
        "rate_nats": ("rate, nats", "{:.1f}"),
        "active_units": ("active numbers", "{:.0f}"),
        "probe_linear": ("linear probe", "{:.1%}"),
        "information_nats": ("used by the decoder, nats", "{:.1f}"),
        "parameters": ("parameters", "{:,}"),
    }
    early = OF_THE_CODE if files.health.verdict == "too early" else ()
    return [
        (name, shape.format(value))
        for key, (name, shape) in form.items()
        if key not in early and (value := files.numbers.value(key)) is not None
    ]
