"""The identity of a model's folder: it follows the weights, the settings and the tokenizer, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from small_models import build
from truing import seals
from truing.policy.files import adapter_files
from truing.policy.files.folder_digest import model_digest

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(build("llama", TEXT, tmp_path_factory.mktemp("digest"), vocab=300))


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A model's folder that may be changed."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def scaled(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    save_file(tensors | {name: tensors[name] * 1.001}, path, metadata={"format": "pt"})


def settings(folder: Path) -> None:
    body = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(body | {"rms_norm_eps": 0.1}))


def tokens(folder: Path) -> None:
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text().replace("refund", "refunt"))


@pytest.mark.parametrize("change", [scaled, settings, tokens, lambda f: (f / "chat_template.jinja").write_text("{}")])
def test_it_follows_what_numbers_follow_from(model: Path, change: object) -> None:
    before = model_digest(str(model))
    change(model)  # type: ignore[operator]
    assert model_digest(str(model)) != before and len(before) == 64


def test_it_follows_nothing_else(model: Path, tmp_path: Path) -> None:
    before = model_digest(str(model))
    (model / "README.md").write_text("a card")
    (model / ".cache").mkdir()
    (model / ".cache" / "x").write_text("hidden")
    (model / "training").mkdir()
    (model / "training" / "metrics.jsonl").write_text('{"seconds": 1.5}\n')
    assert model_digest(str(model)) == before
    assert model_digest(str(shutil.copytree(model, tmp_path / "elsewhere"))) == before


def adapter(folder: Path, base: Path, rank: int = 4) -> Path:
    """The files of an adapter, as far as its identity reads them."""
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": rank}
    (folder / adapter_files.CONFIG).write_text(json.dumps(config))
    save_file({"x": load_file(base / "model.safetensors")["model.norm.weight"]}, folder / adapter_files.WEIGHTS)
    return folder


def test_an_adapter_is_known_with_its_base_wherever_that_lies(model: Path, tmp_path: Path) -> None:
    before = model_digest(str(adapter(tmp_path / "adapter", model)))
    other = Path(shutil.copytree(model, tmp_path / "moved"))
    assert model_digest(str(adapter(tmp_path / "second", other))) == before
    assert model_digest(str(adapter(tmp_path / "third", other, rank=8))) != before
    scaled(model)
    assert model_digest(str(tmp_path / "adapter")) != before


def test_of_a_name_that_is_not_on_this_disk_nothing_is_known() -> None:
    assert model_digest("nobody/has-this-model") == "" and model_digest("world:desk/small") == ""


def test_a_file_is_hashed_again_when_it_has_changed_in_place_and_its_time_was_set_back(tmp_path: Path) -> None:
    """Same name, size, inode and mtime: ctime tells."""
    path = tmp_path / "f"
    path.write_text("abc")
    first, times = seals.file_hash(path), path.stat()
    path.write_text("abd")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns and seals.file_hash(path) != first


def test_a_file_is_hashed_once_for_as_long_as_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "f", list[Path]()
    path.write_text("abc")
    real = Path.open

    def counted(self: Path, *more: object, **options: object) -> object:
        opened.append(self)
        return real(self, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", counted)
    monkeypatch.setattr(seals, "SETTLED", -1_000_000_000)  # as if it had been written a second ago
    assert seals.file_hash(path) == seals.file_hash(path) and opened.count(path) == 1
