"""What the log of a run says about its code, from the run's directory alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from diffrep import config
from diffrep.config import Settings
from diffrep.errors import UserError
from diffrep.methods.catalog import build
from diffrep.runs.diagnosis import MEMORY, WARM_UP, WINDOW, Finding, diagnose, reading
from diffrep.runs.run import SETTINGS, read_card
from diffrep.training import journal


def checkup(directory: str | Path) -> dict:
    """The verdict on a run's code ("alive", "dead", ..., "no code", "too early"), sentences, and the numbers behind.

    The run may still be training. Each finding says since which step it holds. UserError where there is no run.
    """
    directory = Path(directory)
    if not (directory / SETTINGS).is_file():
        raise UserError(f"{directory} is not a run: it has no {SETTINGS}. Train one with `diffrep train --out`.")
    settings, card, lines = config.load(directory / SETTINGS), read_card(directory), journal.read(directory)
    model = build(settings, card.facts(), warn=False)
    facts = {"run": str(directory), "method": settings.method, "step": lines[-1]["step"] if lines else 0}
    if not model.has_code:
        said = f"{settings.method} has no code, so there is nothing that could die."
        return {**facts, "verdict": "no code", "sentences": [said], "findings": [], "numbers": None}
    findings = diagnose(lines, settings, model.target)
    if not findings:
        said = (
            f"It is too early to tell: the code is judged by {WINDOW} logged lines from step {WARM_UP} on, and this run"
            f" is at step {facts['step']} with a line every {settings.train.log_every} steps."
        )
        return {**facts, "verdict": "too early", "sentences": [said], "findings": [], "numbers": None}
    since = _since(findings, lines, settings, model.target)
    return {
        **facts,
        "verdict": findings[0].name,
        "sentences": [_sentence(finding, since[finding.name]) for finding in findings],
        "findings": [asdict(finding) | {"since": since[finding.name]} for finding in findings],
        "numbers": asdict(now) | {"target": model.target} if (now := reading(lines)) else None,
    }


def _sentence(finding: Finding, since: int) -> str:
    text = finding.sentence[0].upper() + finding.sentence[1:]
    return f"{text}." + (f" It is so since step {since}." if finding.serious and since < finding.step else "")


def _since(findings: list[Finding], lines: list[dict], settings: Settings, target: float | None) -> dict[str, int]:
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
