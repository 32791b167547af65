"""Runs many trials of every kind of fault and counts what happened: `make faults`.

    python tests/faults/run.py --out results/faults.json            the long form; stopped, it goes on where it was
    python tests/faults/run.py --short --out FILE                   the short form, a test that is marked long

Each trial has a number, and the same number is the same trial: `--only kill --first 17 --count 1` repeats one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "benchmarks")]
from record import about, write  # noqa: E402

from faults import children  # noqa: E402

LONG = {
    "kill": 200, "disk": 400, "unreadable": 150, "full": 60, "changed_byte": 600, "memory": 150, "worker": 40,
    "second": 60, "clock": 30, "inputs": 200,
}  # fmt: skip
SHORT = {
    "kill": 3, "disk": 4, "unreadable": 2, "full": 1, "changed_byte": 4, "memory": 2, "worker": 1, "second": 2,
    "clock": 1, "inputs": 4,
}  # fmt: skip
KILLS = 500  # trials of "kill" go on until there were so many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a file of JSON, continued where it is there")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", help="kinds of fault, with commas")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--count", type=int, help="number of trials of each kind")
    asked = parser.parse_args()
    children.with_shim([__file__, *sys.argv[1:]])
    warnings.simplefilter("ignore")
    import torch

    from faults.trials import BAD, TRIALS
    from faults.works import warmed

    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        warmed()
    here = about()
    file = json.loads(asked.out.read_text()) if asked.out.exists() else {**here, "faults": {}}
    state = file["faults"]
    for entry in state.values():
        entry.setdefault("commits", [file["commit"]])
    for kind, long in LONG.items():
        if asked.only and kind not in asked.only.split(","):
            continue
        wanted = asked.count or (SHORT[kind] if asked.short else long)
        entry = state.setdefault(kind, {"next": asked.first, "counts": {}, "findings": {}, "commits": []})
        while entry["next"] < asked.first + wanted or (
            kind == "kill" and not asked.short and not asked.count and entry["counts"].get("kills", 0) < KILLS
        ):
            if kind in ("disk", "unreadable") and not children.has_shim():
                break
            counts = Counter(entry["counts"])
            for what, count in TRIALS[kind](entry["next"]).items():
                if what.startswith("said: "):
                    found = children.without_folders(what.removeprefix("said: "))
                    entry["findings"][f"{entry['next']} {found}"] = count
                else:
                    counts[what] += count
            commits = list(dict.fromkeys([*entry["commits"], here["commit"]]))
            entry.update(counts=dict(counts), next=entry["next"] + 1, commits=commits)
            write(asked.out, file)
        print(kind, entry["counts"], flush=True)
    write(asked.out, file)
    worst = {f"{kind}: {bad}": entry["counts"].get(bad, 0) for kind, entry in state.items() for bad in BAD}
    sys.exit(any(worst.values()))


if __name__ == "__main__":
    main()
