"""No file imports itself by way of others, and no room is a warehouse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from shape import Source, circles, rooms  # noqa: E402

SOURCE = Source.of(ROOT)
ROOMS = rooms(SOURCE)


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Within functions too: an import that is put off hides a circle and does not end it."""
    assert circles({module: set(SOURCE.imports(module)) for module in SOURCE.modules}) == []


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_no_room_holds_more_than_a_tenth(room: str) -> None:
    assert ROOMS[room][1] < sum(lines for _, lines in ROOMS.values()) / 10
