"""Gates of a recipe: the model in production that each compares with, and, before anything is trained, the gates that
will not be able to decide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from truing.gate.decide import Decision, decide
from truing.gate.evidence import read, run_of
from truing.gate.looks import look_number
from truing.gate.rules import Rule, read_rules
from truing.gate.standing import COMPARISONS, UNMEASURED, measured
from truing.recipe import shipped
from truing.recipe.model_labels import labels
from truing.recipe.references import Recipe, Ref, StageSpec


def production(recipe: Recipe, exam: StageSpec) -> str:
    """Name of the model in production in the findings of an exam. Where that is not among its models, a name that no
    model has, and an empty one where the recipe names none.

    >>> exam = StageSpec("exam", "evaluate", {"models": ["a/new"], "against": ["a/old"], "prompts": "p.jsonl"})
    >>> [production(Recipe("t", (exam,), base=base), exam) for base in ("a/old", "a/older", None)]
    ['base', '$base', '']
    """
    if recipe.replaced is None:
        return ""
    values = contestants(exam)
    place = next((i for i, value in enumerate(values) if same_model(value, recipe.replaced)), None)
    if place is not None:
        return labels(values, recipe.base)[place]
    return UNMEASURED + ("base" if recipe.production is None else recipe.production)


def same_model(value: Any, other: Any) -> bool:
    """True if two names are of one model: the same, or two spellings of one folder."""
    folders = all(isinstance(name, str) and os.path.isdir(name) for name in (value, other))
    return bool(value == other) or (folders and os.path.realpath(value) == os.path.realpath(other))


def contestants(spec: StageSpec) -> list[Any]:
    """The models of an exam with those they are held against; none of another stage."""
    return [*spec.options["models"], *spec.options["against"]] if spec.do == "evaluate" else []


def decide_by_hand(evidence: Path, rules_file: Path) -> tuple[Decision, dict[str, Any]]:
    """The decision that `truing gate` makes, and whose weights it is about: of what lies in a run's folder as one more
    look; of findings by hand as they are, which record neither the model in production nor the number of looks."""
    loaded, rules = read(evidence), read_rules(shipped.locate(rules_file))
    root = run_of(Path(os.path.realpath(evidence)))
    look = 1 if root is None else look_number(root, "", loaded.findings, rules)
    return decide(
        loaded.findings, rules, production=loaded.production, vouched=loaded.vouched, look=look
    ), loaded.weights


def foreseen(recipe: Recipe) -> list[str]:
    """Describe what the gates of a recipe will not be able to decide, each with its way out."""
    return [text for spec in recipe.stages if spec.do == "gate" for text in blind(recipe, spec)]


def blind(recipe: Recipe, gate: StageSpec) -> Iterator[str]:
    """Reasons why a gate will be undecided for want of a comparison with the model in production."""
    evidence = gate.options["evidence"]
    named = [ref.stage for ref in (evidence if isinstance(evidence, list) else [evidence]) if isinstance(ref, Ref)]
    exams = [s for s in recipe.stages if s.name in named and s.do == "evaluate" and "prompts" in s.options]
    if not exams:
        return
    names = {production(recipe, exam) for exam in exams}
    stands = next(iter(measured(names)), "")
    if recipe.replaced is None:
        yield (
            f"stage '{gate.name}' cannot decide: the recipe names no base and no production, so the model that a "
            "release would replace is unknown; give production: MODEL, and name it under 'against' of the exam"
        )
    elif not stands:
        missing = names.pop().removeprefix(UNMEASURED)
        yield (
            f"stage '{gate.name}' cannot decide: {missing} stands in production, and no exam compares with it; give "
            f"against: [{exams[0].options['against'][0]}, {'$base' if missing == 'base' else missing}] in stage "
            f"'{exams[0].name}'"
        )
    elif not any(compares(rule, stands) for rule in read_rules(Path(gate.options["rules"]))):
        yield (
            f"stage '{gate.name}' cannot decide: no rule of {Path(gate.options['rules']).name} compares with {stands}, "
            f"which stands in production; add {{check: win_rate, against: {stands}, min: 0.5}}"
        )


def compares(rule: Rule, stands: str) -> bool:
    """True if a rule may require that a model be no worse than the one in production."""
    level = COMPARISONS.get(rule.check)
    at_least = level is not None and rule.min is not None and rule.min >= level
    return at_least and rule.against in (None, stands) and rule.slice in (None, "all")
