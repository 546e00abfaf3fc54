"""Small files that would be large when they are read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet


def gzip_bomb(path: Path, gigabytes: float = 4.0) -> Path:
    """Write one row of JSON Lines whose text is so long: about a thousandth of it lies on the disk."""
    part = gzip.compress(b"a" * 10_000_000)
    with path.open("wb") as file:
        file.write(gzip.compress(b'{"prompt": "'))
        for _ in range(round(gigabytes * 100)):
            file.write(part)
        file.write(gzip.compress(b'", "response": "b"}\n'))
    return path


def parquet_bomb(path: Path, rows: int = 50_000_000) -> Path:
    """Write so many rows of the same two words, in a few hundred kilobytes."""
    part = pa.table({"prompt": pa.array(["a"]).dictionary_encode(), "response": pa.array(["b"]).dictionary_encode()})
    many = pa.table(
        {
            name: pa.chunked_array(
                [
                    pa.DictionaryArray.from_arrays(
                        pa.array([0], pa.int8()).take(pa.array([0] * 1_000_000)), part[name].chunk(0).dictionary
                    )
                ]
            )
            for name in part.column_names
        }
    )
    with parquet.ParquetWriter(path, many.schema, compression="zstd") as file:
        for _ in range(rows // 1_000_000):
            file.write_table(many, row_group_size=1_000_000)
    return path
