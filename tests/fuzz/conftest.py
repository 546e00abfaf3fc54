"""The folder that is spoilt, made once; beside it a place for the copies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from targets import build


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest models, rows in every form, a recipe, rules, findings and a run that nothing is wrong with."""
    return build(tmp_path_factory.mktemp("template"))
