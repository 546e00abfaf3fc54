"""Several rewards as one: a weighted sum, one before the other, or a reward under budgets of costs.

    sum              sum of weight * value
    lexicographic    the share of its siblings that a response beats (a tie counts a half): by the first reward, where
                     they are within `within` of each other by the second, and so on
    with costs       (sum - m * cost) / (1 + m); the multiplier m of a cost follows its mean over its budget

A round's multipliers follow from the round before alone, which is on disk: no other state is kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch

from truing.errors import RunFailed, UserError
from truing.objectives.advantage import lagrangian, next_multiplier
from truing.objectives.equal import alike
from truing.records import Score, digest, messages_json
from truing.rewards.call import SILENT, Call, Response, failed

Combine: TypeAlias = Literal["sum", "lexicographic"]
OnError: TypeAlias = Literal["stop", "drop"]
Parts: TypeAlias = Mapping[str, float]
MULTIPLIER, TIMED_OUT, UNREAD = "multiplier:{}", "timed_out:", "unread:"
"""Parts that no reward returned, each of a reward: the multiplier of a cost, that the reward timed out on the response,
and that it found no answer to read in it. No reward's name has a colon in it."""
COUNTED = {
    TIMED_OUT: "reward '{}' timed out on {} responses, which got its score for a timeout",
    UNREAD: "reward '{}' could read no answer in {} responses, which got its lowest score",
}
"""The parts that are counted and not averaged, with the note that says how many there are."""


@dataclass(frozen=True)
class Cost:
    """The options that make a reward a cost: its mean over responses is to stay within `budget`. `rate` is the step
    size of its multiplier, `start` the multiplier of the first round."""

    budget: float
    rate: float = 0.05
    start: float = 1.0

    def after(self, name: str, before: Sequence[Parts]) -> float:
        """The multiplier of a round, from the parts of the responses of the round before (none before the first)."""
        scored = [parts for parts in before if name in parts]
        if not scored:
            return self.start if not before else next(p[MULTIPLIER.format(name)] for p in before)
        mean = math.fsum(parts[name] for parts in scored) / len(scored)
        try:
            return next_multiplier(scored[0][MULTIPLIER.format(name)], mean - self.budget, rate=self.rate)
        except (OverflowError, UserError) as problem:
            raise RunFailed(f"the multiplier of cost '{name}' left all bounds; give it a lower rate") from problem


@dataclass(frozen=True)
class Term:
    """One reward of several: its name, its call and its weight."""

    name: str
    call: Call
    weight: float = 1.0
    within: float = 0.0
    cost: Cost | None = None
    cache: dict[str, Score] = field(default_factory=dict, compare=False)

    def scores(self, answers: Sequence[Response]) -> list[Score]:
        """The reward's scores of the responses; a deterministic reward is not called again for a response it has
        scored."""
        if not self.call.function.deterministic:
            return self.call(answers)
        keys = [digest([messages_json(a.prompt), a.response, len(a.ids), dict(a.row), a.whole]) for a in answers]
        new = {key: answer for key, answer in zip(keys, answers, strict=True) if key not in self.cache}
        fresh = dict(zip(new, self.call(list(new.values())), strict=True))
        self.cache.update((key, score) for key, score in fresh.items() if not score.failed and not score.timed_out)
        return [self.cache.get(key) or fresh[key] for key in keys]


@dataclass(frozen=True)
class Rewards:
    """All rewards of a run as one. `on_error` says whether a response that one of them failed on ends the run; a
    response that is itself the reason never does: it is left out and counted."""

    terms: tuple[Term, ...]
    combine: Combine = "sum"
    on_error: OnError = "stop"

    @property
    def remembers(self) -> bool:
        """True if a round's scores depend on those of the round before."""
        return any(term.cost for term in self.terms)

    def __call__(self, answers: Sequence[Response], before: Sequence[Parts] = ()) -> list[Score]:
        """One score for each response, with every reward's score among its `parts`; RunFailed where one failed and
        `on_error` is stop. `before` are the parts of the round before, for the multipliers of costs."""
        scores = {term.name: term.scores(answers) for term in self.terms}
        rows = [self._joined(dict(zip(scores, row, strict=True))) for row in zip(*scores.values(), strict=True)]
        for answer, row in zip(answers, rows, strict=True):
            if row.failed and self.on_error == "stop" and row.blame == "reward":
                raise RunFailed(
                    f"{row.why}. The response was: {shown(answer.response)}\n  Mend the reward, or leave such "
                    "responses out, counted, by on_error: drop."
                )
        if self.combine == "lexicographic":
            return self._ordered(answers, rows)
        return self._under(rows, {t.name: t.cost.after(t.name, before) for t in self.terms if t.cost})

    def _joined(self, row: Mapping[str, Score]) -> Score:
        """Join the rewards' scores of one response: each among the parts, the sum of all but the costs as value."""
        for name, score in sorted(row.items(), key=lambda each: each[1].blame == "response"):
            if score.failed and (score.why != SILENT or self.combine != "sum" or self._of(name).cost):
                return failed(f"reward '{name}': {score.why}", score.blame)
        parts = {name: score.value for name, score in row.items() if not score.failed}
        if not parts:
            return failed(f"reward '{next(iter(row))}' {SILENT}, and neither has any other")
        terms = [t for t in self.terms if t.name in parts and not t.cost]
        return Score(math.fsum(t.weight * parts[t.name] for t in terms), parts | counted(row))

    def _of(self, name: str) -> Term:
        return next(term for term in self.terms if term.name == name)

    def _under(self, rows: list[Score], multipliers: Mapping[str, float]) -> list[Score]:
        """The scores under the costs, with the multipliers among their parts."""
        if not multipliers:
            return rows
        whole, added = math.fsum(multipliers.values()), {MULTIPLIER.format(n): m for n, m in multipliers.items()}
        out = []
        for row in rows:
            cost = 0.0 if row.failed else math.fsum(m * row.parts[name] for name, m in multipliers.items()) / whole
            value, paid = torch.tensor([row.value, cost], dtype=torch.float64)
            score = lagrangian(value, paid, multiplier=whole).item()
            out.append(replace(row, value=score, parts={**row.parts, **added}))
        return out

    def _ordered(self, answers: Sequence[Response], rows: list[Score]) -> list[Score]:
        """The scores as shares of the siblings that each response beats."""
        groups: dict[int, list[int]] = {}
        for i, (answer, row) in enumerate(zip(answers, rows, strict=True)):
            if not row.failed:
                groups.setdefault(answer.group, []).append(i)
        out = list(rows)
        for places in groups.values():
            for i in places:
                won = math.fsum(self._beats(rows[i].parts, rows[j].parts) for j in places if j != i)
                out[i] = Score(won / max(1, len(places) - 1), rows[i].parts)
        return out

    def _beats(self, parts: Parts, other: Parts) -> float:
        """Return 1 where `parts` are better by the first reward that differs, 0 where they are worse, a half where none
        does. A difference by rounding alone is none."""
        for term in self.terms:
            apart = math.copysign(1.0, term.weight) * (parts[term.name] - other[term.name])
            if abs(apart) > term.within and not alike([parts[term.name], other[term.name]]):
                return float(apart > 0)
        return 0.5


def shown(text: str, most: int = 200) -> str:
    """A text on one line, its end left out where it is long."""
    return repr(text if len(text) <= most else text[:most] + " ...")


def counted(scores: Mapping[str, Score]) -> dict[str, float]:
    """The parts that count which rewards timed out on one response, and which could read no answer in it."""
    timed_out = {TIMED_OUT + name: 1.0 for name, score in scores.items() if score.timed_out}
    return timed_out | {UNREAD + name: 1.0 for name, score in scores.items() if score.unread}


def count_notes(parts: Iterable[Parts]) -> list[str]:
    """Notes on how many responses each reward timed out on, and in how many it could read no answer, from their
    parts."""
    count = _count(parts)
    return [
        COUNTED[kind].format(name.removeprefix(kind), n)
        for kind in COUNTED
        for name, n in count.items()
        if name.startswith(kind)
    ]


def counted_parts(parts: Iterable[Parts]) -> dict[str, int]:
    """Count the responses on which each reward timed out (`timed_out_` and its name), or could read no answer
    (`unread_` and its name)."""
    return {name.replace(":", "_", 1): n for name, n in _count(parts).items()}


def _count(parts: Iterable[Parts]) -> Counter[str]:
    return Counter(name for row in parts for name in row if name.startswith(tuple(COUNTED)))


def round_metrics(rows: Sequence[tuple[Parts, str]]) -> dict[str, Any]:
    """Metrics of a round from its responses' parts and failures: the mean of each part, on how many a reward timed out
    (`timed_out_` and its name) or could read no answer (`unread_` and its name), and how many failed. Where a reward
    has no score for some responses, its mean is over the others, as many as `scored_by_` and its name says."""
    names = dict.fromkeys(name for parts, why in rows if not why for name in parts)
    means: dict[str, float] = {}
    scored = sum(not why for _, why in rows)
    for name in names:
        values = [parts[name] for parts, why in rows if not why and name in parts]
        whole = math.fsum(values)
        mean = whole if name.startswith(tuple(COUNTED)) else whole / len(values)
        means[name.replace(":", "_") if ":" in name else f"reward_{name}"] = mean
        if ":" not in name and len(values) < scored:
            means[f"scored_by_{name}"] = float(len(values))
    return means | {"failed": float(sum(bool(why) for _, why in rows))}
