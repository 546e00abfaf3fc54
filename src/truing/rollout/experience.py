"""What a policy lived through: rollouts with their scores and log-probabilities, kept as Parquet.

Experience is data: it can be looked at, gone on from after a kill, and learned from again by other objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from truing.errors import RunFailed


@dataclass(frozen=True, slots=True)
class Experience:
    """One answer with all that is known of it. Per token of the response: `logp_T` under the policy that gave it,
    `ref_logp_T` under the reference, `value_T` as the value head forecast; the last two may be empty."""

    row: int
    prompt: str
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


def write(path: Path, rows: Sequence[Experience]) -> str:
    """Write a round's experience, whole or not at all; gives the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {f.name: [getattr(row, f.name) for row in rows] for f in fields(Experience)}
    part = path.with_name(f".{path.name}")
    parquet.write_table(pa.table(columns, schema=SCHEMA), part)
    part.replace(path)
    return path.name


def read(path: Path) -> list[Experience]:
    """What `write` wrote, to the last bit; RunFailed where it cannot be read."""
    try:
        rows = parquet.read_table(path, schema=SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise RunFailed(
            f"{path}: this round's experience cannot be read ({error}); remove it to sample anew"
        ) from error
    plain: list[dict[str, Any]] = [{k: tuple(v) if isinstance(v, list) else v for k, v in r.items()} for r in rows]
    return [Experience(**row) for row in plain]


SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("prompt", pa.string()),
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
    ]
)
