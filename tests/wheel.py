"""Builds the wheel, installs it into a bare environment outside of this tree, and trains with it: `make test-wheel`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]


def main() -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder)
        python, clean = place / "venv" / "bin" / "python", {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        pip = ["-m", "pip", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
        subprocess.run([python, *pip, "wheel", "-q", "--no-deps", "-w", place, ROOT], check=True, cwd=place)
        (wheel,) = place.glob("*.whl")
        subprocess.run([python, *pip, "install", "-q", "-c", ROOT / "constraints.txt", wheel], check=True, cwd=place)
        command = place / "venv" / "bin" / "diffrep"
        subprocess.run([command, "--help"], check=True, cwd=place, env=clean, stdout=subprocess.DEVNULL)
        words = ["train", "--data", "digits", "--method", "drl", "--out", "run", "--budget", "2000ex", "--json"]
        said = subprocess.run([command, *words], check=True, cwd=place, env=clean, capture_output=True, text=True)
        assert json.loads(said.stdout.splitlines()[-1])["examples"] == 2000, said.stdout
        subprocess.run([command, "evaluate", "run"], check=True, cwd=place, env=clean)
        print("The wheel installs, helps, trains on 2,000 examples and evaluates.")


if __name__ == "__main__":
    main()
