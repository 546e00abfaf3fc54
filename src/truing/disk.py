"""Writing whole files, and nothing through a link: what lies behind one is somebody else's."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from truing.errors import RunFailed, UserError, cleaned, redacted
from truing.seals import fits


def is_part(path: Path, name: str) -> bool:
    """Return whether `path` is what a kill within `write_text` leaves of the file `name`."""
    return path.name.startswith(f".{name}.")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_link(path: Path) -> None:
    """UserError where `path` is a link."""
    if path.is_symlink():
        raise UserError(
            f"{path}: is a link to {os.readlink(path)}, and truing writes, empties and removes nothing through one.\n"
            "  Remove the link, or name the file or folder itself."
        )


def refuse_links(folder: Path) -> None:
    """UserError where a folder is a link, or holds one at any depth."""
    refuse_link(folder)
    for path in sorted(folder.rglob("*")):
        refuse_link(path)


def check_target(path: Path) -> None:
    """UserError where a file cannot be put in the place of what is there: a link, a device, a pipe, a folder."""
    refuse_link(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no file but a folder, a device or a pipe; name a file")


def check_free(path: Path, overwrite: bool) -> None:
    """UserError where a command would write over a file that holds something, and `overwrite` was not asked for."""
    check_target(path)
    if path.exists() and path.stat().st_size and not overwrite:
        raise UserError(f"{path}: is there already; name another file, or throw this one away with --overwrite")


def beside(path: Path) -> Path:
    """A hidden name of nobody's next to `path`, to make its content under."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file to write, put in the place of `path` when it is whole. Its mode is the one that the user's umask asks
    for. UserError where something other than a file is there."""
    check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = beside(path)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        yield part
        part.chmod(mode)  # safetensors gives its files 0600 whatever the umask
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> Path:
    """Write words of ours, such as a report, without the keys that may have come into them."""
    return write_exact(path, redacted(text))


def write_exact(path: Path, text: str) -> Path:
    """Write a text as it is, the user's own rows and templates and what has a seal, so that a reader, or a kill at any
    moment, leaves the old file or the whole new one.

    Half a surrogate pair, which no text may hold, is written as its escape. Raises OSError, and UserError where
    something other than a file is there.
    """
    with replacing(path) as part, part.open("wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())
    return path


def write_json(path: Path, value: Any) -> None:
    """Write JSON of ours, without keys, so that a reader never sees half of it. What is sealed was cleaned before."""
    content = value if isinstance(value, Mapping) and fits(value) else cleaned(value)
    write_exact(path, as_json(content, path.name, indent=1))


def as_json(value: Any, name: str, indent: int | None = None) -> str:
    """The JSON text of a value that goes into the file, or the line, called `name`: every JSON of ours is made here.
    RunFailed, which says where, for a number that is none: no JSON holds it, and a reader would be led astray.

    >>> as_json({"scores": [0.5, float("nan")]}, "findings.json")
    Traceback (most recent call last):
    truing.errors.RunFailed: findings.json: scores[1] is nan, and no JSON holds that
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        wrong = next(no_number(value), "")
        raise RunFailed(f"{name}: {wrong or 'a part of it'}, and no JSON holds that") from None


def no_number(value: Any, place: str = "") -> Iterator[str]:
    """Every float in plain data that is not a number, with its place."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place or 'it'} is {value}"
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from no_number(part, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from no_number(part, f"{place}[{i}]")


def appending(path: Path) -> TextIO:
    """A file to add lines to, made where there is none; UserError where it is a link."""
    return os.fdopen(opened(path, os.O_WRONLY), "w", encoding="utf-8")


def opened(path: Path, mode: int) -> int:
    """The descriptor of a regular file that is added to and never emptied; UserError where something else is there."""
    try:
        descriptor = os.open(path, mode | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link; a pipe that nobody reads; a folder
            check_target(path)
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise UserError(f"{path}: is no file but a device or a pipe; remove it")


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a file, which goes with the process, however it ends; BlockingIOError where another has it and
    this one does not `wait`. A process that this one forks does not hold it: it may live on."""
    descriptor = opened(path, os.O_RDWR)
    _HELD.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        if descriptor in _HELD:
            _HELD.discard(descriptor)
            os.close(descriptor)


_HELD: set[int] = set()
"""The descriptors of locks, which a forked process closes: what it inherits would go on holding them."""


def _let_go() -> None:
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def made_beside(folder: Path) -> Iterator[Path]:
    """A folder of one's own to make a model in, renamed when it is whole. Of two who make the same, the first stays."""
    with folder_beside(folder) as part:
        yield part
        try:
            part.rename(folder)
        except OSError:
            if not (folder / "config.json").exists():
                raise


@contextmanager
def folder_beside(folder: Path) -> Iterator[Path]:
    """A new folder next to `folder`, removed at the end if it is still there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = beside(folder)
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


LEVELS = 32
"""Levels that `remove_folder` descends before it moves what is deeper to the top."""


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, however deep, wide or closed, through no link; OSError where that fails.

    What is deeper than `LEVELS` is first moved to the top. So no depth needs a deep stack, a long path or many open
    files: `shutil.rmtree` calls itself once a level, and 3,000 levels end it.
    """
    with suppress(FileNotFoundError):
        top = _open_folder(str(folder))
        try:
            while names := os.listdir(top):
                for name in names:
                    _take_down(name, top, top, LEVELS)
        finally:
            os.close(top)
        folder.rmdir()


def _take_down(name: str, beside: int, top: int, levels: int) -> None:
    """Remove a file, link or folder of the folder `beside`; a folder with no levels left goes to `top` as it is."""
    with suppress(IsADirectoryError):
        os.unlink(name, dir_fd=beside)
        return
    if not levels:
        os.chmod(name, 0o700, dir_fd=beside)  # else its '..' cannot be written
        os.rename(name, secrets.token_hex(16), src_dir_fd=beside, dst_dir_fd=top)
        return
    here = _open_folder(name, beside)
    try:
        for inner in os.listdir(here):
            _take_down(inner, here, top, levels - 1)
    finally:
        os.close(here)
    os.rmdir(name, dir_fd=beside)


def _open_folder(name: str, beside: int | None = None) -> int:
    """The descriptor of a folder that its owner may read and write from now on; OSError for a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        handle = os.open(name, flags, dir_fd=beside)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=beside)
        handle = os.open(name, flags, dir_fd=beside)
    os.fchmod(handle, 0o700)
    return handle


def share_alike(folder: Path) -> None:
    """Give every file in a folder of truing's the mode with which the folder was made: safetensors' are 0600 whatever
    the umask."""
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(folder.stat().st_mode & 0o666)


def remove_whole(folder: Path) -> None:
    """Remove a folder of truing's so that a kill leaves it whole or gone, with what a kill left of it before."""
    for litter in folder.parent.glob(".*.old.*"):
        name = re.escape(folder.name)
        if re.fullmatch(rf"\.{name}\.old\.[0-9a-f]{{8}}", litter.name) and _holds_only(litter, folder.name):
            shutil.rmtree(litter)
    if folder.exists():
        away = beside(folder.with_name(f"{folder.name}.old"))
        away.mkdir()
        folder.rename(away / folder.name)
        shutil.rmtree(away)


def _holds_only(folder: Path, name: str) -> bool:
    """True if a folder holds one entry of this name, or nothing; false for a link."""
    with suppress(OSError):
        return not folder.is_symlink() and {path.name for path in folder.iterdir()} <= {name}
    return False


@contextmanager
def users_files() -> Iterator[None]:
    """A file that was named on the command line and cannot be read or written is the user's mistake."""
    try:
        yield
    except OSError as problem:
        name = problem.filename2 or problem.filename
        if name is None or problem.errno == errno.ENOSPC:
            raise
        raise UserError(f"{name}: {problem.strerror}") from problem
