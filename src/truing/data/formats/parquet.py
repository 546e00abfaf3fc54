"""Rows of a Parquet file. Their number and unpacked size are checked before any of them is made: a text
that is written once may stand in every row.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from truing import door
from truing.data.formats import bounds
from truing.errors import DataError, RunFailed, UserError, one_line

VALUES, VALUES_A_BYTE = 2_000_000, 10
"""Values that every file may hold, and values a byte beyond that: marks of tokens take a bit each."""
LOOKED_AT, MADE = 8192, 1024
"""Rows that are weighed, and made, at a time."""


def rows(source: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with their numbers, from 1. A number in a column that is not one (NaN) is a missing value, as pandas
    writes it. DataError for a file that cannot be read, or holds more than it may.
    """
    parquet = module("pyarrow.parquet", "Parquet files")
    check_apart(source, path)
    with _readable(source), parquet.ParquetFile(path) as file:
        numbers = [field.name for field in file.schema_arrow if str(field.type) in ("float", "double", "halffloat")]
        number = 0
        for batch in file.iter_batches(batch_size=MADE):
            for row in batch.to_pylist():
                number += 1
                for name in numbers:
                    if row[name] != row[name]:
                        row[name] = None
                yield number, row


def check_apart(source: str, path: Path) -> None:
    """`check` in a process of its own: of some damage Arrow makes an end of the whole process, and no error."""
    door.check_file(path, source)
    words = [sys.executable, "-I", "-c", APART, json.dumps([entry for entry in sys.path if entry]), source, str(path)]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode == 0:
        return
    if done.returncode == 2 and done.stdout:
        raise DataError(*json.loads(done.stdout))
    if done.returncode < 0:
        raise DataError(source, f"not a readable Parquet file (the library that reads it gave up, {done.returncode})")
    raise RunFailed(f"{source}: could not be checked: {done.stderr.strip()[-300:]}")


APART = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pathlib import Path
from truing.data.formats import parquet
from truing.errors import DataError
try:
    parquet.check(sys.argv[2], Path(sys.argv[3]))
except DataError as error:
    print(json.dumps([error.place, error.problem, error.way_out]))
    sys.exit(2)
"""


def check(source: str, path: Path) -> None:
    """DataError for a file that cannot be read, or holds more than it may."""
    door.check_file(path, source)
    parquet = module("pyarrow.parquet", "Parquet files")
    with _readable(source), parquet.ParquetFile(path) as file:
        check_size(source, path, file)
        check_texts(source, path, file)


def check_size(source: str, path: Path, file: Any) -> None:
    """DataError where a file says of itself that it holds more rows, columns, values or bytes than it may."""
    size, facts = path.stat().st_size, file.metadata
    if facts.num_columns > bounds.COLUMNS:
        problem = f"has {facts.num_columns:,} columns, and at most {bounds.COLUMNS:,} are read"
        raise DataError(source, problem, "Leave the others out.")
    bounds.check_columns(source, names := file.schema_arrow.names)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(source, f"column '{one_line(twice[0])}' stands twice")
    bounds.check_rows(source, facts.num_rows, size, packed=True)
    chunks = [
        group.column(i) for group in map(facts.row_group, range(facts.num_row_groups)) for i in range(group.num_columns)
    ]
    fixed = [max(0, file.schema.column(i).length) for i in range(facts.num_columns)]
    values = sum(chunk.num_values for chunk in chunks)
    if values > max(VALUES, VALUES_A_BYTE * size):
        raise DataError(
            source,
            f"holds {values:,} values in {size:,} bytes: more than can be meant",
            "Leave out the columns that are not needed.",
        )
    written_once = sum(chunk.num_values * fixed[i % len(fixed)] for i, chunk in enumerate(chunks))
    bounds.check_unpacked(source, max(written_once, sum(chunk.total_uncompressed_size for chunk in chunks)), size)


def check_texts(source: str, path: Path, file: Any) -> None:
    """DataError where the texts of a file, each counted as often as it stands in a row, are more than it may hold."""
    parquet, size = module("pyarrow.parquet", "Parquet files"), path.stat().st_size
    columns = [file.schema.column(i) for i in range(file.metadata.num_columns)]
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    if not texts:
        return
    unpacked = 0
    with parquet.ParquetFile(path, read_dictionary=texts) as shared:
        for batch in shared.iter_batches(batch_size=LOOKED_AT, columns=texts):
            unpacked += sum(map(weight, batch.columns))
            bounds.check_unpacked(source, unpacked, size)


def weight(array: Any) -> int:
    """Bytes that the texts of an array take, each counted as often as it stands there."""
    kinds, compute = module("pyarrow.types", "Parquet files"), module("pyarrow.compute", "Parquet files")
    kind = array.type
    if kinds.is_dictionary(kind):
        lengths = compute.binary_length(array.dictionary)
        return int(compute.sum(compute.take(lengths, array.indices)).as_py() or 0)
    if kinds.is_map(kind):
        return weight(array.keys) + weight(array.items)
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return weight(array.flatten())
    if kinds.is_struct(kind):
        return sum(map(weight, array.flatten()))
    return int(array.nbytes)


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """DataError for whatever the library says of a file that it cannot read, of a value that Python does not have
    (the year 292277026596) or of a time zone that is none."""
    arrow = module("pyarrow", "Parquet files")
    try:
        yield
    except (arrow.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise DataError(source, f"not a readable Parquet file ({one_line(door.why(error))[:300]})") from error


def module(name: str, what: str) -> Any:
    """A package that only some files need; UserError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".", maxsplit=1)[0]
        raise UserError(f"{what} need the package '{package}': pip install 'truing[train]'") from error
