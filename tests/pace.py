"""The pace of this machine: bounds of time in tests are written for one of pace 1, and are longer on slower ones.

A processor of 2026's clouds adds 2 million numbers in Python in 0.12 to 0.4 seconds, whichever one is lent. A bound that is to
tell seconds from minutes must not tell processors apart.
"""

from __future__ import annotations

import time
from functools import cache

REFERENCE = 0.12
"""Seconds of `additions` on a machine of pace 1."""


def additions() -> float:
    """The processor's seconds for 2 million additions."""
    begun, total = time.process_time(), 0
    for number in range(2_000_000):
        total += number
    return time.process_time() - begun


@cache
def pace() -> float:
    """The factor by which this machine is slower than one of pace 1, and at least 1."""
    return max(1.0, min(additions() for _ in range(3)) / REFERENCE)
