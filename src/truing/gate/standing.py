"""The comparison with the model in production: a gate whose rules do not read it cannot decide."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from truing.gate.rules import Rule
from truing.records import Finding

COMPARISONS: dict[str, float] = {"win_rate": 0.5, "win_delta": 0.0, "mean_score_delta": 0.0, "pass_at_1_delta": 0.0}
"""Comparisons that show whether a model is better than another, each with its value where the two are level."""
UNMEASURED = "$"
"""First character of the name of a model in production that no exam compared with; no model of a finding has it."""
_OF_REWARDS = re.compile(r"^(held_out_(?!win)\w+|judge_accuracy)$")


def unread(
    rules: Sequence[Rule], findings: Sequence[Finding], production: Sequence[str], vouched: Collection[Finding]
) -> list[tuple[Rule, str]]:
    """For each model that would ship and that no rule compares with the one in `production` (as exams call it): the
    rule to add, and the message. A comparison is on all prompts, and among the `vouched` findings, which exams made.

    >>> rules = [Rule(check="win_rate", against="warm", min=0.5)]
    >>> beside = [Finding("win_rate", "direct", 0.6, against, n=500) for against in ("warm", "base")]
    >>> [(rule.text(), text) for rule, text in unread(rules, beside, ["base"], beside)]
    [('win_rate (model direct, against base): lower end at least 0.5', 'no rule reads how direct compares with base, \
which stands in production; add to the rules: {check: win_rate, model: direct, against: base, min: 0.5}')]
    """
    lines = []
    name = production[0].removeprefix(UNMEASURED)
    for model in released(rules, findings, production):
        comparisons = [f for f in findings if f.model == model and f.against in production and compares(f)]
        comparisons = [f for f in comparisons if f in vouched]
        if any(asks(rule, f) for rule in rules for f in comparisons):
            continue
        # Where nothing was compared the rule alone would not do.
        check = comparisons[0].check if comparisons else "win_rate"
        rule = Rule(check=check, model=model, against=name, min=COMPARISONS[check])
        text = f"no rule reads how {model} compares with {name}, which stands in production; add to the rules: "
        text += f"{{check: {check}, model: {model}, against: {name}, min: {COMPARISONS[check]:g}}}"
        if not comparisons:
            text += f". No exam of this evidence measured it: name {name} under 'against' of the evaluate stage too"
        lines.append((rule, text))
    return lines


def measured(names: Iterable[str]) -> list[str]:
    """Names of the model in production under which exams measured it."""
    return [name for name in names if name and not name.startswith(UNMEASURED)]


def released(rules: Sequence[Rule], findings: Sequence[Finding], production: Sequence[str]) -> list[str]:
    """The models that answer and would ship: all that were compared with another, or that a rule reads, but for that in
    production and for those that others are compared with, unless a rule names them. Of a reward model, which responds
    to nothing, nothing stands in production."""
    read = [f for f in findings if any(rule.names(f) for rule in rules) and not _OF_REWARDS.match(f.check)]
    compared = [f for f in findings if f.check in COMPARISONS]
    rivals, named = {f.against for f in compared}, {rule.model for rule in rules}
    models = dict.fromkeys(f.model for f in (*compared, *read) if f.model not in production)
    return [model for model in models if model not in rivals or model in named]


def compares(f: Finding) -> bool:
    """True if a finding compares two models on all prompts."""
    return f.check in COMPARISONS and f.slice == "all"


def asks(rule: Rule, f: Finding) -> bool:
    """True if a rule requires of a comparison that the model be no worse than the other one."""
    return rule.names(f) and rule.min is not None and rule.min >= COMPARISONS[f.check]
