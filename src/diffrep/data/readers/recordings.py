"""Recordings, one a file: WAV as signals or log-mel pictures, NIfTI as volumes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffrep.amounts import amount
from diffrep.data.raw import Raw, keep
from diffrep.data.reading import Reading
from diffrep.data.values import Values, of_array
from diffrep.errors import UserError, reason_of

SOUNDS, VOLUMES = (".wav",), (".nii", ".nii.gz")
WINDOW, HOP = 0.025, 0.010  # seconds of a window of a log-mel picture, and from one to the next
MELS, QUIET = 64, -80.0  # its bands, and its lowest power, in dB relative to a sine of full height


def is_recording(file: Path) -> bool:
    return file.name.lower().endswith((*SOUNDS, *VOLUMES))


def read_recording(path: Path, reading: Reading, skip_bad: bool) -> Raw:
    """One file: a recording, or of a NIfTI series an example for each time."""
    if not path.name.lower().endswith(VOLUMES):
        values, kept, reading = of_recordings([str(path)], [str(path)], skip_bad, reading)
        return keep(Raw(values, reading, ids=[path.name]), kept, 1)
    volume = _volume(path)
    layout = "ndhw" if reading.layout is None or reading.applied else reading.layout
    examples = volume if volume.ndim == 4 else volume[None]
    made, reading = of_array(examples, str(path), replace(reading, layout=layout))
    return Raw(made, reading)


def of_recordings(
    paths: Sequence[str], names: Sequence[str], skip_bad: bool, reading: Reading
) -> tuple[Values, np.ndarray, Reading]:
    """Files -> their values, the positions that were kept (all, unless skip_bad), and the reading.

    WAV: signals (C, L) in [-1, 1], or with data.layout=nhw log-mel pictures; data.size=L cuts or fills them to so many
    samples. NIfTI: volumes (D, H, W), series (T, D, H, W). UserError: files of several shapes, rates or kinds.
    """
    sounds = [name.lower().endswith(SOUNDS) for name in names]
    if len(set(sounds)) > 1:
        raise UserError(
            f"{names[0]} and {names[sounds.index(not sounds[0])]} are of two kinds, expected one: put them into two"
            " folders."
        )
    arrays, kept = [], []
    for i, path in enumerate(paths):
        try:
            if sounds[0]:
                signal, reading = _signal(Path(path), reading)
                arrays.append(signal)
            else:
                arrays.append(_volume(Path(path)))
        except UserError:
            if not skip_bad:
                raise
            continue
        kept.append(i)
    if not arrays:
        raise UserError(
            f"none of {amount(len(names), 'recording')} can be read, the first is {names[0]}: check their format."
        )
    odd = next((i for i, one in enumerate(arrays) if one.shape != arrays[0].shape), None)
    if odd is not None:
        first, other = ("x".join(map(str, arrays[i].shape)) for i in (0, odd))
        cut = (
            f"data.size={min(one.shape[-1] for one in arrays)} cuts or fills them all"
            if sounds[0]
            else "pad or cut them"
        )
        raise UserError(f"{names[kept[0]]} is {first} and {names[kept[odd]]} is {other}, expected one size: {cut}.")
    values, size = np.stack(arrays), reading.size
    reading = replace(reading, size=None)
    if not sounds[0]:
        reading = reading.guess("layout", "ndhw" if values.ndim == 4 else "ncdhw")
        made, reading = of_array(values, "the volumes", reading)
        return made, np.array(kept), reading
    reading = reading.guess("layout", "ncl")
    ends = (-1.0, 1.0)
    if reading.layout == "nhw":
        values, ends = np.stack([log_mel(signal, reading.rate or 1) for signal in values]), (QUIET, 0.0)
    if reading.range is None and reading.levels is None:
        reading = reading.decided(range=ends, levels=0)
    made, reading = of_array(values, "the sounds", reading)
    return made, np.array(kept), replace(reading, size=size)


def log_mel(signal: np.ndarray, rate: int) -> np.ndarray:
    """(C, L) in [-1, 1] -> (MELS, frames) dB below a sine of full height, channels averaged, clipped at QUIET.

    Power of Hann windows of 25 ms every 10 ms, summed by triangles that are even on the mel scale from 0 to half the
    rate, m = 2595 log10(1 + f / 700) (O'Shaughnessy 1987). UserError: shorter than a window.
    """
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    length, hop = round(WINDOW * rate), max(1, round(HOP * rate))
    if signal.shape[-1] < length or length < 4:
        raise UserError(
            f"the sounds have {amount(signal.shape[-1], 'sample')} at {rate:,} a second, fewer than the"
            f" {WINDOW * 1e3:.0f} ms that a log-mel picture needs: leave out data.layout=nhw."
        )
    window = hann(length, sym=False)
    points = 2 ** int(np.ceil(np.log2(length)) + 1)
    spectrum = ShortTimeFFT(window, hop, rate, mfft=points).stft(signal.mean(0), p0=0, p1=None)
    power = 4 * np.abs(spectrum) ** 2 / (points * (window**2).sum())  # sums to 1 for a sine of height 1
    bands = mel_bands(points // 2 + 1, rate) @ power
    return (10 * np.log10(bands.clip(min=1e-12))).clip(QUIET, 0.0).astype(np.float32)


def mel_bands(bins: int, rate: int) -> np.ndarray:
    """(MELS, bins) triangles over frequencies from 0 to rate / 2, each 1 at its middle; bands narrower than a bin take
    the nearest one."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    frequency = np.linspace(0, rate / 2, bins)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.minimum((frequency - low) / (middle - low), (high - frequency) / (high - middle)).clip(min=0)
    narrow = weights.max(1) == 0
    weights[narrow, np.abs(frequency - middle[narrow]).argmin(1)] = 1
    return weights


def _signal(path: Path, reading: Reading) -> tuple[np.ndarray, Reading]:
    """(C, L) float32 in [-1, 1], of the length and rate of the reading; and the reading with the rate."""
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks that hold no sound
            rate, samples = wavfile.read(io.BytesIO(path.read_bytes()))
    except Exception as error:  # scipy raises many kinds, for a file that is cut short too
        raise UserError(
            f"{path} cannot be read as WAV ({reason_of(error)}): write it anew as PCM, or pass --skip-bad to go on"
            " without it."
        ) from error
    if reading.rate not in (None, rate):
        raise UserError(f"{path} has {rate:,} samples a second, expected {reading.rate:,}: resample it.")
    scale = {"uint8": 128.0, "int16": 2.0**15, "int32": 2.0**31}.get(samples.dtype.name, 1.0)
    signal = (samples.astype(np.float64) - 128.0 * (samples.dtype == np.uint8)) / scale
    signal = np.atleast_2d(signal.T).clip(-1, 1).astype(np.float32)
    if reading.size is not None:
        length = reading.size[1]
        signal = np.pad(signal[:, :length], ((0, 0), (0, max(0, length - signal.shape[1]))))
    return signal, replace(reading, rate=int(rate))


def _volume(path: Path) -> np.ndarray:
    """(X, Y, Z), or (T, X, Y, Z) of a series, as numbers of the file's own type where it is not scaled."""
    try:
        import nibabel
    except ImportError as error:
        raise UserError(f"{path} needs more: pip install 'diffrep[nifti]', or save it as .npy.") from error
    try:
        image: Any = nibabel.load(path)  # every kind that has data
        values = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel raises many kinds
        raise UserError(
            f"{path} cannot be read as NIfTI ({reason_of(error)}): write it anew, or pass --skip-bad to go on without"
            " it."
        ) from error
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim not in (3, 4) or values.dtype.kind not in "iuf":
        raise UserError(
            f"{path} holds {values.dtype} of shape {values.shape}, expected a volume or a series: convert it."
        )
    return np.moveaxis(values, -1, 0) if values.ndim == 4 else values
