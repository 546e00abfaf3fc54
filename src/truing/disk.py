"""Writing whole files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def is_part(path: Path, name: str) -> bool:
    """Whether `path` is what a kill within `write_text` leaves of the file `name`."""
    return path.name.startswith(f".{name}.")


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
