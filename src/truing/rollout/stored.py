"""Answers that lie on disk, however they came there: with their prompts, their groups and what was said of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing.data.formats.loading import content_digest
from truing.errors import DataError
from truing.rollout import experience
from truing.types import Demonstration, Judgement, Message, Messages, Records, RowNote, Verdict, is_number, prompt_id

CUT_OFF = "ran into max_new_tokens, and as text would be taught as if it ended there"
EMPTY = "says nothing, or holds a NUL character"


@dataclass(frozen=True, slots=True)
class Given:
    """One answer. Those of one `group` are compared with each other. `ids` are the policy's tokens, empty where the
    text alone is known; `score` is None where there is none, and `why` says why it could not be scored; `rater` is who
    scored it; `columns` is what else stands in the row of its prompt, and `row` the number of that."""

    prompt: Messages
    response: str
    group: int
    ids: tuple[int, ...] = ()
    finished: bool = True
    columns: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    why: str = ""
    rater: str = ""
    row: int = 0

    @property
    def message(self) -> Messages:
        """The answer as a record holds it."""
        return (Message("assistant", self.response),)

    @property
    def unfit(self) -> str:
        """Why no record can hold it, empty where one can. (A record is text, and its end is taught as an end.)"""
        return EMPTY if not self.response.strip() or "\0" in self.response else "" if self.finished else CUT_OFF


def of_rollouts(files: Sequence[Path], columns: Mapping[int, Mapping[str, Any]] | None = None) -> list[Given]:
    """Every answer of some rounds, in order; a group is one as it was sampled. `columns` are the prompts' by row."""
    groups: dict[tuple[int, int], int] = {}
    found = []
    for number, file in enumerate(files):
        for row in experience.read(file):
            group = groups.setdefault((number, row.group), len(groups))
            names = [name for name, _ in row.parts if ":" not in name]
            score = None if math.isnan(row.score) else row.score
            more = (columns or {}).get(row.row, {})
            finished, rater = row.stop != "length", " + ".join(names)
            found.append(
                Given(row.prompt, row.response, group, row.response_ids, finished, more, score, row.why, rater, row.row)
            )
    return found


def of_records(records: Records) -> list[Given]:
    """Every response of a data set; a group is all that is said to one prompt. DataError for a response of several
    turns, which no reward reads, and where there is none at all."""
    groups: dict[str, int] = {}
    found = []
    for row, record in zip(records.rows, records.records, strict=True):
        group = groups.setdefault(prompt_id(record.prompt), len(groups))
        for response, score in said(record):
            if len(response) > 1:
                raise DataError(
                    f"{records.name}, row {row}", "the response has several turns", "Give answers of one turn each."
                )
            rater, beside = "" if score is None else f"scores in {records.name}", record.meta.get("columns", {})
            found.append(
                Given(record.prompt, response[0].content, group, columns=beside, score=score, rater=rater, row=row)
            )
    if not found:
        raise DataError(
            records.name, "holds prompts alone, and no answer to judge", "Let a stage `sample` answer them."
        )
    return found


def said(record: Demonstration | Judgement) -> Iterator[tuple[Messages, float | None]]:
    """The responses of a record, each with its score, or None where it has none that is one number."""
    if isinstance(record, Demonstration):
        return iter([(record.response, None)] if record.response else [])
    scores = record.verdict.value if record.verdict.kind == "score" else [None] * len(record.responses)
    return iter([(r, float(s) if is_number(s) else None) for r, s in zip(record.responses, scores, strict=True)])


def by_group(given: Iterable[Given]) -> list[list[Given]]:
    """The answers of each group, in the order met."""
    groups: dict[int, list[Given]] = {}
    for one in given:
        groups.setdefault(one.group, []).append(one)
    return list(groups.values())


def as_records(given: Sequence[Given], name: str) -> Records:
    """Answers as a data set: of scored ones a record a group, its responses with their scores, of others a record an
    answer. What no record can hold is left out and noted. DataError where nothing is left."""
    records: list[Demonstration | Judgement] = []
    rows, notes = [], []
    for number, group in enumerate(units(given), start=1):
        kept = [one for one in group if not (one.unfit or one.why)]
        left_out = [(one.why and "could not be scored") or one.unfit for one in group if one not in kept]
        notes += [RowNote(number, "response", why, "truncated" if kept else "dropped") for why in left_out]
        if kept:
            rows.append(number)
            records.append(record_of(kept))
    if not records:
        why = notes[0].problem if notes else "there is no answer"
        raise DataError(name, f"none of {len(given)} answers can be used; the first: {why}")
    return Records(name, tuple(records), tuple(rows), tuple(notes), content_digest(records))


def units(given: Sequence[Given]) -> list[list[Given]]:
    """What becomes a record each: a group of scored answers, or one answer alone."""
    scored = any(one.score is not None for one in given)
    return by_group(given) if scored else [[one] for one in given]


def record_of(kept: Sequence[Given]) -> Demonstration | Judgement:
    """Answers to one prompt as a record: with scores where they have them, else the first as a demonstration."""
    first, scores = kept[0], [one.score for one in kept]
    if None in scores:
        return Demonstration(first.prompt, first.message)
    said = Verdict("score", scores)
    return Judgement(prompt_id(first.prompt), first.prompt, tuple(o.message for o in kept), said, rater=first.rater)
