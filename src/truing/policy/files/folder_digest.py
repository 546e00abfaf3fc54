"""The identity of a model by the files of its folder: weights, settings and tokenizer. (No torch.)"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from truing import caches, seals
from truing.policy.files import adapter_files

LINEAGE = "lineage.json"
"""The file of a model's folder that says what it learned from (`policy/files/lineage.py`)."""
BESIDE = frozenset({*seals.TIMED, caches.RECORD, LINEAGE})
"""Files of a model's folder that no number follows from: its card, how it was made, what it learned from, and a cache's
hashes."""


def model_digest(name: str) -> str:
    """The SHA-256 of all files of a model's folder and their names; of an adapter with its base. Of a Hub name those of
    its snapshot on this disk, and an empty text while there is none."""
    folder = Path(name) if Path(name).is_dir() else snapshot(name)
    if folder is None:
        return ""
    files = {file: facts[1] for file, facts in seals.outputs_of(folder).items() if Path(file).name not in BESIDE}
    if adapter_files.is_adapter(folder):
        bases = adapter_files.bases(folder, adapter_files.read_config(folder))
        files = {"base": sorted(model_digest(base) or base for base in bases)} | adapter_hashes(folder, files)
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def adapter_hashes(folder: Path, files: dict[str, str]) -> dict[str, str]:
    """The hashes of an adapter's files, but for those that say where on this disk its base lies."""
    config = adapter_files.read_config(folder)
    del config["base_model_name_or_path"]
    rest = {name: hashed for name, hashed in files.items() if name not in (adapter_files.CONFIG, adapter_files.BASE)}
    return rest | {adapter_files.CONFIG: json.dumps(config, sort_keys=True)}


def snapshot(name: str) -> Path | None:
    """The folder in which the Hub's library keeps a model, where it has been fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
