"""An option of an objective, a stage or a reward: its name, the type of its values, its default and its meaning."""

from __future__ import annotations

import ast
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from truing.errors import short
from truing.schema.type_words import (
    REFERENCES,
    choices_in,
    convert,
    describe,
    guess,
    members,
    parse_type,
    reason,
    word_of,
    words_in,
)


@dataclass(frozen=True)
class Option:
    """A keyword-only parameter: its name, the words of its type, its default, whether it must be given, and what its
    annotation says of it in one sentence (`beta: Annotated[Positive, "price of a nat ..."] = 0.1`)."""

    name: str
    type: str
    default: Any = None
    required: bool = False
    doc: str = ""

    def check(self, value: Any) -> Any:
        """The value in its own type, or a ValueError that says what was expected.

        >>> Option("learning_rate", "Positive").check("3e-5")
        3e-05
        >>> Option("learning_rate", "Positive").check(-1)
        Traceback (most recent call last):
        ValueError: learning_rate must be a number above 0, got -1
        """
        try:
            return convert(self.tree, value)
        except ValueError:
            shown = "none" if value is None else short(repr(value))
            meaning = f" ({self.name}: {self.doc})" if self.doc else ""
            raise ValueError(
                f"{self.name} must be {self.takes}, got {shown}{reason(self.tree, value)}{self.guess(value)}{meaning}"
            ) from None

    @functools.cached_property
    def tree(self) -> ast.expr:
        """The type, parsed; UserError for a word that is none."""
        return parse_type(self.type)

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """The words of the type (`Count`, `Model`, ...), those within lists and unions too."""
        return words_in(self.tree)

    @functools.cached_property
    def choices(self) -> tuple[Any, ...]:
        """The constants that the type allows by name for the whole value, such as `gold` beside models."""
        return choices_in(self.tree)

    @functools.cached_property
    def reference(self) -> str:
        """The kind of reference it takes (`Model`, `Data`, ...), or an empty string."""
        return next((word for word in REFERENCES if word in self.words), "")

    @property
    def takes(self) -> str:
        """A description of its values, in words for a person."""
        return describe(self.tree)

    def guess(self, value: Any) -> str:
        """A hint for a misspelt choice, as a sentence's end."""
        return guess(self.tree, value)

    def without(self, word: str) -> Option:
        """The same option, but for one alternative of its type.

        >>> Option("judge", "RewardSpec | RewardModel").without("RewardSpec").type
        'RewardModel'
        """
        others = [ast.unparse(tree) for tree in members(self.tree) if word_of(tree) != word]
        return dataclasses.replace(self, type=" | ".join(others))
