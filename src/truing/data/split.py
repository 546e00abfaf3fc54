"""Split a data set so that no question asked in training is asked again in the exam."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from pathlib import Path
from typing import Literal

from truing.data.conventions import Record
from truing.data.formats import as_row, content_digest, record_json
from truing.disk import as_json, write_exact
from truing.errors import DataError, UserError, unknown
from truing.types import Demonstration, Records, RowNote, digest, messages_json


def split(
    records: Records, *, eval: float = 0.1, seed: int = 0, by: Literal["prompt", "row"] = "prompt"
) -> tuple[Records, Records]:
    """Divide into a part to train on and a part to measure on, about `eval` of all rows.

    With `by="prompt"` rows with the same first user turn (case and blanks aside) stay together, and so do rows with
    the same value of a column `group`. With `by="row"` only identical rows do. Which side a row falls on depends on
    its content and the seed, never on the order of the file.
    """
    if by not in ("prompt", "row"):
        raise UserError(unknown("value of by", by, ("prompt", "row")))
    if not 0 < eval < 1:
        raise UserError(f"eval: {eval} is not a fraction between 0 and 1")
    groups = _groups(records, by)
    if len(groups) < 2:
        what = "first user turn or group" if by == "prompt" else "row"
        raise DataError(
            records.name,
            f"cannot be split: all {len(records)} rows have the same {what}, so one side would be empty",
            "Give more data" + (", or split by: row" if by == "prompt" else ""),
        )
    held_out = _choose(records, groups, eval, seed)
    sides = ([i for i in range(len(records)) if i not in held_out], sorted(held_out))
    train, exam = (_part(records, side, name) for side, name in zip(sides, ("train", "eval"), strict=True))
    return train, exam


def write(records: Records, path: Path) -> Path:
    """Records as JSONL in the columns of the ecosystem (docs/data.md), as they are read again."""
    rows = zip(records.rows, records.records, strict=True)
    return write_exact(path, "".join(as_json(as_row(r), f"{records.name}, row {i}") + "\n" for i, r in rows))


def overlap(a: Records, b: Records) -> list[tuple[int, int]]:
    """Rows of `b` whose first user turn is in `a` too, each as (first such row of `a`, row of `b`)."""
    first: dict[str, int] = {}
    for row, record in zip(a.rows, a.records, strict=True):
        first.setdefault(first_turn(record), row)
    return [(first[key], row) for row, r in zip(b.rows, b.records, strict=True) if (key := first_turn(r)) in first]


def unseen(held_out: Records, trained: Iterable[Records]) -> Records:
    """The rows of `held_out` that open as no row of `trained` does (`opening`), the others noted as dropped.

    A DataError where none is left.
    """
    known = {opening(record) for records in trained for record in records.records}
    left = _less(held_out, lambda record: opening(record) in known, "begins as one that was trained on")
    if not len(left):
        raise DataError(
            held_out.name,
            f"nothing is held out: the first user turn of each of its {len(held_out)} rows was trained on",
            "Divide the data with a split stage (by: prompt), or give other data.",
        )
    return left


def without(trained: Records, held_out: Records) -> Records:
    """The rows of `trained` in which no turn asks what a row of `held_out` begins with, and no plain text has it; the
    others are noted as dropped. A DataError where none is left.
    """
    openings = {first_turn(record) for record in held_out.records}
    why = f"has what one of {held_out.name} asks"
    left = _less(trained, lambda record: _has(record, openings), why)
    if not len(left):
        raise DataError(
            trained.name,
            f"nothing is left to train on: each of its {len(trained)} rows {why}",
            "Give other data to train on, or hold out less.",
        )
    return left


def _has(record: Record, openings: Set[str]) -> bool:
    """Whether a user says one of these anywhere in a record, case and blanks aside; or a text without turns has it."""
    if not record.prompt and isinstance(record, Demonstration):
        text = " ".join(" ".join(m.content for m in record.response).casefold().split())
        return any(f" {one} " in f" {text} " for one in openings)
    response = (record.response,) if isinstance(record, Demonstration) else record.responses
    said = (m.content for part in (record.prompt, *response) for m in part if m.role == "user")
    return first_turn(record) in openings or any(" ".join(text.casefold().split()) in openings for text in said)


def _less(records: Records, met: Callable[[Record], bool], why: str) -> Records:
    """The records that do not meet a condition; the others are noted as dropped, and why."""
    gone = {row for row, record in zip(records.rows, records.records, strict=True) if met(record)}
    if not gone:
        return records
    left = records.subset([i for i, row in enumerate(records.rows) if row not in gone], records.name)
    return replace(left, notes=(*left.notes, *(RowNote(row, "prompt", why, "dropped") for row in sorted(gone))))


def opening(record: Record) -> str:
    """What stands before the first answer: the system's message, where there is one, and the first user turn.

    Under another system message (other rules, other facts) the same question is another one.

    >>> from truing.types import Demonstration, Message
    >>> said = (Message("system", "Be kind."), Message("user", "What?"))
    >>> opening(Demonstration(said, (Message("assistant", "c"),)))
    'be kind. | what?'
    """
    system = [" ".join(m.content.casefold().split()) for m in record.prompt[:1] if m.role == "system"]
    return " | ".join([*system, first_turn(record)])


def first_turn(record: Record) -> str:
    """The first thing a user says, case and blanks aside; of a plain text, the text.

    >>> from truing.types import Demonstration, Message
    >>> first_turn(Demonstration((Message("user", " What  IS it?"),), (Message("assistant", "a"),)))
    'what is it?'
    """
    said = next((m.content for m in record.prompt if m.role == "user"), None)
    if said is None:
        rest = record_json(record).get("response") if not record.prompt else messages_json(record.prompt)
        said = str(rest)
    return " ".join(said.casefold().split())


def _groups(records: Records, by: str) -> list[list[int]]:
    """Indices of rows that must stay together."""
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    keys = []
    for record in records.records:
        if by == "row":
            key = digest(record_json(record))
        else:
            key = "turn:" + first_turn(record)
            if "group" in record.meta:
                leader[find("group:" + str(record.meta["group"]))] = find(key)
        keys.append(key)
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(find(key), []).append(index)
    return list(groups.values())


def _choose(records: Records, groups: list[list[int]], eval: float, seed: int) -> set[int]:
    """Whole groups in an order drawn from content and seed, until the asked number of rows is reached."""

    def order(members: list[int]) -> str:
        content = min(digest(record_json(records.records[i])) for i in members)
        return hashlib.sha256(f"{seed}:{content}".encode()).hexdigest()

    target = min(max(1, round(eval * len(records))), len(records) - 1)
    queue = sorted(groups, key=order)
    held_out: set[int] = set()
    for members in queue:
        if len(held_out) + len(members) <= target:
            held_out.update(members)
    smallest: list[int] = min(queue, key=len)
    return held_out or set(smallest)


def _part(records: Records, indices: list[int], name: str) -> Records:
    part = records.subset(indices, f"{records.name} ({name})")
    return replace(part, digest=content_digest(part.records))
