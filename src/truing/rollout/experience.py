"""Experience of a policy: rollouts with their log-probabilities and, where they have been scored, their scores, kept
as Parquet.

Experience is data: it can be looked at, gone on from after a kill, and learned from again by other objectives.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from truing.data.formats import parquet as checked
from truing.disk import replacing
from truing.errors import DataError, RunFailed
from truing.records import Message, Messages, messages_json


@dataclass(frozen=True, slots=True)
class Experience:
    """One response and everything recorded of it. Per token of the response: `logp_T` as the sampler gave it,
    `old_logp_T` as the trainer read the same policy, where it did, `ref_logp_T` under the reference, `value_T` as the
    value head forecast; all but the first may be empty. `parts` are the values of each reward, by name; a response that
    could not be scored says `why`, and its score is no number. One that nobody was asked to score has neither, and its
    score is no number either."""

    row: int
    prompt: Messages
    response: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logp_T: tuple[float, ...]
    ref_logp_T: tuple[float, ...]
    value_T: tuple[float, ...]
    score: float
    stop: str
    group: int
    policy_version: int
    parts: tuple[tuple[str, float], ...] = ()
    why: str = ""
    old_logp_T: tuple[float, ...] = ()

    @property
    def policy_logp_T(self) -> tuple[float, ...]:
        """Under the policy that gave it: as the trainer read it, or else as the sampler did."""
        return self.old_logp_T or self.logp_T


def write(path: Path, rows: Sequence[Experience]) -> str:
    """Write a round's experience, whole or not at all; gives the file's name."""
    columns = {f.name: [getattr(row, f.name) for row in rows] for f in fields(Experience)}
    columns["prompt"] = [messages_json(row.prompt) for row in rows]
    schema = SCHEMA
    if not any(row.parts or row.why for row in rows):  # never scored: a file of demonstrations, not of missing scores
        schema = pa.schema([f for f in SCHEMA if f.name not in ("score", "parts", "why")])
    with replacing(path) as part:
        parquet.write_table(pa.table({name: columns[name] for name in schema.names}, schema=schema), part)
    return path.name


def read(path: Path) -> list[Experience]:
    """Read what `write` wrote, to the last bit; RunFailed where it cannot be read."""
    return [Experience(**plain(path, row)) for row in table(path, SCHEMA)]


def table(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """The rows of a round, in the columns of a schema; RunFailed where they cannot be read."""
    try:
        checked.check(str(path), path)
        return list(parquet.read_table(path, columns=schema.names, schema=SCHEMA).to_pylist())
    except (OSError, ValueError, LookupError, pa.ArrowException, DataError) as error:
        problem = error.problem if isinstance(error, DataError) else str(error)
        raise RunFailed(
            f"{path}: this round's experience cannot be read ({problem}); begin the stage anew with --restart"
        ) from error


def plain(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    """A row of the file as the fields of `Experience`; RunFailed where one that every response has is missing."""
    absent = {"score": math.nan, "parts": (), "why": "", "old_logp_T": ()}
    empty = [name for name, value in row.items() if value is None and name not in absent]
    empty += [f"prompt.{name}" for message in row["prompt"] or () for name in message if message[name] is None]
    if empty:
        raise RunFailed(f"{path}: a response has no '{empty[0]}'; begin the stage anew with --restart")
    fields_ = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    fields_["prompt"] = tuple(Message(**message) for message in row["prompt"])
    return fields_ | {name: other for name, other in absent.items() if fields_[name] is None}


def is_experience(path: Path) -> bool:
    """True if a file is one that `write` wrote; DataError where it cannot be read."""
    if path.suffix != ".parquet":
        return False
    checked.check(str(path), path)
    names = set(parquet.read_schema(path).names)
    return {"prompt", "response", "prompt_ids", "response_ids", "logp_T", "stop"} <= names


def rounds(folder: Path) -> dict[int, Path]:
    """The rounds in a folder by their numbers, which count from 1, in order."""
    numbered = ((path.stem.removeprefix("round-"), path) for path in folder.glob("round-*.parquet"))
    return dict(sorted((int(number), path) for number, path in numbered if number.isdecimal()))


def failures(folder: Path) -> list[str]:
    """The reasons why responses of all rounds in a folder could not be scored, in order; empty where one could."""
    files = sorted(folder.glob("round-*.parquet"))
    return [row["why"] for path in files for row in table(path, WHY)]


def parts(folder: Path) -> list[dict[str, float]]:
    """The parts of every response's score, of all rounds in a folder in order; none where it could not be scored."""
    files = sorted(folder.glob("round-*.parquet"))
    return [dict(row["parts"] or ()) for path in files for row in table(path, PARTS)]


def counts(folder: Path, fewest: int) -> Counter[str]:
    """Count the `responses` of all rounds in a folder, those that could not be scored (`failed`), and those that had
    fewer than `fewest` scored ones in their group (`ungrouped`)."""
    totals = Counter(dict.fromkeys(("responses", "failed", "ungrouped"), 0))
    for path in sorted(folder.glob("round-*.parquet")):
        rows = table(path, GROUPS)
        groups = Counter(row["group"] for row in rows if not row["why"])
        totals["responses"] += len(rows)
        totals["failed"] += sum(bool(row["why"]) for row in rows)
        totals["ungrouped"] += sum(count for count in groups.values() if count < fewest)
    return totals


def usable(rows: Sequence[Experience], fewest: int) -> tuple[list[Experience], int]:
    """The responses that were scored, without those that have fewer than `fewest` of their group, and how many those
    are. RunFailed where every single one failed: that is the reward's doing."""
    good = [row for row in rows if not row.why]
    if not good:
        raise RunFailed(f"all {len(rows)} responses of this round failed; the first: {rows[0].why}")
    count = Counter(row.group for row in good)
    grouped = [row for row in good if count[row.group] >= fewest]
    return grouped, len(good) - len(grouped)


SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("response", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("response_ids", pa.list_(pa.int32())),
        ("logp_T", pa.list_(pa.float64())),
        ("ref_logp_T", pa.list_(pa.float64())),
        ("value_T", pa.list_(pa.float64())),
        ("score", pa.float64()),
        ("stop", pa.string()),
        ("group", pa.int64()),
        ("policy_version", pa.int64()),
        ("parts", pa.map_(pa.string(), pa.float64())),
        ("why", pa.string()),
        ("old_logp_T", pa.list_(pa.float64())),
    ]
)
WHY, PARTS, GROUPS = (pa.schema([SCHEMA.field(n) for n in names]) for names in (["why"], ["parts"], ["group", "why"]))
"""Columns of a round: why responses have no score, the part of each reward, and which responses belong together."""
