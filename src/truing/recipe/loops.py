"""Loops of a recipe: `repeat` stages, `carry` what each turn gives to the next. A checked recipe has plain stages only.

`loop: {repeat: 3, carry: {policy: $warm}, stages: {answers: ..., policy: ...}}` becomes the stages `loop-1-answers`,
`loop-1-policy`, `loop-2-answers`, ... A turn does not know how many there are, so those of an earlier run stay as they
are when `repeat` is raised.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from truing.errors import unknown
from truing.recipe.references import Ref, StageSpec
from truing.recipe.scope import Scope, Turn
from truing.recipe.stage_options import check_stage
from truing.recipe.yaml_document import LOST
from truing.schema.option import Option
from truing.yaml_text.reading import Node

KEYS = ("repeat", "carry", "stages")
REPEAT = Option("repeat", "Count", required=True, doc="turns of the loop, each beginning with what the last one left")
MOST = 1000
"""The most turns of a loop: each is checked and planned before the first begins."""
STAGES = 3000
"""The most stages of a recipe, each turn's counted: each has a folder in the run's, and all are planned together."""
TAKEN = ("inputs", "base", "turn")
"""Names after `$` that have a meaning already."""


@dataclass(frozen=True)
class Loop:
    """A loop of a recipe: its stages as they are written, and what some of them stand for in the first turn."""

    name: str
    repeat: int
    carry: dict[str, str]
    stages: dict[str, Node]

    def called(self, stage: str, turn: int) -> str:
        """Name of a stage of a turn, and so of its folder.

        >>> Loop("loop", 3, {}, {}).called("policy", 2)
        'loop-2-policy'
        """
        return f"{self.name}-{turn}-{stage}"


def is_word(name: str) -> bool:
    """True if a name can be a stage's name, and so a folder's."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) is not None


def check_entry(name: str, node: Node, scope: Scope, beside: Collection[str]) -> Iterator[StageSpec]:
    """The stages that one entry of `stages` stands for: itself, or those of every turn of a loop. `beside` are the
    names of all entries. Every mistake is noted in the scope."""
    check_name(name, name, node, scope)
    if not is_loop(node):
        yield check_stage(name, node, scope)
        return
    loop = read(name, node, scope, beside)
    count = loop.repeat * len(loop.stages)
    if len(scope.done) + count > STAGES:
        problem = f"{loop.repeat:,} turns of {len(loop.stages):,} stages are {count:,}"
        problem += f", and a recipe has at most {STAGES:,}; go on in another recipe, with what this one leaves"
        scope.mistakes.add(node.line, f"loop '{name}': {problem}")
        scope.mistakes.stop()
    for turn in range(1, loop.repeat + 1):
        yield from check_turn(loop, turn, node, scope)
    scope.turn = None
    scope.loops[name] = {inner: loop.called(inner, max(1, loop.repeat)) for inner in loop.stages}


def check_name(name: str, folder: str, node: Node, scope: Scope) -> None:
    """Note a name that means something else already, or cannot be a folder's."""
    if not is_word(folder) or name in TAKEN:
        problem = "is taken" if name in TAKEN else "has letters that a folder's name should not have"
        problem = "is too long for a folder" if problem[0] == "h" and is_word(name) else problem
        scope.mistakes.add(node.line, f"stage '{name}': this name {problem}")


def is_loop(node: Node) -> bool:
    """True if an entry of `stages` is a loop and not a stage."""
    return "stages" in node.entries or ("repeat" in node.entries and "do" not in node.entries)


def read(name: str, node: Node, scope: Scope, beside: Collection[str]) -> Loop:
    """The loop of a mapping, every mistake in its frame noted."""
    mistakes, entries = scope.mistakes, node.entries
    scope.place = f"loop '{name}': "
    for key, child in entries.items():
        if key not in KEYS:
            mistakes.add(child.line, f"loop '{name}': {unknown('key', key, KEYS)}")
    repeat = read_repeat(node, scope)
    inner = entries.get("stages", Node({}, node.line))
    if not inner.entries:
        mistakes.add(inner.line, f"loop '{name}' needs 'stages', a mapping such as {{policy: {{do: prefer, ...}}}}")
    loop = Loop(name, repeat, {}, inner.entries)
    for stage, child in inner.entries.items():
        check_inner(loop, stage, child, scope, beside)
    return Loop(name, repeat, read_carry(loop, entries.get("carry", Node({}, node.line)), scope), inner.entries)


def read_repeat(node: Node, scope: Scope) -> int:
    """Number of a loop's turns; one, to find what else is wrong, where `repeat` itself is a mistake."""
    if "repeat" not in node.entries:
        scope.mistakes.add(node.line, f"{scope.place}how many turns? Give repeat: 3")
        return 1
    value = scope.fill(node.entries["repeat"])
    if value.value is LOST:
        return 1
    try:
        turns = int(REPEAT.check(value.plain))
    except ValueError as problem:
        scope.mistakes.add(value.line, f"{scope.place}{problem}")
        return 1
    if turns > MOST:
        scope.mistakes.add(value.line, f"{scope.place}repeat is {turns}, and {MOST} turns are the most")
    return turns if turns <= MOST else 1


def check_inner(loop: Loop, stage: str, node: Node, scope: Scope, beside: Collection[str]) -> None:
    """Note a stage of a loop that cannot have its name, or is a loop itself."""
    check_name(stage, loop.called(stage, loop.repeat), node, scope)
    place = f"stage '{loop.name}.{stage}': "
    if stage in KEYS:
        scope.mistakes.add(node.line, f"{place}this name is taken by the loop's own '{stage}'")
    if stage in beside:
        scope.mistakes.add(
            node.line, f"{place}outside of the loop there is '{stage}' too, and ${stage} could mean either; rename one"
        )
    turned = re.compile(rf"{re.escape(loop.name)}-[1-9]\d*-{re.escape(stage)}")
    clash = next(filter(turned.fullmatch, beside), None)
    if clash is not None:
        scope.mistakes.add(node.line, f"{place}a turn of it is called '{clash}', and so is another stage; rename one")
    if is_loop(node):
        scope.mistakes.add(node.line, f"{place}a loop has no loop in it; put its stages here, or after this loop")


def read_carry(loop: Loop, node: Node, scope: Scope) -> dict[str, str]:
    """References that the names of a loop's stages stand for in the first turn before those stages, each looked up."""
    if not isinstance(node.value, dict):
        scope.mistakes.add(node.line, f"{scope.place}carry is a mapping such as {{policy: $warm}}, not {node.plain!r}")
        return {}
    references = {}
    for name, child in node.entries.items():
        value = scope.fill(child)
        if name not in loop.stages:
            scope.mistakes.add(child.line, f"{scope.place}carry: {unknown('stage of the loop', name, loop.stages)}")
            continue
        references[name] = ""
        if value.value is LOST:
            continue
        if not isinstance(value.value, str) or not value.value:
            scope.mistakes.add(
                value.line,
                f"{scope.place}carry: '{name}' is one stage, file or model, such as $warm, not {value.plain!r}",
            )
        elif not value.value.startswith("$"):
            references[name] = value.value
        elif (target := scope.refer(value.value, value.line, f"carry: '{name}'")) is not LOST:
            references[name] = str(target) if isinstance(target, Ref) else target
    return references


def check_turn(loop: Loop, number: int, node: Node, scope: Scope) -> Iterator[StageSpec]:
    """The stages of one turn, each with the names as they stand at its place."""
    mistakes = len(scope.mistakes.entries)
    scope.turn = turn = Turn(loop.name, number, dict(loop.carry), list(loop.stages))
    if number > 1:
        turn.names |= {name: f"${loop.called(name, number - 1)}" for name in loop.carry}
    for name, child in loop.stages.items():
        real = loop.called(name, number)
        if real in scope.turned:
            problem = f"a turn of it is called '{real}', and so is one of loop '{scope.turned[real]}'; rename one"
            scope.mistakes.add(child.line, f"stage '{loop.name}.{name}': {problem}")
        scope.turned[real] = loop.name
        yield check_stage(real, child, scope, f"{loop.name}.{name}")
        unread = number == 1 and name in loop.carry and name not in turn.read
        if unread and len(scope.mistakes.entries) == mistakes:
            scope.mistakes.add(
                node.entries["carry"].entries[name].line,
                f"loop '{loop.name}': carry: '{name}' is read by no stage up to '{name}' itself; use it as ${name} "
                "there, or remove it",
            )
        turn.later.remove(name)
        turn.names[name] = f"${real}"
