"""Shapes and types are checked while tests run: every call of the modules that compute is held to its annotations."""

import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

TYPED = (
    "noise levels parameterisations control nets denoiser codes priors terms sample flow model baselines recipes "
    "evaluation gallery flow_prior autoregressive_prior latent_diffusion objectives contrast encoder_only contrastive "
    "bootstrap classifier data.views rivals starts"
)
check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as in the annotations' own grammar
install_import_hook([f"diffrep.{module}" for module in TYPED.split()], "conftest.check")

torch.set_num_threads(1)  # tests are small: more threads only wait for each other


@pytest.fixture(autouse=True)
def checked(request):
    """Off where a test compiles, since the check breaks the graph, and where it passes what no annotation allows."""
    loose = any(word in request.node.name for word in ("compile", "mistake", "wrong_inputs"))
    jaxtyping.config.update("jaxtyping_disable", loose)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
