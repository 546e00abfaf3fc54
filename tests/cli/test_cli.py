"""The command line, as a user meets it: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from pace import pace
from truing import cli
from truing.errors import RunFailed

PAIRS = [
    {"prompt": f"question {i}", "chosen": f"a good answer to {i}", "rejected": f"a bad one to {i}"} for i in range(20)
]
FINDINGS = {
    "findings": [
        {"check": "win_delta", "model": "direct", "against": "warm", "value": 0.1, "interval": [0.05, 0.15], "n": 500}
    ]
}


def truing(*arguments, cwd=None):
    """Run the command; gives what it printed and its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "truing", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    (tmp_path / "found.json").write_text(json.dumps(FINDINGS))
    for name, bound in (("ship", 0.0), ("hold", 0.2)):
        (tmp_path / f"{name}.yaml").write_text(f"rules: [{{check: win_delta, min: {bound}}}]\n")
    (tmp_path / "missing.yaml").write_text("rules: [{check: other, min: 0}]\n")
    return tmp_path


def test_help_answers_in_under_half_a_second():
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        done = truing("--help")
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.5 * pace(), seconds
    assert done.returncode == 0
    for word in ("truing run quickstart", "Exit codes", "report.html", "gate", "130", "143"):
        assert word in done.stdout


def test_help_and_check_import_neither_torch_nor_rich():
    code = "import sys, truing.cli; print([m for m in ('torch', 'rich', 'pydantic', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_version():
    assert truing("--version").stdout.startswith("truing 0.")


def test_a_misspelt_command():
    done = truing("chekc")
    assert done.returncode == 2 and "Did you mean 'check'?" in done.stderr


def test_check_says_yes(folder):
    (folder / "r.yaml").write_text("stages:\n  data: {do: split, data: pairs.jsonl}\n")
    done = truing("check", "r.yaml", "data.eval=0.3", cwd=folder)
    assert (done.returncode, done.stdout) == (
        0,
        "r.yaml: no mistakes. 1 stage: data (split)\nnot checked: how long it takes and what memory it needs\n",
    )


def test_check_says_every_mistake_without_a_traceback(folder):
    (folder / "r.yaml").write_text("sed: 1\nstages:\n  data: {do: splt, data: pairs.jsonl}\n")
    done = truing("check", "r.yaml", cwd=folder)
    assert done.returncode == 2 and done.stdout == ""
    assert "2 mistakes in the recipe\nr.yaml:1: unknown top-level key 'sed'. Did you mean 'seed'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_sends_nothing_to_the_terminal_that_is_not_seen(tmp_path):
    (tmp_path / "r.yaml").write_text('stages:\n  "a\\e[2Jb": {do: sft}\n', encoding="utf-8")
    done = truing("check", "r.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "\x1b" not in done.stderr and "a⟨U+001B⟩[2Jb" in done.stderr


def test_run_refuses_a_bad_recipe_before_anything_is_made(folder):
    (folder / "r.yaml").write_text("stages: {data: {do: splt}}\n")
    done = truing("run", "r.yaml", cwd=folder)
    assert done.returncode == 2 and "splt" in done.stderr
    assert not (folder / "runs").exists()


def test_list_for_people_and_for_programs():
    done = truing("list")
    assert done.returncode == 0
    for word in ("objectives", "dpo", "stages", "prefer", "world:desk/tiny", "world:comparisons"):
        assert word in done.stdout
    rows = json.loads(truing("list", "objectives", "--json").stdout)
    dpo = next(row for row in rows if row["name"] == "dpo")
    assert {"name", "source", "needs", "options", "doc"} <= set(dpo)
    assert "ref_chosen_logp_B" in dpo["needs"]
    doc = "price in reward of a nat of log-ratio to the reference; larger stays nearer"
    assert dpo["options"] == [{"name": "beta", "type": "Positive", "default": 0.1, "required": False, "doc": doc}]
    for kind in ("stages", "data", "models"):
        assert json.loads(truing("list", kind, "--json").stdout)
    assert "Did you mean 'objectives'?" in truing("list", "objectivs").stderr


def test_show():
    done = truing("show", "objective", "dpo")
    assert done.returncode == 0 and "log sigmoid" in done.stdout and "beta  Positive  default 0.1" in done.stdout
    assert "learning_rate" in truing("show", "stage", "prefer").stdout
    assert truing("show", "data", "world:comparisons").returncode == 0
    assert "Did you mean 'prefer'?" in truing("show", "stage", "prefr").stderr
    assert truing("show", "dpo").stdout == done.stdout
    assert truing("show", "option", "warmup").stdout == truing("show", "warmup").stdout != ""
    assert truing("show", "judge").returncode == 2


def test_split_writes_two_files_that_share_no_prompt(folder):
    done = truing("split", "pairs.jsonl", "--out", "parts", "--eval", "0.25", cwd=folder)
    assert done.returncode == 0, done.stderr
    train, held_out = (
        [json.loads(line) for line in (folder / "parts" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "eval")
    )
    assert len(train) + len(held_out) == len(PAIRS) and len(held_out) == 5
    assert set(train[0]) == {"prompt", "chosen", "rejected"}
    assert train[0]["prompt"][0]["role"] == "user"
    assert not {str(r["prompt"]) for r in train} & {str(r["prompt"]) for r in held_out}
    assert truing("split", "parts/train.jsonl", "--out", "again", cwd=folder).returncode == 0
    assert truing("split", "none.jsonl", "--out", "again", cwd=folder).returncode == 2


@pytest.mark.parametrize(("rules", "code"), [("ship", 0), ("hold", 1), ("missing", 4)])
def test_the_gates_answer_is_the_exit_code(folder, rules, code):
    done = truing("gate", "found.json", "--rules", f"{rules}.yaml", "--out", "decision.json", cwd=folder)
    assert done.returncode == code, done.stderr
    assert json.loads((folder / "decision.json").read_text())["exit_code"] == code


@pytest.mark.parametrize("out", [".", "parts", "found.json/decision.json"])
def test_a_decision_that_cannot_be_written(folder, out):
    (folder / "parts").mkdir()
    done = truing("gate", "found.json", "--rules", "ship.yaml", "--out", out, cwd=folder)
    assert done.returncode == 2 and done.stderr.startswith(f"truing: {out.partition('/')[0]}: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_run_that_is_not_there(folder, name):
    done = truing("report", name, cwd=folder)
    assert done.returncode == 2 and f"{name}: there is no such run; a run's folder has a manifest.json" in done.stderr
    assert not (folder / "report.html").exists()


def test_files_that_are_not_there_are_the_users_mistake(monkeypatch, capsys):
    def fail(*_):
        raise FileNotFoundError(2, "No such file or directory", "nope.txt")

    monkeypatch.setattr("truing.commands.model_commands.sample", fail)
    monkeypatch.setattr(sys, "argv", ["truing", "sample", "m", "nope.txt", "--out", "o.jsonl"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "truing: nope.txt: No such file or directory\n"


def test_only_a_run_can_be_gone_on_with(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("truing.commands.model_commands.sample", stopped)
    monkeypatch.setattr(sys, "argv", ["truing", "sample", "m", "p", "--out", "o.jsonl"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130 and "--resume" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (RunFailed("the loss is not a number"), 3, "truing: the loss is not a number\n"),
        (KeyboardInterrupt(), 130, ""),
        (ModuleNotFoundError("no torch", name="torch"), 2, "pip install 'truing[train]'"),
        (ZeroDivisionError("odd"), 3, "ZeroDivisionError: odd"),
    ],
)
def test_what_goes_wrong_becomes_an_exit_code(monkeypatch, capsys, raised, code, said):
    def fail(*_):
        raise raised

    monkeypatch.setattr("truing.report.html.write", fail)
    monkeypatch.setattr(sys, "argv", ["truing", "report", "."])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    told = capsys.readouterr().err
    assert said in told
    assert ("Traceback" in told) == isinstance(raised, ZeroDivisionError)
