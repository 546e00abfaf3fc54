"""What a gate of a recipe has to know beside its evidence: what stands in production, and what it will not be able to
decide, said before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from truing.gate.decide import Decision, decide
from truing.gate.evidence import read
from truing.gate.looks import look_number
from truing.gate.rules import Rule, read_rules
from truing.gate.standing import COMPARISONS
from truing.pipeline.labels import labels
from truing.pipeline.plan import read_json
from truing.pipeline.spec import Recipe, Ref, StageSpec
from truing.seals import MANIFEST


def production(recipe: Recipe) -> str:
    """What the model in production is called in the findings of a recipe; empty where the recipe names none."""
    if recipe.replaced is None:
        return ""
    for values in map(contestants, recipe.stages):
        if recipe.replaced in values:
            return labels(values, recipe.base)[values.index(recipe.replaced)]
    return labels([recipe.replaced], recipe.base)[0]


def contestants(spec: StageSpec) -> list[Any]:
    """The models of an exam with those they are held against; none of another stage."""
    return [*spec.options["models"], *spec.options["against"]] if spec.do == "evaluate" else []


def decide_by_hand(evidence: Path, rules_file: Path) -> tuple[Decision, dict[str, Any]]:
    """The decision that `truing gate` makes, and whose weights it is about: of a run's folder with what stands in
    production there, and as one more look; of a file from elsewhere as it is, which says neither."""
    given, rules = read(evidence), read_rules(rules_file)
    root = next((p for p in (evidence, evidence.parent.parent) if (p / MANIFEST).is_file()), None)
    if root is None:
        return decide(given.findings, rules), given.weights
    stands, look = read_json(root / MANIFEST).get("production"), look_number(root, "", given.findings, rules)
    return decide(given.findings, rules, production=stands, look=look), given.weights


def foreseen(recipe: Recipe) -> list[str]:
    """What the gates of a recipe will not be able to decide, each with its way out."""
    return [text for spec in recipe.stages if spec.do == "gate" for text in blind(recipe, spec)]


def blind(recipe: Recipe, gate: StageSpec) -> Iterator[str]:
    """Why a gate will be undecided for want of a comparison with what stands in production."""
    evidence = gate.options["evidence"]
    named = [ref.stage for ref in (evidence if isinstance(evidence, list) else [evidence]) if isinstance(ref, Ref)]
    exams = [s for s in recipe.stages if s.name in named and s.do == "evaluate" and "prompts" in s.options]
    if not exams:
        return
    stands = production(recipe)
    if not stands:
        yield (
            f"stage '{gate.name}' cannot decide: the recipe names no base and no production, so nothing is known of "
            "the model that a release would replace; give production: MODEL, and name it under 'against' of the exam"
        )
    elif not any(recipe.replaced in contestants(exam) for exam in exams):
        yield (
            f"stage '{gate.name}' cannot decide: {stands} stands in production, and no exam compares with it; give "
            f"against: [{exams[0].options['against'][0]}, {'$base' if stands == 'base' else recipe.replaced}] in stage "
            f"'{exams[0].name}'"
        )
    elif not any(compares(rule, stands) for rule in read_rules(Path(gate.options["rules"]))):
        yield (
            f"stage '{gate.name}' cannot decide: no rule of {Path(gate.options['rules']).name} compares with {stands}, "
            f"which stands in production; add {{check: win_rate, against: {stands}, min: 0.5}}"
        )


def compares(rule: Rule, stands: str) -> bool:
    """Whether a rule may ask that a model be no worse than the one in production."""
    level = COMPARISONS.get(rule.check)
    return level is not None and rule.min is not None and rule.min >= level and rule.against in (None, stands)
