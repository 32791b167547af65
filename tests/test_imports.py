"""The layers of the house: the table in docs/architecture.md is read, and every import must go down it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "diffrep"
COMMANDS = {f"commands/{path.name}" for path in (PACKAGE / "commands").glob("*.py")}
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def table() -> dict[str, tuple[int, int]]:
    """Module -> (layer, row), as the table of docs/architecture.md lists them."""
    rows = re.findall(r"^\| L(\d+) \| `([\w/]+\.py)` \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    return {module: (int(layer), row) for row, (layer, module) in enumerate(rows)}


def imported(source: str, known: set[str]) -> set[str]:
    """The modules of ours that a source imports anywhere in it, functions included; `from diffrep import noise` too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    names |= {"diffrep.data.splits"} if "diffrep.data" in names else set()  # the package stands for its last module
    paths = {name.removeprefix("diffrep.").replace(".", "/") + ".py" for name in names if name.startswith("diffrep.")}
    return paths & known


def test_every_module_has_a_row():
    """A module without a layer would be free to import anything; a row without a module is a lie."""
    assert sorted(table()) == MODULES


def test_the_table_is_in_order_of_layers():
    """It is read from the ground up."""
    layers = [layer for layer, _ in table().values()]
    assert layers == sorted(layers)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    """A module imports lower layers, or what its own layer lists before it: so the package has no cycles."""
    rows = table()
    for other in imported((PACKAGE / module).read_text(), set(MODULES)):
        assert rows[other] < rows[module], f"{module} {rows[module]} imports {other} {rows[other]}"


def test_an_import_upwards_is_seen():
    """The reader finds every form of import, those inside of functions among them."""
    source = "import diffrep.noise\nfrom diffrep import terms\ndef f():\n    from diffrep.nets.blocks import Padding\n"
    assert imported(source, set(MODULES)) == {"noise.py", "terms.py", "nets/blocks.py"}


def test_every_trap_has_its_test():
    """A test that is renamed or removed leaves the table of traps."""
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "traps.md").read_text())
    assert len(named) > 12
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), name


def test_the_core_does_not_know_the_engine_or_the_screen():
    """Of all modules, only the engine, what measures a machine, and the progress bar import those libraries."""
    allowed = {"accelerate": {"places.py", "training.py", "doctor.py"}, "typer": {"cli.py", *COMMANDS}}
    for module in MODULES:
        tree = ast.parse((PACKAGE / module).read_text())
        names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        for library, homes in allowed.items():
            assert library not in names or module in homes, f"{module} imports {library}"
