"""A grid of pictures: each tile has its pixels, in its place."""

import numpy as np
import torch

from diffrep.commands.gallery import grid


def test_tiles_stand_row_by_row_and_what_lies_outside_is_black_or_white():
    """Five tiles in two columns, 57 pixels wide after a whole factor; -2 is as black as -1, 2 as white as 1."""
    values = (-2.0, -1.0, 0.0, 1.0, 2.0)
    sheet = grid(torch.tensor(values)[:, None, None, None].expand(5, 1, 19, 19), 2)
    assert sheet.shape == (2 + 3 * 59, 2 + 2 * 59) and sheet.dtype == np.uint8
    for i, level in enumerate((0, 0, 128, 255, 255)):
        top, left = 2 + 59 * (i // 2), 2 + 59 * (i % 2)
        assert (sheet[top : top + 57, left : left + 57] == level).all()
        assert (sheet[top - 2 : top, left : left + 57] == 255).all()
