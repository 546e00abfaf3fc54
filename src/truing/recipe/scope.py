"""Names in a recipe: the references that a stage may use, and what each stands for; every mistake is noted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing.errors import listed, nearest
from truing.recipe.references import Ref
from truing.recipe.yaml_document import LOST, Mistakes
from truing.schema.option import Option
from truing.schema.signature import Part
from truing.schema.type_words import REFERENCES
from truing.yaml_text.reading import Node

TURN = re.compile(r"\$turn\b")
KINDS = {"reward": "a reward model", "model": "a model", "decision": "a decision", "file": "a file that no stage reads"}
"""The things that stages give, in a sentence."""
SHOWN = 50
"""Most references that a mistake names."""


@dataclass
class Turn:
    """One turn of a loop, while its stages are checked: what every name stands for at this place (`policy`: `$warm` in
    the first turn, until that turn has a `policy` of its own), the names still to come, and those that were read."""

    loop: str
    number: int
    names: dict[str, str]
    later: list[str]
    read: set[str] = field(default_factory=set)


@dataclass
class Scope:
    """Names that a stage may refer to: the base, the inputs, the stages before it, and the last turn of every loop
    before it (`loops`: `policy` of `loop` is the stage `loop-3-policy`)."""

    folder: Path | None
    mistakes: Mistakes
    base: Any = None
    inputs: dict[str, Node] = field(default_factory=dict)
    done: dict[str, Part | None] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    later: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    place: str = ""  # the stage being checked, as messages begin with it
    turn: Turn | None = None
    loops: dict[str, dict[str, str]] = field(default_factory=dict)
    turned: dict[str, str] = field(default_factory=dict)  # every stage of a turn, and its loop

    def fill(self, node: Node) -> Node:
        """The node with every `$inputs.name` replaced by the input, and its line by the input's; in a loop with the
        number of the turn for every `$turn`."""
        if isinstance(node.value, dict):
            return Node({key: self.fill(child) for key, child in node.value.items()}, node.line)
        if isinstance(node.value, list):
            return Node([self.fill(child) for child in node.value], node.line)
        if not isinstance(node.value, str):
            return node
        if not re.match(r"\$inputs\b", node.value):
            return self.numbered(node)
        name = node.value.removeprefix("$inputs").removeprefix(".")
        if name not in self.inputs:
            hint = nearest(name, self.inputs)
            there = ", ".join(f"$inputs.{other}" for other in self.inputs) or "none"
            did = f" Did you mean '$inputs.{hint}'?" if hint else ""
            self.mistakes.add(node.line, f"{self.place}there is no input '{node.value}'.{did} Known: {there}")
            return Node(LOST, node.line)
        self.used.add(name)
        return self.numbered(Node(self.inputs[name].value, self.inputs[name].line, name))

    def numbered(self, node: Node) -> Node:
        """The node with the number of the turn for every `$turn` in its text; alone, `$turn` is a number."""
        if not isinstance(node.value, str) or not TURN.search(node.value):
            return node
        if self.turn is None:
            self.mistakes.add(node.line, f"{self.place}$turn is the number of a loop's turn, and this is in no loop")
            return Node(LOST, node.line)
        whole = TURN.fullmatch(node.value)
        return Node(self.turn.number if whole else TURN.sub(str(self.turn.number), node.value), node.line, node.input)

    def resolve(self, text: str, line: int, option: Option) -> Any:
        """Return what `$base`, `$stage`, `$stage.part` or `$loop.stage` stands for, or LOST with a mistake noted."""
        if not option.reference:
            self.mistakes.add(
                line, f"{self.place}'{option.name}' refers to no stage: it must be {option.takes}, got '{text}'"
            )
            return LOST
        target = self.refer(text, line, f"'{option.name}'")
        if not isinstance(target, Ref):
            return target
        wanted, words = REFERENCES[option.reference]
        if target.kind in wanted:
            return self.base if target.stage == "base" else target
        fit = [name for name in self.fitting(option) if name != text]
        there = f". Fitting here: {listed(fit, SHOWN)}" if fit else ""
        what = KINDS.get(target.kind, target.kind)
        self.mistakes.add(line, f"{self.place}'{option.name}' must be {words}, but {text} is {what}{there}")
        return LOST

    def refer(self, text: str, line: int, what: str) -> Any:
        """Return what a reference names, as a Ref (a loop may have carried in plain text instead), or LOST with a
        mistake noted; `what` is the option that names it."""
        real = self.real(text)
        if not real.startswith("$"):
            return self.carried(text, real, line)
        stage, _, part = real.removeprefix("$").partition(".")
        if stage == "base" and not part:
            self.used.add("base")
            if self.base is None:
                self.mistakes.add(line, f"{self.place}{what} is $base, but the recipe has no 'base'")
            return LOST if self.base is None else Ref("model", "base")
        if stage not in self.done or (real == text and self.in_this_loop(stage)):
            self.mistakes.add(line, self.place + self.missing(text, stage))
            return LOST
        source = self.done[stage]
        if source is None:  # the stage's own `do` is a mistake already noted
            return LOST
        if part in source.keeps:
            return Ref("data", stage, part)
        whole = text.removesuffix(f".{part}") if part else text
        outputs = ", ".join(f"{whole}.{output}" for output in source.outputs)
        if part and part not in source.outputs:
            hint = nearest(part, (*source.outputs, *source.keeps))
            did = f" Did you mean '{whole}.{hint}'?" if hint else ""
            there = f"it gives {outputs}" if outputs else f"it has one output, {whole}"
            there += "".join(f", and keeps {whole}.{name}" for name in source.keeps)
            named = whole.removeprefix("$")
            self.mistakes.add(
                line, f"{self.place}stage '{named}' gives no '{part}'.{did} {there[0].upper()}{there[1:]}"
            )
            return LOST
        if source.outputs and not part:
            self.mistakes.add(line, f"{self.place}'{text}' has several parts: say which of {outputs}")
            return LOST
        return Ref(source.gives, stage, part)

    def carried(self, text: str, real: str, line: int) -> Any:
        """Return what a loop carries in from outside of the recipe, which has no parts; LOST where it is a mistake."""
        name, dot, part = text.removeprefix("$").partition(".")
        if real == dot + part:  # a mistake already noted
            return LOST
        if part:
            self.mistakes.add(line, f"{self.place}'{text}': ${name} is {real.removesuffix(dot + part)}, with no parts")
        return LOST if part else real

    def real(self, text: str) -> str:
        """A reference with the stage that it stands for: `$policy` in a loop, or `$loop.policy` after it, as
        `$loop-3-policy`."""
        name, dot, part = text.removeprefix("$").partition(".")
        if self.turn is not None and name in self.turn.names:
            self.turn.read.add(name)
            return self.turn.names[name] + dot + part
        inner, dot, rest = part.partition(".")
        if inner in self.loops.get(name, {}):
            return f"${self.loops[name][inner]}{dot}{rest}"
        return text

    def in_this_loop(self, stage: str) -> bool:
        """True if a stage is one of a turn of the loop that is being checked: it is named as in the turn at hand."""
        return self.turn is not None and self.turned.get(stage) == self.turn.loop

    def written(self) -> dict[str, str]:
        """Every stage that may be named here, as it is written and as it is called: those outside of loops, the last
        turn of every loop, and within a loop the latest of its own."""
        references = {f"${name}": f"${name}" for name in self.done if name not in self.turned}
        references |= {
            f"${loop}.{name}": f"${real}" for loop, last in self.loops.items() for name, real in last.items()
        }
        return references | (
            {f"${n}": real for n, real in self.turn.names.items() if real[:1] in ("$", "")} if self.turn else {}
        )

    def fitting(self, option: Option) -> list[str]:
        """Every reference that fits the option: `$stage`, `$stage.part`, `$loop.stage`, `$base`."""
        wanted, _ = REFERENCES[option.reference]
        fit, kept_data = [], []
        for text, real in self.written().items():
            stage, _, has_part = real.removeprefix("$").partition(".")
            part = self.done.get(stage)
            if part is None:
                continue
            parts = [text] if has_part or not part.outputs else [f"{text}.{output}" for output in part.outputs]
            fit += parts if part.gives in wanted else []
            kept_data += [f"{text}.{name}" for name in part.keeps] if "data" in wanted else []
        return fit + kept_data + (["$base"] if "model" in wanted and self.base is not None else [])

    def missing(self, text: str, stage: str) -> str:
        """Describe a reference to a stage that is not there, or not yet."""
        turn = self.turn
        if turn and stage in turn.later:
            return (
                f"'{text}' is not there yet: a stage refers only to stages before it. To have that of the turn before, "
                f"say what it is in the first turn: carry: {{{stage}: $STAGE}}"
            )
        if turn and (stage == turn.loop or self.in_this_loop(stage)):
            return f"'{text}' is of the loop that this stage is in: name its stages as they stand there, $STAGE"
        if stage in self.later:
            return f"'{text}' comes later: a stage refers only to stages before it"
        if stage in self.loops:
            within = [f"${stage}.{name}" for name in self.loops[stage]]
            if text == f"${stage}":
                return f"'{text}' is a loop: say which stage of its last turn, {listed(within, SHOWN)}"
            hint = nearest(text, within)
            did = f" Did you mean '{hint}'?" if hint else ""
            return f"there is no '{text}' in that loop.{did} Known: {listed(within, SHOWN)}"
        references = [*self.written(), *(["$base"] if self.base is not None else [])]
        references += [f"$inputs.{name}" for name in self.inputs]
        ends = [name for name in references if name.endswith(f".{stage}")]
        hint = ends[0] if ends else nearest(f"${stage}", [*references, *(f"${name}" for name in self.turned)])
        did = f" Did you mean '{hint}'?" if hint else ""
        return f"there is no stage '{text}' before this one.{did} Known: {listed(references, SHOWN) or 'none'}"

    def origin(self, value: Any) -> Any:
        """The name of the data set that data come from, through every split; of responses, that of their prompts."""
        while isinstance(value, Ref):
            options = self.options[value.stage]
            value = options.get("data", options.get("prompts"))
        return value
