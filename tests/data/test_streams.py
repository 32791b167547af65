"""Streams: every row of every shard in its turn, the same from any place on, however many processes read it."""

import io
import json
import tarfile
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import tiny
from diffrep import data, runs
from diffrep.data.streams import order as orders
from diffrep.data.streams.loader import ShardStream
from diffrep.data.streams.order import Lane, Order
from diffrep.data.streams.shards import RowGroup, Shard, Shards, row_groups
from diffrep.data.streams.shards import _examples as examples_of
from diffrep.errors import UserError
from diffrep.training import engine
from runs_at_hand import diffrep, one_sentence
from samples import png

pytestmark = pytest.mark.slow
ROWS = {"train-0": 50, "train-1": 37, "train-2": 41, "valid-0": 12, "test-0": 12}
TRAINING = 128


def picture(split: str, number: int) -> np.ndarray:
    """4 x 4 pixels that tell which example they are."""
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0, :3] = number, ["train", "valid", "test"].index(split), 255
    return pixels


def examples(name: str) -> list[tuple[int, np.ndarray, int]]:
    """(number in its split, picture, class) of the rows of a file."""
    split = name.split("-")[0]
    first = sum(count for other, count in ROWS.items() if other < name and other.startswith(split))
    return [(i, picture(split, i), i % 3) for i in range(first, first + ROWS[name])]


def write_parquets(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ROWS:
        rows = [
            {"image": {"bytes": png(Image.fromarray(x)), "path": f"{i}.png"}, "label": y} for i, x, y in examples(name)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet", row_group_size=16)
    return folder


def write_tars(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ROWS:
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for i, x, y in examples(name):
                for suffix, content in (("png", png(Image.fromarray(x))), ("cls", str(y).encode())):
                    member = tarfile.TarInfo(f"{i:05d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_parquets(tmp_path_factory.mktemp("stream") / "shards")


def stream(folder: Path, batch: int = 16, **how) -> ShardStream:
    splits = data.load(f"stream:{folder}")
    return ShardStream(splits.shards, splits.train.reading, batch, 0, **how)


def numbers(batches) -> list[list[int]]:
    """The numbers that the pictures of batches show, which must be those of their places and classes."""
    shown = []
    for batch in batches:
        levels = ((batch.x + 1) / 2 * 256 - 0.5).round().int()
        assert (levels[:, 0, 0, 1] == 0).all(), "an example of another split"
        assert levels[:, 0, 0, 0].tolist() == batch.index.tolist()
        assert batch.label.tolist() == [i % 3 for i in batch.index.tolist()]
        shown.append(batch.index.tolist())
    return shown


@pytest.mark.parametrize("write", [write_parquets, write_tars], ids=["parquet", "tar"])
def test_a_stream_is_cut_by_the_names_of_its_files(write, tmp_path):
    """Splits, shape, classes and number of examples are known; the whole of it cannot be asked for."""
    folder = write(tmp_path / "shards")
    splits = data.load(f"stream:{folder}")
    assert (splits.trained_on, len(splits.valid), len(splits.test)) == (TRAINING, 12, 12)
    assert splits.train.shape == (1, 4, 4) and splits.train.label_names == ["0", "1", "2"]
    assert sorted(i for batch in numbers(islice(stream(folder).batches(0), 8)) for i in batch) == [*range(TRAINING)]
    with pytest.raises(UserError, match="never read whole"):
        data.whole(f"stream:{folder}")


def test_each_epoch_holds_each_row_once(shards):
    """128 rows in 16 lanes leave none out; the next epoch has another order, another seed too."""
    read = [i for batch in numbers(islice(stream(shards).batches(0), 24)) for i in batch]
    epochs = [read[k : k + TRAINING] for k in (0, TRAINING, 2 * TRAINING)]
    assert all(sorted(epoch) == [*range(TRAINING)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    neighbours = np.mean(np.abs(np.diff(epochs[0])) == 1)
    assert neighbours < 0.1  # of the file's order nothing is left


def test_each_number_of_a_place_acts():
    """The order of a block follows seed, epoch, lane and block, that of the shards seed and epoch: another, another
    order."""
    order, other = (Order((40,) * 32, 4, seed) for seed in (0, 1))
    places = [(order, 0, 0, 0), (other, 0, 0, 0), (order, 1, 0, 0), (order, 0, 1, 0), (order, 0, 0, 1)]
    assert len({tuple(of.shuffled(*place, 64)) for of, *place in places}) == 5
    epochs = [(order, 0), (order, 1), (other, 0)]
    walks = {tuple(span for lane in range(4) for span in of.spans(lane, epoch, 0)) for of, epoch in epochs}
    assert len(walks) == 3


@pytest.mark.parametrize("start", [0, 1, 63, 64, 65, 130, 199])
def test_a_row_group_is_read_from_any_row_on(start, tmp_path):
    """Its 200 rows come 64 at a time; what lies before the start does not come, what lies behind comes once."""
    pq.write_table(pa.table({"n": [*range(500)]}), tmp_path / "a.parquet", row_group_size=200)
    second = row_groups(str(tmp_path / "a.parquet"))[1]
    assert [n for table in second.tables(start) for n in table["n"].to_pylist()] == [*range(200 + start, 400)]


def test_a_stream_is_known_by_the_names_and_sizes_of_its_files():
    """Not by the folder that they lie in."""

    def fingerprint(url: str, first: int = 0, count: int = 5) -> str:
        return Shards("s", (RowGroup(url, first, count, 0),)).fingerprint("sample")

    assert fingerprint("here/a.parquet") == fingerprint("there/a.parquet")
    others = fingerprint("here/b.parquet"), fingerprint("here/a.parquet", 1), fingerprint("here/a.parquet", 0, 6)
    assert len({fingerprint("here/a.parquet"), *others}) == 4


def test_rows_that_do_not_fill_the_lanes_wait_for_another_epoch():
    """Of 131 rows in 16 lanes three are left out of an epoch, others of the next; none comes twice."""
    order = Order((50, 40, 41), 16, 0)

    def epoch(number: int) -> set[tuple[int, int]]:
        spans = [s for lane in range(16) for block in range(2) for s in order.spans(lane, number, block)]
        rows = [(shard, row) for shard, first, last in spans for row in range(first, last)]
        assert len(rows) == len(set(rows)) == 128
        return set(rows)

    assert len(epoch(0) | epoch(1) | epoch(2)) == 131


@pytest.mark.parametrize("processes, workers", [(2, 0), (4, 0), (1, 2), (2, 3)])
def test_processes_and_workers_share_one_stream(shards, processes, workers):
    """Parts laid side by side are the batch of one process, and each process reads its own rows alone."""
    whole = numbers(islice(stream(shards).batches(0), 5))
    several = [stream(shards, shard=k, processes=processes, workers=workers).batches(0) for k in range(processes)]
    parts = [numbers(islice(one, 5)) for one in several]
    assert [[i for part in together for i in part] for together in zip(*parts, strict=True)] == whole


def test_a_stream_goes_on_from_any_place(shards):
    """From batch 3 on, in the middle of shards and blocks, or in a later epoch, the batches are those of one go."""
    whole = numbers(islice(stream(shards).batches(0), 20))
    for first in (1, 3, 11):
        assert numbers(islice(stream(shards).batches(16 * first), 6)) == whole[first : first + 6]
    assert numbers(islice(stream(shards, workers=2).batches(48), 3)) == whole[3:6]
    with pytest.raises(UserError, match="lanes"):
        stream(shards, shard=0, processes=3)


class Counted(Shard):
    """A shard of numbers that counts the rows it hands out."""

    handed = 0

    def tables(self, start):
        for row in range(start, self.count):
            Counted.handed += 1
            yield pa.table({"n": [row]})


def test_memory_holds_a_block_and_reads_each_row_once(monkeypatch):
    """A lane reads a block ahead and no more, however many rows there are; and it opens no shard twice in an epoch,
    but where a lane ends."""
    monkeypatch.setattr(orders, "BUFFER", 8 * 4)
    shards = [Counted(f"{i}", 0, 1000) for i in range(40)]
    lane = Lane(shards, Order((1000,) * 40, 8, 0), 3)
    rows = lane.rows(0)
    taken = [row.place for row in islice(rows, 100)]
    assert lane.rows_read <= 104 and Counted.handed == lane.rows_read and len(set(taken)) == 100
    Counted.handed = 0
    assert [row.place for row in islice(Lane(shards, lane.order, 3).rows(37), 63)] == taken[37:]
    assert Counted.handed <= 72  # from the block on in which it starts


def test_a_url_and_a_range_are_read(shards):
    """Any address of fsspec; {0..2} names files where nothing can be listed."""
    memory = fsspec.filesystem("memory")
    for file in shards.iterdir():
        memory.pipe(f"/set/{file.name}", file.read_bytes())
    splits = data.load("stream:memory://set/*.parquet")
    assert splits.trained_on == TRAINING and splits.shards.shards[0].url.startswith("memory://")
    batches = ShardStream(splits.shards, splits.train.reading, 16, 0).batches(0)
    assert numbers(islice(batches, 3)) == numbers(islice(stream(shards).batches(0), 3))
    from diffrep.data.streams.source import listed

    assert [Path(name).name for name in listed(f"{shards}/train-{{0..2}}.parquet", "it")] == [
        f"train-{i}.parquet" for i in range(3)
    ]
    several = listed(f"{shards}/{{valid,test}}-{{0..0}}.parquet", "it")
    assert [Path(name).name for name in several] == ["test-0.parquet", "valid-0.parquet"]


def test_counts_beside_tars_are_believed(tmp_path):
    """With sizes.json no header is read beforehand; a number that is too large is found out once the file ends."""
    folder = write_tars(tmp_path / "shards")
    stated = {f"{name}.tar": count for name, count in ROWS.items()}
    (folder / "sizes.json").write_text(json.dumps({**stated, "train-0.tar": 20}))
    fewer = data.load(f"stream:{folder}")
    assert fewer.trained_on == TRAINING - 30 and len(fewer.train) == TRAINING - 30
    (folder / "sizes.json").write_text(json.dumps({**stated, "train-0.tar": 70}))
    with pytest.raises(UserError, match=r"train-0\.tar ends before its 70 rows"):
        numbers(islice(stream(folder).batches(0), 10))
    for broken in ("{", "[3]", '{"train-0.tar": null}'):
        (folder / "sizes.json").write_text(broken)
        with pytest.raises(UserError, match=r"sizes\.json is broken"):
            data.load(f"stream:{folder}")


def broken(folder: Path, what: str) -> str:
    if what == "no test":
        (folder / "test-0.parquet").unlink()
    elif what == "cut":
        (folder / "train-1.parquet").write_bytes((folder / "train-1.parquet").read_bytes()[:-30])
    elif what == "empty":
        return f"stream:{folder}/*.tar"
    return f"stream:{folder}"


@pytest.mark.parametrize(
    "what, said", [("no test", "no files of test"), ("cut", "train-1.parquet"), ("empty", "no .parq")]
)
def test_a_broken_stream_is_one_sentence(what, said, tmp_path, capsys):
    """The file and what is wrong with it; nothing is written."""
    source = broken(write_parquets(tmp_path / "shards"), what)
    assert diffrep("train", "--data", source, "--method", "ae", "--out", tmp_path / "run") == 2
    assert said in one_sentence(capsys) and not (tmp_path / "run").exists()


def test_a_picture_that_cannot_be_read_is_named_or_replaced(tmp_path):
    """Without skip_bad the first broken picture ends the batch; with it its neighbour comes twice."""
    folder = write_parquets(tmp_path / "shards")
    table = pq.read_table(folder / "train-1.parquet").to_pylist()
    table[30]["image"]["bytes"] = b"broken"
    good = data.load(f"stream:{folder}")
    pq.write_table(pa.Table.from_pylist(table), folder / "train-1.parquet", row_group_size=16)
    read = ShardStream(good.shards, good.train.reading, 16, 0)
    with pytest.raises(UserError, match="cannot be read"):
        numbers(islice(read.batches(0), 8))
    kept = ShardStream(good.shards, good.train.reading, 16, 0, skip_bad=True)
    shown = [i for batch in numbers(islice(kept.batches(0), 8)) for i in batch]
    assert len(shown) == TRAINING and len(set(shown)) == TRAINING - 1 and 80 not in shown
    lanes = [ShardStream(good.shards, good.train.reading, 16, 0, k, 16, skip_bad=True).batches(0) for k in range(16)]
    assert shown == [i for _ in range(8) for lane in lanes for batch in numbers([next(lane)]) for i in batch]


def test_a_block_without_a_readable_row_is_an_error(tmp_path):
    """There is nothing to put in its place."""
    folder = write_parquets(tmp_path / "shards")
    good = data.load(f"stream:{folder}")
    for name in ("train-0", "train-1", "train-2"):
        table = [{"image": {"bytes": b"broken", "path": None}, "label": 0}] * ROWS[name]
        pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet", row_group_size=16)
    with pytest.raises(UserError, match="cannot be read"):
        next(ShardStream(good.shards, good.train.reading, 16, 0, skip_bad=True).batches(0))


def test_a_tar_is_read_without_keeping_its_headers(tmp_path):
    """So that memory does not grow with the number of its files."""
    write_tars(tmp_path / "shards")
    with tarfile.open(tmp_path / "shards" / "train-0.tar") as tar:
        kept = [len(tar.members) for _ in examples_of(tar)]
    assert len(kept) == ROWS["train-0"] and max(kept) <= 3  # of one example, and the first of the next


def test_shards_of_other_columns_are_one_sentence(tmp_path):
    """A column of another type in one file: of the sample when the stream is opened, of another row when it comes."""
    folder = write_parquets(tmp_path / "shards")
    good = data.load(f"stream:{folder}")
    table = pq.read_table(folder / "train-1.parquet")
    other = table.set_column(1, "label", table["label"].cast(pa.string()))
    pq.write_table(other, folder / "train-1.parquet", row_group_size=16)
    with pytest.raises(UserError, match="differ in their columns"):
        data.load(f"stream:{folder}")
    with pytest.raises(UserError, match="differ in their columns"):
        numbers(islice(ShardStream(good.shards, good.train.reading, 16, 0).batches(0), 8))


def test_files_without_a_split_beside_files_with_one_are_named(tmp_path):
    """They are no training files then, and a user hears of it."""
    folder = write_parquets(tmp_path / "shards")
    (folder / "more.parquet").write_bytes((folder / "train-1.parquet").read_bytes())
    splits = data.load(f"stream:{folder}")
    assert splits.trained_on == TRAINING and any("more.parquet" in note for note in splits.train.reading.notes)


def test_what_an_address_answers_is_one_sentence(shards, monkeypatch):
    """Errors of clients for addresses are of kinds of their own; lack of memory is no fault of the file."""

    class Refused(Exception):
        pass

    def refuse(error: Exception):
        def fail(*_, **__):
            raise error

        return fail

    listed = data.load(f"stream:{shards}").shards.shards[0]
    monkeypatch.setattr(fsspec, "open", refuse(Refused("503 Service Unavailable")))
    with pytest.raises(UserError, match=r"train-0.parquet cannot be read .*503"):
        next(listed.tables(0))
    monkeypatch.setattr(fsspec, "open", refuse(pa.ArrowMemoryError("malloc of size 64 failed")))
    with pytest.raises(MemoryError):
        next(listed.tables(0))
    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse(Refused("403 Forbidden")))
    with pytest.raises(UserError, match=r"cannot be listed \(403 Forbidden\)"):
        data.load(f"stream:{shards}")


class Gone(BaseException):
    """The end of a process in the middle of a step: nobody catches it, so nothing is saved."""


def words(source: str, out: Path, budget: str, *more: str) -> list[str]:
    changes = [word for change in (*tiny.SMALL, *more) for word in ("--set", change)]
    return ["train", "--data", source, "--method", "vae-vdm", "--out", str(out), "--budget", budget, *changes]


def train(source: str, out: Path, budget: str, *more: str) -> int:
    return diffrep(*words(source, out, budget, *more))


def test_a_run_on_a_stream_is_continued_bit_by_bit(shards, tmp_path, monkeypatch):
    """Broken off in the middle of a shard, or stopped and given a larger budget, it becomes the run of one go; it is
    measured on the splits of the stream; and a stream that has changed is refused."""
    source = f"stream:{shards}"
    assert train(source, tmp_path / "one", "160ex") == 0
    assert train(source, tmp_path / "two", "160ex", "train.workers=2") == 0
    save, seen = engine._Engine.save, []

    def gone(self, at):
        save(self, at)
        seen.append(at)
        if len(seen) == 4:
            raise Gone

    with monkeypatch.context() as patch, pytest.raises(Gone):
        patch.setattr(engine._Engine, "save", gone)
        train(source, tmp_path / "three", "160ex")
    assert not (tmp_path / "three" / "model.safetensors").exists()
    assert train(source, tmp_path / "three", "160ex") == 0
    weights = [tiny.weights(runs.load(tmp_path / name, "cpu")) for name in ("one", "two", "three")]
    assert tiny.same(weights[0], weights[1]) == tiny.same(weights[0], weights[2]) == []
    card = runs.load(tmp_path / "one", "cpu").card
    assert card.examples == {"train": TRAINING, "valid": 12, "test": 12}
    assert diffrep("evaluate", tmp_path / "one", "--levels", 1) == 0
    torch.manual_seed(0)
    more = write_parquets(tmp_path / "more")
    (more / "train-3.parquet").write_bytes((more / "train-2.parquet").read_bytes())
    with pytest.raises(UserError, match="other data"):
        runs.load(tmp_path / "one", "cpu", data=f"stream:{more}").splits()
