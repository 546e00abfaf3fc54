"""A user's own objective: verified, listed and shown by the command line, and trained by a recipe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from truing import contract
from truing.cli import app
from truing.errors import UserError
from truing.recipe.check import check
from truing.records import OWED
from truing.run import runner as running

PAGE = (Path(__file__).parent.parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.partition("```python\n")[2].partition("```")[0]
LOSS = "(1 - beta * h).clamp(min=0).square()"
PAIR = "chosen_logp_B: Tensor, rejected_logp_B: Tensor"
HEAD = "from dataclasses import dataclass\n\nfrom torch import Tensor\n\nfrom truing.registry import objective\n"
WRONG = {
    "turned round": (LOSS, LOSS.replace("- beta", "+ beta"), "direction: the first step moves chosen_logp_B the wrong"),
    "batch mean": (LOSS, LOSS + " + 0.1 * h.mean()", "batch size: the loss of a row depends on the batch"),
    "reduced": (LOSS, LOSS + ".mean()", "one loss per row: raised RunFailed"),
    "dead option": ("(1 - beta * h)", "(1 - 0.1 * h)", "no dead option: option 'beta' changes nothing"),
    "held fixed": ("chosen_logp_B - ref", "chosen_logp_B.detach() - ref", "gradient: autograd differs"),
    "overflows": (LOSS, "(1 - beta * h).exp()", "finite at extremes: not finite"),
    "example": ("[0.7225]", "[0.7]", "described: 1 lines of its example do not hold"),
    "raises": (LOSS, "h.no_such_method()", "one loss per row: raised RunFailed"),
    "unknown signal": (PAIR[:13], "chosen_logq_B", "known signals: unknown signals: chosen_logq_B"),
    "no default": (": Positive = 0.1", ": Positive", "defaults: option 'beta' has none"),
    "no formula": ("loss_b = ", "", "described: the docstring lacks a formula"),
}


def truing(*arguments: str) -> tuple[int, str]:
    """Run a command in this process; its exit code and what it printed."""
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, UserError):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """The example of docs/recipes.md in a file of its own, in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(EXAMPLE)
    return tmp_path / "mine.py"


def test_a_right_objective_keeps_the_contract(mine) -> None:
    assert truing("verify", "mine.py") == (0, f"mine.py:squared_hinge: keeps all {len(contract.CLAUSES)} clauses\n")


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_one_fails_by_name(mine, what: str) -> None:
    right, wrong, said = WRONG[what]
    assert right in EXAMPLE
    good = EXAMPLE.partition("\n\n\n")[2].replace("squared_hinge", "good")
    mine.write_text(EXAMPLE.replace(right, wrong) + "\n\n" + good)
    code, printed = truing("verify", "mine.py")
    bad, kept = printed.splitlines()
    assert code == 1 and bad.startswith("mine.py:squared_hinge: BREAKS ") and said in bad
    assert kept.startswith("mine.py:good: keeps all")


def test_exemptions_are_said_with_their_reasons(mine) -> None:
    held = EXAMPLE.replace("chosen_logp_B - ref", "chosen_logp_B.detach() - ref", 1)
    declared = held.replace('9.06657")', '9.06657", exempt={"gradient": "held", "direction": "also"})')
    assert declared != held != EXAMPLE
    mine.write_text(declared)
    assert truing("verify", "mine.py")[1].endswith("exempt from gradient (held); direction (also)\n")
    mine.write_text(EXAMPLE.replace('9.06657")', '9.06657", exempt={"gradent": "held"})'))
    code, printed = truing("verify", "mine.py")
    assert code == 1 and "exempt: unknown clause 'gradent'. Did you mean 'gradient'?" in printed


UNREADABLE = {
    "": "no function in it is decorated with @objective",
    "def (:\n": "cannot be read as Python",
    EXAMPLE.replace("from torch import", "from trch import"): "could not be loaded: ModuleNotFoundError",
    EXAMPLE + "\nraise SystemExit(0)\n": "could not be loaded: SystemExit",
    EXAMPLE.replace('source="ours, after the hinge of Liu et al. 2023, arXiv 2309.06657"', 'source=""'): "no source",
    EXAMPLE.replace("@objective(", 'NAME = "ours"\n\n\n@objective(exempt=NAME, '): "exempt has to be written out",
    EXAMPLE.replace(
        "@objective(", "@objective(coupled={'shift_B': len}, "
    ): "coupled names 'len', which is no function",
}


@pytest.mark.parametrize("text", UNREADABLE, ids=UNREADABLE.values())
def test_a_file_that_cannot_be_read_is_the_users_mistake(mine, text: str) -> None:
    mine.write_text(text)
    code, said = truing("verify", "mine.py")
    assert code == 2 and "mine.py" in said and UNREADABLE[text] in said


def test_files_and_modules_that_are_not_there() -> None:
    assert truing("verify", "none.py") == (2, "none.py: there is no file none.py")
    assert truing("verify", "no_such_module")[0] == 2
    assert truing("verify")[0] == 2


def test_built_in_modules_can_be_verified_too() -> None:
    code, printed = truing("verify", "truing.objectives.unpaired", "truing.objectives.steps")
    assert code == 0 and [line.partition(":")[2].split()[0] for line in printed.splitlines()] == [
        "kto:",
        "bco:",
        "orm:",
        "prm:",
    ]


STATISTIC = """
from truing.objectives.divergence import class_weight as weight

@dataclass
class Told:
    times: int = 2

@objective(source="ours", coupled={"class_weight_B": weight})
def weighed(logp_B: Tensor, desirable_B: Tensor, class_weight_B: Tensor) -> Tensor:
    '''Raise desirable responses and lower others, each class the same.

        loss_b = -class_weight_b * s * log pi(y_b),   s = +1 desirable, -1 undesirable

    Differs from the source: nothing.

    >>> import torch
    >>> weighed(torch.tensor([-2.0]), torch.tensor([1.0]), torch.tensor([2.0])).tolist()
    [4.0]
    '''
    return -class_weight_B * (Told().times * desirable_B - 1) * logp_B
"""


def test_a_statistic_of_another_module_is_read_too(mine) -> None:
    mine.write_text("from __future__ import annotations\n\n" + HEAD + STATISTIC)
    assert truing("verify", "mine.py")[0] == 0
    row = next(
        r for r in json.loads(truing("list", "objectives", "--from", "mine.py", "--json")[1]) if ":" in r["name"]
    )
    assert (row["name"], row["data"]) == ("mine.py:weighed", "responses labelled desirable or undesirable")
    assert not row["reference"] and not row["sampling"]
    mismatched = STATISTIC.replace("divergence import class_weight as", "unpaired import kl_baseline as")
    mine.write_text(HEAD + mismatched.replace("class_weight_B", "kl_baseline_B"))
    row = next(
        r for r in json.loads(truing("list", "objectives", "--from", "mine.py", "--json")[1]) if ":" in r["name"]
    )
    assert row["reference"], "what the statistic reads counts too"


def test_it_is_listed_and_shown_without_being_run(mine) -> None:
    mine.write_text(EXAMPLE + "\nraise SystemExit(0)\n")
    code, printed = truing("list", "objectives", "--from", "mine.py")
    own = printed.partition("  mine.py:squared_hinge  ")[2].splitlines()
    assert code == 0 and own[0].startswith("Widen the log-odds up to a margin")
    assert [line.strip() for line in own[1:3]] == [
        "learns from pairs; needs reference; trained by prefer or reinforce",
        "source: ours, after the hinge of Liu et al. 2023, arXiv 2309.06657",
    ]
    assert "beta  Positive  default 0.1" in truing("show", "objective", "mine.py:squared_hinge")[1]
    assert truing("list", "objectives", "--from", "none.py")[0] == 2
    assert truing("list", "models", "--from", "mine.py") == (
        2,
        "--from lists objectives, stages, rewards, and models are none of them",
    )


def test_the_list_tells_the_unifying_view() -> None:
    rows = {row["name"]: row for row in json.loads(truing("list", "objectives", "--json")[1])}
    assert len(rows) >= 46
    view = {
        "dpo": ("pairs", True, False, False, "row", ["prefer", "reinforce"]),
        "simpo": ("pairs", False, False, False, "row", ["prefer", "reinforce"]),
        "kto": ("responses labelled desirable or undesirable", True, False, False, "row", ["prefer"]),
        "bradley_terry": ("pairs", False, True, False, "row", ["fit_reward"]),
        "prm": ("responses whose steps are labelled", False, True, False, "step", ["fit_reward"]),
        "nll": ("responses", False, False, False, "token", ["reinforce", "sft"]),
        "grpo": ("rollouts", True, False, True, "response", ["reinforce"]),
        "gdc": ("rollouts", True, False, True, "row"),
    }
    for name, wanted in view.items():
        told = rows[name]
        keys = ("data", "reference", "reward_model", "sampling", "mean", "stages")
        assert tuple(told[key] for key in keys)[: len(wanted)] == wanted, name
    assert all(row["stages"] for row in rows.values() if not OWED & set(row["needs"]))
    assert not any(row["stages"] for row in rows.values() if OWED & set(row["needs"]))
    assert rows["kto"]["estimates"].startswith("1 - TV(D+, D-)") and rows["ppo"]["estimates"] == ""
    assert rows["cispo"]["exempt"].keys() == {"gradient"}
    assert {"reference", "estimates"}.isdisjoint(json.loads(truing("list", "stages", "--json")[1])[0])


def test_list_and_show_import_no_torch(mine) -> None:
    code = "import sys; from truing import cli; cli.described('objectives', 'mine.py'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


RECIPE = """
base: world:desk/tiny
stages:
  direct:
    do: prefer
    model: $base
    data: world:comparisons?n=12
    objective: {mine.py:squared_hinge: {beta: 0.2}}
    steps: 2
    rows_per_step: 4
"""


def test_a_recipe_trains_with_it(mine) -> None:
    (mine.parent / "r.yaml").write_text(RECIPE)
    assert running.run(check(mine.parent / "r.yaml", []), mine.parent / "out", quiet=True) == 0
    steps = [json.loads(line) for line in (mine.parent / "out/direct/metrics.jsonl").read_text().splitlines()]
    assert steps[0]["loss"] == pytest.approx(1.0, abs=1e-5), "at the reference every margin is 0"
    assert steps[1]["loss"] != steps[0]["loss"]
