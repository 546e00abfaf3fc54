"""torchrun, but for its exit code: `python -m truing.launch --standalone --nproc-per-node 2 -m truing run RECIPE`.

torchrun ends with 1 whatever its processes end with, and 1 is truing's word for a model that may not ship.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from truing.terminal import say


def main(arguments: Sequence[str]) -> int:
    """Do what torchrun does with these arguments; gives the exit code of the run.

    That is rank 0's where it failed, or that of a rank that did; 3 where it was killed, and 128 and the
    signal where the launcher itself was told to stop.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = run.parse_args(list(arguments))
    options.signals_to_handle = heeded(options.signals_to_handle)
    if options.log_dir is None and options.redirects == options.tee == "0":
        options.log_dir = os.devnull  # else every launch leaves an empty folder in the temporary one
    try:
        run.run(options)
    except ChildFailedError as failed:
        return code_of(failed.failures)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except (RuntimeError, OSError) as problem:  # the port that the processes meet at is taken, or cannot be reached
        say(f"truing: the processes could not be started: {problem}", err=True)
        return 3
    return 0


def heeded(names: str) -> str:
    """The signals that the launcher ends at: not those that it was told to ignore, as by `nohup`; SIGTERM in any case.

    >>> heeded("SIGTERM,SIGUSR1")
    'SIGTERM,SIGUSR1'
    """
    heard = [n for n in names.split(",") if n == "SIGTERM" or signal.getsignal(signal.Signals[n]) != signal.SIG_IGN]
    return ",".join(heard)


def code_of(failures: Mapping[int, Any]) -> int:
    """One exit code of the processes that failed, by rank; says so where it was no exit but a signal.

    Where one fails torchrun ends the others with SIGTERM, so they are asked last.
    """
    codes = {rank: int(failures[rank].exitcode) for rank in sorted(failures)}
    ended = (-signal.SIGTERM, 128 + signal.SIGTERM)
    rank = min(codes, key=lambda rank: codes[rank] in ended)
    if (code := codes[rank]) > 0:
        return code
    name = signal.Signals(-code).name
    say(f"truing: process {rank} was ended by {name}; a run goes on with --resume", err=True)
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
