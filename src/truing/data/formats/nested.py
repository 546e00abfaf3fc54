"""The contents of a nested cell: its texts, its numbers, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def nothing(value: Any) -> bool:
    """Return whether a value, however nested, is empty."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, Mapping):
        return all(map(nothing, value.values()))
    return value is None or (isinstance(value, list | tuple) and all(map(nothing, value)))


def texts(value: Any) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from texts(inner)


def figures(value: Any) -> Iterator[str]:
    """Every number, true and false in a value, as JSON writes them."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from figures(inner)
    elif value is not None and not isinstance(value, str):
        yield json.dumps(value, default=str)
