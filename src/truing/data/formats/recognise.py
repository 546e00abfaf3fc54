"""Detection of the convention that a file follows, by its columns; and where it follows none, what would do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from truing.data.formats import column_hints
from truing.data.formats.columns import is_verdict, siblings
from truing.data.formats.conventions import CONVENTIONS, META, Convention, Want
from truing.errors import DataError, listed, short

SHOWN = 20
"""Columns that are named where none fits."""


def find(source: str, columns: Iterable[str], want: Want) -> Convention:
    """The convention a file follows, by its columns; or an error that names what is missing and what would do.

    Prompts can be read from every kind of row. Unless they are what is wanted, a file is taken for prompts alone only
    where no other column could hold a response.
    """
    columns = list(columns)
    there = set(columns)
    alone = want == "prompts" or there <= {"prompt", *META}
    fitting = [c for c in CONVENTIONS if want in ("any", "prompts", c.gives) and (alone or c.gives != "prompts")]
    for convention in fitting:
        if set(convention.columns) <= there:
            return convention
    accepted = ", ".join(c.name for c in fitting)
    other = next((c for c in CONVENTIONS if set(c.columns) <= there), None)
    if other is not None and (alone or other.gives != "prompts"):
        way = " For demonstrations from pairs, map the column: response = chosen." if want == "demonstrations" else ""
        raise DataError(
            source,
            f"has {other.gives} ({other.name}), but {want} are wanted",
            f"Accepted conventions: {accepted}.{way}",
        )
    fits = {convention: column_hints.fitting(convention, columns) for convention in fitting}
    near = max(fitting, key=lambda c: _likeness(c, there, fits[c], want))
    raise DataError(
        source, _missing(near, columns, fits[near]), f"{_mapping(near, columns, fits[near])}{_accepted(accepted)}"
    )


def _likeness(convention: Convention, there: set[str], fit: Mapping[str, str], want: Want) -> tuple[float, float, int]:
    """Sort key for how near a convention is: where prompts are wanted, a prompt alone before what has more to it."""
    have = sum(1.0 if c in there else 0.8 if c in fit else 0.0 for c in convention.columns)
    alone = float(want == "prompts" and convention.columns == ("prompt",) and bool(fit))
    return alone, have / len(convention.columns) + 0.1 * have, -len(convention.columns)


def _missing(near: Convention, columns: list[str], fit: Mapping[str, str]) -> str:
    if not fit and not set(near.columns) & set(columns):
        return f"missing columns: none of its own has a known name; found columns: {listed(columns, SHOWN) or 'none'}"
    lines = [f"missing column '{name}'" for name in near.columns if name not in columns]
    return f"{', '.join(lines)}; found columns: {listed(columns, SHOWN)}"


def _mapping(near: Convention, columns: list[str], fit: Mapping[str, str]) -> str:
    """The mapping to say, where every role of a convention is played; else which columns may be meant."""
    if not fit:
        return ""
    whole = all(name in columns or name in fit for name in near.columns)
    if not whole:
        return "".join(f"Did you mean '{role}' by '{short(name)}'? " for role, name in fit.items())
    pairs = ", ".join(f"{role}: {short(name)}" for role, name in fit.items())
    equal = {"chosen", "rejected"} <= fit.keys() and siblings(fit["chosen"], [fit["rejected"]])
    verdict = next((short(name) for name in columns if is_verdict(name) and name not in fit.values()), "")
    more = f" What '{verdict}' says of the two is then read, or stops the run." if equal and verdict else ""
    return f"Did you mean {_quoted(fit)}? Say so: columns: {{{pairs}}}.{more} "


def _quoted(fit: Mapping[str, str]) -> str:
    return ", ".join(f"'{role}' by '{short(name)}'" for role, name in fit.items())


def _accepted(accepted: str) -> str:
    return f"Accepted conventions: {accepted}. Rename the columns of the file to one of these, or map them by columns."
