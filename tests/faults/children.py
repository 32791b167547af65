"""A command in a child process of its own, which is killed, starved or given a broken disk on the way.

The child is forked from a process that has imported everything, so that a command costs its own work alone.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from runs_at_hand import diffrep

FAIL, FULL, KILL, READ = 1, 2, 3, 4  # as in shim.c
TRACEBACK = 70  # exit code of a child that raised what no command catches
LIMIT = 120.0  # seconds: a child that is not done by then hangs


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code, or None and the signal that killed it; what it said; operations on files."""

    code: int | None
    signal: int | None
    said: str
    seconds: float
    seen: int = 0

    @property
    def one_sentence(self) -> bool:
        """Refused as a user's mistake is: exit code 2, and the last line is ours."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        return self.code == 2 and bool(lines) and lines[-1].startswith("diffrep: ") and "Traceback" not in self.said

    @property
    def told(self) -> bool:
        """Done, or refused in one sentence."""
        return (self.code == 0 and "Traceback" not in self.said) or self.one_sentence


def without_folders(text: str) -> str:
    """The text with file names in place of paths: what is kept of a trial names no folder of the machine."""
    return re.sub(r"(?:[\w.+~-]*/)+(?=[\w.])", "", text)


def start(work: Callable[[], int], arm: Callable[[], None], said: Path, seen: Path) -> int:
    """A child that does `work` and exits with its result; its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = TRACEBACK
    try:
        os.setpgid(0, 0)
        with open(said, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        arm()
        try:
            code = work()
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        if _shim() is not None:
            count = _shim().faults_seen()
            disarm()
            seen.write_text(str(count))
    finally:
        os._exit(code)


def end(child: int, said: Path, seen: Path, began: float, after: float = LIMIT) -> Outcome:
    """The end of a child, which is killed after so many seconds."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        left = began + after - time.monotonic()
        if left <= 0:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(min(0.005, left))
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = None if killed is not None else os.WEXITSTATUS(status)
    counted = int(seen.read_text()) if seen.exists() else 0
    text = said.read_text(errors="replace") if said.exists() else ""
    return Outcome(code, killed, text, time.monotonic() - began, counted)


def run(work: Callable[[], int], arm: Callable[[], None] = lambda: None, after: float = LIMIT) -> Outcome:
    """`work` in a child, with `arm` called there first; killed after so many seconds."""
    with TemporaryDirectory(prefix="diffrep-fault-") as folder:
        said, seen, began = Path(folder) / "said", Path(folder) / "seen", time.monotonic()
        return end(start(work, arm, said, seen), said, seen, began, after)


def command(*words: object) -> Callable[[], int]:
    """`diffrep WORDS` as a work."""
    return lambda: diffrep(*words)


def faulty(folder: Path, what: int, nth: int, error: int = 0) -> Callable[[], None]:
    """Arms the shim: the nth operation on a file below the folder fails, or kills."""
    return lambda: _shim().faults_arm(str(folder).encode(), what, ctypes.c_long(nth), error)


def disarm() -> None:
    _shim().faults_arm(b"", 0, ctypes.c_long(0), 0)


def starved(megabytes: float) -> Callable[[], None]:
    """So much address space is left to the child."""

    def arm() -> None:
        size = int((address_space("VmSize") + megabytes) * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    return arm


def address_space(name: str) -> float:
    """Megabytes of this process: VmSize now, VmPeak at most since it was forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def jumping(seed: int) -> Callable[[], None]:
    """The clock of the day jumps by up to ten years at each look, that of the machine ahead by up to a minute."""

    def arm() -> None:
        rng, ahead = random.Random(seed), [0.0]
        day, machine = time.time, time.monotonic

        def monotonic() -> float:
            ahead[0] += rng.choice((0.0, 0.0, 60.0)) * rng.random()
            return machine() + ahead[0]

        time.time = lambda: day() + rng.uniform(-3e8, 3e8)
        time.monotonic = monotonic

    return arm


def with_shim(arguments: list[str]) -> None:
    """Start this process anew with the shim in front of the C library; nothing where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if "DIFFREP_SHIM" in os.environ or compiler is None or sys.platform != "linux":
        return
    library = Path(mkdtemp(prefix="diffrep-shim-")) / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    env = os.environ | {"LD_PRELOAD": str(library), "DIFFREP_SHIM": str(library), "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, *arguments], env)


def has_shim() -> bool:
    """Can operations on files be made to fail here?"""
    return _shim() is not None


def _shim() -> ctypes.CDLL | None:
    library = os.environ.get("DIFFREP_SHIM")
    if library is None:
        return None
    shim = ctypes.CDLL(library)
    shim.faults_seen.restype = ctypes.c_long
    return shim
