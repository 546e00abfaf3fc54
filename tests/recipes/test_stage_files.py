"""What a finished stage left is what is used: changed, cut, missing or added files, and folders that keep no hashes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from recipes.conftest import SMALL, Desk
from tampering import CHANGED, GONE, add, copy, cut, edit, flip, remove
from truing import seals
from truing.errors import UserError
from truing.policy.load import load
from truing.run import plan as planning

NOTHING = Path()
SPOILS = {
    "a bit of the weights": ("warm", flip("warm/model/model.safetensors"), CHANGED),
    "cut weights": ("rm", cut("rm/model/model.safetensors"), CHANGED),
    "other weights": ("warm", copy("rm/model/model.safetensors", "warm/model/model.safetensors"), CHANGED),
    "no weights": ("rm", remove("rm/model/model.safetensors"), GONE),
    "no model": ("warm", remove("warm/model"), GONE),
    "a file more": ("warm", add("warm/model/generation.json"), "was added after"),
    "the split": ("data", edit("data/split.json", lambda body: body["eval"].append(1)), CHANGED),
    "findings": ("exam", edit("exam/findings.json", lambda body: body["findings"].pop()), CHANGED),
    "a summary": ("rm", edit("rm/summary.json", lambda body: body.update(headline="perfect")), CHANGED),
    "stage.json": ("exam", edit("exam/stage.json", lambda body: body.update(seconds=0)), "stage.json: was changed"),
}


@pytest.fixture
def desk(ran: Desk) -> Desk:
    """A run that shipped, with its recipe."""
    return ran


@pytest.mark.parametrize("name", SPOILS)
def test_what_was_spoilt_is_not_reused(desk: Desk, name: str) -> None:
    """Refused with the file and the way out before anything is touched; with --restart the stage is run again, and what
    follows from it."""
    stage, spoil, reason = SPOILS[name]
    spoil(desk.out, NOTHING)
    before = (desk.out / "manifest.json").read_bytes()
    for flags in ((), ("--resume",)):
        assert desk.run(*flags) == 2
        assert reason in desk.said and f"{desk.out / stage}/" in desk.said and "--restart" in desk.said
    assert (desk.out / "manifest.json").read_bytes() == before
    assert desk.run("--restart") == 0 and reason in desk.said
    states = list(desk.states().values())
    place = list(desk.states()).index(stage)
    assert states[:place] == ["reused"] * place and states[place] == "done"
    assert desk.run() == 0 and set(desk.states().values()) == {"reused"}


def test_an_edited_decision_is_not_believed(desk: Desk) -> None:
    """Hold is made to ship in the gate's file and in the run's: neither a run nor the gate says so."""
    (desk.folder / "lax.yaml").write_text("rules: [{check: held_out_accuracy, min: 1.5}]\n")
    assert desk.run() in (1, 4)
    for name in ("release/decision.json", "decision.json"):
        path = desk.out / name
        path.write_text(path.read_text().replace('"hold"', '"ship"').replace('"undecided"', '"ship"'))
    assert desk.run() == 2 and "release/decision.json: was changed" in desk.said and "ship" not in desk.said
    assert desk("report", str(desk.out)) == 0
    assert "<b>Ship</b>" not in desk.page() and "decision.json: was changed after it was written" in desk.page()
    assert desk("gate", str(desk.out / "decision.json"), "--rules", str(desk.folder / "lax.yaml")) == 2


def test_a_decision_of_another_run_is_not_shown(desk: Desk) -> None:
    (desk.folder / "lax.yaml").write_text("rules: [{check: held_out_accuracy, min: 1.5}]\n")
    ship = (desk.out / "decision.json").read_bytes()
    assert desk.run() in (1, 4)
    (desk.out / "decision.json").write_bytes(ship)
    assert desk("report", str(desk.out)) == 0
    assert "<b>Ship</b>" not in desk.page() and "is not the decision that this run came to" in desk.page()


@pytest.mark.parametrize("name", ["warm", "rm"])
def test_every_command_that_loads_a_stages_model_looks_at_it(desk: Desk, name: str) -> None:
    model, rows, out = (str(desk.out / name / "model"), str(desk.folder / "pairs.jsonl"), str(desk.folder / "o.jsonl"))
    commands = {
        "score": ("score", model, rows, "--out", out),
        "export": ("export", model, "--out", str(desk.folder / "exported")),
    }
    if name == "warm":
        commands["sample"] = ("sample", model, rows, "--out", out, "--max-new-tokens", "2")
    for command in commands.values():
        assert desk(*command) == 0, desk.said
    shutil.rmtree(desk.folder / "exported")
    flip(f"{name}/model/model.safetensors")(desk.out, NOTHING)
    Path(out).unlink()
    for command in commands.values():
        assert desk(*command) == 2 and "model.safetensors: was changed" in desk.said
    assert not Path(out).exists() and not (desk.folder / "exported").exists()
    shutil.copytree(model, desk.folder / "mine")
    assert desk("score", str(desk.folder / "mine"), rows, "--out", out) == 0, "a folder of the user's own is as it is"


def test_another_recipe_that_names_a_stages_model_looks_at_it(desk: Desk) -> None:
    """By its folder, as it stands in the recipe; and an adapter that names it as its base."""
    other = "base: out/warm/model\nstages:\n  more: {do: sft, model: $base, data: pairs.jsonl, steps: 1}\n"
    (desk.folder / "other.yaml").write_text(other)
    desk.monkeypatch.chdir(desk.folder)
    assert desk("run", "other.yaml", "--out", "other", "more.lora_rank=2") == 0, desk.said
    flip("warm/model/model.safetensors")(desk.out, NOTHING)
    assert desk("run", "other.yaml", "--out", "again") == 2 and "model.safetensors: was changed" in desk.said
    with pytest.raises(UserError, match=r"model.safetensors: was changed"):
        load(str(desk.folder / "other" / "more" / "model"))


def test_a_stage_that_was_not_finished_gives_no_model(desk: Desk) -> None:
    edit("warm/stage.json", lambda body: body.update(state="running"), reseal=True)(desk.out, NOTHING)
    out = str(desk.folder / "o.jsonl")
    assert desk("score", str(desk.out / "warm" / "model"), str(desk.folder / "pairs.jsonl"), "--out", out) == 2
    assert "this stage was not finished" in desk.said and "--resume" in desk.said


def test_a_folder_without_hashes_is_run_again(desk: Desk) -> None:
    """One that an earlier truing made; also where only the source has changed, and --resume would reuse it."""

    def old(body: dict[str, object]) -> None:
        del body["seal"], body["outputs"], body["read"]

    for flags in ((), ("--resume",)):
        edit("warm/stage.json", old)(desk.out, NOTHING)
        assert desk.run(*flags) == 2 and "made by an earlier truing, which kept no hashes" in desk.said
        assert desk.run(*flags, "--overwrite") == 0
        assert "warm (sft): made by an earlier truing, which kept no hashes: run again" in desk.said
        assert desk.states() == {"data": "reused"} | dict.fromkeys(("warm", "rm", "exam", "release"), "done")
    edit("warm/stage.json", old)(desk.out, NOTHING)
    out = str(desk.folder / "o.jsonl")
    assert desk("score", str(desk.out / "warm" / "model"), str(desk.folder / "pairs.jsonl"), "--out", out) == 2
    assert "stage.json: has no seal: an earlier truing made it" in desk.said


def test_half_a_stage_json_is_named(desk: Desk) -> None:
    cut("warm/stage.json")(desk.out, NOTHING)
    assert desk.run() == 2
    assert f"{desk.out / 'warm' / 'stage.json'}: is not what a run writes there" in desk.said
    assert "remove the folder" in desk.said


def test_what_follows_from_a_stage_that_is_made_anew_is_made_anew(desk: Desk) -> None:
    """A folder that is gone is made again, and with it all that read it; nothing else is."""
    shutil.rmtree(desk.out / "warm")
    assert desk.run() == 2 and "rm (fit_reward), finished" in desk.said and "is made anew" in desk.said
    assert desk.run("--overwrite") == 0
    assert desk.states() == {"data": "reused"} | dict.fromkeys(("warm", "rm", "exam", "release"), "done")
    assert "rm (fit_reward): what stage 'warm' leaves is made anew: run again" in desk.said


def test_a_checkpoint_over_another_result_of_the_stage_before_is_refused(desk: Desk, dies: object) -> None:
    """The stage before was made again with other weights under the same options; a checkpoint began from the old ones."""
    dies(2, KeyboardInterrupt())  # type: ignore[operator]
    desk.change("steps: 2}", "steps: 3, checkpoint_every: 1}")
    assert desk.run("--overwrite") == 130 and (desk.out / "rm" / "checkpoints").exists()
    path = desk.out / "warm" / seals.STAGE
    other = json.loads(path.read_text())
    flip("warm/model/model.safetensors")(desk.out, NOTHING)
    other["outputs"] = seals.outputs_of(path.parent)
    path.write_text(json.dumps(seals.sealed(other)))
    assert desk.run("--resume") == 2
    assert "begun with another result of stage 'warm'" in desk.said and "--restart" in desk.said
    assert desk.run("--restart") == 0


def test_the_moment_of_a_run_is_not_taken_from_an_edited_manifest(desk: Desk) -> None:
    edit("manifest.json", lambda body: body.update(moment="2001-01-01T00:00:00"))(desk.out, NOTHING)
    assert desk.run() == 2 and "manifest.json: was changed after it was written" in desk.said


def test_hidden_files_and_times_are_no_tampering(desk: Desk) -> None:
    """What a file manager leaves, and a copy that keeps no times."""
    (desk.out / "warm" / "model" / ".DS_Store").write_text("")
    for path in desk.out.rglob("*"):
        path.touch()
    assert desk.run() == 0 and set(desk.states().values()) == {"reused"}


def test_stages_read_by_a_stage_are_those_its_options_name(tmp_path: Path) -> None:
    from truing.recipe.check import check

    for name in ("pairs.jsonl", "lax.yaml"):
        (tmp_path / name).write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    (tmp_path / "lax.yaml").write_text("rules: [{check: held_out_accuracy, min: 0}]\n")
    (tmp_path / "r.yaml").write_text(SMALL)
    recipe = check(tmp_path / "r.yaml")
    assert {spec.name: planning.read_by(spec) for spec in recipe.stages} == {
        "data": [],
        "warm": ["data"],
        "rm": ["warm", "data"],
        "exam": ["rm", "warm", "data"],
        "release": ["exam"],
    }
