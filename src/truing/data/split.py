"""Split a data set so that no question asked in training is asked again in the exam."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Literal

from truing.data.formats.conventions import Record
from truing.data.formats.loading import as_row, content_digest, record_json
from truing.data.likeness import KINDS, Kind, Print, Questions, fingerprint
from truing.data.questions import first_turn, opening
from truing.disk import as_json, write_exact
from truing.errors import DataError, UserError, unknown
from truing.records import Demonstration, Records, RowNote, digest, prompt_id


def split(
    records: Records, *, eval: float = 0.1, seed: int = 0, by: Literal["prompt", "row"] = "prompt"
) -> tuple[Records, Records]:
    """Divide into a part to train on and a part to measure on, about `eval` of all rows.

    With `by="prompt"` these rows stay together: of the same first user turn (case and blanks aside), those of which one
    asks what the other does under a disguise (`likeness`), and of the same value in a column `group`. With `by="row"`
    only identical rows do. Which side a row falls on depends on its content and the seed, never on the order of the
    file.
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


def unseen(held_out: Records, trained: Iterable[Records | Print]) -> Records:
    """The rows of `held_out` that ask nothing that a row of `trained` asks under whatever disguise (`likeness`), the
    others noted as dropped.

    A DataError where none is left.
    """
    prints = [source if isinstance(source, Print) else fingerprint(source) for source in trained]
    return left_of(held_out, met(Questions(held_out), prints))


def left_of(held_out: Records, kinds: Mapping[int, Kind], where: str = "") -> Records:
    """The rows of `held_out` but those of `kinds`, which ask what was trained on; these are noted as dropped, with the
    kind of their match. A DataError, which says `where`, if none is left."""
    exact, other = "begins as one that was trained on", "asks what one that was trained on asks"
    left = _noted(held_out, {row: exact if kind == "exact" else f"{other} ({kind})" for row, kind in kinds.items()})
    if not len(left):
        raise DataError(
            held_out.name,
            f"nothing is held out: the first user turn of each of its {len(held_out)} rows was trained on"
            + (f". {where}" if where else ""),
            "Divide the data with a split stage (by: prompt), train with `without:` this data, or give other data.",
        )
    return left


def met(questions: Questions, fingerprints: Iterable[Print]) -> dict[int, Kind]:
    """The rows that ask what a row of `fingerprints` asks, and the kind of their best match."""
    kinds: dict[int, Kind] = {}
    for prints in fingerprints:
        nearest = zip(questions.rows, prints.nearest(questions), strict=True)
        kinds = merged(kinds, {row: match.kind for rows, match in nearest if match is not None for row in rows})
    return kinds


def merged(first: Mapping[int, Kind], second: Mapping[int, Kind]) -> dict[int, Kind]:
    """For each row of both the kind of its best match."""
    both = {**first, **second}
    return {row: max(first.get(row, kind), kind, key=KINDS.index) for row, kind in both.items()}


def without(trained: Records, held_out: Records) -> Records:
    """The rows of `trained` in which nothing asks what a row of `held_out` asks, under whatever disguise (`likeness`),
    no turn has what one begins with, and no plain text; the others are noted as dropped. A DataError where none is
    left.
    """
    openings, questions = {first_turn(record) for record in held_out.records}, Questions(held_out)
    why = f"has what one of {held_out.name} asks"
    gone = {row for row, record in zip(trained.rows, trained.records, strict=True) if _has(record, openings)}
    left = _noted(trained, dict.fromkeys(gone, why))
    while places := {place for matches in fingerprint(left).matches(questions) for place in matches}:
        left = _noted(left, {left.rows[place]: why for place in places})  # fewer rows may be read more closely
    if not len(left):
        raise DataError(
            trained.name,
            f"nothing is left to train on: each of its {len(trained)} rows {why}",
            "Give other data to train on, or hold out less.",
        )
    return left


def _has(record: Record, openings: Set[str]) -> bool:
    """True if a user says one of these anywhere in a record, case and blanks aside, or a text without turns has it."""
    if not record.prompt and isinstance(record, Demonstration):
        text = " ".join(" ".join(m.content for m in record.response).casefold().split())
        return any(f" {opening} " in f" {text} " for opening in openings)
    response = (record.response,) if isinstance(record, Demonstration) else record.responses
    user_turns = (m.content for part in (record.prompt, *response) for m in part if m.role == "user")
    return first_turn(record) in openings or any(" ".join(text.casefold().split()) in openings for text in user_turns)


def _noted(records: Records, whys: Mapping[int, str]) -> Records:
    """The records without these rows, which are noted as dropped, and why."""
    if not whys:
        return records
    left = records.subset([i for i, row in enumerate(records.rows) if row not in whys], records.name)
    return replace(left, notes=(*left.notes, *(RowNote(row, "prompt", whys[row], "dropped") for row in sorted(whys))))


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
    if by == "prompt":
        for first, second in _alike(records):
            leader[find(keys[first])] = find(keys[second])
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(find(key), []).append(index)
    return list(groups.values())


def _alike(records: Records) -> Iterator[tuple[int, int]]:
    """Places of rows of which one asks what the other does; of rows with the same prompt the first stands for all."""
    first: dict[str, int] = {}
    for place, record in enumerate(records.records):
        first.setdefault(prompt_id(record.prompt) if record.prompt else opening(record), place)
    distinct = records.subset(list(first.values()), records.name)
    place_of = {row: place for place, row in enumerate(records.rows)}
    questions = Questions(distinct)
    for rows, matches in zip(questions.rows, fingerprint(distinct).matches(questions), strict=True):
        yield from ((place_of[rows[0]], place_of[distinct.rows[match]]) for match in matches)


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
