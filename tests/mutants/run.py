"""Puts mistakes into a copy of the tree, one at a time, and names the test that notices each: `make mutants`.

The tests that call a changed function are those of coverage contexts, recorded once by a run of the suite
(`--record`); without them the tests of the module's folder and tests/general stand in. The quickest run first, in a
child of this process, which has imported what takes long to import. Results go to a file of lines, so that a stopped
call goes on: a mistake that is known is not tried again, unless it survived and `--survivors` asks for it.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
from mistakes import MISTAKES  # noqa: E402

BUILD = ROOT / "build" / "mutants"
RECORDED, SECONDS_OF, FOUND = BUILD / "coverage", BUILD / "seconds.json", BUILD / "results.jsonl"
LIMIT = 600  # seconds for a group of tests
SLOW_IMPORTS = "torch sklearn.linear_model sklearn.ensemble scipy.stats pyarrow.parquet matplotlib.pyplot hypothesis"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="run the suite once and note which test calls what")
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    parser.add_argument("--survivors", action="store_true", help="try those again that survived")
    parser.add_argument("--every", type=int, default=1, help="each so many-th mistake alone")
    parser.add_argument("--first", type=int, default=0, help="begin at this one")
    asked = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    if asked.record:
        in_a_child(ROOT, record, None)
    if asked.again:
        FOUND.unlink(missing_ok=True)
    copy = Path(mkdtemp(prefix="diffrep-mutants-")) / "tree"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "runs.toml"))
    for name in SLOW_IMPORTS.split():
        __import__(name)
    in_a_child(copy, warmed, None)
    done = {name for name, row in rows().items() if row["killer"] or not asked.survivors}
    for file, right, wrong, consequence in MISTAKES[asked.first :: asked.every]:
        name = f"{file}: {right} -> {wrong}"
        if name in done:
            continue
        begun = time.monotonic()
        killer = noticed(copy, file, right, wrong)
        seconds = round(time.monotonic() - begun)
        with open(FOUND, "a") as lines:
            row = {"mistake": name, "consequence": consequence, "killer": killer, "seconds": seconds}
            lines.write(json.dumps(row) + "\n")
        print(f"{killer or 'SURVIVED'}  {name}  ({consequence}, {seconds} s)", flush=True)
    shutil.rmtree(copy.parent)
    found = rows().values()
    print(f"{sum(row['killer'] is not None for row in found)} of {len(found)} mistakes were noticed.")


def rows() -> dict[str, dict[str, Any]]:
    """What is known of each mistake that stands in the list: its last line."""
    listed = {f"{file}: {right} -> {wrong}" for file, right, wrong, _ in MISTAKES}
    lines = FOUND.read_text().splitlines() if FOUND.exists() else []
    return {row["mistake"]: row for row in map(json.loads, lines) if row["mistake"] in listed}


def noticed(copy: Path, file: str, right: str, wrong: str) -> str | None:
    """The first test that fails with this mistake in the copy; None where all pass."""
    path = copy / "src" / "diffrep" / file
    text = path.read_text()
    kept = path.stat()
    path.write_text(text.replace(right, wrong))
    try:
        for tests in callers(file, text.count("\n", 0, text.index(right)) + 1, text):
            killer = in_a_child(copy, first_to_fail, tests)
            if killer is not None:
                return killer
        return None
    finally:
        path.write_text(text)
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # so that its compiled form is known again


def in_a_child(tree: Path, what: Any, tests: Any) -> str | None:
    """What `what` says about a tree, in a process of its own: what it imports is gone with it."""
    said = BUILD / f"said-{os.getpid()}"
    said.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(tree)
        os.environ |= {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
        sys.path.insert(0, str(tree / "src"))
        sys.dont_write_bytecode = what is first_to_fail  # a mistake stays in its process
        if what is not record:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1), os.dup2(null, 2)
        try:
            answer = what(tests)
            said.write_text(answer or "")
        finally:
            os._exit(0)
    ends = time.monotonic() + (LIMIT if what is not record else 6 * 3600)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"no end within {LIMIT} s"
        time.sleep(0.05)
    return (said.read_text() or None) if said.exists() else "a process that died"


def warmed(_: None) -> None:
    """Reads all tests once, so that their compiled form and that of the package lie beside them."""
    import pytest

    pytest.main(["-q", "--collect-only", "-p", "no:xdist", "-p", "no:cacheprovider"])


def first_to_fail(tests: list[str]) -> str | None:
    """The first of these tests that fails; a file in place of a test stands for all of its tests."""
    import pytest

    class Chosen:
        def __init__(self) -> None:
            self.failed: str | None = None
            self.seconds = seconds_of()

        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            """The quickest file first, and of each file the quickest test: a run that tests share is made once."""
            items[:] = [item for item in items if {item.nodeid, item.nodeid.split("::")[0]} & {*tests}]
            of_file: Counter[str] = Counter()
            for item in items:
                of_file[item.nodeid.split("::")[0]] += self.seconds.get(item.nodeid, 0.1)
            items.sort(key=lambda i: (of_file[f := i.nodeid.split("::")[0]], f, self.seconds.get(i.nodeid, 0.1)))

        def pytest_runtest_logreport(self, report: Any) -> None:
            self.failed = report.nodeid if report.failed and self.failed is None else self.failed
            if report.passed and report.when == "call":
                self.seconds[report.nodeid] = round(report.duration, 3)

        def pytest_collectreport(self, report: Any) -> None:
            self.failed = f"{report.nodeid} (cannot be read)" if report.failed and self.failed is None else self.failed

    chosen = Chosen()
    files = list(dict.fromkeys(name.split("::")[0] for name in tests))
    quiet = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:cov", "-m", "not long"]
    pytest.main([*quiet, *files], plugins=[chosen])
    SECONDS_OF.write_text(json.dumps(chosen.seconds))
    return chosen.failed


def callers(file: str, line: int, text: str) -> Iterator[list[str]]:
    """Groups of tests, the likeliest first: those that call the function, or name its module; then all beside it."""
    folder, module = Path(file).parent, Path(file).stem
    tests = {str(p.relative_to(ROOT)): p for p in sorted((ROOT / "tests").rglob("test_*.py"))}
    general = [name for name in tests if name.startswith("tests/general/") and "mutants" not in name]
    own = f"tests/{folder}/" if str(folder) != "." else "tests/test_config.py"
    beside = [name for name in tests if name.startswith(own)]
    if RECORDED.exists():
        calling = sorted(contexts(file, around(text, line)), key=lambda name: seconds_of().get(name, 0.0))
        near = [name for name in calling if name.startswith((own, "tests/general/"))]
        quick = (near or calling)[:60]
        yield from filter(None, [quick, [name for name in calling if name not in {*quick}]])
        beside += [name.split("::")[0] for name in calling]
    else:
        named = re.compile(rf"diffrep\.{'.'.join((*folder.parts, module))}\b|\bimport [^\n]*\b{module}\b")
        naming = [name for name, path in tests.items() if named.search(path.read_text())]
        mine = [name for name in tests if name == f"tests/{folder}/test_{module}.py"]
        first = [*mine, *(name for name in naming if name in general)]
        yield from filter(None, [first, [name for name in naming if name not in first]])
        beside, general = ([n for n in names if n not in {*first, *naming}] for names in (beside, general))
    yield from filter(None, [beside, [name for name in general if name not in beside]])


def around(text: str, line: int) -> range | None:
    """The lines of the innermost function that a line stands in; None outside of functions."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    spans = [range(n.lineno, (n.end_lineno or n.lineno) + 1) for n in ast.walk(ast.parse(text)) if isinstance(n, kinds)]
    return min((span for span in spans if line in span), key=len, default=None)


def contexts(file: str, lines: range | None) -> set[str]:
    """The tests that ran one of these lines, as recorded; for a constant those that ran any line of its file."""
    from coverage import CoverageData

    data = CoverageData(str(RECORDED))
    data.read()
    measured = next((name for name in data.measured_files() if name.endswith(f"src/diffrep/{file}")), None)
    by_line = {} if measured is None else data.contexts_by_lineno(measured)
    return {
        name.split("|")[0]
        for line, names in by_line.items()
        if lines is None or line in lines
        for name in names
        if name
    }


def seconds_of() -> dict[str, float]:
    """How long each test took when it was last seen."""
    return json.loads(SECONDS_OF.read_text()) if SECONDS_OF.exists() else {}


def record(_: None) -> None:
    """Runs the suite once under coverage, each test a context of its own, and notes how long each takes."""
    import pytest

    class Notes:
        seconds: dict[str, float] = {}  # noqa: RUF012
        file: str = ""

        def pytest_runtest_setup(self, item: Any) -> None:
            """Runs that all tests share are made anew for each file, so that each file is seen to make them."""
            if item.path.name != self.file:
                self.file = item.path.name
                for module, name in (("tiny", "base"), ("runs_at_hand", "run_of")):
                    if module in sys.modules:
                        getattr(sys.modules[module], name).cache_clear()

        def pytest_runtest_logreport(self, report: Any) -> None:
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    notes = Notes()
    os.environ["COVERAGE_FILE"] = str(RECORDED.with_name("recording"))
    told = [f"--cov={ROOT / 'src' / 'diffrep'}", "--cov-context=test", "--cov-report="]
    pytest.main(["-q", "-p", "no:xdist", "-m", "not long", "--color=no", *told], plugins=[notes])
    SECONDS_OF.write_text(json.dumps(notes.seconds))
    RECORDED.with_name("recording").replace(RECORDED)


if __name__ == "__main__":
    main()
