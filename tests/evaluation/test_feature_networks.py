"""Feature functions: what they are fed, and what is said where a library or its weights are missing."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from diffrep.data.stores import Grid
from diffrep.errors import UserError
from diffrep.evaluation.feature_networks import MEAN, STD, named


class Echo:
    """In place of a network: gives back what it was fed, on any device."""

    def __init__(self, *_, **__):
        """As both libraries make theirs, by a name or a path."""

    def to(self, device):
        return self

    def eval(self):
        return self

    def __call__(self, levels=None, pixel_values=None):
        if levels is not None:
            return (levels.flatten(1),)
        return SimpleNamespace(last_hidden_state=pixel_values.flatten(2))


@pytest.fixture
def libraries(monkeypatch):
    """Stand-ins for both libraries: their networks are too large for a test and their weights are not here."""
    fid, inside, dino = ModuleType("torch_fidelity"), ModuleType("inception"), ModuleType("transformers")
    inside.FeatureExtractorInceptionV3, inside.URL_INCEPTION_V3 = Echo, "file:///nowhere/weights.pth"
    fid.feature_extractor_inceptionv3 = inside
    dino.AutoModel = SimpleNamespace(from_pretrained=Echo)
    monkeypatch.setitem(sys.modules, "torch_fidelity", fid)
    monkeypatch.setitem(sys.modules, "transformers", dino)


def test_pixels_are_the_values():
    """Any shape, one row for each example."""
    x = torch.rand(3, 2, 4, 4)
    assert torch.equal(named("pixels").of(x), x.reshape(3, 32))


def test_inception_is_fed_the_levels_of_the_picture(libraries, tmp_path):
    """All 256 levels come back as themselves from their places in [-1, 1]; grey is shown as three equal channels."""
    torch.save({"weight": torch.zeros(1)}, tmp_path / "w.pth")
    seen = named(f"inception:{tmp_path / 'w.pth'}")
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(seen.of(Grid(256).x(levels)), levels.expand(1, 3, 16, 16).flatten(1))
    assert "torch-fidelity" in seen.name and "weights" in seen.name


def test_weights_that_hold_more_than_tensors_are_refused(libraries, tmp_path):
    """A pickle can run any code; it must not even begin to."""
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return open, (str(ran), "w")

    torch.save(Trap(), tmp_path / "trap.pth")
    with pytest.raises(UserError, match="more than tensors"):
        named(f"inception:{tmp_path / 'trap.pth'}")
    assert not ran.exists()


def test_dino_is_fed_standardised_pictures_of_its_size(libraries):
    """A picture that has ImageNet's mean everywhere is zero, and one spread above it is one, whatever its size."""
    mean, spread = (torch.tensor(numbers)[:, None, None].expand(1, 3, 8, 8) for numbers in (MEAN, STD))
    seen = named("dino:any")
    for x, said in ((mean, 0.0), (mean + spread, 1.0)):
        fed = seen.of(2 * x - 1)
        assert fed.shape == (1, 224 * 224) and torch.allclose(fed, torch.full_like(fed, said), atol=1e-5)
    assert seen.name == "dino:any"


@pytest.mark.parametrize("name, library", [("inception", "torch_fidelity"), ("dino", "transformers")])
def test_a_missing_extra_is_named(name, library, monkeypatch):
    """One sentence with the command that installs it."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match="pip install 'diffrep"):
        named(name)


def test_what_cannot_be_seen_is_one_sentence(libraries, tmp_path, monkeypatch):
    """No such file, no network to fetch it by, vectors in place of pictures, a name that is none."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for text, said in [("inception:none.pth", "none.pth"), ("inception", "another machine"), ("dion", "'dino'")]:
        with pytest.raises(UserError, match=said):
            named(text)
    with pytest.raises(UserError, match="grey or RGB"):
        named("dino").of(torch.zeros(2, 7))
