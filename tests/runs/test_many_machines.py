"""Batch inference anywhere: every engine gives the codes of one process, and each row once."""

import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from diffrep.runs.batch_encoder import BatchEncoder
from runs_at_hand import SMALL, diffrep
from samples import write_parquet

ROWS = 150

RAY = """
import sys
import numpy as np
import pyarrow.parquet as pq
import ray
from diffrep.runs.batch_encoder import BatchEncoder

run, source, out = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, logging_level="error", object_store_memory=100 * 2**20)
table = pq.read_table(source)
rows = ray.data.from_arrow([table.slice(at, 30) for at in range(0, len(table), 30)])
tasks = rows.map_batches(BatchEncoder(run, device="cpu"), batch_size=20)
actors = rows.map_batches(BatchEncoder, fn_constructor_args=(run,), fn_constructor_kwargs={"device": "cpu"},
                          batch_size=16, concurrency=2)
for name, coded in (("tasks", tasks), ("actors", actors)):
    found = coded.take_all()
    np.savez(f"{out}-{name}.npz", code=np.stack([row["code"] for row in found]), at=[row["weight"] for row in found])
"""

DATASETS = """
import sys
import numpy as np
from datasets import load_dataset
import diffrep

run, source, out = sys.argv[1:]
rows = load_dataset("parquet", data_files=source, split="train", cache_dir=out + "-cache")
coded = rows.map(diffrep.encoder(run, device="cpu"), batched=True, batch_size=40, num_proc=2)
np.savez(out + ".npz", code=np.array(coded["code"], np.float32), at=coded["weight"])
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A run, a Parquet file of colour pictures in the layout of a hub, and their codes by `encode` in one process."""
    root = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 6, 3), dtype=np.uint8)
    write_parquet(root / "photos.parquet", pixels, [i % 3 for i in range(ROWS)], ["a", "b", "c"])
    run, source = root / "run", root / "photos.parquet"
    assert diffrep("train", "--data", source, "--method", "ae", "--out", run, *SMALL) == 0
    assert diffrep("encode", run, source, "-o", root / "one.parquet") == 0
    codes = pq.read_table(root / "one.parquet")
    assert codes.column("row").to_pylist() == [*range(ROWS)]
    return run, source, np.array(codes.column("code").to_pylist(), np.float32)


def started(script: str, *words: object, module: tuple[str, ...] = ()) -> None:
    """A process of its own, which must not fail."""
    start = [sys.executable, *module] if module else [sys.executable, "-c", script]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    env |= {"RAY_raylet_start_wait_time_s": "300", "RAY_worker_niceness": "0"}  # on a busy machine, not last of all
    done = subprocess.run([*start, *map(str, words)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]


def each_once(path, codes: np.ndarray) -> None:
    """A file holds every row once (`weight` is half its number), with the codes of one process, bit by bit."""
    found = np.load(path)
    order = np.argsort(found["at"])
    assert np.array_equal(found["at"][order], np.arange(ROWS) / 2)
    np.testing.assert_array_equal(found["code"][order], codes)


@pytest.mark.long
def test_datasets_gives_the_codes_of_one_process(pictures, tmp_path):
    """`datasets.map` with two processes, which decodes the pictures itself."""
    run, source, codes = pictures
    started(DATASETS, run, source, tmp_path / "codes")
    each_once(tmp_path / "codes.npz", codes)


@pytest.mark.long
def test_ray_gives_the_codes_of_one_process(pictures, tmp_path):
    """`map_batches` on a local Ray of two workers, with the encoder itself and with its class as actors."""
    pytest.importorskip("ray")
    run, source, codes = pictures
    started(RAY, run, source, tmp_path / "codes")
    each_once(tmp_path / "codes-tasks.npz", codes)
    each_once(tmp_path / "codes-actors.npz", codes)


def test_spark_gives_the_codes_of_one_process(pictures):
    """`mapInPandas` hands an iterator of frames to a function in each of its processes, and takes one from it."""
    run, source, codes = pictures
    frame = pq.read_table(source).to_pandas()
    encode = BatchEncoder(run, device="cpu")
    parts = [encode(iter([frame[:70], frame[70:90], frame[:0]])), encode(iter([frame[90:]]))]
    found = [part for several in parts for part in several]
    assert [len(part) for part in found] == [70, 20, 0, 60]
    assert [w for part in found for w in part["weight"]] == (np.arange(ROWS) / 2).tolist()
    np.testing.assert_array_equal(np.stack([code for part in found for code in part["code"]]), codes)


@pytest.mark.long
def test_torchrun_gives_the_codes_of_one_process(pictures, tmp_path):
    """Two processes of `diffrep encode` write two files, which one after the other are the file of one process."""
    run, source, codes = pictures
    start = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "diffrep", "encode")
    started("", run, source, "-o", tmp_path / "c.parquet", module=start)
    shards = [pq.read_table(tmp_path / f"c-0000{part}-of-00002.parquet") for part in (0, 1)]
    assert [row for shard in shards for row in shard.column("row").to_pylist()] == [*range(ROWS)]
    found = [code for shard in shards for code in shard.column("code").to_pylist()]
    np.testing.assert_array_equal(np.array(found, np.float32), codes)
