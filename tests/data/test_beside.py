"""Columns beside a convention's own: what changes a row is read or refused by name, what changes nothing is counted."""

from __future__ import annotations

from typing import Any

import pytest

from truing.data.formats.loading import describe, load, summary
from truing.errors import DataError
from truing.records import Demonstration, Judgement

ASK = {"prompt": "and the dog", "response": "no"}
PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}
TALK = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}
TURNS = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}


def prompt(record: Any) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in record.prompt]


@pytest.mark.parametrize("name", ["system", "system_prompt", "systemInstruction", "System Message"])
@pytest.mark.parametrize("row", [ASK, PAIR, TALK, TURNS, {"prompt": "q"}], ids=lambda row: "/".join(row))
def test_a_system_column_is_the_system_message(write: Any, row: dict[str, Any], name: str) -> None:
    want: Any = "prompts" if list(row) == ["prompt"] else "any"
    records = load(write([row | {name: "Be kind."}, row | {name: ""}, row | {name: None}]), want=want)
    assert prompt(records.records[0])[0] == ("system", "Be kind.")
    assert prompt(records.records[1])[0][0] == "user"
    assert f"column '{name}' read as the system message (1 row)" in describe(records)
    one = records.records[0]
    assert not isinstance(one, Judgement) or one.prompt_id != records.records[1].prompt_id  # type: ignore[union-attr]


def test_two_system_messages_must_agree(write: Any) -> None:
    row = {"messages": [{"role": "system", "content": "Be kind."}, *TURNS["messages"]], "system": "Be kind. "}
    assert prompt(load(write([row])).records[0])[0] == ("system", "Be kind.")
    with pytest.raises(DataError, match="row 1, field system: is another system message than the one"):
        load(write([row | {"system": "Be rude."}]))


HISTORIES = [
    [["the cat", "yes"]],
    [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "yes"}],
    [{"from": "human", "value": "the cat"}, {"from": "gpt", "value": "yes"}],
    '[["the cat", "yes"]]',
]


@pytest.mark.parametrize("history", HISTORIES, ids=str)
def test_history_is_earlier_turns_behind_the_system_message(write: Any, history: Any) -> None:
    [record] = load(write([ASK | {"history": history, "system": "s"}])).records
    assert isinstance(record, Demonstration)
    assert prompt(record) == [("system", "s"), ("user", "the cat"), ("assistant", "yes"), ("user", "and the dog")]
    assert [m.content for m in record.response] == ["no"]
    for empty in (None, [], "", "  "):
        assert len(load(write([ASK | {"history": empty}])).records[0].prompt) == 1


@pytest.mark.parametrize("history", ["earlier we spoke", ["a", "b"], [["a", "b", "c"]], {"a": "b"}], ids=str)
def test_a_history_of_another_form_is_refused(write: Any, history: Any) -> None:
    with pytest.raises(DataError, match=r"row 1, field history: is .*columns: \{history: null\} leaves the column out"):
        load(write([ASK | {"history": history}]))
    assert prompt(load(write([ASK | {"history": history}]), columns={"history": None}).records[0])[0][0] == "user"


ALPACA = {"instruction": "Say it in French.", "input": "the red cat", "output": "le chat rouge"}
MAPPED = {"prompt": "instruction", "response": "output"}


def test_the_input_of_an_instruction_is_joined_to_it(write: Any) -> None:
    source = write([ALPACA, ALPACA | {"input": ""}])
    for records in (load(source), load(source, columns=MAPPED)):
        assert prompt(records.records[0]) == [("user", "Say it in French.\nthe red cat")]
        assert prompt(records.records[1]) == [("user", "Say it in French.")]
        assert "column 'input' joined to the prompt (1 row)" in describe(records)
    turned = load(source, columns={"prompt": "input", "response": "output"}, on_bad_row="drop").records
    assert prompt(turned[0]) == [("user", "Say it in French.\nthe red cat")]
    dolly = {"instruction": "Who?", "context": "Ann came.", "response": "Ann"}
    assert prompt(load(write([dolly])).records[0]) == [("user", "Who?\nAnn came.")]
    pair = {"instruction": "i", "input": "x", "chosen": "a", "rejected": "b"}
    assert prompt(load(write([pair]), columns={"prompt": "instruction"}).records[0]) == [("user", "i\nx")]


@pytest.mark.parametrize("name", ["input", "context", "instruction", "passage", "documents"])
def test_what_belongs_to_a_prompt_in_an_unknown_way_stands_in_it_or_is_refused(write: Any, name: str) -> None:
    value: Any = [{"text": "Ann came."}] if name == "documents" else "Ann came."
    within = {"prompt": "Read:  Ann\ncame. Who?", "response": "Ann", name: value}
    assert prompt(load(write([within])).records[0]) == [("user", "Read:  Ann\ncame. Who?")]
    with pytest.raises(DataError, match=f"field {name}: is not a part of the prompt"):
        load(write([ASK | {name: value}]))


@pytest.mark.parametrize("name", ["images", "image", "videos", "audio", "image_url", "imagePath"])
def test_what_is_no_text_is_refused_where_there_is_some(write: Any, name: str) -> None:
    with pytest.raises(DataError, match=f"row 2, field {name}: is no text, and text is all that is read"):
        load(write([ASK | {name: []}, ASK | {name: ["cat.png"]}]))
    assert len(load(write([ASK | {name: []}, ASK | {name: None}, ASK | {name: [{"bytes": None}]}]))) == 3


def test_plain_text_holds_what_stands_beside_it_or_the_row_is_refused(write: Any) -> None:
    alpaca = {"text": "Say it in French: the red cat. le chat rouge", "input": "the red cat."}
    assert load(write([alpaca])).records[0].prompt == ()
    for more in ({"input": "a dog"}, {"system": "Be kind."}, {"tools": [{"name": "f"}]}):
        with pytest.raises(DataError, match="stands beside plain text"):
            load(write([alpaca | more]))


TWO = {"prompt": "q", "response_a": "good", "response_b": "bad"}
SIDES = {"chosen": "response_a", "rejected": "response_b"}
VERDICTS = [
    {"winner": "gpt-4"},
    {"label": 2},
    {"label": "A>C"},
    {"better_response_id": 1},
    {"overall_preference": -2},
    {"preference_strength": 1},
    {"labels": 0},
    {"annotators": [1, 2, 1]},
    {"winner_tie": 1},
    {"score_a": 1.0, "score_c": 2.0},
]


@pytest.mark.parametrize("verdict", VERDICTS, ids=str)
def test_answers_of_equal_standing_need_their_verdict(write: Any, verdict: dict[str, Any]) -> None:
    """Arena, LLMBar, JudgeBench, PKU-SafeRLHF, HelpSteer, SHP, PandaLM, WebGPT: two answers and a verdict beside them."""
    source = write([TWO | verdict])
    for drop in ("error", "drop"):
        with pytest.raises(DataError, match=rf"column '{next(iter(verdict))}' may say which response is better"):
            load(source, columns=SIDES, on_bad_row=drop)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="may say which response is better"):
        load(source, columns={"response": "response_a"})
    assert len(load(source, columns=SIDES | dict.fromkeys(verdict))) == 1
    assert len(load(source, columns={"prompt": "prompt"}, want="prompts")) == 1


def test_a_verdict_that_is_read_or_that_the_names_give_is_none_to_miss(write: Any) -> None:
    shp = TWO | {"labels": 0, "score_a": 3}
    [record] = load(write([shp]), columns=SIDES | {"preference": "labels"}).records
    assert isinstance(record, Judgement)
    assert record.chosen[0].content == "bad"
    assert "columns 'score_a', 'winner' not read (1 row)" in describe(
        load(write([PAIR | {"score_a": 1, "winner": "x"}]))
    )
    named = {"prompt": "q", "correct": "a", "incorrect": "b", "label_confidence": 0.7, "label": "x"}
    assert len(load(write([named]), columns={"chosen": "correct", "rejected": "incorrect"})) == 1
    asked = {"question": "q", "answer": "a", "votes": 3, "winner": "x"}
    assert len(load(write([asked]), columns={"prompt": "question", "response": "answer"})) == 1


@pytest.mark.parametrize("name", ["label", "is_safe", "is_correct", "kto_tag"])
@pytest.mark.parametrize("row", [ASK, TURNS, ALPACA], ids=lambda row: "/".join(row))
def test_an_undesirable_response_is_not_taught(write: Any, row: dict[str, Any], name: str) -> None:
    source = write([row | {name: True}, row | {name: False}])
    with pytest.raises(DataError, match=rf"row 2, field {name}: the response is labelled undesirable"):
        load(source, want="demonstrations")
    assert load(source, want="demonstrations", on_bad_row="drop").rows == (1,)


@pytest.mark.parametrize("row", [ASK, TURNS], ids=lambda row: "/".join(row))
def test_flags_of_a_response_are_labels_where_they_are_true_or_false(write: Any, row: dict[str, Any]) -> None:
    """`correct: 2` is the number of an option, `good: 0` may be a count: they are only named."""
    for name, value in (("correct", False), ("good", "false"), ("deleted", True), ("is_spam", "True")):
        with pytest.raises(DataError, match=f"field {name}: the response is labelled undesirable"):
            load(write([row | {name: value}]), want="demonstrations")
        other = str(value).lower() == "false"
        assert len(load(write([row | {name: other}]), want="demonstrations")) == 1
    for name, value in (("correct", 2), ("good", 0), ("deleted", 1), ("helpful", 3.5)):
        assert f"'{name}' not read (1 row)" in describe(load(write([row | {name: value}]), want="demonstrations"))


def test_a_labelled_conversation_is_a_verdict_on_its_last_answer(write: Any) -> None:
    more = [{"role": "user", "content": "more"}, {"role": "assistant", "content": "last"}]
    records = load(write([TURNS | {"label": False}, {"messages": [*TURNS["messages"], *more], "label": True}]))
    one, two = records.records
    assert isinstance(one, Judgement) and isinstance(two, Judgement)
    assert (one.verdict.value, two.verdict.value) == ([0.0], [1.0])
    assert [m.content for m in two.prompt] == ["hi", "yes", "more"]
    assert [m.content for m in two.responses[0]] == ["last"]


@pytest.mark.parametrize("mark", [{"weight": 0.5}, {"weight": 0}, {"sample_weight": 2}, {"train": False}], ids=str)
def test_a_row_weighs_one_or_is_refused(write: Any, mark: dict[str, Any]) -> None:
    [name] = mark
    with pytest.raises(DataError, match=f"row 2, field {name}: "):
        load(write([ASK | {name: 1}, PAIR | ASK | mark]), want="demonstrations")
    assert len(load(write([ASK | mark]), columns={name: None})) == 1
    assert len(load(write([ASK | mark]), want="prompts")) == 1


def test_a_flag_that_is_none_is_only_named(write: Any) -> None:
    assert "column 'loss' not read (1 row)" in describe(load(write([ASK | {"loss": 1.53}])))


def test_what_changes_nothing_is_named_once_with_its_rows(write: Any) -> None:
    rows = [
        ASK | {"prompt": f"q{i}", "source": "web", "idx": i, "note": "" if i else "x", "empty": None} for i in range(3)
    ]
    records = load(write(rows))
    assert describe(records).splitlines()[1:] == [
        "  columns 'source', 'idx' not read (3 rows)",
        "  column 'note' not read (1 row)",
    ]
    assert summary(records)["columns"] == [line.strip() for line in describe(records).splitlines()[1:]]
    kept = load(write([{"prompt": "q", "answer": "4"}]), want="prompts")
    assert describe(kept).splitlines()[1:] == ["  column 'answer' kept for rewards that read them (1 row)"]


def test_a_column_behind_a_mapping_is_named(write: Any) -> None:
    """The file's own `prompt` where another column is to be the prompt, and a column that is left out as asked."""
    source = write([ASK | {"question": "q", "system": "s"}])
    records = load(source, columns={"prompt": "question", "system": None})
    assert prompt(records.records[0]) == [("user", "q")]
    assert "column 'prompt' not read: 'question' is (1 row)" in describe(records)
    assert "column 'system' not read, as asked (1 row)" in describe(records)
    with pytest.raises(DataError, match=r"columns: unknown column 'sytem'. Did you mean 'system'"):
        load(source, columns={"sytem": None})


@pytest.mark.parametrize("value", [5, 0, -12])
def test_a_whole_number_as_input_is_read_as_text(write: Any, value: int) -> None:
    [record] = load(write([{"instruction": "do", "input": value, "output": "ok"}])).records
    assert prompt(record) == [("user", f"do\n{value}")]


@pytest.mark.parametrize("value", [True, False, 2.5, [1, 2], {"a": 1}, [{"id": 1}, {"id": None}]], ids=str)
@pytest.mark.parametrize("row", [{"instruction": "do", "output": "ok"}, ASK, PAIR, {"text": "no"}], ids="/".join)
@pytest.mark.parametrize("name", ["input", "documents", "context"])
def test_what_is_given_with_a_prompt_and_is_no_text_is_refused(
    write: Any, value: Any, row: dict[str, Any], name: str
) -> None:
    """An instance of: a value that holds no text, and vanishes without a word."""
    with pytest.raises(DataError, match=rf"field {name}: (is not a part of the prompt|stands beside plain text)"):
        load(write([row | {name: value}]))


def test_numbers_that_stand_in_the_prompt_or_beside_its_text_are_no_obstacle(write: Any) -> None:
    rows = [{"prompt": "what is 7 and 8", "response": "15"} | {"documents": value} for value in (7, [7, 8])]
    rows += [{"prompt": "the cat sat", "response": "no", "documents": [{"id": 3, "text": "the cat"}]}]
    assert [len(record.prompt) for record in load(write(rows)).records] == [1, 1, 1]
    with pytest.raises(DataError, match="field documents"):
        load(write([rows[0] | {"documents": 9}]))
