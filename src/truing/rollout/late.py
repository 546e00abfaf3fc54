"""A reward function in a process of its own, which is ended where it does not come back from an answer.

Within one process nothing can end a function: one that hangs in C (a regular expression that backtracks without end)
even stops everything else. So a reward with the option `late` is asked here, one answer at a time. An answer that it
does not come back from is worth `late`, and is counted; the process is started anew. `IN_A_ROW` such answers, one after
the other, are the function's fault and not the answers': they end the run.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from truing import registry
from truing.errors import RunFailed, TruingError, UserError
from truing.rollout.call import LATE, Answer, Call, failed
from truing.types import Score

START = 120.0
"""Seconds within which the process has to have loaded the function."""
IN_A_ROW = 8
"""So many answers that were late, one after the other, and the function is taken for broken."""
FOR_EVER = 1e6
"""The time limit within the process, in seconds: it is ended from outside."""
BEGIN = "import sys; from truing.rollout.late import serve; serve(int(sys.argv[1]))"


class Worker:
    """The process: `name` is the reward function's as in a recipe, `options` are its own."""

    def __init__(self, name: str, options: Mapping[str, Any], seconds: float) -> None:
        self.name, self.options, self.seconds, self.in_a_row = name, dict(options), seconds, 0
        self.line: Connection | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, answer: Answer) -> Score | None:
        """What the function says of one answer; None where it was late. A process that ended by itself is a failed
        score; what truing complains of is raised here too."""
        if self.line is None:
            self._start()
        assert self.line is not None
        try:
            self.line.send(dataclasses.replace(answer, row=dict(answer.row)))
            if not self.line.poll(self.seconds):
                self._was_late()
                return None
            said = self.line.recv()
        except (EOFError, OSError):
            return self._ended()
        self.in_a_row = 0
        if isinstance(said, TruingError):
            raise said
        assert isinstance(said, Score)
        return said

    def _start(self) -> None:
        self.line, theirs = multiprocessing.Pipe()
        try:
            command = [sys.executable, "-c", BEGIN, str(theirs.fileno())]
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        finally:
            theirs.close()
        weakref.finalize(self, end, self.process)
        try:
            self.line.send((self.name, self.options, self.seconds, sys.path))
            said = self.line.recv() if self.line.poll(START) else TimeoutError(f"nothing within {START:g} s")
        except (EOFError, OSError):
            said = EOFError(f"its process ended with {self.process.wait()}")
        if said is not None:
            self.stop()
            raise said if isinstance(said, TruingError) else RunFailed(f"reward '{self.name}' was not loaded: {said}")

    def _was_late(self) -> None:
        """End what does not come back; RunFailed where that was so too often."""
        self.stop()
        self.in_a_row += 1
        if self.in_a_row == IN_A_ROW:
            raise RunFailed(
                f"reward '{self.name}' did not come back within {self.seconds:g} s from {IN_A_ROW} answers one after "
                "the other: that is its own fault, not theirs. Mend it, or give it a longer time_limit."
            )

    def _ended(self) -> Score | None:
        assert self.process is not None
        code = self.process.wait()
        self.stop()
        if code != -signal.SIGALRM:
            return failed(f"its process ended with {code}")
        self._was_late()
        return None

    def stop(self) -> None:
        """End the process, and all that it started."""
        if self.line is not None and self.process is not None:
            self.line.close()
            end(self.process)
        self.line = self.process = None


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that has not ended, and its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Watched(Call):
    """A reward function that is asked in a process of its own: an answer that it does not come back from within
    `seconds` is worth `late`, and has the part `late`."""

    late: float = math.nan
    worker: Worker = field(default_factory=lambda: Worker("", {}, 0.0))

    def __call__(self, answers: Sequence[Answer]) -> list[Score]:
        """One score for each answer."""
        return [self.worker.ask(answer) or Score(self.late, {LATE: 1.0}) for answer in answers]


def watched(name: str, call: Call, late: float) -> Watched:
    """A call in a process of its own. UserError for a function that is asked about several answers at once, where
    nobody could say which of them it does not come back from, or that reads none."""
    if call.function.scope != "response" or "response" not in call.function.reads:
        raise UserError(
            f"reward '{name}': 'late' is for a function that reads one answer at a time (its parameter 'response'); "
            "leave it out"
        )
    return Watched(call.function, call.options, call.seconds, late, Worker(name, call.options, call.seconds))


def serve(channel: int) -> None:
    """The process: load the function, then say what it says of one answer after the other, until nobody asks."""
    line = Connection(channel)
    os.dup2(2, 1)
    name, options, seconds, sys.path[:] = line.recv()
    try:
        call = Call(registry.load(name, "reward"), options, FOR_EVER)
    except BaseException as problem:
        line.send(told(problem))
        return
    line.send(None)
    with suppress(EOFError):
        while True:
            answer = line.recv()
            # Ends this process whatever it is in, even where who asked is gone.
            signal.alarm(math.ceil(seconds) + 1)
            try:
                said: Score | TruingError = call([answer])[0]
            except TruingError as problem:
                said = told(problem)
            signal.alarm(0)
            line.send(said)


def told(problem: BaseException) -> TruingError:
    """A problem in a form that goes from one process to the other."""
    if isinstance(problem, UserError):
        return UserError(str(problem))
    return RunFailed(str(problem) if isinstance(problem, TruingError) else f"{type(problem).__name__}: {problem}")
