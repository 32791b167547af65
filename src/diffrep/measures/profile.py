"""The measurements of `diffrep profile`, their file and their picture."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diffrep.amounts import amount, plus_minus
from diffrep.data import Examples, Splits
from diffrep.evaluation import information
from diffrep.evaluation.information import Profile, denoisings, mutual_information, profile_over_times
from diffrep.files import write_bytes
from diffrep.measures.asked import asked
from diffrep.measures.profile_figure import Denoisings, levels_to_show, picture
from diffrep.progress import Progress, counting
from diffrep.runs.records import PICTURES, PROFILE
from diffrep.runs.results import Between, Carried, Curve, ProfileFile, RateUse
from diffrep.runs.run import Run
from diffrep.shapes import Draws, mean_and_error

PICTURED = 2  # examples in the picture
TIMES = 10  # times at which a time-conditioned code is profiled


def profile(
    run: Run,
    splits: Splits | None = None,
    levels: int = 32,
    most: int | None = None,
    progress: Progress = lambda what, done, of: None,
) -> ProfileFile:
    """Nats that the code of a run carries at each noise level -> RUN/profile.json, RUN/profile.png, and returned.

    Over the test split, or `most` examples evenly chosen from it. UserError: no code, or no denoising without it.
    """
    information.profiled(run.model)
    test, options = (splits or run.splits()).test, asked(profile, levels=levels, most=most)
    if most is not None and most < len(test):
        test = test.subset(test.evenly(most))
    measured = information.profile(run.model, test, levels, progress=counting("profile", len(test), progress))
    result: ProfileFile = {
        "method": run.settings.method,
        "data": run.card.source,
        "examples": len(test),
        "levels": levels,
        "protocol": information.PROTOCOL,
        **_numbers(measured),
        **_code(run, test, measured),
        "options": options,
    }
    rows: list[tuple[float, Profile]] = []
    if run.model.timed:
        times = [(i + 0.5) / TIMES for i in range(TIMES)]
        count = counting("codes of other times", len(test), progress)
        profiles = profile_over_times(run.model, test, times, levels, progress=count)
        rows = list(zip(_log_snrs(run, times), profiles, strict=True))
        result["over_times"] = [
            {"t": t, "log_snr_of_code": at, **_curve(of_time)} for t, (at, of_time) in zip(times, rows, strict=True)
        ]
    drawn = picture(measured, sentences(result), _denoised(run, test, measured), rows)
    write_bytes(run.directory / PICTURES[PROFILE], drawn)
    return run.keep(PROFILE, result)


def sentences(result: ProfileFile) -> list[str]:
    """The result in words: nats that the code carries, its rate, and a warning if the first exceeds I(x; z)."""
    nats, error, rate = result["integral_nats"], result["integral_se"], result["rate_nats"]
    if nats < 2 * error or nats < 0.005:
        text = f"The decoder does not use the code: it carries {nats:.2f} \N{PLUS-MINUS SIGN} {error:.2f} nats"
        text += "" if rate is None else f" of the {rate:.1f} that it costs"
    else:
        peak = f"{result['peak_log_snr']:.1f}".replace("-", "\N{MINUS SIGN}")
        text = f"The code carries {nats:.1f} \N{PLUS-MINUS SIGN} {error:.1f} nats, most at log-SNR {peak}"
        text += f" and {result['start_nats']:.1f} of them where its chain starts" if result["start_nats"] else ""
        if rate is not None:
            text += f": it uses {result['used_share']:.0%} of the {rate:.1f} that it costs"
    information = result["mutual_information"]
    if information is None or nats - information["upper"] <= 2 * (error + information["upper_se"]):
        return [text + "."]
    return [
        text + ".",
        f"The code can hold at most {information['upper']:.1f} nats. The other {result['excess_nats']:.1f} are no"
        " information: without its code, this decoder denoises worse than it could.",
    ]


def table(result: ProfileFile) -> list[tuple[str, str]]:
    """The rows that the command prints."""
    low, high = result["log_snr_ends"]
    carried = _pair(result["integral_nats"], result["integral_se"])
    by_start = _pair(result["start_nats"], result["start_se"])
    start = f" and, {by_start} of them, by its start" if result["start_nats"] else ""
    rows = [("carried", f"{carried} nats between log-SNR {low:.1f} and {high:.1f}{start}")]
    if result["rate_nats"] is None:
        rows.append(("rate", f"none: {result['no_rate']}"))
    else:
        used = f"{plus_minus(result['used_share'] or 0.0, result['used_share_se'], '.1%')} of it used"
        rows.append(("rate", f"{result['rate_nats']:.2f} nats, {used}"))
    if result["active_units"] is not None:
        rank = f"effective rank {result['effective_rank']:.1f}, which is no proof of a good code"
        rows.append(("numbers", f"active in the code: {result['active_units']}; {rank}"))
    if result["excess_nats"] and result["excess_se"] is not None:
        beyond = _pair(result["excess_nats"], result["excess_se"])
        rows.append(("beyond I(x; z)", f"{beyond} nats: worse without its code"))
    for bounds, words in ((result["mutual_information"], "I(x; z)"), (result["aggregate_gap"], "KL(q(z) || p(z))")):
        if bounds is not None:
            lower, upper = _pair(bounds["lower"], bounds["lower_se"]), _pair(bounds["upper"], bounds["upper_se"])
            rows.append((words, f"at least {lower}, at most {upper} nats"))
    examples = (
        f"{amount(result['examples'], 'test example')}, {amount(result['levels'], 'noise level')} each, EMA weights"
    )
    return [*rows, ("measured on", f"{examples}, {result['protocol']}")]


def _numbers(profile: Profile) -> Carried:
    (integral, error), (start, start_error) = profile.integral(), mean_and_error(profile.start_gains)
    half = profile.width / 2
    return {
        **_curve(profile),
        "log_snr_ends": [float(profile.log_snr[0]) - half, float(profile.log_snr[-1]) + half],
        "integral_nats": integral,
        "integral_se": error,
        "start_nats": start,
        "start_se": start_error,
        "peak_log_snr": profile.peak,
        "active_units": profile.active_units,
        "effective_rank": profile.effective_rank,
    }


def _curve(profile: Profile) -> Curve:
    return {
        "log_snr": profile.log_snr.tolist(),
        "nats_per_log_snr": profile.nats_per_log_snr.tolist(),
        "se": profile.se.tolist(),
    }


def _code(run: Run, test: Examples, profile: Profile) -> RateUse:
    """Rate, I(x; z) and KL(q(z) || p(z)); all None, with the reason, where the rate is not finite.

    The upper bound of I(x; z) is the smaller of two: leave-one-out, and the rate.
    """
    if profile.rates is None:
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
    information, rates = mutual_information(run.model, test, codes_per_example=4), profile.rates.double()
    by_rate = float(rates.mean()) < float(information.upper.mean())
    upper = rates if by_rate else information.upper
    (share, error), (excess, excess_error) = profile.used_share(upper), profile.excess(upper)
    return {
        "rate_nats": profile.rate_nats,
        "used_share": share,
        "used_share_se": error,
        "excess_nats": excess,
        "excess_se": excess_error,
        "mutual_information": {
            **_between(information.lower, upper),
            "upper_from": "rate" if by_rate else "leave-one-out",
        },
        "aggregate_gap": _between(*replace(information, upper=upper).gap(rates)),
    }


def _between(lower: Tensor, upper: Tensor) -> Between:
    (low, low_error), (high, high_error) = mean_and_error(lower), mean_and_error(upper)
    return {"lower": low, "lower_se": low_error, "upper": high, "upper_se": high_error}


def _denoised(run: Run, test: Examples, profile: Profile) -> Denoisings | None:
    """A few examples of the split at the noise levels where the code helps; None for data that is not pictures."""
    if len(run.card.shape) != 3 or run.card.shape[0] not in (1, 3):
        return None
    index = torch.linspace(0, len(test) - 1, PICTURED + 2)[1:-1].long()
    some, log_snr = test.batch(index).to(run.device), levels_to_show(profile)
    return Denoisings(log_snr, some.x, *denoisings(run.model, some.x, log_snr, Draws.of(0, run.device), some.covariate))


def _log_snrs(run: Run, times: list[float]) -> list[float]:
    return information.profiled(run.model).noise.log_snr(torch.tensor(times, device=run.device)).tolist()


def _pair(value: float, error: float) -> str:
    return plus_minus(value, error, ".2f")
