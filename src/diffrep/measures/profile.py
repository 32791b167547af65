"""Everything that `diffrep profile` says about a run, its file and its picture."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diffrep.data import Examples, Splits
from diffrep.evaluation import information
from diffrep.evaluation.information import Profile, denoisings, mutual_information, profile_over_times
from diffrep.files import write_bytes
from diffrep.measures.profile_figure import Denoisings, levels_to_show, picture
from diffrep.plus_minus import plus_minus
from diffrep.progress import Progress, counting
from diffrep.runs.records import PICTURES, PROFILE
from diffrep.runs.results import Between, Carried, Curve, Paid, ProfileFile
from diffrep.runs.run import Run
from diffrep.shapes import Draws, mean_and_error

PICTURED = 2  # examples in the picture
TIMES = 10  # codes of a time-conditioned code


def profile(
    run: Run,
    splits: Splits | None = None,
    levels: int = 32,
    most: int | None = None,
    progress: Progress = lambda what, done, of: None,
) -> ProfileFile:
    """What the code of a run carries at each noise level -> RUN/profile.json, RUN/profile.png, and returned.

    Over the test split, or `most` examples spread over it. UserError where there is no code, or no branch without it.
    """
    information.profiled(run.model)
    test = (splits or run.splits()).test
    if most is not None and most < len(test):
        test = test.subset(test.evenly(most))
    seen = information.profile(run.model, test, levels, progress=counting("profile", len(test), progress))
    facts: ProfileFile = {
        "method": run.settings.method,
        "data": run.card.source,
        "examples": len(test),
        "levels": levels,
        "protocol": information.PROTOCOL,
        **_numbers(seen),
        **_code(run, test, seen),
    }
    rows: list[tuple[float, Profile]] = []
    if run.model.timed:
        times = [(i + 0.5) / TIMES for i in range(TIMES)]
        count = counting("codes of other times", len(test), progress)
        profiles = profile_over_times(run.model, test, times, levels, progress=count)
        rows = list(zip(_log_snrs(run, times), profiles, strict=True))
        facts["over_times"] = [
            {"t": t, "log_snr_of_code": at, **_curve(of_time)} for t, (at, of_time) in zip(times, rows, strict=True)
        ]
    drawn = picture(seen, sentences(facts), _denoised(run, test, seen), rows)
    write_bytes(run.directory / PICTURES[PROFILE], drawn)
    return run.keep(PROFILE, facts)


def sentences(facts: ProfileFile) -> list[str]:
    """What the numbers say, in plain words: what the code carries and costs, and what to make of it."""
    nats, error, rate = facts["integral_nats"], facts["integral_se"], facts["rate_nats"]
    if nats < 2 * error or nats < 0.005:
        said = f"The decoder does not use the code: it carries {nats:.2f} \N{PLUS-MINUS SIGN} {error:.2f} nats"
        said += "" if rate is None else f" of the {rate:.1f} that it costs"
    else:
        peak = f"{facts['peak_log_snr']:.1f}".replace("-", "\N{MINUS SIGN}")
        said = f"The code carries {nats:.1f} \N{PLUS-MINUS SIGN} {error:.1f} nats, most at log-SNR {peak}"
        said += f" and {facts['start_nats']:.1f} of them where its chain starts" if facts["start_nats"] else ""
        if rate is not None:
            said += f": it uses {facts['used_share']:.0%} of the {rate:.1f} that it costs"
    found = facts["mutual_information"]
    if found is None or nats - found["upper"] <= 2 * (error + found["upper_se"]):
        return [said + "."]
    return [
        said + ".",
        f"That is {facts['excess_nats']:.1f} nats more than it can hold ({found['upper']:.1f}), which is no use: "
        "without its code, this decoder denoises "
        "worse than it could.",
    ]


def table(facts: ProfileFile) -> list[tuple[str, str]]:
    """The rows that the command line shows."""
    low, high = facts["log_snr_ends"]
    carried = _pair(facts["integral_nats"], facts["integral_se"])
    by_start = _pair(facts["start_nats"], facts["start_se"])
    start = f" and, {by_start} of them, by its start" if facts["start_nats"] else ""
    rows = [("carried", f"{carried} nats between log-SNR {low:.1f} and {high:.1f}{start}")]
    if facts["rate_nats"] is None:
        rows.append(("rate", f"none: {facts['no_rate']}"))
    else:
        used = f"{plus_minus(facts['used_share'] or 0.0, facts['used_share_se'], '.1%')} of it used"
        rows.append(("rate", f"{facts['rate_nats']:.2f} nats, {used}, {facts['active_units']} active units"))
    if facts["excess_nats"] and facts["excess_se"] is not None:
        beyond = _pair(facts["excess_nats"], facts["excess_se"])
        rows.append(("beyond I(x; z)", f"{beyond} nats: worse without its code"))
    for bounds, words in ((facts["mutual_information"], "I(x; z)"), (facts["aggregate_gap"], "KL(q(z) || p(z))")):
        if bounds is not None:
            lower, upper = _pair(bounds["lower"], bounds["lower_se"]), _pair(bounds["upper"], bounds["upper_se"])
            rows.append((words, f"at least {lower}, at most {upper} nats"))
    examples = f"{facts['examples']:,} test examples, {facts['levels']} noise levels each, EMA weights"
    return [*rows, ("measured on", f"{examples}, {facts['protocol']}")]


def _numbers(seen: Profile) -> Carried:
    (integral, error), (start, start_error) = seen.integral(), mean_and_error(seen.start_gains)
    half = seen.width / 2
    return {
        **_curve(seen),
        "log_snr_ends": [float(seen.log_snr[0]) - half, float(seen.log_snr[-1]) + half],
        "integral_nats": integral,
        "integral_se": error,
        "start_nats": start,
        "start_se": start_error,
        "peak_log_snr": seen.peak,
        "active_units": seen.active_units,
    }


def _curve(seen: Profile) -> Curve:
    return {
        "log_snr": seen.log_snr.tolist(),
        "nats_per_log_snr": seen.nats_per_log_snr.tolist(),
        "se": seen.se.tolist(),
    }


def _code(run: Run, test: Examples, seen: Profile) -> Paid:
    """Rate, I(x; z) and KL(q(z) || p(z)); all None, and why, where the rate is not finite.

    The upper bound of I(x; z) is the smaller of two: leave-one-out, and the rate.
    """
    if seen.rates is None:
        kind = "time-conditioned" if run.model.timed else "deterministic"
        return {
            "rate_nats": None,
            "used_share": None,
            "used_share_se": None,
            "excess_nats": None,
            "excess_se": None,
            "mutual_information": None,
            "aggregate_gap": None,
            "no_rate": f"a {kind} code has no finite rate",
        }
    found, rates = mutual_information(run.model, test, codes_per_example=4), seen.rates.double()
    by_rate = float(rates.mean()) < float(found.upper.mean())
    upper = rates if by_rate else found.upper
    (share, error), (excess, excess_error) = seen.used_share(upper), seen.excess(upper)
    return {
        "rate_nats": seen.rate_nats,
        "used_share": share,
        "used_share_se": error,
        "excess_nats": excess,
        "excess_se": excess_error,
        "mutual_information": {**_between(found.lower, upper), "upper_from": "rate" if by_rate else "leave-one-out"},
        "aggregate_gap": _between(*replace(found, upper=upper).gap(rates)),
    }


def _between(lower: Tensor, upper: Tensor) -> Between:
    (low, low_error), (high, high_error) = mean_and_error(lower), mean_and_error(upper)
    return {"lower": low, "lower_se": low_error, "upper": high, "upper_se": high_error}


def _denoised(run: Run, test: Examples, seen: Profile) -> Denoisings | None:
    """A few examples, spread over the split, at the noise levels where the code matters; None but for pictures."""
    if len(run.card.shape) != 3 or run.card.shape[0] not in (1, 3):
        return None
    index = torch.linspace(0, len(test) - 1, PICTURED + 2)[1:-1].long()
    x, log_snr = test.batch(index).x.to(run.device), levels_to_show(seen)
    return Denoisings(log_snr, x, *denoisings(run.model, x, log_snr, Draws.of(0, run.device)))


def _log_snrs(run: Run, times: list[float]) -> list[float]:
    return information.profiled(run.model).noise.log_snr(torch.tensor(times, device=run.device)).tolist()


def _pair(value: float, error: float) -> str:
    return plus_minus(value, error, ".2f")
