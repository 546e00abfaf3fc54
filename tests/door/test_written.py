"""No JSON of ours holds a number that is none: it is made in one place, and a logged line is read in one."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

import truing
from truing import door
from truing.commands.model_commands import write_lines
from truing.data.split import write
from truing.disk import as_json, write_json
from truing.errors import DataError, RunFailed
from truing.records import Demonstration, Message, Records

NONE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("number", NONE)
def test_what_is_no_number_is_named_and_not_written(tmp_path, number):
    path = tmp_path / "scores.jsonl"
    with pytest.raises(RunFailed, match=rf"scores.jsonl, row 2: heads.safe is {number}, and no JSON holds that"):
        write_lines(path, [{"reward": 0.5}, {"heads": {"safe": number}}])
    with pytest.raises(RunFailed, match=rf"summary.json: values\[1\] is {number}"):
        write_json(tmp_path / "summary.json", {"values": (0.5, number)})
    record = Demonstration((Message("user", "q"),), (Message("assistant", "a"),), {"columns": {"score": number}})
    with pytest.raises(RunFailed, match=r"p\.jsonl, row 7: score is"):
        write(Records("p.jsonl", (record,), (7,)), tmp_path / "train.jsonl")
    assert not list(tmp_path.iterdir())
    assert as_json({"a": [0.5, None, "é"]}, "x") == '{"a": [0.5, null, "é"]}'


def test_json_is_written_in_one_place():
    """`json.dumps` elsewhere is for hashes, for other processes and for texts, and goes into no file."""
    known = {
        "disk.py",
        "errors.py",
        "records.py",
        "seals.py",
        "data/formats/nested.py",
        "data/rendering/template_choice.py",
        "data/rendering/render.py",
        "run/agreement.py",
        "redaction.py",
        "data/formats/parquet.py",
    }
    known |= {"run/runner.py", "train/record/checkpoint.py", "online/collector.py", "online/monitor.py"}
    package = Path(truing.__file__).parent
    for path in sorted(package.rglob("*.py")):
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Attribute)]
        dumps = [n for n in calls if n.attr in ("dumps", "dump") and getattr(n.value, "id", "") == "json"]
        place = path.relative_to(package).as_posix()
        assert not dumps or place in known or place.startswith("policy/"), f"{place}: write it by disk.as_json"


def test_a_log_is_read_up_to_where_a_kill_cut_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": NaN}\n{"step": 2}\n{"step": 3, "lo')
    assert [(line, row["step"]) for line, row in door.read_log(path)] == [
        ('{"step": 1, "loss": NaN}', 1),
        ('{"step": 2}', 2),
    ]


@pytest.mark.parametrize("line", ['{"a": {}', "{}", '{"step": "1"}', '{"step": 1.5}', '{"step": true}', "[1}", "}"])
def test_a_line_that_is_none_is_said_with_its_number(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + (line if line.endswith("}") else line + "}}}") + "\n")
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2: "):
        door.read_log(path)
