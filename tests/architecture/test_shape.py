"""No file imports itself by way of others, no room is a warehouse, and names and docstrings say what a thing is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from shape import Source, circles, longest_constructor, rooms, unclear_docstrings, vague_names  # noqa: E402
from shape_run import entries_into_scope  # noqa: E402

SOURCE = Source.of(ROOT)
ROOMS = rooms(SOURCE)


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Within functions too: an import that is put off hides a circle and does not end it."""
    assert circles({module: set(SOURCE.imports(module)) for module in SOURCE.modules}) == []


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_no_room_holds_more_than_a_tenth(room: str) -> None:
    assert ROOMS[room][1] < sum(lines for _, lines in ROOMS.values()) / 10


def test_no_name_is_a_word_without_content() -> None:
    """`found`, `said`, `given` and their like say nothing of what they stand for."""
    assert vague_names(SOURCE) == []


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    """Not with What, Where, Who, How, Of or By, which leave the subject open."""
    assert unclear_docstrings(SOURCE) == []


def test_no_constructor_is_a_list_of_everything() -> None:
    assert longest_constructor(SOURCE)[0] <= 9


def test_a_check_enters_the_scope_once_for_a_stage_and_for_a_reference() -> None:
    assert 0 < entries_into_scope(ROOT / "src" / "truing", ROOT / "recipes" / "quickstart.yaml") <= 22
