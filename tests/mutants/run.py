"""Puts mistakes into a copy of the tree, one at a time, and names the test that notices each: `make mutants`.

All tests are read once, by one pytest, which then forks for each mistake: in the child the code of the changed
functions is exchanged, and tests run until one fails: those that call the function, as `--record` has written down
once, the quickest first; then those that name the module, stand beside it or belong to tests/general, since a run that
tests share is recorded with the first of them. A mistake outside of functions (a constant, a default) is tried in a
process of its own. Results go to a file of lines, so that a stopped call goes on. `--survivors` tries again what no
test noticed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from types import CodeType, FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
import callers  # noqa: E402
from mistakes import MISTAKES  # noqa: E402

BUILD = ROOT / "build" / "mutants"
FOUND, SECONDS = BUILD / "results.jsonl", BUILD / "seconds.json"
HANGS = 120  # seconds of a processor beyond the limit: a test that does not end
READERS = "tests/general/test_every_argument_is_read.py"  # tests that read the changed file, in no time
QUIET = ("-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not long")
Mistake = tuple[str, str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    parser.add_argument("--survivors", action="store_true", help="try those again that survived")
    parser.add_argument("--limit", type=int, default=240, help="seconds of a processor for one mistake")
    parser.add_argument("--record", action="store_true", help="run all tests once, and write down what each calls")
    parser.add_argument("--only", default="", help="mistakes whose file or text holds this")
    asked = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    if asked.record:
        callers.CALLERS.unlink(missing_ok=True)
        sys.exit(pytest.main([*QUIET, str(ROOT / "tests")], plugins=[callers]))
    if asked.again:
        FOUND.unlink(missing_ok=True)
    copy = Path(mkdtemp(prefix="diffrep-mutants-")) / "tree"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__"))
    done = {name for name, row in rows().items() if row["killer"] or not asked.survivors}
    todo = [mistake for mistake in MISTAKES if name_of(mistake) not in done and asked.only in name_of(mistake)]
    os.chdir(copy)
    sys.path[:0] = [str(copy / "src"), str(copy)]
    os.environ |= {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    pytest.main([*QUIET, "tests"], plugins=[Forks(copy, todo, asked.limit)])
    shutil.rmtree(copy.parent)
    found = rows().values()
    print(f"{sum(row['killer'] is not None for row in found)} of {len(found)} mistakes were noticed.")


def name_of(mistake: Mistake) -> str:
    file, right, wrong, _ = mistake
    return f"{file}: {right} -> {wrong}"


def rows() -> dict[str, dict[str, Any]]:
    """What is known of each mistake that stands in the list: its last line."""
    lines = FOUND.read_text().splitlines() if FOUND.exists() else []
    listed = {name_of(mistake) for mistake in MISTAKES}
    return {row["mistake"]: row for row in map(json.loads, lines) if row["mistake"] in listed}


class Forks:
    """In place of pytest's loop over the tests: for each mistake a child, which runs some of them."""

    def __init__(self, copy: Path, todo: list[Mistake], limit: int):
        self.copy, self.todo, self.limit, self.failed = copy, todo, limit, ""
        self.sound: dict[str, bool] = {}
        self.callers = callers.read()
        self.seconds: dict[str, float] = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}

    def pytest_runtestloop(self, session: Any) -> bool:
        by_file: dict[str, list[Any]] = {}
        for item in session.items:
            by_file.setdefault(item.nodeid.split("::")[0], []).append(item)
        texts = {name: (self.copy / name).read_text() for name in by_file}
        assert "diffrep" in sys.modules and str(sys.modules["diffrep"].__file__).startswith(str(self.copy))
        gc.freeze()
        for mistake in self.todo:
            begun = time.monotonic()
            named = [item for group in likely(mistake[0], texts) for item in self.in_order(group, by_file)]
            reading = [item for item in session.items if item.nodeid.startswith(READERS) and mistake[0] in item.nodeid]
            calling = [*reading, *sorted(self.calling(mistake, session.items), key=self.guess)]
            tests = [*calling, *(item for item in named if item not in calling)]
            tests = [item for item in tests if self.sound.get(item.nodeid, True)]
            while (killer := self.noticed(mistake, tests)) and self.fails_anyway(killer, tests):
                print(f"fails without a mistake too: {killer}", flush=True)
                tests = tests[[item.nodeid for item in tests].index(killer) + 1 :]
            row = {"mistake": name_of(mistake), "consequence": mistake[3], "killer": killer}
            with open(FOUND, "a") as lines:
                lines.write(json.dumps(row) + "\n")
            spent = round(time.monotonic() - begun)
            print(f"{killer or 'SURVIVED'}  {row['mistake']}  ({mistake[3]}, {spent} s)", flush=True)
        return True

    def calling(self, mistake: Mistake, items: list[Any]) -> list[Any]:
        """The tests that call a function that the mistake changes; of one outside of functions, any of its file."""
        file, right, wrong, _ = mistake
        path = self.copy / "src" / "diffrep" / file
        text = path.read_text()
        changed = pairs(text, text.replace(right, wrong), str(path)) or {}
        places = {f"{file}: {name}" for name in changed} or {p for p in self.callers if p.startswith(f"{file}: ")}
        names = set().union(*(self.callers.get(place, set()) for place in places))
        return [item for item in items if item.nodeid in names]

    def in_order(self, files: list[str], by_file: dict[str, list[Any]]) -> list[Any]:
        """The quickest file first, and of each file the quickest test: a run that its tests share is made once."""
        of_file = {file: sum(map(self.guess, by_file[file])) for file in files}
        return [item for file in sorted(files, key=of_file.get) for item in sorted(by_file[file], key=self.guess)]

    def guess(self, item: Any) -> float:
        """Seconds: as seen before, else one for a test that may train runs or start processes."""
        trains = any(hasattr(item.module, name) for name in ("train", "base", "run_of", "subprocess"))
        return self.seconds.get(item.nodeid, 1.0 if trains else 0.05)

    def noticed(self, mistake: Mistake, tests: list[Any]) -> str | None:
        """The first of these tests that fails with the mistake in the copy; None where all pass."""
        file, right, wrong, _ = mistake
        path = self.copy / "src" / "diffrep" / file
        text = path.read_text()
        path.write_text(text.replace(right, wrong))
        try:
            exchanged = pairs(text, text.replace(right, wrong), str(path))
            return self.alone(tests) if exchanged is None else self.forked(exchanged, path, tests)
        finally:
            path.write_text(text)

    def fails_anyway(self, name: str, tests: list[Any]) -> bool:
        """Whether a test fails without a mistake too, here or on this machine: such a test notices nothing."""
        if name not in self.sound:
            asked = [item for item in tests if item.nodeid == name]
            self.sound[name] = not asked or self.forked({}, Path(), asked) is None
        return not self.sound[name]

    def forked(self, exchanged: dict[str, CodeType], path: Path, tests: list[Any]) -> str | None:
        inside, outside = os.pipe()
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (self.limit + HANGS, self.limit + HANGS))
            tests[0].config.pluginmanager.unregister(name="terminalreporter")
            try:
                for function in known() if exchanged else ():
                    if isinstance(function, FunctionType) and function.__code__.co_filename == str(path):
                        function.__code__ = exchanged.get(function.__code__.co_qualname, function.__code__)
                self.failed = ""
                for item, following in zip(tests, [*tests[1:], None], strict=True):
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                    if self.failed or time.process_time() > self.limit:
                        break
                os.write(outside, json.dumps([self.failed, self.seconds]).encode())
            finally:
                os._exit(0)
        os.close(outside)
        with os.fdopen(inside) as answer:
            said = answer.read()
        os.waitpid(child, 0)
        if not said:
            return "a process that ended, or a test that did not"
        failed, self.seconds = json.loads(said)
        SECONDS.write_text(json.dumps(self.seconds))
        return failed or None

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed = self.failed or (report.nodeid if report.failed else "")
        if report.passed and report.when == "call":
            self.seconds[report.nodeid] = round(report.duration, 3)

    def alone(self, tests: list[Any]) -> str | None:
        """The same by a pytest of its own, which reads the changed file: the same tests, not all of their files."""
        files = list(dict.fromkeys(item.nodeid.split("::")[0] for item in tests))
        for some in (files[:1], files[1:4], files[4:]):
            names = [item.nodeid for item in tests if item.nodeid.split("::")[0] in some]
            command = [sys.executable, "-m", "pytest", "-x", "--tb=no", *QUIET, *names]
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout if names else ""
            for line in said.splitlines():
                if line.startswith(("FAILED", "ERROR")):
                    return line.split(" - ")[0].split(" ", 1)[1]
        return None


def known() -> list[Any]:
    """All objects that there are, those that gc.freeze() has put out of sight among them."""
    gc.unfreeze()
    return gc.get_objects()


def pairs(right: str, wrong: str, path: str) -> dict[str, CodeType] | None:
    """The code of each function that differs, by its qualified name; None where what stands outside of them does."""
    (outer, old), (changed, new) = (flat(compile(text, path, "exec")) for text in (right, wrong))
    if outer != changed or Counter(old.keys()) != Counter(new.keys()):
        return None
    differing = {name: new[name] for name in old if plain(old[name]) != plain(new[name])}
    return differing if differing and not any("<lambda>" in name for name in differing) else None


def flat(code: CodeType) -> tuple[list[Any], dict[str, CodeType]]:
    """What a module or a class body does itself, and the functions in it by qualified name."""
    own: list[Any] = [code.co_code, code.co_names]
    functions: dict[str, CodeType] = {}
    for constant in code.co_consts:
        if not isinstance(constant, CodeType):
            own.append(constant)
        elif constant.co_flags & 0x02:  # of a function: it has locals that are fast, and is new at each call
            functions[constant.co_qualname] = constant
        else:
            inner, more = flat(constant)
            own.append(inner)
            functions |= more
    return own, functions


def plain(code: CodeType) -> list[Any]:
    """A code object without the lines that it stands at."""
    constants = [plain(c) if isinstance(c, CodeType) else c for c in code.co_consts]
    return [code.co_code, code.co_names, code.co_varnames, constants]


def likely(file: str, tests: dict[str, str]) -> Iterator[list[str]]:
    """Files of tests, the likeliest first: the module's own, those that name it, those beside it, the general ones."""
    folder, module = Path(file).parent, Path(file).stem
    named = re.compile(rf"diffrep\.{'.'.join((*folder.parts, module))}\b|\bimport [^\n]*\b{module}\b")
    mine = f"tests/{folder}/test_{module}.py"
    beside = f"tests/{folder}/" if str(folder) != "." else "tests/test_config.py"
    chosen: set[str] = {"tests/general/test_mutants_match.py"}
    for group in (
        [name for name in tests if name == mine],
        [name for name, text in tests.items() if named.search(text)],
        [name for name in tests if name.startswith(beside)],
        [name for name in tests if name.startswith("tests/general/")],
    ):
        yield [name for name in group if name not in chosen]
        chosen |= {*group}


if __name__ == "__main__":
    main()
