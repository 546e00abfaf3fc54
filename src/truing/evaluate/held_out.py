"""Measurements of a reward model on held-out data, in the form that its objective learns from."""

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
from truing.records import Finding, digest
from truing.rewards.scoring import TOKENS
from truing.signals.observe import observe
from truing.train.objective_sum import Term, WeightedObjectives

TIES = frozenset({"chosen_reward_B", "rejected_reward_B", "tie_B", "tie_logit_B"})
"""The signals of an objective whose loss is that of the outcomes win, loss and tie, and of nothing else."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out trees with their observed signals: by signal one value a row, padded to the longest row."""

    name: str
    trees: Sequence[Tree]
    observed: dict[str, list[Any]]
    head: str
    term: Term
    noise: float = 0.0  # the rounding of a score

    @property
    def within(self) -> float:
        """The most by which two scores may differ by rounding alone."""
        return 2**0.5 * self.noise

    def __getitem__(self, signal: str) -> list[Any]:
        """One signal of this head, a value a row."""
        return self.observed[of_head(signal, self.head)]

    @property
    def sign(self) -> float:
        """The sign of the score: -1 where the head is a cost, lower for the better response."""
        return -1.0 if self.term.objective.lower_is_better else 1.0

    @property
    def slice(self) -> str:
        """The slice of this head's findings."""
        return self.head or "all"

    @property
    def prompts(self) -> list[str]:
        """A unique name for the prompt of every tree."""
        return [digest(list(tree.prompt)) for tree in self.trees]

    @property
    def prompt_B(self) -> list[str]:
        """The prompt of every row."""
        return [p for p, tree in zip(self.prompts, self.trees, strict=True) for _ in range(tree.rows)]


Outcomes = list[Finding | str]


def measure(
    name: str, policy: Policy, trees: Sequence[Tree], terms: WeightedObjectives
) -> tuple[list[Finding], list[str]]:
    """Measure a reward model that was fitted by these terms; return findings, and notes on what could not be
    measured."""
    observed = observe_rows(policy, trees, frozenset(key for term in terms.terms for key in needed(term)))
    whole = Batch(tuple(trees))
    policy.measure(whole)  # its weights have moved since training began
    noise = policy.noise(whole)
    outcomes: Outcomes = []
    first = {(term.head, shape_of(term.objective.needs)): term for term in reversed(terms.terms)}
    for (head, shape), term in reversed(first.items()):
        outcomes += MEASURES.get(shape, nothing)(HeldOut(name, trees, observed, head, term, noise))
    for term in terms.terms:
        if set(term.objective.needs) == TIES:
            outcomes += outcomes_with_ties(HeldOut(name, trees, observed, term.head, term, noise))
    if len(policy.heads) > 1 and "chosen_reward_B" in terms.terms[0].objective.needs:
        shares = dict(zip(policy.heads, policy.scalars.shares, strict=True))
        sum_noise = noise * math.hypot(*shares.values())
        outcomes = [together(HeldOut(name, trees, observed, "", terms.terms[0], sum_noise), shares), *outcomes]
    return [f for f in outcomes if isinstance(f, Finding)], [f for f in outcomes if isinstance(f, str)]


def needed(term: Term) -> list[str]:
    """The signals of held-out rows that a term cannot do without."""
    return list(term.keys(s for s in term.objective.needs if s not in term.objective.coupled).values())


def observe_rows(policy: Policy, trees: Sequence[Tree], signals: frozenset[str]) -> dict[str, list[Any]]:
    """Observe these signals of every row."""
    values: dict[str, list[Any]] = {}
    with torch.inference_mode():
        for group in pack(trees, TOKENS):
            for key, value in observe(policy, Batch(group), signals).items():
                values.setdefault(key, []).extend(value.double().cpu().tolist())
    return values


def is_tie(pair: Comparison) -> bool:
    """True if the raters called it a tie."""
    return pair.values.get("tie_B") == 1.0 or pair.values.get("preference_B") == 0.5


def nothing(held: HeldOut) -> Outcomes:
    """The note on a shape that has no measure."""
    return [f"nothing held out was measured for {held.term.name}: its data hold nothing to compare with"]


def pairs(held: HeldOut) -> Outcomes:
    """Accuracy on pairs."""
    return _ordered(held, *([held.sign * r for r in held[f"{side}_reward_B"]] for side in SIDES))


def together(held: HeldOut, shares: dict[str, float]) -> Finding | str:
    """Accuracy on pairs by the reward that all heads make together."""
    sides = [
        [sum(w * r for w, r in zip(shares.values(), row, strict=True)) for row in zip(*columns, strict=True)]
        for columns in ([held.observed[of_head(f"{side}_reward_B", head)] for head in shares] for side in SIDES)
    ]
    return _ordered(held, *sides)[0]


SIDES = ("chosen", "rejected")


def _ordered(held: HeldOut, chosen: list[float], rejected: list[float]) -> Outcomes:
    tied = [is_tie(pair) for tree in held.trees for pair in tree.pairs]
    decided = [i for i, tie in enumerate(tied) if not tie]
    if not decided:
        return [f"no held-out accuracy of {held.name}: all {len(tied)} held-out pairs are ties"]
    sides = ([chosen[i] for i in decided], [rejected[i] for i in decided], [held.prompt_B[i] for i in decided])
    left_out = sum(tied)
    return [reward_model.accuracy(held.name, *sides, slice=held.slice, ties_left_out=left_out, within=held.within)]


def outcomes_with_ties(held: HeldOut) -> Outcomes:
    """The share of ties predicted, and the log-loss of all outcomes."""
    signals = {signal: torch.tensor(held[signal], dtype=torch.float64) for signal in held.term.objective.needs}
    loss, of_tie = (
        held.term.objective(**(signals | {"tie_B": tie}), **held.term.options)
        for tie in (signals["tie_B"], torch.ones_like(signals["tie_B"]))
    )
    tied = [tie > 0.5 for tie in held["tie_B"]]
    predicted = (-of_tie).exp().tolist()
    return [*reward_model.ties(held.name, predicted, loss.tolist(), tied, held.prompt_B, held.slice)]


def ranked(held: HeldOut) -> Outcomes:
    """Rank agreement on rankings."""
    counts = [len(tree.branches) for tree in held.trees]
    rows = [[held.sign * r for r in row[:count]] for row, count in zip(held["reward_BK"], counts, strict=True)]
    return [*reward_model.rankings(held.name, rows, held.prompts, held.slice, held.within)]


def scored(held: HeldOut) -> Outcomes:
    """Correlation with scores, and the squared error if that is the objective."""
    arguments = held.name, held["reward_B"], held["target_B"], held.prompt_B, held.slice
    errors: Outcomes = [*reward_model.squared_error(*arguments)] if held.term.objective.name == "regression" else []
    return [*errors, reward_model.rank_correlation(*arguments)]


def labelled(held: HeldOut) -> Outcomes:
    """Accuracy and area under the curve on responses labelled desirable or undesirable."""
    return _label_findings(
        held, [held.sign * r for r in held["reward_B"]], [label > 0.5 for label in held["desirable_B"]]
    )


def outcomes(held: HeldOut) -> Outcomes:
    """Accuracy and area under the curve on solutions labelled right or wrong, by the logit of their last position."""
    last = [int(sum(mask)) - 1 for mask in held["step_mask_BS"]]
    logits = [row[at] for row, at in zip(held["step_logit_BS"], last, strict=True)]
    return _label_findings(held, logits, [target > 0.5 for target in held["target_B"]])


def _label_findings(held: HeldOut, logits: list[float], good: list[bool]) -> Outcomes:
    arguments = held.name, logits, good, held.prompt_B, held.slice
    return [*reward_model.label_accuracy("held_out_accuracy", *arguments, held.noise), reward_model.area(*arguments)]


def steps(held: HeldOut) -> Outcomes:
    """Accuracy on labelled steps, and how often the first bad step of a solution (or that it has none) is
    identified."""
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
    arguments = held.name, logits, good, owners, held.slice, held.noise
    evidence = f"{len(first)} solutions: of {sum(first):g} the first bad step was identified, or that there is none"
    check = "held_out_first_error_accuracy"
    errors = reward_model.share(check, held.name, first, held.prompts, None, evidence, slice=held.slice)
    beside = reward_model.above_commonest(errors, first, true, held.prompts, "the commonest outcome")
    return [*reward_model.label_accuracy("held_out_step_accuracy", *arguments), errors, beside]


def _first_bad(good: Sequence[bool]) -> int:
    return next((i for i, fine in enumerate(good) if not fine), -1)


MEASURES: dict[Shape, Callable[[HeldOut], Outcomes]] = {
    "pairs": pairs,
    "ranked": ranked,
    "scored": scored,
    "labelled": labelled,
    "outcomes": outcomes,
    "steps": steps,
}
