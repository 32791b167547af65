"""README and documents: every Python block runs, every command can be given, every link leads somewhere."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from diffrep.cli import app
from diffrep.methods.catalog import METHODS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
READ = sorted(path for path in PAGES if path.name not in ("alive.md", "methods.md"))


def blocks(kind: str) -> list:
    """(page and number, text) of the blocks of a kind."""
    found = []
    for page in PAGES:
        texts = [text for language, text in BLOCK.findall(page.read_text()) if language == kind]
        found += [pytest.param(text, id=f"{page.stem}-{i}") for i, text in enumerate(texts)]
    return found


def commands() -> list[str]:
    """Every diffrep command of a shell block, and of code in a line."""
    found: set[str] = set()
    for page in PAGES:
        text = page.read_text()
        lines = [
            line for language, block in BLOCK.findall(text) if language in ("", "sh") for line in block.splitlines()
        ]
        lines += re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
        found |= {line.strip() for line in lines if re.match(r"(\.venv/bin/)?diffrep |torchrun ", line.strip())}
    return sorted(line for line in found if not re.search(r"\.\.\.|\||FEATURES|STUDY|OTHER|\[|--list", line))


@pytest.mark.slow
@pytest.mark.parametrize("text", blocks("python"))
def test_a_block_of_python_runs(text, tmp_path, monkeypatch):
    """What a reader copies works as it stands."""
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "a block of the documents", "exec"), {"__name__": "block"})


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


def test_each_method_has_its_page():
    """The page of methods is written from the catalogue: each has an equation, a paper and a command."""
    spec = importlib.util.spec_from_file_location("write_pages", ROOT / "docs" / "write_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(module.EQUATIONS) == set(METHODS)
    text = module.methods()
    for name, method in METHODS.items():
        assert f"\n## {name}\n" in text and method.paper in text and f"--method {name} " in text


def test_pages_of_the_site_are_in_its_menu():
    """A page that the menu does not have is found by nobody."""
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in menu, page.name
