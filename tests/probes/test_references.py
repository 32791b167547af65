"""What stands beside a code, by hand; and examples of the test split that are in train too."""

import numpy as np
import pytest
import torch

from diffrep import data
from diffrep.probes.overlap import overlap, sentence
from diffrep.probes.references import pca, pixels, references
from samples import COLOUR, GREY, parts_of


def test_pixels_are_the_examples_themselves():
    """Flat, in order, the last partial chunk with them; a table gives its columns."""
    part = data.load(COLOUR).train
    expected = part.batch(torch.arange(len(part))).x.flatten(1).numpy()
    for chunk in (1, 4, 500):
        assert np.array_equal(pixels(part, chunk), expected)
    table = data.load(np.random.default_rng(0).normal(size=(20, 3))).train
    assert np.array_equal(pixels(table), table.batch(torch.arange(len(table))).x.numpy())


def test_large_pictures_are_averaged_down():
    """64 x 48 in blocks of 2 x 1.5: sides above 32 alone, and a mean stays a mean."""
    picture = np.random.default_rng(0).integers(0, 256, (6, 64, 24), dtype=np.uint8)
    part = data.load(picture).train
    x = part.batch(torch.arange(len(part))).x.numpy()
    np.testing.assert_allclose(
        pixels(part).reshape(-1, 32, 24), x.reshape(len(part), 32, 2, 24).mean(2), rtol=1e-5, atol=1e-6
    )


def test_pca_is_the_eigenvectors_of_train():
    """Fitted on the first part alone, not whitened, up to the sign of each; no more components than there are."""
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(50, 4)) * [1, 2, 3, 4] + 5, rng.normal(size=(20, 4))
    values, vectors = np.linalg.eigh(np.cov(train.T))
    for got, part in zip(pca([train, test], 2), (train, test), strict=True):
        np.testing.assert_allclose(np.abs(got), np.abs((part - train.mean(0)) @ vectors[:, [3, 2]]), atol=1e-9)
    assert pca([train, test], 2)[0].var(0, ddof=1) == pytest.approx(values[[3, 2]])
    assert pca([train, test], 9)[0].shape == (50, 4)


def test_every_reference_has_every_example():
    """Three kinds of features for each of the splits, those of the encoder from whatever encodes."""
    parts = parts_of(data.load(GREY))
    found = references(parts, 3, lambda part: np.full((len(part), 3), len(part)))
    assert list(found) == ["pixels", "pca", "random-encoder"]
    for features in found.values():
        assert [x.shape for x in features.of_splits] == [(len(part), features.dim) for part in parts]
    assert found["pca"].of_splits[2].shape == (2, 3) and found["random-encoder"].of_splits[0][0, 0] == len(parts[0])
    assert references(parts, 500, lambda part: np.zeros((len(part), 500)))["pca"].dim == min(16, len(parts[0]))


def test_the_origin_of_features_is_what_they_follow_from():
    """Pixels follow from the examples alone, components from their number too, codes from the weights too."""
    parts, other = parts_of(data.load(GREY)), parts_of(data.load(GREY[::-1].copy()))

    def origins(splits, dim, weights):
        return [kind.origin for kind in references(splits, dim, pixels, weights).values()]

    here = origins(parts, 3, "a")
    assert [a == b for a, b in zip(here, origins(parts, 3, "b"), strict=True)] == [True, True, False]
    assert [a == b for a, b in zip(here, origins(parts, 4, "a"), strict=True)] == [True, False, True]
    assert not any(a == b for a, b in zip(here, origins(other, 3, "a"), strict=True))
    for place in range(3):  # one split of other examples is enough
        mixed = [other[place] if place == k else part for k, part in enumerate(parts)]
        assert not any(a == b for a, b in zip(here, origins(mixed, 3, "a"), strict=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [({"counts": "yes"}, {"counts": "no"}), ({"range": (0.0, 9.0)}, {"range": (-20.0, 20.0)})],
)
def test_the_same_examples_read_in_two_ways_have_two_origins(one, other):
    """Counts taken as measurements, and values on another scale: the stored examples are equal, and x is not."""
    shape = (40, 5) if "counts" in one else (40, 1, 4, 4)
    stored = np.random.default_rng(0).integers(0, 9, shape) + (0.0 if "counts" in one else 0.5)
    parts = [parts_of(data.load(stored, **how)) for how in (one, other)]
    assert [p.fingerprint for p in parts[0]] == [p.fingerprint for p in parts[1]]
    here, there = ([kind.origin for kind in references(p, 3, pixels).values()] for p in parts)
    assert not any(a == b for a, b in zip(here, there, strict=True))


def test_a_lazily_read_set_has_the_content_of_its_reading(monkeypatch, tmp_path):
    """It is not read for that: two ranges of one file differ, the same one is equal."""
    monkeypatch.setattr("diffrep.data.values.SMALL", 0)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((6, 1, 4, 4)))
    one, again, other = (data.whole(tmp_path / "x.npy", range=(0.0, top)) for top in (1.0, 1.0, 2.0))
    assert one.lazy and one.fingerprint == other.fingerprint
    assert one.content() == again.content() != other.content()


def test_overlap_counts_test_examples_that_are_in_train():
    """Copies are planted and found, each of them counted; twins inside of one split are none."""
    pictures = np.arange(300, dtype=np.uint8).reshape(60, 1, 5)[:, :, :, None].repeat(5, 3)
    train, test = (data.whole(part) for part in (pictures[:40], pictures[40:]))
    assert overlap(train.digests, test.digests) == 0 and sentence(0, 20) is None
    dirty = data.whole(np.concatenate([pictures[40:], pictures[3:6], pictures[3:4], pictures[40:42]]))
    assert overlap(train.digests, dirty.digests) == 4
    assert "4 of the 26 test examples (15.4%)" in sentence(4, 26)
