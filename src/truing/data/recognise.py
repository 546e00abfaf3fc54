"""Which convention a file follows, by its columns; and where it follows none, what would do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from truing.data.conventions import CONVENTIONS, META, ROLES, Convention, Want
from truing.errors import LONG, MOST, DataError, listed, short

SHOWN = 20
"""So many columns are named where none fits."""


def find(source: str, columns: Iterable[str], want: Want) -> Convention:
    """The convention a file follows, by its columns; or an error that names what is missing and what would do.

    Prompts can be read from every kind of row. Unless they are what is wanted, a file is taken for prompts alone only
    where no other column could hold a response.
    """
    columns = list(columns)
    there = set(columns)
    alone = want == "prompts" or there <= {"prompt", *META}
    fitting = [c for c in CONVENTIONS if want in ("any", "prompts", c.gives) and (alone or c.gives != "prompts")]
    for one in fitting:
        if set(one.columns) <= there:
            return one
    accepted = ", ".join(c.name for c in fitting)
    other = next((c for c in CONVENTIONS if set(c.columns) <= there), None)
    if other is not None and (alone or other.gives != "prompts"):
        way = " For demonstrations from pairs, map the column: response = chosen." if want == "demonstrations" else ""
        raise DataError(
            source,
            f"has {other.gives} ({other.name}), but {want} are wanted",
            f"Accepted conventions: {accepted}.{way}",
        )
    spare = [name for name in columns if name not in ROLES and len(name) <= LONG][:MOST]
    close = {c: _plural(c, columns) or _like(c, spare) for one in fitting for c in one.columns if c not in there}
    near = max(fitting, key=lambda c: (_likeness(c, columns, close), -len(c.columns)))
    lines = [f"missing column '{name}'" for name in near.columns if name not in columns]
    hints = [f"Did you mean '{name}' by '{short(close[name])}'? " for name in near.columns if close.get(name)]
    raise DataError(
        source,
        f"{', '.join(lines)}; found columns: {listed(columns, SHOWN) or 'none'}",
        f"{''.join(hints)}Accepted conventions: {accepted}. Rename the columns of the file to one of these.",
    )


def _likeness(one: Convention, columns: list[str], close: Mapping[str, str]) -> float:
    have = sum(1.0 if c in columns else 0.8 if close.get(c) else 0.0 for c in one.columns)
    return have / len(one.columns) + 0.1 * have


def _plural(name: str, columns: list[str]) -> str:
    """The column that differs by its plural alone, though it is a role of its own: `scores` and `score`."""
    return next((other for other in (f"{name}s", name.removesuffix("s")) if other != name and other in columns), "")


def _like(name: str, columns: list[str]) -> str:
    return next(iter(difflib.get_close_matches(name, columns, n=1, cutoff=0.7)), "")
