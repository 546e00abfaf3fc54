"""pass@k: how often at least one of k responses to a prompt is right."""

from __future__ import annotations

import math
from collections.abc import Sequence

from truing.errors import UserError
from truing.evaluate.intervals import finite, mean_interval, same_length, share_interval
from truing.evaluate.winrate import held_against
from truing.records import Finding


def pass_at(k: int, answers: int, right: int) -> float:
    """The unbiased estimate of pass@k from `answers` responses to a prompt of which `right` are right.

        1 - C(answers - right, k) / C(answers, k)        Chen et al. 2021, arXiv 2107.03374, eq. 1

    UserError for fewer responses than k, or more right ones than responses.

    >>> pass_at(1, 8, 2), pass_at(8, 8, 2), round(pass_at(4, 8, 2), 4)
    (0.25, 1.0, 0.7857)
    """
    if not 1 <= k <= answers:
        raise UserError(f"pass@{k} needs at least {max(k, 1)} responses to a prompt, got {answers}")
    if not 0 <= right <= answers:
        raise UserError(f"{right} of {answers} responses cannot be right")
    return 1 - math.comb(answers - right, k) / math.comb(answers, k)


def passes(
    model: str,
    scores: Sequence[float],
    against: str,
    scores_against: Sequence[float],
    answers: int,
    passing: float,
    judged_by: str,
) -> list[Finding]:
    """`pass_at_1`, `pass_at_2`, `pass_at_4`, ... of two models, as far as there are responses, and their differences.

    Both have `answers` scores to every prompt, those of a prompt beside each other; a response passes if its score is
    at least `passing`. `pass_at_1` is the accuracy. Intervals are over prompts, of the differences paired by prompt.
    """
    same_length(scores=scores, scores_against=scores_against)
    ours, theirs = (counts(s, answers, passing) for s in (scores, scores_against))
    counted = (
        f"{len(ours)} prompt{'s' if len(ours) != 1 else ''}, {answers} responses to each, right from {passing:g} on"
    )
    evidence, findings = f"{counted}; judged by {judged_by}", []
    for k in (2**i for i in range(answers.bit_length())):
        our_rates, their_rates = ([pass_at(k, answers, right) for right in rights] for rights in (ours, theirs))
        for name, values in ((model, our_rates), (against, their_rates)):
            findings.append(_finding(f"pass_at_{k}", name, values, evidence))
        findings.append(_difference(f"pass_at_{k}_delta", model, against, our_rates, their_rates, evidence))
    return findings


def counts(scores: Sequence[float], answers: int, passing: float) -> list[int]:
    """Count the responses to each prompt that pass. UserError where the scores are not `answers` to each prompt."""
    values = finite(scores, "score")
    if answers < 1 or len(values) % answers:
        raise UserError(f"{len(values)} scores are not {answers} to each prompt")
    return [int(n) for n in (values >= passing).reshape(-1, answers).sum(axis=1)]


def _finding(check: str, model: str, values: Sequence[float], evidence: str) -> Finding:
    mean, between = math.fsum(values) / len(values), share_interval(values)
    return Finding(check, model, mean, interval=between, n=len(values), verdict="measured", evidence=evidence)


def _difference(
    check: str, model: str, against: str, ours: Sequence[float], theirs: Sequence[float], evidence: str
) -> Finding:
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, spread = math.fsum(apart) / len(apart), mean_interval(apart)
    return Finding(
        check, model, mean, against, "all", spread, len(apart), 0.0, held_against(0.0, spread), evidence=evidence
    )
