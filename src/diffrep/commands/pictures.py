"""Commands that make examples: reconstructions, samples, the way between two; as a picture, arrays or a table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from diffrep.amounts import amount
from diffrep.commands.console import progress, say
from diffrep.commands.options import DataSource, Device, Examples, Moved, Sampler, Seed, SharedRun, Spacing, Steps
from diffrep.errors import UserError


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: diffrep reconstruct runs/a digits -o out.png")(reconstruct)
    app.command(epilog="Example: diffrep sample runs/a -n 64 -o out.png")(sample)
    app.command(epilog="Example: diffrep interpolate runs/a 0 7 -o out.png")(interpolate)


def reconstruct(
    run: SharedRun,
    data: DataSource,
    output: Examples,
    n: Annotated[int, typer.Option("-n", min=1, help="examples, evenly chosen from the data")] = 8,
    per_code: Annotated[int | None, typer.Option(min=1, help="decodings of each code, each from new noise (3)")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="from the example's own noise, found by inversion with heun")
    ] = False,
    sampler: Sampler = None,
    steps: Steps = None,
    spacing: Spacing = None,
    seed: Annotated[int | None, typer.Option(help="seed of the random numbers (0)")] = None,
    device: Device = "auto",
) -> None:
    """Reconstruct examples from the code alone (or, exactly, from code and noise): a picture, .npy, .npz, .csv, ..."""
    import torch

    from diffrep import runs
    from diffrep.commands.gallery import save_grid
    from diffrep.commands.outputs import check_output, is_grid, write
    from diffrep.denoising.samplers import sampling_of
    from diffrep.runs.inputs import examples_of

    if exact and (per_code, sampler, spacing, seed) != (None, None, None, None):
        raise UserError(
            "--exact decodes from the noise of the example itself: leave out --per-code, --sampler, --spacing and"
            " --seed."
        )
    loaded = runs.load(run, device)
    check_output(output, loaded)
    sampling = sampling_of(loaded.model.by_steps, sampler, steps, spacing)
    if per_code is not None and not loaded.model.by_steps:
        raise UserError("this model decodes a code at once, the same each time: leave out --per-code.")
    examples = examples_of(loaded, data)
    index = torch.linspace(0, len(examples) - 1, min(n, len(examples))).long()
    where = loaded.device
    some, how = examples.batch(index).to(where), asdict(sampling)
    x, covariate = some.x, some.covariate
    with progress() as update:
        update("reconstruct", 0, None)
        if exact:
            rows = [x, loaded.model.reconstruct_exactly(x, sampling.steps, covariate)]
        else:
            several = loaded.model.by_steps and is_grid(output)  # without a sampler all decodings are the same
            times = per_code or (3 if several else 1)
            again = loaded.model.reconstruct(x, per_code=times, seed=seed or 0, covariate=covariate, **how)
            rows = [x, *again.unflatten(0, (len(x), times)).transpose(0, 1)]
    if is_grid(output):
        save_grid(torch.cat(rows), output, columns=len(x))
    else:
        write(loaded, {"reconstruction": torch.cat(rows[1:]), "original": x}, output, covariate)
    say(f"{amount(len(x), 'example')} and {amount(len(rows) - 1, 'reconstruction')} of each in {output}")


def sample(
    run: SharedRun,
    output: Examples,
    n: Annotated[int | None, typer.Option("-n", min=1, help="how many (64)")] = None,
    sampler: Sampler = None,
    steps: Steps = None,
    spacing: Spacing = None,
    codes: Annotated[
        Path | None, typer.Option(help="Parquet or .npy file of codes (n, d), in place of the prior: one example each")
    ] = None,
    t_init: Annotated[
        float | None, typer.Option("--t-init", help="begin at this t below 1, from the distribution of --start")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="distribution that is noised to --t-init: gaussian, uniform or noise (gaussian)")
    ] = None,
    seed: Seed = 0,
    data: Moved = None,
    device: Device = "auto",
) -> None:
    """Draw new examples: a code is drawn from the prior (or read from a file) and decoded from noise."""
    from diffrep import runs
    from diffrep.commands.gallery import save_grid
    from diffrep.commands.outputs import check_output, is_grid, write
    from diffrep.data.feature_files import read_codes
    from diffrep.denoising.samplers import sampling_of
    from diffrep.models.warm_start import fitted, sample_from

    if codes is not None and n is not None:
        raise UserError("--codes gives one example for each code: leave out -n.")
    if codes is not None and t_init is not None:
        raise UserError("--t-init draws its codes from the prior: leave out --codes.")
    if start is not None and t_init is None:
        raise UserError("--start is for sampling that begins below t = 1: give --t-init too, such as 0.6.")
    loaded = runs.load(run, device, data)
    check_output(output, loaded)
    sampling = sampling_of(loaded.model.by_steps, sampler, steps, spacing)
    model, where, n = loaded.model, loaded.device, n or 64
    with progress() as update:
        update("sample", 0, None)
        if t_init is not None:
            guess = fitted(start or "gaussian", loaded.splits().train, where)
            x = sample_from(guess, model, t_init, n, seed, sampling)
        elif codes is None:
            x = model.sample(n, seed=seed, **asdict(sampling))
        else:
            x = model.decode_each(read_codes(codes).to(where), seed, sampling)
    save_grid(x, output) if is_grid(output) else write(loaded, {"x": x}, output, model.covariates(len(x), seed))
    say(f"{amount(len(x), 'sample')} in {output}")


def interpolate(
    run: SharedRun,
    a: Annotated[str, typer.Argument(metavar="A", help="an image file, or the position of a test example")],
    b: Annotated[str, typer.Argument(metavar="B", help="the other end, in the same way")],
    output: Examples,
    points: Annotated[int, typer.Option(min=2, help="pictures, both ends included")] = 8,
    sampler: Sampler = None,
    steps: Steps = None,
    spacing: Spacing = None,
    seed: Seed = 0,
    data: Moved = None,
    device: Device = "auto",
) -> None:
    """Draw the steps from A to B: codes on the line between their codes, all decoded from the same noise."""
    import torch

    from diffrep import runs
    from diffrep.commands.gallery import save_grid
    from diffrep.commands.outputs import check_output, is_grid, write
    from diffrep.denoising.samplers import SMOOTH, sampling_of
    from diffrep.runs.inputs import one_example

    loaded = runs.load(run, device, data)
    check_output(output, loaded)
    sampling = sampling_of(loaded.model.by_steps, sampler, steps, spacing, SMOOTH)
    where = loaded.device
    one, other = (one_example(loaded, end).to(where) for end in (a, b))
    from_a, from_b = one.x[0], other.x[0]
    with progress() as update:
        update("interpolate", 0, None)
        how = asdict(sampling)
        x = loaded.model.interpolate(from_a, from_b, points, seed, covariate=one.covariate, **how)
    whole = torch.cat([from_a[None], x, from_b[None]])
    if is_grid(output):
        save_grid(whole, output, columns=points + 2)
    else:
        ends = [end.covariate for end in (one, other) if end.covariate is not None]
        beside = torch.cat([*ends[:1] * (points + 1), *ends[1:]]) if len(ends) == 2 else None
        write(loaded, {"x": whole}, output, beside)
    say(f"A, {points} points from its code to B's, and B, in {output}")
