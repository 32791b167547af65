"""Oracle 2 by reading: what a function is asked for is used, or stands in the table of what an interface hands over."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "diffrep"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
HANDED = """
codes/posteriors.py: OneHot.draw spread
codes/posteriors.py: OneHot.log_prob spread
codes/priors.py: Categories.rate z
codes/priors.py: StandardNormal.rate z
data/albums.py: _lazy mode
data/readers/cells.py: Rows.to device
data/readers/cells.py: read_h5ad skip_bad
data/stores.py: Encoded.to device
data/stores.py: Mapped.to device
data/stores.py: OnDisk.__array__ copy
data/stores.py: Standardised.to device
denoising/detail.py: fine dims
denoising/detail.py: uniform noise
denoising/parameterisations.py: Eps.forward observed
denoising/parameterisations.py: Parameterisation.alone ends
denoising/parameterisations.py: Score.forward observed
denoising/parameterisations.py: V.forward observed
denoising/parameterisations.py: X.forward observed
denoising/samplers.py: dpm_solver_2m draws
denoising/samplers.py: heun draws
denoising/spacing.py: in_time noise
denoising/start.py: MatchedStart.forward drop
denoising/start.py: MatchedStart.forward z
denoising/start.py: StandardStart.forward drop
denoising/start.py: StandardStart.forward z
estimators/encoder.py: DiffusionEncoder.score y
estimators/forms.py: Rows.to device
evaluation/feature_networks.py: pixels device
evaluation/feature_networks.py: pixels rest
evaluation/layers.py: recording.keep.hook inputs
evaluation/layers.py: recording.keep.hook module
models/autoencoder.py: Autoencoder.loss player
models/autoencoder.py: GeneratorDecoder.decode draws
models/autoencoder.py: GeneratorDecoder.decode sampling
models/autoencoder.py: GeneratorDecoder.decode x_1
models/bootstrap.py: Bootstrap.loss player
models/classifier.py: Classifier.loss player
models/contrastive.py: Contrastive.loss player
models/encoder_only.py: Untrained.loss player
models/generative.py: Generative.covariate draws
models/generative.py: Generative.covariate n
models/generative.py: Generative.given covariate
models/warm_start.py: Nothing.draw draws
nets/decoders.py: MLPDecoder.body z
nets/plain.py: DiffusersUNet.body z
nets/plain.py: PlainEncoder.body conditions
pages/run_pictures.py: _denoise splits
pages/run_pictures.py: _interpolate splits
pages/run_pictures.py: _reason.__exit__ kind
pages/run_pictures.py: _reason.__exit__ trace
pages/run_pictures.py: _reconstruct splits
pages/run_pictures.py: _sample splits
pages/sections.py: pictures run
pages/sections.py: units run
probes/protocols.py: _of_draws.measure valid
runs/export.py: _pt2 inputs
training/journal.py: Bar.__exit__ error
training/signals.py: Signals.__exit__ error
training/signals.py: Signals._note frame
training/signals.py: Signals._note number
"""  # file: function word ...: words of an interface that this function has no use for


class Reading(ast.NodeVisitor):
    """The names that a body reads, in the order of the program: `left` are those that it never does, `wasted` those
    that it overwrites before. refusing: an `if` whose only deed is to raise counts too."""

    def __init__(self, function: ast.FunctionDef, refusing: bool):
        given = function.args
        several = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        names = {one.arg for one in several if one is not None and not one.arg.startswith("_")}
        self.left, self.wasted, self.refusing = names - {"self", "cls"}, set[str](), refusing
        for line in function.body:
            self.visit(line)

    def visit_If(self, node: ast.If) -> None:
        if self.refusing or node.orelse or not all(isinstance(line, ast.Raise) for line in node.body):
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for part in (node.value, *node.targets):
            self.visit(part)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.left:
            self.left.discard(node.id)
            self.wasted |= {node.id} if isinstance(node.ctx, ast.Store) else set()


def functions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """(qualified name, function) of all that have a body, but for abstract ones."""
    for child in ast.iter_child_nodes(node):
        name = f"{inside}.{child.name}" if isinstance(child, ast.ClassDef | ast.FunctionDef) else inside
        if isinstance(child, ast.FunctionDef):
            body = [line for line in child.body if not isinstance(line, ast.Expr) or isinstance(line.value, ast.Call)]
            if body and not any("abstract" in ast.unparse(one) for one in child.decorator_list):
                yield name.lstrip("."), child
        yield from functions(child, name)


def unread(file: str, refusing: bool = True) -> set[str]:
    """ "function word" of each argument that is not read."""
    found = functions(ast.parse((PACKAGE / file).read_text()))
    readings = [(name, Reading(function, refusing)) for name, function in found]
    return {f"{name} {word}" for name, reading in readings for word in reading.left | reading.wasted}


@pytest.mark.parametrize("file", FILES)
def test_every_argument_is_read(file):
    """One that is accepted and ignored, or overwritten before it is read, is a mistake unless the table has it; and the
    table has no others."""
    handed = {line.partition(": ")[2] for line in HANDED.splitlines() if line.startswith(f"{file}: ")}
    assert unread(file) == handed


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith(("commands/", "measures/", "studies/"))])
def test_no_option_decides_a_refusal_alone(file):
    """An option that is looked at only to say that it does not go with another one is ignored."""
    assert unread(file, refusing=False) <= unread(file) | ALONE


ALONE = {"check_place suffixes", "_same_settings run"}  # functions whose deed is to refuse
