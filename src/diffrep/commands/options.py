"""The arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="directory of a run, as made by `diffrep train --out`")]
SharedRun = Annotated[  # of commands that leave the run as it is
    str, typer.Argument(metavar="RUN", help="directory of a run, or its name on the Hugging Face hub, such as org/name")
]
DataSource = Annotated[str, typer.Argument(metavar="DATA", help="name of a data set, folder, file, or hub name")]
Moved = Annotated[
    str | None, typer.Option("--data", metavar="DATA", help="where the data of the run lies now, if it has moved")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="file to write")]
Examples = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="a .png grid; .npy, .npz, .csv or .parquet in the units of the data; or a folder of PNGs"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON for machines")]
Seed = Annotated[int, typer.Option(help="seed of the random numbers")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Sampler = Annotated[str | None, typer.Option(help="ancestral, cas, ddim, dpm, heun, pc or sde-dpm (sde-dpm)")]
Steps = Annotated[int | None, typer.Option(min=1, help="steps of the sampler (20; 10 of heun and pc)")]
Spacing = Annotated[str | None, typer.Option(help="what the steps are even in: log-snr, time or edm (log-snr)")]
CodeTime = Annotated[
    float | None, typer.Option("--t", min=0, max=1, help="t of a time-conditioned code: 0 is data, 1 is noise")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="go on without files that cannot be read, and count them")]
