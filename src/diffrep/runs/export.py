"""The encoder of a run for other programs: ONNX or torch.export, checked against the model before it is written."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from diffrep.errors import UserError
from diffrep.evaluation.finetune import CodeOf, encoder_of
from diffrep.files import write_bytes
from diffrep.models.base import Model
from diffrep.runs.preparation import Input, Preparation, Prepared, of_card
from diffrep.runs.records import weights_digest
from diffrep.shapes import CodeVector

if TYPE_CHECKING:
    from diffrep.runs.run import Run

SUFFIXES = (".onnx", ".pt2")
CHECKED = (1, 7, 64)  # batches on which an export must equal the model
CLOSE = 1e-4  # by which a number of a code may differ, relatively or absolutely
KEY = "diffrep"  # of the metadata in a file
OPSET = 20

Encode = Callable[[Sequence[np.ndarray]], np.ndarray]  # the inputs of a batch -> codes (B, d)


class Encoding(nn.Module):
    """Raw examples -> the mean of their codes (B, d)."""

    def __init__(self, preparation: nn.Module, encoder: CodeOf):
        super().__init__()
        self.preparation, self.encoder = preparation, encoder

    def forward(self, *inputs: Tensor) -> CodeVector:
        return self.encoder(self.preparation(*inputs))


def export(run: Run, path: str | Path, prepared: bool = False, t: float | None = None) -> Path:
    """Write the encoder of a run, `.onnx` or `.pt2`; any number of examples in, codes out.

    prepared: the input is x itself; else raw examples as they lay in the data, see `runs.preparation`. t: as in
    `Model.encode`. The file describes its inputs and outputs (metadata "diffrep", JSON). It is whole or absent, and
    it is written only if its codes on batches of 1, 7 and 64 are the model's to 1e-4. UserError: no code, a package
    that is missing, codes that differ.
    """
    reading = run.card.how()
    about = {
        "method": run.settings.method,
        "data": Path(run.card.source).name,
        "prepared": run.card.prepared,
        "scaling": reading.scaling,
        "levels": run.card.bins,
        "range": reading.range,
        "size": reading.size,
        "classes": run.card.label_names,
    }
    return write(run.model, Prepared(run.card.shape) if prepared else of_card(run.card), path, about, t)


def write(model: Model, preparation: Preparation, path: str | Path, about: dict, t: float | None = None) -> Path:
    """As `export`, of a model and its preparation; about: metadata beside the inputs."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is no name of an export: name a {' or '.join(SUFFIXES)} file.")
    posterior = model.need_code(t)
    device = next(model.parameters()).device
    whole = Encoding(preparation, encoder_of(model, t)).to("cpu").eval()
    inputs: tuple[Input, ...] = preparation.inputs
    about = {
        "diffrep": metadata.version("diffrep"),
        "weights": weights_digest(model.state_dict()),
        **about,
        "inputs": [asdict(one) for one in inputs],
        "code": posterior.dim,
        "t": (0.5 if t is None else t) if posterior.timed else None,
    }
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad(), _quiet():
            program = _traced(whole, [one.drawn(3, 0) for one in inputs])
            to_bytes = _onnx if path.suffix.lower() == ".onnx" else _pt2
            content, again = to_bytes(program, inputs, json.dumps(about))
            _check(whole, again, inputs, path)
    finally:
        model.to(device).train(was_training)
    write_bytes(path, content)
    return path


def _traced(whole: nn.Module, examples: list[Tensor]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    return torch.export.export(whole, tuple(examples), dynamic_shapes=(tuple({0: batch} for _ in examples),))


def _onnx(program: torch.export.ExportedProgram, inputs: Sequence[Input], about: str) -> tuple[bytes, Encode]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch needs it)
    except ImportError as error:
        raise UserError("ONNX needs more: pip install 'diffrep[export]'.") from error
    names = [one.name for one in inputs]
    made = torch.onnx.export(
        program, (), dynamo=True, input_names=names, output_names=["code"], opset_version=OPSET, verbose=False
    )
    assert made is not None
    proto = made.model_proto
    for one in (*proto.graph.input, *proto.graph.output):
        one.type.tensor_type.shape.dim[0].dim_param = "batch"
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, about
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def again(given: Sequence[np.ndarray]) -> np.ndarray:
        return session.run(["code"], dict(zip(names, given, strict=True)))[0]

    return content, again


def _pt2(program: torch.export.ExportedProgram, inputs: Sequence[Input], about: str) -> tuple[bytes, Encode]:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={f"{KEY}.json": about})
    loaded = torch.export.load(io.BytesIO(file.getvalue())).module()

    def again(given: Sequence[np.ndarray]) -> np.ndarray:
        return loaded(*map(torch.from_numpy, given)).detach().numpy()

    return file.getvalue(), again


def _check(whole: nn.Module, again: Encode, inputs: Sequence[Input], path: Path) -> None:
    """Raise UserError if the codes of an export differ from the model's."""
    for seed, size in enumerate(CHECKED, start=1):
        given = [one.drawn(size, seed) for one in inputs]
        expected = whole(*given).numpy()
        came = again([one.numpy() for one in given])
        alike = came.shape == expected.shape
        if not alike or not np.allclose(came, expected, rtol=CLOSE, atol=CLOSE):
            off = f"by {np.abs(came - expected).max():.1e}" if alike else f"in shape, {came.shape}"
            raise UserError(
                f"{path} was not written: on a batch of {size} its codes differ from the model's {off}; export the"
                f" other kind, {' or '.join(s for s in SUFFIXES if s != path.suffix.lower())}."
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which reports its own progress by warnings, logs and prints."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(nowhere):
            try:
                yield
            finally:
                for logger, level in zip(loggers, levels, strict=True):
                    logger.setLevel(level)
