"""Lists that a table holds as text: what pandas, numpy and JSON write is read as what it was, and what only looks like
it is refused. Never are braces and quotation marks learned as words in silence."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy
import pytest

from truing.data.formats.loading import describe, load
from truing.data.formats.written import python
from truing.errors import DataError
from truing.records import Demonstration, Judgement

ASK = [{"role": "user", "content": 'it\'s "2 + 2"?\nQuick!'}]
GOOD, BAD = [{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "'5'\\n"}]


def array(messages: list[Any]) -> Any:
    held = numpy.empty(len(messages), dtype=object)
    held[:] = messages
    return held


WRITERS = {
    "json": json.dumps,
    "python": repr,
    "numpy str": lambda messages: str(array(messages)),
    "numpy repr": lambda messages: repr(array(messages)),
}


def table(*rows: dict[str, Any]) -> bytes:
    """A CSV file of these rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize("writer", WRITERS)
def test_pairs_in_a_table_are_what_they_were(write: Any, writer: str) -> None:
    show = WRITERS[writer]
    row = {"prompt": ASK, "chosen": GOOD, "rejected": BAD}
    [record] = load(write(table({name: show(value) for name, value in row.items()}), "x.csv")).records
    [same] = load(write([row])).records
    assert isinstance(record, Judgement)
    assert record == same
    whole = {"chosen": ASK + GOOD, "rejected": ASK + BAD}
    [record] = load(write(table({name: show(value) for name, value in whole.items()}), "x.csv")).records
    assert record == same


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_conversations_in_a_table_are_what_they_were(write: Any, writer: str, column: str) -> None:
    talk = ASK + GOOD
    if column == "conversations":
        talk = [{"from": m["role"], "value": m["content"]} for m in talk]
    [record] = load(write(table({column: WRITERS[writer](talk)}), "x.csv")).records
    assert isinstance(record, Demonstration)
    assert [m.content for m in record.prompt + record.response] == [ASK[0]["content"], "4"]
    [again] = load(write([{column: WRITERS[writer](talk)}])).records  # the text of a list, in JSON Lines
    assert again == record


def test_numbers_and_texts_of_arrays_are_read(write: Any) -> None:
    row = {"prompt": "q", "responses": str(numpy.array(["a", "b"])), "scores": str(numpy.array([1.0, 2.5]))}
    [record] = load(write(table(row), "x.csv")).records
    assert isinstance(record, Judgement)
    assert [r[0].content for r in record.responses] == ["a", "b"]
    assert record.verdict.value == [1.0, 2.5]


@pytest.mark.parametrize(
    "text",
    [
        "[{'role': 'user', 'content': 'cut off",
        "[{'role': 'user', 'content': exit()}]",
        "[{'role': 'user', 'content': 'a'} ... {'role': 'user', 'content': 'b'}]",
        "[{'role': 'user', 'content': f'{1}'}]",
        "[{'role': 'user', 'content': 9 ** 9}]",
        "[{'role': 'user', 'note': 'no content'}]",
        "[{'role': 'user', 'content': " + "[" * 200 + "]" * 200 + "}]",
    ],
)
def test_what_only_looks_like_messages_is_refused(write: Any, text: str) -> None:
    row = {"prompt": text, "chosen": "a", "rejected": "b"}
    for source in (write(table(row), "x.csv"), write([row])):
        with pytest.raises(DataError, match="row 1, field prompt: looks like a list of messages and cannot be read"):
            load(source)


def test_the_text_of_messages_is_no_words_in_json_lines(write: Any) -> None:
    row = {"prompt": "q", "response": repr(GOOD)}
    with pytest.raises(DataError, match="field response: is text that writes a list of messages; give it as a list"):
        load(write([row]))


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3]",
        "['a', 1]",
        "['a'] + ['b']",
        "['a', 'b'] is a list",
        "[{'name': 'role', 'value': 1}]",
        "[{'name': 'Bob'}]",
        "{'role': 1}",
        "{'role': 'user', 'content': 'q'} is a message",
        repr(ASK) + " What is wrong with this?",
    ],
)
def test_other_lists_are_words(write: Any, text: str) -> None:
    for source in (
        write(table({"prompt": text, "response": text}), "x.csv"),
        write([{"prompt": text, "response": "a"}]),
    ):
        [record] = load(source).records
        assert record.prompt[0].content == text


def test_nothing_in_a_cell_is_run() -> None:
    for text in ("__import__('os')", "array([1], dtype=object).x", "[x for x in [1]]", "1j", "b'a'", "(1, 2)", "{1}"):
        with pytest.raises(ValueError, match=r"\w"):
            python(text)
    with pytest.raises(ValueError, match="nested"):
        python("[" * 5000)
    with pytest.raises(ValueError, match="no number"):
        python("1" * 5000)


ARENA = {"prompt": ["one", "two"], "response_a": ["A1", "A2"], "response_b": ["B1", "B2"], "winner": "model_b"}
SIDES = {"chosen": "response_a", "rejected": "response_b"}


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}


def test_turns_as_texts_are_a_conversation(write: Any) -> None:
    """Arena-55k: prompt and responses are JSON lists, a text a turn."""
    for source in (write(table(as_json(ARENA)), "x.csv"), write([as_json(ARENA)]), write([ARENA])):
        [record] = load(source, want="pairs", columns=SIDES).records
        assert isinstance(record, Judgement)
        assert [(m.role, m.content) for m in record.prompt] == [("user", "one")]
        assert [(m.role, m.content) for m in record.chosen] == [
            ("assistant", "B1"),
            ("user", "two"),
            ("assistant", "B2"),
        ]


@pytest.mark.parametrize("writer", WRITERS)
def test_turns_in_a_table_are_what_they_were(write: Any, writer: str) -> None:
    """What to_csv makes of Arena once its lists are lists: they became the words of prompt and responses."""
    shown = {name: WRITERS[writer](value) if isinstance(value, list) else value for name, value in ARENA.items()}
    [record] = load(write(table(shown), "x.csv"), want="pairs", columns=SIDES).records
    [same] = load(write([ARENA]), want="pairs", columns=SIDES).records
    assert record == same


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("key", ["id", "name", "weight"])
def test_messages_whose_first_key_is_another_are_messages(write: Any, writer: str, key: str) -> None:
    """A file that puts another key before `role` had its braces learned as words."""
    row = {"prompt": ASK, "chosen": GOOD, "rejected": BAD}
    shown = {name: WRITERS[writer]([{key: None, **turn} for turn in turns]) for name, turns in row.items()}
    [record] = load(write(table(shown), "x.csv")).records
    [same] = load(write([row])).records
    assert isinstance(record, Judgement)
    assert isinstance(same, Judgement)
    assert (record.prompt, record.responses) == (same.prompt, same.responses)


@pytest.mark.parametrize("shown", [repr(GOOD[0]), json.dumps(GOOD[0])])
def test_a_lone_message_as_text_is_no_words(write: Any, shown: str) -> None:
    row = {"prompt": "q", "response": shown}
    for source in (write(table(row), "x.csv"), write([row])):
        with pytest.raises(DataError, match="row 1, field response: is text that writes a message; give its content"):
            load(source)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"response_b": ["B1"]}, "field rejected: has 1 turns where the prompt has 2"),
        ({"response_b": "B1"}, "field rejected: is no list of turns, and the prompt is one"),
        ({"response_b": ["B1", None]}, "field rejected.*: is null"),
    ],
)
def test_turns_that_do_not_fit_are_refused(write: Any, change: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        load(write([as_json(ARENA | {"winner": "model_a"} | change)]), want="pairs", columns=SIDES)


def test_prompts_as_lists_of_turns(write: Any) -> None:
    [record] = load(write(table({"prompt": '["one"]'}), "x.csv"), want="prompts").records
    assert record.prompt[0].content == "one"
    with pytest.raises(DataError, match="field prompt: holds 2 turns, and no responses between them"):
        load(write(table({"prompt": '["one", "two"]'}), "x.csv"), want="prompts")


def test_a_list_among_plain_prompts_is_words_and_noted(write: Any) -> None:
    records = load(write([{"prompt": '["a", "b"]', "response": "x"}, {"prompt": "q", "response": '["c"]'}]))
    assert records.records[0].prompt[0].content == '["a", "b"]'
    assert "kept 1: prompt reads like a list of turns, and is taken for words (row 1)" in describe(records)
