"""Charts as inline SVG, whose colours come from the page, for a light, a dark and a printed one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 560.0  # units of a chart; at a text size of 13 it can be read on a phone
SERIES = 6  # colours of lines, --c1 ... in the style sheet
CLASSES = 10  # colours of classes, --k0 ... in the style sheet

Points = Sequence[tuple[float, float]]


@dataclass
class Axes:
    """A frame with scales and ticks; drawings on it are collected as SVG.

    x, y: (low, high) of each axis. The plot lies between `left` and `right`, `top` and `bottom` units from the edges.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    height: float = 240.0
    left: float = 56.0
    right: float = 14.0
    top: float = 14.0
    bottom: float = 46.0
    drawn: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a point in units of the chart."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        wide, high = WIDTH - self.left - self.right, self.height - self.top - self.bottom
        return self.left + across * wide, self.height - self.bottom - up * high

    def frame(self, x_label: str, y_label: str, x_text: Callable[[float], str] | None = None) -> None:
        """Grid lines with their numbers, and the labels of the axes."""
        x_steps, y_steps = ticks(*self.x, 6), ticks(*self.y, 4)
        for y in y_steps:
            _, up = self.at(self.x[0], y)
            self.drawn.append(
                f'<line class="grid" x1="{self.left}" x2="{WIDTH - self.right}" y1="{up:.1f}" y2="{up:.1f}"/>'
            )
            self.text(self.left - 6, up + 4, number(y, y_steps), "end")
        for x in x_steps:
            across, _ = self.at(x, self.y[0])
            self.text(across, self.height - self.bottom + 17, (x_text or (lambda v: number(v, x_steps)))(x), "middle")
        self.text((self.left + WIDTH - self.right) / 2, self.height - 8, x_label, "middle", "axis")
        middle = (self.top + self.height - self.bottom) / 2
        self.drawn.append(
            f'<text class="axis" text-anchor="middle" transform="translate(13 {middle:.0f}) rotate(-90)">'
            f"{escape(y_label)}</text>"
        )

    def line(self, points: Points, style: str) -> None:
        self.drawn.append(f'<polyline class="{style}" points="{self._path(points)}"/>')

    def band(self, low: Points, high: Points, style: str) -> None:
        self.drawn.append(f'<polygon class="{style}" points="{self._path([*low, *reversed(high)])}"/>')

    def text(self, x: float, y: float, words: str, anchor: str = "start", style: str = "tick") -> None:
        """Words at a place in units of the chart."""
        self.drawn.append(
            f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def svg(self, label: str) -> Markup:
        return drawing(WIDTH, self.height, "".join(self.drawn), label)

    def _path(self, points: Points) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))


def drawing(width: float, height: float, content: str, label: str, style: str = "chart") -> Markup:
    """An SVG picture with its alternative text."""
    return Markup(
        f'<svg class="{style}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
        f"{content}</svg>"
    )


def stacked(terms: Mapping[str, float], unit: str, label: str) -> Markup:
    """A bar of terms that add up, with their names and sizes below; negative terms (of a density) are only named."""
    whole = sum(max(value, 0.0) for value in terms.values()) or 1.0
    drawn, left = [], 0.0
    for i, (name, value) in enumerate(terms.items()):
        wide = WIDTH * max(value, 0.0) / whole
        text = f"{name} {value:.4f} {unit} ({_share(max(value, 0.0) / whole)})"
        drawn.append(
            f'<rect class="fill c{i + 1}" x="{left:.1f}" y="0" width="{max(wide, 1.5):.1f}" height="34">'
            f"<title>{escape(text)}</title></rect>"
        )
        row, column = divmod(i, 2)
        x, y = 4 + column * WIDTH / 2, 60 + 24 * row
        drawn.append(f'<rect class="fill c{i + 1}" x="{x}" y="{y - 11}" width="12" height="12" rx="2"/>')
        drawn.append(f'<text class="tick" x="{x + 19}" y="{y}">{escape(text)}</text>')
        left += wide
    return drawing(WIDTH, 56 + 24 * -(-len(terms) // 2), "".join(drawn), label)


def curves(series: Mapping[str, Points], x_label: str, y_label: str, label: str, zero: bool = False) -> Markup:
    """Lines with a legend above; the scale ignores the first twentieth of each line."""
    drawn = {name: points for name, points in series.items() if points}
    xs = [x for points in drawn.values() for x, _ in points]
    settled = [y for points in drawn.values() for _, y in points[len(points) // 20 :]]
    low, high = padded(min(settled), max(settled))
    axes = Axes((min(xs), max(xs)), (min(low, 0.0) if zero else low, high), top=34)
    axes.frame(x_label, y_label, short)
    for i, points in enumerate(drawn.values()):
        axes.line([(x, min(max(y, axes.y[0]), axes.y[1])) for x, y in points], f"line c{i % SERIES + 1}")
    _legend(axes, list(drawn))
    return axes.svg(label)


def profile_curve(log_snr: Sequence[float], nats: Sequence[float], se: Sequence[float], label: str) -> Markup:
    """Nats for each unit of log-SNR, from noise on the left to data on the right, with two standard errors."""
    low = [n - 2 * e for n, e in zip(nats, se, strict=True)]
    high = [n + 2 * e for n, e in zip(nats, se, strict=True)]
    axes = Axes((log_snr[0], log_snr[-1]), padded(min(0.0, *low), max(high)))
    axes.frame("noise  ⟵  log-SNR of the noisy example  ⟶  data", "nats a unit of log-SNR")
    axes.band(list(zip(log_snr, low, strict=True)), list(zip(log_snr, high, strict=True)), "band c1")
    axes.line([(log_snr[0], 0.0), (log_snr[-1], 0.0)], "zero")
    axes.line(list(zip(log_snr, nats, strict=True)), "line c1")
    return axes.svg(label)


def intervals(rows: Mapping[str, Mapping[str, tuple[float, float]]], x_label: str, label: str) -> Markup:
    """Row -> kind -> (value, standard error): a point with two standard errors to each side, kinds under each other."""
    kinds = list(dict.fromkeys(kind for row in rows.values() for kind in row))
    ends = [v + sign * 2 * e for row in rows.values() for v, e in row.values() for sign in (-1, 1)]
    step = 15 * len(kinds) + 14
    left = min(240.0, 24 + 7.3 * max(map(len, rows)))
    axes = Axes(padded(min(ends), max(ends)), (0, 1), height=34 + 46 + step * len(rows), left=left, top=34)
    for x in (steps := ticks(*axes.x, 6)):
        across, _ = axes.at(x, 0)
        axes.drawn.append(
            f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{axes.top}" y2="{axes.height - axes.bottom}"/>'
        )
        axes.text(across, axes.height - axes.bottom + 17, number(x, steps), "middle")
    axes.text((axes.left + WIDTH) / 2, axes.height - 8, x_label, "middle", "axis")
    for i, (name, row) in enumerate(rows.items()):
        top = axes.top + step * i
        axes.text(axes.left - 10, top + step / 2 + 4, name, "end", "name")
        for kind, (value, error) in row.items():
            k = kinds.index(kind)
            y = top + 14 + 15 * k
            (a, _), (b, _), (at, _) = (axes.at(v, 0) for v in (value - 2 * error, value + 2 * error, value))
            text = f"{name}, {kind}: {value:.4f} ± {error:.4f}"
            axes.drawn.append(
                f"<g><title>{escape(text)}</title>"
                f'<line class="line c{k + 1}" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>'
                f'<circle class="fill c{k + 1}" cx="{at:.1f}" cy="{y}" r="4.5"/></g>'
            )
    _legend(axes, kinds)
    return axes.svg(label)


def plane(points: Mapping[str, tuple[float, float, float]], x_label: str, y_label: str, label: str) -> Markup:
    """Name -> (x, y, standard error of y): points with their names beside them and two standard errors up and down."""
    xs = [x for x, _, _ in points.values()]
    ends = [y + sign * 2 * e for _, y, e in points.values() for sign in (-1, 1)]
    axes = Axes(padded(min(xs), max(xs), 0.12), padded(min(ends), max(ends), 0.1), height=330)
    axes.frame(x_label, y_label)
    for i, (name, (x, y, error)) in enumerate(points.items()):
        (across, low), (_, high), (_, at) = (axes.at(x, v) for v in (y - 2 * error, y + 2 * error, y))
        style = f"c{i % SERIES + 1}"
        axes.drawn.append(
            f'<line class="line {style}" x1="{across:.1f}" x2="{across:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
            f'<circle class="fill {style}" cx="{across:.1f}" cy="{at:.1f}" r="5"><title>{escape(name)}</title></circle>'
        )
        on_right = across > WIDTH * 0.7
        axes.text(across + (-9 if on_right else 9), at - 6, name, "end" if on_right else "start", "name")
    return axes.svg(label)


def columns(values: Sequence[float], active: Sequence[bool], y_label: str, label: str) -> Markup:
    """A column for each number, the active ones in colour."""
    axes = Axes((0, len(values)), (0, max([*values, 1e-9]) * 1.08), height=180)
    axes.frame("numbers of the code, the most active first", y_label, lambda x: f"{x:.0f}")
    for i, (value, on) in enumerate(zip(values, active, strict=True)):
        (left, top), (right, bottom) = axes.at(i + 0.12, value), axes.at(i + 0.88, 0)
        axes.drawn.append(
            f'<rect class="fill {"c1" if on else "off"}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}"'
            f' height="{max(bottom - top, 0.8):.1f}"><title>{value:.4g}</title></rect>'
        )
    return axes.svg(label)


def signed(values: Sequence[float], y_label: str, label: str) -> Markup:
    """A column for each number of a code, up or down from zero."""
    axes = Axes((0, len(values)), padded(min([*values, 0.0]), max([*values, 0.0])), height=150)
    axes.frame("numbers of the code", y_label)
    for i, value in enumerate(values):
        (left, top), (right, bottom) = axes.at(i + 0.12, max(value, 0.0)), axes.at(i + 0.88, min(value, 0.0))
        axes.drawn.append(
            f'<rect class="fill c1" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}"'
            f' height="{max(bottom - top, 0.8):.1f}"><title>number {i}: {value:.3f}</title></rect>'
        )
    return axes.svg(label)


def scatter(points: Points, classes: Sequence[int], names: Sequence[str], label: str, key: str) -> Markup:
    """A map: a dot for each point, coloured by class (-1: none); the page's script names the one pointed at."""
    xs, ys = zip(*points, strict=True)
    axes = Axes(
        padded(min(xs), max(xs)), padded(min(ys), max(ys)), height=WIDTH * 0.78, left=4, right=4, top=4, bottom=4
    )
    for i, ((x, y), k, words) in enumerate(zip(points, classes, names, strict=True)):
        across, up = axes.at(x, y)
        style = "none" if k < 0 else f"k{k % CLASSES}"
        axes.drawn.append(
            f'<circle class="dot {style}" data-i="{i}" cx="{across:.1f}" cy="{up:.1f}" r="4">'
            f"<title>{escape(words)}</title></circle>"
        )
    return Markup(str(axes.svg(label)).replace("<svg ", f'<svg data-map="{escape(key)}" ', 1))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between low and high, some `about` of them."""
    if not high > low:
        return [low]
    unit = 10 ** math.floor(math.log10((high - low) / about))
    step = min((unit * k for k in (1, 2, 5, 10)), key=lambda step: abs((high - low) / step - about))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float, beside: Sequence[float] = ()) -> str:
    """A number of an axis, with enough digits to distinguish it from its neighbours."""
    step = min((abs(b - a) for a, b in pairwise(beside)), default=abs(value)) or 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    shown = f"{value:,.{digits}f}"
    return shown.lstrip("-") if not float(shown.replace(",", "")) else shown.replace("-", "\N{MINUS SIGN}")


def short(value: float) -> str:
    """A count in few letters: 20k, 1.5M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def padded(low: float, high: float, share: float = 0.05) -> tuple[float, float]:
    """The interval with some room at both ends; never empty."""
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def _share(share: float) -> str:
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Names beside their colours in one line, from the left edge of the chart."""
    x = 4.0
    for i, name in enumerate(names):
        axes.drawn.append(f'<rect class="fill c{i % SERIES + 1}" x="{x:.1f}" y="8" width="12" height="12" rx="2"/>')
        axes.text(x + 17, 18.5, name)
        x += 38 + 7.0 * len(name)
