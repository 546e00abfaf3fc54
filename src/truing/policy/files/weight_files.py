"""The weights of a folder, by the headers of its safetensors files: whole, floating-point, and in the folder itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from truing import door
from truing.errors import UserError, one_line

PATTERN = "*.safetensors"
INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 30_000_000
"""Largest header of a weight file, in bytes: a line for each of some 200,000 tensors."""
FLOATING = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The types of weights that are read, with their bytes."""
BUFFERS = (
    "attn.bias",
    "attention.bias",
    "masked_bias",
    "position_ids",
    "token_type_ids",
    "_index",
    "num_batches_tracked",
)
"""Endings of the names of tensors that older programs kept beside the weights: masks and positions, which are made
anew."""
AGAIN = "Download or copy it again."


class Tensor(NamedTuple):
    """One tensor as the header of a weight file describes it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)


def tensors_of(who: str, path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, from its header. UserError, which begins with `who`, for a file that is cut
    off or is none."""
    with door.opened(path, f"{who}: its {path.name}") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise _unreadable(who, path, "is no safetensors file: it begins with other bytes")
        raw = file.read(length)
    if len(raw) < length or size < 8:
        raise _unreadable(who, path, f"is cut off: it has {size:,} bytes, and its header alone needs {8 + length:,}")
    try:
        entries = {name: body for name, body in door.parse_json(raw.decode()).items() if name != "__metadata__"}
        whole = 8 + length + max((_end(body) for body in entries.values()), default=0)
        tensors = {name: _tensor(body) for name, body in entries.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise _unreadable(who, path, "is no safetensors file: its header cannot be read") from error
    if size < whole:
        raise _unreadable(who, path, f"is cut off: it has {size:,} of {whole:,} bytes")
    return tensors


def _end(body: Mapping[str, list[int]]) -> int:
    start, end = body["data_offsets"]
    if not all(type(place) is int for place in (start, end)) or not 0 <= start <= end:
        raise ValueError("offsets")
    return end


def _tensor(body: Mapping[str, object]) -> Tensor:
    dtype, shape = body["dtype"], body["shape"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("dtype or shape")
    return Tensor(dtype, tuple(shape))


def _unreadable(who: str, path: Path, problem: str) -> UserError:
    return UserError(f"{who}: its {path.name} cannot be read: it {problem}.\n  {AGAIN}")


def check_types(who: str, file: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse quantised weights: their numbers are not what stands in the file, and are read by no one here."""
    for name, tensor in tensors.items():
        if tensor.dtype in FLOATING or (not tensor.dtype.startswith("F") and name.endswith(BUFFERS)):
            continue
        raise UserError(
            f"{who}: its {file} holds {one_line(door.shown(name))} as {one_line(tensor.dtype)[:40]}, and weights are "
            f"read as {', '.join(FLOATING)}.\n  Take the model's own weights, which are not quantised, or dequantise "
            "it and save it again."
        )


def read_all(who: str, folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's weight files, checked: whole files, of types that are read, all that the index names.

    A folder with `model.safetensors` is that file, as transformers reads it; else the files that its index names.
    """
    files = weight_files(folder)
    each = {path.name: tensors_of(who, path) for path in files}
    for name, tensors in each.items():
        check_types(who, name, tensors)
    if not files or "model.safetensors" in each:
        return each.get("model.safetensors", {})
    return {name: tensor for file in shards(who, folder, each) for name, tensor in each[file].items()}


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if fnmatch(path.name, PATTERN))


def shards(who: str, folder: Path, there: Iterable[str]) -> list[str]:
    """The files that the index of a model in several files names: plain names of safetensors files of this folder."""
    index = folder / INDEX
    if not index.exists():
        last = max(there)  # model-00001-of-00003.safetensors
        if fnmatch(last, "model-*-of-*.safetensors"):
            raise _absent(who, [INDEX])
        raise UserError(f"{who}: its weights are called {last}, and neither model.safetensors nor named by {INDEX}")
    place = f"{who}: its {INDEX}"
    body = door.read_object(index, place)
    if not isinstance(body.get("metadata"), dict):
        raise UserError(f"{place}: metadata is {door.shown(body.get('metadata'))}, and is to be an object.\n  {AGAIN}")
    table = body.get("weight_map")
    if not isinstance(table, dict) or not table:
        raise UserError(
            f"{place}: weight_map is {door.shown(table)}, and is to be an object of tensors and their files"
        )
    for tensor, name in table.items():
        if not isinstance(name, str) or not name.endswith(".safetensors") or "/" in name or "\\" in name:
            raise UserError(
                f"{place}: {door.shown(tensor)} is said to be in {door.shown(name)}; only safetensors files of the "
                "folder itself are read.\n  " + AGAIN
            )
    named = sorted(set(table.values()))
    if absent := [name for name in named if name not in there]:
        raise _absent(who, absent)
    return named


def _absent(who: str, absent: list[str]) -> UserError:
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    names = one_line(", ".join(absent[:3]))
    return UserError(f"{who}: a part of its weights is missing: {names}{more}.\n  Download or copy the folder again.")
