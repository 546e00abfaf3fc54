"""A model of the Hugging Face Hub, fetched as a folder: it goes through the same door as one that lies here."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from truing.data.foreign import foreign
from truing.errors import UserError

FETCHED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.bpe", "*.vocab"]
LEFT = ["*/*", "consolidated*.safetensors"]
"""Files that are not fetched: other forms of the same weights, in folders and in one piece."""


def located(name: str, revision: str | None = None) -> str:
    """The folder that a model's name stands for: itself, or the snapshot of a Hub name, fetched where it is not here.

    UserError for what is neither, and where the Hub cannot give it.
    """
    if Path(name).exists():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"model '{name}': no such folder, and a Hub name has the form owner/name")
    with foreign(lambda text: unavailable(name, text)):
        return str(snapshot_download(name, revision=revision or "main", allow_patterns=FETCHED, ignore_patterns=LEFT))


def unavailable(name: str, text: str) -> UserError:
    """The error for a Hub name that is not to be had, in the library's own words."""
    return UserError(
        f"model '{name}' is not a folder here, and the Hugging Face Hub could not give it ({text[:160]}).\n"
        "  Check the name and the network, or download it first and give the folder."
    )
