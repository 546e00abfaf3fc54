"""A recipe that runs in a second: a new model of one layer, sixty pairs, a reward model and a gate."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from truing import cli

SMALL = """\
title: small
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: $inputs.data}
inputs: {data: pairs.jsonl}
stages:
  data: {do: split, data: $inputs.data, eval: 0.2}
  warm: {do: sft, model: $base, data: $data.train, steps: 4, rows_per_step: 2}
  rm: {do: fit_reward, model: $warm, data: $data.train, eval: $data.eval, steps: 2}
  exam: {do: evaluate, models: [$rm], against: $warm, data: $data.eval}
  release: {do: gate, evidence: $exam, rules: lax.yaml}
"""
LAX = "rules: [{check: held_out_accuracy, min: 0.0}]\n"
STRICT = "rules: [{check: held_out_accuracy, min: 1.5}]\n"


class Desk:
    """A folder with the recipe in it, and the command as a user meets it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        self.out, self.said = folder / "out", ""
        rows = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(60)]
        (folder / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        (folder / "lax.yaml").write_text(LAX)
        (folder / "strict.yaml").write_text(STRICT)
        self.write(SMALL)

    def write(self, text: str) -> None:
        """Write another recipe."""
        (self.folder / "r.yaml").write_text(text)

    def change(self, old: str, new: str) -> None:
        """Write the small recipe with one text replaced."""
        assert old in SMALL
        self.write(SMALL.replace(old, new))

    def __call__(self, *arguments: str) -> int:
        """Run `truing ...`; gives the exit code, and keeps what was printed in `said`."""
        self.monkeypatch.setattr(sys, "argv", ["truing", *arguments])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        printed = self.capsys.readouterr()
        self.said = printed.out + printed.err
        return int(ended.value.code or 0)

    def run(self, *more: str) -> int:
        """`truing run` of the recipe."""
        return self("run", str(self.folder / "r.yaml"), "--out", str(self.out), *more)

    def read(self, name: str) -> Any:
        """A JSON file of the run."""
        return json.loads((self.out / name).read_text(encoding="utf-8"))

    def states(self) -> dict[str, str]:
        """The state of every stage in the manifest."""
        return {row["name"]: row["state"] for row in self.read("manifest.json")["stages"]}

    def page(self) -> str:
        """The report."""
        return (self.out / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A folder with the small recipe."""
    return Desk(tmp_path, capsys, monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recipe's folder with its run, made once."""
    return tmp_path_factory.mktemp("whole") / "desk"


@pytest.fixture
def ran(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A copy of a run that shipped, with its recipe."""
    if not whole.exists():
        whole.mkdir()
        assert Desk(whole, capsys, monkeypatch).run() == 0
    shutil.copytree(whole, tmp_path / "desk")
    return Desk(tmp_path / "desk", capsys, monkeypatch)


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets training end in the given step by an exception, once."""
    from truing.train import fit as fitting

    real = fitting.observe

    def arrange(step: int, problem: BaseException) -> None:
        seen: list[Any] = []

        def observe(*given: Any) -> Any:
            seen.append(given)
            if len(seen) == step:
                monkeypatch.setattr(fitting, "observe", real)
                raise problem
            return real(*given)

        monkeypatch.setattr(fitting, "observe", observe)

    return arrange
