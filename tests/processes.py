"""Child processes that have the imports behind them when they start."""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["diffrep.cli", "diffrep.runs", "diffrep.training.engine", "torch._dynamo"])
