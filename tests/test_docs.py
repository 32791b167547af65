"""README and documents: each block of Python and of commands runs, each command can be given, links lead somewhere."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image

from diffrep.cli import app
from diffrep.config import Settings, override, value
from diffrep.methods.catalog import METHODS, build
from diffrep.methods.parts import Facts
from runs_at_hand import SMALL, diffrep
from samples import png

ROOT = Path(__file__).parents[1]
WRITTEN = ROOT / "docs" / "methods"  # by docs/write_pages.py, from the code
PAGES = sorted(
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    if WRITTEN not in (path.parent, path.with_suffix(""))
)
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"python file=ownmethod/__init__.py", "python file=use.py", "python file=loop.py", "python consumer"}
READ = sorted(path for path in PAGES if path.name not in ("alive.md", "methods.md"))


def blocks(kind: str) -> list:
    """(page and number, text) of the blocks of a kind."""
    found = []
    for page in PAGES:
        texts = [text for language, text in BLOCK.findall(page.read_text()) if language == kind]
        found += [pytest.param(text, id=f"{page.stem}-{i}") for i, text in enumerate(texts)]
    return found


def lines(page: Path) -> list[str]:
    """The commands of a page's shell blocks, and of `make demo`, in their order."""
    text = page.read_text().replace("$(DIFFREP)", "diffrep")
    found = [block for language, block in BLOCK.findall(text) if language in ("", "sh")]
    if page.name == "Makefile":
        found = [re.search(r"^demo:.*\n((?:\t.*\n)+)", text, re.MULTILINE)[1].replace("\t", "")]
    return [line for line in "\n".join(found).splitlines() if line.startswith(("diffrep ", "torchrun "))]


OF_COMMANDS = [page for page in (ROOT / "Makefile", *PAGES) if lines(page)]


def commands() -> list[str]:
    """Every diffrep command of a shell block, and of code in a line."""
    found: set[str] = set()
    for page in PAGES:
        text = page.read_text()
        shell = [block for language, block in BLOCK.findall(text) if language in ("", "sh")]
        lines = "\n".join(shell).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
        found |= {line.strip() for line in lines if re.match(r"(\.venv/bin/)?diffrep |torchrun ", line.strip())}
    return sorted(line for line in found if not re.search(r"\.\.\.|\||FEATURES|STUDY|OTHER|\[|--list", line))


@pytest.mark.long
@pytest.mark.parametrize("text", blocks("python"))
def test_a_block_of_python_runs(text, tmp_path, monkeypatch):
    """What a reader copies works as it stands."""
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "a block of the documents", "exec"), {"__name__": "block"})


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with what the pages expect of a reader: pictures, cells and shards."""
    anndata = pytest.importorskip("anndata")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(x) for x in rng.integers(0, 256, (80, 8, 8), dtype=np.uint8)]
    for i, picture in enumerate(pictures):
        place = tmp_path / "photos" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{i}.png")
    (tmp_path / "shards").mkdir()
    for split in ("train", "valid", "test"):
        rows = [{"image": {"bytes": png(picture), "path": None}, "label": i % 2} for i, picture in enumerate(pictures)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "shards" / f"{split}-0.parquet")
    names = {n: pd.Index([f"{n}{i}" for i in range(80)], dtype=object) for n in ("cell", "gene")}
    obs = pd.DataFrame({"cell_type": np.arange(80) % 2, "batch": np.arange(80) // 2 % 2}, index=names["cell"])
    counts = rng.poisson(rng.gamma(0.5, 4.0, (2, 80))[np.arange(80) % 2]).astype(np.float32)
    anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=names["gene"])).write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("page", OF_COMMANDS, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, here):
    """One after the other, as a reader gives them, with a budget of two steps; but for those that wait for a browser or
    a host."""
    for line in lines(page):
        if re.search(r"explore|s3://|https://", line):
            continue
        words = shlex.split(re.sub(r"--budget \S+", " ".join(SMALL), line))
        if words[0] == "diffrep":
            assert diffrep(*words[1:]) == 0, line
        else:
            known = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
            started = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:]]
            assert subprocess.run(started, env=known).returncode == 0, line


def test_each_block_is_of_a_kind_that_runs():
    """Blocks of other words are run by tests of their own; TOML is TOML."""
    kinds = {kind for page in PAGES for kind, _ in BLOCK.findall(page.read_text())}
    assert kinds - {"", "sh", "python", "toml"} == ELSEWHERE
    for text in blocks("toml"):
        assert tomllib.loads(*text.values)


@pytest.mark.parametrize("line", commands())
def test_a_command_can_be_given(line):
    """The command line knows each command, option and value that the documents name."""
    words = shlex.split(line, comments=True)
    words = words[words.index("diffrep") + 1 :] if "diffrep" in words else words[words.index(".venv/bin/diffrep") + 1 :]
    root = typer.main.get_command(app)
    name, *rest = words
    if name.startswith("-"):
        return
    command = root.commands[name]
    if rest and "--help" not in rest and not re.search(r"^[A-Z]+$", rest[-1]):
        command.make_context(name, rest)


@pytest.mark.parametrize("page", READ, ids=lambda page: page.stem)
def test_a_link_leads_somewhere(page):
    """A file that a page links to or shows is there."""
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http") and Path(target).name != "methods.md":
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def pages_of_methods():
    """The module that writes the pages of the methods."""
    spec = importlib.util.spec_from_file_location("write_pages", ROOT / "docs" / "write_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = pages_of_methods()


def test_each_method_has_its_page():
    """A method of the catalogue has a page, a row of the overview and a line of the menu, and no other name has one."""
    menu = re.findall(r"methods/([\w-]+)\.md", (ROOT / "mkdocs.yml").read_text())
    assert list(METHODS) == list(WRITER.ABOUT) == menu
    assert re.findall(r"\(methods/([\w-]+)\.md\)", WRITER.overview()) == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_page_of_a_method_is_whole(name):
    """Each section has a text, each link leads to a page, and the numbers are those of a benchmark."""
    text = WRITER.page(name)
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert list(sections) == ["Equation", "Recipe", "The paper's settings", "What it is good for", "Numbers"]
    assert all(len(body.strip()) > 15 for body in sections.values()), sections
    assert METHODS[name].paper in text and f"def {METHODS[name].build.__name__}(" in sections["Recipe"]
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert Path(target).stem in METHODS or (ROOT / "docs" / "methods" / target).resolve().exists(), target
    if name == "simclr":  # of results/benchmark-mnist.md, which another script wrote
        assert "| MNIST, 40,000 examples | 0.952 | 0.929 | 0.868 |" in text


@pytest.mark.parametrize("name", METHODS)
def test_the_settings_of_a_paper_load_and_act(name):
    """Each differs from the default, and those of the model are read by it: none draws a warning."""
    paper = WRITER.ABOUT[name]["paper"]
    plain, settings = Settings(method=name), override(Settings(method=name), paper)
    for setting in paper:
        key = setting.split("=")[0]
        assert value(settings, key) != value(plain, key), setting
    small = override(settings, ["decoder.width=8", "decoder.blocks=1"]) if METHODS[name].decodes else settings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(small, Facts((3, 32, 32), None, classes=3))


def test_pages_of_the_site_are_in_its_menu():
    """A page that the menu does not have is found by nobody."""
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in menu, page.name
