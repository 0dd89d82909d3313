"""Freed blocks go back to the system, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

HOLES = """
import re, sys
from pathlib import Path
import numpy as np
from medseg.runtime.heap import give_back_at_once

def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

if sys.argv[1] == "set":
    assert give_back_at_once()
for _ in range(2):
    np.ones(30 << 17)  # 30 MiB come and go: glibc keeps blocks of this size from now on, if it may
before = resident_mb()
blocks = [np.ones(8 << 17) for _ in range(21)]
held = resident_mb() - before
del blocks[:20]  # the last one keeps the heap from shrinking
print(held, resident_mb() - before)
"""


def left_mb(how: str) -> float:
    done = subprocess.run([sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True)
    held, left = (float(word) for word in done.stdout.split())
    assert held > 120
    return left


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_holes_in_the_heap_go_back_to_the_system() -> None:
    assert left_mb("left alone") > 100
    assert left_mb("set") < 20
