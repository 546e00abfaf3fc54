"""What a policy lived through: rollouts with their log-probabilities and, where they have been scored, their scores,
kept as Parquet.

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

from truing.disk import replacing
from truing.errors import DataError, RunFailed
from truing.types import Message, Messages, messages_json


@dataclass(frozen=True, slots=True)
class Experience:
    """One answer with all that is known of it. Per token of the response: `logp_T` as the sampler gave it, `old_logp_T`
    as the trainer read the same policy, where it did, `ref_logp_T` under the reference, `value_T` as the value head
    forecast; all but the first may be empty. `parts` is what
    each reward said of it, by name; an answer that could not be scored says `why`, and its score is no number. One that
    nobody was asked to score has neither, and its score is no number either."""

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
    known = SCHEMA
    if not any(row.parts or row.why for row in rows):  # never scored: a file of demonstrations, not of missing scores
        known = pa.schema([f for f in SCHEMA if f.name not in ("score", "parts", "why")])
    with replacing(path) as part:
        parquet.write_table(pa.table({name: columns[name] for name in known.names}, schema=known), part)
    return path.name


def read(path: Path) -> list[Experience]:
    """What `write` wrote, to the last bit; RunFailed where it cannot be read."""
    try:
        rows = parquet.read_table(path, schema=SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise RunFailed(
            f"{path}: this round's experience cannot be read ({error}); begin the stage anew with --restart"
        ) from error
    return [Experience(**row) for row in map(plain, rows)]


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the file as the fields of `Experience`."""
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    found["prompt"] = tuple(Message(**message) for message in row["prompt"])
    absent = {"score": math.nan, "parts": (), "why": "", "old_logp_T": ()}
    return found | {name: other for name, other in absent.items() if found[name] is None}


def is_experience(path: Path) -> bool:
    """Whether a file is one that `write` wrote; DataError where it cannot be read."""
    if path.suffix != ".parquet":
        return False
    try:
        names = set(parquet.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(str(path), f"not a readable Parquet file ({error})") from error
    return {"prompt", "response", "prompt_ids", "response_ids", "logp_T", "stop"} <= names


def rounds(folder: Path) -> dict[int, Path]:
    """The rounds in a folder by their numbers, which count from 1, in order."""
    return dict(sorted((int(path.stem.removeprefix("round-")), path) for path in folder.glob("round-*.parquet")))


def failures(folder: Path) -> list[str]:
    """Of every answer of all rounds in a folder, in order, why it could not be scored; empty where it could."""
    files = sorted(folder.glob("round-*.parquet"))
    return [why for path in files for why in parquet.read_table(path, columns=["why"])["why"].to_pylist()]


def parts(folder: Path) -> list[dict[str, float]]:
    """Of every answer of all rounds in a folder, in order, what each reward said; none where it could not be scored."""
    files = sorted(folder.glob("round-*.parquet"))
    return [
        dict(row or ()) for path in files for row in parquet.read_table(path, columns=["parts"])["parts"].to_pylist()
    ]


def counts(folder: Path, fewest: int) -> Counter[str]:
    """How many `responses` all rounds in a folder hold, how many of them could not be scored (`failed`), and how many
    had fewer than `fewest` scored ones in their group (`alone`)."""
    found = Counter(dict.fromkeys(("responses", "failed", "alone"), 0))
    for path in sorted(folder.glob("round-*.parquet")):
        table = parquet.read_table(path, columns=["group", "why"]).to_pylist()
        groups = Counter(row["group"] for row in table if not row["why"])
        found["responses"] += len(table)
        found["failed"] += sum(bool(row["why"]) for row in table)
        found["alone"] += sum(count for count in groups.values() if count < fewest)
    return found


def usable(rows: Sequence[Experience], fewest: int) -> tuple[list[Experience], int]:
    """The answers that were scored, without those that have fewer than `fewest` of their group, and how many those are.
    RunFailed where every single one failed: that is the reward's doing."""
    good = [row for row in rows if not row.why]
    if not good:
        raise RunFailed(f"all {len(rows)} answers of this round failed; the first: {rows[0].why}")
    count = Counter(row.group for row in good)
    kept = [row for row in good if count[row.group] >= fewest]
    return kept, len(good) - len(kept)


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
