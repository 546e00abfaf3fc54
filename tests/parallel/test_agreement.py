"""Two ranks that would train with different things stop before the first step, and say which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from truing.pipeline import agreement
from truing.pipeline.recipe import check

ROW = '{"prompt": "a", "response": "%s"}\n'
SCRIPT = """
import os, sys
from truing import cli, types
from truing.pipeline import agreement
if os.environ["RANK"] == "1":
    os.chdir("other")
    if sys.argv.pop(1) == "version":
        agreement.version = lambda name: "0.0" if name == "numpy" else "x"
else:
    sys.argv.pop(1)
cli.main()
"""


def started(tmp_path: Path, what: str, row: str = "b", option: str = "1") -> subprocess.CompletedProcess[str]:
    """Two ranks in two folders, of which the second's may hold another row or option."""
    for folder, text, steps in ((tmp_path, "b", "1"), (tmp_path / "other", row, option)):
        folder.mkdir(exist_ok=True)
        (folder / "rows.jsonl").write_text(ROW % "x" + ROW % text)
        (folder / "r.yaml").write_text(
            f"stages:\n  warm: {{do: sft, model: 'world:desk/tiny', data: rows.jsonl, steps: {steps}}}\n"
        )
    (tmp_path / "start.py").write_text(SCRIPT)
    launcher = [
        sys.executable,
        "-m",
        "truing.launch",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(tmp_path / "start.py"),
    ]
    command = [*launcher, what, "run", "r.yaml", "--out", str(tmp_path / "out")]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("what", "row", "option", "said"),
    [
        ("row", "c", "1", "stage 'warm': what data names has changed"),
        ("option", "b", "2", "stage 'warm': steps was 1, is 2"),
        ("version", "b", "1", "there and"),
    ],
)
def test_two_ranks_that_differ_stop_before_the_first_step(tmp_path, what, row, option, said) -> None:
    ended = started(tmp_path, what, row, option)
    assert ended.returncode == 2, ended.stderr
    assert "rank 1 would train with something else than rank 0" in ended.stderr and said in ended.stderr
    assert not (tmp_path / "out").exists()


def test_one_process_differs_from_nobody(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(ROW % "x" + ROW % "y")
    Path("r.yaml").write_text("stages: {data: {do: split, data: rows.jsonl}}")
    same, again = (agreement.identity(check("r.yaml", [])) for _ in range(2))
    assert agreement.difference(same, again) == ""
    Path("rows.jsonl").write_text(ROW % "x" + ROW % "z")
    assert "data" in agreement.difference(same, agreement.identity(check("r.yaml", [])))
