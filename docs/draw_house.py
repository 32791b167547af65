"""Draws docs/house.svg, the folders and the imports between them, and counts both in docs/architecture.md.

Run it by `make house`. `tests/test_imports.py` reads the table and the imports by the same functions.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import combinations, permutations
from pathlib import Path
from textwrap import fill

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "diffrep"
PAGE, PICTURE = ROOT / "docs" / "architecture.md", ROOT / "docs" / "house.svg"
WORDS = ("amounts", "budget", "config", "errors", "files", "kinds")  # ground, with the next line
WORDS += ("older_settings", "progress", "shapes", "threads")
DOORS = ("api", "cli", "testing", "__main__")  # above all folders
GROUND, TOP = "shared words", "doors"
SENTENCES = {GROUND: ", ".join(WORDS), TOP: "api (Python), cli (command line)"}

WIDE, HIGH, ACROSS, UP = 3.2, 0.62, 3.7, 1.12  # of a room, and from one to the next
COLUMNS = [ACROSS * i / 2 for i in range(-3, 4)]  # centres of boxes; neighbours on a floor are two apart
INK, QUIET, FAINT, WALL, FILL = "#1f2937", "#4b5563", "#cbd5e1", "#64748b", "#f8fafc"


def modules() -> list[str]:
    """Every file of the package but the `__init__.py`, as a path within it."""
    return sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def rooms() -> dict[str, str]:
    """Folder -> its sentence, in the order of the table, from the ground up."""
    return dict(re.findall(r"^\| `(\w+)/` \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def imported(source: str) -> set[str]:
    """The rooms that a source imports anywhere in it, functions included: "denoising", "config"; "" is the top."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            whole = node.module == "diffrep"
            names |= {f"diffrep.{alias.name}" for alias in node.names} if whole else {node.module or ""}
    return {name.split(".")[1] for name in names if name.startswith("diffrep.")}


def room_of(module: str) -> str:
    """The folder of a module, or what stands for all files beside the folders: the shared words, the doors."""
    name = module.split("/")[0].removesuffix(".py")
    return GROUND if name in WORDS else TOP if name in DOORS else name


def arrows() -> dict[str, set[str]]:
    """Room -> the other rooms that it imports."""
    found: dict[str, set[str]] = {room: set() for room in (GROUND, *rooms(), TOP)}
    for module in modules():
        room = room_of(module)
        names = imported((PACKAGE / module).read_text(encoding="utf-8"))
        found[room] |= {room_of(name) for name in names} - {room}
    return found


def floors(of: dict[str, set[str]]) -> dict[str, int]:
    """Room -> its floor: one above the highest room that it imports; 0 for a room that imports none."""

    @cache
    def floor(room: str) -> int:
        return 1 + max(map(floor, of[room]), default=-1)

    return {room: floor(room) for room in of}


def needed(of: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The arrows that no chain of other arrows replaces: they give the floors."""

    @cache
    def below(room: str) -> frozenset[str]:
        return frozenset(of[room]).union(*map(below, of[room]))

    return {(a, b) for a in of for b in of[a] if not any(b in below(other) for other in of[a] - {b})}


def places(of: dict[str, set[str]]) -> dict[str, tuple[float, float]]:
    """Room -> the centre of its box: on its floor, where needed arrows are short and few arrows pass behind a box."""
    floor, short = floors(of), needed(of)
    levels = [[room for room in of if floor[room] == number] for number in range(max(floor.values()) + 1)]
    at = {
        room: (ACROSS * (i - (len(level) - 1) / 2), UP * floor[room])
        for level in levels
        for i, room in enumerate(level)
    }
    for _ in range(4):
        for number, level in enumerate(levels):
            columns = [c for c in permutations(COLUMNS, len(level)) if _apart(c)]
            options = [at | {room: (x, UP * number) for room, x in zip(level, c, strict=True)} for c in columns]
            at = min(options, key=lambda option: _disorder(option, of, short))
    return at


def _apart(columns: tuple[float, ...]) -> bool:
    return all(abs(a - b) > WIDE for a, b in combinations(columns, 2))


def _disorder(at: dict[str, tuple[float, float]], of: dict[str, set[str]], short: set[tuple[str, str]]) -> float:
    """Width of the needed arrows, and a price for each box that an arrow passes behind."""
    total = sum(abs(x) for x, _ in at.values()) / 8 + sum(abs(at[a][0] - at[b][0]) for a, b in short)
    for a, b in drawn(of):
        (x, y), (u, v) = at[a], at[b]
        between = [(p, q) for p, q in at.values() if v < q < y]
        hidden = sum(abs(u + (x - u) * (q - v) / (y - v) - p) < WIDE / 2 + 0.1 for p, q in between)
        total += (8 if (a, b) in short else 0.5) * hidden
    return total


def drawn(of: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows of the picture: of those to the shared words, which every room imports, only the needed ones."""
    return sorted((a, b) for a in of for b in of[a] if b != GROUND or (a, b) in needed(of))


def draw(of: dict[str, set[str]]) -> None:
    """docs/house.svg: dark arrows are needed, pale ones pass a floor."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    matplotlib.rcParams.update({"svg.hashsalt": "house", "svg.fonttype": "path", "font.family": "DejaVu Sans"})
    at, short, sentences = places(of), needed(of), rooms() | SENTENCES
    left, right = min(x for x, _ in at.values()) - 2.2, max(x for x, _ in at.values()) + 2.2
    bottom, top = -0.5, max(y for _, y in at.values()) + 0.5
    figure = Figure(figsize=((right - left) * 0.92, (top - bottom) * 0.92))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.axis("off")
    for a, b in drawn(of):
        (x, y), (u, v) = at[a], at[b]
        main = (a, b) in short
        arrow = FancyArrowPatch(
            (x + (u - x) * 0.12, y - HIGH / 2),
            (u + (x - u) * 0.12, v + HIGH / 2 + 0.02),
            arrowstyle="-|>,head_length=5,head_width=2.4",
            color=WALL if main else FAINT,
            linewidth=1.4 if main else 0.8,
            zorder=2 if main else 1,
            shrinkA=0,
            shrinkB=0,
        )
        axes.add_patch(arrow)
    for room, (x, y) in at.items():
        corner = (x - WIDE / 2, y - HIGH / 2)
        style = "round,pad=0,rounding_size=0.08"
        axes.add_patch(FancyBboxPatch(corner, WIDE, HIGH, boxstyle=style, fc=FILL, ec=WALL, lw=1.1, zorder=3))
        name = room if room in SENTENCES else f"{room}/"
        axes.text(x, y + 0.17, name, ha="center", va="center", fontsize=11, weight="bold", color=INK, zorder=4)
        sentence = fill(sentences[room], 50)
        axes.text(x, y - 0.1, sentence, ha="center", va="center", fontsize=7, color=QUIET, zorder=4, linespacing=1.1)
    figure.savefig(PICTURE, format="svg", metadata={"Date": None})


def count(of: dict[str, set[str]]) -> str:
    """The sentence of docs/architecture.md that counts rooms, floors and arrows."""
    number, essential = sum(map(len, of.values())), len(needed(of))
    return (
        f"{len(of)} rooms (the shared words and the doors among them) on {max(floors(of).values()) + 1} floors,"
        f" {number} arrows, of which {essential} are needed: the others pass a floor."
    )


if __name__ == "__main__":
    house = arrows()
    draw(house)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(r"^\d+ rooms \(.*$", count(house), page, flags=re.MULTILINE), encoding="utf-8")
    print(count(house))
