"""Memory that a network has freed is kept for its next layer."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from ssd import tune_malloc
if sys.argv[1] == "keep":
    assert tune_malloc()
images = torch.ones(1, 96, 150, 150)
for _ in range(30):  # until what is small lies where it stays: up to eight layers, by chance
    images.clamp(0, 6)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    images.clamp(0, 6)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """How many pages the system had to clear for 20 layers of 2,109 pages, with Dask's setting."""
    environment = {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, how]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_layers_do_not_wait_for_pages() -> None:
    assert faults("keep") < 5_000
    assert faults("give back") > 40_000
