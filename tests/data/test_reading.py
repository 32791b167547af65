"""How data is read is decided once: what was guessed is said, and what was decided is applied to other data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from diffrep import data
from diffrep.data import Reading, load
from diffrep.data.reading import Guess
from diffrep.errors import UserError

RNG = np.random.default_rng(0)


def all_of(examples) -> torch.Tensor:
    return examples.batch(torch.arange(len(examples))).x


def test_a_reading_survives_its_file():
    """What a run stores is what it applies."""
    reading = load((RNG.random((9, 4, 5)), np.arange(9) % 3)).train.reading
    assert Reading.from_dict(reading.as_dict()) == reading


def test_a_part_is_read_on_the_grid_of_the_whole():
    """Pictures that alone look as if in [0, 1] stay on [-1, 1], and dark ones keep their 256 levels."""
    whole = RNG.uniform(-1, 1, (12, 6, 5)).astype(np.float32)
    whole[::2] = np.abs(whole[::2])
    levels = np.rint(255 * RNG.random((12, 6, 5))).astype(np.float32)
    levels[0] = levels[0] > 128
    for values, part in ((whole, slice(0, 12, 2)), (levels, slice(0, 1))):
        how = load(values).train.reading.for_other()
        assert torch.equal(all_of(data.whole(values[part], reading=how)), all_of(data.whole(values, reading=how))[part])
    with pytest.raises(UserError, match=r"from -1.* expected 0 to 255"):
        data.whole(whole - 0.5, reading=load(levels).train.reading.for_other())


def test_columns_are_matched_by_name(tmp_path):
    """Other orders of columns are the same table; one that lacks a column says which."""
    table = pd.DataFrame(RNG.normal(size=(20, 3)), columns=["a", "b", "c"]).assign(label=np.arange(20) % 2)
    table.to_csv(tmp_path / "t.csv", index=False)
    table[["c", "label", "a", "b"]].to_csv(tmp_path / "r.csv", index=False, sep=";")
    how = load(tmp_path / "t.csv").train.reading.for_other()
    one, other = (data.whole(tmp_path / name, reading=how) for name in ("t.csv", "r.csv"))
    assert torch.equal(all_of(one), all_of(other)) and torch.equal(one.labels, other.labels)
    with pytest.raises(UserError, match=r"lacks 1 of the 3 columns.*'b'"):
        data.whole(table[["a", "c"]], reading=how)


def test_measurements_and_flags_are_no_counts():
    """Whole numbers of which many are 0 are counts only where the columns look like those of counts."""
    flags = RNG.integers(0, 2, (60, 20))
    plain = load(np.concatenate([RNG.integers(20, 900, (60, 3)), flags], 1)).train
    assert plain.reading.counts is False and not plain.reading.doubts()
    counted = load(RNG.poisson(RNG.gamma(0.2, 20, (60, 50)))).train
    assert counted.reading.counts is True and "data.counts=no" in counted.reading.doubts()[0]


@pytest.mark.parametrize("kind, levels", [(np.uint8, 256), (np.uint16, 65536), (np.float32, None)])
def test_zeros_and_ones_are_never_read_without_a_sentence(kind, levels):
    """Whatever their type, the sentence names the setting; with it, and with other values, nothing is doubted."""
    masks = RNG.integers(0, 2, (9, 5, 6)).astype(kind)
    plain, asked = load(masks).train, load(masks, levels=2).train
    assert plain.bins == levels and any("data.levels=2 if" in s for s in plain.reading.doubts())
    assert asked.bins == 2 and not asked.reading.doubts() and set(all_of(asked).unique().tolist()) == {-0.5, 0.5}
    assert not any(
        "data.levels=2 if" in s for s in load((masks * 200).astype(kind), range=(0, 200)).train.reading.doubts()
    )


def test_pictures_of_zeros_and_ones_are_doubted(tmp_path):
    """Masks saved as 8-bit pictures, as segmentations are; other pictures are not."""
    for i, mask in enumerate(RNG.integers(0, 2, (9, 5, 6), dtype=np.uint8)):
        for folder, scale in (("masks", 1), ("grey", 200)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(mask * scale).save(tmp_path / folder / f"{i}.png")
    assert any("data.levels=2 if" in s for s in load(tmp_path / "masks").train.reading.doubts())
    assert load(tmp_path / "masks", levels=2).train.bins == 2 and not load(tmp_path / "grey").train.reading.doubts()


def test_a_list_called_label_is_no_feature(tmp_path):
    """Several labels an example: left out, with a sentence; the code would hold the answer otherwise."""
    table = pd.DataFrame({"a": RNG.normal(size=12), "label": [[1, 0], [0, 1]] * 6})
    table.to_parquet(tmp_path / "t.parquet")
    part = load(tmp_path / "t.parquet").train
    assert part.shape == (1,) and part.reading.left_out == ("label",) and "left out" in part.reading.doubts()[0]


def test_real_numbers_asked_for_as_the_label_are_one_sentence(tmp_path):
    """It says how to regress on them."""
    pd.DataFrame({"a": RNG.normal(size=12), "price": RNG.random(12)}).to_csv(tmp_path / "t.csv", index=False)
    np.savez(tmp_path / "t.npz", x=RNG.normal(size=(12, 3)), price=RNG.random(12))
    for name, said in (("t.csv", r"quantities.*--labels price"), ("t.npz", r"quantities.*factor")):
        with pytest.raises(UserError, match=said):
            load(tmp_path / name, label_column="price")


def test_what_is_printed_is_plain():
    """A cut by shares and a number that stands for no label, in words."""
    rows = {name: value for name, value, _ in load((RNG.random((12, 4, 5)), np.arange(12) % 2)).train.reading.lines()}
    assert rows["split"] == "at random, by data.valid, data.test and seed"
    assert rows["missing label"] == "written as -1"


@pytest.mark.parametrize(
    "shape, how, expected",
    [
        ((9, 32, 32, 13), {}, (13, 32, 32)),
        ((9, 4, 4, 3), {}, (3, 4, 4)),
        ((9, 7, 7, 7), {}, (1, 7, 7, 7)),
        ((9, 8, 6, 6, 3), {}, (3, 8, 6, 6)),
        ((9, 12, 400), {}, (12, 400)),
        ((9, 64, 100), {"layout": "ncl"}, (64, 100)),
    ],
)
def test_axes(shape, how, expected):
    """The lengths of the axes tell what they are, or the layout says it."""
    assert load(RNG.random(shape), **how).train.shape == expected


def test_words_and_missing_numbers():
    """A column of words that is asked for has an indicator for each word; a missing number has one beside the mean."""
    table = pd.DataFrame({"size": [1.0, None, 3.0, 4.0] * 5, "colour": ["red", "blue"] * 10, "kind": ["a", "b"] * 10})
    part = load(table, columns=("all",), label_column="kind").train
    assert part.shape == (4,) and part.reading.words == {"colour": ("blue", "red")} and "size" in part.reading.fills
    assert all_of(part).isfinite().all()


def test_classes_are_numbered_as_in_training():
    """A part of the classes keeps their numbers; a class that is not known is -1 and said; 10 comes after 2."""
    x = RNG.random((12, 4, 5))
    train = load((x, np.array(["2", "10", "9"] * 4))).train
    assert train.label_names == ["2", "9", "10"]
    other = data.whole((x[:3], np.array(["10", "9", "new"])), reading=train.reading.for_other())
    assert other.labels.tolist() == [2, 1, -1] and "new" in other.reading.doubts()[0]


@pytest.mark.parametrize("source", [RNG.random((9, 5, 6, 7)), RNG.integers(0, 900, (9, 5, 6)).astype(np.uint16)])
def test_no_guess_without_a_word(source):
    """Each guess stands in the printed lines with the setting that says otherwise."""
    reading = load(source).train.reading
    marked = {
        name.replace(" ", "_") for name, _, note in reading.lines() if "says otherwise" in note and "data." in note
    }
    assert reading.guesses and {guess.field for guess in reading.guesses} == marked and reading.doubts()


@pytest.mark.parametrize(
    "guesses, said",
    [(0, ""), (1, ", 1 guess that `diffrep data` names"), (2, ", 2 guesses that `diffrep data` names")],
)
def test_the_line_counts_guesses(guesses, said):
    """The line that training prints."""
    reading = Reading(shape=(3,), guesses=tuple(Guess(name) for name in ("label", "counts")[:guesses]))
    assert reading.line() == "3, no labels" + said


def test_a_quantity_is_no_class_without_a_word(tmp_path):
    """Whole numbers that hardly repeat: a factor of a pair, and classes with a sentence where they were asked for."""
    x, price = RNG.normal(size=(60, 3)), np.arange(60) * 7
    pair = load((x, price)).train
    assert pair.labels is None and "y" in pair.factors and any("y.astype(str)" in s for s in pair.reading.doubts())
    assert load((x, price.astype(str))).train.label_names is not None
    table = pd.DataFrame(x, columns=["a", "b", "c"]).assign(price=price)
    table.to_csv(tmp_path / "t.csv", index=False)
    np.savez(tmp_path / "t.npz", x=x, price=price)
    for name in ("t.csv", "t.npz"):
        asked = load(tmp_path / name, label_column="price").train
        assert len(asked.label_names) == 60
        assert any("60 different whole numbers" in s and "--labels price" in s for s in asked.reading.doubts())


@pytest.mark.parametrize("sign, word", [(",", ","), ("\t", "tab"), (" ", "space"), (";", ";")])
def test_a_table_called_txt_is_read(tmp_path, sign, word):
    """The same examples as the .csv, with the delimiter as a guess; in a folder of pictures it is left alone."""
    table = pd.DataFrame(RNG.normal(size=(20, 3)), columns=["a", "b", "c"]).assign(label=np.arange(20) % 2)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_csv(tmp_path / "t.txt", index=False, sep=sign)
    one, other = (load(tmp_path / name).train for name in ("t.csv", "t.txt"))
    assert torch.equal(all_of(one), all_of(other)) and other.reading.delimiter == word
    assert Guess("delimiter") in other.reading.guesses
    how = one.reading.for_other()
    assert torch.equal(*(all_of(data.whole(tmp_path / name, reading=how)) for name in ("t.csv", "t.txt")))


def test_what_has_no_labels_is_told_where_they_go():
    """A table has no folders to put its rows in."""
    r = np.random.default_rng(0)
    for x, there in ((r.normal(size=(9, 3)), False), (r.integers(0, 256, (9, 4, 4), dtype=np.uint8), True)):
        with pytest.raises(UserError, match=r"no labels, which are needed here: .*with data\.label_column\.") as error:
            data.whole(x).require_labels()
        assert ("class folders" in str(error.value)) == there
