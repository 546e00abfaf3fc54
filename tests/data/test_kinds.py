"""Columns of scores, labels, rankings, comparisons and steps: what a row becomes, and which rows are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from truing import world
from truing.data.formats.loading import as_row, load, record_json
from truing.errors import DataError, UserError
from truing.records import Judgement, Message, Verdict

Write = Callable[..., str]
ONE = {"prompt": "q", "response": "a"}
MANY = {"prompt": "q", "responses": ["a", "b", "c"]}
STEPS = {"prompt": "q", "completions": ["one", "two", "three"]}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}

GOOD: list[tuple[dict[str, Any], str, Any]] = [
    (ONE | {"score": 3}, "score", [3.0]),
    (ONE | {"score": "-2.5e1"}, "score", [-25.0]),
    (ONE | {"score": [4, 5, "3"]}, "score", [4.0]),
    ({"prompt": "q", "completion": "a", "score": 1}, "score", [1.0]),
    (ONE | {"scores": {"clear": 2, "true": [1, 2], "kind": None}}, "score", [{"clear": 2.0, "true": 1.5}]),
    ({"prompt": "q", "completion": "a", "scores": {"clear": "2"}}, "score", [{"clear": 2.0}]),
    (MANY | {"scores": [1, "2", [3, 4]]}, "score", [1.0, 2.0, 3.5]),
    (MANY | {"scores": [{"x": 1}, {"x": 2}, {"y": 3}]}, "score", [{"x": 1.0}, {"x": 2.0}, {"y": 3.0}]),
    (MANY | {"labels": [True, 0, "false"]}, "score", [1.0, 0.0, 0.0]),
    (MANY | {"ranking": [2, 0.0, "1"]}, "ranking", [2, 0, 1]),
    (MANY | {"comparisons": [[0, 1, 1], [2, 1, 0.5], [0, 1, 0]]}, "comparisons", [(0, 1, 1.0), (2, 1, 0.5), (0, 1, 0.0)]),
    (STEPS | {"ratings": [1, "0", -1]}, "steps", [[1.0, 0.0, -1.0]]),
    (STEPS | {"labels": [1, "false", True]}, "steps", [[1.0, -1.0, 1.0]]),
    (PAIR | {"tie": True}, "tie", None),
    (PAIR | {"preference": 0.5}, "tie", None),
    (PAIR | {"tie": "false", "preference": ""}, "choice", 0),
    (PAIR | {"tie": None}, "choice", 0),
]  # fmt: skip


@pytest.mark.parametrize(("row", "kind", "value"), GOOD, ids=lambda v: str(v)[:40])
def test_what_a_row_becomes_and_that_it_is_written_as_it_is_read(
    write: Write, row: dict[str, Any], kind: str, value: Any
) -> None:
    loaded = load(write([row]), want="pairs")
    [record] = loaded.records
    assert isinstance(record, Judgement)
    assert record.verdict == Verdict(kind, value) and not loaded.notes  # type: ignore[arg-type]
    wanted = row.get("responses", [row.get("response", row.get("completion"))])
    if "chosen" not in row and "completions" not in row:
        assert [r[0].content for r in record.responses] == wanted
    again = load(write([as_row(record)], "again.jsonl")).records[0]
    assert record_json(again) | {"meta": 0} == record_json(record) | {"meta": 0}
    assert again.meta == {k: v for k, v in record.meta.items() if k != "spread"}


def test_the_spread_of_raters_is_kept(write: Write) -> None:
    rows = [
        ONE | {"scores": {"clear": [1, 2, 3], "true": 5, "kind": [4]}},
        ONE | {"scores": [1, 3]},
        ONE | {"scores": {"clear": 2}},
    ]
    spreads = [r.meta.get("spread") for r in load(write(rows)).records]
    assert spreads == [[{"clear": 1.0}], [pytest.approx(2**0.5)], None]
    [record] = load(write([MANY | {"scores": [[1, 3], 2, 3]}])).records
    assert record.meta["spread"] == [pytest.approx(2**0.5), None, None]


def test_safety_travels_with_a_pair(write: Write) -> None:
    rows = [PAIR | {"chosen_safe": True, "rejected_safe": "0"}, PAIR | {"chosen_safe": None}]
    one, none = load(write(rows)).records
    assert dict(one.meta) == {"chosen_safe": True, "rejected_safe": False} and not none.meta
    assert as_row(one)["rejected_safe"] is False


def test_a_soft_label_below_one_half_is_noted_and_equal_responses_are(write: Write) -> None:
    rows = [PAIR | {"preference": 0.4}, {"prompt": "q", "responses": ["a", "a"], "labels": [1, 1]}]
    [note] = load(write(rows[:1])).notes
    assert (note.field, note.action) == ("preference", "kept") and "were swapped" in note.problem
    safe = {"chosen_safe": True, "rejected_safe": False}
    [plain], [turned] = (load(write([PAIR | safe | more])).records for more in ({}, {"preference": 0.25}))
    assert (turned.chosen, turned.rejected) == (plain.rejected, plain.chosen) and turned.verdict.probability == 0.75
    assert dict(turned.meta) == {"chosen_safe": False, "rejected_safe": True}
    with pytest.raises(DataError, match="margin: is 2, and preference"):
        load(write([PAIR | {"preference": 0.25, "margin": 2}]))
    [note] = load(write(rows[1:])).notes
    assert (note.field, note.problem) == ("responses", "holds the same response twice")


BAD: list[tuple[dict[str, Any], str]] = [
    (ONE | {"score": None}, "field score: is null"),
    (ONE | {"score": ""}, "field score: is '', not a number"),
    (ONE | {"score": True}, "field score: is 'True', not a number"),
    (ONE | {"score": "NaN"}, "field score: is 'NaN', not a number"),
    (ONE | {"score": "1e999"}, "field score: is '1e999', not a number"),
    (ONE | {"score": []}, "field score: is an empty list of raters"),
    (ONE | {"score": [1, None]}, r"field score\[1\]: is null"),
    (ONE | {"score": [1e308, 1e308]}, "field score: holds numbers too large to average"),
    (ONE | {"scores": {}}, "field scores: names no score"),
    (ONE | {"scores": {"clear": None}}, "field scores: names no score"),
    (ONE | {"scores": {"": 1}}, "field scores: has a score without a name"),
    (ONE | {"scores": {"clear": "good"}}, "field scores.clear: is 'good', not a number"),
    (ONE | {"scores": {"clear": [1, "x"]}}, r"field scores.clear\[1\]: is 'x', not a number"),
    (MANY | {"scores": 3}, "field scores: is a number, not a list with one entry per response"),
    (MANY | {"scores": [1, 2]}, "field scores: has 2 entries for 3 responses"),
    (MANY | {"scores": [1, 2, "nan"]}, r"field scores\[2\]: is 'nan', not a number"),
    (MANY | {"scores": [1, 2, {"x": 3}]}, "field scores: are by name for some responses and single numbers for others"),
    (MANY | {"labels": [1, 0, 2]}, r"field labels\[2\]: is 2, not true or false"),
    (MANY | {"labels": None}, "field labels: is null"),
    (MANY | {"labels": [1]}, "field labels: has 1 entries for 3 responses"),
    (MANY | {"ranking": [0, 1]}, "field ranking: leaves out response 2"),
    (MANY | {"ranking": [0, 1, 1]}, "field ranking: names response 1 twice; a ranking has no ties"),
    (MANY | {"ranking": [1, 2, 3]}, r"ranking\[2\]: is 3, and the 3 responses are counted from 0 to 2"),
    (MANY | {"ranking": [0, 1, -1]}, r"ranking\[2\]: is -1, and the 3 responses are counted from 0 to 2"),
    (MANY | {"ranking": [0, 1, 1.5]}, r"ranking\[2\]: is 1.5, not the index of a response"),
    (MANY | {"ranking": [0, 1, True]}, r"ranking\[2\]: is 'True', not a number"),
    (MANY | {"comparisons": []}, "field comparisons: is an empty list of verdicts"),
    (MANY | {"comparisons": [[0, 1]]}, r"comparisons\[0\]: is not \[i, j, p\]"),
    (MANY | {"comparisons": [[0, 1, 1], [1, 1, 1]]}, r"comparisons\[1\]: compares response 1 with itself"),
    (MANY | {"comparisons": [[0, 3, 1]]}, r"comparisons\[0\]\[1\]: is 3, and the 3 responses are counted"),
    (MANY | {"comparisons": [[0, 1, 2]]}, r"comparisons\[0\]\[2\]: is 2, not between 0 and 1"),
    (MANY | {"comparisons": [[0, 1, None]]}, r"comparisons\[0\]\[2\]: is null"),
    (MANY | {"responses": ["a"], "ranking": [0]}, "field responses: has 1 entry, and what is compared is two or more"),
    (MANY | {"responses": ["a"], "comparisons": [[0, 0, 1]]}, "field responses: has 1 entry"),
    (MANY | {"responses": [], "scores": []}, "field responses: is an empty list of responses"),
    (MANY | {"responses": "a", "scores": [1]}, "responses: is text, not a list with one entry per response"),
    (MANY | {"responses": ["a", "", "c"], "labels": [1, 0, 0]}, r"field responses\[1\]: is empty"),
    (MANY | {"responses": ["a", True, "c"], "labels": [1, 0, 0]}, r"responses\[1\]: is true or false, not text"),
    (STEPS | {"ratings": [1, 0, 2]}, r"field ratings\[2\]: is 2, not 1, 0 \(neutral\) or -1"),
    (STEPS | {"ratings": [1, None, 1]}, r"field ratings\[1\]: is null"),
    (STEPS | {"ratings": [1, 1]}, "field ratings: has 2 entries for 3 steps"),
    (STEPS | {"labels": [1, 0, -1]}, r"field labels\[2\]: is -1, not true or false"),
    (PAIR | {"tie": "perhaps"}, "field tie: is 'perhaps', not true or false"),
    (PAIR | {"tie": True, "preference": 0.9}, "field preference: is 0.9, and the row is a tie"),
    (PAIR | {"tie": 1, "margin": 2}, "field margin: is 2, and the row is a tie"),
    (PAIR | {"preference": 0.5, "margin": 2}, "field margin: is 2, and the row is a tie"),
    (PAIR | {"chosen_safe": "very"}, "field chosen_safe: is 'very', not true or false"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_row_is_an_error_with_its_place(write: Write, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(write([row]))
    assert "rows.jsonl, row 1, field" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("prompt responses rankng", "Did you mean 'ranking' by 'rankng'"),
        ("prompt responses score", "Did you mean 'response' by 'responses'"),
        ("prompt resposes labels", "Did you mean 'responses' by 'resposes'"),
        ("prompt responses comparison", "Did you mean 'comparisons' by 'comparison'"),
        ("prompt completions rating", "Did you mean 'ratings' by 'rating'"),
        ("promt response score", "Did you mean 'prompt' by 'promt'"),
    ],
)
def test_a_misspelt_column_is_told_from_its_nearest(write: Write, columns: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        load(write([dict.fromkeys(columns.split(), "x")]))
    assert said in str(caught.value)


def test_a_row_without_the_column_of_the_others_is_named(write: Write) -> None:
    with pytest.raises(DataError, match=r"row 2, field score: missing column 'score' .*did you mean 'scor'"):
        load(write([ONE | {"score": 1}, ONE | {"scor": 1}]))


def test_columns_of_other_names_and_csv(write: Write) -> None:
    [record] = load(write([{"q": "q", "a": "a", "stars": [4, 5]}]), columns={"prompt": "q", "response": "a", "score": "stars"}).records  # fmt: skip
    assert record.verdict == Verdict("score", [4.5])  # type: ignore[union-attr]
    text = 'prompt,responses,ranking\nq,"[""a"", ""b""]","[1, 0]"\n'
    assert load(write(text, "a.csv")).records[0].verdict == Verdict("ranking", [1, 0])  # type: ignore[union-attr]
    text = 'prompt,response,scores\nq,a,"{""clear"": 2}"\nq,b,"[1, 2]"\n'
    values = [r.verdict.value for r in load(write(text, "b.csv")).records]  # type: ignore[union-attr]
    assert values == [[{"clear": 2.0}], [1.5]]
    text = "prompt,response,score\nq,a,2.5\n"
    assert load(write(text, "c.csv")).records[0].verdict == Verdict("score", [2.5])  # type: ignore[union-attr]


@pytest.mark.parametrize("name", world.DATASETS)
def test_the_world_can_be_written_to_a_file_and_read_again(write: Write, name: str) -> None:
    made = world.records(f"world:{name}?n=10" + ("&ties=0.3" if name == "comparisons" else ""))
    again = load(write([as_row(record) for record in made.records]))
    kept = ("chosen_safe", "rejected_safe", "steps")

    def said(record: Any) -> dict[str, Any]:
        facts = record_json(record)
        return facts | {"rater": "", "meta": {k: v for k, v in record.meta.items() if k in kept and v is not None}}

    def ordered(record: Any) -> dict[str, Any]:
        facts = said(record)
        if facts.get("verdict", [""])[0] == "choice" and facts["verdict"][1]:
            facts |= {"responses": facts["responses"][::-1], "verdict": ["choice", 0, facts["verdict"][2]]}
        return facts

    assert [said(r) for r in again.records] == [ordered(r) for r in made.records]


def test_what_no_column_holds_is_said() -> None:
    prompt, said = (Message("user", "q"),), (Message("assistant", "a"),)
    with pytest.raises(UserError, match="a choice among 3 responses has no columns"):
        as_row(Judgement("id", prompt, (said,) * 3, Verdict("choice", 1)))
