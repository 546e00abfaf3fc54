"""No question on both sides, the asked share, and the same division whatever the order of the file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from truing.data.formats.loading import content_digest, load
from truing.data.split import overlap, split, unseen
from truing.errors import DataError, UserError
from truing.records import Demonstration, Message, Records, RowNote


def demonstrations(prompts: list[str], groups: list[str] | None = None) -> Records:
    made = tuple(
        Demonstration((Message("user", p),), (Message("assistant", f"r{i}"),), {"group": groups[i]} if groups else {})
        for i, p in enumerate(prompts)
    )
    rows = tuple(range(1, len(made) + 1))
    return Records("d", made, rows, tuple(RowNote(r, "f", "odd", "kept") for r in rows), content_digest(made))


def prompts_of(records: Records) -> set[str]:
    return {r.prompt[0].content for r in records.records}


def test_no_first_turn_is_on_both_sides_and_the_share_is_right() -> None:
    records = demonstrations([f"q {i % 150}" if i % 2 else f" Q  {i % 150}" for i in range(500)])
    train, exam = split(records, eval=0.2, seed=3)
    assert not overlap(train, exam)
    assert len(train) + len(exam) == 500
    assert abs(len(exam) - 100) <= 3
    assert {note.row for note in exam.notes} == set(exam.rows)
    assert train.name == "d (train)"


def test_the_order_of_the_file_does_not_matter_and_the_seed_does() -> None:
    prompts = [f"q {i}" for i in range(300)]
    records = demonstrations(prompts)
    order = list(range(300))
    random.Random(0).shuffle(order)
    mixed = records.subset(order, "mixed")
    assert prompts_of(split(records)[1]) == prompts_of(split(mixed)[1])
    assert prompts_of(split(records)[1]) != prompts_of(split(records, seed=1)[1])
    assert len(split(records)[1]) == 30


def test_rows_of_one_group_stay_together() -> None:
    records = demonstrations([f"q {i}" for i in range(40)], [f"g{i // 4}" for i in range(40)])
    train, exam = split(records, eval=0.25)
    assert not {r.meta["group"] for r in train.records} & {r.meta["group"] for r in exam.records}
    assert len(exam) == 8 or len(exam) == 12


def test_by_row_only_identical_rows_stay_together() -> None:
    records = demonstrations(["same"] * 20)
    train, exam = split(records, eval=0.25, by="row")
    assert (len(train), len(exam)) == (15, 5)
    assert overlap(train, exam) == [(train.rows[0], row) for row in exam.rows]


def test_a_split_that_cannot_be_is_an_error() -> None:
    with pytest.raises(DataError, match=r"all 5 rows have the same first user turn.*\n.*or split by: row"):
        split(demonstrations(["a", "A ", " a", "a", "a"]))
    with pytest.raises(UserError, match=r"eval: 1.5 is not a fraction between 0 and 1"):
        split(demonstrations(["a", "b"]), eval=1.5)
    with pytest.raises(UserError, match=r"unknown value of by 'promt'. Did you mean 'prompt'"):
        split(demonstrations(["a", "b"]), by="promt")  # type: ignore[arg-type]
    train, exam = split(demonstrations(["a", "b"]), eval=0.01)
    assert (len(train), len(exam)) == (1, 1)


@pytest.mark.data
def test_real_pairs_split_clean(real_data: Path) -> None:
    records = load(str(real_data / "hh_harmless_base_test" / "pairs.dev.jsonl.gz"), on_bad_row="drop")
    train, exam = split(records)
    assert (len(train), len(exam)) == (1432, 159)
    assert not overlap(train, exam)


def test_the_same_question_under_other_facts_is_another_one() -> None:
    def records(*said: tuple[str, str]) -> Records:
        made = [(Message("system", rules), Message("user", ask)) for rules, ask in said]
        found = tuple(Demonstration(prompt, (Message("assistant", "yes"),)) for prompt in made)
        return Records("d", found, tuple(range(1, len(found) + 1)))

    trained = records(("R1 allows 30 days.", "May I return it?"))
    left = unseen(
        records(("R1 allows 60 days.", "May I return it?"), ("R1 allows 30 days.", "may I  return it?")), [trained]
    )
    assert left.rows == (1,) and [note.row for note in left.notes] == [2]
