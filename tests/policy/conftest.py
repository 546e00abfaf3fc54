"""A whole model's folder, to be spoilt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from small_models import build

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that nothing is wrong with."""
    return build("llama", TEXT, tmp_path_factory.mktemp("made") / "model", vocab=300)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "model"))
