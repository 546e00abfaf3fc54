"""A decision is about what stands in production: a gate that does not read this comparison cannot decide."""

from __future__ import annotations

import re
from collections.abc import Sequence

from truing.gate.rules import Rule
from truing.types import Finding

COMPARISONS: dict[str, float] = {"win_rate": 0.5, "win_delta": 0.0, "mean_score_delta": 0.0, "pass_at_1_delta": 0.0}
"""The comparisons that say whether a model is better than another, each with its value where the two are level."""
_OF_REWARDS = re.compile(r"^(held_out_|judge_|disagreement)")


def unread(rules: Sequence[Rule], findings: Sequence[Finding], production: str) -> list[tuple[Rule, str]]:
    """For each model that would ship and that no rule compares with `production`: the rule to add, and what is said.

    >>> rules = [Rule(check="win_rate", against="warm", min=0.5)]
    >>> beside = [Finding("win_rate", "direct", 0.6, against, n=500) for against in ("warm", "base")]
    >>> [(rule.text(), text) for rule, text in unread(rules, beside, "base")]
    [('win_rate (model direct, against base): lower end at least 0.5', 'no rule reads how direct compares with base, \
which stands in production; add to the rules: {check: win_rate, model: direct, against: base, min: 0.5}')]
    """
    told = []
    for model in released(rules, findings, production):
        comparisons = [f for f in findings if f.model == model and f.against == production and f.check in COMPARISONS]
        if any(asks(rule, f) for rule in rules for f in comparisons):
            continue
        # Where nothing was compared the rule alone would not do.
        check = comparisons[0].check if comparisons else "win_rate"
        rule = Rule(check=check, model=model, against=production, min=COMPARISONS[check])
        line = f"{{check: {check}, model: {model}, against: {production}, min: {COMPARISONS[check]:g}}}"
        text = f"no rule reads how {model} compares with {production}, which stands in production; "
        text += f"add to the rules: {line}"
        if not comparisons:
            text += f". It was not measured either: name {production} under 'against' of the evaluate stage too"
        told.append((rule, text))
    return told


def released(rules: Sequence[Rule], findings: Sequence[Finding], production: str) -> list[str]:
    """The models that answer and would ship: of those that a rule is about, all that nothing is held against, or else
    all but that in production. Of a reward model, which answers nothing, nothing stands in production."""
    read = [f for f in findings if any(rule.names(f) for rule in rules)]
    speak = dict.fromkeys(f.model for f in read if not _OF_REWARDS.match(f.check))
    rivals = {f.against for f in findings}
    own = [model for model in speak if model != production]
    return [model for model in own if model not in rivals] or own


def asks(rule: Rule, f: Finding) -> bool:
    """Whether a rule demands of a comparison that the model be no worse than the other one."""
    return rule.names(f) and rule.min is not None and rule.min >= COMPARISONS[f.check]
