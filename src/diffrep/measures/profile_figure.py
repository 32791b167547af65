"""An information profile as a picture: the curve over noise levels, and below it denoised examples."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffrep.evaluation.information import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 6  # noise levels at which examples are shown
WIDTH, CURVE, TILE, HEAT = 9.0, 2.7, 0.95, 2.4  # inches
LEFT, RIGHT, GAP = 1.0, 0.25, 0.12  # inches of margin, and between examples
INK, LIGHT, QUIET = "#1f4e79", "#a9c4de", "#666666"


@dataclass(frozen=True)
class Denoisings:
    """A few pictures x (B, C, H, W), noised and denoised at the log-SNRs (K,): (K, B, C, H, W) each, in [-1, 1]."""

    log_snr: Tensor
    x: Tensor
    x_t: Tensor
    without: Tensor
    given: Tensor


def picture(
    profile: Profile,
    texts: Sequence[str],
    shown: Denoisings | None = None,
    over_times: Sequence[tuple[float, Profile]] = (),
) -> bytes:
    """A PNG file: a title (`texts`, sentences), the curve with a band of two standard errors to each side, and more.

    shown: denoisings under the curve. over_times: the log-SNR that a code was made for, and its profile: a heat map.
    """
    from matplotlib.figure import Figure

    rows = 0 if shown is None else 3 * len(shown.x)
    title = textwrap.wrap(texts[0], 90)
    note = [line for sentence in texts[1:] for line in textwrap.wrap(sentence, 110)]
    heights = {
        "title": 0.35 + 0.22 * len(title) + 0.18 * len(note),
        "curve": CURVE,
        "axis": 0.6,
        "heat": HEAT + 1.1 if over_times else 0.0,
        "tiles": rows * TILE + 0.45 + GAP * rows / 3 if rows else 0.0,
    }
    total = sum(heights.values())
    figure = Figure(figsize=(WIDTH, total))
    figure.text(LEFT / WIDTH, 1 - 0.15 / total, "\n".join(title), va="top", fontsize=11)
    under = 0.15 + 0.22 * len(title)
    figure.text(LEFT / WIDTH, 1 - under / total, "\n".join(note), va="top", fontsize=9, color=QUIET)
    top = total - heights["title"]

    def place(left: float, bottom: float, width: float, height: float) -> Axes:
        return figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))

    width = WIDTH - LEFT - RIGHT
    curve = place(LEFT, top - CURVE, width, CURVE)
    _draw_curve(curve, profile)
    top -= CURVE + heights["axis"]
    if shown is not None:
        _draw_tiles(figure, curve, place, shown, top)
        top -= heights["tiles"]
    if over_times:
        _draw_heat(figure, place(LEFT, top - 0.5 - HEAT, width, HEAT), over_times)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def levels_to_show(profile: Profile, count: int = COLUMNS) -> Tensor:
    """`count` log-SNRs, even between the first and the last hundredth of the nats that the code carries."""
    mass = profile.nats_per_log_snr.clamp(min=0).cumsum(0)
    low, high = profile.log_snr[0], profile.log_snr[-1]
    if float(mass[-1]) > 0:
        low, high = (profile.log_snr[int((mass / mass[-1] < share).sum())] for share in (0.01, 0.99))
    return torch.linspace(float(low), float(high), count)


def _draw_curve(axes: Axes, profile: Profile) -> None:
    at, nats, error = (values.numpy() for values in (profile.log_snr, profile.nats_per_log_snr, profile.se))
    axes.fill_between(at, nats - 2 * error, nats + 2 * error, color=LIGHT, linewidth=0)
    axes.plot(at, nats, color=INK, linewidth=1.8)
    axes.axhline(0, color=QUIET, linewidth=0.8)
    axes.set_xlim(at[0] - profile.width / 2, at[-1] + profile.width / 2)
    label = axes.set_xlabel(r"noise  $\longleftarrow$   log-SNR of $x_t$   $\longrightarrow$  data")
    axes.set_ylabel("nats carried\nper unit of log-SNR")
    axes.spines[["top", "right"]].set_visible(False)
    for text in (label, *axes.get_xticklabels()):  # the lines to the tiles pass behind them
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})


def _draw_heat(figure: Figure, axes: Axes, over_times: Sequence[tuple[float, Profile]]) -> None:
    """Rows: the noise level whose code is used; columns: where it is used. Dotted: each code at its own level."""
    rows = sorted(over_times, key=lambda row: row[0])
    of = [log_snr for log_snr, _ in rows]
    values = torch.stack([profile.nats_per_log_snr for _, profile in rows])
    profile = rows[0][1]
    reach = float(values.abs().quantile(0.98)) or 1.0
    edges = [float(profile.log_snr[0]) + profile.width * (k - 0.5) for k in range(len(profile.log_snr) + 1)]
    between = [(a + b) / 2 for a, b in pairwise(of)]
    ends = [edges[0], *between, edges[-1]]
    mesh = axes.pcolormesh(edges, ends, values.numpy(), cmap="RdBu", vmin=-reach, vmax=reach)
    axes.plot([edges[0], edges[-1]], [edges[0], edges[-1]], color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_ylabel("log-SNR that the\ncode was made for")
    axes.set_xlabel("log-SNR of $x_t$, where the code is used")
    bar = figure.colorbar(mesh, cax=axes.inset_axes((0.74, 1.05, 0.26, 0.04)), orientation="horizontal", extend="both")
    bar.ax.xaxis.set_ticks_position("top")
    bar.ax.tick_params(labelsize=7, pad=1)
    words = "nats carried per unit of log-SNR (below zero the code raises the loss)"
    axes.text(0.72, 1.07, words, transform=axes.transAxes, ha="right", va="center", fontsize=8, color=QUIET)


def _draw_tiles(figure: Figure, curve: Axes, place: Callable[..., Axes], shown: Denoisings, top: float) -> None:
    """For each example x_t, denoised without its code and with it, in columns joined to their place under the curve."""
    from matplotlib.patches import ConnectionPatch

    step = (WIDTH - LEFT - RIGHT) / (len(shown.log_snr) + 1)
    kinds = {"$x_t$": shown.x_t, "denoised\nwithout z": shown.without, "denoised\nwith z": shown.given}

    def tile(column: int, row: int, example: int, x: Tensor) -> Axes:
        bottom = top - 0.45 - (3 * example + row + 1) * TILE - GAP * example
        axes = place(LEFT + step * column + (step - TILE) / 2 + 0.03, bottom + 0.03, TILE - 0.06, TILE - 0.06)
        _show(axes, x)
        return axes

    for example, x in enumerate(shown.x):
        for row, (name, values) in enumerate(kinds.items()):
            for column, at in enumerate(shown.log_snr.tolist()):
                axes = tile(column, row, example, values[column, example])
                if column == 0:
                    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, labelpad=6)
                if (example, row) == (0, 0):
                    axes.set_title(f"{at:.1f}".replace("-", "\N{MINUS SIGN}"), fontsize=9, color=QUIET, pad=3)
                    ends = (at, 0), (0.5, 1.2), curve.get_xaxis_transform(), axes.transAxes
                    figure.add_artist(ConnectionPatch(*ends, color=LIGHT, linewidth=0.9, zorder=-1))
        clean = tile(len(shown.log_snr), 0, example, x)
        if example == 0:
            clean.set_title("x", fontsize=9, color=QUIET, pad=3)


def _show(axes: Axes, x: Tensor) -> None:
    """One picture (C, H, W) in [-1, 1]."""
    pixels = ((x.float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy()
    axes.imshow(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
