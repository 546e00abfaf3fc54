"""The files of a model's folder, before anything is loaded from them: each is what its name says, whole, and no larger
than such a file is; what they say is what their names ask for."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from truing import door
from truing.data.formats.file_nature import ENOUGH, nature
from truing.disk import no_number
from truing.errors import UserError, one_line
from truing.policy.files import grammar, tokenizer_files, weight_files
from truing.policy.files.weight_files import INDEX, PATTERN, Tensor

CONFIG = "config.json"
SETTINGS = (CONFIG, "generation_config.json", INDEX)
VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "tekken.json", "*.model",
    "*.tiktoken", "*.bpe", "*.vocab", "vocab.*",
)  # fmt: skip
"""Files that hold a tokenizer's vocabulary, the customary ones first."""
TOKENIZER_SETTINGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "processor_config.json",
)
TEMPLATES = ("*.jinja", "additional_chat_templates/*.jinja")
WITHOUT_VOCABULARY = frozenset({"ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer"})
"""Tokenizers of bytes or characters, which need none of these files."""
CODE = (
    "asks to run code of its own (auto_map); that is refused.\n"
    "  Where transformers has the model itself, by its model_type, take auto_map out of the file."
)


def check_places(who: str, folder: Path) -> None:
    """Refuse a folder in which a pipe, a socket or a device has the name of a file: whatever opens it may wait for
    ever, and a library opens files that nobody listed."""
    try:
        for path in sorted((*folder.iterdir(), *folder.glob("additional_chat_templates/*"))):
            mode = path.stat().st_mode if path.exists() else stat.S_IFREG  # a link to nothing is opened by no one
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise UserError(f"{who}: its {one_line(path.name)} is no file but a pipe, a socket or a device")
    except OSError as error:
        raise UserError(f"{who}: cannot be read ({door.why(error)})") from error


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The contents of a model's config.json and the tensors of its weight files, by their headers. UserError for a
    folder that is no model, whose files are pointers, web pages, cut off or not all there, whose config asks for code
    of its own or for what its weights cannot hold."""
    who = f"model '{folder}'"
    check_places(who, folder)
    _check_natures(who, folder, (*SETTINGS, PATTERN))
    config = read_config(folder)
    for name in SETTINGS[1:]:
        if (folder / name).exists():
            body = door.read_object(folder / name, f"{who}: its {name}", strict=True)  # no number there is infinite
            refuse_code(who, name, body)
            check_grammar(who, name, body, grammar.GENERATION if name != INDEX else {})
    tensors = weight_files.read_all(who, folder)
    check_layers(who, config, tensors)
    return config, tensors


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of a model's config.json; UserError for a value of another type than its key asks for."""
    who = f"model '{folder}'"
    config = door.read_object(folder / CONFIG, f"{who}: its {CONFIG}")
    refuse_code(who, CONFIG, config)
    check_grammar(who, CONFIG, config, grammar.CONFIG)
    if config.get("quantization_config"):
        raise UserError(
            f"{who}: its {CONFIG} says that its weights are quantised (quantization_config); they are read whole.\n"
            "  Take the model's own weights, or dequantise it (transformers: model.dequantize()) and save it again."
        )
    return config


def check_grammar(who: str, name: str, body: Mapping[str, Any], rules: grammar.Grammar) -> None:
    """Refuse a file with a value of another type than its key asks for, by the first such key."""
    mistakes = list(grammar.wrong(body, rules)) or [words for words in no_number(body) if words.endswith("nan")]
    if mistakes:
        more = f"\n  ({len(mistakes) - 1} more of its values are of another kind)" if mistakes[1:] else ""
        raise UserError(f"{who}: its {name} cannot be used: {mistakes[0]}.{more}\n  Take the file as it was published.")


def refuse_code(who: str, name: str, body: Any) -> None:
    """Refuse a file that asks for code of the folder's own, at any depth."""
    if grammar.asks_for_code(body):
        raise UserError(f"{who}: its {name} {CODE}")


def check_layers(who: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a config with more layers than there are tensors: they would be made one by one, for hours."""
    for key, count in grammar.layers(config):
        if tensors and count > max(len(tensors), 100):
            raise UserError(
                f"{who}: its {CONFIG} says {key} {count:,}, and its weights are {len(tensors):,} tensors; they do not "
                "belong together.\n  Take the file as it was published."
            )


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without a tokenizer's vocabulary, or whose tokenizer files are not what their names say."""
    who = f"model '{folder}'"
    check_places(who, folder)
    _check_natures(who, folder, (*VOCABULARIES, *TOKENIZER_SETTINGS, *TEMPLATES), door.VOCABULARY_BYTES)
    settings = {name: _object(who, folder / name) for name in TOKENIZER_SETTINGS if (folder / name).exists()}
    for path in _matching(folder, TEMPLATES):
        door.read_text(path, f"{who}: its {path.name}")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "chat_template.json"):
        check_grammar(who, name, settings.get(name, {}), tokenizer_files.SETTINGS)
        if key := tokenizer_files.hidden_key(settings.get(name, {})):
            raise UserError(f"{who}: its {name} has the key {door.shown(key)}, which no program reads; take it out")
    if not tokenizer_files.NUMBERED.fits(added := settings.get("added_tokens.json", {})):
        raise UserError(f"{who}: its added_tokens.json is {door.shown(added)}, and is to be tokens and their numbers")
    if (folder / "tokenizer.json").exists():
        place = f"{who}: its tokenizer.json"
        tokenizer_files.check_body(who, door.read_object(folder / "tokenizer.json", place, door.VOCABULARY_BYTES))
    if any(_matching(folder, VOCABULARIES)):
        return
    if str(settings.get("tokenizer_config.json", {}).get("tokenizer_class")) in WITHOUT_VOCABULARY:
        return
    others = ", ".join(VOCABULARIES[1:4])
    raise UserError(
        f"model '{folder}': there is no tokenizer.json in it, nor another vocabulary ({others}).\n"
        "  Copy the tokenizer's files from the model that it was trained from."
    )


def _object(who: str, path: Path) -> dict[str, Any]:
    body = door.read_object(path, f"{who}: its {path.name}")
    refuse_code(who, path.name, body)
    return body


def check_natures(who: str, folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder in which a file of these names is a pointer, a web page, empty or no file at all."""
    check_places(who, folder)
    _check_natures(who, folder, names)


def _check_natures(who: str, folder: Path, names: Iterable[str], most: int | None = None) -> None:
    for path in _matching(folder, names):
        name = f"{who}: its {path.name}"
        door.check_file(path, name, most)
        with door.opened(path, name) as file:
            head = file.read(ENOUGH)
        if path.suffix == ".safetensors" and head[8:9] == b"{":  # its length before it may begin as a pickle does
            continue
        kind = nature(head)
        if kind is not None:
            raise UserError(f"{who}: its {path.name} is {kind.what}.\n  {kind.way_out}")


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of a folder with such names, in the order of their names; also a folder with just such a name."""
    names = tuple(patterns)
    paths = [path for path in (*folder.iterdir(), *folder.glob("additional_chat_templates/*")) if path.exists()]
    by_place = {path: path.relative_to(folder).as_posix() for path in paths}
    return sorted(
        p for p, n in by_place.items() if n in names or (not p.is_dir() and any(fnmatch(n, name) for name in names))
    )
