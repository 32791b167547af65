"""Runs the suite with the lowest version of each dependency that pyproject.toml states: `make test-lowest`.

`name>=1.2` becomes `name==1.2.*` for the direct dependencies; what they pull in is free, as it is for a user.
`--torch VERSION` in place of the lowest torch, where that one is not to be had.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUITE = ["-n", "2", "--dist", "worksteal", "-m", "not long"]  # as `make test` runs it
EXTRAS = ("dev", "hub", "priors", "trackers", "export", "cells", "hdf5", "zarr", "nifti", "tiff")


def lowest(requirement: str) -> str:
    """ "numpy>=2.0" -> "numpy==2.0.*"; another form stays."""
    return re.sub(r">=\s*([0-9.]+)$", r"==\1.*", requirement)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", help="this version of torch")
    parser.add_argument("pytest", nargs="*", default=SUITE, help="after --: its arguments")
    asked = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for e in EXTRAS for r in project["optional-dependencies"].get(e, ()))]
    pinned = [lowest(requirement) for requirement in wanted if not requirement.startswith("ruff")]
    if asked.torch:
        pinned = [f"torch=={asked.torch}" if p.startswith("torch=") else p for p in pinned]
    place = ROOT / "build" / "lowest"
    python = place / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *pinned], check=True)
    subprocess.run([*install, "--no-deps", "-e", str(ROOT)], check=True)
    subprocess.run([place / "bin" / "diffrep", "--help"], check=True, stdout=subprocess.DEVNULL)
    aware = {**os.environ, "SCIPY_ARRAY_API": "1"}  # without it scikit-learn 1.6 cannot import its own checks
    sys.exit(subprocess.run([python, "-m", "pytest", *asked.pytest], cwd=ROOT, env=aware, check=False).returncode)


if __name__ == "__main__":
    main()
