"""Diagnosis of a code from the log of its run: alive, dying, dead or ignored, why, and what to do."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from diffrep.amounts import amount
from diffrep.config import Settings
from diffrep.methods.catalog import build
from diffrep.models.code_use import Health
from diffrep.runs.directory import read_card, settings_of
from diffrep.training import journal
from diffrep.training.journal import Line

WARM_UP = 100  # steps that are not judged
SETTLED = 300  # steps before a code without use counts as ignored
WINDOW = 5  # logged lines that a judgement averages
MEMORY = 50  # logged lines in which a decline is detected
DEAD = 0.5  # nats
ADVISED = 12  # nats that a remedy names
WHERE = {"start": "where the chain starts"} | {
    band: f"at the {band} noise levels" for band in ("coarse", "middle", "fine")
}  # ranges of the noise axis


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
class CodeState:
    """The mean of the last logged lines. rate, told, price, gap, gradient: None where the log lacks them.

    told: nats by which codes tell the examples of a batch apart, at most log B for a batch of B.
    price: weight of the rate in the loss. gap: rise of the loss with codes of other examples, nats, gap_se its standard
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
    def of(cls, lines: Sequence[Line]) -> CodeState:
        def mean(values: Iterable[float | None]) -> float | None:
            finite = _finite(values)
            return sum(finite) / len(finite) if finite else None

        watched = [cast(Health, line["watch"]) for line in lines]
        rate, weighted = mean(w.get("rate_nats") for w in watched), mean(line["terms"].get("rate") for line in lines)
        gaps = _finite(w.get("gap_nats") for w in watched)
        squares = sum((g - sum(gaps) / len(gaps)) ** 2 for g in gaps)
        bands = {name: mean(line["watch"].get(f"gap_nats_{name}") for line in lines) for name in WHERE}
        return cls(
            step=lines[-1]["step"],
            rate=rate,
            told=mean(w.get("information_nats") for w in watched),
            units=mean(w.get("active_units") for w in watched),
            variance=mean(w.get("code_variance") for w in watched),
            price=weighted / rate if rate and weighted is not None else None,
            gap=mean(gaps),
            gap_se=math.sqrt(squares / max(len(gaps) - 1, 1) / max(len(gaps), 1)),
            bands={name: nats for name, nats in bands.items() if nats is not None},
            gradient=mean(line["norms"].get("encoder") for line in lines),
            decoder=mean(line["norms"].get("decoder") for line in lines),
        )


def code_state(lines: Sequence[Line]) -> CodeState | None:
    """The state of a code at the end of these lines of metrics.jsonl; None without a code, or too early to tell."""
    judged = [line for line in lines if line["step"] >= WARM_UP and _tells(line)][-WINDOW:]
    return CodeState.of(judged) if len(judged) == WINDOW else None


def diagnose(lines: Sequence[Line], settings: Settings, target: float | None = None) -> list[Finding]:
    """Findings in lines of metrics.jsonl (in the last `MEMORY` of them), the worst first; empty: nothing to judge.

    target: nats at which training holds the rate. Where nothing is wrong, the one finding says that the code is alive.
    """
    lines = lines[-MEMORY:]
    now = code_state(lines)
    if now is None:
        return []
    checks = (
        ("dead", True, _dead(now, settings, target)),
        ("dying", True, _dying(now, lines, settings, target)),
        ("ignored", True, _ignored(now, settings)),
        ("cut off", True, _cut_off(now)),
        ("says little", False, _says_little(now, settings)),
        ("off target", False, _off_target(now, target)),
        ("dropped", False, _dropped(settings)),
    )
    findings = [Finding(name, now.step, sentence, serious) for name, serious, sentence in checks if sentence]
    worst = findings[0].name if findings else ""
    if worst in ("dead", "ignored"):  # the rest follows
        findings = findings[:1]
    if any(finding.serious for finding in findings):
        return findings
    return [Finding("alive", now.step, _alive(now, target), False), *findings]


@dataclass(frozen=True)
class Checkup:
    """The state of a run's code, from its log.

    verdict: "alive", "dead", ... (the name of the first finding), "no code" or "too early". numbers: what is behind.
    target: nats that training holds the rate at.
    """

    run: str
    method: str
    step: int
    verdict: str
    sentences: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    numbers: CodeState | None = None
    target: float | None = None

    def written(self) -> dict[str, Any]:
        """The object that `diffrep doctor --json` prints."""
        content = asdict(self)
        target = content.pop("target")
        if self.numbers is not None:
            content["numbers"]["target"] = target
        return content


class Adviser:
    """Called with each line as it is logged; returns a warning when a serious finding occurs for the first time."""

    def __init__(self, settings: Settings, target: float | None = None):
        self.settings, self.target = settings, target
        self.lines: deque[Line] = deque(maxlen=MEMORY)
        self.warned: set[str] = set()

    def __call__(self, line: Line) -> str | None:
        self.lines.append(line)
        findings = diagnose([*self.lines], self.settings, self.target)
        new = [finding for finding in findings if finding.serious and finding.name not in self.warned]
        self.warned |= {finding.name for finding in new}
        return " ".join(f"{finding.sentence}." for finding in new) or None


def checkup(directory: str | Path) -> Checkup:
    """The state of a run's code, from its log.

    The run may still be training. Each finding says since which step it holds. UserError where there is no run.
    """
    directory = Path(directory)
    settings, card, lines = settings_of(directory), read_card(directory), journal.read(directory)
    model = build(settings, card.facts(), warn=False)
    step = lines[-1]["step"] if lines else 0
    if not model.has_code:
        sentence = f"{settings.method} has no code, so there is nothing that could die."
        return Checkup(str(directory), settings.method, step, "no code", (sentence,))
    findings = diagnose(lines, settings, model.target)
    if not findings:
        sentence = (
            f"It is too early to tell: the code is judged by {WINDOW} logged lines from step {WARM_UP} on, and this run"
            f" is at step {step} with a line every {amount(settings.train.log_every, 'step')}."
        )
        return Checkup(str(directory), settings.method, step, "too early", (sentence,))
    since = _since(findings, lines, settings, model.target)
    dated = tuple(replace(finding, since=since[finding.name]) for finding in findings)
    return Checkup(
        str(directory),
        settings.method,
        step,
        findings[0].name,
        tuple(_sentence(finding) for finding in dated),
        dated,
        code_state(lines),
        model.target,
    )


def _dead(now: CodeState, settings: Settings, target: float | None) -> str:
    if now.rate is None:
        if now.variance is None or now.variance > 1e-6:
            return ""
        sentence = f"the code is dead: it is the same for all examples at step {now.step}"
        l1 = settings.code.l1
        if l1:
            return f"{sentence}, because code.l1={l1:g} has too much weight; lower code.l1"
        return f"{sentence}; train again with a lower train.lr"
    if now.rate >= DEAD and now.units != 0:
        return ""
    what = f"rate {now.rate:.2g} nats" if now.rate < DEAD else f"no active unit at a rate of {now.rate:.2g} nats"
    return f"the code is dead: {what} at step {now.step}, {_price(now, settings, target)}"


def _dying(now: CodeState, lines: Sequence[Line], settings: Settings, target: float | None) -> str:
    rates = [(r, line["step"]) for line in lines if _tells(line) and (r := line["watch"].get("rate_nats")) is not None]
    if now.rate is None or len(rates) < 2 * WINDOW or now.rate > min(3.0, 0.5 * (target or math.inf)):
        return ""
    best, step = max(rates)
    if now.rate > best / 4 or rates[-1][0] >= rates[-WINDOW][0]:
        return ""
    fall = f"its rate fell from {best:.2g} nats at step {step} to {now.rate:.2g} at step {now.step}"
    return f"the code is dying: {fall}, {_price(now, settings, target)}"


def _price(now: CodeState, settings: Settings, target: float | None) -> str:
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


def _ignored(now: CodeState, settings: Settings) -> str:
    least = max(DEAD, 0.05 * (now.rate or 0.0))
    if now.gap is None or now.step < SETTLED or now.gap >= least or now.gap > 2 * now.gap_se:
        return ""
    paid = "" if now.rate is None else f" at a rate of {now.rate:.1f}"
    sentence = (
        f"the decoder ignores the code: shown each other's codes, examples lose {now.gap:.1f} \N{PLUS-MINUS SIGN}"
        f" {now.gap_se:.1f} nats{paid} at step {now.step}"
    )
    if settings.code.drop >= 0.5:
        return f"{sentence}, because code.drop={settings.code.drop:g} drops it too often; use code.drop=0.1"
    return f"{sentence}; train it where a code helps (detail=high-noise), lower decoder.width, or train longer"


def _cut_off(now: CodeState) -> str:
    if now.gradient is None or not now.decoder or now.gradient > 1e-6 * now.decoder:
        return ""
    return (
        f"no gradient reaches the encoder: its norm is {now.gradient:.1g} at step {now.step}, and {now.decoder:.1g} at"
        " the decoder; train again with a lower train.lr"
    )


def _off_target(now: CodeState, target: float | None) -> str:
    if target is None or now.rate is None or target / 2 <= now.rate <= 1.5 * target:
        return ""
    side, price = ("above", "rises") if now.rate > target else ("below", "falls")
    now_at = "" if now.price is None else f", now {now.price:.2g},"
    return (
        f"the rate of {now.rate:.1f} nats is {side} the {target:.3g} that are asked for; its price{now_at} {price}"
        " until they are held, so train longer"
    )


def _says_little(now: CodeState, settings: Settings) -> str:
    most = math.log(max(2, settings.train.batch // settings.train.accumulate))  # nats that a batch can show
    if now.told is None or now.rate is None or now.told > min(now.rate / 3, 0.75 * most):
        return ""
    return (
        f"about {now.told:.1f} of its {now.rate:.1f} nats tell examples apart, the rest has no use; use"
        " prior.kind=afterwards, or train the code on coarse noise levels with code.detail=coarse"
    )


def _dropped(settings: Settings) -> str:
    drop = settings.code.drop
    if drop < 0.5:
        return ""
    return f"the code is dropped for {drop:.0%} of the examples; code.drop=0.1 is enough"


def _alive(now: CodeState, target: float | None) -> str:
    phrases = []
    if now.rate is not None:
        phrases.append(f"rate {now.rate:.1f} nats" + ("" if target is None else f" ({target:.3g} are asked for)"))
    if now.told is not None:
        phrases.append(f"at least {now.told:.1f} of them tell the examples of a batch apart")
    if now.units is not None:
        phrases.append(amount(round(now.units), "active unit"))
    if now.gap is not None:
        most = max(now.bands, key=lambda name: now.bands[name], default=None)
        where = "" if most is None else f", most {WHERE[most]}"
        phrases.append(f"with the code of another example the loss rises by {now.gap:.1f} nats{where}")
    return f"the code is alive at step {now.step}: " + ", ".join(phrases)


def _tells(line: Line) -> bool:
    """Is this the line of a step that was not skipped, of a model with a code?"""
    return "skipped" not in line and ("active_units" in line["watch"] or "rate_nats" in line["watch"])


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _sentence(finding: Finding) -> str:
    text, since = finding.sentence[0].upper() + finding.sentence[1:], finding.since
    old = finding.serious and since is not None and since < finding.step
    return f"{text}." + (f" It is so since step {since}." if old else "")


def _since(findings: list[Finding], lines: list[Line], settings: Settings, target: float | None) -> dict[str, int]:
    """For each finding the first step since which it is at every line."""
    since = {finding.name: finding.step for finding in findings}
    held = set(since)
    for end in range(len(lines) - 1, 0, -1):
        steps = {
            finding.name: finding.step for finding in diagnose(lines[max(0, end - MEMORY) : end], settings, target)
        }
        held &= set(steps)
        since |= {name: steps[name] for name in held}
        if not held:
            break
    return since
