"""A model's folder that was cloned without git-lfs, half downloaded, or is not all there: the file is named, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.errors import UserError
from truing.policy.load import load, load_tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 1234567\n"


def told(name: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(str(name))
    return str(caught.value)


def shards(folder: Path) -> list[Path]:
    """The model's weights in two files with their index, as large models are saved."""
    load(str(folder)).model.save_pretrained(folder, max_shard_size="60KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    found = sorted(folder.glob("model-*-of-*.safetensors"))
    assert len(found) > 1
    return found


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (POINTER, "is a Git LFS pointer and not the file itself.\n  Fetch the file: git lfs install && git lfs pull"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page (HTML), as a store sends it in place of a file"),
        (b"", "is empty (0 bytes)"),
        (b"\0" * 4000, "is nothing but NUL bytes: a download that was cut off"),
    ],
    ids=["pointer", "page", "empty", "hole"],
)
def test_a_file_is_named_for_what_it_is(folder, name, content, what) -> None:
    (folder / name).write_bytes(content)
    assert f"model '{folder}': its {name} {what}" in told(folder)


def test_a_sentencepiece_model_is_looked_at(folder) -> None:
    (folder / "tokenizer.model").write_bytes(POINTER)
    with pytest.raises(UserError, match=r"its tokenizer.model is a Git LFS pointer"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize("kept", [0.5, 0.99, 0.001])
def test_half_a_weight_file_says_how_much_is_there(folder, kept) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    size = f"{int(len(whole) * kept):,}"
    assert f"its model.safetensors cannot be read: it is cut off: it has {size}" in told(folder)


def test_a_missing_or_spoilt_shard_is_named(folder) -> None:
    first, *_, last = shards(folder)
    load(str(folder))
    whole = last.read_bytes()
    last.write_bytes(whole[:-10])
    assert f"its {last.name} cannot be read: it is cut off: it has {len(whole) - 10:,} of {len(whole):,}" in told(
        folder
    )
    last.write_bytes(POINTER)
    assert f"its {last.name} is a Git LFS pointer" in told(folder)
    last.unlink()
    assert f"a part of its weights is missing: {last.name}" in told(folder)
    last.write_bytes(whole)
    (folder / "model.safetensors.index.json").unlink()
    assert "a part of its weights is missing: model.safetensors.index.json" in told(folder)
    assert first.exists()


def test_a_folder_without_a_tokenizer_names_what_is_not_there(folder) -> None:
    (folder / "tokenizer.json").unlink()
    assert "there is no tokenizer.json in it, nor another vocabulary (tokenizer.model, " in told(folder)
    (folder / "tokenizer_config.json").unlink()
    assert "there is no tokenizer.json in it" in told(folder)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("adapter_model.safetensors", POINTER, "is a Git LFS pointer"),
        ("adapter_model.safetensors", b"\x20" + bytes(20), "cannot be read: it is cut off"),
        ("adapter_config.json", POINTER, "is a Git LFS pointer"),
        ("adapter_config.json", b"", "is empty (0 bytes)"),
    ],
)
def test_an_adapter_is_looked_at_too(made, tmp_path, name, content, what) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(made)}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (adapter / name).write_bytes(content)
    assert f"adapter '{adapter}': its {name} {what}" in told(adapter)
