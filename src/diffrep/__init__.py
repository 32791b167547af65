"""diffrep: learning representations by denoising.

`train` a method on data, `load` a run, `build` an untrained model; a model encodes, decodes, reconstructs, samples,
interpolates and states its bound. `bound` measures a whole split, `evaluate` a whole run.
"""

from diffrep.api import settings, train
from diffrep.config import Settings
from diffrep.data import load as load_data
from diffrep.errors import UserError
from diffrep.evaluation.bound import bound
from diffrep.measures.evaluate import evaluate
from diffrep.methods.parts import Facts
from diffrep.methods.recipes import METHODS, build
from diffrep.models.base import Model
from diffrep.runs.run import Run, load
from diffrep.shapes import Batch, Draws

__all__ = [
    "METHODS",
    "Batch",
    "Draws",
    "Facts",
    "Model",
    "Run",
    "Settings",
    "UserError",
    "bound",
    "build",
    "evaluate",
    "load",
    "load_data",
    "settings",
    "train",
]
