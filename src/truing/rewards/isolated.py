"""A reward function in a process of its own, which is killed where it times out on a response.

Within one process nothing can end a function: one that hangs in C (a regular expression that backtracks without end)
even stops everything else. So a reward with the option `timeout_score` is called here, one response at a time. A
response on which it times out scores `timeout_score`, and is counted; the process is started anew. Timeouts on
`IN_A_ROW` different responses, one after the other, are the function's fault and not theirs: they end the run."""

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
from truing.records import Score
from truing.rewards.call import Call, Response, attempt, failed
from truing.rewards.combine import shown
from truing.rewards.process_limits import kill
from truing.terminal import redacting

START = 120.0
"""Seconds within which the process has to have loaded the function."""
IN_A_ROW = 8
"""Timeouts on so many different responses, one after the other, after which the function is taken for broken."""
ENDING = 5.0
"""Seconds within which a process that has let go of its channel has to have ended."""
FOR_EVER = 1e6
"""The time limit within the process, in seconds: it is ended from outside."""
BEGIN = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from truing.rewards.isolated import serve; serve(int(sys.argv[1]))"
)


class Channel:
    """A channel between two processes that sends and receives whole tuples of plain values."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def send(self, *values: Any) -> None:
        """Send values; one that cannot be pickled raises before anything is sent."""
        packed = pickle.dumps(values)
        self.end.sendall(struct.pack("!Q", len(packed)) + packed)

    def receive(self) -> Any:
        """Receive the next values; EOFError where the other side is gone."""
        (size,) = struct.unpack("!Q", self._read(8))
        return pickle.loads(self._read(size))

    def _read(self, size: int) -> bytes:
        buffer = bytearray()
        while len(buffer) < size:
            part = self.end.recv(min(1 << 20, size - len(buffer)))
            if not part:
                raise EOFError("the other side is gone")
            buffer += part
        return bytes(buffer)


class RewardProcess:
    """The process: `name` is the reward function's as in a recipe, `options` are its own."""

    def __init__(self, name: str, options: Mapping[str, Any], seconds: float) -> None:
        self.name, self.options, self.seconds = name, dict(options), seconds
        self.timeouts: dict[str, None] = {}  # the responses on which it timed out since it last returned
        self.line: Channel | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, answer: Response) -> Score | None:
        """Return the function's score of one response; None where it timed out. A process that ended by itself is a
        failed score; an error of truing's own is raised here too."""
        if self.line is None:
            self._start()

        def exchange() -> Any:
            return self._exchange(dataclasses.replace(answer, row=dict(answer.row)))

        reply, problem = attempt(exchange, self.seconds)
        if reply is None:
            return self._silent(answer, problem)
        self.timeouts.clear()
        value, why, unread, complaint = reply
        if complaint is not None:
            raise complaint
        return failed(why) if why else Score(value, unread=unread)

    def _exchange(self, *values: Any) -> Any:
        """Send values and return the reply."""
        line = self.line
        assert line is not None
        line.send(*values)
        return line.receive()

    def _silent(self, answer: Response, problem: BaseException | None) -> Score | None:
        """The score of a response without a reply: None where the process timed out, else it has failed."""
        process = self.process
        assert process is not None
        if not isinstance(problem, TimeoutError):
            attempt(lambda: ended(process, os.WEXITED), ENDING)  # it lets go of the channel before it has ended
        code = ended(process)  # what it has started may keep the channel open behind it
        if code == -signal.SIGALRM or (code is None and isinstance(problem, TimeoutError)):
            self._timed_out(answer)
            return None
        self.timeouts.clear()
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
        self.line = Channel(ours)
        self.ending = weakref.finalize(self, end, self.process)
        reply, problem = attempt(lambda: self._exchange(self.name, self.options, self.seconds, sys.path), START)
        if reply is None:
            code = self.stop()
            why = (
                f"nothing within {START:g} s" if isinstance(problem, TimeoutError) else f"its process ended with {code}"
            )
            raise RunFailed(f"reward '{self.name}' was not loaded: {why}")
        if reply[0] is not None:
            self.stop()
            raise reply[0]

    def _timed_out(self, answer: Response) -> None:
        """Kill the process that timed out; RunFailed after `IN_A_ROW` timeouts."""
        self.stop()
        self.timeouts[answer.response] = None
        if len(self.timeouts) == IN_A_ROW:
            raise RunFailed(
                f"reward '{self.name}' timed out after {self.seconds:g} s on {IN_A_ROW} different responses "
                "one after the other: that is its own fault, not theirs. Mend it, or give it a longer time_limit. The "
                f"last response was: {shown(answer.response)}"
            )

    def stop(self) -> int | None:
        """Kill the process with all that it started, and return its exit code."""
        if self.line is None or self.process is None:
            return None
        with suppress(OSError):
            self.line.end.shutdown(socket.SHUT_RDWR)
        self.line.end.close()
        self.line = None
        self.ending()
        return self.process.returncode


def ended(process: subprocess.Popen[bytes], how: int = os.WEXITED | os.WNOHANG) -> int | None:
    """Return the exit code of a process, if it has ended, without reaping it: its number stays taken."""
    if process.returncode is not None:
        return process.returncode
    state = os.waitid(os.P_PID, process.pid, how | os.WNOWAIT)
    if state is None:
        return None
    return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, its session, and what it started outside of that, as far as it can still be found."""
    if process.returncode is not None:
        return
    kill(process.pid, descendants(process.pid))
    process.wait()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and they in turn, where there is /proc (Linux)."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    pids = [pid]
    for parent in pids:  # grows as it is read
        pids += parents.get(parent, [])
    return pids[1:]


@dataclass(frozen=True, kw_only=True)
class Watched(Call):
    """A reward function that is called in a process of its own: a response on which it times out after `seconds` scores
    `timeout_score`, and its score says so."""

    timeout_score: float
    worker: RewardProcess

    def __call__(self, answers: Sequence[Response]) -> list[Score]:
        """One score for each response, one call after the other."""
        return [self.worker.ask(answer) or Score(self.timeout_score, timed_out=True) for answer in answers]


def isolated(name: str, call: Call, timeout_score: float) -> Watched:
    """Return a call in a process of its own. UserError for a function of several responses at once, where nobody could
    say on which of them it timed out, or of none."""
    if call.function.scope != "response" or "response" not in call.function.reads:
        raise UserError(
            f"reward '{name}': 'timeout_score' is for a function that reads one response at a time (its parameter "
            "'response'); leave it out"
        )
    worker = RewardProcess(name, call.options, call.seconds)
    return Watched(call.function, call.options, call.seconds, timeout_score=timeout_score, worker=worker)


def serve(channel: int) -> None:
    """Serve in the process: load the function, then score one response after the other, until the channel closes."""
    line = Channel(socket.socket(fileno=channel))
    os.set_inheritable(channel, False)  # else what it starts would keep the channel open when it is gone
    os.register_at_fork(after_in_child=line.end.close)
    with suppress(OSError):
        os.dup2(2, 1)  # what the function prints is no reply
    sys.stdout, sys.stderr = redacting(sys.stdout), redacting(sys.stderr)
    name, options, seconds, sys.path[:] = line.receive()
    try:
        call = Call(registry.load(name, "reward"), options, FOR_EVER)
    except BaseException as problem:
        line.send(picklable(problem))
        return
    line.send(None)
    with suppress(EOFError):
        while True:
            (answer,) = line.receive()
            # Ends this process whatever it is in, even where the caller is gone.
            signal.alarm(math.ceil(min(seconds, FOR_EVER)) + 1)
            line.send(*judged(call, answer))
            signal.alarm(0)


def judged(call: Call, answer: Response) -> tuple[float, str, bool, TruingError | None]:
    """Return the value, why there is none, True if no answer could be read, and an error of truing's own."""
    try:
        score = call([answer])[0]
    except TruingError as problem:
        return math.nan, "", False, picklable(problem)
    return float(score.value), score.why if score.failed else "", score.unread, None


def picklable(problem: BaseException) -> TruingError:
    """Return an exception in a form that can be sent from one process to the other."""
    if isinstance(problem, UserError):
        return UserError(str(problem))
    return RunFailed(str(problem) if isinstance(problem, TruingError) else f"{type(problem).__name__}: {problem}")
