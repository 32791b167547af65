"""Doors for files of other trades: HDF5, Zarr, WAV, NIfTI, TIFF stacks, WebP; each gives what the array alone gives."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from diffrep import UserError, data
from diffrep.data import stores, values
from diffrep.data.readers.recordings import MELS, QUIET, log_mel, mel_bands

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (12, 6, 5)).astype(np.uint8)
LABELS = np.array(["cat", "dog", "cow"] * 4)


def same_as_array(source: object, array: np.ndarray, **how: object) -> data.Splits:
    """The splits of a source, which hold the same examples in the same order as those of the array."""
    splits, expected = data.load(source, **how), data.load(array, **how)
    for one, two in ((splits.train, expected.train), (splits.test, expected.test)):
        assert torch.equal(one.batch(torch.arange(len(one))).x, two.batch(torch.arange(len(two))).x)
    return splits


def test_hdf5_by_path_and_as_a_group(tmp_path):
    """An array by its path; a group is read as an .npz, with its labels."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        file["scans/images"] = PICTURES
        file["scans/labels"] = LABELS.tolist()
        file["other"] = np.zeros(3)
        file["away"] = h5py.ExternalLink("secret.h5", "/x")
    same_as_array(f"{tmp_path / 'cells.h5'}:/scans/images", PICTURES)
    splits = same_as_array(f"{tmp_path / 'cells.h5'}:/scans", PICTURES)
    assert splits.train.label_names == ["cat", "cow", "dog"]
    with pytest.raises(UserError, match=r"there is no 'pictures' on the way to .* only images, labels"):
        data.load(f"{tmp_path / 'cells.h5'}:/scans/pictures")
    with pytest.raises(UserError, match="leads to another file"):
        data.load(f"{tmp_path / 'cells.h5'}:/away")
    (tmp_path / "broken.h5").write_bytes(b"no")
    with pytest.raises(UserError, match=r"broken.h5 cannot be read \(.*\): write it anew"):
        data.load(tmp_path / "broken.h5")


def test_a_group_without_arrays_names_what_is_there(tmp_path):
    """The next path to try."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file["a/b/x"] = PICTURES
    with pytest.raises(UserError, match="holds a and no array of numbers: name one inside"):
        data.load(tmp_path / "deep.h5")


def test_zarr_by_path_and_as_a_group(tmp_path):
    """As HDF5; a store is a folder."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(tmp_path / "scans.zarr"), mode="w")
    group.create_array("images", data=PICTURES)
    group.create_array("labels", data=np.arange(12) % 3)
    same_as_array(f"{tmp_path / 'scans.zarr'}:/images", PICTURES)
    splits = same_as_array(tmp_path / "scans.zarr", PICTURES)
    assert splits.train.label_names == ["0", "1", "2"]
    with pytest.raises(UserError, match="there is no 'x' on the way"):
        data.load(f"{tmp_path / 'scans.zarr'}:x")


@pytest.mark.parametrize("kind", ["h5", "zarr"])
@pytest.mark.parametrize("large", [False, True])
def test_a_file_of_arrays_is_read_in_blocks(kind, large, tmp_path, monkeypatch):
    """Never more than a block at a time, with channels last and on another scale; a large one stays in its file."""
    library = pytest.importorskip({"h5": "h5py"}.get(kind, kind))
    colours = RNG.random((40, 5, 4, 3)).astype(np.float32)
    path, read = tmp_path / f"pictures.{kind}", []
    if kind == "h5":
        with library.File(path, "w") as file:
            file["images"] = colours
    else:
        library.open_group(str(path), mode="w").create_array("images", data=colours)
    take = stores.OnDisk.__getitem__

    def spied(self, rows):
        got = take(self, rows)
        read.append(0 if isinstance(rows, tuple) else len(got))
        return got

    monkeypatch.setattr(stores.OnDisk, "__getitem__", spied)
    monkeypatch.setattr(stores, "AT_ONCE", 6 * colours[0].size)
    if large:
        monkeypatch.setattr(values, "SMALL", 1)
    whole = data.whole(f"{path}:/images")
    assert whole.lazy == large and max(read) == 6
    assert sum(read) == (2 if large else 3) * 40  # the range and the digests, and the values where they are kept
    read.clear()
    order = torch.tensor([7, 2, 2, 39])
    expected = torch.from_numpy(colours[order].transpose(0, 3, 1, 2).copy()) * 2 - 1
    torch.testing.assert_close(whole.batch(order).x, expected)
    torch.testing.assert_close(whole.subset(order).batch(torch.tensor([1, 3])).x, expected[[1, 3]])
    assert read == ([4, 2] if large else [])
    elsewhere = pickle.loads(pickle.dumps(whole))  # as a process that starts anew gets it
    torch.testing.assert_close(elsewhere.batch(order).x, expected)


def sounds(folder, lengths=(400,), rates=(8000,), count=12):
    """int16 in class folders a and b; returns the samples."""
    made = []
    for i in range(count):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        samples = RNG.integers(-(2**15), 2**15, lengths[i % len(lengths)]).astype(np.int16)
        wavfile.write(folder / "ab"[i % 2] / f"{i:02}.wav", rates[i % len(rates)], samples)
        made.append(samples)
    return [made[i] for i in (*range(0, count, 2), *range(1, count, 2))]


def test_wav_files_are_signals(tmp_path):
    """Full scale is 1, class folders are labels; a run's reading is applied to others."""
    samples = sounds(tmp_path / "in")
    every = data.whole(tmp_path / "in")
    expected = torch.tensor(np.stack(samples)[:, None] / 2**15, dtype=torch.float32)
    torch.testing.assert_close(every.batch(torch.arange(12)).x, expected)
    assert every.label_names == ["a", "b"] and every.reading.rate == 8000 and every.shape == (1, 400)
    sounds(tmp_path / "fast", rates=(16000,), count=3)
    with pytest.raises(UserError, match="16,000 samples a second, expected 8,000"):
        data.whole(tmp_path / "fast", reading=every.reading.for_other())


def test_sounds_of_several_lengths_are_cut_where_it_is_said(tmp_path):
    """The sentence names the setting, and the setting does it; a file that is no WAV is one sentence too."""
    sounds(tmp_path / "in", lengths=(400, 300))
    with pytest.raises(UserError, match=r"data\.size=300 cuts or fills them all"):
        data.load(tmp_path / "in")
    every = data.whole(tmp_path / "in", size=350)
    assert every.shape == (1, 350) and bool((every.batch(torch.tensor([11])).x[..., 300:] == 0).all())
    (tmp_path / "in" / "a" / "00.wav").write_bytes(b"RIFF no")
    with pytest.raises(UserError, match=r"00.wav cannot be read as WAV"):
        data.load(tmp_path / "in", size=350)
    assert len(data.whole(tmp_path / "in", size=350, skip_bad=True)) == 11


def test_log_mel_pictures_show_a_sine_where_it_sounds():
    """A sine of height 1/2 has -6.02 dB in its band, where that holds its window; half of it 6.02 dB less."""
    rate = 16000
    for band in (20, 40, 55):
        top = 2595 * np.log10(1 + rate / 2 / 700)
        middle = 700 * (10 ** ((band + 1) * top / (MELS + 1) / 2595) - 1)
        sine = np.sin(2 * np.pi * middle * np.arange(rate) / rate)[None]
        picture = log_mel(0.5 * sine, rate)
        column = picture[:, picture.shape[1] // 2]
        assert column.argmax() == band and (band == 20 or column[band] == pytest.approx(-6.02, abs=1))
        quieter = log_mel(0.25 * sine, rate)[band, picture.shape[1] // 2]
        assert column[band] - quieter == pytest.approx(6.02, abs=0.01)
    assert (log_mel(np.zeros((1, rate)), rate) == QUIET).all()


@pytest.mark.parametrize("rate, bins", [(16000, 513), (8000, 257), (44100, 2049)])
def test_mel_bands_are_triangles_that_cover_the_axis(rate, bins):
    """No band is empty; between the first and the last middle the bands sum to about 1."""
    weights = mel_bands(bins, rate)
    assert (weights.max(1) > 0).all() and weights.min() >= 0 and weights.max() <= 1
    wide = weights[:, weights.argmax(1)[40] : weights.argmax(1)[-1]].sum(0)
    np.testing.assert_allclose(wide, 1, atol=1e-9)


def test_wav_files_become_pictures_by_their_layout(tmp_path):
    """data.layout=nhw: 64 bands, a column every 10 ms, -80 dB is -1 and 0 dB is 1."""
    sounds(tmp_path / "in", lengths=(4000,))
    every = data.whole(tmp_path / "in", layout="nhw")
    x = every.batch(torch.arange(12)).x
    assert every.shape[:2] == (1, MELS) and 48 <= every.shape[2] <= 54
    assert x.min() >= -1 and x.max() <= 1 and x.std() > 0.02


def test_nifti_volumes_and_series(tmp_path):
    """Files of a folder are volumes; the times of one series are examples."""
    nibabel = pytest.importorskip("nibabel")
    volumes = RNG.random((9, 4, 5, 6)).astype(np.float32)
    (tmp_path / "in").mkdir()
    for i, volume in enumerate(volumes):
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "in" / f"{i}.nii.gz")
    same_as_array(tmp_path / "in", volumes, layout="ndhw")
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(volumes, 0, -1), np.eye(4)), tmp_path / "series.nii")
    same_as_array(tmp_path / "series.nii", volumes, layout="ndhw")
    (tmp_path / "in" / "3.nii.gz").write_bytes(b"no")
    with pytest.raises(UserError, match=r"3.nii.gz cannot be read as NIfTI"):
        data.load(tmp_path / "in")


def test_the_pages_of_one_tiff_are_examples(tmp_path):
    """A stack, as microscopes write it; a single page is a picture."""
    tifffile = pytest.importorskip("tifffile")
    stack = RNG.integers(0, 65536, (7, 6, 5)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack)
    splits = same_as_array(tmp_path / "stack.tif", stack[:, None], layout="nchw")
    assert splits.train.shape == (1, 6, 5) and splits.train.bins == 65536
    tifffile.imwrite(tmp_path / "one.tif", stack[0])
    assert len(data.whole(tmp_path / "one.tif", reading=splits.train.reading.for_other())) == 1


def test_webp_is_read_as_other_pictures(tmp_path):
    """Lossless WebP gives the pixels that PNG gives."""
    colour = RNG.integers(0, 256, (5, 6, 5, 3)).astype(np.uint8)
    for kind in ("webp", "png"):
        (tmp_path / kind).mkdir()
        for i, picture in enumerate(colour):
            Image.fromarray(picture).save(tmp_path / kind / f"{i}.{kind}", lossless=True)
    webp, png = (data.whole(tmp_path / kind) for kind in ("webp", "png"))
    assert torch.equal(webp.batch(torch.arange(5)).x, png.batch(torch.arange(5)).x)


@pytest.mark.parametrize("package, file", [("h5py", "x.h5"), ("zarr", "x.zarr"), ("nibabel", "x.nii")])
def test_a_package_that_is_missing_is_named(package, file, tmp_path, monkeypatch):
    """One sentence: which extra to install."""
    import sys

    (tmp_path / file).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"needs more: pip install 'diffrep\["):
        data.load(tmp_path / file)


def test_pages_of_one_bit_hold_what_they_state(tmp_path):
    """Eight pixels lie in a byte, so the file is smaller than its pixels: what is refused is their kind."""
    pytest.importorskip("tifffile")
    first, *others = (Image.fromarray(RNG.random((64, 64)) > 0.5) for _ in range(3))
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    with pytest.raises(UserError, match="has the axes IYX of bool"):
        data.whole(tmp_path / "a.tif")


ENDLESS = (
    bytes.fromhex(
        "49492a00080000000a0000010400010000000800000001010400010000000800000002010300030000008600"
        "0000030103000100000001000000060000000200000011010400010000008c00000015010300010000000300"
        "00001601040001000000080000001701040001000000"
    )
    + 22 * b"\xc0\0\0\0"
)  # a TIFF


def test_a_tiff_without_end_is_refused(tmp_path):
    """Found by changing bytes: its pages lead back to an earlier one, and tifffile alone does not end."""
    pytest.importorskip("tifffile")
    (tmp_path / "a.tif").write_bytes(ENDLESS)
    with pytest.raises(UserError, match=r"a\.tif cannot be read"):
        data.whole(tmp_path / "a.tif")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it reads nevertheless
@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5), (6, 5, 3)], ids=["one page", "pages", "colours"])
def test_a_broken_tiff_is_read_or_refused_in_one_sentence(shape, tmp_path):
    """Every byte of the header and of the tags is changed, one at a time, and the file is cut at several places."""
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.integers(0, 65536, shape).astype(np.uint16), metadata=None)
    sound = path.read_bytes()
    pixels = len(sound) - 2 * int(np.prod(shape))  # they come last
    changed = [sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :] for at in range(pixels)]
    refused = 0
    for content in [*changed, *(sound[:cut] for cut in range(0, len(sound), 16))]:
        path.write_bytes(content)
        try:
            data.whole(path)
        except UserError:
            refused += 1
    assert 0 < refused < len(changed)
