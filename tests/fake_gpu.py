"""Every method and measure on an accelerator that does not exist: python tests/fake_gpu.py [NAME ...]

torch's fake tensors have a shape and a device, no numbers, and raise where two devices meet. torch for CPUs alone
cannot differentiate on "cuda", so the device is torch's own stand-in for an accelerator written in Python; what it
registers stays for the life of a process, which is why this is a program. It prints, for each method and each
measure, "ok" or the first error.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from diffrep.config import Settings, override
from diffrep.denoising import noise
from diffrep.measures import distance, evaluate
from diffrep.methods.catalog import METHODS, build
from diffrep.models.base import Model
from diffrep.runs.card import DataCard
from diffrep.runs.run import Run
from diffrep.shapes import Batch, Draws, Facts
from diffrep.testing import SMALL
from every_measure import ROWS, splits

SHAPE, BINS, COUNT = (1, 8, 8), 4, 6
DRAWING = ("rand", "randn", "randint", "randperm")
LEFT = "left-on-the-cpu"  # a method with the mistake that this program is for


class Generator:
    """In place of torch's, which needs the device: it has a device alone."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)

    def manual_seed(self, seed: int) -> Generator:
        return self


class Accelerator(TorchDispatchMode):
    """What is on the device has no numbers, what is on the CPU is real; where both meet, torch's fake mode raises.

    Numbers that are copied from the device are 0, 1, 2, 0, 1, 2, ...; one that is read is 1; a mask keeps everything.
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self.device, self.fake = device, FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = [value for value in tree_leaves((args, kwargs)) if isinstance(value, FakeTensor)]
        if not there and kwargs.get("device") != self.device:
            return operation(*args, **kwargs)
        if operation is torch.ops.aten._local_scalar_dense.default:
            return torch.ones((), dtype=there[0].dtype).item()
        args, kwargs = tree_map(self._without_numbers, (args, kwargs))
        with self.fake:
            if operation is torch.ops.aten.nonzero.default:
                return torch.zeros(args[0].numel(), args[0].ndim, dtype=torch.int64, device=self.device)
            if operation is torch.ops.aten._unique2.default:
                return args[0].flatten()[:2], args[0].long(), args[0].flatten()[:2].long()
            if operation is torch.ops.aten.index.Tensor:
                args = (args[0], [_all_places(index) for index in args[1]])
            made = operation(*args, **kwargs)
        return tree_map(self._as_read, made)

    def _without_numbers(self, value: object) -> object:
        real = isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)
        return self.fake.from_tensor(value, static_shapes=True) if real else value

    @staticmethod
    def _as_read(made: object) -> object:
        if not isinstance(made, FakeTensor) or made.device.type != "cpu":
            return made
        with no_dispatch():
            return (torch.arange(made.numel()) % 3).reshape(made.shape).to(made.dtype)


def _all_places(index: torch.Tensor | None) -> torch.Tensor | None:
    masked = index is not None and index.dtype == torch.bool
    return torch.zeros(len(index), dtype=torch.int64, device=index.device) if masked else index


def prepare() -> torch.device:
    """Register the device, and let numbers be drawn on it without generators."""
    _setup_privateuseone_for_python_backend("gpu")
    for name in DRAWING:
        setattr(torch, name, _without_generator(getattr(torch, name)))
    torch.tensor, torch.as_tensor = _moved_there(torch.tensor), _moved_there(torch.tensor)
    torch.Generator = Generator
    torch.random.fork_rng = partial(torch.random.fork_rng, devices=())
    torch.autocast = lambda *how, **more: nullcontext()
    nn.Module.to = moved
    noise.HALVINGS = 2  # each is like the one before
    distance.save_tensors, evaluate.weights_metadata = lambda *args: None, lambda directory: {}  # files hold numbers
    return torch.device("gpu", 0)


def moved(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with fake parameters and buffers on a device, as `model.to(device)` would have them. A tensor that is
    neither stays on the CPU, here as there."""
    made: dict[int, torch.Tensor] = {}

    def there(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        return made[id(tensor)]

    for module in model.modules():
        for table in (module._parameters, module._buffers):
            table.update({name: there(tensor) for name, tensor in table.items() if tensor is not None})
    return model


def everything(model: Model, device: torch.device) -> None:
    """Losses and gradients of every player, codes, samples, reconstructions and the bound: all on the device."""

    def batch() -> Batch:
        index = torch.arange(COUNT, device=device)
        return Batch(torch.zeros(COUNT, *SHAPE, device=device), index, label=index % 3, draws=Draws.of(0, device))

    def on_it(*tensors: torch.Tensor) -> None:
        for tensor in tensors:
            assert tensor.device == device, f"a result of shape {tuple(tensor.shape)} is on {tensor.device}"

    for player, groups in model.players().items():
        terms = model.loss(batch(), player)
        on_it(*terms.values())
        if any(groups.values()):
            torch.stack([*terms.values()]).sum(0).mean().backward()
        on_it(*(p.grad for parameters in groups.values() for p in parameters if p.grad is not None))
    model.advance()
    model.eval()
    if model.has_code:
        on_it(model.encode(batch().x).mean)
    if model.generative is not None:
        if model.prior is not None or not model.has_code:
            on_it(model.sample(2, Draws.of(0, device), steps=2))
        if model.has_code:
            on_it(model.reconstruct(batch().x, Draws.of(0, device), steps=1))
        if model.no_bound is None:
            on_it(*model.bound(batch(), levels=1).values())


def tried(method: str, device: torch.device) -> str:
    """ "ok", or what the first error says."""
    name = "drl" if method == LEFT else method
    settings = override(Settings(), [f"method={name}", *SMALL])
    try:
        model = build(settings, Facts(SHAPE, BINS, classes=3, latent=2), warn=False)
        with Accelerator(device):
            model = moved(model, device)
            if method == LEFT:
                model.encode = _left(model.encode)
            everything(model, device)
    except Exception as error:
        return _words(error)
    return "ok"


def measured(name: str, device: torch.device) -> str:
    """The same of a measure, of a run whose weights lie on the device and whose data lie where they are read."""
    row, parts = ROWS[name], splits()
    try:
        settings = override(Settings(), [f"method={row.method}", *SMALL])
        card = DataCard.of(parts)
        model = build(settings, replace(card.facts(), latent=2), warn=False)
        with tempfile.TemporaryDirectory() as folder, Accelerator(device):
            row.call(Run(Path(folder), settings, card, moved(model, device).eval(), None, parts), parts)
    except Exception as error:
        return _words(error)
    return "ok"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}{_place(error)}"


def _left(encode: Callable) -> Callable:
    """`encode` with its codes taken to the CPU and left there."""

    def encoded(*args, **how):
        code = encode(*args, **how)
        return type(code)(code.mean.cpu(), code.spread)

    return encoded


def _place(error: BaseException) -> str:
    """Where in diffrep it was raised."""
    frame, place = error.__traceback__, ""
    while frame is not None:
        file = frame.tb_frame.f_code.co_filename
        place = f" ({file.partition('src/diffrep/')[2]}:{frame.tb_lineno})" if "src/diffrep/" in file else place
        frame = frame.tb_next
    return place


def _moved_there(make: Callable) -> Callable:
    """Numbers of Python become a tensor of the device without numbers: made there at once they would be real."""

    def made(values, *, device=None, **how):
        tensor = values.to(**how) if isinstance(values, torch.Tensor) else make(values, **how)
        there = device is not None and torch.device(device).type != "cpu"
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device) if there else tensor

    return made


def _without_generator(draw: Callable) -> Callable:
    def drawn(*size, generator=None, **how):
        return draw(*size, **how)

    return drawn


def main() -> None:
    warnings.simplefilter("ignore")
    device = prepare()
    for name in sys.argv[1:] or [*METHODS, LEFT, *ROWS]:
        outcome = measured(name, device) if name in ROWS else tried(name, device)
        print(f"{name}: {outcome}", flush=True)


if __name__ == "__main__":
    main()
