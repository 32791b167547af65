"""Where a process stands: memory that a step frees is kept for the next one."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
from diffrep.training.process import place

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bytearray(b"x") * (32 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

place("cpu")
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone is told")
def test_freed_memory_comes_again_without_page_faults():
    """32 MiB taken and freed 20 times: the kernel makes 8,192 pages each time, and after `place` hardly any."""
    words = [sys.executable, "-c", FAULTS]
    after = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert after < 1_000  # of 163,840
