"""What the log of a run says about its code: alive, dying, dead or unheard, why, and what to do."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from diffrep.config import Settings
from diffrep.methods.catalog import build
from diffrep.models.code_use import Health
from diffrep.runs.directory import read_card, settings_of
from diffrep.training import journal
from diffrep.training.journal import Line

WARM_UP = 100  # steps that are not judged
SETTLED = 300  # steps before a code that is not yet of use counts as ignored
WINDOW = 5  # logged lines that a judgement averages
MEMORY = 50  # logged lines that a decline is looked for in
DEAD = 0.5  # nats
ADVISED = 12  # nats that a remedy names
WHERE = {"start": "where the chain starts"} | {
    band: f"at the {band} noise levels" for band in ("coarse", "middle", "fine")
}  # parts of the noise axis


@dataclass(frozen=True)
class Finding:
    """One thing that the log shows at a step, in one sentence; serious: the code is, or will be, of no use.

    since: the first step from which on it was seen at every line; None where nobody looked.
    """

    name: str
    step: int
    sentence: str
    serious: bool
    since: int | None = None


@dataclass(frozen=True)
class Reading:
    """The mean of the last logged lines. rate, told, price, gap, gradient: None where the log does not say.

    told: nats by which codes tell the examples of a batch apart, which a batch of B shows up to log B of.
    price: what the loss charges for a nat. gap: nats that examples lose by each other's codes, gap_se its standard
    error over the lines, bands its share by noise level. gradient: norm at the encoder, decoder: at the decoder.
    """

    step: int
    rate: float | None
    told: float | None
    units: float | None
    variance: float | None
    price: float | None
    gap: float | None
    gap_se: float
    bands: dict[str, float]
    gradient: float | None
    decoder: float | None

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Reading:
        def mean(values: Iterable[float | None]) -> float | None:
            finite = _finite(values)
            return sum(finite) / len(finite) if finite else None

        watched = [cast(Health, line["watch"]) for line in lines]
        rate, charged = mean(w.get("rate_nats") for w in watched), mean(line["terms"].get("rate") for line in lines)
        gaps = _finite(w.get("gap_nats") for w in watched)
        spread = sum((g - sum(gaps) / len(gaps)) ** 2 for g in gaps)
        bands = {name: mean(line["watch"].get(f"gap_nats_{name}") for line in lines) for name in WHERE}
        return cls(
            step=lines[-1]["step"],
            rate=rate,
            told=mean(w.get("information_nats") for w in watched),
            units=mean(w.get("active_units") for w in watched),
            variance=mean(w.get("code_variance") for w in watched),
            price=charged / rate if rate and charged is not None else None,
            gap=mean(gaps),
            gap_se=math.sqrt(spread / max(len(gaps) - 1, 1) / max(len(gaps), 1)),
            bands={name: nats for name, nats in bands.items() if nats is not None},
            gradient=mean(line["norms"].get("encoder") for line in lines),
            decoder=mean(line["norms"].get("decoder") for line in lines),
        )


def reading(lines: Sequence[Line]) -> Reading | None:
    """The state of a code at the end of these lines of metrics.jsonl; None without a code, or too early to tell."""
    judged = [line for line in lines if line["step"] >= WARM_UP and _tells(line)][-WINDOW:]
    return Reading.of(judged) if len(judged) == WINDOW else None


def diagnose(lines: Sequence[Line], settings: Settings, target: float | None = None) -> list[Finding]:
    """What lines of metrics.jsonl (of which the last `MEMORY` count) show, the worst first; empty: nothing to judge.

    target: nats that training holds the rate at. Where nothing is wrong the one finding says that the code is alive.
    """
    lines = lines[-MEMORY:]
    now = reading(lines)
    if now is None:
        return []
    seen = (
        ("dead", True, _dead(now, settings, target)),
        ("dying", True, _dying(now, lines, settings, target)),
        ("ignored", True, _ignored(now, settings)),
        ("cut off", True, _cut_off(now)),
        ("says little", False, _says_little(now, settings)),
        ("off target", False, _off_target(now, target)),
        ("dropped", False, _dropped(settings)),
    )
    findings = [Finding(name, now.step, sentence, serious) for name, serious, sentence in seen if sentence]
    worst = findings[0].name if findings else ""
    if worst in ("dead", "ignored"):  # the rest follows
        findings = findings[:1]
    if any(finding.serious for finding in findings):
        return findings
    return [Finding("alive", now.step, _alive(now, target), False), *findings]


@dataclass(frozen=True)
class Checkup:
    """What the log of a run says about its code.

    verdict: "alive", "dead", ... (the name of the first finding), "no code" or "too early". numbers: what is behind.
    target: nats that training holds the rate at.
    """

    run: str
    method: str
    step: int
    verdict: str
    sentences: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    numbers: Reading | None = None
    target: float | None = None

    def written(self) -> dict[str, Any]:
        """As `diffrep doctor --json` says it."""
        facts = asdict(self)
        target = facts.pop("target")
        if self.numbers is not None:
            facts["numbers"]["target"] = target
        return facts


class Adviser:
    """Told each line as it is logged, it answers with a warning when something serious is first seen."""

    def __init__(self, settings: Settings, target: float | None = None):
        self.settings, self.target = settings, target
        self.lines: deque[Line] = deque(maxlen=MEMORY)
        self.told: set[str] = set()

    def __call__(self, line: Line) -> str | None:
        self.lines.append(line)
        found = diagnose([*self.lines], self.settings, self.target)
        new = [finding for finding in found if finding.serious and finding.name not in self.told]
        self.told |= {finding.name for finding in new}
        return " ".join(f"{finding.sentence}." for finding in new) or None


def checkup(directory: str | Path) -> Checkup:
    """What the log of a run says about its code.

    The run may still be training. Each finding says since which step it holds. UserError where there is no run.
    """
    directory = Path(directory)
    settings, card, lines = settings_of(directory), read_card(directory), journal.read(directory)
    model = build(settings, card.facts(), warn=False)
    step = lines[-1]["step"] if lines else 0
    if not model.has_code:
        said = f"{settings.method} has no code, so there is nothing that could die."
        return Checkup(str(directory), settings.method, step, "no code", (said,))
    findings = diagnose(lines, settings, model.target)
    if not findings:
        said = (
            f"It is too early to tell: the code is judged by {WINDOW} logged lines from step {WARM_UP} on, and this run"
            f" is at step {step} with a line every {settings.train.log_every} steps."
        )
        return Checkup(str(directory), settings.method, step, "too early", (said,))
    since = _since(findings, lines, settings, model.target)
    dated = tuple(replace(finding, since=since[finding.name]) for finding in findings)
    return Checkup(
        str(directory),
        settings.method,
        step,
        findings[0].name,
        tuple(_sentence(finding) for finding in dated),
        dated,
        reading(lines),
        model.target,
    )


def _dead(now: Reading, settings: Settings, target: float | None) -> str:
    if now.rate is None:
        if now.variance is None or now.variance > 1e-6:
            return ""
        said = f"the code is dead: it is the same for all examples at step {now.step}"
        l1 = settings.code.l1
        if l1:
            return f"{said}, because code.l1={l1:g} charges more for its size than it is worth; lower code.l1"
        return f"{said}; train again with a lower train.lr"
    if now.rate >= DEAD and now.units != 0:
        return ""
    what = f"rate {now.rate:.2g} nats" if now.rate < DEAD else f"no active unit at a rate of {now.rate:.2g} nats"
    return f"the code is dead: {what} at step {now.step}, {_price(now, settings, target)}"


def _dying(now: Reading, lines: Sequence[Line], settings: Settings, target: float | None) -> str:
    rates = [(r, line["step"]) for line in lines if _tells(line) and (r := line["watch"].get("rate_nats")) is not None]
    if now.rate is None or len(rates) < 2 * WINDOW or now.rate > min(3.0, 0.5 * (target or math.inf)):
        return ""
    best, step = max(rates)
    if now.rate > best / 4 or rates[-1][0] >= rates[-WINDOW][0]:
        return ""
    fall = f"its rate fell from {best:.2g} nats at step {step} to {now.rate:.2g} at step {now.step}"
    return f"the code is dying: {fall}, {_price(now, settings, target)}"


def _price(now: Reading, settings: Settings, target: float | None) -> str:
    """Why a rate is near zero, and what to do."""
    code = settings.code
    if target is not None:
        price = "" if now.price is None else f" and its price is down to {now.price:.2g}"
        return (
            f"although {target:.3g} nats are asked for{price}: the decoder does not need it; train it at the noise"
            " levels where a code helps (detail=high-noise), or start with anneal.factor=2 and anneal.steps=1000"
        )
    beta = 1.0 if code.beta is None else code.beta
    named = f"code.beta={beta:g}" if code.beta is not None else "a weight of 1"
    charge = beta if now.price is None else now.price
    if beta > 1:
        paid = f"{charge:,.0f}" if charge >= 10 else f"{charge:.2g}"
        return (
            f"because {named} charges {paid} for each nat, and a code can save its decoder no more than one; use"
            f" code.rate={ADVISED} in place of code.beta"
        )
    return (
        f"because {named} charges for each nat about all that it can save a good decoder; use code.rate={ADVISED}"
        + (" in place of code.beta" if code.beta is not None else "")
    )


def _ignored(now: Reading, settings: Settings) -> str:
    least = max(DEAD, 0.05 * (now.rate or 0.0))
    if now.gap is None or now.step < SETTLED or now.gap >= least or now.gap > 2 * now.gap_se:
        return ""
    paid = "" if now.rate is None else f" at a rate of {now.rate:.1f}"
    said = (
        f"the decoder ignores the code: shown each other's codes, examples lose {now.gap:.1f} \N{PLUS-MINUS SIGN}"
        f" {now.gap_se:.1f} nats{paid} at step {now.step}"
    )
    if settings.code.drop >= 0.5:
        return f"{said}, because code.drop={settings.code.drop:g} seldom shows it; use code.drop=0.1"
    return f"{said}; train it where a code helps (detail=high-noise), lower decoder.width, or train longer"


def _cut_off(now: Reading) -> str:
    if now.gradient is None or not now.decoder or now.gradient > 1e-6 * now.decoder:
        return ""
    return (
        f"no gradient reaches the encoder: its norm is {now.gradient:.1g} at step {now.step}, and {now.decoder:.1g} at"
        " the decoder; train again with a lower train.lr"
    )


def _off_target(now: Reading, target: float | None) -> str:
    if target is None or now.rate is None or target / 2 <= now.rate <= 1.5 * target:
        return ""
    side, price = ("above", "rises") if now.rate > target else ("below", "falls")
    now_at = "" if now.price is None else f", now {now.price:.2g},"
    return (
        f"the rate of {now.rate:.1f} nats is {side} the {target:.3g} that are asked for; its price{now_at} {price}"
        " until they are held, so train longer"
    )


def _says_little(now: Reading, settings: Settings) -> str:
    seen = math.log(max(2, settings.train.batch // settings.train.accumulate))  # what a batch can show
    if now.told is None or now.rate is None or now.told > min(now.rate / 3, 0.75 * seen):
        return ""
    return (
        f"about {now.told:.1f} of its {now.rate:.1f} nats tell examples apart, the rest is paid for nothing; use"
        " prior.kind=afterwards, or let coarse levels teach the code with code.detail=coarse"
    )


def _dropped(settings: Settings) -> str:
    drop = settings.code.drop
    if drop < 0.5:
        return ""
    return f"the code is withheld from {drop:.0%} of the examples; code.drop=0.1 is enough to learn to go without"


def _alive(now: Reading, target: float | None) -> str:
    parts = []
    if now.rate is not None:
        parts.append(f"rate {now.rate:.1f} nats" + ("" if target is None else f" ({target:.3g} are asked for)"))
    if now.told is not None:
        parts.append(f"at least {now.told:.1f} of them tell the examples of a batch apart")
    if now.units is not None:
        parts.append(f"{now.units:.0f} active units")
    if now.gap is not None:
        most = max(now.bands, key=lambda name: now.bands[name], default=None)
        where = "" if most is None else f", most {WHERE[most]}"
        parts.append(f"examples shown each other's codes lose {now.gap:.1f} nats{where}")
    return f"the code is alive at step {now.step}: " + ", ".join(parts)


def _tells(line: Line) -> bool:
    """Is this a line of a step that counted, of a model with a code?"""
    return "skipped" not in line and ("active_units" in line["watch"] or "rate_nats" in line["watch"])


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _sentence(finding: Finding) -> str:
    text, since = finding.sentence[0].upper() + finding.sentence[1:], finding.since
    old = finding.serious and since is not None and since < finding.step
    return f"{text}." + (f" It is so since step {since}." if old else "")


def _since(findings: list[Finding], lines: list[Line], settings: Settings, target: float | None) -> dict[str, int]:
    """The first step from which on each finding was seen at every line."""
    since = {finding.name: finding.step for finding in findings}
    held = set(since)
    for end in range(len(lines) - 1, 0, -1):
        seen = {finding.name: finding.step for finding in diagnose(lines[max(0, end - MEMORY) : end], settings, target)}
        held &= set(seen)
        since |= {name: seen[name] for name in held}
        if not held:
            break
    return since
