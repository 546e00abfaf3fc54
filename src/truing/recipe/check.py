"""Checking a recipe whole before anything loads: without torch, executing nothing, every mistake reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing.data.rendering import template_values
from truing.recipe import expect_block, hints, yaml_document
from truing.recipe.loops import STAGES, check_entry
from truing.recipe.references import Recipe, Ref, StageSpec
from truing.recipe.scope import Scope
from truing.recipe.values import data_name, model_name
from truing.recipe.yaml_document import LOST, Mistakes, loses
from truing.records import is_number
from truing.schema.option import Option
from truing.yaml_text.reading import Node

__all__ = ["Recipe", "Ref", "StageSpec", "check"]

KEYS = ("title", "seed", "base", "production", "chat_template_kwargs", "inputs", "stages", "expect")
NEW_MODEL = {
    option.name: option
    for option in (
        Option("new", "str", None, True, "architecture of the new model: llama, mistral, qwen2 or qwen3"),
        Option("hidden", "Count", 256, doc="width of the hidden states; wider learns more and is slower"),
        Option("layers", "Count", 6, doc="decoder layers; more learn more and are slower"),
        Option("vocab", "Count", 8000, doc="tokens of the tokenizer that is trained on `text`"),
        Option("head", "Count", 64, doc="width of an attention head, of which `hidden` is a multiple"),
        Option("digits", "Literal['joined', 'single']", "joined", doc="whether each digit is a token, for reckoning"),
        Option("text", "Data", None, True, "the texts that the tokenizer is trained on"),
        Option("columns", "Columns", doc="which column of `text` has which role; null is not read"),
    )
}


def check(recipe_source: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe at a path (or in a text of several lines), with the command line's `a.b=c` put in.

    Raises RecipeError with every mistake, each with its file, line and the nearest right word.

    >>> check("seed: x\\nstages:\\n  warm: {do: sft, model: a/x, data: a/y}\\n")
    Traceback (most recent call last):
    truing.errors.RecipeError: 1 mistake in the recipe
    recipe:1: seed must be a whole number, got 'x'
    """
    draft = gathered(recipe_source, overrides)
    draft.mistakes.stop()
    return draft.recipe


@dataclass(frozen=True)
class Draft:
    """A recipe with the mistakes in it, the names of the stages that have none, and the line of its base."""

    recipe: Recipe
    mistakes: Mistakes
    sound: frozenset[str]
    base_line: int


def gathered(recipe_source: Path | str, overrides: Sequence[str] = ()) -> Draft:
    """Return the recipe with its mistakes; RecipeError where it cannot be read as one at all."""
    name, text, path = yaml_document.source(recipe_source)
    mistakes = Mistakes(name)
    root = yaml_document.read(text, mistakes)
    if not isinstance(root.value, dict):
        mistakes.add(root.line, f"a recipe is a mapping with the keys {', '.join(KEYS)}")
        mistakes.stop()
    yaml_document.override(root, list(overrides), mistakes)
    yaml_document.refuse_keys(text, overrides, mistakes)
    for key, node in root.value.items():
        if key not in KEYS:
            top_options = [Option(name, "str") for name in KEYS]
            mistakes.add(node.line, hints.unknown_option("top-level key", key, top_options, hints.at_top(key)))
    top = Top(root.value, Scope(folder=path.parent if path else None, mistakes=mistakes))
    top.inputs()
    base, production = top.base(), top.production()
    stages = top.stages()
    expect = top.expect()
    recipe = Recipe(
        title=top.value("title", "str", path.stem if path else "recipe"),
        stages=stages,
        seed=top.value("seed", "int", 0),
        base=base,
        production=production,
        inputs={key: node.plain for key, node in top.scope.inputs.items()},
        expect=expect,
        chat_template_kwargs=top.template_values(),
        text=yaml_document.write(root) if overrides else text,
        path=str(path) if path else None,
        overrides=tuple(overrides),
    )
    top.unused()
    return Draft(recipe, mistakes, frozenset(top.sound), root.entries.get("base", root).line)


@dataclass
class Top:
    """The top-level keys of a recipe, each checked in turn."""

    entries: dict[str, Node]
    scope: Scope
    sound: set[str] = field(default_factory=set)

    def value(self, key: str, words: str, default: Any) -> Any:
        """A plain top-level value in its own type."""
        if key not in self.entries:
            return default
        node = self.entries[key]
        try:
            return Option(key, words).check(node.plain)
        except ValueError as problem:
            self.scope.mistakes.add(node.line, str(problem))
            return default

    def template_values(self) -> dict[str, Any]:
        """Values for the chat templates of the run's models (`enable_thinking: false`)."""
        if "chat_template_kwargs" not in self.entries:
            return {}
        node = self.scope.fill(self.entries["chat_template_kwargs"])
        if loses(node):
            return {}
        try:
            return template_values.check(node.plain)
        except ValueError as problem:
            self.scope.mistakes.add(node.line, str(problem))
            return {}

    def mapping(self, key: str, example: str) -> dict[str, Node]:
        """The entries of a top-level mapping; a mistake where it is something else."""
        node = self.entries.get(key, Node({}))
        if not isinstance(node.value, dict):
            self.scope.mistakes.add(node.line, f"'{key}' is a mapping such as {example}, not {node.plain!r}")
        return node.entries

    def inputs(self) -> None:
        """Collect the inputs, which a user may replace: plain values by name."""
        for name, node in self.mapping("inputs", "{data: pairs.jsonl}").items():
            if isinstance(node.value, dict | list) or node.value is None:
                self.scope.mistakes.add(node.line, f"input '{name}' is a single value, not {node.plain!r}")
            else:
                self.scope.inputs[name] = node

    def base(self) -> Any:
        """The model that `$base` stands for."""
        if "base" not in self.entries:
            return None
        mistakes, node = self.scope.mistakes, self.scope.fill(self.entries["base"])
        plain: Any = None
        if node.value is LOST:
            return None
        if isinstance(node.value, dict):
            plain = self.new_model(node)
        elif isinstance(node.value, str) and node.value:
            plain = model_name(node.value, node, "base", self.scope)
        else:
            mistakes.add(
                node.line, f"base is a Hub name, a folder, world:desk/small or {{new: llama, ...}}, not {node.plain!r}"
            )
        self.scope.base = plain
        return plain

    def production(self) -> str | None:
        """The model that a release would replace, where that is not the base."""
        if "production" not in self.entries:
            return None
        node = self.scope.fill(self.entries["production"])
        if node.value in ("$base", LOST):
            return None
        if isinstance(node.value, str) and node.value and not node.value.startswith("$"):
            return model_name(node.value, node, "production", self.scope)
        self.scope.mistakes.add(
            node.line,
            "production is the model that a release would replace, which no stage here makes: $base, a Hub name, a "
            f"folder or world:desk/small, not {node.plain!r}",
        )
        return None

    def new_model(self, node: Node) -> dict[str, Any]:
        """A new model's description: `{new: llama, hidden: 256, layers: 6, vocab: 8000, text: DATA}`."""
        mistakes, plain = self.scope.mistakes, {}
        for key, child in node.entries.items():
            if child.value is LOST:
                continue
            if key not in NEW_MODEL:
                mistakes.add(child.line, f"base: {hints.unknown_option('key', key, NEW_MODEL.values())}")
                continue
            try:
                plain[key] = NEW_MODEL[key].check(child.plain)
            except ValueError as problem:
                mistakes.add(child.line, f"base: {problem}")
        for key, option in NEW_MODEL.items():
            if option.required and key not in node.entries:
                mistakes.add(node.line, f"base: a new model needs '{key}'")
        if isinstance(plain.get("text"), str):
            plain["text"] = data_name(plain["text"], node.entries["text"], "base: text", self.scope)
        return plain

    def stages(self) -> tuple[StageSpec, ...]:
        """Every stage in order; each may refer to those before it."""
        entries = self.mapping("stages", "{warm: {do: sft, ...}}")
        if not entries and isinstance(self.entries.get("stages", Node({})).value, dict):
            self.scope.mistakes.add(1, "a recipe has at least one stage under 'stages'")
        if len(entries) > STAGES:
            problem = f"{len(entries):,} stages are too many, and a recipe has at most {STAGES:,}"
            self.scope.mistakes.add(
                self.entries["stages"].line, f"{problem}; go on in another, with what this one leaves"
            )
            self.scope.mistakes.stop()
        self.scope.later = list(entries)
        specs: list[StageSpec] = []
        for name, node in entries.items():
            self.scope.later.remove(name)
            before, count = len(specs), self.scope.mistakes.noted
            specs += check_entry(name, node, self.scope, entries)
            if self.scope.mistakes.noted == count:
                self.sound.update(spec.name for spec in specs[before:])
        return tuple(specs)

    def expect(self) -> dict[str, tuple[float, float]]:
        """Bounds on findings: `stage.model.check: [low, high]`, or `stage.model.check@against#slice`."""
        expectations: dict[str, tuple[float, float]] = {}
        for path, node in self.mapping("expect", "{exam.policy.win_rate: [0.6, 1.0]}").items():
            full = expect_block.in_full(path, self.scope)
            trouble = expect_block.trouble(path, full, self.scope)
            bounds = node.plain
            ordered = (
                isinstance(bounds, list) and len(bounds) == 2 and all(map(is_number, bounds)) and bounds[0] <= bounds[1]
            )
            if trouble:
                self.scope.mistakes.add(node.line, f"expect: {trouble}")
            elif not ordered:
                self.scope.mistakes.add(node.line, f"expect: '{path}' needs [lowest, highest], got {bounds!r}")
            elif full in expectations:
                self.scope.mistakes.add(node.line, f"expect: '{path}' is a finding that another line has a bound for")
            else:
                expectations[full] = (float(bounds[0]), float(bounds[1]))
        return expectations

    def unused(self) -> None:
        """Note every input that is set and never read: the user would think it had an effect."""
        for name, node in self.scope.inputs.items():
            if name not in self.scope.used:
                self.scope.mistakes.add(
                    node.line, f"input '{name}' is read by no stage; use it as $inputs.{name} or remove it"
                )
        if self.scope.base is not None and "base" not in self.scope.used:
            self.scope.mistakes.add(self.entries["base"].line, "base is used by no stage; use it as $base or remove it")
