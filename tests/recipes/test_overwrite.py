"""A finished stage is never overwritten in silence: what would be lost is said, and only `--overwrite` allows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes.conftest import SMALL, Desk
from tampering import edit
from truing.seals import sealed


@pytest.fixture
def desk(ran: Desk) -> Desk:
    """A run that shipped, with its recipe."""
    return ran


def weights(desk: Desk) -> dict[str, bytes]:
    """The weights of every finished model of a run."""
    return {path.parent.parent.name: path.read_bytes() for path in sorted(desk.out.glob("*/model/model.safetensors"))}


def test_a_changed_option_throws_nothing_away_unasked(desk: Desk) -> None:
    """Refused before anything is touched, with every stage that would be lost, its end, and why."""
    before, manifest = weights(desk), (desk.out / "manifest.json").read_bytes()
    for flags in ((), ("--resume",), ("--restart",)):
        assert desk.run("rm.steps=3", *flags) == 2
        assert f"{desk.out}: this run would throw away what is finished there" in desk.said
        assert "rm (fit_reward), finished 20" in desk.said and "steps was 2, is 3" in desk.said
        assert "exam (evaluate)" not in desk.said, "findings follow from the model"
        assert "warm (sft)" not in desk.said and "release (gate)" not in desk.said
        assert "--out FOLDER" in desk.said and "--overwrite" in desk.said and "--resume" not in desk.said
    assert weights(desk) == before and (desk.out / "manifest.json").read_bytes() == manifest
    assert desk.run("rm.steps=3", "--overwrite") == 0
    assert desk.states() == {"data": "reused", "warm": "reused"} | dict.fromkeys(("rm", "exam", "release"), "done")
    after = weights(desk)
    assert after["warm"] == before["warm"] and after["rm"] != before["rm"]
    assert desk.run("rm.steps=3") == 0, "what is there now is what the recipe asks for"


def test_another_recipe_of_the_same_title_is_told_whose_run_is_there(desk: Desk) -> None:
    """Its stages have other names, so no model would be lost, but the report, the manifest and the decision would."""
    page, whose = desk.page(), desk.read("manifest.json")["recipe_path"]
    other = desk.folder / "other.yaml"
    other.write_text(SMALL.replace("  warm:", "  tuned:").replace("$warm", "$tuned"))
    assert desk("run", str(other), "--out", str(desk.out)) == 2
    assert f"the run of {whose} (its stages: data, warm, rm, exam, release)" in desk.said
    assert "rm (fit_reward), finished" in desk.said and desk.page() == page
    assert desk("run", str(other), "--out", str(desk.folder / "elsewhere")) == 0
    assert desk("run", str(other), "--out", str(desk.out), "--overwrite") == 0
    assert desk.read("manifest.json")["recipe_path"] == str(other)


def test_the_same_recipe_under_another_name_is_the_same_run(desk: Desk) -> None:
    copy = desk.folder / "copy.yaml"
    copy.write_text(SMALL)
    assert desk("run", str(copy), "--out", str(desk.out)) == 0 and set(desk.states().values()) == {"reused"}


@pytest.mark.parametrize("changed", ["data.eval=0.3", "release.rules=strict.yaml"])
def test_what_takes_a_moment_is_made_anew_unasked(desk: Desk, changed: str) -> None:
    """A split and a gate follow from what they read; what learned from another split is lost with it, and named."""
    code = desk.run(changed)
    lost = changed.startswith("data")
    assert code == (2 if lost else 1)
    assert "data (split)," not in desk.said and ("warm (sft), finished" in desk.said) == lost


def test_what_only_an_older_truing_made_can_be_kept(desk: Desk) -> None:
    for stage in ("data", "warm", "rm", "exam", "release"):
        path = desk.out / stage / "stage.json"
        body = json.loads(path.read_text())
        body["parts"]["code"] = "of last week"
        path.write_text(json.dumps(sealed({name: value for name, value in body.items() if name != "seal"})))
    assert desk.run() == 2
    assert (
        "truing's own source has changed" in desk.said and "Keep what an earlier truing made with --resume" in desk.said
    )
    before = weights(desk)
    assert desk.run("--resume") == 0 and weights(desk) == before


def test_a_permission_holds_until_the_run_is_done(desk: Desk, dies: object) -> None:
    """Interrupted after --overwrite it goes on by --resume alone, and only for what was allowed."""
    dies(3, KeyboardInterrupt())  # type: ignore[operator]
    options = ("warm.steps=5", "warm.checkpoint_every=1")
    assert desk.run(*options, "--overwrite") == 130
    assert desk.run(*options, "--resume", "rm.steps=3") == 2
    assert "rm (fit_reward), finished" in desk.said and "steps was 2, is 3" in desk.said
    assert desk.run(*options, "--resume") == 0
    assert desk.states() == {"data": "reused"} | dict.fromkeys(("warm", "rm", "exam", "release"), "done")


def test_a_permission_is_for_what_was_there_and_not_for_what_came_after(desk: Desk, dies: object) -> None:
    """One that allowed a first model to give way to a second let a third, finished one give way to the second, too."""
    for steps, dying in ((2, 3), (3, 4)):
        dies(dying, KeyboardInterrupt())  # type: ignore[operator]
        assert desk.run(f"warm.steps={steps}", "--overwrite") == 130
    before = weights(desk)
    assert desk.run("warm.steps=2") == 2
    assert "warm (sft), finished" in desk.said and "steps was 3, is 2" in desk.said
    assert weights(desk) == before and "warm" in before


def test_a_finished_run_shows_its_table_again(desk: Desk) -> None:
    """Word for word what was said when it was made."""
    assert desk.run("rm.steps=3", "--overwrite") == 0
    made = desk.said
    assert desk.run("rm.steps=3") == 0
    table = [line for line in made.splitlines() if "held_out_accuracy" in line or "conditions met" in line]
    assert len(table) >= 2 and all(line in desk.said.splitlines() for line in table)
    assert desk.run("rm.steps=3", "--quiet") == 0 and not desk.said.strip()


def test_an_export_writes_over_no_gguf_unasked(desk: Desk) -> None:
    """Refused before the model is read; with --overwrite it is: llama.cpp has no form of this one's tokenizer."""
    out = desk.folder / "m.gguf"
    out.write_text("years of work")
    asked = ("export", str(desk.out / "warm" / "model"), "--gguf", str(out))
    assert desk(*asked) == 2 and f"{out}: is there already" in desk.said
    assert desk(*asked, "--overwrite") == 2 and "has no form in llama.cpp" in desk.said
    assert out.read_text() == "years of work"


def test_a_decision_gives_way_to_a_decision_and_to_nothing_else(desk: Desk) -> None:
    rules, out = str(desk.folder / "lax.yaml"), desk.folder / "decision.json"
    for _ in range(2):
        assert desk("gate", str(desk.out), "--rules", rules, "--out", str(out)) == 0
    for text in ("years of work", '{"verdict": "ship"}'):
        out.write_text(text)
        assert desk("gate", str(desk.out), "--rules", rules, "--out", str(out)) == 2
        assert f"{out}: is there already, and is no decision of truing" in desk.said and out.read_text() == text


def test_a_manifest_of_odd_rows_is_no_traceback(desk: Desk) -> None:
    edit("manifest.json", lambda body: body.update(stages=[7, {"name": 3, "state": "done"}], recipe_path="else"))(
        desk.out, Path()
    )
    assert desk.run() == 2 and "Traceback" not in desk.said
