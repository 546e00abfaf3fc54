"""A stage of a user's own: the example of CONTRIBUTING.md runs, and one that leaves not what it gives is named."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from truing import registry
from truing.errors import UserError
from truing.registry import stage

ROOT = Path(__file__).parents[2]
IMPORTS = "from typing import Annotated\nfrom truing.registry import Data, stage\n\n\n"
Command = Callable[..., tuple[int, str]]


def recipe(folder: Path, stages: str) -> Path:
    (folder / "r.yaml").write_text("stages:\n" + textwrap.indent(stages, "  "), encoding="utf-8")
    return folder / "r.yaml"


def test_the_example_of_contributing_runs_and_no_later_stage_reads_its_file(tmp_path: Path, command: Command) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example = re.search(r"^(    @stage\(.*?)\n\n(?!    )", text, re.M | re.S)
    assert example is not None
    (tmp_path / "mine.py").write_text(IMPORTS + textwrap.dedent(example[1]), encoding="utf-8")
    long = "long: {do: mine.py:lengths, data: world:prompts?n=5}\n"
    code, said = command("run", recipe(tmp_path, long), "--out", tmp_path / "out")
    assert code == 0, said
    lengths = json.loads((tmp_path / "out" / "long" / "lengths.json").read_text())
    assert lengths["rows"] == 5 and lengths["mean"] > 10
    assert "mean length of a prompt" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    code, said = command("check", recipe(tmp_path, long + "again: {do: mine.py:lengths, data: $long}\n"))
    assert code == 2 and "'data' must be data" in said and "$long is a file that no stage reads" in said


@pytest.mark.parametrize(
    ("gives", "missing"),
    [("data", "data.jsonl or split.json or rollouts"), ("findings", "findings.json"), ("model", "model")],
)
def test_a_stage_that_leaves_not_what_it_gives_fails_itself(
    tmp_path: Path, command: Command, gives: str, missing: str
) -> None:
    text = f'@stage(gives="{gives}")\ndef mine(run):\n    """Leave nothing."""\n'
    (tmp_path / "own.py").write_text("from truing.registry import stage\n\n" + text, encoding="utf-8")
    code, said = command("run", recipe(tmp_path, "it: {do: own.py:mine}\n"), "--out", tmp_path / "out")
    said = " ".join(said.split())
    assert code == 3 and f"own.py:mine: gives {gives}, and left no {missing} in" in said, said
    assert "@stage(gives='file')" in said


def test_what_a_stage_gives_is_one_of_a_few_words(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("@stage(gives='finding')\ndef mine(run):\n    pass\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown gives 'finding'\. Did you mean 'findings'\?"):
        registry.resolve("own.py:mine", "stage", tmp_path)
    with pytest.raises(TypeError, match=r"unknown gives 'modell'\. Did you mean 'model'\?"):
        stage(gives="modell")(lambda run: None)  # type: ignore[arg-type]
