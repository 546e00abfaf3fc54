"""Responses that lie on disk, however they came there: with their prompts, their groups and what was said of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing.data.formats.loading import content_digest
from truing.errors import DataError
from truing.records import Demonstration, Judgement, Message, Messages, Records, RowNote, Verdict, is_number, prompt_id
from truing.rollout import experience

CUT_OFF = "ran into max_new_tokens, and as text would be taught as if it ended there"
EMPTY = "has no text, or holds a NUL character"


@dataclass(frozen=True, slots=True)
class Given:
    """One response. Those of one `group` are compared with each other. `ids` are the policy's tokens, empty where the
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
        """The response as a record holds it."""
        return (Message("assistant", self.response),)

    @property
    def unfit(self) -> str:
        """Why no record can hold it, empty where one can. (A record is text, and its end is taught as an end.)"""
        return EMPTY if not self.response.strip() or "\0" in self.response else "" if self.finished else CUT_OFF


def of_rollouts(files: Sequence[Path], columns: Mapping[int, Mapping[str, Any]] | None = None) -> list[Given]:
    """Every response of some rounds, in order; a group is one as it was sampled. `columns` are the prompts' by row."""
    groups: dict[tuple[int, int], int] = {}
    responses = []
    for number, file in enumerate(files):
        for row in experience.read(file):
            group = groups.setdefault((number, row.group), len(groups))
            names = [name for name, _ in row.parts if ":" not in name]
            score = None if math.isnan(row.score) else row.score
            more = (columns or {}).get(row.row, {})
            finished, rater = row.stop != "length", " + ".join(names)
            responses.append(
                Given(row.prompt, row.response, group, row.response_ids, finished, more, score, row.why, rater, row.row)
            )
    return responses


def of_records(records: Records) -> list[Given]:
    """Every response of a data set; a group is all that is said to one prompt. DataError for a response of several
    turns, which no reward reads, and where there is none at all."""
    groups: dict[str, int] = {}
    responses = []
    for row, record in zip(records.rows, records.records, strict=True):
        group = groups.setdefault(prompt_id(record.prompt), len(groups))
        for response, score in scored_responses(record):
            if len(response) > 1:
                raise DataError(
                    f"{records.name}, row {row}", "the response has several turns", "Give responses of one turn each."
                )
            rater, beside = "" if score is None else f"scores in {records.name}", record.meta.get("columns", {})
            responses.append(
                Given(record.prompt, response[0].content, group, columns=beside, score=score, rater=rater, row=row)
            )
    if not responses:
        raise DataError(
            records.name, "holds prompts alone, and no response to judge", "Let a stage `sample` respond to them."
        )
    return responses


def scored_responses(record: Demonstration | Judgement) -> Iterator[tuple[Messages, float | None]]:
    """The responses of a record, each with its score, or None where it has none that is one number."""
    if isinstance(record, Demonstration):
        return iter([(record.response, None)] if record.response else [])
    scores = record.verdict.value if record.verdict.kind == "score" else [None] * len(record.responses)
    return iter([(r, float(s) if is_number(s) else None) for r, s in zip(record.responses, scores, strict=True)])


def by_group(responses: Iterable[Given]) -> list[list[Given]]:
    """The responses of each group, in the order met."""
    groups: dict[int, list[Given]] = {}
    for response in responses:
        groups.setdefault(response.group, []).append(response)
    return list(groups.values())


def as_records(responses: Sequence[Given], name: str) -> Records:
    """Responses as a data set: of scored ones a record a group, its responses with their scores, of others a record a
    response. What no record can hold is left out and noted. DataError where nothing is left."""
    records: list[Demonstration | Judgement] = []
    rows, notes = [], []
    for number, group in enumerate(units(responses), start=1):
        usable = [response for response in group if not (response.unfit or response.why)]
        left_out = [
            (response.why and "could not be scored") or response.unfit for response in group if response not in usable
        ]
        notes += [RowNote(number, "response", why, "truncated" if usable else "dropped") for why in left_out]
        if usable:
            rows.append(number)
            records.append(record_of(usable))
    if not records:
        why = notes[0].problem if notes else "there is no response"
        raise DataError(name, f"none of {len(responses)} responses can be used; the first: {why}")
    return Records(name, tuple(records), tuple(rows), tuple(notes), content_digest(records))


def units(responses: Sequence[Given]) -> list[list[Given]]:
    """The groups that become a record each: scored responses to one prompt, or one response alone."""
    scored = any(response.score is not None for response in responses)
    return by_group(responses) if scored else [[response] for response in responses]


def record_of(responses: Sequence[Given]) -> Demonstration | Judgement:
    """Responses to one prompt as a record: with scores where they have them, else the first as a demonstration."""
    first, scores = responses[0], [response.score for response in responses]
    if None in scores:
        return Demonstration(first.prompt, first.message)
    verdict = Verdict("score", scores)
    return Judgement(
        prompt_id(first.prompt), first.prompt, tuple(o.message for o in responses), verdict, rater=first.rater
    )
