"""Oracle 2 by reading: a choice that a function is asked for reaches what it calls under the same name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "diffrep"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
CHOICES = {"int", "float", "str", "bool", "None", "tuple", "Sequence", "list", "Sampling", "Probing"}
CHOICES |= {"Seed", "Device", "Sampler", "Steps", "Spacing", "Moved", "CodeTime", "SkipBad"}  # options of commands
LOCAL = ("cli.py", "commands/", "measures/", "studies/")  # here what a function has made of its choices counts too
NAMES = {"name"}  # of what a sentence speaks about
OWN = """
cli.py: main code leave
commands/console.py: show_metrics value plus_minus
commands/doctor.py: examine device place
commands/studies.py: benchmark words names_of
commands/studies.py: compare text say
data/places.py: places groups _counts
estimators/codes.py: bounds levels model.bound
evaluation/layers.py: readout most linear.linear
evaluation/layers.py: readout most split.labelled_first
evaluation/refine.py: refined levels refine
measures/disentangle.py: disentangle t hypersphere.uniformity
measures/evaluate.py: _bound count amount
measures/evaluate.py: _probes most knn
measures/probe.py: _targets names missing_label
measures/probe.py: sentences count amount
measures/readout.py: read_times k even_times
measures/readout.py: read_times most over_times.combined_linear
measures/readout.py: read_times way over_times.combined
measures/readout.py: read_times way over_times.combined_linear
measures/semi.py: _steps_within steps descend
measures/semi.py: semi seed drawn
models/warm_start.py: sample_from n given.conditioned
nets/blocks.py: DenseBlock.__init__ channels Modulation
nets/blocks.py: DenseBlock.__init__ width Modulation
nets/blocks.py: ResidualBlock.__init__ inputs convolution
nets/blocks.py: ResidualBlock.__init__ stride convolution
nets/decoders.py: Generator.__init__ width ResidualBlock
nets/decoders.py: UNet.__init__ patch Generator
nets/encoders.py: TransformerBlock.__init__ channels Modulation
nets/encoders.py: TransformerBlock.__init__ width Modulation
pages/app.py: _between_tab number explorer.example
pages/app.py: _map_tab chosen explorer.map
pages/explorer.py: Explorer.inspect count nearest
probes/linear.py: linear most labelled
probes/logistic.py: _descended penalty cross_entropy_and_slope
probes/references.py: references dim Features
studies/benchmark.py: _references names _probed
studies/plan.py: expand code Planned
studies/study.py: measure levels profile
"""  # file: function, word, what is called: where the same word means another thing, or the rest of it is chosen before


@dataclass(frozen=True)
class Signature:
    """What a function of ours is asked for: word -> whether it is a choice (a number, a name, several of them) that may
    be left out, in order."""

    words: tuple[str, ...]
    positional: int
    choices: frozenset[str]
    free: frozenset[str]

    @classmethod
    def of(cls, node: ast.FunctionDef | ast.ClassDef) -> Signature | None:
        if isinstance(node, ast.FunctionDef):
            given = node.args
            places = [*given.posonlyargs, *given.args]
            defaults = dict(zip([one.arg for one in reversed(places)], reversed(given.defaults), strict=False))
            defaults |= {one.arg: d for one, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d}
            both = [*places, *given.kwonlyargs]
            chosen = {one.arg for one in both if one.annotation is None or is_choice(one.annotation)}
            return cls(tuple(one.arg for one in both), len(places), frozenset(chosen), frozenset(defaults))
        for line in node.body:
            if isinstance(line, ast.FunctionDef) and line.name == "__init__" and (found := cls.of(line)):
                return cls(found.words[1:], found.positional - 1, found.choices, found.free)
        fields = [line for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
        if not any("dataclass" in ast.unparse(one) for one in node.decorator_list):
            return None
        names = tuple(line.target.id for line in fields)
        chosen = {line.target.id for line in fields if is_choice(line.annotation)}
        return cls(names, len(names), frozenset(chosen), frozenset(one.target.id for one in fields if one.value))


def is_choice(annotation: ast.expr) -> bool:
    """A number, a word, a truth value, several of them, or none; an option of a command is what it annotates."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        annotation = annotation.slice.elts[0]
    words = {one.id for one in ast.walk(annotation) if isinstance(one, ast.Name)}
    return words <= CHOICES


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text())


@cache
def signatures(file: str) -> dict[str, Signature]:
    """Of the functions and classes at the top of a file."""
    made = {n.name: Signature.of(n) for n in tree(file).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return {name: signature for name, signature in made.items() if signature is not None}


@cache
def methods() -> dict[str, Signature]:
    """Of the methods whose name no other class and no function has."""
    found: dict[str, list[Signature]] = {}
    for file in FILES:
        for node in ast.walk(tree(file)):
            for line in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(line, ast.FunctionDef) and (made := Signature.of(line)):
                    own = Signature(made.words[1:], made.positional - 1, made.choices, made.free)
                    found.setdefault(line.name, []).append(own)
    return {name: several[0] for name, several in found.items() if len(set(several)) == 1}


@cache
def imported(file: str) -> dict[str, tuple[str, str]]:
    """Name in this file -> (file, name there; "" for the module itself), of what comes from us."""
    found = {}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffrep"):
            place = Path(*node.module.split(".")[1:])
            for one in node.names:
                inner = (place / one.name).as_posix() + ".py"
                found[one.asname or one.name] = (inner, "") if inner in FILES else (place.as_posix() + ".py", one.name)
    return found


def called(file: str, call: ast.Call) -> Signature | None:
    known, function = imported(file), call.func
    if isinstance(function, ast.Name):
        place, name = known.get(function.id, (file, function.id))
        return signatures(place).get(name) if place in FILES else None
    if not isinstance(function, ast.Attribute):
        return None
    if isinstance(function.value, ast.Name) and function.value.id in known:
        place, name = known[function.value.id]
        return signatures(place).get(function.attr) if not name and place in FILES else None
    if isinstance(function.value, ast.Name) and function.value.id in ("np", "torch", "F", "nn", "math", "json"):
        return None
    return methods().get(function.attr)


def read(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def made_from(function: ast.FunctionDef, word: str) -> set[str]:
    """The names of a function whose values depend on an argument of it."""
    names, before = {word}, set[str]()
    while names != before:
        before = set(names)
        for node in ast.walk(function):
            pairs: list[tuple[ast.AST | None, ast.AST]] = []
            if isinstance(node, ast.Assign):
                pairs = [(target, node.value) for target in node.targets]
            elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value:
                pairs = [(node.target, node.value)]
            elif isinstance(node, ast.For | ast.comprehension):
                pairs = [(node.target, node.iter)]
            elif isinstance(node, ast.withitem):
                pairs = [(node.optional_vars, node.context_expr)]
            elif isinstance(node, ast.FunctionDef) and node is not function and read(node) & names:
                names.add(node.name)
            for target, value in pairs:
                if target is not None and read(value) & names:
                    names |= read(target)
    return names


def functions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from functions(child, f"{inside}{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            yield inside + child.name, child


def handed(call: ast.Call, other: Signature) -> dict[str, ast.expr]:
    """Word -> what the call gives for it."""
    by_place = dict(zip(other.words[: other.positional], call.args, strict=False))
    return by_place | {one.arg: one.value for one in call.keywords if one.arg}


def exchanged(given: dict[str, ast.expr], other: Signature) -> Iterator[str]:
    """The words that get what is called by another of them."""
    for word, value in given.items():
        name = value.id if isinstance(value, ast.Name) else word
        if name != word and name in other.words and name not in read(given.get(name, ast.Constant(0))):
            yield word


def lost(file: str, text: str | None = None) -> set[str]:
    """ "function word called" of each choice that is asked for and not handed on, or handed on as another."""
    found = set()
    for name, function in functions(tree(file) if text is None else ast.parse(text)):
        own = Signature.of(function)
        assert own is not None
        stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        asked = own.choices | stored if file.startswith(LOCAL) else own.choices
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            other = called(file, call)
            if other is None or any(isinstance(one, ast.Starred) for one in call.args):
                continue
            given, whole = handed(call, other), all(one.arg for one in call.keywords)
            words = {*exchanged(given, other)}
            words |= {word for word in own.choices & other.choices & other.free - {*given} if whole}
            for word in asked & other.choices & {*given}:
                if word not in read(given[word]) and not read(given[word]) & made_from(function, word):
                    words.add(word)
            found |= {f"{name} {word} {ast.unparse(call.func)}" for word in words - NAMES}
    return found


@pytest.mark.parametrize("file", FILES)
def test_what_is_asked_for_is_handed_on(file):
    assert lost(file) == {line.partition(": ")[2] for line in OWN.splitlines() if line.startswith(f"{file}: ")}


@pytest.mark.parametrize(
    "call, words",
    [
        ("_refined(model, test, levels or 8, refine, metrics, progress)", set()),
        ("_refined(model, test, 8, refine, metrics, progress)", {"levels"}),
        ("_refined(model, levels, test, refine, metrics, progress)", {"levels", "test"}),
        ("_bound(run, test, progress=progress, levels=None)", {"levels"}),
        ("evaluate(run, refine=refine)", {"levels"}),
    ],
)
def test_a_choice_that_is_lost_is_seen(call, words):
    text = f"def f(run, model, test, metrics, progress: object, levels: int = 8, refine: int = 0):\n    {call}\n"
    assert lost("measures/evaluate.py", text) == {f"f {word} {call.partition('(')[0]}" for word in words}
