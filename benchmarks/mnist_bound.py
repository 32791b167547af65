"""bits/dim on the MNIST test split after a fixed time of training, with a code and without.

python benchmarks/mnist_bound.py FOLDER_OF_PARQUET [--budget 120s] [--out results/mnist-120s.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch


def measure(method: str, data: str, budget: str, directory: Path, changes: list[str]) -> dict:
    """Train and evaluate through the command line, as a user does."""
    run = str(directory / method)
    diffrep = [sys.executable, "-m", "diffrep"]
    sets = [word for change in changes for word in ("--set", change)]
    train = ["train", "--data", data, "--method", method, "--budget", budget, "--out", run, *sets, "--json"]
    trained = json.loads(subprocess.run([*diffrep, *train], check=True, stdout=subprocess.PIPE).stdout)
    measured = subprocess.run([*diffrep, "evaluate", run, "--json"], check=True, stdout=subprocess.PIPE)
    metrics = json.loads(measured.stdout)
    settings = json.loads((Path(run) / "config.json").read_text())
    settings["data"].pop("source")
    return {"method": method, "train": {**trained, "run": method}, "settings": settings} | {
        key: metrics[key]
        for key in ("bound", "rate_nats", "active_units", "probes", "examples", "protocol", "levels", "parameters")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of MNIST in hub layout (train-*.parquet, test-*.parquet)")
    parser.add_argument("--budget", default="120s")
    parser.add_argument("--methods", nargs="+", default=["vae-vdm", "vdm"])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings other than the defaults")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    hardware = (
        f"{torch.get_num_threads()} CPU threads" if not torch.cuda.is_available() else torch.cuda.get_device_name()
    )
    with tempfile.TemporaryDirectory() as directory:
        runs = [
            measure(method, arguments.data, arguments.budget, Path(directory), arguments.set)
            for method in arguments.methods
        ]
    for run in runs:
        bound = run["bound"]
        print(
            f"{run['method']:8} {bound['bits_per_dim']:.4f} +- {bound['bits_per_dim_se']:.4f} bits/dim, rate"
            f" {run['rate_nats']:.2f} nats, {run['train']['step']} steps of {arguments.budget}"
        )
    if arguments.out:
        about = {"commit": commit, "hardware": hardware, "torch": torch.__version__, "budget": arguments.budget}
        arguments.out.write_text(json.dumps({**about, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
