"""A verdict column beside two responses is read where it names them, stops the run where it does not, and is never
passed over; what contradicts a choice is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from truing.data.formats.loading import describe, load
from truing.errors import DataError
from truing.records import Judgement

TWO = {"prompt": "q", "response_a": "good", "response_b": "bad"}
SIDES = {"chosen": "response_a", "rejected": "response_b"}
PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}


def verdict(records: Any) -> str:
    """The better response of the only row, or `tie`."""
    [record] = records.records
    assert isinstance(record, Judgement)
    return "tie" if record.verdict.kind == "tie" else record.chosen[0].content


@pytest.mark.parametrize(
    ("said", "better"),
    [
        ({"winner": "a"}, "good"),
        ({"winner": "model_b"}, "bad"),
        ({"preferred": "response_a"}, "good"),
        ({"choice": "B"}, "bad"),
        ({"verdict": "[[A]]"}, "good"),
        ({"label": "A>B"}, "good"),
        ({"label": "B>>A"}, "bad"),
        ({"label": "A<B"}, "bad"),
        ({"winner": "tie (bothbad)"}, "tie"),
        ({"winner": "neither"}, "tie"),
        ({"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}, "bad"),
        ({"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}, "tie"),
        ({"score_a": 1.0, "score_b": 2.0}, "bad"),
        ({"rating_a": 3, "rating_b": 3}, "tie"),
        ({"winner": "b", "annotator": "Bob"}, "bad"),
    ],
    ids=str,
)
def test_a_verdict_that_names_a_response_is_read(write: Any, said: dict[str, Any], better: str) -> None:
    records = load(write([TWO | said]), columns=SIDES, want="pairs")
    assert verdict(records) == better
    assert "read as the verdict" in describe(records)
    swapped = {"chosen": "response_b", "rejected": "response_a"}
    assert verdict(load(write([TWO | said]), columns=swapped, want="pairs")) == better


@pytest.mark.parametrize(
    ("first", "numbers", "read"),
    [
        (1, [1, 2, 2], True),
        (0, [0, 1], True),
        (1, [0, 1], False),  # counted from 0, or a probability: both are in use
        (1, [1, 1], False),
        (1, [0, 1, 2], False),  # 0 may be a tie
    ],
)
def test_numbers_are_read_where_no_other_count_fits(write: Any, first: int, numbers: list[int], read: bool) -> None:
    rows = [{"prompt": f"{i}", f"out_{first}": "x", f"out_{first + 1}": "y", "label": n} for i, n in enumerate(numbers)]
    source, columns = write(rows), {"chosen": f"out_{first}", "rejected": f"out_{first + 1}"}
    if not read:
        with pytest.raises(DataError, match="column 'label' may say which response is better"):
            load(source, columns=columns, want="pairs", on_bad_row="drop")
        return
    records = load(source, columns=columns, want="pairs").records
    assert [r.chosen[0].content for r in records if isinstance(r, Judgement)] == ["xy"[n - first] for n in numbers]


@pytest.mark.parametrize(
    "said",
    [
        {"is_response_0_better": 1},
        {"response_0_wins": 0},
        {"response_0_is_better": 0},
        {"score_0": 1},
        {"rank_0": 0},
        {"score": 1},
        {"votes": 0},
        {"not_preferred": "response_0"},
        {"worse_choice": "0"},
        {"loser": "response_1"},
        {"rejected_model": "1"},
        {"winner": "not equal"},
        {"score_0": float("nan"), "score_1": 2.0},
    ],
    ids=str,
)
def test_a_yes_a_measure_and_the_name_of_the_worse_are_no_name_of_the_better(write: Any, said: dict[str, Any]) -> None:
    """`is_response_0_better: 1` was read as response_1, `not_preferred: a` as a, and a missing score as the lower."""
    rows = [
        {"prompt": f"{n}", "response_0": "x", "response_1": "y"}
        | {name: n if type(value) is int else value for name, value in said.items()}
        for n in (0, 1)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    source = write(rows) if "NaN" not in text else _table(write([]), rows)
    with pytest.raises(DataError, match="may say which response is better"):
        load(source, columns={"chosen": "response_0", "rejected": "response_1"}, want="pairs", on_bad_row="drop")


def test_a_preference_of_0_and_1_beside_responses_0_and_1_may_be_either(write: Any) -> None:
    rows = [{"prompt": f"{n}", "response_0": "x", "response_1": "y", "preference": n} for n in (0, 1)]
    sides = {"chosen": "response_0", "rejected": "response_1"}
    with pytest.raises(DataError, match=r"column 'preference' of 0 and 1 beside .* may be the number of the better"):
        load(write(rows), columns=sides, want="pairs")
    records = load(write(rows), columns=sides | {"preference": "preference"}, want="pairs").records
    assert [r.chosen[0].content for r in records if isinstance(r, Judgement)] == ["y", "x"]
    number = [{name if name != "preference" else "better": value for name, value in row.items()} for row in rows]
    records = load(write(number), columns=sides, want="pairs").records
    assert [r.chosen[0].content for r in records if isinstance(r, Judgement)] == ["x", "y"]
    rows[0]["preference"] = 0.3  # type: ignore[assignment]
    assert len(load(write(rows), columns=sides, want="pairs")) == 2


def _table(path: str, rows: list[dict[str, Any]]) -> str:
    """The rows as a table, in which a missing number is written nan."""
    file = Path(path).with_suffix(".csv")
    file.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n")
    return str(file)


def test_a_row_whose_verdict_says_nothing_contradicts_itself_or_names_another_is_refused(write: Any) -> None:
    good = [TWO | {"winner": "a", "score_a": 2, "score_b": 1}]
    for row, why in (
        (TWO | {"winner": ""}, "is empty, so it is not known"),
        (TWO | {"winner": "model_c"}, "names neither response and no tie"),
        (TWO | {"winner": "b", "score_a": 2, "score_b": 1}, "contradict each other"),
    ):
        source = write([*good, row])
        with pytest.raises(DataError, match=rf"row 2, field .*: .*{why}"):
            load(source, columns=SIDES, want="pairs")
        assert load(source, columns=SIDES, want="pairs", on_bad_row="drop").rows == (1,)


@pytest.mark.parametrize(
    "said",
    [{"winner": "rejected"}, {"score_chosen": 2, "score_rejected": 5}, {"chosen-rating": "1", "rejected-rating": "2"}],
)
def test_what_says_that_rejected_is_better_is_refused(write: Any, said: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="says that rejected is the better response; columns: "):
        load(write([PAIR | said]))


def test_equal_scores_beside_a_choice_are_noted_with_their_rows(write: Any) -> None:
    """UltraFeedback binarized has such rows: one of two responses of equal score was drawn as chosen."""
    rows = [PAIR | {"prompt": f"{n}", "score_chosen": n, "score_rejected": 1} for n in (1, 2, 1)]
    rows[2]["prompt"] = "another"
    records = load(write(rows))
    assert len(records) == 3
    assert "kept 2: score_chosen, score_rejected is the same for both responses" in describe(records)
    assert "(rows 1, 3)" in describe(records)


def test_a_negative_margin_is_refused(write: Any) -> None:
    with pytest.raises(DataError, match=r"row 1, field margin: is -1, and it is how much better chosen is"):
        load(write([PAIR | {"margin": -1}]))
    assert load(write([PAIR | {"margin": 0}])).records[0].strength == 0.0  # type: ignore[union-attr]


@pytest.mark.data
def test_llmbar_is_read_as_its_label_says(real_data: Path) -> None:
    """259 of its 509 rows came out reversed."""
    file = real_data / "llmbar" / "items.dev.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines]
    records = load(str(file), columns={"chosen": "output_1", "rejected": "output_2"}, want="pairs").records
    better = [r.chosen[0].content for r in records if isinstance(r, Judgement)]
    assert better == [row[f"output_{row['label']}"] for row in raw]
    assert {row["label"] for row in raw} == {1, 2}
