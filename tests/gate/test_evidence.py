"""Evidence that was edited, swapped, replayed, doubled, of another model or half finished: none of it ships."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tampering import CASES, EDITS, FINDING, LOOSE, Spoil, edit, first, flip
from truing import seals
from truing.errors import RunFailed, UserError
from truing.gate import evidence
from truing.recipe.check import check
from truing.run import runner as running
from truing.stages import exam

RECIPE = """\
title: evidence
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: $inputs.data}
inputs: {data: pairs.jsonl}
stages:
  data: {do: split, data: $inputs.data, eval: 0.3}
  warm: {do: sft, model: $base, data: $data.train, steps: 60, rows_per_step: 4, learning_rate: 5e-3}
  rm: {do: fit_reward, model: $warm, data: $data.train, eval: $data.eval, steps: 2}
  direct: {do: prefer, model: $warm, data: $data.train, steps: 2, rows_per_step: 2}
  exam: {do: evaluate, models: [$direct, $rm], against: $base, data: $data.eval, prompts: $data.eval,
         judge: {good.py:good: {}}, exact: true, max_new_tokens: 8}
  release: {do: gate, evidence: $exam, rules: lax.yaml}
"""
LAX = "rules: [{check: win_rate, against: base, min: 0.5}, {check: held_out_accuracy, min: 0}]\n"
GOOD = """\
from truing.registry import reward


@reward(scope="response")
def good(responses):
    return [float("good" in text) for text in responses]
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, rules, and two runs that ship: `run` and, with another seed, `other`."""
    folder = tmp_path_factory.mktemp("evidence")
    rows = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(60)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "lax.yaml").write_text(LAX)
    (folder / "good.py").write_text(GOOD)
    (folder / "r.yaml").write_text(RECIPE)
    for name, seed in (("run", 0), ("other", 1)):
        assert running.run(check(folder / "r.yaml", [f"seed={seed}"]), folder / name, quiet=True) == 0
    return folder


@pytest.fixture
def copied(desk: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be spoilt."""
    shutil.copytree(desk / "run", tmp_path / "run")
    return tmp_path / "run"


Truing = Callable[..., tuple[int, str]]


@pytest.fixture
def truing(command: Truing) -> Truing:
    """The command: its exit code, and what it printed."""

    return command


def test_untouched_it_ships_whoever_asks(desk: Path, copied: Path, truing: Truing) -> None:
    """The run itself, a copy of it elsewhere, a stage, its file, and the decision: what is spoilt below is not refused
    for another reason."""
    for place in (desk / "run", copied, copied / "exam", copied / "exam" / "findings.json", copied / "decision.json"):
        rules = desk / "lax.yaml"
        if place.name in ("exam", "findings.json"):
            (copied / "one.yaml").write_text("rules: [{check: win_rate, against: base, min: 0.5}]\n")
            rules = copied / "one.yaml"
        assert truing("gate", place, "--rules", rules)[0] == 0, place
    assert len(evidence.read_findings(copied)) > 8


@pytest.mark.parametrize(("spoil", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_spoilt_evidence_does_not_ship(desk: Path, copied: Path, truing: Truing, spoil: Spoil, reason: str) -> None:
    spoil(copied, desk / "other")
    code, printed = truing("gate", copied, "--rules", desk / "lax.yaml")
    assert code == 2 and "ship" not in printed, printed
    assert reason in printed and len(printed.splitlines()) > 1, "the reason, and the way out"


def test_there_are_ninety_ways() -> None:
    assert len({case[0] for case in CASES}) == len(CASES) >= 90


@pytest.mark.parametrize(("text", "reason"), [case[1:] for case in LOOSE], ids=[case[0] for case in LOOSE])
def test_a_file_of_ones_own_is_read_strictly(
    tmp_path: Path, desk: Path, truing: Truing, text: str, reason: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    code, printed = truing("gate", path, "--rules", desk / "lax.yaml")
    assert code == 2 and reason in printed and str(path) in printed, printed


def test_a_file_of_ones_own_is_believed_as_written(tmp_path: Path, truing: Truing) -> None:
    (tmp_path / "rules.yaml").write_text("rules: [{check: kl_to_reference, max: 1}]\n")
    for name, body in (
        ("plain", {"findings": [FINDING]}),
        ("twice the same", {"suite": "mine", "models": ["direct"], "findings": [FINDING, FINDING]}),
        ("sealed", seals.sealed({"findings": [FINDING]})),
    ):
        (tmp_path / "mine.json").write_text(json.dumps(body))
        assert truing("gate", tmp_path / "mine.json", "--rules", tmp_path / "rules.yaml")[0] == 0, name


@pytest.mark.parametrize("ill", ["exam", "release"])
def test_a_run_that_failed_half_way_does_not_ship(
    desk: Path, tmp_path: Path, truing: Truing, monkeypatch: pytest.MonkeyPatch, ill: str
) -> None:
    """Its first stages are whole, and their findings alone would pass."""

    def fail(*_: object) -> None:
        raise RunFailed("the examiner is ill")

    where = exam.Exam if ill == "exam" else running.registry
    with monkeypatch.context() as patched:
        if ill == "exam":
            patched.setattr(where, "order", fail)
        else:
            real = running.registry.load
            patched.setattr(where, "load", lambda name, *more: fail() if name == "gate" else real(name, *more))
        with pytest.raises(RunFailed):
            running.run(check(desk / "r.yaml"), tmp_path / "run", quiet=True)
    (tmp_path / "rm.yaml").write_text("rules: [{check: held_out_accuracy, min: 0}]\n")
    code, printed = truing("gate", tmp_path / "run", "--rules", tmp_path / "rm.yaml")
    assert code == 2 and "this run is not done, it is 'failed' (the examiner is ill)" in printed


def test_evidence_of_two_runs_is_not_mixed(desk: Path, truing: Truing) -> None:
    code, printed = truing("gate", desk, "--rules", desk / "lax.yaml")
    assert code == 2 and "two different models called" in printed and "Give the evidence of one run" in printed


def test_a_decision_names_the_weights_it_is_about(desk: Path, tmp_path: Path, truing: Truing) -> None:
    decision = json.loads((desk / "run" / "decision.json").read_text())
    assert seals.fits(decision) and {"direct/model", "rm/model"} <= set(decision["about"]["models"])
    assert truing("gate", desk / "run", "--rules", desk / "lax.yaml", "--out", tmp_path / "d.json")[0] == 0
    again = json.loads((tmp_path / "d.json").read_text())
    assert decision["about"]["models"].items() < again["about"]["models"].items(), (
        "rm's own findings are about warm too"
    )
    assert seals.fits(again)
    other = json.loads((desk / "other" / "decision.json").read_text())
    assert other["about"]["models"]["direct/model"] != decision["about"]["models"]["direct/model"]


def test_findings_say_what_they_are_about(desk: Path) -> None:
    about = json.loads((desk / "run" / "exam" / "findings.json").read_text())["about"]
    assert about["stage"] == "exam" and about["judge"] == {"judge": {f"{desk}/good.py:good": {}}}
    assert any("pairs.jsonl" in name for name in about["data"])
    other = json.loads((desk / "other" / "exam" / "findings.json").read_text())["about"]
    assert about["code"] == other["code"] and about["recipe"] != other["recipe"]


def test_evidence_taken_elsewhere_is_checked_as_far_as_it_can_be(copied: Path, tmp_path: Path) -> None:
    """A findings.json alone has its own seal; beside its run, weights that were changed since are seen from it too."""
    alone = tmp_path / "alone" / "findings.json"
    alone.parent.mkdir()
    shutil.copyfile(copied / "exam" / "findings.json", alone)
    assert evidence.read_findings(alone) == evidence.read_findings(copied / "exam")
    flip("direct/model/model.safetensors")(copied, copied)
    with pytest.raises(UserError, match=r"direct/model/model.safetensors: was changed after it was written"):
        evidence.read(copied / "exam" / "findings.json")
    edit("findings.json", EDITS["value"])(alone.parent, alone.parent)
    with pytest.raises(UserError, match="was changed after it was written"):
        evidence.read(alone)


@pytest.mark.parametrize("change", [first(colour="green"), first(model=""), lambda body: body.update(colour="green")])
def test_a_seal_made_anew_does_not_excuse_what_is_no_finding(tmp_path: Path, change: Callable[..., None]) -> None:
    (tmp_path / "f.json").write_text(json.dumps(seals.sealed({"findings": [FINDING]})))
    edit("f.json", change, reseal=True)(tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"unknown key 'colour'|names no model"):
        evidence.read(tmp_path / "f.json")
