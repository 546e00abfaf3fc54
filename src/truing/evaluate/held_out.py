"""What a reward model makes of data it was not trained on, measured by what its objective learns from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from truing.data.batch import Batch, Tree, pack
from truing.data.kinds import Comparison, Shape, shape_of
from truing.evaluate import reward_model
from truing.objectives.signals import of_head
from truing.policy.policy import Policy
from truing.rewards.scoring import TOKENS
from truing.signals.observe import observe
from truing.train.objective_sum import Sum, Term
from truing.types import Finding, digest

TIES = frozenset({"chosen_reward_B", "rejected_reward_B", "tie_B", "tie_logit_B"})
"""What an objective asks for whose loss is that of the outcomes win, loss and tie, and of nothing else."""


@dataclass(frozen=True)
class Held:
    """Held-out trees with what was observed of them: one value a row by signal, padded where a row is long."""

    name: str
    trees: Sequence[Tree]
    seen: dict[str, list[Any]]
    head: str
    term: Term
    noise: float = 0.0  # the rounding of a score

    @property
    def within(self) -> float:
        """How far two scores may differ by rounding alone."""
        return 2**0.5 * self.noise

    def __getitem__(self, signal: str) -> list[Any]:
        """One signal of this head, a value a row."""
        return self.seen[of_head(signal, self.head)]

    @property
    def sign(self) -> float:
        """-1 where the head says a cost, which is to be lower for the better response."""
        return -1.0 if self.term.objective.lower_is_better else 1.0

    @property
    def slice(self) -> str:
        """What findings of this head are filed under."""
        return self.head or "all"

    @property
    def prompts(self) -> list[str]:
        """A name of its own for the prompt of every tree."""
        return [digest(list(tree.prompt)) for tree in self.trees]

    @property
    def prompt_B(self) -> list[str]:
        """The prompt of every row."""
        return [p for p, tree in zip(self.prompts, self.trees, strict=True) for _ in range(tree.rows)]


Found = list[Finding | str]


def measure(name: str, policy: Policy, trees: Sequence[Tree], terms: Sum) -> tuple[list[Finding], list[str]]:
    """Findings of a reward model that was fitted by these terms, and in words what could not be measured."""
    seen = look(policy, trees, frozenset(key for term in terms.terms for key in needed(term)))
    whole = Batch(tuple(trees))
    policy.measure(whole)  # its weights have moved since training began
    noise = policy.noise(whole)
    found: Found = []
    first = {(term.head, shape_of(term.objective.needs)): term for term in reversed(terms.terms)}
    for (head, shape), term in reversed(first.items()):
        found += MEASURES.get(shape, nothing)(Held(name, trees, seen, head, term, noise))
    for term in terms.terms:
        if set(term.objective.needs) == TIES:
            found += outcomes_with_ties(Held(name, trees, seen, term.head, term, noise))
    if len(policy.heads) > 1 and "chosen_reward_B" in terms.terms[0].objective.needs:
        shares = dict(zip(policy.heads, policy.scalars.shares, strict=True))
        sum_noise = noise * math.hypot(*shares.values())
        found = [together(Held(name, trees, seen, "", terms.terms[0], sum_noise), shares), *found]
    return [f for f in found if isinstance(f, Finding)], [f for f in found if isinstance(f, str)]


def needed(term: Term) -> list[str]:
    """The signals of held-out rows that a term cannot do without."""
    return list(term.keys(s for s in term.objective.needs if s not in term.objective.coupled).values())


def look(policy: Policy, trees: Sequence[Tree], signals: frozenset[str]) -> dict[str, list[Any]]:
    """These signals of every row."""
    seen: dict[str, list[Any]] = {}
    with torch.inference_mode():
        for group in pack(trees, TOKENS):
            for key, value in observe(policy, Batch(group), signals).items():
                seen.setdefault(key, []).extend(value.double().cpu().tolist())
    return seen


def is_tie(pair: Comparison) -> bool:
    """Whether the raters called it a tie."""
    return pair.values.get("tie_B") == 1.0 or pair.values.get("preference_B") == 0.5


def nothing(held: Held) -> Found:
    """What is said of a shape that has no measure."""
    return [f"nothing held out was measured for {held.term.name}: its data hold nothing to compare with"]


def pairs(held: Held) -> Found:
    """Accuracy on pairs."""
    return _ordered(held, *([held.sign * r for r in held[f"{side}_reward_B"]] for side in SIDES))


def together(held: Held, shares: dict[str, float]) -> Finding | str:
    """Accuracy on pairs by the reward that all heads make together."""
    sides = [
        [sum(w * r for w, r in zip(shares.values(), row, strict=True)) for row in zip(*columns, strict=True)]
        for columns in ([held.seen[of_head(f"{side}_reward_B", head)] for head in shares] for side in SIDES)
    ]
    return _ordered(held, *sides)[0]


SIDES = ("chosen", "rejected")


def _ordered(held: Held, chosen: list[float], rejected: list[float]) -> Found:
    tied = [is_tie(pair) for tree in held.trees for pair in tree.pairs]
    kept = [i for i, tie in enumerate(tied) if not tie]
    if not kept:
        return [f"no held-out accuracy of {held.name}: all {len(tied)} held-out pairs are ties"]
    sides = ([chosen[i] for i in kept], [rejected[i] for i in kept], [held.prompt_B[i] for i in kept])
    left_out = sum(tied)
    return [reward_model.accuracy(held.name, *sides, slice=held.slice, ties_left_out=left_out, within=held.within)]


def outcomes_with_ties(held: Held) -> Found:
    """The share of ties predicted, and the log-loss of all outcomes."""
    given = {signal: torch.tensor(held[signal], dtype=torch.float64) for signal in held.term.objective.needs}
    loss, of_tie = (
        held.term.objective(**(given | {"tie_B": tie}), **held.term.options)
        for tie in (given["tie_B"], torch.ones_like(given["tie_B"]))
    )
    tied = [tie > 0.5 for tie in held["tie_B"]]
    predicted = (-of_tie).exp().tolist()
    return [*reward_model.ties(held.name, predicted, loss.tolist(), tied, held.prompt_B, held.slice)]


def ranked(held: Held) -> Found:
    """Rank agreement on rankings."""
    counts = [len(tree.branches) for tree in held.trees]
    rows = [[held.sign * r for r in row[:count]] for row, count in zip(held["reward_BK"], counts, strict=True)]
    return [*reward_model.rankings(held.name, rows, held.prompts, held.slice, held.within)]


def scored(held: Held) -> Found:
    """Correlation with scores, and the squared error where this is what the objective makes small."""
    given = held.name, held["reward_B"], held["target_B"], held.prompt_B, held.slice
    errors: Found = [*reward_model.squared_error(*given)] if held.term.objective.name == "regression" else []
    return [*errors, reward_model.rank_correlation(*given)]


def labelled(held: Held) -> Found:
    """Accuracy and area under the curve on responses labelled desirable or undesirable."""
    return _told(held, [held.sign * r for r in held["reward_B"]], [label > 0.5 for label in held["desirable_B"]])


def outcomes(held: Held) -> Found:
    """Accuracy and area under the curve on solutions labelled right or wrong, by the logit of their last position."""
    last = [int(sum(mask)) - 1 for mask in held["step_mask_BS"]]
    logits = [row[at] for row, at in zip(held["step_logit_BS"], last, strict=True)]
    return _told(held, logits, [target > 0.5 for target in held["target_B"]])


def _told(held: Held, logits: list[float], good: list[bool]) -> Found:
    given = held.name, logits, good, held.prompt_B, held.slice
    return [*reward_model.label_accuracy("held_out_accuracy", *given, held.noise), reward_model.area(*given)]


def steps(held: Held) -> Found:
    """Accuracy on labelled steps, and how often the first bad step of a solution (or that it has none) is found."""
    neutral = dict(held.term.options).get("neutral", "good")
    logits: list[float] = []
    good: list[bool] = []
    owners: list[str] = []
    first: list[float] = []
    true: list[int] = []
    rows = zip(held["step_logit_BS"], held["step_label_BS"], held["step_mask_BS"], held.prompts, strict=True)
    for z, labels, mask, prompt in rows:
        count = int(sum(mask))
        fine = [label > 0 or (label == 0 and neutral == "good") for label in labels[:count]]
        logits.extend(z[:count])
        good.extend(fine)
        owners.extend([prompt] * count)
        true.append(_first_bad(fine))
        ways = [_first_bad([x > side * held.noise for x in z[:count]]) for side in (1, -1)]  # a tie counts half
        first.append(sum(way == true[-1] for way in ways) / 2)
    given = held.name, logits, good, owners, held.slice, held.noise
    evidence = f"{len(first)} solutions: of {sum(first):g} the first bad step was told, or that there is none"
    check = "held_out_first_error_accuracy"
    errors = reward_model.share(check, held.name, first, held.prompts, None, evidence, slice=held.slice)
    beside = reward_model.above_commonest(errors, first, true, held.prompts, "the commonest answer")
    return [*reward_model.label_accuracy("held_out_step_accuracy", *given), errors, beside]


def _first_bad(good: Sequence[bool]) -> int:
    return next((i for i, fine in enumerate(good) if not fine), -1)


MEASURES: dict[Shape, Callable[[Held], Found]] = {
    "pairs": pairs,
    "ranked": ranked,
    "scored": scored,
    "labelled": labelled,
    "outcomes": outcomes,
    "steps": steps,
}
