"""The context length of a model, as far as can be told before it is loaded: from its folder, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from truing.errors import one_line
from truing.policy.files import adapter_files, model_files
from truing.policy.files.folders import check_folder

NEW = 2048
"""Context length of a new model, in tokens."""
KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
"""Keys of the context length in configs, transformers' own first."""


def tokens_read(model: Any) -> tuple[int | None, str]:
    """The most tokens a model reads (None where its config names no bound, or cannot be seen), and the part of the
    model that was not checked. UserError for a folder that is no model, or whose files are not what their names say."""
    if isinstance(model, Mapping):
        return NEW, ""
    path = Path(model)
    if path.is_file():
        return None, f"what the file '{one_line(path.name)}' holds"
    if not path.is_dir():
        return of_hub(model)
    if adapter_files.is_adapter(path):
        return tokens_read(adapter_files.bases(path, adapter_files.read_config(path))[0])
    check_folder(path)
    model_files.check_tokenizer(path)
    return bound(model_files.read_config(path)), ""


def of_hub(name: str) -> tuple[int | None, str]:
    """The same of a Hub name, whose files may lie in the cache; no network is asked."""
    unseen = f"the model '{one_line(name)}' of the Hub: whether it is there, and what it reads"
    try:
        from huggingface_hub import try_to_load_from_cache

        config = try_to_load_from_cache(name, model_files.CONFIG)
    except (ImportError, ValueError, OSError):
        return None, unseen
    if not isinstance(config, str):
        return None, unseen
    return bound(model_files.read_config(Path(config).parent)), ""


def bound(config: Mapping[str, Any]) -> int | None:
    """The bound that a config names, its language part's where it has several.

    >>> bound({"text_config": {"max_position_embeddings": 4096}}), bound({"n_positions": 512}), bound({})
    (4096, 512, None)
    """
    text = config.get("text_config")
    for part in (text if isinstance(text, Mapping) else {}, config):
        length = next((part[key] for key in KEYS if isinstance(part.get(key), int)), None)
        if length is not None:
            return int(length)
    return None
