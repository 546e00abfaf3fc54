"""Reports of reading a row: why it cannot be a record, what was odd in it, which keys nobody reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FIELD, PROBLEM = 200, 2000
"""Characters that are kept of a field's name and of its problem."""
Action = Literal["dropped", "joined", "kept", "truncated"]


class Unusable(Exception):
    """A row that cannot become a record: in which field, and why, in words that do not grow with what it holds."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field, self.problem = cut(field, FIELD), cut(problem, PROBLEM)


@dataclass
class Oddities:
    """Notes on a usable row, as (field, problem, action), and the keys of its messages that nobody reads.

    Where nothing is learned (`unmarked`), marks that say what is to be learned play no part.
    """

    notes: list[tuple[str, str, Action]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    unmarked: bool = False

    def add(self, name: str, problem: str, action: Action) -> None:
        """Note one oddity."""
        self.notes.append((cut(name, FIELD), cut(problem, PROBLEM), action))


def cut(text: str, most: int) -> str:
    """A text of at most about `most` characters, its end cut off."""
    return text if len(text) <= most else f"{text[:most]}..."
