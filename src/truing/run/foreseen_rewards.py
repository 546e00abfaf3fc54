"""Checks of a stage's rewards without calling any: the columns that they read, the rows that they could not judge by,
and the models that they name. Used when a recipe is checked, and by a stage for the rewards that it has loaded."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from truing import module_names, registry
from truing.errors import UserError, listed
from truing.recipe.reward_spec import COST, options_of
from truing.records import Records
from truing.rewards.call import KNOWN, TRL_KNOWN
from truing.schema.signature import TRL, Function, Part

ASKED = (("prompts", "rewards"), ("monitor_prompts", "monitor"), ("prompts", "judge"), ("prompts", "trusted"))
"""Options with prompts, and options with the rewards that judge responses to them."""
MODELS = ("Model", "RewardModel")
SHOWN = 10
"""Most refused rows that are named by their numbers."""
Rows: TypeAlias = Sequence[tuple[int, Mapping[str, Any]]]
"""The columns beside the prompts, by the numbers of their rows."""


def named(value: Any, folder: Path | None) -> Iterator[tuple[Part, Mapping[str, Any]]]:
    """The rewards that an option names, each with its options; none where it names a model or nothing."""
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, Mapping) and "new" not in entry:
            ((name, options),) = (options_of(dict(entry))["of"] if COST in entry else entry).items()
            yield registry.resolve(name, "reward", folder), options


def models(part: Part, options: Mapping[str, Any]) -> Iterator[Any]:
    """The models that a reward's options name."""
    for option in part.options:
        value = options.get(option.name)
        if option.reference in MODELS and value is not None:
            yield from value if isinstance(value, list) else [value]


def troubles(part: Part, options: Mapping[str, Any], records: Records) -> Iterator[str]:
    """Columns of the prompts' rows that a reward lacks, and rows that it could not judge by; a user's own reward is not
    run for it."""
    rows = [(n, r.meta.get("columns", {})) for n, r in zip(records.rows, records.records, strict=True)]
    yield from lacking(part.name, part.scope, columns(part, options), rows)
    if part.name in registry.parts("reward"):
        yield from filter(None, [refused(registry.load(part.name, "reward").check, options, rows)])


def lacking(name: str, scope: str, columns: Sequence[str], rows: Rows) -> Iterator[str]:
    """The columns that a reward cannot do without and a prompt's row does not have (TRL's: no row has)."""
    for column in columns:
        without = [number for number, row in rows if column not in row]
        if without and (scope != TRL or len(without) == len(rows)):
            there = listed(dict.fromkeys(key for _, row in rows for key in row)) or "none"
            yield (
                f"reward '{name}' reads the column '{column}', which row {without[0]} of the prompts does not have; "
                f"columns beside the prompt: {there}"
            )


def refused(check: Callable[..., Any] | None, options: Mapping[str, Any], rows: Rows) -> str:
    """Reason why a reward could not judge by a prompt's row, and the rows it refuses so; empty where it can."""
    if check is None:
        return ""
    check_options = {name: value for name, value in options.items() if name in inspect.signature(check).parameters}
    wrong: dict[int, str] = {}
    for number, row in rows:
        try:
            check(row, **check_options)
        except UserError as problem:
            wrong[number] = str(problem)
    if not wrong:
        return ""
    first, why = next(iter(wrong.items()))
    numbers = ", ".join(map(str, list(wrong)[:SHOWN])) + (", ..." if len(wrong) > SHOWN else "")
    more = f"\n  {len(wrong)} of {len(rows)} rows are refused so: {numbers}" if len(wrong) > 1 else ""
    return f"row {first} of the prompts: {why}{more}"


def columns(part: Part, options: Mapping[str, Any]) -> list[str]:
    """The columns that a reward's signature cannot do without."""
    if part.scope != TRL:
        return [name for name in part.needs if name not in KNOWN and name not in options]
    meaning = module_names.meaning(part.name, Path(part.file))
    node = meaning.node if meaning else None
    if not isinstance(node, Function | ast.Lambda) or getattr(node, "decorator_list", []):
        return []  # only running it would tell
    plain = [*node.args.posonlyargs, *node.args.args]
    keyed = [a for a, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if default is None]
    needed = [*plain[: len(plain) - len(node.args.defaults)], *keyed]
    return [argument.arg for argument in needed if argument.arg not in TRL_KNOWN]
