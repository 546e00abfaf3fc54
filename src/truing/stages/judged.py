"""Rows made of the scored responses to one prompt: a pair, a ranking, a demonstration, scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from truing.data.formats import loading
from truing.data.formats.conventions import Record
from truing.records import Demonstration, Judgement, Verdict, messages_json, prompt_id
from truing.rollout import stored as lying
from truing.rollout.best import descending, steps_down
from truing.rollout.stored import Given

Row = tuple[Record, dict[str, Any]]
"""A record, and the row that is written for a person to read: its columns, with the rewards and the rater."""


def usable(group: Sequence[Given], count: Counter[str], truncated: bool) -> list[Given]:
    """The responses of a group that a row can be made of, each wording once; the others are counted."""
    by_text: dict[str, Given] = {}
    for stored in group:
        why = left_out(stored, truncated, stored.response in by_text)
        if why:
            count[why] += 1
        else:
            by_text[stored.response] = stored
    return list(by_text.values())


def left_out(stored: Given, truncated: bool, repeated: bool) -> str:
    """The reason why no row is made of a response, as the key it is counted under; empty where one can be."""
    if stored.score is None:
        return "unscored"
    if stored.unfit == lying.EMPTY:
        return "empty"
    if stored.unfit and not truncated:
        return "truncated"
    return "repeated" if repeated else ""


def value(stored: Given) -> float:
    """The score of a response that has one."""
    assert stored.score is not None
    return stored.score


def pair(candidates: Sequence[Given]) -> list[Row]:
    """The best response against the worst; nothing where they are equal."""
    order = descending(candidates, value)
    best, worst = order[0], order[-1]
    if value(best) == value(worst):
        return []
    record = judgement((best, worst), Verdict("choice", 0))
    columns = {"chosen_reward": best.score, "rejected_reward": worst.score, "rater": best.rater}
    return [(record, loading.as_row(record) | columns)]


def ranking(candidates: Sequence[Given]) -> list[Row]:
    """The responses from the best down, of equal ones the first; nothing where all are equal."""
    distinct = steps_down(candidates, value)
    if len(distinct) < 2:
        return []
    record = judgement(distinct, Verdict("ranking", list(range(len(distinct)))))
    columns = {"rewards": list(map(value, distinct)), "rater": distinct[0].rater}
    return [(record, loading.as_row(record) | columns)]


def scores(candidates: Sequence[Given]) -> list[Row]:
    """All responses with their scores."""
    values = list(map(value, candidates))
    record = judgement(candidates, Verdict("score", values))
    row: dict[str, Any] = {"prompt": messages_json(record.prompt)}  # as_row has other columns for a single response
    row |= {"responses": list(map(messages_json, record.responses)), "scores": values, "rater": candidates[0].rater}
    return [(record, row)]


def best(candidates: Sequence[Given]) -> list[Row]:
    """The best response to learn (RAFT: Dong et al. 2023, arXiv 2304.06767)."""
    return [demonstration(descending(candidates, value)[0])]


def reaching(candidates: Sequence[Given], least: float) -> list[Row]:
    """Every response whose score is at least this, to learn (RFT: Yuan et al. 2023, arXiv 2308.01825)."""
    return [demonstration(stored) for stored in descending(candidates, value) if value(stored) >= least]


def demonstration(stored: Given) -> Row:
    """A response to learn."""
    record = Demonstration(stored.prompt, stored.message)
    return record, loading.as_row(record) | {"reward": stored.score, "rater": stored.rater}


def judgement(candidates: Sequence[Given], verdict: Verdict) -> Judgement:
    """Responses to one prompt with a verdict on them."""
    prompt = candidates[0].prompt
    return Judgement(
        prompt_id(prompt), prompt, tuple(stored.message for stored in candidates), verdict, rater=candidates[0].rater
    )


FORMS: Mapping[str, Callable[[Sequence[Given]], list[Row]]] = {
    "pair": pair,
    "ranking": ranking,
    "scores": scores,
    "best": best,
}
"""The rows made of the responses of one group, by the option `keep`."""
