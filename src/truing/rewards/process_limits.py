"""A program held to its time, its memory and its processes: all of them together, not one by one.

A control group would count in the kernel, and few users may make one. So the sizes are read `PERIOD` seconds apart:
between two readings a program may take more than its share for so long.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from truing.rewards.begin import PROCESSES

PERIOD = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")
OF_THE_BOX = 4
"""The processes of a box itself, at most."""
THREADS = 1024
"""The threads of all processes together: a numerical library starts one for each core."""


def held(child: subprocess.Popen[bytes], seconds: float, megabytes: int) -> str:
    """Wait for a process within its limits; return why it has to be killed, or nothing where it ended by itself."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            child.wait(max(0.0, min(PERIOD, deadline - time.monotonic())))
            return ""
        except subprocess.TimeoutExpired:
            pass
        if time.monotonic() >= deadline:
            return f"did not end within {seconds:g} s"
        processes, threads = tree(child.pid)
        if len(processes) > PROCESSES + OF_THE_BOX:
            return f"had more than {PROCESSES} processes"
        if threads > THREADS:
            return f"had more than {THREADS:,} threads"
        if memory(processes, megabytes << 20) > megabytes << 20:
            return f"took more than {megabytes} MB"


def can_count() -> bool:
    """Return True if this machine lists the processes that a process has started."""
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()


def tree(pid: int) -> tuple[list[int], int]:
    """A process with what it started, as far as their parents are still there, and how many threads they have; of too
    many only the first."""
    processes, threads = [pid], 0
    for parent in processes:
        with suppress(OSError):
            tasks = os.listdir(f"/proc/{parent}/task")
            threads += len(tasks)
            if len(processes) > PROCESSES + OF_THE_BOX or threads > THREADS:  # it grows faster than it is read
                break
            for task in tasks:
                with suppress(OSError):
                    children = Path(f"/proc/{parent}/task/{task}/children").read_text()
                    processes += map(int, children.split())
    return processes, threads


def memory(processes: Iterable[int], most: int) -> int:
    """The bytes that processes take. Pages that several have in common count once for each, and only where that is
    beyond `most` each by its share, which takes the kernel longer."""
    processes = list(processes)
    whole = sum(map(_resident, processes))
    return whole if whole <= most else sum(map(_share, processes))


def _resident(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return 0  # it has ended


def _share(pid: int) -> int:
    """The share of a process in its pages; all of them where it does not let itself be read."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return _resident(pid)


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started, and wait for it.

    Its group goes by one signal, which no fork outruns; in a box of its own the kernel then ends whatever is in there.
    """
    kill(child.pid, tree(child.pid)[0] if child.poll() is None else [])
    child.wait()


def kill(group: int, processes: Iterable[int]) -> None:
    """Kill a group of processes by one signal, and others one by one, as far as they are there and may be signalled."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    for pid in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
