"""Small commands start at once: what takes seconds to import waits until something needs it."""

import subprocess
import sys

import pytest

LARGE = ("torch", "numpy", "sklearn", "scipy", "matplotlib", "pyarrow", "accelerate", "PIL")
LOOK = f"""
import sys
from diffrep import cli
try:
    cli.main()
finally:
    print(*(name for name in {LARGE} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("words", ["--help", "methods", "settings", "mistyped", "train --help", "train --out"])
def test_a_small_command_imports_nothing_large(words):
    """A count of modules, not of seconds: on any machine each of these libraries takes a part of a second or more."""
    done = subprocess.run([sys.executable, "-c", LOOK, *words.split()], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "", done.stderr


def test_the_package_names_its_parts_lazily():
    """`import diffrep` offers every public name and imports none of what stands behind it."""
    look = "import sys, diffrep; print(len(dir(diffrep)) > 10, 'torch' in sys.modules, 'diffrep.api' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]
