"""The `objective:` of a stage: `dpo`, `{dpo: {beta: 0.1}}`, or a sum `[dpo, {nll: {weight: 0.1}}]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truing import registry
from truing.data.kinds import WORDS, common_shape, shape_of
from truing.errors import UserError, unknown
from truing.pipeline.document import LOST, Mistakes, Node
from truing.signature import Option, Part
from truing.types import OWED

WEIGHT = Option("weight", "NonNegative", 1.0)
HEAD = Option("head", "str", "")
"""What a term of a sum takes besides its objective's own options: its weight, and the head it reads and teaches."""


def of_reward(part: Part) -> bool:
    """Whether an objective teaches a reward model, and not a policy."""
    return any("reward" in name or "_logit_" in name for name in part.needs)


def check_objective(owner: Part, node: Node, folder: Path | None, mistakes: Mistakes) -> Any:
    """The objective as plain data with its options in their own types: a name, a mapping of one, or a list of these."""
    items = node.value if isinstance(node.value, list) else [node]
    if not items:
        mistakes.add(node.line, "objective is an empty list")
        return None
    terms, found = [], []
    for item in items:
        term, part = check_term(item, folder, mistakes)
        terms.append(term)
        found += [(part, item.line)] if part else []
    check_families(owner, found, mistakes)
    return terms if isinstance(node.value, list) else terms[0]


def check_term(node: Node, folder: Path | None, mistakes: Mistakes) -> tuple[Any, Part | None]:
    """One term: its plain form, and the objective it names (None where there is none)."""
    if isinstance(node.value, str):
        name, options = node.value, Node({}, node.line)
    elif isinstance(node.value, dict) and len(node.value) == 1:
        ((name, options),) = node.value.items()
    else:
        mistakes.add(
            node.line,
            f"an objective is a name, or one name with its options such as {{dpo: {{beta: 0.1}}}}, not {node.plain}",
        )
        return None, None
    try:
        part = registry.resolve(name, "objective", folder)
    except UserError as problem:
        mistakes.add(node.line, str(problem))
        return None, None
    owed = [signal for signal in part.needs if signal in OWED]
    if owed:
        mistakes.add(
            node.line, f"objective '{name}' needs {', '.join(owed)}, which no stage computes yet; call it from Python"
        )
        return None, None
    if options.value is not None and not isinstance(options.value, dict):
        mistakes.add(
            options.line, f"the options of '{name}' are a mapping such as {{weight: 0.1}}, not {options.plain!r}"
        )
        return None, part
    for option in part.options:
        if option.required and option.name not in options.entries:
            mistakes.add(node.line, f"objective '{name}' needs '{option.name}'")
    full = absolute(name, folder)
    if isinstance(node.value, str):
        return full, part
    own = (WEIGHT, HEAD) if of_reward(part) else (WEIGHT,)
    known = {option.name: option for option in (*part.options, *own)}
    given = {}
    for key, value in options.entries.items():
        if value.value is LOST:
            continue
        if key not in known:
            mistakes.add(value.line, f"objective '{name}': {unknown('option', key, known)}")
        elif key in part.unread:
            mistakes.add(value.line, f"objective '{name}': its option '{key}' is never read")
        else:
            try:
                given[key] = known[key].check(value.plain)
            except ValueError as problem:
                mistakes.add(value.line, f"objective '{name}': {problem}")
    return {full: given}, part


def absolute(name: str, folder: Path | None) -> str:
    """A name of the form `file.py:name` with the file's full path, so that it means the same wherever it is loaded."""
    where, _, attribute = name.rpartition(":")
    return f"{registry.plug_in(name, 'objective', folder)[0]}:{attribute}" if where.endswith(".py") else name


def check_families(owner: Part, terms: list[tuple[Part, int]], mistakes: Mistakes) -> None:
    """Whether the terms can be learned together, and in this stage. Its default objective says what it trains, a
    policy or a reward model, and whether single responses alone are enough for it."""
    home = own_objective(owner)
    if home is None or not terms:
        return
    for part, line in terms:
        if of_reward(part) != of_reward(home) or (shape_of(home.needs) == "single" != shape_of(part.needs)):
            stages = [name for name, other in registry.parts("stage").items() if trains(other, part)]
            belongs = f"; it belongs under {' or '.join(stages)}" if stages else ""
            mistakes.add(
                line,
                f"objective '{part.name}' needs {', '.join(part.needs)}, which {owner.name} does not give{belongs}",
            )
            return
    part, line = terms[0]
    try:
        shape = common_shape((part.name, part.needs) for part, _ in terms)
    except UserError as problem:
        mistakes.add(line, str(problem))
        return
    if shape == "single" != shape_of(home.needs):
        mistakes.add(
            line,
            f"objective '{part.name}' reads single responses; under {owner.name} it can only be added to one that "
            f"learns from {WORDS[shape_of(home.needs)]} or the like",
        )


def trains(owner: Part, part: Part) -> bool:
    """Whether this stage can train this objective alone."""
    home = own_objective(owner)
    alone = (shape_of(part.needs) == "single", home is not None and shape_of(home.needs) == "single")
    return home is not None and of_reward(home) == of_reward(part) and alone[0] == alone[1]


def own_objective(owner: Part) -> Part | None:
    """A stage's default objective, or None where it has none."""
    option = owner.option("objective")
    known = registry.parts("objective")
    return known.get(option.default) if option and isinstance(option.default, str) else None
