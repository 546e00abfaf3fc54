"""Signals within a block of training: what is noted, what is obeyed, and what they do behind it."""

from __future__ import annotations

import signal

import pytest

from truing.train.distributed import process_group
from truing.train.interrupt import SIGNALS, Stopping


def test_a_signal_is_noted_and_a_second_one_obeyed_at_once() -> None:
    """What it did before is done when it is obeyed, and stands again behind the block."""
    heard: list[int] = []
    before = {number: signal.signal(number, lambda got, _: heard.append(got)) for number in SIGNALS}
    try:
        with Stopping() as stopping:
            assert stopping.signal_sent() == 0
            signal.raise_signal(signal.SIGINT)
            assert (stopping.signal_sent(), heard) == (signal.SIGINT, [])
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM]
        with Stopping() as stopping:
            signal.raise_signal(signal.SIGTERM)
            stopping.obey(stopping.signal_sent())
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]
    finally:
        process_group.Bond.stopping = False
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_so(number: signal.Signals) -> None:
    """As nohup hands SIGINT on: nothing is noted, so no step after it writes a checkpoint; the other one still stops."""
    (other,) = set(SIGNALS) - {number}
    before = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        signal.signal(number, signal.SIG_IGN)
        with Stopping() as stopping:
            signal.raise_signal(number)
            assert stopping.signal_sent() == 0 and not process_group.Bond.stopping
            signal.raise_signal(other)
            assert stopping.signal_sent() == other
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        process_group.Bond.stopping = False
        for each, handler in before.items():
            signal.signal(each, handler)
