"""The `expect:` block of a recipe, checked against its stages: which findings there will be, and their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from truing.errors import UserError, unknown
from truing.recipe.expected import FORM, TAUGHT, Expected
from truing.recipe.model_labels import LOOKUP, best_of, labels
from truing.recipe.references import Ref
from truing.recipe.scope import Scope
from truing.schema.signature import Part

COMPARISON = re.compile(r"(win_rate|_delta|_delta_tokens)$")
"""Findings of an exam that compare a model with another one."""


def in_full(path: str, scope: Scope) -> str:
    """A path of the expect block with the stages that `loop.stage` stands for: of the last turn."""
    named, at, against = path.partition("@")
    model, dot, check = named.rpartition(".")
    return in_last_turn(model, scope) + dot + check + at + in_last_turn(against, scope)


def in_last_turn(text: str, scope: Scope) -> str:
    """A text with the stages that each `loop.stage` in it stands for."""
    for loop, last in scope.loops.items():
        for name, real in last.items():
            text = re.sub(rf"(?:^|(?<=\.)){re.escape(f'{loop}.{name}')}(?=[.#]|$)", real.replace("\\", r"\\"), text)
    return text


def trouble(path: str, full: str, scope: Scope) -> str:
    """Problem with a path of the expect block (`full` as `in_full` has it), or an empty string."""
    finding = Expected.read(full)
    if finding is None:
        return f"'{path}' is not of the form {FORM}"
    if finding.stage not in scope.done:
        return f"'{path}': {unknown('stage', finding.stage, scope.done)}"
    part, options = scope.done[finding.stage], scope.options[finding.stage]
    if part is None:
        return ""
    if finding.check == TAUGHT and any(option.name == "learning_rate" for option in part.options):
        return "" if finding.model == finding.stage else f"'{path}': {unknown('model', finding.model, [finding.stage])}"
    if part.gives not in ("findings", "reward"):
        return f"'{path}': stage '{finding.stage}' ({part.name}) measures nothing"
    if part.gives == "reward" and "eval" not in options:
        return f"'{path}': stage '{finding.stage}' ({part.name}) measures nothing without 'eval'"
    try:
        models, rivals = named_in(part, finding.stage, scope)
    except UserError as problem:
        return f"'{path}': {problem}"
    if finding.model not in (*models, *rivals):
        return f"'{path}': {unknown('model', finding.model, dict.fromkeys([*models, *rivals]))}"
    opponents = [rival for rival in dict.fromkeys(rivals) if rival != finding.model and finding.model in models]
    opponents += [LOOKUP] * (options.get("lookup") is True)
    if finding.against and finding.against not in opponents:
        return f"'{path}': {unknown('opponent', finding.against, opponents)}"
    if not finding.against and len(opponents) > 1 and COMPARISON.search(finding.check):
        return f"'{path}' could be against {' or '.join(opponents)}: say '{path}@{opponents[0]}'"
    return ""


def named_in(part: Part, stage: str, scope: Scope) -> tuple[list[str], list[str]]:
    """Names of the models of a stage that measures in its findings, and of those they are compared with."""
    options = scope.options[stage]
    against = as_list(options.get("against"))
    subjects = measured(options) if part.gives == "findings" else [Ref("", stage)]
    called = labels([*subjects, *against], scope.base)
    models, rivals = called[: len(subjects)], called[len(subjects) :]
    if "reward" in options:  # one curve, of the best of n
        models = [best_of(model, "n") for model in models]
    if options.get("best_of") is not None:
        models += [best_of(model, options["best_of"]) for model in models]
    return models, rivals


def measured(options: Mapping[str, Any]) -> list[Any]:
    """The models whose findings a stage gives: those of an exam, runs that are diagnosed, or the one that responds."""
    return as_list(options.get("models", options.get("runs", options.get("model"))))


def as_list(value: Any) -> list[Any]:
    """The models that an option names, be it one or several; none where it names none."""
    models = value if isinstance(value, list) else [value]
    return [model for model in models if isinstance(model, str | Ref | Mapping)]
