"""What can be seen of a stage's rewards before its run, without running any: the columns that they read, the rows that
they could not judge by, and the models that they name."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from truing import module_names, registry
from truing.errors import UserError, listed
from truing.pipeline.reward_spec import COST, options_of
from truing.rollout.call import KNOWN, TRL_KNOWN
from truing.signature import TRL, Function, Part
from truing.types import Records

ASKED = (("prompts", "rewards"), ("watch_prompts", "watch"), ("prompts", "judge"), ("prompts", "trusted"))
"""Options with prompts, and options with the rewards that judge answers to them."""
MODELS = ("Model", "RewardModel")


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
    """What of the prompts' rows a reward lacks, or could not judge by."""
    rows = [(n, r.meta.get("columns", {})) for n, r in zip(records.rows, records.records, strict=True)]
    for column in columns(part, options):
        lacking = [number for number, row in rows if column not in row]
        if lacking and (part.scope != TRL or len(lacking) == len(rows)):  # TRL's gets None for a row without it
            there = listed(dict.fromkeys(key for _, row in rows for key in row), 20) or "none"
            yield (
                f"reward '{part.name}' reads the column '{column}', which row {lacking[0]} of the prompts does not "
                f"have; columns beside the prompt: {there}"
            )
    yield from refused(part, options, rows)


def refused(part: Part, options: Mapping[str, Any], rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[str]:
    """Why a reward of truing's own could not judge by some of the rows, in one sentence; a user's is not run."""
    if part.name not in registry.parts("reward"):
        return
    check = registry.load(part.name, "reward").check
    if check is None:
        return
    own = {name: value for name, value in options.items() if name in inspect.signature(check).parameters}
    wrong: list[tuple[int, str]] = []
    for number, row in rows:
        try:
            check(row, **own)
        except UserError as problem:
            wrong.append((number, str(problem)))
    if wrong:
        count = f" ({len(wrong)} of {len(rows)} rows looked at)" if len(rows) > 1 else ""
        yield f"row {wrong[0][0]} of the prompts: {wrong[0][1]}{count}"


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
