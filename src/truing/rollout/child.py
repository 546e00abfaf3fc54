"""Code that nobody has read, run in a process of its own that can be ended with all that it started.

Linux alone: `unshare` (util-linux) gives it process numbers and a network of its own, which hold nothing else. It has
limits of time, memory, output, open files and (unless truing runs as root) processes, an empty environment and an empty
working folder. It is no jail: files that truing may read or write it may too; a container of its own keeps those safe.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from truing.disk import remove_folder
from truing.errors import RunFailed, UserError

APART = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
START = 60.0
"""Seconds within which a process has to come to the point where its program begins."""
MOST = 1 << 20
"""The bytes that it may write to any one file, its output among them."""
BEGIN = """\
import os, resource as r, sys
program, seconds, megabytes, told = sys.argv[1], *map(int, sys.argv[2:])
limits = ((r.RLIMIT_AS, megabytes << 20), (r.RLIMIT_CPU, seconds), (r.RLIMIT_FSIZE, 1 << 20), (r.RLIMIT_NOFILE, 64))
for kind, most in (*limits, (r.RLIMIT_CORE, 0), (r.RLIMIT_NPROC, 64)):
    r.setrlimit(kind, (most, most))
os.write(told, b".")
os.close(told)
os.execv(sys.executable, [sys.executable, "-I", program])
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended: whether by itself and in order, what it wrote to its output, and otherwise why not; `late`
    where it had to be ended."""

    well: bool
    output: str = ""
    why: str = ""
    late: bool = False


def run(code: str, stdin: str = "", *, seconds: float = 5.0, megabytes: int = 512, apart: bool = True) -> Ended:
    """Run Python code with this text as its input; whatever the code does, this returns after about `seconds`, and
    nothing of it is left running.

    RunFailed where the process could not even be started: that is no fault of the code's. UserError where this machine
    cannot keep it `apart`.
    """
    if apart and not can_part():
        raise UserError(
            "this machine cannot keep a program apart from others (Linux with unshare and user namespaces can); run "
            "truing in a container of its own and set isolate: false"
        )
    with own_folder() as folder:
        (folder / "program.py").write_text(code, encoding="utf-8", errors="replace")
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output:
            source.write(stdin.encode("utf-8", "replace"))
            source.seek(0)
            status = _wait(folder, source.fileno(), output.fileno(), seconds, megabytes, apart)
            late = status is None
            why = f"did not end within {seconds:g} s" if late else f"ended with {status}" if status else ""
            output.seek(0)
            return Ended(not why, output.read(MOST).decode("utf-8", "replace"), why, late)


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder in the shared temporary one, removed at the end; one that cannot be is said, and ends nothing."""
    folder = Path(tempfile.mkdtemp(prefix="truing-"))  # 0700, and so it stays: who writes here runs as this user
    try:
        yield folder
    finally:
        try:
            remove_folder(folder)
        except OSError as problem:
            warnings.warn(f"{folder}: left by an answer's program, cannot be removed ({problem})", stacklevel=1)


def _wait(folder: Path, given: int, output: int, seconds: float, megabytes: int, apart: bool) -> int | None:
    """Start the program and end it; what it ended with, or None where it had to be ended."""
    started, told = os.pipe()
    limits = [str(int(seconds) + 1), str(megabytes), str(told)]
    command = [sys.executable, "-I", "-c", BEGIN, str(folder / "program.py"), *limits]
    plain = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"}
    try:
        child = subprocess.Popen(
            [*APART, *command] if apart else command,
            stdin=given,
            stdout=output,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=plain,
            pass_fds=[told],
            start_new_session=True,
        )
    except OSError as problem:
        raise RunFailed(f"a program could not be started: {problem}") from problem
    finally:
        os.close(told)
    try:
        if not _began(started):
            raise RunFailed("a program could not be started: its process ended, or gave no sign, before it began")
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        os.close(started)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _began(started: int) -> bool:
    """Whether the process said that the program begins now; a busy machine has `START` seconds for it."""
    poll = select.poll()  # `select.select` raises for descriptors from 1,024 on
    poll.register(started, select.POLLIN)
    return bool(poll.poll(START * 1000)) and os.read(started, 1) == b"."


@functools.cache
def can_part() -> bool:
    """Whether this machine lets a process be kept apart."""
    try:
        return subprocess.run([*APART, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
