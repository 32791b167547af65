"""What a user called something is printed as it is: no markup, no emoji; and JSON is JSON."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import diffrep as package
from diffrep import cli
from diffrep.commands import console
from runs_at_hand import SMALL, diffrep

ODD = ("c1cc[nH]c1", "[/b]x", "band:a:b", ":smile:", "[red]")
FOLDER = Path(package.__file__).parent


def test_names_are_printed_as_they_are(tmp_path, capsys, monkeypatch):
    """Odd names of folders, columns and runs, through all commands that print names."""
    monkeypatch.chdir(tmp_path)
    for i in range(24):
        folder = Path("set[v2]:a:") / ODD[i % 5].replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
    assert diffrep("data", "set[v2]:a:") == 0
    printed = capsys.readouterr().out
    assert "set[v2]:a:" in printed and all(name.replace("/", "-") in printed for name in ODD)
    assert diffrep("train", "--data", "set[v2]:a:", "--method", "ae", "--out", "run[/b]", *SMALL) == 0
    printed = capsys.readouterr().out
    assert "set[v2]:a:" in printed and "run[/b]" in printed
    assert diffrep("runs", ".") == 0 and "run[/b]" in capsys.readouterr().out.replace("\n", "")
    rng = np.random.default_rng(0)
    y = np.array(ODD)[rng.integers(0, 5, 60)]
    np.savez("[raw]:b:.npz", features=rng.normal(size=(60, 3)), labels=y)
    assert diffrep("probe", "[raw]:b:.npz", "--few", "1") == 0 and "[raw]:b:" in capsys.readouterr().out
    assert diffrep("probe", "[raw]:b:.npz", "--few", "99") == 2
    said = capsys.readouterr().err
    assert any(f"class {name} has" in said for name in ODD)  # and no number
    assert diffrep("settings") == 0
    assert "band:a:b" in capsys.readouterr().out.replace("\n", "")


def test_every_console_has_markup_and_emoji_off():
    """A walk over the source: each Console that is made says so, and nothing prints past them with markup on."""
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            words = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            if called == "Console":
                assert words.get("markup") is False and words.get("emoji") is False, path
            if called == "TextColumn" and "description" in ast.dump(node):
                assert words.get("markup") is False, path
            assert words.get("markup") is not True and words.get("emoji") is not True, path
    assert isinstance(console.out, Console) and not console.out._markup and not console.out._emoji


@pytest.mark.parametrize("name", ["train", "settings", "probe", "data"])
def test_help_keeps_colons(name):
    """`band:a:b` in a help text is no emoji."""
    printed = CliRunner().invoke(cli.app, [name, "--help"], terminal_width=200).output
    assert all(ord(letter) < 0x1F000 for letter in printed)


def test_what_is_no_number_is_null_in_json(tmp_path, capsys):
    """One test example leaves an error unknown: null, which every reader of JSON takes."""
    rng = np.random.default_rng(0)
    split = np.array(["train"] * 30 + ["valid"] * 9 + ["test"])
    np.savez(tmp_path / "f.npz", features=rng.normal(size=(40, 3)), labels=np.arange(40) % 2, split=split)
    assert diffrep("probe", tmp_path / "f.npz", "--json", "--protocols", "knn") == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=lambda constant: pytest.fail(constant))
    assert facts["scores"]["f"]["knn"]["se"] is None and facts["scores"]["f"]["knn"]["auroc"] is None


def test_warnings_of_scikit_learn_stay_inside(tmp_path, capsys, recwarn):
    """Fits that do not converge, constant features, a class of one example: numbers, and nothing on stderr."""
    rng = np.random.default_rng(0)
    x = np.column_stack([1e6 * rng.normal(size=(60, 3)), np.ones(60)])
    np.savez(tmp_path / "f.npz", features=x, labels=np.where(np.arange(60) == 7, 9, np.arange(60) % 2))
    assert diffrep("probe", tmp_path / "f.npz", "--protocols", "linear,knn,svm,mlp") == 0
    assert capsys.readouterr().err == "" and not [w for w in recwarn if "sklearn" in w.filename]


def test_progress_is_said_where_there_is_no_terminal(capsys, monkeypatch):
    """At most a line every half minute, on stderr; nothing where one asked for quiet."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress() as update:
        for k in range(100):
            now[0] = float(k)
            update("steps [b]", k, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"diffrep: steps [b]: {k} of 100" for k in (30, 60, 90)]
    monkeypatch.setattr(console.out, "quiet", True)
    with console.progress() as update:
        now[0] = 999.0
        update("steps", 1, 2)
    assert capsys.readouterr().err == ""
