"""A hint goes by what a column's name means, then by its spelling; where nothing fits there is none."""

from __future__ import annotations

from typing import Any

import pytest

from truing.data.formats.loading import load
from truing.errors import DataError, UserError


@pytest.mark.parametrize(
    ("columns", "want", "mapping"),
    [
        (["question", "context", "answer"], "demonstrations", "{prompt: question, response: answer}"),
        (["input", "output"], "demonstrations", "{prompt: input, response: output}"),
        (["query", "reply", "history", "system"], "any", "{prompt: query, response: reply}"),
        (["instruction", "completion"], "demonstrations", "{prompt: instruction}"),
        (["instruction", "input", "answer"], "demonstrations", "{response: answer}"),
        (["dialogue"], "demonstrations", "{messages: dialogue}"),
        (
            ["question", "better_answer", "worse_answer"],
            "pairs",
            "{prompt: question, chosen: better_answer, rejected: w",
        ),
        (["prompt", "response_a", "response_b"], "pairs", "{chosen: response_a, rejected: response_b}"),
        (["conversation_a", "conversation_b"], "pairs", "{chosen: conversation_a, rejected: conversation_b}"),
        (["question", "answer", "id"], "prompts", "{prompt: question}"),
        (["prompt", "responses", "rewards"], "pairs", "{scores: rewards}"),
    ],
    ids=str,
)
def test_a_hint_is_the_mapping_that_reads_the_file(write: Any, columns: list[str], want: Any, mapping: str) -> None:
    with pytest.raises(DataError) as caught:
        load(write([dict.fromkeys(columns, "x")]), want=want)
    assert f"columns: {mapping}" in str(caught.value)


def test_the_mapping_of_a_hint_is_accepted(write: Any) -> None:
    source = write([{"question": "q", "better_answer": "a", "worse_answer": "b"}])
    said = {"prompt": "question", "chosen": "better_answer", "rejected": "worse_answer"}
    assert len(load(source, want="pairs", columns=said)) == 1


@pytest.mark.parametrize(
    "columns", [["foo", "bar"], ["context"], ["conversation_id"], ["texture"], ["system"]], ids=str
)
def test_there_is_no_hint_where_nothing_fits(write: Any, columns: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        load(write([dict.fromkeys(columns, "x")]), want="demonstrations")
    assert "Did you mean" not in str(caught.value)
    assert f"found columns: {', '.join(columns)}" in str(caught.value)


def test_two_answers_name_the_verdict_beside_them(write: Any) -> None:
    with pytest.raises(DataError, match="What 'winner' says of the two is then read, or stops the run"):
        load(write([{"prompt": "q", "response_a": "a", "response_b": "b", "winner": "a"}]), want="pairs")


def test_a_role_that_is_none_is_known_by_its_meaning(write: Any) -> None:
    with pytest.raises(UserError, match=r"By 'question' the role 'prompt' may be meant: columns: \{prompt: asked\}"):
        load(write([{"asked": "q"}]), columns={"question": "asked"})


def test_a_row_that_lacks_a_column_is_told_by_meaning_too(write: Any) -> None:
    rows = [{"text": "a"}, {"context": "b"}, {"body": "c"}]
    with pytest.raises(DataError) as caught:
        load(write(rows))
    assert "did you mean 'context'" not in str(caught.value)
    assert "did you mean 'body'" in str(caught.value)
