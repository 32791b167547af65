"""Read-outs: linear probes on the inner layers of a network that removes noise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from diffrep.data import Examples, Splits
from diffrep.data.batches import batches
from diffrep.errors import UserError, reason_of, unknown
from diffrep.models.base import Model
from diffrep.probes import linear
from diffrep.probes.result import Result
from diffrep.progress import Progress, counting, silent
from diffrep.shapes import mix

PROTOCOL = "readout-3"  # layer, log-SNR by linear-2 on validation, then test once; seeded noise, mean over space
# modules of networks that hold blocks
PLACES = ("down", "middle", "up", "blocks", "down_blocks", "mid_block", "up_blocks")
CLEANEST, NOISIEST, LEVELS = 8.0, 2.0, 7  # log-SNRs of the search, one apart: published read-outs peak at 4.5 to 6.1


class GridCell(TypedDict):
    """The linear probe on a layer at a log-SNR, in the search."""

    layer: str
    log_snr: float
    valid_accuracy: float
    dim: int


class Readout(TypedDict):
    """The layer and log-SNR that are best on validation, and the probe on them."""

    layer: str
    log_snr: float
    accuracy: float
    se: float
    valid_accuracy: float
    dim: int
    protocol: str
    probe: Result
    search_examples: list[int]
    grid: list[GridCell]


@dataclass(frozen=True)
class ProbedNetwork:
    """A network that removes noise and whose layers are probed (DDAE, Xiang et al. 2023, 2303.09769).

    layers: its blocks by name, in order. run: x and eps (B, *shape), and a log-SNR; calls the network on x_t once.
    ends: the range of log-SNRs in its training, noise first.
    """

    network: nn.Module
    layers: Mapping[str, nn.Module]
    run: Callable[[Tensor, Tensor, float], None]
    ends: tuple[float, float]


def of_model(model: Model) -> ProbedNetwork:
    """The decoder of a diffusion model; a decoder with codes gets the null code.

    UserError: there is no decoder that removes noise, it was never trained without its code, or it needs a covariate.
    """
    decoder = model.diffusion
    if decoder is None:
        raise UserError("this method removes no noise, so it has no layers to read; train one that does, such as ddpm.")
    if model.has_code and not decoder.drop:
        raise UserError(
            "this decoder cannot denoise without its code, which would already hold the answer: it was trained with "
            "code.drop=0; read a method without a code, such as ddpm, or train again with --set code.drop=0.1."
        )
    denoiser = decoder.denoiser
    if denoiser.covariates:
        raise UserError(
            "this decoder was trained with data.covariate, and a read-out gives it examples and noise alone: read a run"
            " that was trained without it."
        )

    def run(x: Tensor, eps: Tensor, log_snr: float) -> None:
        t = denoiser.noise.time(torch.full((len(x),), log_snr, device=x.device))
        denoiser(denoiser.noise.add(x, eps, t), t)

    at = torch.tensor([1.0, 0.0], device=next(model.parameters()).device)
    with torch.no_grad():
        noisy, clean = denoiser.noise.log_snr(at).tolist()
    return ProbedNetwork(denoiser.network, blocks_of(denoiser.network), run, (noisy, clean))


def of_diffusers(network: nn.Module, alphas_cumprod: Tensor, layers: Sequence[str] = ()) -> ProbedNetwork:
    """A U-Net that is called as network(sample, timestep), as those of the diffusers library are.

    alphas_cumprod (T,): alpha^2 at each of its timesteps, from its scheduler; a log-SNR is rounded to the nearest.
    layers: names of its modules, such as "up_blocks.1.resnets.0"; empty: all blocks.
    """
    device = next(network.parameters()).device
    alpha2 = alphas_cumprod.to(device)
    log_snrs = torch.log(alpha2 / (1 - alpha2))

    def run(x: Tensor, eps: Tensor, log_snr: float) -> None:
        timestep = (log_snrs - log_snr).abs().argmin()
        a = alpha2[timestep]
        network(a.sqrt() * x + (1 - a).sqrt() * eps, timestep)

    return ProbedNetwork(network, blocks_of(network, layers), run, (float(log_snrs.min()), float(log_snrs.max())))


def of_pipeline(folder: Path) -> ProbedNetwork:
    """The U-Net of a pipeline that the diffusers library saved, read from safetensors and JSON alone (extra
    `diffusers`). UserError: no such weights, a U-Net that needs more than a picture and a timestep."""
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    try:
        import diffusers
    except ImportError as error:
        raise UserError(f"{folder} is a pipeline, which needs more: pip install 'diffrep[diffusers]'.") from error
    if not weights.is_file():
        raise UserError(f"{folder} has no {weights.relative_to(folder)}, and no other weights are read: save it anew.")
    try:
        kind = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))["_class_name"]
        if kind != "UNet2DModel":
            raise UserError(f"{folder} has a {kind}, expected a UNet2DModel: it takes a picture and a timestep alone.")
        here: dict[str, Any] = {"local_files_only": True}
        unet = diffusers.UNet2DModel.from_pretrained(folder, subfolder="unet", use_safetensors=True, **here)
        steps = diffusers.DDPMScheduler.from_pretrained(folder, subfolder="scheduler", **here)
    except UserError:
        raise
    except Exception as error:  # the library raises its own kinds
        raise UserError(f"{folder} cannot be read as a pipeline ({reason_of(error)}): save it anew.") from error
    return of_diffusers(unet, steps.alphas_cumprod)


def blocks_of(network: nn.Module, names: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The blocks on the way down, in the middle and on the way up, by name; or the modules of these names."""
    modules = dict(network.named_modules())
    for name in names:
        if name not in modules:
            raise unknown("layer", name, modules)
    if names:
        return {name: modules[name] for name in names}
    blocks = {
        name: module
        for place in PLACES
        for name, module in modules.items()
        if (name == place or name.startswith(f"{place}.")) and _is_block(name, modules)
    }
    if not blocks:
        raise UserError(f"expected a network with blocks in one of {', '.join(PLACES)}, got none; name layers to read")
    return blocks


@contextmanager
def recording(probed: ProbedNetwork, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, each run of the network (in evaluation mode) stores the outputs of these layers by name."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Any], None]:
        def hook(module: nn.Module, inputs: object, output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output

        return hook

    was_training = probed.network.training
    probed.network.eval()
    hooks = [probed.layers[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
        probed.network.train(was_training)


def pooled(h: Tensor) -> Tensor:
    """(B, C, *spatial) -> (B, C): the mean over space; vectors (B, F) as they are."""
    return h.float() if h.ndim == 2 else h.float().flatten(2).mean(2)


@torch.no_grad()
def features(
    probed: ProbedNetwork,
    examples: Examples,
    log_snr: float,
    names: Sequence[str] = (),
    batch: int = 250,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
    """layer -> (N, channels): outputs at one noise level, the mean over space, examples in order; all layers, or names.

    Each example has one eps, which depends only on the seed and its position in the split.
    """
    names = names or [*probed.layers]
    collected: dict[str, list[np.ndarray]] = {name: [] for name in names}
    device = next(probed.network.parameters()).device
    with recording(probed, names) as outputs:
        for chunk in batches(examples, batch, seed, device):
            probed.run(chunk.x, chunk.random.normal(*chunk.x.shape), log_snr)
            for name in names:
                collected[name].append(pooled(outputs[name]).cpu().numpy())
            progress(len(chunk))
    return {name: np.concatenate(chunks) for name, chunks in collected.items()}


def readout(
    probed: ProbedNetwork,
    splits: Splits,
    levels: int = LEVELS,
    search: int = 2000,
    most: int = 20_000,
    seed: int = 0,
    progress: Progress = silent,
) -> Readout:
    """Linear probe on the layer and log-SNR that are best on validation: accuracy and se on the whole test split.

    Every layer at `levels` evenly spaced log-SNRs is judged on at most `search` training and validation examples;
    `grid` holds each pair with its validation accuracy. The test split is used once, with the chosen pair and at most
    `most` training examples. UserError where a split has no labels.
    """
    searched = [split.subset(split.labelled_first(search)) for split in (splits.train, splits.valid)]
    y, y_valid = (split.require_labels().cpu().numpy() for split in searched)
    splits.test.require_labels()
    noisy, clean = (min(max(end, probed.ends[0]), probed.ends[1]) for end in (NOISIEST, CLEANEST))
    grid: list[GridCell] = []
    total = levels * len(probed.layers)
    for log_snr in np.linspace(clean, noisy, levels).tolist():
        progress("search over layers", len(grid), total)
        x, x_valid = (features(probed, split, log_snr, seed=noise_seed(seed, split)) for split in searched)
        for layer in probed.layers:
            valid = (x_valid[layer], y_valid)
            accuracy = linear.linear((x[layer], y), valid, valid)["accuracy"]
            grid.append({"layer": layer, "log_snr": log_snr, "valid_accuracy": accuracy, "dim": x[layer].shape[1]})
            progress("search over layers", len(grid), total)
    best = max(grid, key=lambda cell: cell["valid_accuracy"])
    layer, log_snr = best["layer"], best["log_snr"]
    train = splits.train.subset(splits.train.labelled_first(most))
    chosen = (train, splits.valid, splits.test)
    count = counting("read-out", sum(map(len, chosen)), progress)
    read, labels = [], [split.require_labels().cpu().numpy() for split in chosen]
    for split in chosen:
        read.append(features(probed, split, log_snr, [layer], seed=noise_seed(seed, split), progress=count)[layer])
    train_, valid_, test_ = zip(read, labels, strict=True)
    probe = linear.linear(train_, valid_, test_, most)
    return {
        "layer": layer,
        "log_snr": log_snr,
        "accuracy": probe["accuracy"],
        "se": probe["se"],
        "valid_accuracy": best["valid_accuracy"],
        "dim": best["dim"],
        "protocol": PROTOCOL,
        "probe": probe,
        "search_examples": [len(split) for split in searched],
        "grid": grid,
    }


def noise_seed(seed: int, examples: Examples) -> int:
    """The seed of the noise for a split; it differs between splits and between seeds."""
    return mix(seed, examples.split)


def _is_block(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Is the module a block: not a list, and inside of lists only? Modules inside of a block are none."""
    above = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
    return not isinstance(modules[name], nn.ModuleList) and all(isinstance(modules[o], nn.ModuleList) for o in above)
