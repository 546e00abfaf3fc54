"""Every accepted convention, every bad row, every odd one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from truing.data.formats.loading import as_demonstration, describe, load, summary
from truing.errors import DataError, UserError
from truing.records import Demonstration, Judgement, Message, Messages

Write = Callable[..., str]


def turns(*said: str) -> list[dict[str, str]]:
    """`u:hi` is a user message, `a:` an assistant's, `s:` a system's, `t:` a tool's."""
    names = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    return [{"role": names.get(m[0], m[0]), "content": m[2:]} for m in said]


def told(messages: Messages) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


GOOD_BAD = {"chosen": "good", "rejected": "bad"}
PAIRS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "messages": {"prompt": turns("u:q"), "chosen": turns("a:good"), "rejected": turns("a:bad")},
    "implicit": {"chosen": turns("u:q", "a:good"), "rejected": turns("u:q", "a:bad")},
    "repeated": {"prompt": "q", "chosen": turns("u:q", "a:good"), "rejected": turns("u:q", "a:bad")},
    "transcripts": {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
    "transcript prompt": {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "good", "rejected": "bad"},
    "parts": {"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]} | GOOD_BAD,
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_every_writing_of_a_pair_is_one_judgement(write: Write, name: str) -> None:
    records = load(write([PAIRS[name]]))
    [record] = records.records
    assert isinstance(record, Judgement)
    assert told(record.prompt) == turns("u:q")
    assert (told(record.chosen), told(record.rejected)) == (turns("a:good"), turns("a:bad"))
    assert (record.verdict.kind, records.notes) == ("choice", ())
    assert records.digest == load(write([PAIRS["text"]])).digest


def test_shared_turns_are_the_prompt_and_the_rest_is_the_response(write: Write) -> None:
    row = {"chosen": turns("u:1", "a:2", "u:3", "a:4"), "rejected": turns("u:1", "a:2", "u:other", "a:4")}
    [record] = load(write([row])).records
    assert isinstance(record, Judgement)
    assert [m.content for m in record.prompt] == ["1"]
    assert [m.content for m in record.rejected] == ["2", "other", "4"]


def test_other_conventions(write: Write) -> None:
    [record] = load(write([{"prompt": "q", "completion": "a", "label": False}])).records
    assert isinstance(record, Judgement)
    assert (record.verdict.kind, record.verdict.value, len(record.responses)) == ("score", [0.0], 1)
    row = {"prompt": "q", "completions": ["one", "two"], "labels": [True, False]}
    [record] = load(write([row])).records
    assert isinstance(record, Judgement)
    assert (record.verdict.kind, record.verdict.value) == ("steps", [[1.0, -1.0]])
    assert record.responses[0][0].content == "one\ntwo"
    assert record.meta["steps"] == ["one", "two"]
    for row in (
        {"prompt": "q", "completion": "a"},
        {"prompt": "q", "response": "a"},
        {"messages": turns("u:q", "a:a")},
    ):
        [record] = load(write([row])).records
        assert isinstance(record, Demonstration)
        assert told(record.prompt + record.response) == turns("u:q", "a:a")
    row = {
        "conversations": [
            {"from": "system", "value": "s"},
            {"from": "human", "value": "q"},
            {"from": "gpt", "value": "a"},
        ]
    }
    [record] = load(write([row])).records
    assert isinstance(record, Demonstration)
    assert told(record.prompt + record.response) == turns("s:s", "u:q", "a:a")
    [record] = load(write([{"text": "once"}])).records
    assert isinstance(record, Demonstration)
    assert (record.prompt, record.response, record.meta["plain"]) == ((), (Message("assistant", "once"),), True)


def test_optional_columns(write: Write) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    more = {"margin": 0.5, "preference": 0.8, "prompt_id": "x", "group": "g", "tools": tools}
    [record] = load(write([PAIRS["text"] | more])).records
    assert isinstance(record, Judgement)
    assert (record.strength, record.verdict.probability) == (0.5, 0.8)
    assert dict(record.meta) == {"prompt_id": "x", "group": "g", "tools": tools}


def test_columns_of_other_names_can_be_mapped(write: Write) -> None:
    source = write([{"question": "q", "answer": "a", "response": "other"}])
    [record] = load(source, columns={"prompt": "question", "response": "answer"}).records
    assert told(record.prompt) == turns("u:q")
    assert told(record.response) == turns("a:a")  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"unknown column 'questoin'. Did you mean 'question'"):
        load(source, columns={"prompt": "questoin"})
    with pytest.raises(UserError, match=r"unknown column role 'promt'. Did you mean 'prompt'"):
        load(source, columns={"promt": "question"})


def test_a_csv_gives_what_the_same_jsonl_gives(write: Write) -> None:
    text = "prompt,chosen,rejected,margin\nq,good,bad,0.5\n"
    assert load(write(text, "a.csv")).digest == load(write([PAIRS["text"] | {"margin": 0.5}])).digest
    text = "prompt,completion,label\nq,a,TRUE\n"
    assert load(write(text, "a.csv")).records[0].verdict.value == [1.0]  # type: ignore[union-attr]


def pair(**change: Any) -> dict[str, Any]:
    return PAIRS["text"] | change


BAD: list[tuple[dict[str, Any], str]] = [
    (pair(chosen=""), "field chosen: is empty"),
    (pair(chosen=" \n"), "field chosen: is blank"),
    (pair(rejected=None), "field rejected: is null"),
    (pair(rejected=3), "field rejected: is a number, not text"),
    (pair(prompt=""), "field prompt: is empty"),
    (pair(prompt={"role": "user"}), "field prompt: is an object, not text"),
    (pair(prompt=[]), "field prompt: is an empty list of messages"),
    (pair(prompt=["q"]), r"field prompt\[0\]: is text, not a message with role and content"),
    (pair(chosen="bad"), "field chosen: is the same as rejected"),
    (pair(chosen=turns("a:")), "field chosen: is empty: the response has no text"),
    (pair(chosen=[{"role": "asistant", "content": "x"}]), "Did you mean 'assistant'"),
    (pair(chosen=[{"role": 1, "content": "x"}]), r"field chosen\[0\].role: is a number, not a role"),
    (pair(chosen=[{"role": "assistant"}]), r"field chosen\[0\].content: is missing; the message has role"),
    (pair(chosen=[{"role": "assistant", "content": None}]), r"field chosen\[0\].content: is null"),
    (pair(chosen=[{"role": "assistant", "content": 1}]), r"field chosen\[0\].content: is a number, not text"),
    (pair(chosen=[{"role": "assistant", "content": "", "tool_calls": [1]}]), "calls of tools are not read"),
    (pair(chosen=turns("u:x", "a:y")), "starts with a message of role 'user', not 'assistant'"),
    (pair(chosen=turns("a:x", "u:y")), "ends with a message of role 'user', not 'assistant'"),
    (pair(chosen=turns("a:x", "s:y", "a:z")), "has a system message inside the response"),
    (pair(prompt=turns("a:x", "u:y")), "field prompt: the assistant speaks first"),
    (pair(prompt=turns("u:x", "a:y")), "field prompt: ends with an assistant message, but the response follows"),
    (pair(prompt=turns("u:x", "s:y", "u:z")), "message 2 is a system message; only the first may be"),
    (pair(prompt=turns("u:x", "t:y")), "message 2 is a tool's, but no assistant message stands before it"),
    (pair(prompt=turns("u:x", "a:y", "u: ")), r"message 3 \(user\) is empty"),
    (pair(prompt=turns("s:x")), "field prompt: has no user message"),
    (pair(margin="big"), "field margin: is 'big', not a number"),
    (pair(preference=1.5), "field preference: is 1.5, not between 0 and 1"),
    (PAIRS["repeated"] | {"prompt": "other"}, "field prompt: is not what chosen and rejected begin with"),
    ({"chosen": turns("u:q", "a:x"), "rejected": turns("u:p", "a:y")}, "shares no prompt with rejected"),
    ({"chosen": "x", "rejected": "y"}, "there is no prompt: no column 'prompt', and this text is no transcript"),
    ({"prompt": "q", "completion": "a", "label": "good"}, "field label: is 'good', not true or false"),
    ({"prompt": "q", "chosen": "a", "rejected": "b", "margin": 10**350}, "field margin: is '1000"),
    ({"prompt": "q", "completions": ["a"], "labels": [True, False]}, "field labels: has 2 entries for 1 steps"),
    ({"prompt": "q", "completions": [], "labels": []}, "field completions: is an empty list of steps"),
    ({"prompt": "q", "completions": "a", "labels": [True]}, "completions: is text, not a list with one entry per step"),
    ({"prompt": "q", "completions": ["a", " "], "labels": [1, 0]}, r"field completions\[1\]: is blank"),
    ({"messages": turns("u:q")}, "field messages: has no assistant message to learn from"),
    ({"messages": turns("a:q", "u:x", "a:z")}, "field messages: the assistant speaks first"),
    ({"messages": turns("u:q", "a:", "u:x", "a:y")}, "the response has no text"),
    ({"conversations": [{"from": "humann", "value": "x"}]}, "unknown role 'humann'. Did you mean 'human'"),
    ({"text": None}, "field text: is null"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_row_is_an_error_with_its_place_or_a_note(write: Write, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(write([row]))
    assert "rows.jsonl, row 1, field" in str(caught.value)
    assert "or set on_bad_row: drop" in str(caught.value)
    with pytest.raises(DataError, match="no usable row is left: all 1 were dropped"):
        load(write([row]), on_bad_row="drop")


def test_bad_rows_are_listed_together_or_dropped_and_noted(write: Write) -> None:
    rows = [pair(prompt=f"q{i}", chosen="" if i % 2 else "good") for i in range(60)]
    source = write("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    with pytest.raises(DataError, match="31 rows cannot be used") as caught:
        load(source)
    lines = str(caught.value).splitlines()
    assert lines[1:3] == [f"  rows.jsonl, row {row}, field chosen: is empty" for row in (2, 4)]
    assert lines[21] == "  and 11 more"
    records = load(source, on_bad_row="drop")
    assert (len(records), len(records.notes), records.rows[:3]) == (30, 31, (1, 3, 5))
    assert {note.action for note in records.notes} == {"dropped"}
    facts = summary(records)
    assert (facts["read"], facts["usable"]) == (61, 30)
    assert "dropped 30: chosen is empty (rows 2, 4, 6," in describe(records)
    assert "40 and 10 more)" in describe(records)


@pytest.mark.parametrize("label", [0, "false", "FALSE", False])
def test_an_undesirable_response_is_no_demonstration(write: Write, label: Any) -> None:
    with pytest.raises(DataError, match="the response is labelled undesirable"):
        load(write([{"prompt": "q", "completion": "a", "label": label}]), want="demonstrations")


def test_a_row_nested_without_end_is_a_bad_row(write: Write) -> None:
    deep = "[" * 700 + "]" * 700
    source = write('{"prompt": "q", "response": "a"}\n{"prompt": "q", "response": "a", "more": ' + deep + "}\n")
    found = load(source, on_bad_row="drop")
    assert found.rows == (1,)
    assert [(n.row, n.problem) for n in found.notes] == [(2, "is nested more than 100 deep")]


def test_a_transcript_that_the_user_ends_is_a_conversation(write: Write) -> None:
    row = {"prompt": "\n\nHuman: one\n\nAssistant: two\n\nHuman: three", "response": "four"}
    [record] = load(write([row])).records
    assert told(record.prompt) == turns("u:one", "a:two", "u:three")


def test_a_missing_column_names_the_nearest(write: Write) -> None:
    with pytest.raises(DataError) as caught:
        load(write([{"prompt": "q", "choosen": "a", "rejected": "b"}]))
    text = str(caught.value)
    assert "missing column 'chosen'; found columns: prompt, choosen, rejected" in text
    assert "Did you mean 'chosen' by 'choosen'?" in text
    assert "Accepted conventions: prompt/chosen/rejected, " in text
    with pytest.raises(DataError, match="row 2, field chosen: missing column 'chosen'"):
        load(write([PAIRS["text"], {"prompt": "q", "rejected": "b"}]))


def test_the_wrong_kind_of_data_is_said(write: Write) -> None:
    with pytest.raises(DataError, match=r"has pairs \(prompt/chosen/rejected\), but demonstrations are wanted"):
        load(write([PAIRS["text"]]), want="demonstrations")
    assert len(load(write([PAIRS["text"]]), want="demonstrations", columns={"response": "chosen"})) == 1
    with pytest.raises(DataError, match=r"has demonstrations \(messages\), but pairs are wanted"):
        load(write([{"messages": turns("u:q", "a:a")}]), want="pairs")
    with pytest.raises(UserError, match=r"unknown value of on_bad_row 'dorp'. Did you mean 'drop'"):
        load(write([PAIRS["text"]]), on_bad_row="dorp")  # type: ignore[arg-type]


def test_odd_rows_are_used_and_noted(write: Write) -> None:
    rows: list[dict[str, Any]] = [
        pair(prompt=turns("u:one", "u:two")),
        pair(chosen=turns("a:x", "a:y")),
        pair(chosen=turns("a:x", "a: ")),
        pair(),
        pair(),
        pair(prompt=turns("s:", "u:q")),
    ]
    records = load(write(rows))
    assert records.records[0].prompt == (Message("user", "one\n\ntwo"),)
    assert records.records[1].chosen == (Message("assistant", "x\n\ny"),)  # type: ignore[union-attr]
    assert records.records[2].chosen == (Message("assistant", "x"),)  # type: ignore[union-attr]
    assert [(n.row, n.field, n.problem, n.action) for n in records.notes] == [
        (1, "prompt", "role 'user' twice in a row", "joined"),
        (2, "chosen", "reply is not one message", "joined"),
        (3, "chosen", "reply is not one message, and part of it is empty", "joined"),
        (5, "", "duplicate of row 4", "kept"),
        (6, "prompt", "an empty system message in the prompt", "kept"),
    ]


def test_a_conversation_teaches_all_turns_or_the_last(write: Write) -> None:
    source = write([{"messages": turns("u:1", "a:2", "u:3", "a:4", "u:5")}])
    [every], [last] = load(source).records, load(source, turns="last").records
    assert isinstance(every, Demonstration) and isinstance(last, Demonstration)
    assert [m.content for m in every.response] == ["2", "3", "4"]
    assert [m.content for m in last.prompt] == ["1", "2", "3"]
    [note] = load(source).notes
    assert (note.problem, note.action) == ("ends with role 'user', which nothing answers", "truncated")
    with pytest.raises(DataError, match="no assistant message to learn from"):
        as_demonstration((Message("user", "x"),))


@pytest.mark.data
def test_real_pairs(real_data: Path) -> None:
    source = str(real_data / "hh_harmless_base_test" / "pairs.dev.jsonl.gz")
    with pytest.raises(DataError, match=r"3 rows cannot be used\n.*row 55, field chosen: is empty"):
        load(source)
    records = load(source, want="pairs", on_bad_row="drop")
    facts = summary(records)
    assert (facts["read"], facts["usable"]) == (1594, 1591)
    assert [(n["action"], n["field"], n["rows"]) for n in facts["notes"]] == [
        ("dropped", "chosen", [55, 350, 776]),
        ("joined", "chosen", [884, 1177, 1418]),
        ("joined", "prompt", [455, 924, 1287]),
        ("joined", "rejected", [1358]),
    ]


@pytest.mark.data
def test_real_demonstrations(real_data: Path) -> None:
    assert len(load(str(real_data / "dolly_hhrlhf_small" / "sft.dev.jsonl.gz"), want="demonstrations")) == 699
    source = str(real_data / "gsm8k" / "train.dev.jsonl.gz")
    assert len(load(source, columns={"prompt": "question", "response": "answer"})) == 5234


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TRUING_REQUIRE_DATA", "1")])
def test_missing_real_data_skips_for_a_stranger_and_fails_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, find_real_data: Callable[[], Path]
) -> None:
    for variable in ("CI", "TRUING_REQUIRE_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TRUING_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(pytest.skip.Exception, match=r"real data not found at '.*nowhere'; set TRUING_DATA"):
        find_real_data()
    monkeypatch.setenv(name, value)
    with pytest.raises(pytest.fail.Exception, match="real data not found"):
        find_real_data()
