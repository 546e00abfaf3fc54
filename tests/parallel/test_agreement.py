"""Two ranks that would train with different things stop before the first step, and say which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from truing.recipe.check import check
from truing.run import agreement

ROW = '{"prompt": "a", "response": "%s"}\n'
SCRIPT = """
import os, sys
from truing import cli
from truing.run import agreement
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


@pytest.mark.parametrize("option", ["checkpoint_every: 1", "tokens_per_device: 64", "gradient_checkpointing: true"])
def test_so_do_options_that_change_no_result(tmp_path, monkeypatch, option) -> None:
    """Two ranks that differ in them take part in different numbers of collectives, and wait for each other."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(ROW % "x" + ROW % "y")
    recipe = "stages: {warm: {do: sft, model: 'world:desk/tiny', data: rows.jsonl, steps: 1%s}}\n"
    one, other = (agreement.identity(check(recipe % more)) for more in ("", f", {option}"))
    assert agreement.difference(one, other).startswith(f"stage 'warm': {option.partition(':')[0]} was not given")


CONTENT = """
import os, torch
from truing.data.batch import Branch, Tree
from truing.errors import UserError
from truing.run import agreement
from truing.train.distributed import process_group

class Holder:
    model = torch.nn.Linear(2, 2)

def tree(word):
    return Tree((1, 2), (Branch("response", (3, word), (True, True)),), 0, 1)

with process_group.joined():
    for part in ("weights", "rows", "nothing"):
        second = process_group.rank() == 1
        torch.nn.init.constant_(Holder.model.weight, 1.0 + (second and part == "weights") * 1e-7)
        torch.nn.init.zeros_(Holder.model.bias)
        try:
            agreement.check_content("warm", Holder, [tree(4 + (second and part == "rows"))])
            os.write(1, f"{part} agreed\\n".encode())
        except UserError as problem:
            os.write(1, f"{part} {str(problem).splitlines()[0]}\\n".encode())
"""


def test_models_and_rows_of_one_name_are_held_against_each_other(tmp_path) -> None:
    """Two machines may have different ones of one name of the Hub in their caches."""
    (tmp_path / "content.py").write_text(CONTENT)
    launcher = [sys.executable, "-m", "truing.launch", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, str(tmp_path / "content.py")], capture_output=True, text=True, check=True)
    apart = "rank 1 would train with something else than rank 0: stage 'warm': its"
    assert sorted(done.stdout.splitlines()) == sorted(
        2 * [f"weights {apart} weights.", f"rows {apart} rows, or the tokens that they become.", "nothing agreed"]
    )


def test_one_process_differs_from_nobody(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(ROW % "x" + ROW % "y")
    Path("r.yaml").write_text("stages: {data: {do: split, data: rows.jsonl}}")
    same, again = (agreement.identity(check("r.yaml", [])) for _ in range(2))
    assert agreement.difference(same, again) == ""
    Path("rows.jsonl").write_text(ROW % "x" + ROW % "z")
    assert "data" in agreement.difference(same, agreement.identity(check("r.yaml", [])))
