"""Puts mistakes into a copy of the tree, one at a time, and names the test that notices each: `make mutants`.

The tests that call a changed function are those of coverage contexts, recorded once by a run of the whole suite
(`--record`); without them the tests of the module's folder and tests/general stand in. Results go to a file of lines,
so that a stopped call goes on; a mistake whose text or whose tests have changed is tried again with `--again`.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
from mistakes import MISTAKES  # noqa: E402

BUILD = ROOT / "build" / "mutants"
SECONDS = 600  # for the tests of one mistake
KNOWN = ("passed", "failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="run the suite once and note which test calls what")
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    parser.add_argument("--every", type=int, default=1, help="each so many-th mistake alone")
    parser.add_argument("--first", type=int, default=0, help="begin at this one")
    asked = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    if asked.record:
        record()
    found = BUILD / "results.jsonl"
    if asked.again:
        found.unlink(missing_ok=True)
    done = {json.loads(line)["mistake"] for line in found.read_text().splitlines()} if found.exists() else set()
    copy = Path(mkdtemp(prefix="diffrep-mutants-")) / "tree"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "runs"))
    for file, right, wrong, consequence in MISTAKES[asked.first :: asked.every]:
        name = f"{file}: {right} -> {wrong}"
        if name in done:
            continue
        killer = noticed(copy, file, right, wrong)
        with open(found, "a") as lines:
            lines.write(json.dumps({"mistake": name, "consequence": consequence, "killer": killer}) + "\n")
        print(f"{killer or 'SURVIVED'}  {name}  ({consequence})", flush=True)
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    print(f"{sum(row['killer'] is not None for row in rows)} of {len(rows)} mistakes were noticed.")


def noticed(copy: Path, file: str, right: str, wrong: str) -> str | None:
    """The first test that fails with this mistake in the copy; None where all pass."""
    path = copy / "src" / "diffrep" / file
    text = path.read_text()
    path.write_text(text.replace(right, wrong))
    try:
        for tests in callers(file, text.count("\n", 0, text.index(right)) + 1, text):
            killer = run(copy, tests)
            if killer is not None:
                return killer
        return None
    finally:
        path.write_text(text)


def run(copy: Path, tests: list[str]) -> str | None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", *tests]
    environment = {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    try:
        said = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"no end within {SECONDS} s of {tests[0]}"
    if said.returncode in (0, 5):
        return None
    lines = [line for line in said.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0].split(" - ")[0].split(" ", 1)[1] if lines else f"pytest left with {said.returncode}"


def callers(file: str, line: int, text: str) -> list[list[str]]:
    """Groups of tests, the likeliest first: those that call the changed function, else those of its folder."""
    recorded = BUILD / "coverage"
    if recorded.exists():
        return [contexts(recorded, file, around(text, line))]
    folder, stem = Path(file).parent, Path(file).stem
    own = ROOT / "tests" / folder / f"test_{stem}.py"
    groups = [[str(own.relative_to(ROOT))]] if own.exists() else []
    general = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests" / "general").glob("test_*.py"))
    beside = ROOT / "tests" / folder
    return [
        *groups,
        [f"tests/{folder}"] if beside.is_dir() and str(folder) != "." else ["tests/test_config.py"],
        general,
    ]


def around(text: str, line: int) -> range:
    """The lines of the innermost function that a line stands in; the line alone outside of functions."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    spans = [range(n.lineno, (n.end_lineno or n.lineno) + 1) for n in ast.walk(ast.parse(text)) if isinstance(n, kinds)]
    return min((span for span in spans if line in span), key=len, default=range(line, line + 1))


def contexts(recorded: Path, file: str, lines: range) -> list[str]:
    """The tests that ran one of these lines, as recorded."""
    from coverage import CoverageData

    data = CoverageData(str(recorded))
    data.read()
    measured = next(name for name in data.measured_files() if name.endswith(f"src/diffrep/{file}"))
    by_line = data.contexts_by_lineno(measured)
    found = {name.split("|")[0] for line in lines for name in by_line.get(line, []) if name}
    return sorted(found) or ["tests"]


def record() -> None:
    """Runs the suite once under coverage, each test a context of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"]
    told = [f"--cov={ROOT / 'src' / 'diffrep'}", "--cov-context=test", "--cov-report="]
    subprocess.run([*command, *told], cwd=ROOT, check=False)
    shutil.move(ROOT / ".coverage", BUILD / "coverage")


if __name__ == "__main__":
    main()
