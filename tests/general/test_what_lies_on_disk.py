"""Oracle 6: files hold what they say, and a continued run is an unbroken one in all but its clock."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch

from diffrep.runs.directory import weights_metadata
from diffrep.training.checkpoints import load_tensors
from tiny import EVERY, FOLDER, base, same, train, weights

FITTED = ("prior.",)  # after training, so that the last checkpoint does not know it


def checkpoints(directory: Path) -> list[tuple[dict, dict]]:
    return [load_tensors(path) for path in sorted((directory / "checkpoints").glob("step-*"))]


QUICK = (
    "vae-vdm",
    "adversarial-drl",
    "byol",
)  # a fitted prior, two players, a slow copy; the others by `make test-long`
CONTINUED = [
    method if method in QUICK else pytest.param(method, marks=pytest.mark.long)
    for method in EVERY
    if method != "random-encoder"  # which takes no step
]


@pytest.mark.slow
@pytest.mark.parametrize("method", CONTINUED)
def test_a_continued_run_is_an_unbroken_one(method):
    """Killed after two steps of three: weights, averages, optimisers, counters and log end as they would have."""
    out = Path(mkdtemp(dir=FOLDER)) / "run"
    first = train(method, "train.budget=32ex", out=out)
    second = train(method, out=out)
    whole = base(method)
    assert same(weights(whole), weights(second)) == []
    (one, facts), (two, known) = checkpoints(whole.directory)[-1], checkpoints(out)[-1]
    assert same(one, two) == []
    assert {k: v for k, v in facts.items() if k != "seconds"} == {k: v for k, v in known.items() if k != "seconds"}
    assert known["seconds"] > first.result.seconds > 0 and second.result.seconds == known["seconds"]
    assert (out / "metrics.jsonl").read_bytes() == (whole.directory / "metrics.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in EVERY if m != "random-encoder"])
def test_the_weights_on_disk_are_the_average(method):
    """model.safetensors is the average of the newest checkpoint, which moved from the one before by its rate; the
    model at hand holds it, and its facts are those of the log."""
    run = base(method)
    (before, _), (newest, facts) = checkpoints(run.directory)[-2:]
    for name, value in weights(run).items():
        if not name.startswith(FITTED):
            assert torch.equal(value, newest[f"ema/{name}"]), name
            assert torch.equal(value, run.model.state_dict()[name].contiguous()), name
    decay = 3 / 12  # (1 + n) / (10 + n) of update n = 2
    moved = [n for n, _ in run.model.named_parameters() if f"ema/{n}" in newest]
    for name in moved:
        expected = torch.lerp(before[f"ema/{name}"], newest[f"model/{name}"], 1 - decay)
        torch.testing.assert_close(newest[f"ema/{name}"], expected, rtol=1e-4, atol=1e-6)
    said = weights_metadata(run.directory)
    assert (said["weights"], said["step"], said["examples"], said["complete"]) == ("ema", 3, 48, True)
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] and lines[-1]["examples"] == facts["examples"] == 48


def test_examples_are_counted_where_the_last_step_takes_fewer():
    """40 of three batches of 16: each place says 40, and the loss of a line is its terms over the numbers of one."""
    run = train("vae-vdm", "train.budget=40ex")
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    (_, facts), said = checkpoints(run.directory)[-1], weights_metadata(run.directory)
    assert [line["examples"] for line in lines] == [16, 32, 40]
    assert facts["examples"] == said["examples"] == run.result.examples == 40
    assert (facts["step"], said["step"], run.result.step) == (3, 3, 3)
    for line in lines:
        assert line["loss"] == pytest.approx(sum(line["terms"].values()) / 16)
