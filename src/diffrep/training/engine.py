"""The engine: steps, players, processes, checkpoints. It handles named losses and parameters, and no diffusion."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from diffrep.errors import UserError, unknown
from diffrep.files import writing
from diffrep.shapes import Batch, Draws, mix
from diffrep.training.checkpoints import Checkpoints, Tensors, fill, save_tensors
from diffrep.training.ema import EMA
from diffrep.training.interface import Source, Stop, Trainable, Training
from diffrep.training.journal import Bar, Journal, Line, Turn, log_line, short_words, warning
from diffrep.training.muon import kernels
from diffrep.training.optimizer import clip_groups, load_state_tensors, optimizer, rate_factor, state_tensors
from diffrep.training.process import Place, joined
from diffrep.training.sharding import cut, first_process_gets, gathered
from diffrep.training.signals import Signals

PATIENCE = 10  # non-finite steps in a row that end a run
PRECISIONS = ("no", "bf16", "fp16")
TRACKERS = ("aim", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")


class TrainingDiverged(UserError):
    """Too many steps in a row whose loss or gradient is not finite."""


@dataclass(frozen=True)
class Position:
    """Steps, examples and seconds of training so far. Saved with each checkpoint."""

    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    skipped: int = 0


@dataclass(frozen=True)
class TrainingResult:
    """The end of a training: steps, examples, seconds of training, steps skipped, whether it was interrupted.

    resumed: the step from which it continued, 0 for a new run.
    """

    step: int
    examples: int
    seconds: float
    skipped: int
    interrupted: bool
    resumed: int = 0


def train(
    model: Trainable,
    stream: Source,
    training: Training,
    directory: str | Path,
    *,
    anew: bool = False,
    begin: Callable[[], None] = lambda: None,
    advise: Callable[[Line], str | None] = lambda line: None,
    quiet: bool = False,
) -> TrainingResult:
    """Train a model to its budget, from the newest checkpoint in `directory` where there is one, unless `anew`.

    stream: yields this process's shard of micro-batches of batch / accumulate examples. begin: called once all
    arguments are checked, before anything is written. advise: log line -> a warning for the user, or None; it may add
    to the line, and raise `Stop` to end training. quiet: prints nothing.

    For a budget in examples the same seed gives the same weights, whether the run was killed and continued or not; the
    last step counts only the remaining examples.

    Writes checkpoints/, metrics.jsonl, timings.jsonl and model.safetensors (EMA weights). Ctrl-C and SIGTERM end it
    after the step in which they come, or after the next one where they come between two. Global state of the process
    is restored afterwards (`process.joined`). UserError: a file cannot be written, no checkpoint fits;
    TrainingDiverged.
    """
    with joined(training.device) as here:
        if training.batch % (training.accumulate * here.processes):
            raise UserError(
                f"a batch of {training.batch} cannot be cut into {training.accumulate} micro-batches for"
                f" {here.processes}"
                f" processes: use a multiple of {training.accumulate * here.processes}."
            )
        engine = _Engine(model, here, Path(directory), training)
        return _trained(engine, stream, training, anew, begin, advise, quiet)


def _trained(
    engine: _Engine,
    stream: Source,
    training: Training,
    anew: bool,
    begin: Callable[[], None],
    advise: Callable[[Line], str | None],
    quiet: bool,
) -> TrainingResult:
    here, directory, budget = engine.here, engine.directory, training.budget
    bar, stopped, ended = Bar(active=here.main and not quiet), False, False
    resumed = at = Position() if anew else engine.restore(bar.say)
    if here.main:
        begin()
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
    engine.open_trackers()
    journal = Journal(directory, active=here.main, step=at.step)
    progress = budget.progress(examples=at.examples, seconds=at.seconds) if engine.players else 1.0  # nothing to train
    source, in_a_row, saved = stream.batches(at.examples), 0, at.step
    with Signals() as signals, bar:
        while progress < 1 and not (ended or stopped):  # never `came`: processes would end at different steps
            clock = time.monotonic()
            rate = training.lr * rate_factor(progress, warmup=training.warmup, schedule=training.schedule)
            count = budget.take(training.batch, examples=at.examples)
            turns = engine.step([next(source) for _ in range(training.accumulate)], at, count, rate)
            spent, ended = engine.agree(time.monotonic() - clock, signals.came)
            spent = 0.0 if training.compile and engine.steps == 1 else spent  # the first step compiles
            blame = ", ".join(turn.blame for turn in turns.values() if turn.blame)
            at = Position(at.step + 1, at.examples + count, at.seconds + spent, at.skipped + bool(blame))
            progress = budget.progress(examples=at.examples, seconds=at.seconds)
            in_a_row = in_a_row + 1 if blame else 0

            speed = count / max(spent, 1e-9)
            line = log_line(at.step, at.examples, turns, rate, blame)
            if blame or at.step % training.log_every == 0 or progress >= 1:
                with gathered(engine.bare):
                    line["watch"] = dict(engine.bare.watch())
                try:
                    advice = advise(line)
                except Stop as stop:
                    advice, stopped = str(stop), True
                journal.add(line, {"step": at.step, "seconds": at.seconds, "examples_per_second": speed})
                engine.track(line)
                if advice:
                    bar.say(advice)
            bar.update(progress, short_words(line, speed))
            if blame:
                bar.say(warning(line, turns))
            if in_a_row == PATIENCE:
                raise TrainingDiverged(
                    f"{PATIENCE} steps in a row were not finite ({blame}, step {at.step}): try a lower learning rate or"
                    f" precision 'no'; the last good checkpoint is that of step {saved}."
                )
            if at.step % training.checkpoint_every == 0 and not blame:
                engine.save(at)
                saved = at.step
        if saved < at.step:
            engine.save(at)
        engine.finish(at)
        _, ended = engine.agree(0.0, ended or signals.came)
        if ended:
            then = ": the same command continues" if progress < 1 and not stopped else ""
            bar.say(f"stopped at step {at.step}, {progress:.0%} of the budget, and saved{then}.")
    return TrainingResult(**asdict(at), interrupted=ended, resumed=resumed.step)


class _Engine:
    """The model on its device, an optimiser for each player, the average of the weights, and their files."""

    def __init__(self, model: Trainable, here: Place, directory: Path, training: Training):
        precision, trackers = training.precision, training.trackers
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        if precision == "fp16" and here.device.type == "cpu":
            raise UserError("precision 'fp16' needs a GPU, and this runs on the CPU: use 'no' or 'bf16'.")
        for name in trackers:
            if name not in TRACKERS:
                raise unknown("tracker", name, TRACKERS)
            if find_spec(name) is None:
                raise UserError(f"the tracker {name!r} is not installed: `pip install {name}`, or leave it out.")
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true", "yes"):
            raise UserError(
                "the accelerate config asks for FSDP, which diffrep does itself: take a config without it, and"
                " train.shard=true."
            )
        self.given, self.here, self.directory, self.training = model, here, directory, training
        self.bare = cut(model, here) if training.shard and here.processes > 1 else model
        self.checkpoints, self.steps = Checkpoints(directory / "checkpoints"), 0
        self.accelerator = Accelerator(
            cpu=here.device.type == "cpu",
            mixed_precision=precision,
            log_with=list(trackers) or None,
            project_dir=directory,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self._prepare()

    def open_trackers(self) -> None:
        """Start the trackers, which write their own files."""
        if self.training.trackers:
            self.accelerator.init_trackers("trackers")

    def _prepare(self) -> None:
        """Move the model to its device and memory layout, and build optimisers and average."""
        t = self.training
        self.bare.to(self.here.device)
        in_parts = self.bare is not self.given
        if t.channels_last and not in_parts:  # FSDP knows one layout
            for weight in self.bare.parameters():
                if weight.ndim == 4:  # kernels of pictures; those of volumes, which have five axes, stay as they are
                    weight.data = weight.data.to(memory_format=torch.channels_last)
        self.bare.train()
        self.weights = [*self.bare.parameters()]
        names, own = {p: name for name, p in self.given.named_parameters()}, dict(self.bare.named_parameters())
        self.players = {
            player: {group: [own[names[p]] for p in parameters] for group, parameters in groups.items()}
            for player, groups in self.given.players().items()
            if groups
        }
        matrices = kernels(self.bare.modules()) if t.optimizer == "muon" else frozenset()
        plain = [
            optimizer(groups, matrices, lr=t.lr, beta1=t.beta1, beta2=t.beta2, weight_decay=t.weight_decay)
            for groups in self.players.values()
        ]
        if in_parts:  # accelerate adds mixed precision alone
            mixed = self.accelerator.prepare_model(self.bare, device_placement=False, evaluation_mode=True)
            ready: list = [mixed, *map(self.accelerator.prepare, plain)]
        else:
            ready = [self.bare] if not plain else list(self.accelerator.prepare(self.bare, *plain))
        self.model, *prepared = ready
        if self.here.processes > 1 and plain:
            self.model.broadcast_buffers = False  # `_share_buffers` averages them
        self.optimizers = dict(zip(self.players, prepared, strict=True))
        if t.compile:
            self.bare.compile()  # in place; a model that cannot be compiled whole overrides `compile`
        self.ema = EMA(self.bare, t.ema)

    def step(self, micro: list[Batch], at: Position, count: int, rate: float) -> dict[str, Turn]:
        """One turn of each player on the same examples; only the first `count` over all processes enter the loss.

        The first turn that is not finite ends the step: its player, the average and the buffers stay unchanged.
        """
        micro = [self._here(batch) for batch in micro]
        before, turns = [buffer.clone() for buffer in self.bare.buffers()], {}
        self.steps += 1
        for number, player in enumerate(self.bare.order(at.step)):
            prepared = self.optimizers[player]
            for group in prepared.param_groups:
                group["lr"] = rate
            self._forget_gradients()
            turns[player] = turn = self._turn(micro, player, (self.training.seed, at.step, number), count)
            if turn.blame:
                self._forget_gradients()
                for buffer, value in zip(self.bare.buffers(), before, strict=True):
                    buffer.copy_(value)
                if self.accelerator.scaler is not None:
                    prepared.step()  # lowers the scale of the loss, changes no weight
                return turns
            prepared.step()
        self._share_buffers()
        self.bare.advance()
        self.ema.update(self.bare, at.step - at.skipped)
        return turns

    def _turn(self, micro: list[Batch], player: str, key: tuple[int, int, int], count: int) -> Turn:
        """Backward through all micro-batches; the gradients are those of the mean over `count` examples, clipped."""
        sums, marks = torch.zeros((), device=self.here.device), []
        for k, batch in enumerate(micro):
            shard, shards = k * self.here.processes + self.here.rank, len(micro) * self.here.processes
            self._seed(mix(*key, shard))  # of dropout
            mine = min(max(count - shard * len(batch), 0), len(batch))
            batch = replace(batch, draws=Draws.of(mix(*key), self.here.device, shard, shards))
            with self.accelerator.no_sync(self.model) if k + 1 < len(micro) else nullcontext():
                terms = self.model(batch, player)
                nats = torch.stack([term[:mine].float() for term in terms.values()])
                # processes average their gradients, and the mean is over the examples of all of them
                self.accelerator.backward(nats.sum() / (count * batch.x[0].numel()) * self.here.processes)
            sums = sums + nats.detach().sum(1) / count
            marks.append((batch.index[:mine], nats.detach().isfinite().all(0)))
        self.accelerator.unscale_gradients(self.optimizers[player])
        norms = clip_groups(self.players[player], self.training.clip)
        sums = self.accelerator.reduce(sums, "sum")
        values = torch.cat([sums, *(norm.detach().to(sums).reshape(1) for norm in norms.values())]).tolist()
        means = dict(zip(terms, values, strict=False))
        loss = sum(means.values()) / micro[0].x[0].numel()
        turn = Turn(means, loss, dict(zip(norms, values[len(means) :], strict=True)))
        if turn.blame:
            turn.suspects.extend(int(i) for index, finite in marks for i in index[~finite])
        return turn

    def _seed(self, seed: int) -> None:
        """As `torch.manual_seed`, which writes down its caller for a GPU that may be used later, at each step."""
        torch.default_generator.manual_seed(seed)
        if self.here.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _forget_gradients(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def agree(self, spent: float, stop: bool) -> tuple[float, bool]:
        """All processes use the mean of their times and stop together."""
        if self.here.processes == 1:
            return spent, stop
        values = self.accelerator.reduce(torch.tensor([spent, float(stop)], device=self.here.device), "mean").tolist()
        return values[0], values[1] > 0

    def save(self, at: Position) -> None:
        """Write a checkpoint: weights, their average, and the optimisers' state."""
        tensors = _under("model", self.bare.state_dict()) | _under("ema", self.ema.weights)
        for player, prepared in self.optimizers.items():
            tensors |= _under(f"optimizer/{player}", state_tensors(prepared.optimizer))
        tensors = first_process_gets(tensors, self.here)
        if self.here.main:
            scaler = self.accelerator.scaler
            self.checkpoints.save(at.step, tensors, {**asdict(at), "scaler": scaler.state_dict() if scaler else None})
        self.accelerator.wait_for_everyone()

    def restore(self, warn: Callable[[str], None]) -> Position:
        """Load the newest whole checkpoint; the position it was saved at, or that of a new run without one."""
        newest = self.checkpoints.newest(warn if self.here.main else lambda text: None)
        if newest is None:
            return Position()
        tensors, about = newest
        fill(self.bare, _within("model", tensors), self.checkpoints.directory)
        self.ema.load(_within("ema", tensors))
        for player, prepared in self.optimizers.items():
            load_state_tensors(prepared.optimizer, _within(f"optimizer/{player}", tensors))
        if self.accelerator.scaler is not None and about["scaler"]:
            self.accelerator.scaler.load_state_dict(about["scaler"])
        return Position(about["step"], about["examples"], about["seconds"], about["skipped"])

    def finish(self, at: Position) -> None:
        """Write the averaged weights, close the trackers, and unwrap the model."""
        average = first_process_gets(self.ema.weights, self.here)
        if self.here.main:
            about = {"weights": "ema", "step": at.step, "examples": at.examples}
            save_tensors(self.directory / "model.safetensors", average, about)
            self.checkpoints.prune()  # a kill between writing and removing leaves one more
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.given.to(self.here.device)
        self.accelerator.free_memory()

    def track(self, line: Line) -> None:
        """Send a logged line to the trackers."""
        numbers = {"loss": line["loss"], "lr": line["lr"]}
        for group, values in (("terms", line["terms"]), ("norms", line["norms"]), ("watch", line["watch"])):
            numbers |= {f"{group}/{name}": value for name, value in values.items()}
        self.accelerator.log(numbers, step=line["step"])

    def _share_buffers(self) -> None:
        """Average over processes the buffers that their shards have changed, such as running means."""
        floating = [buffer for buffer in self.bare.buffers() if buffer.is_floating_point()]
        if self.here.processes > 1 and floating:
            mean = self.accelerator.reduce(torch.cat([buffer.reshape(-1) for buffer in floating]), "mean")
            for buffer, value in zip(floating, mean.split([buffer.numel() for buffer in floating]), strict=True):
                buffer.copy_(value.view_as(buffer))

    def _here(self, batch: Batch) -> Batch:
        batch = batch.to(self.here.device)
        if self.training.channels_last and batch.x.ndim == 4:
            batch = replace(batch, x=batch.x.contiguous(memory_format=torch.channels_last))
        return batch


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _within(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}
