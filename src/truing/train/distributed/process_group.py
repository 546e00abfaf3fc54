"""Several processes as one: who leads, the few collectives, and what is said when one of them is gone.

With one process every function here does nothing but its work. Nothing that crosses a process is pickled.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from truing.errors import RunFailed, UserError

WAIT = timedelta(hours=24)
"""The time that the others wait while rank 0 works alone: it evaluates, or writes."""
PATIENCE = 10.0
"""Seconds that a rank which failed leaves the first rank to say why and to write its record."""


class Bond:
    """The tie of this process to the others: the store they share, how often they have met, whether it works alone, and
    whether it has been asked to stop."""

    store: Any = None  # torch's types leave half of a store's methods out
    met = 0
    alone = False
    stopping = False


def world() -> int:
    """The number of processes that work together: 1 also where rank 0 works alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not Bond.alone else 1


def rank() -> int:
    """This process's place among them, from 0; the first one leads: it alone writes and prints."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def restarted() -> bool:
    """True if torchrun has started these processes again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def time_limit() -> timedelta:
    """The time that a collective may take before the run is given up: TRUING_TIMEOUT, seconds; UserError if it is
    none."""
    text = os.environ.get("TRUING_TIMEOUT", "600")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UserError(f"TRUING_TIMEOUT is {text!r}: give the seconds a collective may take, such as 600")
    return timedelta(seconds=seconds)


@contextmanager
def joined() -> Iterator[None]:
    """Within this block the processes that torchrun started work as one; with a single process, nothing happens.

    A rank that fails leaves the first rank a moment to write its record, for torchrun ends all when one ends. Orphans
    of a launcher that was killed die with it.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    join()
    try:
        yield
        with reaching():
            dist.barrier()
        part()
    except BaseException:
        with suppress(RunFailed):
            if rank():
                _until("the first has ended", PATIENCE)
        raise
    finally:
        with suppress(RuntimeError):  # the store may be gone with the rank that kept it
            if not rank():
                Bond.store.set("the first has ended", "")
    dist.destroy_process_group()
    Bond.store, Bond.met = None, 0


def join() -> None:
    """Meet the others at the address that torchrun gave.

    Each life of a restarted job has keys of its own in the store: torch 2.13 hands on the store of the life before,
    with the addresses of processes that are dead.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    shared, place, size = next(rendezvous("env://", timeout=time_limit()))
    store = PrefixStore(f"truing-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", shared)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with reaching():
        dist.init_process_group(backend, store=store, rank=place, world_size=size, timeout=time_limit())
    Bond.store = store


def part() -> None:
    """Let go of the others once all are through the last barrier: what one has not yet read is lost where the other has
    closed the connection."""
    with suppress(RunFailed, RuntimeError):  # the first rank may have left, and the store with it
        Bond.store.set(f"through-{rank()}", "")
        for other in range(world()):
            _until(f"through-{other}", PATIENCE)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere nothing is done)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent or parent == 1:
        sys.exit(3)


def lead(work: Callable[[], str]) -> str:
    """Run `work` on rank 0 and broadcast the string it returns; the others wait at most `WAIT`."""
    if world() == 1:
        return work()
    key = f"met-{Bond.met}"
    Bond.met += 1
    if rank() == 0:
        with alone():
            text = work()
        Bond.store.set(key, text)
        return text
    if not _until(key, WAIT.total_seconds()):
        raise RunFailed(f"rank {rank()}: the first rank gives no sign any more; go on with --resume")
    return str(Bond.store.get(key), "utf-8")


def meet() -> None:
    """The others go on when the first rank has come here."""
    lead(str)


def _until(key: str, seconds: float) -> bool:
    """Wait for a key of the store, in short looks so that signals are heard; whether it came. Once asked to stop, this
    rank waits no longer than `PATIENCE`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with reaching():
            if Bond.store.check([key]):
                return True
        if Bond.stopping:
            deadline = min(deadline, time.monotonic() + PATIENCE)
            Bond.stopping = False
        time.sleep(0.02)
    return False


@contextmanager
def alone() -> Iterator[None]:
    """Within this block the first rank works without the others."""
    before, Bond.alone = Bond.alone, True
    try:
        yield
    finally:
        Bond.alone = before


def total(value: Tensor) -> Tensor:
    """The sum of `value` (on the CPU) over all ranks, in place."""
    if world() > 1:
        dist.all_reduce(value)
    return value


def gathered(text: str) -> list[str]:
    """One text of each rank, on every rank."""
    if world() == 1:
        return [text]
    raw = text.encode()
    sizes = torch.zeros(world(), dtype=torch.long)
    sizes[rank()] = len(raw)
    rows = torch.zeros(world(), int(total(sizes).max()), dtype=torch.uint8)
    rows[rank(), : len(raw)] = torch.tensor(list(raw), dtype=torch.uint8)
    texts = total(rows)
    return [bytes(texts[r, : int(sizes[r])].tolist()).decode() for r in range(world())]


def agree(problem: str) -> None:
    """Raise RunFailed on every rank if one of them has a problem, with the first one's words."""
    texts = next((text for text in gathered(problem) if text), "")
    if texts:
        raise RunFailed(texts)


@contextmanager
def reaching() -> Iterator[None]:
    """Within this block, a rank that is gone or does not answer becomes a RunFailed that says so."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        why = str(error).strip().splitlines()[0][:200]
        raise RunFailed(
            f"rank {rank()}: another rank has ended or did not answer within {time_limit().total_seconds():g} s "
            f"(TRUING_TIMEOUT); the model on disk is that of the last checkpoint: go on with --resume.\n  ({why})"
        ) from error
