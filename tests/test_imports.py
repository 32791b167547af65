"""The floors of the house: docs/architecture.md lists its folders from the ground up, and imports go down the list."""

import ast
import importlib
import re

import pytest

from diffrep.kinds import ENCODERS, PRIORS
from draw_house import DOORS, PACKAGE, ROOT, WORDS, imported, modules, rooms

FOLDERS = sorted({path.split("/")[0] for path in modules() if "/" in path})
MODULES = modules()
MOST = 400  # lines of a file


def floor(room: str) -> int:
    """0 for the words that all share, above all folders for the doors."""
    return 0 if room in WORDS else len(FOLDERS) + 1 if room in DOORS else 1 + [*rooms()].index(room)


def test_every_folder_has_a_row():
    """A folder without a floor would be free to import anything; a row without a folder is a lie."""
    assert sorted(rooms()) == FOLDERS
    assert {path.removesuffix(".py") for path in MODULES if "/" not in path} == {*WORDS, *DOORS}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    """A folder imports only what stands above it in the table: so the house has no circles."""
    room = module.split("/")[0].removesuffix(".py")
    for other in imported((PACKAGE / module).read_text()) - {room}:
        below = floor(other) < floor(room) or (room in (*WORDS, *DOORS) and floor(other) == floor(room))
        assert below, f"{module} imports {other}, which stands on a higher floor"


@pytest.mark.parametrize("table, builder", [(ENCODERS, "nets"), (PRIORS, "methods")], ids=["encoders", "priors"])
def test_a_word_of_the_settings_names_a_class_that_its_builder_may_import(table, builder):
    """`kinds.made` imports by name, which the test above does not see."""
    for place in table.values():
        module, _, name = place.rpartition(".")
        assert floor(module.split(".")[0]) <= floor(builder), place
        assert isinstance(getattr(importlib.import_module(f"diffrep.{module}"), name), type), place


def test_an_import_upwards_is_seen():
    """The reader finds every form of import, those inside of functions among them."""
    source = "import diffrep.runs.run\nfrom diffrep import data\ndef f():\n    import diffrep.nets.blocks\n"
    assert imported(source) == {"runs", "data", "nets"}
    assert floor("config") < floor("nets") < floor("runs") < floor("cli")


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_a_folder_says_what_it_is_for_and_its_public_names_exist(folder):
    """The docstring of each __init__ is its sentence in the table, and every name that it offers can be imported."""
    package = importlib.import_module(f"diffrep.{folder}".rstrip("."))
    for name in getattr(package, "__all__", ()):
        assert getattr(package, name) is not None, name
        assert not (PACKAGE / folder / f"{name}.py").exists(), f"{name} would be a module or a function by turns"
    assert not folder or package.__doc__ == rooms()[folder]


@pytest.mark.parametrize("module", MODULES)
def test_a_file_is_short(module):
    """One noun, one file: what grows beyond 400 lines holds two."""
    assert len((PACKAGE / module).read_text().splitlines()) <= MOST


@pytest.mark.parametrize("module", [m for m in MODULES if m != "cli.py" and not m.startswith("commands/")])
def test_a_signature_can_be_remembered(module):
    """What takes more than eight arguments takes a value: they belong together. Of a command each is an option."""
    by_contract = {("estimators/encoder.py", "__init__"), ("data/reading.py", "asked")}  # scikit-learn's; one a setting
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.FunctionDef) and (module, node.name) not in by_contract:
            names = [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
            assert len(names) <= 8, f"{module}: {node.name} takes {', '.join(names)}"


def test_every_trap_has_its_test():
    """A test that is renamed or removed leaves the table of traps."""
    named = re.findall(r"`([\w/]*test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "traps.md").read_text())
    assert len(named) > 12
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), name


def test_the_core_does_not_know_the_engine_or_the_screen():
    """Of all modules, only the engine, what measures a machine, and the command line import those libraries."""
    allowed = {"accelerate": ("training/engine.py", "training/process.py", "commands/doctor.py"), "typer": ("cli.py",)}
    for module in MODULES:
        tree = ast.parse((PACKAGE / module).read_text())
        names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        for library, homes in allowed.items():
            at_home = module in homes or (library == "typer" and module.startswith("commands/"))
            assert library not in names or at_home, f"{module} imports {library}"


def test_public_names_stay():
    """Programs of others import these from diffrep since version 0.1.0."""
    import diffrep

    names = "METHODS Batch Draws Facts Model Run Settings UserError bound build evaluate load load_data settings train"
    assert set(names.split()) <= set(diffrep.__all__) and all(hasattr(diffrep, name) for name in names.split())


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_imports_what_there_is(script):
    """Scripts are run by hand, so that a name which moved would be missed on the day that a number is wanted."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffrep":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
