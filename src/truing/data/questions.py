"""The questions of a row, and every turn in which a row that was learned from may have asked them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from truing.data.formats.conventions import Record
from truing.data.formats.loading import record_json
from truing.data.normal import segments
from truing.records import Demonstration, Messages, Records, messages_json

LATER = 20
"""Tokens the last turn of a conversation must have to be a question that stands for itself."""


@dataclass(frozen=True)
class Question:
    """The question of row `row`: its opening as it is written, and the texts, in tokens, any of which asks it."""

    row: int
    opening: str
    texts: tuple[tuple[str, ...], ...]


def opening(record: Record) -> str:
    """The text before the first response: the system's message, where there is one, and the first user turn.

    Under another system message (other rules, other facts) the same question is another one.

    >>> from truing.records import Demonstration, Message
    >>> prompt = (Message("system", "Be kind."), Message("user", "What?"))
    >>> opening(Demonstration(prompt, (Message("assistant", "c"),)))
    'be kind. | what?'
    """
    return " | ".join([*(" ".join(text.casefold().split()) for text in system(record)), first_turn(record)])


def first_turn(record: Record) -> str:
    """The first user turn, case and blanks aside; of a plain text, the text.

    >>> from truing.records import Demonstration, Message
    >>> first_turn(Demonstration((Message("user", " What  IS it?"),), (Message("assistant", "a"),)))
    'what is it?'
    """
    turn = next((m.content for m in record.prompt if m.role == "user"), None)
    if turn is None:
        rest = record_json(record).get("response") if not record.prompt else messages_json(record.prompt)
        turn = str(rest)
    return " ".join(turn.casefold().split())


def system(record: Record) -> list[str]:
    """The system's message of a record, if it begins with one."""
    return [m.content for m in record.prompt[:1] if m.role == "system"]


def questions(records: Records) -> list[Question]:
    """The question of each row: its first user turn, with the system's message where that brings facts of its own, and
    the last user turn of a conversation where that is long enough to be a question.

    A system message that stands before most rows, and before different turns, is a frame and no part of a question.
    """
    framed = frames(records)
    by_row = []
    for row, record in zip(records.rows, records.records, strict=True):
        users = [tokens(m.content) for m in record.prompt if m.role == "user"]
        if not users:
            plain = [] if record.prompt else [tuple(tokens(first_turn(record)))]
            by_row.append(Question(row, opening(record), tuple(text for text in plain if text)))
            continue
        facts = [tokens(text) for text in system(record) if text not in framed]
        texts = [tuple(token for part in (*facts, users[0]) for token in part)]
        if len(users) > 1 and len(users[-1]) >= LATER:
            texts.append(tuple(users[-1]))
        by_row.append(Question(row, opening(record), tuple(text for text in texts if text)))
    return by_row


def frames(records: Records) -> set[str]:
    """The system messages that stand before more than half of the rows, and before different first turns."""
    counts = Counter(text for record in records.records for text in system(record))
    common = {text for text, count in counts.items() if 2 * count > len(records)}
    turns: dict[str, set[str]] = {text: set() for text in common}
    for record in records.records:
        for text in common.intersection(system(record)):
            turns[text].add(first_turn(record))
    return {text for text in common if len(turns[text]) > 1}


def turns(record: Record) -> Iterator[tuple[str, bool]]:
    """Every text of a record in its order, and whether it is one that may ask something: not an assistant's."""
    plain = not record.prompt and isinstance(record, Demonstration)
    for messages in parts(record):
        for message in messages:
            yield message.content, plain or message.role != "assistant"


def parts(record: Record) -> tuple[Messages, ...]:
    """The prompt of a record and its responses."""
    return (record.prompt, record.response) if isinstance(record, Demonstration) else (record.prompt, *record.responses)


def tokens(text: str) -> list[str]:
    """The tokens of a whole text."""
    return [token for segment in segments(text) for token in segment]
