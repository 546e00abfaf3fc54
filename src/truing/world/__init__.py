"""A small world whose truth is known.

`world:comparisons?n=4000&rater=careful` names a data set, `world:desk/small` a model. The desk itself (`case`, `gold`,
`best`, ...) is imported when it is first asked for.

>>> len(records("world:prompts?n=3&split=eval"))
3
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from truing.errors import UserError, unknown
from truing.records import Records
from truing.schema.type_words import words_and_doc
from truing.world import tiny

if TYPE_CHECKING:
    import inspect

    from truing.world.desk import answer, best, case, cases, gold, lookup
    from truing.world.raters import rater

__all__ = [
    "DATASETS",
    "answer",
    "best",
    "case",
    "cases",
    "check",
    "gold",
    "lookup",
    "rater",
    "records",
]

PREFIX = "world:"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from truing.world import desk, raters

    return raters.rater if name == "rater" else getattr(desk, name)


class _Makers(Mapping[str, Callable[..., Records]]):
    """Name -> maker. The makers are imported when the first one is asked for, so that importing the world is light."""

    names = (
        "arithmetic", "comparisons", "critiques", "demonstrations", "harms", "labels", "prompts", "pushback",
        "rankings", "ratings", "red_team", "steps", "text",
    )  # fmt: skip

    def __getitem__(self, name: str) -> Callable[..., Records]:
        if name not in self.names:
            raise KeyError(name)
        from truing.world import arithmetic, makers

        made: Callable[..., Records] = getattr(arithmetic if name == "arithmetic" else makers, name)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


DATASETS: Mapping[str, Callable[..., Records]] = _Makers()
"""The world's data sets by name."""


@lru_cache(maxsize=4)
def records(name: str) -> Records:
    """The data set that a name such as `world:demonstrations?n=2000&seed=1` stands for. The last few are kept: stages
    of one recipe read the same ones."""
    maker, options = _resolve(name)
    return DATASETS[maker](**options)


def check(name: str) -> None:
    """Raise `UserError` if `name` is no data set or model of the world, or an option of it is wrong; make nothing."""
    if name.startswith(tiny.PREFIX):
        tiny.size(name)
        return
    maker, options = _resolve(name)
    options["n"] = min(options.get("n", 1), 1)
    DATASETS[maker](**options)


def _resolve(name: str) -> tuple[str, dict[str, Any]]:
    import inspect

    if not name.startswith(PREFIX):
        raise UserError(f"'{name}' is not a data set of the world: those begin with {PREFIX}")
    maker, _, query = name.removeprefix(PREFIX).partition("?")
    if maker.startswith("desk/"):
        raise UserError(f"'{name}' is a model, not a data set. Data sets: {', '.join(sorted(DATASETS))}")
    if maker not in DATASETS:
        raise UserError(unknown("data set of the world", maker, DATASETS))
    return maker, _options(name, query, inspect.signature(DATASETS[maker], eval_str=True).parameters)


def _options(name: str, query: str, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in query.split("&") if query else ():
        key, equals, value = part.partition("=")
        if key not in parameters:
            raise UserError(f"{name}: {unknown('parameter', key, parameters)}")
        if not equals or not value:
            raise UserError(f"{name}: the parameter {key} has no value. Write {key}=...")
        kind = type(parameters[key].default)
        try:
            options[key] = kind(value)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            meaning = words_and_doc(parameters[key].annotation)[1]
            raise UserError(f"{name}: {key}={value} is not {wanted} ({key}: {meaning})") from None
    return options
