"""Fixtures for all tests: a fixed number of threads, no network, the real data."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import threads  # noqa: F401  before torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Pretrained world models are made once per test session, not in the user's cache."""
    os.environ["TRUING_CACHE"] = str(tmp_path_factory.mktemp("cache"))


SLOW = ("real", "recipes", "faults", "parallel", "fuzz", "data/test_bombs.py")
"""Tests that are collected first, so that no process is still at them when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests first; `--no-loadscope-reorder` then deals files out in this order."""
    tests = ROOT / "tests"
    items.sort(key=lambda item: not any(item.path.is_relative_to(tests / name) for name in SLOW))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a case of bytes "bytes": an archive made at import holds the clock, and two workers would collect other names."""
    return "bytes" if isinstance(val, bytes) else None


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The command, run in this process: its exit code, and all that it printed."""
    from truing import cli

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["truing", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run


def data_folder() -> Path:
    return Path(os.environ.get("TRUING_DATA", ROOT / ".." / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets. A clone without it skips; a run that requires it fails."""
    folder = data_folder()
    if folder.is_dir():
        return folder
    message = f"the real data sets are not at {folder}; set TRUING_DATA to their folder"
    if os.environ.get("TRUING_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def hh(real_data) -> str:
    """1,594 human preference pairs."""
    return str(real_data / "hh_harmless_base_test" / "pairs.dev.jsonl.gz")
