"""What `diffrep profile` says about a run: the numbers in its file, its sentences, and a picture that can be opened."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from diffrep.codes.priors import StandardNormal
from diffrep.config import Settings, override
from diffrep.data import Splits, load
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import LinearGamma
from diffrep.denoising.parameterisations import X
from diffrep.errors import UserError
from diffrep.evaluation.information import Profile
from diffrep.files import unsealed
from diffrep.measures.profile import profile, sentences, table
from diffrep.measures.profile_figure import levels_to_show
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.step_terms import denoise, rate
from diffrep.runs.directory import DataCard
from diffrep.runs.run import Run
from oracles import ExactConditional, ExactPosterior, LinearCode, LinearGaussian, diffusion_nats, examples_of

ENDS = (-9.0, 5.0)
TRUTH = LinearGaussian.of(6, 3)
IDEAL = LinearCode(TRUTH.data, *TRUTH.posterior)
EMPTY = LinearCode(TRUTH.data, torch.zeros(3, 6).double(), torch.ones(3).double())


def run_of(code: LinearCode, directory, network: nn.Module | None = None) -> tuple[Run, Splits]:
    """A run of an exact model, as if it had been trained."""
    test = examples_of(TRUTH.data.draw(1000).numpy())
    splits = Splits(test, test, test)
    denoiser = Denoiser(network or ExactConditional(code), LinearGamma(*ENDS), X())
    model = DiffusionModel(
        (6,),
        None,
        denoiser,
        Objective({"diffusion": denoise, "rate": rate}, Levels(likelihood)),
        Coding(ExactPosterior(code), StandardNormal(3), drop=0.1),
    )
    return Run(directory, Settings(method="vae-vdm"), DataCard.of(splits), model), splits


def test_the_file_holds_the_closed_forms(tmp_path):
    """The numbers of profile.json are those of the data: carried, rate, I(x; z), KL(q(z) || p(z)) and their errors."""
    run, splits = run_of(IDEAL, tmp_path)
    facts = profile(run, splits, levels=12)
    assert unsealed(tmp_path / "profile.json") == facts
    carried = diffusion_nats(IDEAL.data, *ENDS) - diffusion_nats(IDEAL.given_code, *ENDS)
    assert abs(facts["integral_nats"] - carried) < 3 * facts["integral_se"]
    assert sum(facts["nats_per_log_snr"]) * (ENDS[1] - ENDS[0]) / 12 == pytest.approx(facts["integral_nats"])
    assert facts["rate_nats"] == pytest.approx(IDEAL.rate, abs=0.2)
    most = facts["mutual_information"]["upper"]  # what exceeds it by chance is no use
    assert facts["used_share"] == pytest.approx(min(facts["integral_nats"], most) / facts["rate_nats"])
    assert facts["excess_nats"] == pytest.approx(max(facts["integral_nats"] - most, 0.0), abs=1e-9)
    found, gap = facts["mutual_information"], facts["aggregate_gap"]
    assert found["lower"] - 3 * found["lower_se"] < IDEAL.information < found["upper"] + 3 * found["upper_se"]
    assert gap["lower"] - 3 * gap["lower_se"] <= 0 <= gap["upper"] + 3 * gap["upper_se"]
    assert found["upper"] <= facts["rate_nats"] + 1e-9
    assert (facts["examples"], facts["levels"], facts["protocol"]) == (1000, 12, "profile-3")
    assert Image.open(tmp_path / "profile.png").size[0] > 500  # a curve alone, since these are no pictures
    assert f"{facts['integral_nats']:.1f}" in sentences(facts)[0] and len(sentences(facts)) == 1
    assert dict(table(facts))["measured on"].startswith("1,000 test examples, 12 noise levels")
    assert profile(run, splits, levels=4, most=50)["examples"] == 50


def test_a_dead_code_is_said_to_be_dead(tmp_path):
    """Where the decoder gains nothing by the code, the sentence says that and no level is called its best."""
    run, splits = run_of(EMPTY, tmp_path)
    facts = profile(run, splits, levels=4)
    assert sentences(facts)[0].startswith("The decoder does not use the code")
    assert facts["active_units"] == 0


class Forgetful(nn.Module):
    """Ideal with the code; without it, blind: it answers with the mean of the data."""

    def __init__(self):
        super().__init__()
        self.exact = ExactConditional(IDEAL)

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
        return 0 * x_t if z is None else self.exact(x_t, log_snr, z)


def test_a_weak_null_branch_is_named(tmp_path):
    """No code is worth more than I(x; z): a profile above it can only come from a bad branch without the code."""
    run, splits = run_of(IDEAL, tmp_path, Forgetful())
    facts = profile(run, splits, levels=4)
    assert facts["integral_nats"] > facts["mutual_information"]["upper"]
    assert "without its code, this decoder denoises worse than it could" in sentences(facts)[1]


@pytest.mark.parametrize("method", ["vae-vdm", "drl", "tdrl"])
def test_pictures_of_every_kind_of_code(method, tmp_path):
    """A picture of digits with denoisings; codes without a finite rate say so in JSON that any reader takes; the codes
    of ten times have a row each. The networks are as they were drawn, since what they say does not matter here."""
    small = ["decoder.width=16", "decoder.multipliers=[1,1]", "encoder.width=8", "encoder.depth=1", "code.dim=4"]
    settings = override(Settings(), [f"method={method}", "data.source=digits", *small])
    splits = load("digits", valid=0.1, test=0.2, seed=0)
    card = DataCard.of(splits)
    run = Run(tmp_path, settings, card, build(settings, Facts(card.shape, card.bins)))
    facts = profile(run, splits, levels=3, most=6)
    json.dumps(facts, allow_nan=False)
    assert (facts["rate_nats"] is None) == (method != "vae-vdm") == ("no_rate" in facts)
    assert len(facts.get("over_times", [])) == (10 if method == "tdrl" else 0)
    pixels = np.asarray(Image.open(io.BytesIO((tmp_path / "profile.png").read_bytes())).convert("L"))
    assert pixels.shape[0] > 800 and pixels.std() > 10
    assert table(facts) and sentences(facts)


def test_shown_levels_are_where_the_code_matters():
    """Six levels evenly over the stretch that holds what is carried; over all of it where nothing is."""
    log_snr = torch.arange(100, dtype=torch.float64)
    gains, start = torch.zeros(3, 100), torch.zeros(3)
    at_all = levels_to_show(Profile(log_snr, gains, 1.0, start, None, None))
    assert (float(at_all[0]), float(at_all[-1]), len(at_all)) == (0.0, 99.0, 6)
    gains[:, 40:61] = 1.0
    shown = levels_to_show(Profile(log_snr, gains, 1.0, start, None, None))
    torch.testing.assert_close(shown, torch.linspace(40, 60, 6))


def test_a_run_without_a_code_has_no_profile(tmp_path):
    """Nothing is written before that is known."""
    run, splits = run_of(IDEAL, tmp_path)
    run.model.posterior = None
    with pytest.raises(UserError, match="no code to profile"):
        profile(run, splits)
    assert not list(tmp_path.iterdir())
