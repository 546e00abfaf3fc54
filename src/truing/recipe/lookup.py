"""Meaning of a word for `truing show`: a part of some kind, an option, or a name of another system's."""

from __future__ import annotations

from truing import registry
from truing.errors import UserError, nearest, short
from truing.recipe import hints, other_names, shipped, sources
from truing.schema.option import Option
from truing.schema.signature import Kind

PARTS: tuple[Kind, ...] = ("objective", "stage", "reward")
OPTION = "option"


def kind_of(word: str) -> str:
    """The kind of what a word names by itself; UserError where it names several things or none.

    >>> kind_of("dpo"), kind_of("warmup"), kind_of("max_grad_norm")
    ('objective', 'option', 'option')
    """
    kinds: list[str] = [kind for kind in PARTS if word in registry.parts(kind)]
    rows = {"data": sources.datasets, "model": sources.models, "recipe": shipped.rows}
    kinds = kinds or [kind for kind, rows_of in rows.items() if any(row["name"] == word for row in rows_of())]
    if owners(word) or (not kinds and other_names.called(word)):
        kinds.append(OPTION)
    if len(kinds) == 1:
        return kinds[0]
    if not kinds:
        names = {name for kind in PARTS for name in registry.parts(kind)} | every_option()
        guess = nearest(word, sorted(names))
        near = f" Did you mean '{guess}'?" if guess else ""
        raise UserError(f"there is nothing called '{short(word)}'.{near} truing list shows all there is")
    which = ", ".join(f"truing show {kind} {short(word)}" for kind in kinds)
    raise UserError(f"'{short(word)}' has several meanings; name one: {which}")


def every_option() -> set[str]:
    """The names of all options of all built-in parts."""
    return {option.name for kind in PARTS for part in registry.parts(kind).values() for option in part.options}


def owners(word: str, within: str = "") -> dict[Option, list[str]]:
    """Parts that have an option of that name, by the option: of all parts, all stages, or the part called `within`."""
    owners_by_option: dict[Option, list[str]] = {}
    for kind in PARTS:
        for name, part in registry.parts(kind).items():
            option = part.option(word) if within in ("", kind, name) else None
            if option is not None:
                owners_by_option.setdefault(option, []).append(f"{kind} {name}")
    return owners_by_option


def option(word: str) -> str:
    """Describe an option wherever there is one of that name, or translate another system's."""
    lines = described(owners(word))
    if lines:
        return "\n".join(lines)
    for line in other_names.called(word):
        lines.append(f"{line.text}.")
        for here in line.here:
            within, _, name = here.rpartition(".")
            lines += described(owners(name, within or "stage"))
    if not lines:
        raise UserError(hints.unknown_option(OPTION, word, [Option(name, "") for name in sorted(every_option())]))
    return "\n".join(lines)


def described(owners_by_option: dict[Option, list[str]]) -> list[str]:
    """Options with their sentences, as lines."""
    lines = []
    for each, whose in owners_by_option.items():
        default = "required" if each.required else f"default {'none' if each.default is None else each.default}"
        lines += [f"{each.name}  {each.type}  {default}", f"  {each.doc}", f"  of {', '.join(whose)}"]
    return lines
