"""A folder to break things in, and the command as a user meets it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from small_models import build
from truing import cli
from truing.policy import heads

TEXT = [f"question {i}: is a refund due? yes, it is good; no, that is bad" for i in range(40)]


def pairs(count: int = 8) -> list[dict[str, Any]]:
    """Rows that nothing is wrong with."""
    return [
        {"prompt": f"question {i}", "chosen": f"yes, {i} is good", "rejected": f"no, that is {i} bad"}
        for i in range(count)
    ]


class Place:
    """A folder with a small model in it. Calling it runs `truing ...`; `said` is what that printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.capsys, self.monkeypatch, self.said = folder, capsys, monkeypatch, ""
        self.out = folder / "out"

    def __call__(self, *arguments: object) -> int:
        """Run `truing ...` and give its exit code."""
        self.monkeypatch.setattr(sys, "argv", ["truing", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        printed = self.capsys.readouterr()
        self.said = printed.out + printed.err
        assert "Traceback" not in self.said, self.said
        return int(ended.value.code or 0)

    def write(self, content: Any, name: str = "rows.jsonl") -> Path:
        """Write rows as JSON Lines, or text or bytes as they are."""
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def recipe(self, *stages: str) -> str:
        """Write a recipe of these stages; gives its name."""
        self.write("stages:\n" + "".join(f"  {stage}\n" for stage in stages), "r.yaml")
        return "r.yaml"

    def run(self, *stages: str, more: tuple[str, ...] = ()) -> int:
        """`truing run` of a recipe of these stages."""
        return self("run", self.recipe(*stages), "--out", self.out, *more)

    def read(self, name: str) -> Any:
        """A JSON file of the run."""
        return json.loads((self.out / name).read_text(encoding="utf-8"))

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A file of JSON Lines."""
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]

    def page(self) -> str:
        """The report."""
        return (self.out / "report.html").read_text(encoding="utf-8")

    def counted(self, stage: str, note: str) -> bool:
        """Whether a stage's summary and the report both say this of its rows."""
        return any(note in line for line in self.read(f"{stage}/summary.json")["notes"]) and note in self.page()

    def score(self, model: object = "model", data: object = "rows.jsonl") -> list[dict[str, float]]:
        """What `truing score` writes."""
        assert self("score", model, data, "--out", "scored.jsonl") == 0, self.said
        return self.lines("scored.jsonl")

    def spoilt(self, name: str = "spoilt", source: str = "model") -> Path:
        """A copy of a model, to be spoilt."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(self.folder / source, self.folder / name)
        return self.folder / name


def put(path: Path, **entries: Any) -> None:
    """Change entries of a JSON file; None takes one out."""
    whole = (json.loads(path.read_text()) if path.exists() else {}) | entries
    path.write_text(json.dumps({key: value for key, value in whole.items() if value is not None}))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of random weights, a reward model on it, and a language model of another tokenizer."""
    root = tmp_path_factory.mktemp("faults")
    build("llama", TEXT, root / "model", vocab=320)
    build("llama", [*TEXT[:3], "a text of its own"], root / "other", vocab=290, seed=1)
    heads.save(heads.fresh_reward(str(root / "model"), seed=0), root / "rm")
    return root


@pytest.fixture
def place(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A folder with the models (`model`, `rm`, `other`) in it, which is the working folder."""
    for source in models.iterdir():
        shutil.copytree(source, tmp_path / source.name)
    monkeypatch.chdir(tmp_path)
    yield Place(tmp_path, capsys, monkeypatch)
    torch.set_flush_denormal(False)  # training sets it for the whole process; other tests count on small numbers


@pytest.fixture
def good_rows() -> Callable[..., list[dict[str, Any]]]:
    """Rows that nothing is wrong with."""
    return pairs


@pytest.fixture
def change() -> Callable[..., None]:
    """Changes entries of a JSON file."""
    return put
