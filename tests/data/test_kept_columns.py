"""Rows with a response keep their other columns where a reward judges them; where nothing reads them they are counted."""

from __future__ import annotations

from typing import Any

from truing.data.formats.loading import describe, load
from truing.rollout.stored import of_records

ROW = {"prompt": "q", "response": "4", "solution": "4", "source": None, "level": 2}


def test_columns_stay_with_a_row_that_has_a_response(write: Any) -> None:
    source = write([ROW])
    kept = load(source, keep=True)
    assert kept.records[0].meta["columns"] == {"solution": "4", "level": 2}
    assert "columns 'solution', 'level' kept for rewards that read them (1 row)" in describe(kept)
    [answer] = of_records(kept)
    assert answer.columns == {"solution": "4", "level": 2}


def test_they_are_counted_elsewhere_and_change_no_digest(write: Any) -> None:
    source = write([ROW])
    plain = load(source)
    assert "columns" not in plain.records[0].meta
    assert "columns 'solution', 'level' not read (1 row)" in describe(plain)
    other = write([{"prompt": "q", "response": "4"}], "other.jsonl")
    assert plain.digest == load(other).digest == load(other, keep=True).digest


def test_pairs_and_several_responses_keep_theirs_too(write: Any) -> None:
    rows = [
        {"prompt": "q", "chosen": "a", "rejected": "b", "solution": "s"},
        {"prompt": "q", "responses": ["a", "b"], "scores": [1, 0], "solution": "s"},
    ]
    for i, row in enumerate(rows):
        records = load(write([row], f"{i}.jsonl"), keep=True)
        assert [answer.columns for answer in of_records(records)] == [{"solution": "s"}] * 2
