"""SIGTERM and SIGINT in training: the step in hand is finished and kept, then the signal does what it always does."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch

from truing.train.distributed import process_group

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Within this block those signals are only noted. Where there is one process, a second one is obeyed at once.

    One that is ignored, as `nohup` and a shell's `&` hand it on, stays so: obeying it would do nothing, and every step
    after it would write a checkpoint for an end that never comes.
    """

    def __init__(self) -> None:
        self._sent = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._sent and process_group.world() == 1:
            self.obey(number)
        self._sent = number
        process_group.Bond.stopping = True

    def signal_sent(self) -> int:
        """The signal that some rank was sent, or 0; the same number on every rank."""
        numbers = torch.zeros(process_group.world())
        numbers[process_group.rank() if process_group.world() > 1 else 0] = self._sent
        return int(process_group.total(numbers).max())

    def obey(self, number: int) -> None:
        """Do now what the signal did before this block."""
        self.__exit__()
        signal.raise_signal(number)
