"""How fast codes are written: python benchmarks/encode.py RUN [-n 20000] [--rounds 3] [--out results/encode.json]

`diffrep encode`, without its start, of n pictures as an array in memory, as a file of numpy, and as PNGs in Parquet,
in turn with the encoder alone on a tensor: rows a second, their ratio, and that of rows for a CPU second, which other
programs on the machine change less. Then the peak memory of processes of their own that write the codes of n and of
10 n examples, held in memory as sets up to 1 GiB are, and read lazily as larger ones are (with that limit at 1 byte).
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import record
import torch
from PIL import Image

from diffrep import runs
from diffrep.data.stores import SMALL
from diffrep.evaluation.encoding import encoded
from diffrep.runs.encode import BATCH, embed
from diffrep.runs.inputs import examples_of

ALONE = """
import resource, sys
from diffrep import runs
from diffrep.data import albums, values
from diffrep.runs.encode import embed
from diffrep.runs.inputs import examples_of
albums.SMALL = values.SMALL = int(sys.argv[4])
run = runs.load(sys.argv[1], "cpu")
embed(run.model, examples_of(run, sys.argv[2]), sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def pictures(count: int, shape: tuple[int, ...]) -> np.ndarray:
    """(count, *shape) uint8, smooth enough that a PNG of one is as small as that of a photograph."""
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (count, shape[0], -(-shape[1] // 4), -(-shape[2] // 4)), dtype=np.uint8)
    return rough.repeat(4, 2).repeat(4, 3)[:, :, : shape[1], : shape[2]]


def png(x: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(x[0] if len(x) == 1 else x.transpose(1, 2, 0)).save(file, "png")
    return file.getvalue()


def rate(count: int, work: Callable[[], object]) -> dict[str, float]:
    """Rows a second, and rows for a CPU second of all threads."""
    clock, spent = time.perf_counter(), time.process_time()
    work()
    return {"second": count / (time.perf_counter() - clock), "cpu second": count / (time.process_time() - spent)}


def memory(run: Path, source: Path, out: Path, small: int) -> float:
    """MiB at most of a process that writes the codes of a source, of which up to `small` bytes are held in memory."""
    words = [sys.executable, "-c", ALONE, *map(str, (run, source, out, small))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return round(int(done.stdout.split()[-1]) / 1024, 1)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run, n = runs.load(given.run, "cpu"), given.n
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x = pictures(n, run.card.shape)
        np.save(folder / "array.npy", x)
        rows = pa.array([{"bytes": png(one), "path": None} for one in x])
        pq.write_table(pa.table({"image": rows}), folder / "png.parquet")
        sources = {kind: examples_of(run, str(folder / kind)) for kind in ("array.npy", "png.parquet")}
        sources = {"in memory": examples_of(run, x), **sources}
        ready = sources["in memory"].batch(torch.arange(n)).x
        rates: dict[str, list[dict]] = {"encoder alone": [], **{kind: [] for kind in sources}}
        for _ in range(given.rounds):
            rates["encoder alone"].append(rate(n, lambda: [encoded(run.model, some) for some in ready.split(BATCH)]))
            for kind, examples in sources.items():
                rates[kind].append(rate(n, lambda of=examples: embed(run.model, of, folder / "codes.parquet")))
        np.save(folder / "ten.npy", np.concatenate([x] * 10))
        pq.write_table(pa.table({"image": pa.concat_arrays([rows] * 10)}), folder / "ten.parquet")
        peak = {
            f"{count:,} examples of {kind}, {held}": memory(given.run, folder / file, folder / "codes.parquet", small)
            for held, small in (("held in memory", SMALL), ("read lazily", 1))
            for kind, one, ten in (("numpy", "array.npy", "ten.npy"), ("PNG", "png.parquet", "ten.parquet"))
            for count, file in ((n, one), (10 * n, ten))
        }
    best = {kind: {of: max(row[of] for row in rows) for of in rows[0]} for kind, rows in rates.items()}
    shares = {kind: {of: best[kind][of] / best["encoder alone"][of] for of in best[kind]} for kind in rates}
    for kind, rows in best.items():
        print(kind, *(f"{value:,.0f} rows a {of}, {shares[kind][of]:.1%};" for of, value in rows.items()))
    for what, mib in peak.items():
        print(f"peak memory of {what}: {mib} MiB")
    about = record.about(n=n, rounds=given.rounds, method=json.loads((given.run / "config.json").read_text())["method"])
    record.write(given.out, {**about, "rows_per_second": rates, "share_of_the_encoder": shares, "peak_mib": peak})


if __name__ == "__main__":
    main()
