"""A reward function in a process of its own, which is ended where it does not come back from an answer.

Within one process nothing can end a function: one that hangs in C (a regular expression that backtracks without end)
even stops everything else. So a reward with the option `late` is asked here, one answer at a time. An answer that it
does not come back from is worth `late`, and is counted; the process is started anew. `IN_A_ROW` different answers of
that kind, one after the other, are the function's fault and not theirs: they end the run.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truing import registry
from truing.errors import RunFailed, TruingError, UserError
from truing.rewards.call import Answer, Call, attempt, failed
from truing.rewards.combine import shown
from truing.rewards.process_limits import kill
from truing.terminal import redacting
from truing.types import Score

START = 120.0
"""Seconds within which the process has to have loaded the function."""
IN_A_ROW = 8
"""So many different answers that were late, one after the other, and the function is taken for broken."""
ENDING = 5.0
"""Seconds within which a process that has let go of its channel has to have ended."""
FOR_EVER = 1e6
"""The time limit within the process, in seconds: it is ended from outside."""
BEGIN = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from truing.rewards.isolated import serve; serve(int(sys.argv[1]))"
)


class Line:
    """A channel between two processes on which any plain values are sent, whole."""

    def __init__(self, own: socket.socket) -> None:
        self.own = own

    def send(self, *values: Any) -> None:
        """Send values; what cannot be pickled raises before anything is sent."""
        packed = pickle.dumps(values)
        self.own.sendall(struct.pack("!Q", len(packed)) + packed)

    def receive(self) -> Any:
        """The next values; EOFError where the other side is gone."""
        (size,) = struct.unpack("!Q", self._read(8))
        return pickle.loads(self._read(size))

    def _read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            part = self.own.recv(min(1 << 20, size - len(found)))
            if not part:
                raise EOFError("the other side is gone")
            found += part
        return bytes(found)


class Worker:
    """The process: `name` is the reward function's as in a recipe, `options` are its own."""

    def __init__(self, name: str, options: Mapping[str, Any], seconds: float) -> None:
        self.name, self.options, self.seconds = name, dict(options), seconds
        self.late: dict[str, None] = {}  # the answers it did not come back from since it last came back from one
        self.line: Line | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, answer: Answer) -> Score | None:
        """What the function says of one answer; None where it was late. A process that ended by itself is a failed
        score; what truing complains of is raised here too."""
        if self.line is None:
            self._start()
        said, problem = attempt(lambda: self._exchange(dataclasses.replace(answer, row=dict(answer.row))), self.seconds)
        if said is None:
            return self._silent(answer, problem)
        self.late.clear()
        value, why, unread, complaint = said
        if complaint is not None:
            raise complaint
        return failed(why) if why else Score(value, unread=unread)

    def _exchange(self, *values: Any) -> Any:
        """What comes back for values that are sent."""
        line = self.line
        assert line is not None
        line.send(*values)
        return line.receive()

    def _silent(self, answer: Answer, problem: BaseException | None) -> Score | None:
        """What an answer is worth for which nothing came back: None where the process was late, else it has failed."""
        process = self.process
        assert process is not None
        if not isinstance(problem, TimeoutError):
            attempt(lambda: ended(process, os.WEXITED), ENDING)  # it lets go of the channel before it has ended
        code = ended(process)  # what it has started may keep the channel open behind it
        if code == -signal.SIGALRM or (code is None and isinstance(problem, TimeoutError)):
            self._was_late(answer)
            return None
        self.late.clear()
        gone = isinstance(problem, EOFError | OSError)
        code = self.stop()
        return failed(f"its process ended with {code}" if gone else f"{type(problem).__name__}: {problem}")

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-c", BEGIN, str(theirs.fileno())]
        try:
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            ours.close()
            raise RunFailed(f"reward '{self.name}' was not loaded: {error}") from error
        finally:
            theirs.close()
        self.line = Line(ours)
        self.ending = weakref.finalize(self, end, self.process)
        said, problem = attempt(lambda: self._exchange(self.name, self.options, self.seconds, sys.path), START)
        if said is None:
            code = self.stop()
            why = (
                f"nothing within {START:g} s" if isinstance(problem, TimeoutError) else f"its process ended with {code}"
            )
            raise RunFailed(f"reward '{self.name}' was not loaded: {why}")
        if said[0] is not None:
            self.stop()
            raise said[0]

    def _was_late(self, answer: Answer) -> None:
        """End what does not come back; RunFailed where that was so too often."""
        self.stop()
        self.late[answer.response] = None
        if len(self.late) == IN_A_ROW:
            raise RunFailed(
                f"reward '{self.name}' did not come back within {self.seconds:g} s from {IN_A_ROW} different answers "
                "one after the other: that is its own fault, not theirs. Mend it, or give it a longer time_limit. The "
                f"last answer was: {shown(answer.response)}"
            )

    def stop(self) -> int | None:
        """End the process with all that it started, and say how it ended."""
        if self.line is None or self.process is None:
            return None
        with suppress(OSError):
            self.line.own.shutdown(socket.SHUT_RDWR)
        self.line.own.close()
        self.line = None
        self.ending()
        return self.process.returncode


def ended(process: subprocess.Popen[bytes], how: int = os.WEXITED | os.WNOHANG) -> int | None:
    """How a process has ended, if it has; its number stays taken."""
    if process.returncode is not None:
        return process.returncode
    found = os.waitid(os.P_PID, process.pid, how | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, its session, and what it started outside of that, as far as it can still be found."""
    if process.returncode is not None:
        return
    kill(process.pid, descendants(process.pid))
    process.wait()


def descendants(pid: int) -> list[int]:
    """The processes that one has started, and they in turn, where /proc tells (Linux)."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


@dataclass(frozen=True, kw_only=True)
class Watched(Call):
    """A reward function that is asked in a process of its own: an answer that it does not come back from within
    `seconds` is worth `late`, and its score says so."""

    late: float
    worker: Worker

    def __call__(self, answers: Sequence[Answer]) -> list[Score]:
        """One score for each answer, asked one after the other."""
        return [self.worker.ask(answer) or Score(self.late, late=True) for answer in answers]


def watched(name: str, call: Call, late: float) -> Watched:
    """A call in a process of its own. UserError for a function that is asked about several answers at once, where
    nobody could say which of them it does not come back from, or that reads none."""
    if call.function.scope != "response" or "response" not in call.function.reads:
        raise UserError(
            f"reward '{name}': 'late' is for a function that reads one answer at a time (its parameter 'response'); "
            "leave it out"
        )
    worker = Worker(name, call.options, call.seconds)
    return Watched(call.function, call.options, call.seconds, late=late, worker=worker)


def serve(channel: int) -> None:
    """The process: load the function, then say what it says of one answer after the other, until nobody asks."""
    line = Line(socket.socket(fileno=channel))
    os.set_inheritable(channel, False)  # else what it starts would keep the channel open when it is gone
    os.register_at_fork(after_in_child=line.own.close)
    with suppress(OSError):
        os.dup2(2, 1)  # what the function prints is no answer
    sys.stdout, sys.stderr = redacting(sys.stdout), redacting(sys.stderr)
    name, options, seconds, sys.path[:] = line.receive()
    try:
        call = Call(registry.load(name, "reward"), options, FOR_EVER)
    except BaseException as problem:
        line.send(told(problem))
        return
    line.send(None)
    with suppress(EOFError):
        while True:
            (answer,) = line.receive()
            # Ends this process whatever it is in, even where who asked is gone.
            signal.alarm(math.ceil(min(seconds, FOR_EVER)) + 1)
            line.send(*judged(call, answer))
            signal.alarm(0)


def judged(call: Call, answer: Answer) -> tuple[float, str, bool, TruingError | None]:
    """The value, why there is none, whether the answer could not be read, and what truing complains of."""
    try:
        score = call([answer])[0]
    except TruingError as problem:
        return math.nan, "", False, told(problem)
    return float(score.value), score.why if score.failed else "", score.unread, None


def told(problem: BaseException) -> TruingError:
    """A problem in a form that goes from one process to the other."""
    if isinstance(problem, UserError):
        return UserError(str(problem))
    return RunFailed(str(problem) if isinstance(problem, TruingError) else f"{type(problem).__name__}: {problem}")
