"""Shapes and types are checked while tests run: every call of the modules that compute is held to its annotations."""

import gc
import os
import sys
from itertools import count

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is read: more threads only wait

import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

TYPED = (
    "nets denoising codes methods evaluation data.views commands.gallery models.base models.build "
    "models.generative models.diffusion models.diffusion_decoder models.autoencoder models.contrast models.contrastive "
    "models.bootstrap models.classifier models.encoder_only models.latent_diffusion models.loss_weights "
    "models.step_terms"
)
check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as in the annotations' own grammar
install_import_hook([f"diffrep.{module}" for module in TYPED.split()], "conftest.check")

gc.disable()  # until all tests are collected: what is imported stays
NUMBERS = count()
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path_factory):
    """Nothing of the user's own cache enters a test, nor of another test's."""
    monkeypatch.setenv("DIFFREP_CACHE", str(tmp_path_factory.getbasetemp() / f"cache-{next(NUMBERS)}"))


@pytest.fixture(autouse=True)
def no_disk(monkeypatch):
    """Files are not forced onto the disk, for which a run of three steps would wait eighteen times."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(autouse=True)
def one_thread():
    """A test that takes more threads, or calls what does, leaves one: others would wait for a core that it keeps."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def two_threads(one_thread):
    """As many threads as a test of what runs at once needs."""
    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def imports_stay():
    """What a test imports first, torch's compiler above all, is not searched for garbage after each run."""
    before = len(sys.modules)
    yield
    if len(sys.modules) > before + 100:
        gc.freeze()


@pytest.fixture(autouse=True)
def checked(request):
    """Off where a test compiles, since the check breaks the graph, and where it passes what no annotation allows."""
    loose = any(word in request.node.name for word in ("compile", "mistake", "wrong_inputs"))
    jaxtyping.config.update("jaxtyping_disable", loose)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_collection_finish():
    """What was imported is no garbage: a third of the time of a tiny run went into the search for it there."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    """Slow is what trains runs or starts processes, by what its module imports, and whatever is marked so."""
    for item in items:
        if any(hasattr(item.module, name) for name in ("run_of", "subprocess")):
            item.add_marker("slow")
