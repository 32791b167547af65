"""A grid of pictures: each tile has its pixels, in its place."""

import numpy as np
import torch

from diffrep.commands.gallery import grid, save_grid


def test_tiles_stand_row_by_row_and_what_lies_outside_is_black_or_white():
    """Five tiles in two columns, 57 pixels wide after a whole factor; -2 is as black as -1, 2 as white as 1."""
    values = (-2.0, -1.0, 0.0, 1.0, 2.0)
    sheet = grid(torch.tensor(values)[:, None, None, None].expand(5, 1, 19, 19), 2)
    assert sheet.shape == (2 + 3 * 59, 2 + 2 * 59) and sheet.dtype == np.uint8
    for i, level in enumerate((0, 0, 128, 255, 255)):
        top, left = 2 + 59 * (i // 2), 2 + 59 * (i % 2)
        assert (sheet[top : top + 57, left : left + 57] == level).all()
        assert (sheet[top - 2 : top, left : left + 57] == 255).all()


def test_signals_and_rows_are_lines_on_one_scale(tmp_path, monkeypatch):
    """Each example in its place, a line for each channel; the scale is that of all."""
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    plain = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: seen.append(figure) or plain(figure, *a, **k))
    x = torch.arange(3 * 2 * 5).reshape(3, 2, 5).float()
    save_grid(x, tmp_path / "a.png", columns=2)
    save_grid(x[:, 0], tmp_path / "b.png", columns=2)
    for figure, examples in zip(seen, (x, x[:, :1]), strict=True):
        lines = [[line.get_ydata().tolist() for line in axes.lines] for axes in figure.axes]
        assert lines == examples.tolist()
        ends = (float(examples.min()) - 0.05, float(examples.max()) + 0.05)
        assert all(axes.get_ylim() == ends for axes in figure.axes)
        assert [axes.get_subplotspec().num1 for axes in figure.axes] == [0, 1, 2]
