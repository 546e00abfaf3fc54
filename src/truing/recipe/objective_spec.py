"""The `objective:` of a stage: `dpo`, `{dpo: {beta: 0.1}}`, or a sum `[dpo, {nll: {weight: 0.1}}]`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from truing import registry
from truing.data.kinds import WORDS, common_shape, shape_of
from truing.errors import UserError
from truing.objectives.signals import alone
from truing.recipe import hints
from truing.recipe.families import gives, of_reward, of_rollouts, own_objective, trains
from truing.recipe.yaml_document import LOST, Mistakes
from truing.records import OWED, is_number
from truing.schema.option import Option
from truing.schema.signature import Kind, Part
from truing.yaml_text.reading import Node

WEIGHT = Option("weight", "NonNegative", 1.0, doc="what the term counts for in the sum of losses")
HEAD = Option("head", "str", "", doc="name of the reward model's head that the term reads and teaches")
"""Options a term of a sum accepts besides its objective's own: its weight, and the head it reads and trains. An
objective's own option of that name goes first: `orpo: {weight: 0.2}` weighs its odds, not the term."""


def check_objective(owner: Part, node: Node, folder: Path | None, mistakes: Mistakes) -> Any:
    """The objective as plain data with its options in their own types: a name, a mapping of one, or a list of these."""
    items = node.value if isinstance(node.value, list) else [node]
    if not items:
        mistakes.add(node.line, "objective is an empty list")
        return None
    terms, parts, named, silent = [], [], [], []
    for item in items:
        term, part = check_term(owner, item, folder, mistakes)
        terms.append(term)
        parts += [(part, item.line)] if part else []
        named += [(part.name, head_of(term))] if part and term else []
        silent += [silenced(term, part)] if part and term else []
    try:
        check_heads(named)
    except UserError as problem:
        mistakes.add(node.line, str(problem))
    if silent and all(silent):
        mistakes.add(node.line, "every term of the objective has weight 0, so nothing is learned; give one a weight")
    check_families(owner, parts, mistakes)
    return terms if isinstance(node.value, list) else terms[0]


def check_term(owner: Part, node: Node, folder: Path | None, mistakes: Mistakes) -> tuple[Any, Part | None]:
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
        part = hints.resolve(name, "objective", folder)
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
    shared = (WEIGHT, HEAD) if of_reward(part) else (WEIGHT,)
    allowed = {option.name: option for option in (*shared, *part.options)}
    values = {}
    for key, value in options.entries.items():
        if value.value is LOST:
            continue
        if key not in allowed:
            home = hints.beside_stage(key, "objective", [option.name for option in owner.options])
            mistakes.add(
                value.line, f"objective '{name}': {hints.unknown_option('option', key, allowed.values(), home)}"
            )
        elif key in part.unread:
            mistakes.add(value.line, f"objective '{name}': its option '{key}' is never read")
        else:
            try:
                values[key] = allowed[key].check(value.plain)
            except ValueError as problem:
                mistakes.add(value.line, f"objective '{name}': {problem}")
    return {full: values}, part


def silenced(term: Any, part: Part) -> bool:
    """True if a term in its plain form has the weight 0 in the sum."""
    weighs_itself = part.option(WEIGHT.name) is not None
    return isinstance(term, dict) and not weighs_itself and next(iter(term.values())).get(WEIGHT.name) == 0


def head_of(term: Any) -> str:
    """The head that a term in its plain form names; empty where it names none."""
    options = next(iter(term.values())) if isinstance(term, dict) else {}
    return str(dict(options or {}).get("head", ""))


def heads_named(objective: Any) -> tuple[str, ...]:
    """The heads that an objective in its plain form names, in order; one empty name where it names none."""
    return tuple(dict.fromkeys(map(head_of, objective if isinstance(objective, list | tuple) else [objective])))


def weights_of(names: Sequence[str], weights: Mapping[str, Any] | None) -> tuple[float, ...]:
    """The weight of every head in order, from `{name: weight}`; UserError unless each head has one and no other.

    >>> weights_of(("clarity", "truth"), {"truth": 2, "clarity": 1})
    (1.0, 2.0)
    """
    if weights is None:
        return ()
    if not any(names):
        raise UserError("head_weights are for heads with names, and the objective names none ({..., head: NAME})")
    if set(weights) != set(names) or not all(map(is_number, weights.values())):
        wanted = ", ".join(f"{name}: NUMBER" for name in names)
        raise UserError(f"head_weights give each head its number, {{{wanted}}}, and not {dict(weights)}")
    return tuple(float(weights[name]) for name in names)


def names_of(objective: Any) -> list[str]:
    """The names of the terms of an objective in its plain form.

    >>> names_of(["dpo", {"nll": {"weight": 0.1}}])
    ['dpo', 'nll']
    """
    terms = objective if isinstance(objective, list | tuple) else [objective]
    return [term if isinstance(term, str) else str(next(iter(term))) for term in terms]


def check_heads(terms: Iterable[tuple[str, str]]) -> None:
    """UserError unless all terms, given as (objective, head), name a head, or none does."""
    pairs = list(terms)
    without, named = [name for name, head in pairs if not head], sorted({head for _, head in pairs if head})
    if without and named:
        raise UserError(
            f"objective '{without[0]}' names no head, and others do ({', '.join(named)}): let each name one, or none"
        )


def absolute(name: str, folder: Path | None, kind: Kind = "objective") -> str:
    """A name of the form `file.py:name` with the file's full path, so that it means the same wherever it is loaded."""
    where, _, attribute = name.rpartition(":")
    return f"{registry.plug_in(name, kind, folder)[0]}:{attribute}" if where.endswith(".py") else name


def check_families(owner: Part, terms: list[tuple[Part, int]], mistakes: Mistakes) -> None:
    """Note terms that cannot be learned together, or not in this stage. Its default objective determines what it
    trains, a policy or a reward model, and from what: responses in the data, preferences, or responses of its own."""
    home = own_objective(owner)
    if home is None or not terms:
        return
    for part, line in terms:
        if not gives(home, part):
            stages = [name for name, other in registry.parts("stage").items() if trains(other, part)]
            belongs = f"; it belongs under {' or '.join(stages)}" if stages else ""
            mistakes.add(
                line,
                f"objective '{part.name}' needs {', '.join(part.needs)}, which {owner.name} does not give{belongs}",
            )
            return
    part, line = terms[0]
    if {p.advantage for p, _ in terms} <= {"any", ""} and any(p.advantage for p, _ in terms):
        mistakes.add(line, alone(next(p.name for p, _ in terms if p.advantage)))
        return
    try:
        shape = common_shape((part.name, part.needs) for part, _ in terms)
    except UserError as problem:
        mistakes.add(line, str(problem))
        return
    if not of_rollouts(home) and shape == "single" != shape_of(home.needs):
        mistakes.add(
            line,
            f"objective '{part.name}' reads single responses; under {owner.name} it can only be added to one that "
            f"learns from {WORDS[shape_of(home.needs)]} or the like",
        )
