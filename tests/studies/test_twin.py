"""Twins: as many parameters, the same noise and training, no code; where none can be, one sentence."""

import pytest

from diffrep.config import Settings, override
from diffrep.errors import UserError
from diffrep.methods.catalog import METHODS, build
from diffrep.methods.parts import Facts
from diffrep.studies.twin import STEP, parameters, twin

pytestmark = pytest.mark.slow

GREY, VECTOR = Facts((1, 16, 16), 256), Facts((12,), None)
CASES = [
    (GREY, "vae-vdm", ["decoder.width=4", "encoder.width=24", "code.dim=64"]),
    (GREY, "vae-vdm", ["decoder.width=13", "decoder.multipliers=[1]", "decoder.blocks=2"]),
    (GREY, "vdrl", ["encoder.kind=wideresnet", "encoder.depth=10", "prior.kind=mixture"]),
    (GREY, "drl", ["decoder.condition_width=40", "decoder.attention=[false, true, true]"]),
    (VECTOR, "vae-vdm", ["decoder.width=2", "encoder.width=4"]),
    *((GREY, name, ["decoder.width=8", "encoder.width=8"]) for name, value in METHODS.items() if value.twin),
]


@pytest.mark.parametrize("facts, method, changes", CASES)
def test_parameters_are_equal_within_two_per_cent(facts, method, changes):
    """Counted on whole models, not on the shapes that the search builds; the twin has no code."""
    settings = override(Settings(), [f"method={method}", *changes])
    other = twin(settings, facts)
    model = build(other, facts, warn=False)
    assert parameters(model) == pytest.approx(parameters(build(settings, facts, warn=False)), rel=0.02)
    assert not model.has_code and other.method == METHODS[method].twin


def test_all_else_is_the_same():
    """Noise, seed, data and training decide a bound as well, so they must not differ; what is of a code is gone."""
    settings = override(
        Settings(), ["seed=3", "noise.gamma_1=4.0", "train.lr=1e-3", "code.rate=5.0", "decoder.code_until=2.0"]
    )
    other = twin(settings, GREY)
    for section in ("seed", "data", "noise", "train", "anneal", "predicts"):
        assert getattr(other, section) == getattr(settings, section)
    assert other.code == Settings().code and other.decoder.code_until is None and other.decoder.width % STEP == 0


def test_a_method_without_a_twin_is_one_sentence():
    """An autoencoder without a code is nothing; the sentence names methods that have a twin."""
    with pytest.raises(UserError, match=r"ae has no twin.*vae-vdm"):
        twin(override(Settings(), ["method=ae"]), GREY)
