"""Outlook on a run before it begins: its data are opened, its models' limits read, its exams and gates tried.

It takes a second or two, without torch or a network, and what was not checked is reported too.

| checked | a mistake of the recipe where |
|---|---|
| the first 1,000 rows of every file | they cannot be read, or do not hold what the stage learns from |
| the folder of every model | it is none, or reads fewer tokens than `max_length` or a response may have |
| every reward | its model is none, or a row of the prompts lacks what it reads (`foreseen_rewards`) |
| every exam | it has no model that answers, or no prompt or pair that a model in it did not learn from |
| every gate | a rule is about a model that no exam measures |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from truing import registry
from truing.data import shapes
from truing.data.formats import loading
from truing.data.formats.conventions import Want
from truing.data.kinds import Shape, Ties, common_shape, ties_of
from truing.errors import DataError, UserError, listed, nearest, one_line, short
from truing.gate.rules import read_rules
from truing.gate.standing import COMPARISONS
from truing.policy.files.limits import tokens_read
from truing.recipe.check import gathered
from truing.recipe.model_labels import LOOKUP, best_of, labels
from truing.recipe.objective_spec import names_of
from truing.recipe.references import Recipe, Ref, StageSpec
from truing.recipe.yaml_document import Mistakes
from truing.records import Messages, Records
from truing.report.exam_table import COLUMNS
from truing.run import foreseen_rewards
from truing.run.deciding import contestants, foreseen
from truing.run.plan import read_by
from truing.schema.signature import Part
from truing.world import tiny

ROWS = 1000
"""Most rows of every file that are checked: a wrong column shows in the first."""
JUDGED = ("prefer", "fit_reward")
"""Stages that learn from verdicts."""
HELD_OUT: Mapping[str, str] = {"evaluate": "data", "fit_reward": "eval"}
"""The pairs that a stage orders and must not have learned from."""
OWN = ("data", "eval", "text")
"""Options with data that a stage's `columns` and `on_bad_row` are about, and `prompts` where there is no `data`."""
CHECKS = frozenset({*COLUMNS, *COMPARISONS, "implicit_accuracy", "held_out_accuracy"})
"""Most frequent findings of exams. There are more, so that a rule on another name is a mistake only where it is so near
to one of these that it is a slip."""
SELDOM = frozenset({"held_out_step_accuracy", "held_out_first_error_accuracy"})
"""Findings of exams of special models, of names that are near to others."""
SHAPES: Mapping[str, Shape] = {"pretrain": "text", "sft": "single"}
"""Shapes of the data of stages whose objective does not determine it."""


@dataclass
class Outlook:
    """Outlook on a recipe's run: mistakes, each with its stage's line; what its gates will not be able to decide; and
    what was not checked."""

    recipe: Recipe
    mistakes: Mistakes
    unseen: dict[str, None] = field(default_factory=dict)
    made: dict[str, None] = field(default_factory=dict)
    _opened: dict[str, Records | None] = field(default_factory=dict, repr=False)
    _models: dict[str, tuple[int | None, str]] = field(default_factory=dict, repr=False)

    @cached_property
    def notes(self) -> list[str]:
        """Decisions that the gates will not be able to make, each with its way out."""
        return foreseen(self.recipe)

    def text(self) -> str:
        """List what was not checked, in one line."""
        made = [f"what {listed(self.made, 4)} will hold"] if self.made else []
        return f"not checked: {'; '.join([*self.unseen, *made, 'how long it takes and what memory it needs'])}"

    # --- data --------------------------------------------------------------------------------------------------------

    def stage(self, spec: StageSpec) -> None:
        """Check everything that one stage names."""
        part = registry.resolve(spec.do, "stage", self.recipe.folder)
        for option in part.options:
            value = spec.options.get(option.name)
            if option.reference == "Data" and value is not None:
                self.data(spec, part, option.name, value)
            elif option.reference in ("Model", "Models", "Rivals", "RewardModel") and value is not None:
                for model in value if isinstance(value, list) else [value]:
                    if model not in option.choices:  # gold is no model
                        self.model(spec, model)
        if spec.do not in registry.parts("stage"):
            return  # what the options of a user's own stage mean is not known
        self.lengths(spec, part)
        if spec.do == "evaluate" and spec.options.get("prompts") is not None:
            self.exam(spec)
        if spec.options.get(HELD_OUT.get(spec.do, "")) is not None:
            self.pairs(spec)
        if spec.do == "gate":
            self.gate(spec)
        self.rewards(spec)

    def mistake(self, spec: StageSpec, text: str) -> None:
        """Note a mistake of a stage, by the line that it begins on."""
        self.mistakes.add(spec.line, f"{f'stage {spec.name!r}' if spec.name else spec.do}: {text}")

    def data(self, spec: StageSpec, part: Part, name: str, value: Any) -> None:
        """Open what a stage reads, and try the rows for what it learns from them."""
        records = self.records(spec, name, value)
        if records is None:
            return
        shape = self.learned(spec, part, name)
        if shape is not None:
            self.shapes(spec, records, *shape, drop=name in OWN and spec.options.get("on_bad_row") == "drop")

    def records(self, spec: StageSpec, name: str, value: Any) -> Records | None:
        """The first rows of a data set as a stage reads it; None where they cannot be had before the run, or at all."""
        want: Want = (
            "prompts" if "prompts" in name or name == "without" or spec.options.get("read") == "prompts" else "any"
        )
        while isinstance(value, Ref):
            before = self.recipe.stage(value.stage)
            if before.do != "split":
                self.made[str(value)] = None
                return None
            spec, name, value = before, "data", before.options.get("data")
            want = spec.options.get("read", "any")
        if value is None or value.startswith("world:"):
            return None
        if not Path(value).exists():
            self.unseen[f"the data set '{one_line(value)}' of the Hub"] = None
            return None
        is_described = name in OWN or (name == "prompts" and spec.options.get("data") is None)
        drop = is_described and spec.options.get("on_bad_row") == "drop"
        columns = spec.options.get("columns") if is_described else None
        key = repr((value, want, drop, columns))
        if key not in self._opened:
            self._opened[key] = self._open(spec, value, want, drop, columns)
        return self._opened[key]

    def _open(self, spec: StageSpec, path: str, want: Want, drop: bool, columns: Any) -> Records | None:
        try:
            drop = drop or (
                spec.do == "judge" and of_rollouts(path)
            )  # a judge stage leaves out and counts what is no use
            records = loading.load(path, want=want, on_bad_row="drop" if drop else "error", columns=columns, first=ROWS)
        except UserError as problem:
            self.mistake(spec, str(problem))
            return None
        if len(records) + sum(note.action == "dropped" for note in records.notes) >= ROWS:
            self.unseen[f"{one_line(records.name)} beyond its first {ROWS:,} rows"] = None
        return records

    def learned(self, spec: StageSpec, part: Part, name: str) -> tuple[Shape, Ties] | None:
        """The shape of data that a stage's option has to have, and what becomes of ties; None where any will do."""
        if spec.do == "evaluate":
            return ("pairs", "half") if name in ("data", "labelled") else None
        if name == "pretrain" and spec.do == "reinforce":
            return SHAPES[name], "refused"
        if name not in ("data", "eval"):
            return None
        objective = part.option("objective")
        if objective is None or spec.do in SHAPES:
            return (SHAPES[spec.do], "refused") if spec.do in SHAPES else None
        terms = names_of(spec.options.get("objective", objective.default))
        parts = [registry.resolve(term, "objective", self.recipe.folder) for term in terms]
        signals = {term.name: (*term.needs, *term.optional) for term in parts}
        return common_shape(signals.items()), ties_of(s for read in signals.values() for s in read)

    def shapes(self, spec: StageSpec, records: Records, shape: Shape, ties: Ties, drop: bool) -> None:
        """Note as a mistake what rows do not hold that the stage learns from: any of them, or with `drop` all."""
        wrong: list[tuple[int, DataError]] = []
        for row, record in zip(records.rows, records.records, strict=True):
            try:
                shapes.shaped(record, shape, ties)
            except DataError as problem:
                wrong.append((row, problem))
        if not wrong or (drop and len(wrong) < len(records)):
            return
        row, first = wrong[0]
        count = f" ({len(wrong)} of {len(records)} rows checked)" if len(records) > 1 else ""
        way = f"\n  {first.way_out}" if first.way_out else ""
        self.mistake(spec, f"{one_line(records.name)}, row {row}: {first.problem}{count}{way}")

    def rewards(self, spec: StageSpec) -> None:
        """Note the models of a stage's rewards that are none, and rows of prompts that its rewards cannot do with."""
        for prompts, name in foreseen_rewards.ASKED:
            prompts_source = spec.options.get(prompts)
            records = None
            for part, options in foreseen_rewards.named(spec.options.get(name), self.recipe.folder):
                for model in foreseen_rewards.models(part, options):
                    self.model(spec, model)
                records = records or (None if prompts_source is None else self.records(spec, prompts, prompts_source))
                for text in foreseen_rewards.troubles(part, options, records) if records else ():
                    self.mistake(spec, text)

    # --- models ------------------------------------------------------------------------------------------------------

    def model(self, spec: StageSpec, value: Any) -> int | None:
        """Context length of a model in tokens; None where that is not known here. A folder that is no model is a
        mistake."""
        while isinstance(value, Ref):
            value = self.recipe.base if value.stage == "base" else self.recipe.stage(value.stage).options.get("model")
        if value is None or (isinstance(value, Mapping) and "new" not in value):  # a judge that is a function
            return None
        if isinstance(value, str) and value.startswith(tiny.PREFIX):
            return tiny.POSITIONS
        key = str(value)
        if key not in self._models:  # a folder's weights and tokenizer are read once, whoever names it
            self._models[key] = self._read(value)
        most, trouble = self._models[key]
        if trouble:
            self.mistake(spec, trouble)
        return most

    def _read(self, value: Any) -> tuple[int | None, str]:
        """Context length of a model in tokens, and what is wrong with it."""
        try:
            most, unseen = tokens_read(value)
        except UserError as problem:
            return None, str(problem)
        if unseen:
            self.unseen[unseen] = None
        return most, ""

    def lengths(self, spec: StageSpec, part: Part) -> None:
        """Note a `max_length` beyond what the stage's model or its reference reads, and responses without room."""
        options, option = spec.options, part.option("max_length")
        held = option is not None and (
            part.option("data") is not None or "max_length" in options or options.get("pretrain") is not None
        )
        bound: Any = options.get("max_length", option.default) if option else None
        for key, whose in (("model", "its model"), ("reference", "its reference")) if held else ():
            most = self.model(spec, options.get(key))
            if most is not None and bound is not None and bound > most:
                self.mistake(
                    spec,
                    f"max_length {bound} is beyond the {most} tokens that {whose} reads; "
                    f"set max_length: {most} or less",
                )
        longest: Any = options.get("max_new_tokens")
        for model in [*options.get("models", [options.get("model")]), *options.get("against", [])] if longest else ():
            most = None if isinstance(model, Ref) and model.kind == "reward" else self.model(spec, model)
            room = min((n for n in (most, bound) if n is not None), default=longest + 1)
            if longest >= room:
                self.mistake(
                    spec,
                    f"max_new_tokens {longest} leaves no room for a prompt in the {room} tokens that {model} reads; "
                    "set fewer",
                )
                break

    # --- exams and gates ---------------------------------------------------------------------------------------------

    def exam(self, spec: StageSpec) -> None:
        """Note an exam on prompts that has no model to answer them, or no prompt that is new to its models."""
        models, options = spec.options["models"], spec.options
        answering = [model for model in models if not (isinstance(model, Ref) and model.kind == "reward")]
        if not answering and not options.get("lookup") and options.get("best_of") is None:
            self.mistake(
                spec,
                "prompts are to be answered, and no model here answers: all of models are reward models; measure those "
                "on data (pairs to order), or name a language model",
            )
        for model in [*answering, *options["against"]]:
            if self.met(spec, "prompts", model):
                self.mistake(
                    spec,
                    f"all its prompts ({options['prompts']}) are among those that {model} learned from, so none would "
                    "be left to examine it on; give others, such as the eval part of a split",
                )

    def pairs(self, spec: StageSpec) -> None:
        """Note pairs held out of which none would be left: `data` of an exam, `eval` of a reward model."""
        name = HELD_OUT[spec.do]
        if name == "eval":
            who = "the stage" if self.within(spec, name, spec, "data") else ""
        else:
            who = next((str(model) for model in spec.options["models"] if self.met(spec, name, model)), "")
        if who:
            self.mistake(
                spec,
                f"all pairs of {name} ({spec.options[name]}) are among those that {who} learns from, so none would be "
                "held out; give others, such as the eval part of a split",
            )

    def met(self, exam: StageSpec, name: str, model: Any) -> bool:
        """True if a model of this recipe learned from all that an exam asks, as far as that can be known: of pairs to
        order, from verdicts on them."""
        while isinstance(model, Ref) and model.stage != "base":
            stage = self.recipe.stage(model.stage)
            taught = ("prompts", "data") if stage.options.get("without") is None else ()
            if (name == "prompts" or stage.do in JUDGED) and any(self.within(exam, name, stage, key) for key in taught):
                return True
            model = stage.options.get("model")
        return False

    def within(self, exam: StageSpec, name: str, stage: StageSpec, key: str) -> bool:
        """True if all prompts of an exam are among those that a stage learns from, where both can be read whole."""
        held_out, taught = exam.options[name], stage.options.get(key)
        if taught is None or taught == held_out:
            return taught is not None
        examined = self.prompts_of(exam, name, held_out)
        if not examined or isinstance(taught, Ref):
            return False
        return examined <= (self.prompts_of(stage, key, taught) or frozenset())

    def prompts_of(self, spec: StageSpec, name: str, value: Any) -> frozenset[Messages] | None:
        """Prompts of all rows of a file, or of the file that a part of a split comes from; None where that is not
        known."""
        records = self.records(spec, name, value)
        if records is None or len(records) + sum(note.action == "dropped" for note in records.notes) >= ROWS:
            return None
        return frozenset(record.prompt for record in records.records)

    def gate(self, spec: StageSpec) -> None:
        """Note every rule that is about a model, or a comparison with one, of which no exam finds anything."""
        evidence = spec.options["evidence"]
        evidence = evidence if isinstance(evidence, list) else [evidence]
        exams = [self.recipe.stage(ref.stage) for ref in evidence if isinstance(ref, Ref)]
        if len(exams) < len(evidence) or any(exam.do != "evaluate" for exam in exams):
            return
        measured = [name for exam in exams for name in self.called(exam)]
        file = one_line(Path(spec.options["rules"]).name)
        for rule in read_rules(Path(spec.options["rules"])):
            for key, name in (("model", rule.model), ("against", rule.against)):
                if name is not None and name not in (*measured, LOOKUP):
                    hint = nearest(name, measured)
                    did = f" Did you mean '{hint}'?" if hint else ""
                    self.mistake(
                        spec,
                        f"{file}: the rule on {short(rule.check)} is about {key} '{short(name)}', which no exam of its "
                        f"evidence measures.{did} Measured: {listed(measured, 20)}",
                    )
            near = [] if may_be(rule.check) else get_close_matches(rule.check, CHECKS, n=1, cutoff=0.85)
            if near:
                self.mistake(spec, f"{file}: no exam finds '{short(rule.check)}'. Did you mean '{near[0]}'?")

    def called(self, exam: StageSpec) -> Iterator[str]:
        """Names of an exam's models in its findings."""
        names = labels(contestants(exam), self.recipe.base)
        yield from dict.fromkeys(names)
        n = exam.options.get("best_of")
        yield from (best_of(name, n) for name in names[: len(exam.options["models"])] if n is not None)


def may_be(check: str) -> bool:
    """True if exams have a finding of this name, or may have: pass@k of any k, a head of a judge,
    differences.

    >>> [may_be(check) for check in ("pass_at_8_delta", "held_out_step_accuracy", "a_win_rate", "win_rat")]
    [True, True, True, False]
    """
    named = any(check == name or check.endswith(f"_{name}") or check == f"{name}_delta" for name in CHECKS)
    return named or check in SELDOM or re.fullmatch(r"pass_at_\d+(_delta)?", check) is not None


def look(recipe_source: Path | str, overrides: Sequence[str] = ()) -> Outlook:
    """Check the recipe at a path, and what can be checked of its run before it begins. RecipeError with every mistake
    of both, each with its line; a stage that has a mistake in its own words is not checked further, nor is
    one that has lost what it needs to such a mistake."""
    draft = gathered(recipe_source, overrides)
    recipe, outlook = draft.recipe, Outlook(draft.recipe, draft.mistakes)
    whole = {"base"}
    for spec in recipe.stages:
        if not is_whole(spec, recipe) or not whole.issuperset(read_by(spec)):
            continue
        whole.add(spec.name)
        if spec.name in draft.sound:
            outlook.stage(spec)
    if isinstance(recipe.base, Mapping) and isinstance(recipe.base.get("text"), str):
        options = {"on_bad_row": "drop", "columns": recipe.base.get("columns")}
        outlook.records(StageSpec("", "base", options, draft.base_line), "text", recipe.base["text"])
    outlook.mistakes.stop()
    return outlook


def is_whole(spec: StageSpec, recipe: Recipe) -> bool:
    """True if a stage has all that it needs; an option that names a stage with a mistake is missing."""
    try:
        options = registry.resolve(spec.do, "stage", recipe.folder).options
    except UserError:  # noted already
        return False
    return all(option.name in spec.options for option in options if option.required)


def of_rollouts(path: str) -> bool:
    """True if a file holds rollouts."""
    if not path.endswith(".parquet"):
        return False
    from truing.rollout.experience import is_experience  # pyarrow takes its time

    return is_experience(Path(path))
