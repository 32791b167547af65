"""The collapse doctor: each finding on logs made for it."""

import json
import math
import re
from pathlib import Path

import pytest

from diffrep import config
from diffrep.config import Settings, override
from diffrep.runs import diagnosis
from diffrep.runs.diagnosis import Adviser, diagnose
from runs_at_hand import SMALL, diffrep, one_sentence, run_of


def log(count: int = 20, every: int = 20, **changes) -> list[dict]:
    """Lines of a healthy run at 12 nats; a change is a value, or a function of the step."""
    plain = dict(
        rate_nats=12.0, price=1.0, active_units=20, code_variance=0.5, gap=20.0, encoder=0.1, decoder=1.0, charged=None
    )  # fmt: skip
    assert set(changes) <= set(plain)

    def line(step: int) -> dict:
        v = {name: value(step) if callable(value) else value for name, value in (plain | changes).items()}
        watch = {"active_units": v["active_units"], "code_variance": v["code_variance"]}
        terms = {"diffusion": 90.0}
        if v["rate_nats"] is not None:
            watch["rate_nats"], terms["rate"] = v["rate_nats"], v["price"] * v["rate_nats"]
        if v["gap"] is not None:
            watch |= {"gap_nats": v["gap"], "gap_nats_coarse": 0.2 * v["gap"], "gap_nats_middle": 0.8 * v["gap"]}
        norms = {"decoder": v["decoder"], "encoder": v["encoder"]}
        return {"step": step, "terms": terms, "norms": norms, "watch": watch}

    return [line(every * (n + 1)) for n in range(count)]


def settings(*changes: str) -> Settings:
    return override(Settings(), changes)


def names(lines: list[dict], *changes: str, target: float | None = None) -> list[str]:
    return [finding.name for finding in diagnose(lines, settings(*changes), target)]


def wobble(step: int) -> float:
    """Noise around zero."""
    return 0.4 * (-1) ** (step // 20)


def test_a_healthy_code_is_said_to_be_alive():
    """With the numbers that say so, and where on the noise axis it is of use."""
    (found,) = diagnose(log(), settings(), 12.0)
    assert (found.name, found.step, found.serious) == ("alive", 400, False)
    for word in ("12.0 nats (12 are asked for)", "20 active units", "20.0 nats, most at the middle"):
        assert word in found.sentence
    lines = [line | {"watch": line["watch"] | {"gap_nats_start": 99.0}} for line in log()]
    assert diagnose(lines, settings(), 12.0)[0].sentence.endswith("rises by 20.0 nats, most where the chain starts")


@pytest.mark.parametrize(
    "changes, lines, target, words",
    [
        (("code.beta=1e4",), dict(rate_nats=0.02, price=1e4, active_units=0), None, ["code.beta=10000", "10,000"]),
        (("code.beta=1",), dict(rate_nats=0.02), None, ["code.beta=1 charges", "in place of code.beta"]),
        ((), dict(rate_nats=0.02), None, ["a weight of 1 charges"]),
        ((), dict(rate_nats=0.1, price=0.001), 12.0, ["12 nats are asked for", "down to 0.001", "high-noise"]),
        (("code.beta=5",), dict(rate_nats=3.0, price=5.0, active_units=0), None, ["no active unit at a rate of 3"]),
        (("code.l1=7", "method=drl"), dict(rate_nats=None, code_variance=1e-9), None, ["same for all", "code.l1=7"]),
        (("method=drl",), dict(rate_nats=None, code_variance=1e-9), None, ["same for all", "train.lr"]),
    ],
)
def test_a_dead_code_is_named_with_its_cause(changes, lines, target, words):
    """One sentence: what is seen, why, and a setting that helps; what follows from it is not told as well."""
    (found,) = diagnose(log(**{"gap": wobble, "encoder": 0.0, **lines}), settings(*changes), target)
    assert found.name == "dead" and found.serious and found.sentence.startswith("the code is dead: ")
    assert all(word in found.sentence for word in [*words, "at step 400"])
    assert target is not None or "code.rate=12" in found.sentence or lines["rate_nats"] is None


def test_remedies_are_settings_that_exist():
    """A sentence that names a setting with its value must be one that can be typed."""
    source = Path(diagnosis.__file__).read_text()
    named = set(re.findall(r"\b(?:code|anneal|train|decoder|encoder)\.[a-z_]+(?=[ =;,\"])", source)) - {"code.beta"}
    assert {"code.rate", "code.drop", "anneal.factor", "decoder.width", "train.lr"} <= named <= set(config.names())
    typed = re.findall(r"\b(?:code|anneal)\.[a-z]+=[0-9][0-9.]*\b|detail=high-noise", source)
    chosen = settings(*typed)
    assert (chosen.detail, chosen.anneal.factor, chosen.anneal.steps, chosen.code.drop) == ("high-noise", 2, 1000, 0.1)
    assert settings(f"code.rate={diagnosis.ADVISED}").code.rate == diagnosis.ADVISED


def test_a_code_that_loses_its_rate_is_dying():
    """Seen while there is still something to save; a rate that comes down to its target is none."""
    fall = dict(rate_nats=lambda step: 20 * math.exp(-step / 150), price=4.0)
    (found,) = diagnose(log(**fall), settings("code.beta=4"))
    assert (
        found.name == "dying" and "code.beta=4 charges 4" in found.sentence and "to 1.8 at step 400" in found.sentence
    )
    assert names(log(rate_nats=lambda step: 2 + 20 * math.exp(-step / 50)), target=2.0) == ["alive"]


def test_a_code_that_the_decoder_ignores():
    """Paid for and not read: only once it had time, and only where the noise of the gap cannot hide a use."""
    assert names(log(gap=wobble)) == ["ignored"]
    assert names(log(12, gap=wobble)) == ["alive"]  # step 240
    assert names(log(gap=0.3)) == ["alive"]  # little, and certain: a code of the coarsest level
    (found,) = diagnose(log(gap=wobble), settings("code.drop=0.9"))
    assert found.name == "ignored" and "use code.drop=0.1" in found.sentence
    alive, dropped = diagnose(log(), settings("code.drop=0.9"))
    assert (alive.name, dropped.name) == ("alive", "dropped") and "90%" in dropped.sentence
    assert names(log(rate_nats=None, gap=wobble), "method=drl") == ["ignored"]


def test_an_encoder_without_gradient():
    """Though its code is still read."""
    assert names(log(encoder=1e-12)) == ["cut off"]


def test_a_rate_off_its_target_is_no_alarm():
    """The controller needs time, and says so only to who asks."""
    for nats, side in ((40.0, "above"), (3.0, "below")):
        alive, found = diagnose(log(rate_nats=nats, price=0.5), settings(), 12.0)
        assert (alive.name, found.name, found.serious) == ("alive", "off target", False)
        assert side in found.sentence and "0.5" in found.sentence
    assert Adviser(settings(), 12.0)(log(rate_nats=40.0)[-1]) is None


def test_nothing_is_judged_too_early_or_without_a_code():
    """The first hundred steps, lines that were skipped, values that are not finite, models without a code."""
    assert names(log(8, rate_nats=0.0)) == []
    assert names([line | {"skipped": "rate"} for line in log()]) == []
    assert names([line | {"watch": {}} for line in log()]) == []
    assert names(log(rate_nats=lambda step: math.nan if step % 60 == 0 else 12.0, gap=None)) == ["alive"]
    assert names(log(rate_nats=0.0, gap=None), "code.beta=2") == ["dead"]


def test_a_warning_comes_once():
    """At the fifth line from step 100 on; again only for something else."""
    advise = Adviser(settings("code.beta=1e4"))
    said = [advise(line) for line in log(rate_nats=0.01, price=1e4)]
    assert [line["step"] for line, text in zip(log(), said, strict=True) if text] == [180]
    later = [advise(line | {"step": line["step"] + 400}) for line in log(gap=wobble)]
    assert sum(text is not None for text in later) == 1


def test_a_weight_of_ten_thousand_is_called_within_500_steps(tmp_path, capsys):
    """The study that did not see its own objective forbid a code: now it is one sentence, at the time and after."""
    words = ("--data", "digits", "--method", "vae-vdm", *SMALL, "--set", "train.batch=8", "--budget", "1200ex")
    plain = ("--set", "decoder.kind=mlp", "--set", "encoder.kind=mlp", "--set", "train.log_every=10")
    assert diffrep("train", *words, *plain, "--set", "code.beta=1e4", "--out", tmp_path / "run") == 0
    told = one_sentence(capsys)
    assert "the code is dead" in told and "code.beta=10000" in told and "code.rate=12" in told
    assert diffrep("doctor", tmp_path / "run", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["verdict"] == "dead" and facts["findings"][0]["since"] < facts["step"] < 500
    assert facts["numbers"]["price"] == pytest.approx(1e4)
    assert diffrep("doctor", tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "code.beta=10000" in said and "since step" in said and said.count("\n") == 1


def test_the_doctor_of_other_runs(tmp_path, capsys):
    """Too short, without a code, no run, a log that was edited: a sentence each."""
    for method, verdict in (("vae-vdm", "too early"), ("vdm", "no code"), ("ae", "too early")):
        run = run_of(method)
        capsys.readouterr()
        assert diffrep("doctor", run, "--json") == 0
        assert json.loads(capsys.readouterr().out)["verdict"] == verdict
    assert diffrep("doctor", tmp_path) == 2
    assert "is not a run" in one_sentence(capsys)
    for name in ("config.json", "data.json"):
        (tmp_path / name).write_bytes((run_of("vae-vdm") / name).read_bytes())
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert diffrep("doctor", tmp_path) == 2
    assert "changed by hand" in one_sentence(capsys)
