"""What becomes of the scored answers to one prompt: a pair, a ranking, a demonstration, scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from truing.data.formats import loading
from truing.data.formats.conventions import Record
from truing.rollout import stored as lying
from truing.rollout.best import descending, steps_down
from truing.rollout.stored import Given
from truing.types import Demonstration, Judgement, Verdict, messages_json, prompt_id

Row = tuple[Record, dict[str, Any]]
"""A record, and the row that is written for a person to read: its columns, with the rewards and who gave them."""


def usable(group: Sequence[Given], count: Counter[str], unfinished: bool) -> list[Given]:
    """The answers of a group that a row can be made of, each wording once; the others are counted."""
    own: dict[str, Given] = {}
    for one in group:
        why = left_out(one, unfinished, one.response in own)
        if why:
            count[why] += 1
        else:
            own[one.response] = one
    return list(own.values())


def left_out(one: Given, unfinished: bool, known: bool) -> str:
    """Why no row is made of an answer, by the name it is counted under; empty where one can be."""
    if one.score is None:
        return "unscored"
    if one.unfit == lying.EMPTY:
        return "empty"
    if one.unfit and not unfinished:
        return "unfinished"
    return "repeated" if known else ""


def value(one: Given) -> float:
    """The score of an answer that has one."""
    assert one.score is not None
    return one.score


def pair(own: Sequence[Given]) -> list[Row]:
    """The best answer against the worst; nothing where they are equal."""
    order = descending(own, value)
    best, worst = order[0], order[-1]
    if value(best) == value(worst):
        return []
    record = judgement((best, worst), Verdict("choice", 0))
    said = {"chosen_reward": best.score, "rejected_reward": worst.score, "rater": best.rater}
    return [(record, loading.as_row(record) | said)]


def ranking(own: Sequence[Given]) -> list[Row]:
    """The answers from the best on, of equal ones the first; nothing where all are equal."""
    distinct = steps_down(own, value)
    if len(distinct) < 2:
        return []
    record = judgement(distinct, Verdict("ranking", list(range(len(distinct)))))
    said = {"rewards": list(map(value, distinct)), "rater": distinct[0].rater}
    return [(record, loading.as_row(record) | said)]


def scores(own: Sequence[Given]) -> list[Row]:
    """All answers with their scores."""
    said = list(map(value, own))
    record = judgement(own, Verdict("score", said))
    row: dict[str, Any] = {"prompt": messages_json(record.prompt)}  # as_row has other columns for one answer alone
    row |= {"responses": list(map(messages_json, record.responses)), "scores": said, "rater": own[0].rater}
    return [(record, row)]


def best(own: Sequence[Given]) -> list[Row]:
    """The best answer to learn (RAFT: Dong et al. 2023, arXiv 2304.06767)."""
    return [demonstration(descending(own, value)[0])]


def reaching(own: Sequence[Given], least: float) -> list[Row]:
    """Every answer whose score is at least this, to learn (RFT: Yuan et al. 2023, arXiv 2308.01825)."""
    return [demonstration(one) for one in descending(own, value) if value(one) >= least]


def demonstration(one: Given) -> Row:
    """An answer to learn."""
    record = Demonstration(one.prompt, one.message)
    return record, loading.as_row(record) | {"reward": one.score, "rater": one.rater}


def judgement(own: Sequence[Given], verdict: Verdict) -> Judgement:
    """Answers to one prompt with a verdict on them."""
    prompt = own[0].prompt
    return Judgement(prompt_id(prompt), prompt, tuple(one.message for one in own), verdict, rater=own[0].rater)


FORMS: Mapping[str, Callable[[Sequence[Given]], list[Row]]] = {
    "pair": pair,
    "ranking": ranking,
    "scores": scores,
    "best": best,
}
"""What is made of the answers of one group."""
