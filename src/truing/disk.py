"""Writing whole files."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def is_part(path: Path, name: str) -> bool:
    """Whether `path` is what a kill within `write_text` leaves of the file `name`."""
    return path.name.startswith(f".{name}.")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> Path:
    """Write `path` so that a reader, or a kill at any moment, leaves the old file or the whole new one.

    Half a surrogate pair, which no text may hold, is written as its escape. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return path


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader never sees half of it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


@contextmanager
def made_beside(folder: Path) -> Iterator[Path]:
    """A folder of one's own to make a model in, renamed when it is whole. Of two who make the same, the first stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield part
        part.chmod(0o755)
        try:
            part.rename(folder)
        except OSError:
            if not (folder / "config.json").exists():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


LEVELS = 32
"""How deep `remove_folder` goes before it moves what is deeper to the top."""


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
