"""The files of a model's folder, before anything is loaded from them: each is what its name says, and whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from truing.data.file_nature import first_bytes, nature
from truing.errors import UserError

WEIGHTS = "*.safetensors"
INDEX = "model.safetensors.index.json"
SETTINGS = ("config.json", "generation_config.json", INDEX)
VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "tekken.json", "*.model",
    "*.tiktoken", "*.bpe", "*.vocab", "vocab.*",
)  # fmt: skip
"""Files that hold a tokenizer's vocabulary, the customary ones first."""
TOKENIZER = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
WITHOUT_VOCABULARY = frozenset({"ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer"})
"""Tokenizers of bytes or characters, which need none of these files."""
LONGEST_HEADER = 100_000_000  # safetensors' own limit


def check_model(folder: Path) -> None:
    """Refuse a model whose settings or weights are pointers, web pages, empty, cut off or not all there."""
    who = f"model '{folder}'"
    _check_natures(who, folder, SETTINGS)
    _check_weights(who, folder)
    _check_shards(folder)


def check_adapter(folder: Path, config: str) -> None:
    """Refuse an adapter whose description or weights are pointers, web pages, empty or cut off."""
    who = f"adapter '{folder}'"
    _check_natures(who, folder, (config,))
    _check_weights(who, folder)


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without a tokenizer's vocabulary, or whose tokenizer files are not what their names say."""
    _check_natures(f"model '{folder}'", folder, TOKENIZER)
    if any(_matching(folder, VOCABULARIES)):
        return
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if config["tokenizer_class"] in WITHOUT_VOCABULARY:
            return
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # then there is no tokenizer, whatever it says
    others = ", ".join(VOCABULARIES[1:4])
    raise UserError(
        f"model '{folder}': there is no tokenizer.json in it, nor another vocabulary ({others}).\n"
        "  Copy the tokenizer's files from the model that it was trained from."
    )


def _check_weights(who: str, folder: Path) -> None:
    """Refuse weights that are another kind of file, or of which a part is missing; every safetensors file is looked at
    by its header alone."""
    for path in _matching(folder, (WEIGHTS,)):
        _check_nature(who, path)
        problem = _damage(path)
        if problem:
            raise UserError(f"{who}: its {path.name} cannot be read: it {problem}.\n  Download or copy it again.")


def _damage(path: Path) -> str:
    """What is wrong with a safetensors file, by its size and header; empty where nothing is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            return "is no safetensors file: it begins with other bytes"
        raw = file.read(length)
    if len(raw) < length or size < 8:
        return f"is cut off: it has {size:,} bytes, and its header alone needs {8 + length:,}"
    try:
        tensors = [entry for name, entry in json.loads(raw).items() if name != "__metadata__"]
        whole = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "is no safetensors file: its header cannot be read"
    return f"is cut off: it has {size:,} of {whole:,} bytes" if size < whole else ""


def _check_shards(folder: Path) -> None:
    """Refuse a model of several weight files of which some are missing, or whose index is."""
    there = {path.name for path in _matching(folder, (WEIGHTS,))}
    if not there or "model.safetensors" in there:
        return
    index = folder / INDEX
    if index.is_file():
        try:
            named = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"model '{folder}': its {INDEX} cannot be read ({error!r})") from error
        absent = sorted(named - there)
    else:
        last = max(there)  # model-00001-of-00003.safetensors
        absent = [INDEX] if fnmatch(last, "model-*-of-*.safetensors") else []
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise UserError(
            f"model '{folder}': a part of its weights is missing: {', '.join(absent[:3])}{more}.\n"
            "  Download or copy the folder again."
        )


def _check_natures(who: str, folder: Path, patterns: Iterable[str]) -> None:
    for path in _matching(folder, patterns):
        _check_nature(who, path)


def _check_nature(who: str, path: Path) -> None:
    try:
        found = nature(first_bytes(path))
    except OSError as error:
        raise UserError(f"{who}: its {path.name} cannot be read ({error.strerror or error})") from error
    if found is not None:
        raise UserError(f"{who}: its {path.name} is {found.what}.\n  {found.way_out}")


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The ordinary files of a folder with such names, in the order of their names."""
    known = tuple(patterns)
    return sorted(p for p in folder.iterdir() if any(fnmatch(p.name, pattern) for pattern in known) and p.is_file())
