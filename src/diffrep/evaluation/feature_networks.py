"""Feature functions, for distances between sets of examples."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from diffrep.errors import UserError, reason_of, unknown
from diffrep.shapes import Data

DINO = "facebook/dinov2-small"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels in [0, 1], as DINO was trained


@dataclass(frozen=True)
class Features:
    """x (B, *shape), in [-1, 1] for pictures -> (B, d), and a name that is stated with every number computed from
    them."""

    name: str
    of: Callable[[Data], Tensor]


def public(text: str) -> str:
    """The name of features in results: of a path only the last component, which does not depend on the machine."""
    kind, _, path = text.partition(":")
    a_path = path and (kind in ("run", "inception") or Path(path).exists())
    return f"{kind}:{Path(path).name}" if a_path else text


def named(text: str, device: torch.device | str = "cpu") -> Features:
    """Features by name: pixels, inception[:WEIGHTS], dino[:MODEL]; UserError for another name, or a missing extra.

    WEIGHTS: a file of FID's Inception, else it is downloaded. MODEL: a name on the hub or a folder.
    """
    name, _, rest = text.partition(":")
    if name not in FEATURES:
        raise unknown("features", text, FEATURES, "Known: run:PATH, pixels, inception[:WEIGHTS], dino[:MODEL].")
    return FEATURES[name](rest, torch.device(device))


def pixels(rest: str, device: torch.device) -> Features:
    """The values themselves, flattened."""
    return Features("pixels", lambda x: x.flatten(1))


def inception(weights: str, device: torch.device) -> Features:
    """The 2,048 numbers of the last pooling of FID's Inception-v3 (Heusel et al. 2017), on pictures of 8 bits."""
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as library
    except (ImportError, RuntimeError) as error:  # the latter: a torchvision made for another torch
        raise UserError(f"inception features need more: pip install 'diffrep[fid]' ({error}).") from error
    path = Path(weights) if weights else _downloaded(library.URL_INCEPTION_V3)
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # a check, since the library would unpickle anything
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        network = library.FeatureExtractorInceptionV3("inception", ["2048"], str(path)).to(device)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = getattr(error, "strerror", None) or "no such tensors, or more than tensors"
        raise UserError(
            f"{path} holds no weights of FID's Inception ({reason}); give the .pth file of torch-fidelity, as"
            " inception:PATH."
        ) from error

    def of(x: Data) -> Tensor:
        grey = ((rgb(x) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return network(grey.to(device))[0]

    return Features(f"inception (torch-fidelity, weights {digest})", of)


def dino(model: str, device: torch.device) -> Features:
    """The class token of DINOv2 (Oquab et al. 2023) at 224 x 224; Stein et al. 2023 on why not Inception."""
    try:
        from transformers import AutoModel
    except (ImportError, RuntimeError) as error:
        raise UserError(f"dino features need more: pip install 'diffrep[dino]' ({error}).") from error
    try:
        network = AutoModel.from_pretrained(model or DINO, use_safetensors=True).to(device).eval()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{model or DINO} cannot be loaded ({reason_of(error)}); check the connection, or give a folder,"
            " as dino:PATH."
        ) from error
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))

    def of(x: Data) -> Tensor:
        pixels = F.interpolate((rgb(x).cpu() + 1) / 2, (224, 224), mode="bicubic", antialias=True)
        return network(pixel_values=((pixels - mean) / std).to(device)).last_hidden_state[:, 0]

    return Features(public(f"dino:{model or DINO}"), of)


def rgb(x: Data) -> Tensor:
    """(B, 1 or 3, H, W) -> (B, 3, H, W); UserError for examples that are not pictures."""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UserError(
            f"these features need grey or RGB pictures, got examples of shape {tuple(x.shape[1:])}; use pixels or"
            " run:PATH."
        )
    return x.expand(-1, 3, -1, -1)


def _downloaded(url: str) -> Path:
    """The file behind a url, fetched once into torch's own cache."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:
            raise UserError(
                f"the weights of FID's Inception cannot be downloaded ({error}); fetch {path.name} of torch-fidelity on"
                " another machine and give it as inception:PATH."
            ) from error
    return path


FEATURES: dict[str, Callable[[str, torch.device], Features]] = {"pixels": pixels, "inception": inception, "dino": dino}
