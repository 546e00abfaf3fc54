"""One stage of a recipe, checked against the signature it names, and the references in its options resolved."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing import registry
from truing.data.conventions import ROLES
from truing.errors import UserError, nearest, unknown
from truing.pipeline import names
from truing.pipeline.document import COMMAND_LINE, LOST, Mistakes, Node
from truing.pipeline.labels import labels
from truing.pipeline.mixture import check_objective, heads_named, weights_of
from truing.pipeline.names import HUB
from truing.pipeline.reward_spec import check_rewards, check_use
from truing.pipeline.spec import Ref, StageSpec
from truing.settings import Lora, Training
from truing.signature import Option, Part
from truing.typewords import REFERENCES, describe, guess, parse_type


@dataclass
class Scope:
    """What a stage may refer to: the base, the inputs, and the stages before it."""

    folder: Path | None
    mistakes: Mistakes
    base: Any = None
    inputs: dict[str, Node] = field(default_factory=dict)
    done: dict[str, Part | None] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    later: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    place: str = ""  # the stage being checked, as messages begin with it

    def fill(self, node: Node) -> Node:
        """The node with every `$inputs.name` replaced by the input, and its line by the input's."""
        if isinstance(node.value, dict):
            return Node({key: self.fill(child) for key, child in node.value.items()}, node.line)
        if isinstance(node.value, list):
            return Node([self.fill(child) for child in node.value], node.line)
        if not isinstance(node.value, str) or not re.match(r"\$inputs\b", node.value):
            return node
        name = node.value.removeprefix("$inputs").removeprefix(".")
        if name not in self.inputs:
            hint = nearest(name, self.inputs)
            there = ", ".join(f"$inputs.{known}" for known in self.inputs) or "none"
            did = f" Did you mean '$inputs.{hint}'?" if hint else ""
            self.mistakes.add(node.line, f"{self.place}there is no input '{node.value}'.{did} Known: {there}")
            return Node(LOST, node.line)
        self.used.add(name)
        return Node(self.inputs[name].value, self.inputs[name].line, name)

    def resolve(self, text: str, line: int, option: Option) -> Any:
        """What `$base`, `$stage` or `$stage.part` stands for, or LOST with a mistake noted."""
        stage, _, part = text.removeprefix("$").partition(".")
        if not option.reference:
            expected = describe(parse_type(option.type))
            self.mistakes.add(
                line, f"{self.place}'{option.name}' refers to no stage: it must be {expected}, got '{text}'"
            )
            return LOST
        if stage == "base" and not part:
            self.used.add("base")
            if self.base is None:
                self.mistakes.add(line, f"{self.place}'{option.name}' is $base, but the recipe has no 'base'")
            return LOST if self.base is None else self.accept(Ref("model", "base"), line, option, self.base)
        if stage not in self.done:
            self.mistakes.add(line, self.place + self.missing(text, stage))
            return LOST
        known = self.done[stage]
        if known is None:  # the stage's own `do` is a mistake already noted
            return LOST
        outputs = ", ".join(f"${stage}.{output}" for output in known.outputs)
        if part and part not in known.outputs:
            hint = nearest(part, known.outputs)
            did = f" Did you mean '${stage}.{hint}'?" if hint else ""
            there = f"it gives {outputs}" if outputs else f"it gives one thing, ${stage}"
            self.mistakes.add(
                line, f"{self.place}stage '{stage}' gives no '{part}'.{did} {there[0].upper()}{there[1:]}"
            )
            return LOST
        if known.outputs and not part:
            self.mistakes.add(line, f"{self.place}'${stage}' has several parts: say which of {outputs}")
            return LOST
        ref = Ref(known.gives, stage, part)
        return self.accept(ref, line, option, ref)

    def accept(self, ref: Ref, line: int, option: Option, value: Any) -> Any:
        """The value, if a reference of its kind fits the option; else LOST with a mistake noted."""
        wanted, words = REFERENCES[option.reference]
        if ref.kind in wanted:
            return value
        fit = [name for name in self.fitting(option) if name != str(ref)]
        there = f". Fitting here: {', '.join(fit)}" if fit else ""
        what = {"reward": "a reward model", "model": "a model", "decision": "a decision"}.get(ref.kind, ref.kind)
        self.mistakes.add(line, f"{self.place}'{option.name}' must be {words}, but {ref} is {what}{there}")
        return LOST

    def fitting(self, option: Option) -> list[str]:
        """Every reference that fits the option: `$stage`, `$stage.part`, `$base`."""
        wanted, _ = REFERENCES[option.reference]
        done = {name: part for name, part in self.done.items() if part and part.gives in wanted}
        fit = [f"${name}" for name, part in done.items() if not part.outputs]
        fit += [f"${name}.{output}" for name, part in done.items() for output in part.outputs]
        return fit + (["$base"] if "model" in wanted and self.base is not None else [])

    def missing(self, text: str, stage: str) -> str:
        """What to say of a reference to a stage that is not there, or not yet."""
        if stage in self.later:
            return f"'{text}' comes later: a stage refers only to stages before it"
        known = [f"${name}" for name in self.done] + (["$base"] if self.base is not None else [])
        known += [f"$inputs.{name}" for name in self.inputs]
        hint = nearest(f"${stage}", known)
        did = f" Did you mean '{hint}'?" if hint else ""
        return f"there is no stage '{text}' before this one.{did} Known: {', '.join(known) or 'none'}"

    def found(self, name: str, node: Node) -> str:
        """The path of a file or folder of that name, or an empty string."""
        place = names.find(name, self.folder, typed=node.line == COMMAND_LINE)
        return "" if place is None else str(place)

    def data(self, name: str, node: Node, what: str, known: Sequence[str] = ()) -> str:
        """A data set's name, checked; a file that stands beside the recipe is given with its folder."""
        path = self.found(name, node)
        if path and not name.startswith("world:"):
            return path
        trouble = names.data_trouble(name, self.folder, known)
        if trouble:
            own = f". Give your own: {node.input}=FILE" if node.input and not name.startswith("world:") else ""
            self.mistakes.add(node.line, f"{f'input {node.input!r}' if node.input else what}: {trouble}{own}")
        return name

    def model(self, name: str, node: Node, what: str, known: Sequence[str] = ()) -> str:
        """A model's name, checked; a folder that stands beside the recipe is given with its path."""
        path = self.found(name, node)
        if path and not name.startswith("world:"):
            return path
        trouble = names.model_trouble(name, known)
        if trouble:
            self.mistakes.add(node.line, f"{what}: {trouble}")
        return name

    def origin(self, value: Any) -> Any:
        """The name of the data set that data come from, through every split."""
        while isinstance(value, Ref):
            value = self.options[value.stage].get("data")
        return value

    def expectation_trouble(self, path: str) -> str:
        """What is wrong with `stage.model.check` in the expect block, or an empty string."""
        stage, _, rest = path.partition(".")
        model, _, check = rest.rpartition(".")
        if not (stage and model and check):
            return f"'{path}' is not of the form stage.model.check"
        if stage not in self.done:
            return f"'{path}': {unknown('stage', stage, self.done)}"
        part, options = self.done[stage], self.options[stage]
        if part is None:
            return ""
        if part.gives not in ("findings", "reward"):
            return f"'{path}': stage '{stage}' ({part.name}) measures nothing"
        listed = [*options.get("models", []), options.get("against")] if part.gives == "findings" else [Ref("", stage)]
        if part.gives == "reward" and "eval" not in options:
            return f"'{path}': stage '{stage}' ({part.name}) measures nothing without 'eval'"
        models = labels([model for model in listed if model is not None], self.base)
        return "" if model in models else f"'{path}': {unknown('model', model, models)}"


def is_word(name: str) -> bool:
    """Whether a name can be a stage's name, and so a folder's."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) is not None


def check_stage(name: str, node: Node, scope: Scope) -> StageSpec:
    """One stage with its options in their own types; every mistake is noted in the scope."""
    mistakes = scope.mistakes
    scope.done[name], scope.options[name], scope.place = None, {}, f"stage '{name}': "
    if not isinstance(node.value, dict):
        mistakes.add(node.line, f"stage '{name}' is a mapping such as {{do: sft, ...}}, not {node.plain!r}")
        return StageSpec(name, "", {}, node.line)
    do = node.value.get("do")
    part = None
    if do is None:
        mistakes.add(
            node.line, f"stage '{name}' does not say what to do. Known: {', '.join(sorted(registry.parts('stage')))}"
        )
    elif not isinstance(do.value, str):
        mistakes.add(do.line, f"stage '{name}': 'do' is the name of a stage, not {do.plain!r}")
    else:
        try:
            part = registry.resolve(do.value, "stage", scope.folder)
        except UserError as problem:
            mistakes.add(do.line, f"stage '{name}': {problem}")
    given = {key: scope.fill(child) for key, child in node.value.items() if key != "do"}
    options = {} if part is None else check_options(name, part, given, node.line, scope)
    scope.done[name], scope.options[name] = part, options
    return StageSpec(name, do.value if do and isinstance(do.value, str) else "", options, node.line)


def check_options(name: str, part: Part, given: dict[str, Node], line: int, scope: Scope) -> dict[str, Any]:
    """The options of one stage in their own types."""
    found = {}
    scope.done.pop(name)
    for key, node in given.items():
        option = part.option(key)
        if option is None:
            scope.mistakes.add(
                node.line, f"stage '{name}' ({part.name}): {unknown('option', key, [o.name for o in part.options])}"
            )
        elif key in part.unread:
            scope.mistakes.add(node.line, f"stage '{name}' ({part.name}): its option '{key}' is never read")
        else:
            value = check_option(f"stage '{name}'", part, option, node, scope)
            if value is not LOST:
                found[key] = value
    for option in part.options:
        if option.required and option.name not in given:
            scope.mistakes.add(line, f"stage '{name}' ({part.name}) needs '{option.name}'")
    check_pairs(name, found, given, scope.mistakes)
    check_lora(name, found, given, scope.mistakes)
    check_gold(part, found, given, scope)
    check_use(found, given, scope)
    check_judge(found, given, scope)
    check_weights(part, found, given, scope)
    check_columns(found, given, scope)
    return found


def check_option(place: str, part: Part, option: Option, node: Node, scope: Scope) -> Any:
    """One option's value: references resolved, in its own type, names of the world and files looked up."""
    if "ObjectiveSpec" in option.type and node.value is not None and node.value is not LOST:
        return check_objective(part, node, scope.folder, scope.mistakes)
    if "RewardSpec" in option.type and node.value is not None and node.value is not LOST:
        return check_rewards(node, scope)
    return check_value(place, option, node, scope)


def check_value(place: str, option: Option, node: Node, scope: Scope) -> Any:
    """The same, of an option that is a value by itself."""
    value = refer(option, node, scope)
    if value is LOST:
        return LOST
    try:
        value = option.check(value)
    except ValueError as problem:
        scope.mistakes.add(node.line, f"{place}: {problem}")
        return LOST
    return look_up(place, option, value, node, scope)


def refer(option: Option, node: Node, scope: Scope) -> Any:
    """The plain value with every `$...` in it resolved; LOST if one of them is a mistake."""
    if isinstance(node.value, list):
        items = [refer(option, child, scope) for child in node.value]
        return LOST if any(item is LOST for item in items) else items
    if isinstance(node.value, str) and node.value.startswith("$"):
        return scope.resolve(node.value, node.line, option)
    return node.plain


def look_up(place: str, option: Option, value: Any, node: Node, scope: Scope) -> Any:
    """A name of a model, data set or file, checked and found; anything else as it is."""
    if isinstance(value, list):
        nodes = node.value if isinstance(node.value, list) else [node] * len(value)
        return [look_up(place, option, item, child, scope) for item, child in zip(value, nodes, strict=True)]
    kind, what = option.reference, f"{place}: {option.name}"
    if not isinstance(value, str) or not kind or f"'{value}'" in option.type:
        return value
    if kind == "Data":
        return scope.data(value, node, what, scope.fitting(option))
    if value == scope.base:  # looked up where it stands
        return value
    if kind in ("Model", "Models", "RewardModel"):
        hint = guess(parse_type(option.type), value)
        if hint and not HUB.fullmatch(value) and not scope.found(value, node):
            scope.mistakes.add(node.line, f"{what}: there is no folder '{value}'{hint}")
            return value
        return scope.model(value, node, what, scope.fitting(option))
    path = scope.found(value, node)
    if not path:
        scope.mistakes.add(node.line, f"{what}: {names.file_trouble(value, scope.folder)}")
    elif kind == "Rules":
        check_rules(Path(path), what, node.line, scope.mistakes)
    return path or value


def check_rules(path: Path, what: str, line: int, mistakes: Mistakes) -> None:
    """Note every mistake of a rules file. (It is read by what the gate itself reads it by, imported when needed.)"""
    from truing.gate.rules import read_rules

    trouble = names.said_by(lambda: read_rules(path))
    for sentence in trouble.splitlines():
        mistakes.add(line, f"{what}: {sentence}")


def check_pairs(name: str, found: dict[str, Any], given: dict[str, Node], mistakes: Mistakes) -> None:
    """Refuse two options of which one is to be given (`Training.EITHER`); the command line's replaces the file's."""
    for pair in Training.EITHER:
        both = [option for option in pair if found.get(option) is not None]
        if len(both) < 2:
            continue
        file = [option for option in both if given[option].line != COMMAND_LINE]
        if len(file) == 1:
            del found[file[0]]
        else:
            line = max(given[option].line for option in both)
            mistakes.add(line, f"stage '{name}': give {pair[0]} or {pair[1]}, not both")


def check_lora(name: str, found: dict[str, Any], given: dict[str, Node], mistakes: Mistakes) -> None:
    """Refuse an option of an adapter that says nothing because no adapter is asked for."""
    needed, others = Lora.NEEDS
    for option in others:
        if found.get(option) is not None and found.get(needed) is None:
            mistakes.add(given[option].line, f"stage '{name}': '{option}' says nothing without '{needed}'")


def check_columns(found: dict[str, Any], given: dict[str, Node], scope: Scope) -> None:
    """`columns` says how a file's columns are called: of roles that exist, and where a file (or Hub name) is read."""
    read = "data" if "data" in given else "prompts"
    columns, data = found.get("columns"), found.get(read)
    if columns is None:
        return
    for role, name in columns.items():
        if role not in ROLES:
            scope.mistakes.add(given["columns"].line, f"{scope.place}columns: {unknown('column role', role, ROLES)}")
        elif not isinstance(name, str):
            scope.mistakes.add(
                given["columns"].line, f"{scope.place}columns: '{role}' is a column's name, not {name!r}"
            )
    lost = read in given and data is None
    if not lost and (not isinstance(data, str) or data.startswith("world:")):
        scope.mistakes.add(
            given["columns"].line,
            f"{scope.place}columns says how a file's columns are called, and {read} is {data or 'not given'}; "
            "give it where the file is read",
        )


def check_judge(found: dict[str, Any], given: dict[str, Node], scope: Scope) -> None:
    """`aggregate` says something of an ensemble of reward models alone, and `coefficient` of `uncertainty` alone."""
    if found.get("aggregate") is not None and found.get("judge", "" if "judge" in given else "gold") == "gold":
        scope.mistakes.add(
            given["aggregate"].line,
            f"{scope.place}aggregate is for an ensemble, and judge is gold; give reward models, as judge: [$one, $two]",
        )
    if found.get("coefficient") is not None and found.get("aggregate") != "uncertainty":
        scope.mistakes.add(
            given["coefficient"].line, f"{scope.place}'coefficient' says nothing without 'aggregate: uncertainty'"
        )


def check_weights(part: Part, found: dict[str, Any], given: dict[str, Node], scope: Scope) -> None:
    """`head_weights` gives every head that the objective names a number, and no other."""
    weights, objective = found.get("head_weights"), part.option("objective")
    if weights is None or objective is None or ("objective" in given and found.get("objective") is None):
        return
    try:
        weights_of(heads_named(found.get("objective", objective.default)), weights)
    except UserError as problem:
        scope.mistakes.add(given["head_weights"].line, f"{scope.place}{problem}")


def check_gold(part: Part, found: dict[str, Any], given: dict[str, Node], scope: Scope) -> None:
    """`gold` is the world's truth: it can judge answers to prompts of the world only."""
    judge, prompts = part.option("judge"), found.get("prompts")
    if judge is None or prompts is None or found.get("judge", "" if "judge" in given else judge.default) != "gold":
        return
    origin = scope.origin(prompts)
    if isinstance(origin, str) and not origin.startswith("world:"):
        scope.mistakes.add(
            given.get("judge", given["prompts"]).line,
            f"{scope.place}judge is gold, which knows the truth of prompts of the world only, and these come from "
            f"'{origin}'; fit a reward model and give it as judge",
        )
