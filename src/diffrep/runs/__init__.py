"""A run directory: what it holds, made, opened, summed up."""

from diffrep.runs.run import IN_MEMORY, SETTINGS, DataCard, Run, facts_of, load, read_card, splits_of, train

__all__ = ["IN_MEMORY", "SETTINGS", "DataCard", "Run", "facts_of", "load", "read_card", "splits_of", "train"]
