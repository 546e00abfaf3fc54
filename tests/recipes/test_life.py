"""A run's folder through its life: what is kept, what is thrown away, what is said of a run that did not end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from truing.disk import made_beside
from truing.errors import RunFailed
from truing.run import plan as planning
from truing.stages import exam

EVERY_STEP = "warm.checkpoint_every=1"


@pytest.mark.parametrize("flags", [(), ("--resume",), ("--restart",)])
def test_a_folder_of_the_users_own_is_left_alone(desk, flags) -> None:
    mine = desk.out / "rm" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    assert desk.run(*flags) == 2
    assert f"{mine.parent}: truing did not make this folder" in desk.said and "another --out" in desk.said
    assert mine.read_text() == "years of work"
    assert not (desk.out / "data").exists(), "refused before anything is made"


@pytest.mark.parametrize("name", ["report.html", "decision.json", "manifest.json"])
def test_a_file_of_the_users_own_is_left_alone(desk, name) -> None:
    desk.out.mkdir()
    (desk.out / name).write_text("{}")
    assert desk.run() == 2
    assert f"{desk.out / name}: no run of truing wrote this file" in desk.said
    assert (desk.out / name).read_text() == "{}"


def test_a_folder_that_cannot_be_made(desk) -> None:
    desk.out.write_text("a file")
    assert desk.run() == 2
    assert f"{desk.out}: cannot be the run's folder (File exists)" in desk.said and "Traceback" not in desk.said
    assert desk("split", str(desk.folder / "pairs.jsonl"), "--out", str(desk.out)) == 2
    assert f"{desk.out}: " in desk.said and "Traceback" not in desk.said


def test_an_interrupted_stage_is_neither_lost_nor_gone_on_with_unasked(desk, dies) -> None:
    dies(3, KeyboardInterrupt())
    assert desk.run(EVERY_STEP) == 130
    assert "stopped; go on with --resume" in desk.said
    kept = desk.out / "warm" / "checkpoints" / "step-00000002"
    assert kept.exists()
    assert desk.run(EVERY_STEP) == 2
    assert "stage 'warm' was interrupted" in desk.said and "--resume" in desk.said and "--restart" in desk.said
    assert desk.run("--resume", EVERY_STEP, "warm.steps=9", "seed=1") == 2
    assert "seed was 0, is 1; steps was 4, is 9" in desk.said
    assert desk.run("--resume", "--restart", EVERY_STEP) == 2
    with (desk.folder / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "one more", "chosen": "good", "rejected": "bad"}\n')
    assert desk.run("--resume", EVERY_STEP) == 2
    assert "what data names has changed" in desk.said
    assert kept.exists()
    assert desk.run("--restart", EVERY_STEP) == 0
    assert desk.states()["warm"] == "done" and not (desk.out / "warm" / "checkpoints").exists()


def test_truings_own_source_may_change_under_an_interrupted_stage(desk, dies, monkeypatch) -> None:
    dies(3, KeyboardInterrupt())
    assert desk.run(EVERY_STEP) == 130
    first = (desk.out / "warm" / "metrics.jsonl").read_text().splitlines()[0]
    monkeypatch.setattr(planning, "source_digest", lambda: "mended")
    assert desk.run("--resume", EVERY_STEP) == 0
    assert "data (split): truing's own source has changed, nothing else has, not run again" in desk.said
    assert "warm (sft): truing's own source has changed\n" in desk.said
    rows = (desk.out / "warm" / "metrics.jsonl").read_text().splitlines()
    assert rows[0] == first and len(rows) == 4, "the first two steps are those of the interrupted run"


def test_a_stopped_run_leaves_a_record(desk, dies) -> None:
    dies(1, KeyboardInterrupt())
    assert desk.run() == 130
    assert desk.states() == {"data": "done", "warm": "stopped"} | dict.fromkeys(("rm", "exam", "release"), "pending")
    manifest = desk.read("manifest.json")
    assert (manifest["state"], manifest["reason"]) == ("stopped", "stopped from outside")
    assert "<b>Stopped</b>" in desk.page()


def test_the_old_verdict_does_not_survive_a_run_that_fails(desk, monkeypatch) -> None:
    assert desk.run() == 0
    assert desk.read("decision.json")["verdict"] == "ship" and "<b>Ship</b>" in desk.page()

    def fail(*_: object) -> None:
        raise RunFailed("the examiner is ill")

    monkeypatch.setattr(exam.Exam, "order", fail)
    assert desk.run("exam.seed=1", "--overwrite") == 3
    assert not (desk.out / "decision.json").exists()
    assert "<b>Ship</b>" not in desk.page() and "the examiner is ill" in desk.page()
    assert desk.states() == {"data": "reused", "warm": "reused", "rm": "reused", "exam": "failed", "release": "pending"}
    assert desk.read("manifest.json")["reason"] == "the examiner is ill"
    assert desk("gate", str(desk.out), "--rules", str(desk.folder / "lax.yaml")) == 2, (
        "rm's own finding decides nothing"
    )
    assert "this run is not done, it is 'failed' (the examiner is ill)" in desk.said


def test_a_verdict_goes_with_its_gate(desk) -> None:
    assert desk.run() == 0
    desk.change("  release: {do: gate, evidence: $exam, rules: lax.yaml}\n", "")
    assert desk.run() == 0
    assert not (desk.out / "decision.json").exists() and "<b>No gate</b>" in desk.page()


def test_findings_of_a_stage_that_is_gone_are_not_gated(desk) -> None:
    assert desk.run() == 0
    stale = desk.out / "exam" / "findings.json"
    stale.write_text(stale.read_text().replace('"held_out_accuracy"', '"stale"'))
    desk.write((desk.folder / "r.yaml").read_text().replace("exam", "finals"))
    assert desk.run() == 0
    (desk.folder / "stale.yaml").write_text("rules: [{check: stale, min: 0}]\n")
    assert desk("gate", str(desk.out), "--rules", str(desk.folder / "stale.yaml")) == 4
    assert "no finding of check 'stale'" in desk.said and "stale" not in desk.page()


@pytest.mark.parametrize(("order", "code"), [(("strict", "lax"), 1), (("lax", "strict"), 1), (("lax", "lax"), 0)])
def test_the_worst_of_several_gates_is_the_answer(desk, order, code) -> None:
    gates = "".join(f"  gate{i}: {{do: gate, evidence: $exam, rules: {n}.yaml}}\n" for i, n in enumerate(order))
    desk.change("  release: {do: gate, evidence: $exam, rules: lax.yaml}\n", gates)
    assert desk.run() == code
    decision = desk.read("decision.json")
    verdicts = {f"gate{i}": "hold" if name == "strict" else "ship" for i, name in enumerate(order)}
    assert decision["gates"] == verdicts and decision["exit_code"] == code
    assert [r["rule"].partition(":")[0] for r in decision["results"]] == ["gate0", "gate1"]
    assert desk.read("gate0/decision.json")["verdict"] == verdicts["gate0"]
    assert ("<b>Hold</b>" if code else "<b>Ship</b>") in desk.page()
    assert "gate0: held_out_accuracy" in desk.page() and "gate1: held_out_accuracy" in desk.page()


def test_the_manifest_tells_what_was_run(desk, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret-1234")
    assert desk.run("warm.steps=3", "seed=5") == 0
    manifest = desk.read("manifest.json")
    assert "steps: 3" in manifest["recipe"] and "seed: 5" in manifest["recipe"]
    assert manifest["overrides"] == ["warm.steps=3", "seed=5"] and "warm.steps=3" in desk.page()
    names = {name: value for name, value in manifest["data"].items() if "pairs.jsonl" in name}
    assert len(names) == 3 and all(len(value) == 16 for value in names.values())
    assert "secret-1234" not in (desk.out / "manifest.json").read_text()
    before = manifest["data"]
    assert desk.run("warm.steps=3", "seed=5") == 0
    assert desk.read("manifest.json")["data"] == before, "reused stages tell what they read"


def test_two_who_make_the_same_model_do_not_disturb_each_other(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with made_beside(target) as first:
        with made_beside(target) as second:
            assert first != second
            (second / "config.json").write_text("second")
        (first / "config.json").write_text("first")
    assert (target / "config.json").read_text() == "second", "whoever is done first stays"
    with pytest.raises(RuntimeError), made_beside(tmp_path / "other"):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["model"], "nothing half made is left"


def test_a_terminated_run_ends_with_143_and_can_be_gone_on_with(desk) -> None:
    command = [sys.executable, "-m", "truing", "run", str(desk.folder / "r.yaml"), "--out", str(desk.out)]
    process = subprocess.Popen([*command, "warm.steps=5000", "warm.checkpoint_every=2"])
    deadline = time.monotonic() + 120
    while not list(desk.out.glob("warm/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert desk.states()["warm"] == "stopped"
