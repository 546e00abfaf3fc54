"""From a record to the shape that an objective reads: one verdict serves every method that can learn from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from truing.data.kinds import COLUMNS, WORDS, Comparison, Shape, Ties
from truing.errors import DataError, listed
from truing.records import Demonstration, Judgement, Messages


@dataclass(frozen=True)
class Side:
    """One response of a record, with its role and its labels."""

    role: str
    response: Messages
    targets: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Shaped:
    """A record in the shape that an objective reads."""

    sides: tuple[Side, ...]
    values: Mapping[str, float] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    ties_left_out: int = 0


def shaped(record: Demonstration | Judgement, shape: Shape, ties: Ties = "refused") -> Shaped:
    """The record in this shape; DataError where it does not hold what the shape needs."""
    if isinstance(record, Demonstration):
        return _demonstration(record, shape)
    if shape == "pairs":
        return _pairs(record, ties)
    if shape in ("single", "text"):
        return Shaped((Side("response", _best(record)),))
    make = {"ranked": _ranked, "labelled": _labelled, "outcomes": _outcomes, "scored": _scored, "steps": _steps}[shape]
    return make(record)


def _demonstration(record: Demonstration, shape: Shape) -> Shaped:
    if not record.response:
        raise DataError("", "this is a prompt alone, without a response to learn from or to score")
    if shape in ("single", "text"):
        return Shaped((Side("response", record.response),))
    raise DataError("", f"this is a demonstration, and the stage learns from {WORDS[shape]}", _way(shape))


def _unfit(record: Judgement, shape: Shape) -> DataError:
    kind, count = record.verdict.kind, len(record.responses)
    what = {
        "choice": "a choice" if count == 2 else f"a choice among {count} responses",
        "score": "scores" if count > 1 else "one response with its score",
        "steps": "labelled steps",
        "comparisons": "comparisons",
    }.get(kind, f"a {kind}")
    return DataError("", f"this row holds {what}, and the stage learns from {WORDS[shape]}", _way(shape))


def _way(shape: Shape) -> str:
    return f"Give {WORDS[shape]}: {COLUMNS[shape]}."


def _best(record: Judgement) -> Messages:
    if record.verdict.kind == "choice" and len(record.responses) == 2:
        return record.chosen
    if record.verdict.kind == "ranking":
        return record.responses[record.verdict.value[0]]
    if record.verdict.kind == "score" and len(record.responses) == 1 and record.verdict.value == [1.0]:
        return record.responses[0]
    raise _unfit(record, "single")


_NO_TIES = (
    "Train an objective that learns from ties (rao_kupper, davidson, bradley_terry), or leave them out with "
    "on_bad_row: drop"
)


def _pairs(record: Judgement, ties: Ties) -> Shaped:
    kind = record.verdict.kind
    if kind in ("choice", "tie") and len(record.responses) == 2:
        if kind == "tie" and ties == "refused":
            raise DataError("", "this row holds a tie, from which the objective does not learn", _NO_TIES)
        first, second = (record.chosen, record.rejected) if kind == "choice" else record.responses
        values = _pair_signals(record) | (_tie(ties) if kind == "tie" else {})
        return Shaped((Side("chosen", first), Side("rejected", second)), values)
    verdicts = list(_verdicts(record))
    level = [p == 0.5 for _, _, p in verdicts]
    used = [v for v, tie in zip(verdicts, level, strict=True) if not tie or ties != "refused"]
    comparisons = [_comparison(*v, ties) for v in used]
    left_out = sum(level) if ties == "refused" else 0
    if not comparisons:
        raise DataError("", "this row holds nothing but ties, from which the objective does not learn", _NO_TIES)
    if len(record.responses) == 2 and len(comparisons) == 1:
        sides = zip(("chosen", "rejected"), (comparisons[0].better, comparisons[0].worse), strict=True)
        return Shaped(tuple(Side(role, record.responses[i]) for role, i in sides), comparisons[0].values, (), left_out)
    return Shaped(tuple(Side("compared", response) for response in record.responses), {}, tuple(comparisons), left_out)


def _comparison(first: int, second: int, p: float, ties: Ties) -> Comparison:
    if p == 0.5:
        return Comparison(first, second, _tie(ties))
    better, worse = (first, second) if p > 0.5 else (second, first)
    sure = p in (0.0, 1.0)
    return Comparison(better, worse, {} if sure else {"preference_B": max(p, 1 - p)})


def _tie(ties: Ties) -> dict[str, float]:
    return {"tie_B": 1.0} if ties == "outcome" else {"preference_B": 0.5}


def _verdicts(record: Judgement) -> Iterable[tuple[int, int, float]]:
    """(first, second, P(first better)) of every two responses that a record says something of."""
    kind, value = record.verdict.kind, record.verdict.value
    if kind == "comparisons":
        return [(int(i), int(j), float(p)) for i, j, p in value]
    if kind == "ranking":
        return [(i, j, 1.0) for i, j in combinations(value, 2)]
    if kind == "score" and len(value) > 1:
        scores = _numbers(record)
        return [(i, j, (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])) for i, j in _every_two(scores)]
    raise _unfit(record, "pairs")


def _every_two(items: Sequence[Any]) -> Iterable[tuple[int, int]]:
    return combinations(range(len(items)), 2)


def _ranked(record: Judgement) -> Shaped:
    kind = record.verdict.kind
    if kind == "choice" and len(record.responses) == 2:
        order = [record.verdict.value, 1 - record.verdict.value]
    elif kind == "ranking":
        order = list(record.verdict.value)
    elif kind == "score" and len(record.responses) > 1:
        scores = _numbers(record)
        if len(set(scores)) < len(scores):
            raise DataError("", "two responses have the same score, and a ranking has no ties", _way("ranked"))
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
    else:
        raise _unfit(record, "ranked")
    roles = ["chosen", *["rejected"] * (len(order) - 1)]
    return Shaped(tuple(Side(role, record.responses[i]) for role, i in zip(roles, order, strict=True)))


def _labels(record: Judgement, shape: Shape) -> list[float]:
    if record.verdict.kind == "choice" and len(record.responses) == 2:
        return [1.0 if i == record.verdict.value else 0.0 for i in range(2)]
    if record.verdict.kind != "score":
        raise _unfit(record, shape)
    labels = _numbers(record)
    strange = [label for label in labels if label not in (0.0, 1.0)]
    if strange:
        raise DataError("", f"the score {strange[0]:g} is no label: 1 (desirable) or 0 (undesirable)")
    return labels


def _labelled(record: Judgement) -> Shaped:
    pairs = zip(record.responses, _labels(record, "labelled"), strict=True)
    return Shaped(tuple(Side("desirable" if label else "undesirable", response) for response, label in pairs))


def _outcomes(record: Judgement) -> Shaped:
    if record.verdict.kind == "steps":
        labels = [float(all(label >= 0 for label in steps)) for steps in record.verdict.value]
    else:
        labels = _labels(record, "outcomes")
    pairs = zip(record.responses, labels, strict=True)
    return Shaped(tuple(Side("response", response, {"": label}) for response, label in pairs))


def _scored(record: Judgement) -> Shaped:
    verdict = record.verdict
    if verdict.kind == "choice" and len(record.responses) == 2:
        sure = 1.0 if verdict.probability is None else verdict.probability
        targets: list[dict[str, float]] = [{"": sure if i == verdict.value else 1 - sure} for i in range(2)]
    elif verdict.kind == "tie" and len(record.responses) == 2:
        targets = [{"": 0.5}, {"": 0.5}]
    elif verdict.kind == "score":
        targets = [dict(v) if isinstance(v, Mapping) else {"": float(v)} for v in verdict.value]
    else:
        raise _unfit(record, "scored")
    return Shaped(tuple(Side("response", r, t) for r, t in zip(record.responses, targets, strict=True)))


def _steps(record: Judgement) -> Shaped:
    if record.verdict.kind != "steps" or len(record.responses) != 1:
        raise _unfit(record, "steps")
    (labels,), parts = record.verdict.value, record.meta["steps"]
    bad = next((i for i, label in enumerate(labels) if label < 0), len(labels))
    taught = list(zip(parts, labels, strict=True))[: bad + 1]
    return Shaped((Side("response", record.responses[0], steps=tuple(taught)),))


def _numbers(record: Judgement) -> list[float]:
    for value in record.verdict.value:
        if isinstance(value, Mapping):
            raise DataError("", f"has scores by name ({listed(value, 20)}), and one score a response is wanted")
    return [float(value) for value in record.verdict.value]


def _pair_signals(record: Judgement) -> dict[str, float]:
    values = {"margin_B": record.strength, "preference_B": record.verdict.probability}
    values |= {f"{name}_B": record.meta.get(name) for name in ("chosen_safe", "rejected_safe")}
    return {name: float(value) for name, value in values.items() if value is not None}
