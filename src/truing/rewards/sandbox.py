"""Code that nobody has read, run in a process of its own that can be ended with all that it started.

It has the best box of this machine (`box.py`), limits of time, memory, output, open files and processes, an empty
environment and an empty folder. SECURITY.md lists what that prevents, and what not.
"""

from __future__ import annotations

import functools
import os
import select
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from truing.disk import remove_folder
from truing.errors import RunFailed, UserError
from truing.rewards import box, process_limits
from truing.rewards.begin import FILE

START = 60.0
"""Seconds within which a process has to come to the point where its program begins."""


@dataclass(frozen=True)
class Ended:
    """The end of a program: `well` if by itself and in order, its output, and otherwise why not; `timed_out` if it had
    to be killed."""

    well: bool
    output: str = ""
    why: str = ""
    timed_out: bool = False


def run(code: str, stdin: str = "", *, seconds: float = 5.0, megabytes: int = 512, apart: bool = True) -> Ended:
    """Run Python code with this text as its input; whatever the code does, this returns after about `seconds`, and
    nothing of it is left running. `megabytes` is what all its processes may take together.

    RunFailed where the process could not even be started: that is no fault of the code's. UserError where this machine
    cannot keep it `apart`.
    """
    return run_in(kind_of(apart), code, stdin, seconds=seconds, megabytes=megabytes)


def run_in(kind: box.Kind, code: str, stdin: str = "", *, seconds: float = 5.0, megabytes: int = 512) -> Ended:
    """Run Python code in a box of one kind."""
    try:
        with own_folder() as folder, _file(code) as program, _file(stdin) as source, _file("") as output:
            if kind != "bubblewrap":  # which reads it by its descriptor
                (folder / "program.py").write_text(code, encoding="utf-8", errors="replace")
            limits = [str(int(seconds) + 1), str(megabytes)]
            status, why = _wait(kind, folder, (program, source, output), limits, seconds)
            timed_out = bool(why)
            if status and not timed_out:
                why = f"ended with {status}"
            output.seek(0)
            return Ended(not why, output.read(FILE).decode("utf-8", "replace"), why, timed_out)
    except OSError as problem:
        raise RunFailed(f"a program could not be started: {problem}") from problem


def _file(text: str) -> BinaryIO:
    """A file without a name that holds a text."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    file.write(text.encode("utf-8", "replace"))
    file.seek(0)
    return file


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder in the shared temporary one, removed at the end; one that cannot be is warned of, and stops nothing."""
    folder = Path(tempfile.mkdtemp(prefix="truing-"))  # 0700, and so it stays: who writes here runs as this user
    try:
        yield folder
    finally:
        try:
            remove_folder(folder)
        except OSError as problem:
            warnings.warn(f"{folder}: left by a response's program, cannot be removed ({problem})", stacklevel=1)


def _wait(
    kind: box.Kind, folder: Path, files: tuple[BinaryIO, BinaryIO, BinaryIO], limits: list[str], seconds: float
) -> tuple[int, str]:
    """Start the program, with its code, input and output as files, and end it; return its exit code, and why it had to
    be killed, if it had."""
    program, source, output = (file.fileno() for file in files)
    home = str(box.HOME if kind == "bubblewrap" else folder)
    started, ready = os.pipe()
    try:
        child = subprocess.Popen(
            box.command(kind, folder, program, [*limits, str(ready)]),
            stdin=source,
            stdout=output,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"},
            pass_fds=[ready, program] if kind == "bubblewrap" else [ready],
            start_new_session=True,
        )
    except OSError:
        os.close(started)
        raise
    finally:
        os.close(ready)
    try:
        if not _began(started):
            raise RunFailed("a program could not be started: its process ended, or gave no sign, before it began")
        why = process_limits.held(child, seconds, int(limits[1]))
    finally:
        os.close(started)
        process_limits.end(child)
    return child.returncode, why


def _began(started: int) -> bool:
    """Return True once the process has signalled that the program begins; a busy machine has `START` seconds for it."""
    poll = select.poll()  # `select.select` raises for descriptors from 1,024 on
    poll.register(started, select.POLLIN)
    return bool(poll.poll(START * 1000)) and os.read(started, 1) == b"."


def kind_of(isolate: bool) -> box.Kind:
    """The best box of this machine; UserError where it has to be closed and this machine has none that is."""
    if not isolate:
        return "open"
    for kind in ("bubblewrap", "unshare"):
        if works(kind):
            return kind
    raise UserError(
        "this machine cannot keep a program apart from others (Linux with bubblewrap, or unshare and user namespaces, "
        "can); run truing in a container of its own and set isolate: false"
    )


@functools.cache
def works(kind: box.Kind) -> bool:
    """Return True if a program runs in a box of this kind on this machine."""
    try:
        return run_in(kind, "print(6 * 7)", seconds=20).output == "42\n"
    except RunFailed:
        return False


def unkept(isolate: bool) -> str:
    """One line on what a program is not kept from on this machine; empty where that is nothing."""
    kind = kind_of(isolate)
    if not box.losses(kind):
        return ""
    how = {"open": "isolate: false", "unshare": "without bubblewrap", "bubblewrap": "in bubblewrap"}[kind]
    return f"programs in responses ({how}) are not kept from: {', '.join(box.losses(kind))} (SECURITY.md)"
