"""The training step of another checkout and of this one:

python benchmarks/step_then_and_now.py --other FOLDER/src [METHOD ...] [--data digits] [--steps 8] [--rounds 2]
    [--out results/step-then-and-now.json]

Each checkout trains in a process of its own, in turn: other, this, other, this. CPU time between two steps of the
optimiser, the least of all rounds, since other programs only add to it; and their ratio. First each by its own
defaults, then this one by the settings that the other has, as runs of older versions are read. Where this one takes
more than `SLOWER` times as long by its defaults, it is measured again with newer settings as they were before, one at a
time. A method that stands in the file with the same settings is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

SLOWER = 1.05
COSTLY = ("decoder.mixture", "decoder.by_place", "decoder.observe_code", "decoder.patch", "train.optimizer")
BATCH = 64


class Checkout:
    """A process that trains by the code of one checkout."""

    def __init__(self, source: Path):
        env = os.environ | {"PYTHONPATH": str(source)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )

    def asked(self, **request: object) -> dict:
        """The answer to one request; SystemExit where the process has ended."""
        print(json.dumps(request, default=str), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of a checkout ended at {request}")
        return json.loads(line)


def serve() -> None:
    """Answers requests of one line by the diffrep that is imported; works for older versions too."""
    from diffrep import config, runs
    from diffrep.errors import UserError

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            settings = config.override(config.load(request["settings"]), request.get("changes", ()))
            if "save" in request:
                config.save(settings, request["save"])
                answer: dict = {}
            else:
                with tempfile.TemporaryDirectory() as folder:
                    answer = {"seconds": _step(partial(runs.train, settings, f"{folder}/run"))}
        except (UserError, RuntimeError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _step(train: Callable[[], object]) -> float:
    """Least CPU seconds between two steps of the optimiser that is called first."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    clocks: dict[object, list[float]] = {}  # holds the optimisers, so that none takes the place of another

    def note(optimizer, *_) -> None:
        clocks.setdefault(optimizer, []).append(time.process_time())

    hook = register_optimizer_step_post_hook(note)
    try:
        train()
    finally:
        hook.remove()
    if not clocks:
        raise RuntimeError("it has no step")
    times = next(iter(clocks.values()))
    return min(b - a for a, b in pairwise(times))


@contextmanager
def checkouts(other: Path) -> Iterator[tuple[Checkout, Checkout]]:
    """The other and this one."""
    both = Checkout(other), Checkout(Path(__file__).parents[1] / "src")
    try:
        yield both
    finally:
        for one in both:
            one.process.stdin.close()
            one.process.wait()


def compared(method: str, then: Checkout, now: Checkout, plan: dict, rounds: int, folder: Path) -> dict:
    """Milliseconds of a step then and now by defaults and by the same settings, and what newer settings cost.

    ValueError: one of them does not have the method, or it has no step.
    """
    own, former = folder / "own.json", folder / "former.json"
    quick = {"prior": {"kind": "normal"}} if method == "diffae" else {}  # its own is fitted after the last step
    own.write_text(json.dumps({"method": method, **plan, **quick}))
    then.asked(settings=own, save=former)

    def least(*several: tuple[Checkout, dict]) -> list[float]:
        best = [float("inf")] * len(several)
        for _ in range(rounds):
            for i, (checkout, request) in enumerate(several):
                answer = checkout.asked(**request)
                if "error" in answer:
                    raise ValueError(answer["error"])
                best[i] = min(best[i], 1000 * answer["seconds"])
        return best

    before, today, same = least((then, {"settings": own}), (now, {"settings": own}), (now, {"settings": former}))
    row: dict = {"then_ms": before, "now_ms": today, "same_settings_ms": same}
    row |= {"ratio": today / before, "ratio_same_settings": same / before}
    if row["ratio"] > SLOWER:
        from diffrep.older_settings import NEWER

        changes = [f"{name}={json.dumps(NEWER[name])}" for name in COSTLY]
        several = [(now, {"settings": own}), *((now, {"settings": own, "changes": [one]}) for one in changes)]
        plain, *without = least(*several)
        row["share_of_the_step"] = {one: 1 - cost / plain for one, cost in zip(changes, without, strict=True)}
    return row


def main() -> None:
    import record

    from diffrep.methods.catalog import METHODS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    parser.add_argument("--other", type=Path, required=True, help="the folder src of another checkout")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=given.other, capture_output=True, text=True, check=True
    )
    about = record.about(
        other=described.stdout.strip(), data=given.data, steps=given.steps, rounds=given.rounds, batch=BATCH
    )
    plan = {"data": {"source": given.data}, "train": {"budget": f"{given.steps * BATCH}ex", "batch": BATCH}}
    former = json.loads(given.out.read_text()) if given.out is not None and given.out.exists() else {}
    rows: dict[str, dict] = former.get("methods", {}) if former.get("settings") == about["settings"] else {}
    with checkouts(given.other.resolve()) as (then, now), tempfile.TemporaryDirectory() as name:
        for method in given.methods:
            if method in rows:
                continue
            try:
                rows[method] = compared(method, then, now, plan, given.rounds, Path(name))
            except ValueError as error:
                rows[method] = {"error": str(error)}
            rows[method]["commit"] = about["commit"]
            print(method, json.dumps(rows[method]), flush=True)
            record.write(given.out, {**about, "methods": rows})


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
