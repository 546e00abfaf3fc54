"""What an earlier version left: runs, reports, evidence and checkpoints are refused with the version that made them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from truing import __version__, seals
from truing.errors import UserError
from truing.train.record import checkpoint

RECIPE = "title: old\nstages:\n  parts: {do: split, data: world:comparisons?n=20}\n"


def truing(*words: str | Path) -> tuple[int, str]:
    """The exit code of a command and what it says of its errors."""
    done = subprocess.run(
        [sys.executable, "-m", "truing", *map(str, words)], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run, as another version would have left it."""
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert truing("run", tmp_path / "r.yaml", "--out", tmp_path / "run")[0] == 0
    path = tmp_path / "run" / seals.MANIFEST
    manifest = json.loads(path.read_text())
    assert manifest["versions"]["truing"] == __version__
    manifest["versions"]["truing"] = "0.1.0"
    path.write_text(json.dumps(seals.sealed({k: v for k, v in manifest.items() if k != seals.SEAL})))
    return tmp_path / "run"


@pytest.mark.parametrize("command", ["run", "resume", "report", "gate"])
def test_a_run_of_another_version_is_refused_by_name(run: Path, command: str) -> None:
    rules = run.parent / "rules.yaml"
    rules.write_text("rules: [{check: win_rate, lower_end: 0.5}]\n")
    recipe = ["run", run.parent / "r.yaml", "--out", run]
    words = {"run": recipe, "resume": [*recipe, "--resume"], "report": ["report", run]}
    words["gate"] = ["gate", run, "--rules", rules]
    code, said = truing(*words[command])
    assert code == 2, said
    assert (
        f"was made by truing 0.1.0, and this is {__version__}" in said
        and "Open it with the truing that made it" in said
    )


def test_it_is_made_anew_where_that_is_asked_for(run: Path) -> None:
    assert truing("run", run.parent / "r.yaml", "--out", run, "--overwrite")[0] == 0
    assert json.loads((run / seals.MANIFEST).read_text())["versions"]["truing"] == __version__


def test_a_checkpoint_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, {"model": {"w": torch.ones(2)}}, {"key": "k"})
    stored, _ = checkpoint.latest(tmp_path)
    assert stored is not None and stored.step == 3
    path = tmp_path / "step-00000003" / seals.MANIFEST
    manifest = {k: v for k, v in json.loads(path.read_text()).items() if k not in (seals.SEAL, "truing")}
    path.write_text(json.dumps(seals.sealed(manifest)))
    with pytest.raises(UserError, match=r"step-00000003: was made by truing 0\.1, and this is"):
        checkpoint.latest(tmp_path)
