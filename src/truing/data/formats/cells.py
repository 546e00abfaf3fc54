"""The values of a row's cells: numbers, truth values, scores and lists of them, or the reason why they are none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any, TypeAlias

from truing import door
from truing.data.formats import bounds
from truing.data.formats.files import Row
from truing.data.formats.oddities import Unusable
from truing.door import kind
from truing.errors import listed

Score: TypeAlias = float | dict[str, float]
"""One number, or numbers by name."""
Spread: TypeAlias = float | dict[str, float] | None
"""Standard deviation between raters, in the form of their score; None where there is one number only."""


def boolean(value: Any, name: str) -> bool:
    """True or false, also as 1 and 0 or in words."""
    words = {"true": True, "1": True, "false": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise Unusable(name, "is null" if value is None else f"is {door.shown(value)}, not true or false")


def number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number from `low` to `high`, or the text of one."""
    if value is None:
        raise Unusable(name, "is null")
    try:
        figure = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        figure = math.nan
    if not math.isfinite(figure):
        raise Unusable(name, f"is {str(value)[:40]!r}, not a number")
    if not low <= figure <= high:
        raise Unusable(name, f"is {figure:g}, not between {low:g} and {high:g}")
    return figure


def has_value(row: Row, name: str) -> bool:
    """Return whether the row has a value in this column: a null and an empty cell are none."""
    return row.get(name) is not None and row[name] != ""


def optional(row: Row, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
    """The number in a column that may be left out or empty."""
    return number(row[name], name, low, high) if has_value(row, name) else None


def entries(value: Any, name: str, what: str, count: int | None = None) -> list[Any]:
    """A list with one entry for each `what` (step, response, ...), of which there are `count` where that is known."""
    if not isinstance(value, list | tuple):
        raise Unusable(name, "is null" if value is None else f"is {kind(value)}, not a list with one entry per {what}")
    if not value:
        raise Unusable(name, f"is an empty list of {what}s")
    if count is not None and len(value) != count:
        raise Unusable(name, f"has {len(value)} entries for {count} {what}s")
    return list(value)


def index(value: Any, name: str, count: int) -> int:
    """The index of one of `count` responses, counted from 0."""
    place = number(value, name)
    if place != int(place):
        raise Unusable(name, f"is {place:g}, not the index of a response")
    if not 0 <= place < count:
        raise Unusable(name, f"is {place:g}, and the {count} responses are counted from 0 to {count - 1}")
    return int(place)


def score(value: Any, name: str) -> tuple[Score, Spread]:
    """A score and the spread of its raters: a number, a list of numbers (one per rater, of which the mean is taken), or
    a mapping of names to either. A name without a value (null) is a score that was not given."""
    if not isinstance(value, Mapping):
        return _rating(value, name)
    rated = {str(key): _rating(rating, f"{name}.{key}") for key, rating in value.items() if rating is not None}
    if not rated or "" in rated:
        raise Unusable(name, "has a score without a name" if rated else "names no score")
    spread = {key: apart for key, (_, apart) in rated.items() if apart is not None}
    return {key: mean for key, (mean, _) in rated.items()}, spread or None


def tools(value: Any, name: str) -> list[dict[str, Any]]:
    """The tools that a row names: a list, or the JSON text of one; each an object or its JSON text. None of them where
    nothing is said (null, an empty text, `[]`).

    In a list of objects a null is what tables write for a key that another tool has, so it is no key of this one.
    """
    text = isinstance(value, str)
    parsed = _json(value, name) if isinstance(value, str) else value
    if parsed is None:
        return []
    listed = [parsed] if isinstance(parsed, Mapping) else parsed
    if not isinstance(listed, list | tuple):
        raise Unusable(name, f"is {kind(parsed)}, not a list of tools" + (" (in its JSON text)" if text else ""))
    return [_tool(tool, f"{name}[{i}]", as_written=text) for i, tool in enumerate(listed)]


def _tool(value: Any, name: str, as_written: bool) -> dict[str, Any]:
    if isinstance(value, str):
        value, as_written = _json(value, name), True
    if not isinstance(value, Mapping):
        raise Unusable(name, f"is {kind(value)}, not a tool: an object, or the JSON text of one")
    tool = dict(value) if as_written else _without_nulls(value)
    inner = tool.get("function", tool)
    if not isinstance(inner, Mapping) or not isinstance(tool.get("type", ""), str):
        raise Unusable(name, "is no tool: its 'function' is no object, or its 'type' no text")
    named = isinstance(inner.get("name"), str) and inner["name"].strip()
    if not named and tool.get("type", "function") == "function":
        raise Unusable(name, f"is a tool without a name; it has {listed(inner, 20) or 'nothing'}")
    return tool


def _json(value: str, name: str) -> Any:
    """Parse a JSON text, also one that was encoded twice; None for a blank one."""
    parsed: Any = value
    for _ in range(2):
        if not isinstance(parsed, str):
            break
        if not parsed.strip():
            return None
        try:
            parsed = bounds.parse(parsed)
        except ValueError as error:
            raise Unusable(name, f"is text that is no JSON ({error}): {parsed[:40]!r}") from None
    return parsed


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list | tuple) else value


def _rating(value: Any, name: str) -> tuple[float, float | None]:
    """The mean of a list of numbers and their standard deviation (over n - 1); or the one number."""
    if not isinstance(value, list | tuple):
        return number(value, name), None
    ratings = [number(rating, f"{name}[{i}]") for i, rating in enumerate(entries(value, name, "rater"))]
    try:
        return statistics.fmean(ratings), statistics.stdev(ratings) if len(ratings) > 1 else None
    except OverflowError:
        raise Unusable(name, "holds numbers too large to average") from None
