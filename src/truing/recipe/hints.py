"""Hints for a word that a recipe cannot use: by its meaning first, by its spelling last.

A word of Truing's own in the wrong place (`beta` beside `objective`) gets the place where it belongs; one of another
system's is translated (`other_names`); only then is the nearest spelling looked for, and it has to be near.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from truing import registry
from truing.errors import UserError, listed, nearest, short
from truing.recipe import families, other_names
from truing.schema.option import Option
from truing.schema.signature import Kind, Part

LEAST = 0.72
"""Least similarity of a misspelt word to the word meant: `epoch` is 0.91 like `epochs`, `context` 0.55 like `text`."""
SLIP = 0.9
"""Similarity from which a word is a slip, and no option of another part: `reward` for `rewards`."""
PARTLY = 0.6
"""Similarity from which a word is part of an option's name: `clip` is 0.67 like `clip_low`."""
SHOWN = 5
"""Most parts that are named of those that have an option."""


def unknown_option(what: str, word: str, options: Iterable[Option], elsewhere: str = "") -> str:
    """One sentence for an option that does not exist here. `elsewhere` is where it belongs, if that is clear. A
    word whose meaning is clear gets that as its hint; for any other all `options` are listed.

    >>> unknown_option("option", "max_steps", [Option("steps", "Count | None", doc="updates of the weights")])
    "unknown option 'max_steps'. TRL's max_steps is 'steps' here (steps: updates of the weights)."
    """
    docs = {option.name: option.doc for option in options}
    translation, renamed = translated(word, docs), other_names.renamed(word)
    if renamed and not any(leads_to(line, docs) for line in other_names.called(word)):
        slip, renamed = near(word, docs, PARTLY), False  # an earlier name of another part's option
    else:
        slip = "" if other_names.called(word) else near(word, docs, SLIP)
    hints = (translation, elsewhere) if renamed else (elsewhere, translation)
    meant = "" if slip else hints[0] or hints[1]
    rest = "" if meant else f"{slip or near(word, docs)} Known: {listed(sorted(docs))}"
    return f"unknown {what} '{short(word)}'.{meant}{rest}"


def translated(word: str, docs: dict[str, str]) -> str:
    """Translate a name of another system's, in a sentence; empty for a word that none of them has."""
    lines = other_names.called(word)
    if not lines:
        return ""
    best = next((line for line in lines if leads_to(line, docs)), lines[0])
    option = next((at for at in best.here if at in docs), "")
    meaning = f" ({option}: {docs[option]})" if option and docs[option] and not best.remark else ""
    return f" {best.text}{meaning}."


def leads_to(line: other_names.OtherName, docs: dict[str, str]) -> bool:
    """True if one of the places that another system's name has here is one of these options."""
    return any(at.rpartition(".")[2] in docs for at in line.here)


def near(word: str, docs: dict[str, str], least: float = LEAST) -> str:
    """The word that a misspelt one is nearest to, with its sentence; empty where none is near."""
    guess = nearest(word, sorted(docs), least)
    if not guess:
        return ""
    return f" Did you mean '{short(guess)}'?" + (f" ({guess}: {docs[guess]})" if docs[guess] else "")


def beside_objective(word: str, value: Any, stage: Part, objective: Any) -> str:
    """Name the place of an option that is none of a stage's: its objective, another stage, or the recipe's top."""
    if stage.option("objective") is not None:
        fitting = [name for name in chosen(objective, stage) if has("objective", name, word)]
        fitting = fitting or [name for name in registry.parts("objective") if has("objective", name, word)]
        trained = [name for name in fitting if stage.name in stages_of(name)]
        if trained:
            shown = short(str(value)) if isinstance(value, int | float | str) else "..."
            return f" It is an option of the objective: objective: {{{trained[0]}: {{{word}: {shown}}}}}."
    return in_stage(word)


def chosen(objective: Any, stage: Part) -> list[str]:
    """The names of the objective's terms as far as they are written in an order that can be read, or its default."""
    default = stage.option("objective")
    terms = objective if isinstance(objective, list) else [objective]
    names = [next(iter(term), "") if isinstance(term, dict) else term for term in terms]
    written = [name for name in names if isinstance(name, str) and name]
    return written or ([str(default.default)] if default else [])


def in_stage(word: str) -> str:
    """Name the stages that have an option; empty where none has it."""
    owners = [name for name in registry.parts("stage") if has("stage", name, word)]
    return f" It is an option of {'the stage' if len(owners) == 1 else 'stages'} {some(owners)}." if owners else ""


def beside_stage(word: str, kind: Kind, stage_options: Sequence[str]) -> str:
    """Name the place of an option that an objective or a reward does not have: the stage, or others of its kind."""
    if word in stage_options:
        return f" It is an option of the stage: write it beside '{'objective' if kind == 'objective' else 'rewards'}'."
    owners = [name for name in registry.parts(kind) if has(kind, name, word)]
    return f" It is an option of the {kind} {some(owners)}." if owners else in_stage(word)


def at_top(word: str) -> str:
    """Name the place of a key that is none of a recipe's top: among the stages, or among the options of one."""
    if word in registry.parts("stage") and not has_any_option(word):
        return f" It is a stage: stages: {{NAME: {{do: {word}, ...}}}}."
    if has_any_option(word):
        return f" It is an option of a stage: stages: {{NAME: {{do: ..., {word}: ...}}}}."
    return ""


def has_any_option(word: str) -> bool:
    """True if some stage has an option of that name."""
    return any(has("stage", name, word) for name in registry.parts("stage"))


def has(kind: Kind, name: str, option: str) -> bool:
    """True if a built-in part has an option of that name."""
    part = registry.parts(kind).get(name)
    return part is not None and part.option(option) is not None


def some(names: Sequence[str]) -> str:
    """The first few of several names."""
    return listed(names, SHOWN)


def stages_of(objective: str) -> list[str]:
    """The stages that train an objective by itself."""
    return families.stages(registry.parts("objective")[objective])


def resolve(name: str, kind: Kind, folder: Path | None = None) -> Part:
    """The part of that name, as `registry.resolve`; UserError with a hint by meaning for one that does not exist."""
    if ":" not in name and "/" not in name and name not in registry.parts(kind):
        raise UserError(unknown_name(kind, name))
    return registry.resolve(name, kind, folder)


def unknown_name(kind: Kind, word: str) -> str:
    """One sentence for a part that does not exist.

    >>> unknown_name("stage", "dpo")
    "unknown stage 'dpo'. It is an objective: {do: prefer, objective: dpo}."
    """
    docs = dict.fromkeys(registry.parts(kind), "")
    meant = other_kind(kind, word) or translated(word, docs)
    rest = "" if meant else f"{near(word, docs)} Known: {listed(sorted(docs))}"
    return f"unknown {kind} '{short(word)}'.{meant}{rest}"


def other_kind(kind: Kind, word: str) -> str:
    """Say which kind of part a name stands for, other than this one; empty where it stands for none."""
    if kind != "objective" and word in registry.parts("objective"):
        owners = stages_of(word)
        example = f"{{do: {owners[0]}, objective: {word}}}" if owners else "called from Python only"
        return f" It is an objective: {example}."
    if kind != "stage" and word in registry.parts("stage"):
        return f" It is a stage: {{do: {word}, ...}}."
    return f" It is a reward: rewards: {word}." if kind != "reward" and word in registry.parts("reward") else ""
