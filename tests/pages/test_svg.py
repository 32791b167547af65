"""Charts: their numbers stand where the axis says, and the axis says what it shows."""

import re

import numpy as np
import pytest
import torch

from diffrep.pages import run_pictures, sections, svg, tiles


@pytest.mark.parametrize("low, high", [(0, 1), (-3.7, 8.1), (0.87, 1.01), (1000, 250_000), (-1e-3, 2e-3)])
def test_ticks_are_round_numbers_inside_and_their_text_is_their_value(low, high):
    """What an axis is labelled with must be the place of the tick: a tick at 2.5 that reads "2" lies."""
    found = svg.ticks(low, high, 5)
    assert 3 <= len(found) <= 11 and low <= found[0] and found[-1] <= high
    for tick in found:
        text = svg.number(tick, found).replace("\N{MINUS SIGN}", "-").replace(",", "")
        assert float(text) == pytest.approx(tick, abs=1e-12)


def test_parts_of_a_bar_have_their_shares():
    """The widths of a stacked bar are proportional to its parts."""
    drawn = svg.stacked({"a": 3.0, "b": 1.0}, "bits", "a bar")
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="34"', drawn)]
    assert widths == pytest.approx([0.75 * svg.WIDTH, 0.25 * svg.WIDTH], abs=0.1)
    assert "a 3.0000 bits (75%)" in drawn and "b 1.0000 bits (25%)" in drawn


def test_an_interval_is_two_errors_to_each_side():
    """The line of 0.5 +- 0.1 spans twice as much as that of 0.5 +- 0.05, with its point in the middle."""
    drawn = svg.intervals({"row": {"a": (0.5, 0.1), "b": (0.5, 0.05)}}, "accuracy", "two")
    spans = [(float(a), float(b)) for a, b in re.findall(r'x1="([\d.]+)" x2="([\d.]+)" y1="(?:\d+)" y2', drawn)]
    points = [float(x) for x in re.findall(r'cx="([\d.]+)"', drawn)]
    (a, b), (c, d) = spans[-2:]
    assert (b - a) == pytest.approx(2 * (d - c), rel=0.01) and points == pytest.approx([(a + b) / 2] * 2, abs=0.2)


def test_the_band_of_a_profile_is_two_errors_to_each_side(monkeypatch):
    """Of 5 +- 1 and 7 +- 2 nats it reaches from 3 to 7 and from 3 to 11."""
    bands = []
    monkeypatch.setattr(svg.Axes, "band", lambda axes, low, high, style: bands.append((low, high)))
    svg.profile_curve([-1.0, 1.0], [5.0, 7.0], [1.0, 2.0], "a profile")
    assert bands == [([(-1.0, 3.0), (1.0, 3.0)], [(-1.0, 7.0), (1.0, 11.0)])]


@pytest.fixture
def drawn(monkeypatch) -> list[svg.Axes]:
    """The axes of each chart."""
    made: list[svg.Axes] = []
    plain = svg.Axes.svg
    monkeypatch.setattr(svg.Axes, "svg", lambda axes, label: made.append(axes) or plain(axes, label))
    return made


def numbers(text: str, *names: str) -> list[tuple[float, ...]]:
    """The numbers of these attributes, of each element that has all of them in this order."""
    pattern = "[^>]*?".join(rf'\s{name}="([-\d.]+)"' for name in names)
    return [tuple(map(float, found)) for found in re.findall(pattern, text)]


def test_bits_against_rate_have_two_errors_up_and_down(drawn):
    """Points at (2, 1.0) and (4, 1.4): each in its place, its bar as long as four errors of its axis."""
    text = svg.plane({"a": (2.0, 1.0, 0.05), "b": (4.0, 1.4, 0.1)}, "nats", "bits", "two runs")
    bars, points = numbers(text, "x1", "x2", "y1", "y2")[-2:], numbers(text, "cx", "cy")
    for (x, y, error), bar, point in zip(((2.0, 1.0, 0.05), (4.0, 1.4, 0.1)), bars, points, strict=True):
        (across, low), (_, high) = (drawn[0].at(x, y + sign * 2 * error) for sign in (-1, 1))
        assert point == pytest.approx(drawn[0].at(x, y), abs=0.1)
        assert bar == pytest.approx((across, across, low, high), abs=0.1)
    assert drawn[0].y[0] < 0.9 and drawn[0].y[1] > 1.6 and points[0][0] < points[1][0] and points[0][1] > points[1][1]


def test_a_curve_goes_through_its_points_on_a_scale_that_forgets_its_beginning(drawn):
    """Of forty points the first two may leave the frame, where they are held; with zero the axis has it."""
    points = [(float(k), 100.0 if k < 2 else 5.0 + k % 2) for k in range(40)]
    text = svg.curves({"loss": points}, "examples", "nats", "a curve", zero=True)
    (line,) = re.findall(r'<polyline class="line c1" points="([^"]+)"', text)
    came = [tuple(map(float, pair.split(","))) for pair in line.split()]
    axes = drawn[0]
    assert axes.x == (0, 39) and axes.y[0] == 0 and 6 < axes.y[1] < 7
    for (x, y), place in zip(points, came, strict=True):
        assert place == pytest.approx(axes.at(x, min(y, axes.y[1])), abs=0.1)


def test_columns_of_a_code_stand_up_and_down_from_zero(drawn):
    """2 and -1: as high as twice the other, one above the line of zero and one below."""
    boxes = numbers(svg.signed([2.0, -1.0], "units", "a code"), "x", "y", "width", "height")
    zero = drawn[0].at(0, 0.0)[1]
    (_, up, _, high), (_, down, _, low) = boxes
    assert up + high == pytest.approx(zero, abs=0.1) and down == pytest.approx(zero, abs=0.1)
    assert high == pytest.approx(2 * low, abs=0.2)
    active = numbers(svg.columns([2.0, 1.0], [True, False], "variance", "numbers"), "x", "y", "width", "height")
    assert active[0][3] == pytest.approx(2 * active[1][3], abs=0.2) and active[0][0] < active[1][0]


def test_a_curve_of_many_lines_is_the_mean_of_neighbours():
    """400 lines of which one has no value: 160 points at most, each the mean of three that follow each other."""
    log = [{"examples": 10 * k, "v": None if k == 0 else float(k)} for k in range(400)]
    points = sections._curve(log, lambda line: line["v"])
    assert len(points) == 133 and points[0] == (20, 2) and points[-1] == (3980, 398)
    assert sections._curve(log[:3], lambda line: line["v"]) == [(10, 1), (20, 2)]


@pytest.mark.parametrize(
    "count, said", [(7, "7"), (999, "999"), (20_000, "20k"), (1_500_000, "1.5M"), (-2000, "-2k"), (0.25, "0.25")]
)
def test_a_count_in_few_letters(count, said):
    assert svg.short(count) == said


def test_tiles_keep_the_pixels():
    """What a page shows of an image is its pixels: black, white and colour where they were."""
    x = torch.full((2, 3, 4, 5), -1.0)
    x[1, 0] = 1.0
    levels = tiles.grid(tiles.tiles(x), 2)
    assert levels[:4, :5, :3].max() == 0 and (levels[:4, -5:, 0] == 255).all() and levels[:4, -5:, 1].max() == 0
    assert levels[:4, 5, 3].max() == 0  # nothing between the tiles


def test_volumes_and_large_pictures_become_small_ones():
    """A page stays small: the middle slice of a volume, at most SIDE pixels a side."""
    assert tiles.tiles(torch.zeros(2, 1, 9, 200, 100)).shape == (2, tiles.SIDE, tiles.SIDE // 2, 4)


def test_principal_directions_are_those_along_which_points_vary():
    """Points stretched along a known line have it as their first direction, of either sign made definite."""
    along = np.array([0.6, -0.8])
    points = np.random.default_rng(0).normal(size=(500, 1)) * along * 5 + np.random.default_rng(1).normal(size=(500, 2))
    first, second = run_pictures.principal(points)
    assert abs(first @ along) == pytest.approx(1, abs=0.01) and first @ second == pytest.approx(0, abs=1e-9)
    assert first[np.abs(first).argmax()] > 0


def test_neighbours_have_the_smallest_angle():
    """Length does not count: (10, 0) is nearest to (1, 0.1), and (0, 1) is last."""
    known = np.array([[0.0, 1.0], [10.0, 0.0], [1.0, 1.0]])
    assert run_pictures.nearest(np.array([[1.0, 0.1]]), known, 3).tolist() == [[1, 2, 0]]
