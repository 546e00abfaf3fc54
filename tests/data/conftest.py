"""What the data tests share: the folder of real data, files written on the spot, tokenizers built on the spot."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _find_real_data() -> Path:
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("TRUING_DATA") or root / "../shared/data")
    if folder.is_dir():
        return folder
    message = f"real data not found at '{folder}'; set TRUING_DATA to its folder"
    if os.environ.get("CI") == "true" or os.environ.get("TRUING_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def find_real_data() -> Callable[[], Path]:
    """How the folder is found, for the test of what happens where it is not."""
    return _find_real_data


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: TRUING_DATA, or ../shared/data beside the repository."""
    return _find_real_data()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write rows (or raw bytes or text) to a file and give its path."""

    def write(content: Any, name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write
