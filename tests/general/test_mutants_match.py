"""The list of mistakes fits the tree: each right text stands there once, and each is one that can be made."""

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "mutants"))
from mistakes import MISTAKES  # noqa: E402


@pytest.mark.parametrize("file", sorted({mistake[0] for mistake in MISTAKES}))
def test_each_right_text_occurs_once(file):
    """A mistake that cannot be put in is not noticed either: mend its text together with the code."""
    text = (ROOT / "src" / "diffrep" / file).read_text()
    for name, right, wrong, consequence in MISTAKES:
        if name == file:
            assert text.count(right) == 1, f"{file} holds {right!r} {text.count(right)} times"
            assert right != wrong and consequence


def test_there_are_enough_of_them_over_all_folders():
    """At least 150, none twice, in every folder that computes."""
    assert len({mistake[:3] for mistake in MISTAKES}) == len(MISTAKES) >= 150
    folders = Counter(mistake[0].split("/")[0] for mistake in MISTAKES)
    for folder in [
        "data",
        "nets",
        "denoising",
        "codes",
        "probes",
        "training",
        "models",
        "methods",
        "evaluation",
        "measures",
        "runs",
        "studies",
    ]:
        assert folders[folder], folder
