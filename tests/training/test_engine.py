"""The engine on a tiny regression: killed, cut in parts or spread over processes, it ends with the same weights."""

import json
import math
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from diffrep.budget import Budget
from diffrep.errors import UserError
from diffrep.models.loss_weights import Lag, TargetRate
from diffrep.shapes import Batch, Terms, mix
from diffrep.training import engine, sharding
from diffrep.training.checkpoints import load_tensors, load_weights
from diffrep.training.ema import EMA
from diffrep.training.engine import TrainingDiverged, train
from diffrep.training.interface import Training
from diffrep.training.optimizer import clip_groups, load_state_tensors, optimizer, rate_factor, state_tensors
from diffrep.training.process import place
from diffrep.training.signals import Signals
from processes import PROCESSES

pytestmark = pytest.mark.slow

BATCH = 8
LAG = Lag(2, 4, None)  # two turns of the encoder alone at each of the first four steps


class Toy(nn.Module):
    """An autoencoder of 4x4 images: two groups, dropout, a buffer that each batch moves, a term held at a target; a
    critic, and extra turns of the encoder, where asked."""

    def __init__(
        self,
        dropout: float = 0.2,
        critic: bool = False,
        poison: str = "",
        poisoned: frozenset[int] = frozenset(),
        lag: Lag | None = None,
    ):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 16)
        self.dropout = nn.Dropout(dropout)
        self.critic = nn.Linear(16, 1) if critic else None
        self.register_buffer("mean", torch.zeros(()))
        self.hold, self.lag = TargetRate(0.2, start=0.1), lag
        self.poison, self.poisoned, self.calls = poison, poisoned, 0
        self.networks = [nn.Sequential(self.decoder)]

    def players(self) -> dict[str, dict[str, list[nn.Parameter]]]:
        players = {"model": {g: list(getattr(self, g).parameters()) for g in ("encoder", "decoder")}}
        players |= {"critic": {"critic": list(self.critic.parameters())}} if self.critic else {}
        return players | ({"encoder": {"encoder": players["model"]["encoder"]}} if self.lag else {})

    def order(self, step: int) -> list[str]:
        extra = self.lag.turns(step) if self.lag else 0
        return ["model", *(["critic"] if self.critic else []), *["encoder"] * extra]

    def watch(self) -> dict[str, float]:
        return {"mean": self.mean.item()}

    def advance(self) -> None:
        self.hold.advance()

    def forward(self, batch: Batch, player: str) -> Terms:
        x, self.calls = batch.x, self.calls + 1
        noisy = x + 0.1 * batch.draws.normal(*x.shape)
        features = self.dropout(torch.relu(self.encoder(noisy)).flatten(1))
        y = self.decoder(features)
        self.mean.add_(0.1 * (x.mean() - self.mean))
        if player == "critic":
            return {"judge": (self.critic(x.flatten(1)) - 1)[:, 0] ** 2 + self.critic(y.detach())[:, 0] ** 2}
        terms = {"fit": ((y - x.flatten(1)) ** 2).sum(1), "size": self.hold(features.abs().mean(1))}
        if self.critic is not None:
            terms["fool"] = 0.1 * (self.critic(y)[:, 0] - 1) ** 2
        if self.calls - 1 in self.poisoned:
            if self.poison == "term":
                self.mean.fill_(math.nan)
                terms["size"] = torch.where(batch.index == batch.index[1], math.nan, terms["size"])
            else:  # finite, with a derivative that is not: sqrt at 0
                terms["fit"] = terms["fit"] + (0 * self.decoder.weight.sum()).abs().sqrt()
        return terms


class Stream:
    """64 fixed images in turn; this process's consecutive part of each micro-batch.

    signals: micro-batch -> signal that this process sends itself before it. begun: an event, set at the start.
    """

    def __init__(
        self, micro: int = BATCH, part: int = 0, parts: int = 1, signals: dict[int, int] | None = None, begun=None
    ):
        self.x = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(1))
        self.micro, self.part, self.parts, self.signals, self.begun = micro, part, parts, signals or {}, begun

    def batches(self, start: int) -> Iterator[Batch]:
        size = self.micro // self.parts
        if self.begun:
            self.begun.set()
        for n in count(start // self.micro):
            if n in self.signals:
                os.kill(os.getpid(), self.signals[n])
            index = (n * self.micro + start % self.micro + self.part * size + torch.arange(size)) % 64
            yield Batch(self.x[index], index)


def run(directory, model: nn.Module | None = None, stream=None, *, examples: int = 200, **changes):
    """Train with settings for a test."""
    settings = dict(
        seed=3, batch=BATCH, accumulate=1, optimizer="muon", lr=1e-2, beta1=0.9, beta2=0.99, weight_decay=0.01,
        warmup=0.1, schedule="cosine", clip=1.0, ema=0.99, precision="no", compile=False, device="cpu", shard=False,
        channels_last=True, log_every=3, checkpoint_every=4, budget=Budget(examples, "examples"),
    )  # fmt: skip
    return train(model or Toy(), stream or Stream(), Training(**(settings | changes)), directory)


def state(directory) -> dict[str, torch.Tensor]:
    """Weights, averages and optimiser of the newest checkpoint, and of the finished model."""
    path = sorted((Path(directory) / "checkpoints").glob("step-*"))[-1]
    tensors, facts = load_tensors(path)
    final, _ = load_tensors(Path(directory) / "model.safetensors")
    return tensors | {f"final/{k}": v for k, v in final.items()} | {"step": torch.tensor(facts["step"])}


def lines(directory) -> list[dict]:
    return [json.loads(line) for line in (Path(directory) / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(a, b) -> None:
    """Bit by bit: every tensor, and the log."""
    one, two = state(a), state(b)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


def assert_close_runs(a, b, skip: tuple[str, ...] = ()) -> None:
    """Equal up to the order of additions: weights, losses, and gradient norms, to whose scale AdamW is blind."""
    one, two = load_tensors(a / "model.safetensors")[0], load_tensors(b / "model.safetensors")[0]
    for name in one.keys() - set(skip):
        assert torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-5), name
    for first, second in zip(lines(a), lines(b), strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-3)
        assert first["norms"] == pytest.approx(second["norms"], rel=1e-3)


def _killed_at_micro_batch(directory: str, n: int) -> None:
    run(directory, Toy(critic=True, lag=LAG), Stream(signals={n: signal.SIGKILL}))


def _killed_while_saving(directory: str, n: int) -> None:
    """Dies between the write of its n-th checkpoint and the moment when that would take its name."""
    real, calls = os.replace, count()

    def replace(source, target):
        if str(target).endswith(".safetensors") and next(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    os.replace = replace
    run(directory, Toy(critic=True, lag=LAG))


def _unhindered(directory: str, examples: int) -> None:
    run(directory, Toy(critic=True, lag=LAG), examples=examples)


def _announced(directory: str, examples: int, begun) -> None:
    """Says when the first step begins."""
    run(directory, Toy(critic=True, lag=LAG), Stream(begun=begun), examples=examples)


def spawn(target, *args) -> int:
    child = PROCESSES.Process(target=target, args=args)
    child.start()
    child.join(60)
    return child.exitcode


def test_killed_and_continued_is_as_if_never_killed(tmp_path):
    """SIGKILL between checkpoints, in the middle of one, before the first: all states and the log end the same."""
    a, b = tmp_path / "a", tmp_path / "b"
    assert spawn(_unhindered, str(a), 200) == 0
    for target, n in [(_killed_at_micro_batch, 2), (_killed_while_saving, 1), (_killed_at_micro_batch, 11)]:
        assert spawn(target, str(b), n) == -signal.SIGKILL
    assert spawn(_unhindered, str(b), 200) == 0
    assert_same_run(a, b)


@pytest.mark.long
def test_killed_at_random_moments(tmp_path):
    """Whatever the child is doing when the kill comes, the next one goes on to the same end."""
    a, b = tmp_path / "a", tmp_path / "b"
    assert spawn(_unhindered, str(a), 1600) == 0
    draw = random.Random(0)
    for _ in range(4):
        begun = PROCESSES.Event()
        child = PROCESSES.Process(target=_announced, args=(str(b), 1600, begun))
        child.start()
        assert begun.wait(60)
        time.sleep(draw.uniform(0.0, 0.3))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode in (-signal.SIGKILL, 0)
    assert spawn(_unhindered, str(b), 1600) == 0
    assert_same_run(a, b)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_saves_and_continues(tmp_path, number, capsys):
    """Ctrl-C ends the step at hand, saves, says so, and the same call goes on; handlers are put back."""
    before = signal.getsignal(number)
    first = run(tmp_path / "b", stream=Stream(signals={5: number}))
    assert first.interrupted and first.step == 6 and "continues" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    second = run(tmp_path / "b")
    assert not second.interrupted and second.examples == 200
    run(tmp_path / "a")
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("steps", [0, 4])
def test_a_signal_ends_a_run_where_its_processes_agree(tmp_path, monkeypatch, steps):
    """One that comes after they agreed on a step, or before the first, counts at the next; else one would end alone."""
    agree, enter, agreed = engine._Engine.agree, Signals.__enter__, []

    def agreeing(own, spent, stop):
        agreed.append(agree(own, spent, stop))
        if len(agreed) == steps:
            signal.raise_signal(signal.SIGINT)
        return agreed[-1]

    def entering(own):
        enter(own)
        if not steps:
            signal.raise_signal(signal.SIGINT)
        return own

    monkeypatch.setattr(engine._Engine, "agree", agreeing)
    monkeypatch.setattr(Signals, "__enter__", entering)
    result = run(tmp_path)
    assert result.interrupted and result.step == steps + 1 and agreed[steps][1]


def test_a_finished_run_stays(tmp_path):
    """Asking for a budget that is spent trains nothing; a larger one goes on."""
    assert run(tmp_path).step == 25
    before = state(tmp_path)
    assert run(tmp_path).step == 25
    assert all(torch.equal(before[k], v) for k, v in state(tmp_path).items())
    assert run(tmp_path, examples=240).step == 30


def test_broken_last_checkpoint_costs_only_time(tmp_path):
    """The one before is taken, the log is cut back to it, and the end is the same."""
    run(tmp_path / "a")
    run(tmp_path / "b")
    newest = sorted((tmp_path / "b" / "checkpoints").glob("step-*"))[-1]
    os.truncate(newest, 100)
    assert run(tmp_path / "b").step == 25
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_the_last_step_counts_only_what_is_left(tmp_path):
    """60 examples are 7 batches of 8 and 4 more: what the rest of the last batch holds does not matter."""
    other = Stream()
    other.x[60:64] = 7.0
    assert run(tmp_path / "a", Toy(0.0), examples=60).examples == 60
    assert run(tmp_path / "b", Toy(0.0), other, examples=60).step == 8
    one, two = state(tmp_path / "a"), state(tmp_path / "b")
    assert all(torch.equal(one[k], two[k]) for k in one if not k.endswith("mean") and "hold" not in k)
    assert lines(tmp_path / "a")[-1]["loss"] == lines(tmp_path / "b")[-1]["loss"]


def test_accumulated_parts_equal_the_whole(tmp_path):
    """The gradient of a mean is the mean of gradients: random numbers and a cut last batch included."""
    run(tmp_path / "a", Toy(0.0), examples=60)
    for parts in (2, 4):
        run(tmp_path / str(parts), Toy(0.0), Stream(BATCH // parts), accumulate=parts, examples=60)
        assert_close_runs(tmp_path / "a", tmp_path / str(parts), skip=("mean",))  # moved once a micro-batch


def test_extra_turns_move_the_encoder_alone(tmp_path):
    """After one step the decoder is where it is without them, since they come after its turn, the encoder is not; over
    six steps the encoder's own AdamW counts two for each of the first four."""
    for name, lag in (("a", None), ("b", LAG)):
        run(tmp_path / name, Toy(0.0, lag=lag), examples=BATCH, warmup=0.0)
    one, two = (load_tensors(tmp_path / name / "model.safetensors")[0] for name in "ab")
    assert torch.equal(one["decoder.weight"], two["decoder.weight"])
    assert (one["encoder.weight"] - two["encoder.weight"]).abs().max() > 1e-4
    run(tmp_path / "c", Toy(0.0, lag=LAG), examples=6 * BATCH)
    optimisers = {name: value for name, value in state(tmp_path / "c").items() if name.endswith("/step")}
    counted = {name.split("/")[1]: int(value) for name, value in optimisers.items()}
    assert counted == {"model": 6, "encoder": 8}
    assert "encoder/fit" in lines(tmp_path / "c")[0]["terms"]


@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_equal_one(tmp_path, shard):
    """With the variables that torchrun sets, a critic, accumulation and a cut last batch, weights agree; what one
    process began, two continue, and then one again. So it is where each process holds a part of the weights."""
    directories = tmp_path / "a", tmp_path / "b"
    for directory in directories:
        run(directory, Toy(0.0, critic=True), Stream(BATCH // 2), accumulate=2, examples=32)
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    both = [PROCESSES.Process(target=in_processes, args=(str(tmp_path / "b"), rank, port, shard)) for rank in (0, 1)]
    for one in both:
        one.start()
    for one in both:
        one.join(120)
    assert [one.exitcode for one in both] == [0, 0]
    run(tmp_path / "a", Toy(0.0, critic=True), Stream(BATCH // 2), accumulate=2, examples=60)
    assert_close_runs(tmp_path / "a", tmp_path / "b")
    for directory in directories:
        run(directory, Toy(0.0, critic=True), Stream(BATCH // 2), accumulate=2, examples=120)
    assert_close_runs(tmp_path / "a", tmp_path / "b")


def test_a_config_of_fsdp_is_refused(tmp_path, monkeypatch):
    """One sentence names the setting that shards, in place of a run whose average is of nothing."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"train\.shard=true"):
        run(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def in_processes(directory: str, rank: int, port: int, shard: bool) -> None:
    """What each of two processes does."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "localhost"} | {name: str(value) for name, value in told.items()}
    here = place("cpu")
    stream = Stream(BATCH // 2, here.rank, here.processes)
    sharding.LEAST = 100  # so that the decoder is gathered by itself
    run(directory, Toy(0.0, critic=True), stream, accumulate=2, examples=60, shard=shard)


@pytest.mark.parametrize("poison, named", [("term", "size"), ("gradient", "gradient of decoder")])
def test_a_step_that_is_not_finite_is_skipped_and_named(tmp_path, poison, named, capsys):
    """Weights, averages and buffers stay as they were; the log and one line say which term and which example."""
    result = run(tmp_path, Toy(poison=poison, poisoned=frozenset({4, 9})), log_every=1)
    assert result.skipped == 2 and result.step == 25
    assert all(value.isfinite().all() for value in state(tmp_path).values())
    assert {line["step"]: line["skipped"] for line in lines(tmp_path) if "skipped" in line} == {5: named, 10: named}
    said = capsys.readouterr().err
    assert f"step 5 is skipped: {named} not finite" in said and ("example 33 " in said) == (poison == "term")


def test_ten_in_a_row_stop_the_run(tmp_path):
    """A run that has diverged does not burn its budget; the last good checkpoint is there."""
    with pytest.raises(TrainingDiverged, match="checkpoint is that of step 8"):
        run(tmp_path, Toy(poison="term", poisoned=frozenset(range(10, 99))))
    tensors, facts = load_tensors(sorted((tmp_path / "checkpoints").glob("step-*"))[-1])
    assert facts["step"] == 8 and all(value.isfinite().all() for value in tensors.values())


def test_groups_are_clipped_apart():
    """A large gradient in one part leaves the other parts' gradients alone; directions stay."""
    small, large = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    small.grad, large.grad = torch.tensor([0.3, 0.4]), torch.tensor([30.0, 40.0])
    norms = clip_groups({"small": [small], "large": [large]}, 1.0)
    assert norms["small"].item() == pytest.approx(0.5) and norms["large"].item() == pytest.approx(50)
    assert small.grad.tolist() == pytest.approx([0.3, 0.4]) and large.grad.tolist() == pytest.approx([0.6, 0.8])
    assert clip_groups({"large": [large], "none": [nn.Parameter(torch.zeros(1))]}, None)["none"].item() == 0


@pytest.mark.parametrize("schedule, end", [("cosine", 0.0), ("constant", 1.0)])
def test_learning_rate(schedule, end):
    """Linear through the warm-up, then half a cosine (1/2 at the middle of the budget) or flat."""
    assert rate_factor(0.0, warmup=0.1, schedule=schedule) == 0
    assert rate_factor(1.0, warmup=0.1, schedule=schedule) == pytest.approx(end)
    assert rate_factor(0.5, warmup=0.0, schedule=schedule) == pytest.approx((1 + end) / 2)
    flat = rate_factor(0.05, warmup=0.0, schedule=schedule)
    assert rate_factor(0.05, warmup=0.1, schedule=schedule) == pytest.approx(flat / 2)


def test_vectors_do_not_decay():
    """With zero gradients AdamW moves nothing but what decays: matrices, by (1 - lr decay)."""
    layer = nn.Linear(2, 2)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    first = optimizer({"a": list(layer.parameters())}, set(), lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.5)
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    first.step()
    assert torch.equal(layer.bias, before["bias"])
    assert torch.allclose(layer.weight, before["weight"] * 0.95)
    other = optimizer({"a": list(layer.parameters())}, set(), lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.5)
    load_state_tensors(other, state_tensors(first))
    assert state_tensors(other).keys() == state_tensors(first).keys()


def test_it_learns_and_the_file_holds_the_average(tmp_path):
    """The loss falls, and model.safetensors says what it holds and fits the model."""
    run(tmp_path, Toy(0.0), examples=3200, log_every=10, checkpoint_every=1000)
    log = lines(tmp_path)
    assert log[-1]["loss"] < 0.3 * log[0]["loss"]
    assert all(line["examples"] == 8 * line["step"] for line in log)
    assert log[-1]["loss"] == pytest.approx(sum(log[-1]["terms"].values()) / 16)  # nats per number, once
    facts = load_weights(Toy(), tmp_path / "model.safetensors")
    assert facts == {"weights": "ema", "step": 400, "examples": 3200}
    held, newest = load_tensors(tmp_path / "model.safetensors")[0], state(tmp_path)
    assert all(torch.equal(value, newest[f"ema/{name}"]) for name, value in held.items())
    assert any(not torch.equal(value, newest[f"model/{name}"]) for name, value in held.items())


def test_the_average_is_that_of_the_weights(tmp_path):
    """The newest two checkpoints are one step apart: the average of the later is the former's, moved by its rate."""
    run(tmp_path, Toy(0.0), examples=40 * BATCH, checkpoint_every=1, ema=0.7)
    one, two = (load_tensors(path)[0] for path in sorted((tmp_path / "checkpoints").glob("step-*"))[-2:])
    decay = 0.7  # below (1 + n) / (10 + n) at n = 39
    for name in ("encoder.weight", "decoder.bias"):
        moved = decay * one[f"ema/{name}"] + (1 - decay) * two[f"model/{name}"]
        torch.testing.assert_close(two[f"ema/{name}"], moved)


def test_counters_go_on(tmp_path):
    """Seconds and skipped steps after continuing are added to those before; a skipped step moves no average."""
    first = run(tmp_path, Toy(0.0, poison="gradient", poisoned=frozenset({2})), examples=10 * BATCH)
    assert first.skipped == 1 and first.seconds > 0
    second = run(tmp_path, Toy(0.0), examples=20 * BATCH)
    assert second.skipped == 1 and second.seconds > first.seconds and second.step == 20
    facts = load_tensors(sorted((tmp_path / "checkpoints").glob("step-*"))[-1])[1]
    assert (facts["skipped"], facts["step"], facts["examples"]) == (1, 20, 20 * BATCH)
    assert facts["seconds"] == second.seconds
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)


def test_seconds_count_training_alone(tmp_path):
    """A budget in seconds ends with the step that crosses it; writing checkpoints is not training."""
    result = run(tmp_path, budget=Budget.parse("0.3s"), checkpoint_every=1)
    timings = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert 0.3 <= result.seconds < 2 and timings[-1]["seconds"] == result.seconds
    assert lines(tmp_path)[-1]["step"] == result.step


@pytest.mark.parametrize(
    "change, words",
    [
        ({"accumulate": 3}, "multiple of 3"),
        ({"precision": "fp16"}, "needs a GPU"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"device": "tpu"}, "unknown device"),
        ({"trackers": ["tensorbord"]}, "Did you mean 'tensorboard'"),
    ],
)
def test_mistakes_are_told_before_training(tmp_path, change, words):
    """Nothing is trained or written when a setting cannot be met."""
    with pytest.raises(UserError, match=words):
        run(tmp_path / "new", **change)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    """The sentence names the tensor that does not fit."""
    run(tmp_path)
    with pytest.raises(UserError, match="another model"):
        run(tmp_path, Toy(critic=True), examples=300)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(tmp_path / "file" / "run")


def test_bf16_trains(tmp_path):
    """Mixed precision keeps weights, averages and the log in float32."""
    run(tmp_path, precision="bf16")
    assert all(v.dtype == torch.float32 for v in load_tensors(tmp_path / "model.safetensors")[0].values())
    assert math.isfinite(lines(tmp_path)[-1]["loss"])


def test_trackers_get_the_log_too(tmp_path):
    """What is logged goes to TensorBoard where it is asked for; a tracker that is not installed says so."""
    pytest.importorskip("tensorboard")
    run(tmp_path / "a", examples=24, trackers=["tensorboard"])
    assert list((tmp_path / "a" / "trackers").rglob("events.out.*"))
    if find_spec("swanlab") is None:
        with pytest.raises(UserError, match="pip install swanlab"):
            run(tmp_path / "b", trackers=["swanlab"])


def test_seeds_differ():
    """Each number, and its place, matters."""
    assert len({mix(a, b) for a in range(50) for b in range(50)}) == 2500


def test_gradients_are_clipped_after_unscaling(tmp_path, monkeypatch):
    """Gradients of fp16 come times a scale: clipped before that is undone, every step would be tiny."""
    order = []
    unscale, clip = Accelerator.unscale_gradients, engine.clip_groups
    monkeypatch.setattr(Accelerator, "unscale_gradients", lambda *a: (order.append("unscale"), unscale(*a))[1])
    monkeypatch.setattr(engine, "clip_groups", lambda *a: (order.append("clip"), clip(*a))[1])
    run(tmp_path, examples=2 * BATCH)
    assert order == ["unscale", "clip"] * 2


def test_a_weight_of_two_names_is_averaged_under_both():
    """The start of a chain is also where sampling begins: what is written last would take the average's place."""
    model = nn.Module()
    model.first = model.second = nn.Linear(2, 2)
    before = model.first.weight.detach().clone()
    average = EMA(model, 0.9)
    nn.init.ones_(model.first.weight)
    average.update(model, 1000)
    for name in ("first.weight", "second.weight"):
        torch.testing.assert_close(average.weights[name], 0.9 * before + 0.1)
