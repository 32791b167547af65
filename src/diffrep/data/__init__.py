"""Data: a name, a folder, a file or an array -> three disjoint splits of `Examples`, and streams of batches."""

from diffrep.data.examples import Examples
from diffrep.data.loader import Stream
from diffrep.data.splits import Splits, load, whole

__all__ = ["Examples", "Splits", "Stream", "load", "whole"]
