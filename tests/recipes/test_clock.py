"""A template that writes the date: a run, and every model it leaves, keep the day on which the run began."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from small_templates import DATED, model
from truing.commands import model_commands
from truing.data import clock
from truing.policy import heads

RECIPE = """\
title: dated
base: base
inputs: {pairs: pairs.jsonl}
stages:
  warm: {do: sft, model: $base, data: $inputs.pairs, steps: 3, rows_per_step: 4, max_length: 200, checkpoint_every: 1}
  direct: {do: prefer, model: $warm, data: $inputs.pairs, steps: 3, rows_per_step: 4, max_length: 200, checkpoint_every: 1}
  rm: {do: fit_reward, model: $warm, data: $inputs.pairs, steps: 1, rows_per_step: 4, max_length: 200}
"""
SAID = "the chat template writes the date (strftime_now), here 2024-02-29 07:08"


@pytest.fixture
def days(monkeypatch):
    """Lets a day pass for all that reads the clock."""
    passed = [0]

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2024, 2, 29, 7, 8, 9) + timedelta(days=passed[0])

    monkeypatch.setattr(clock, "datetime", Clock)
    return passed


@pytest.mark.parametrize("stage, step", [("warm", 2), ("direct", 5)])
def test_a_run_that_is_resumed_a_day_later_goes_on_with_the_same_tokens(desk, dies, days, stage, step) -> None:
    model(desk.folder / "base", DATED)
    desk.write(RECIPE)
    assert desk.run() == 0, desk.said
    assert desk.said.count(SAID) == 3 and desk.read("manifest.json")["moment"] == "2024-02-29T07:08:09"
    whole = {name: (desk.out / name / "model" / "model.safetensors").read_bytes() for name in ("warm", "direct", "rm")}
    first, desk.out = desk.out, desk.folder / "again"
    dies(step, KeyboardInterrupt())
    assert desk.run() == 130
    assert (desk.out / stage / "checkpoints").exists()
    days[0] = 1
    assert desk.run("--resume") == 0, desk.said
    assert SAID in desk.said and SAID in " ".join(desk.read(f"{stage}/summary.json")["notes"])
    for name, weights in whole.items():
        assert (desk.out / name / "model" / "model.safetensors").read_bytes() == weights
    days[0] = 400
    for run in (first, desk.out):
        files = (str(run / "rm" / "model"), str(desk.folder / "pairs.jsonl"), "--out", str(run / "scores.jsonl"))
        assert desk("score", *files) == 0 and SAID in desk.said
    assert (first / "scores.jsonl").read_text() == (desk.out / "scores.jsonl").read_text()
    assert desk.run("--resume") == 0 and desk.said.count(SAID) == 3, "of stages that are not run again too"


def test_commands_say_what_the_template_writes(desk, days) -> None:
    """The scores of a base that carries no moment follow the day, and that is said; those of plain templates do not."""
    model(desk.folder / "base", DATED)
    data = str(desk.folder / "pairs.jsonl")
    texts = []
    for days[0] in (0, 1):
        out = str(desk.folder / f"{days[0]}.jsonl")
        assert desk("score", str(desk.folder / "base"), data, "--out", out) == 0
        assert f"here 2024-0{2 + days[0]}-{[29, '01'][days[0]]}" in desk.said
        assert desk("sample", str(desk.folder / "base"), data, "--max-new-tokens", "2", "--out", out + "s") == 0
        assert "the chat template writes the date" in desk.said
        texts.append((desk.folder / f"{days[0]}.jsonl").read_text())
    assert texts[0] != texts[1]


def test_a_moment_of_a_manifest_that_is_none_is_refused(desk, days) -> None:
    model(desk.folder / "base", DATED)
    desk.write(RECIPE)
    desk.out.mkdir()
    (desk.out / "manifest.json").write_text(json.dumps({"stages": [], "moment": "soon"}))
    assert desk.run() == 2 and "manifest.json: template_moment is 'soon'" in desk.said


def test_sample_says_the_moment_of_both_models(tmp_path, days) -> None:
    """The one that answers, and the reward model by which the best is chosen."""
    with clock.fixed(clock.datetime(2023, 1, 2)):
        heads.save(heads.fresh_reward(str(model(tmp_path / "base", DATED)), seed=1), tmp_path / "rm")
    (tmp_path / "p.txt").write_text("two and two?\n")
    heard: list[str] = []
    files = (str(tmp_path / "base"), str(tmp_path / "p.txt"), 1, tmp_path / "out.jsonl")
    model_commands.sample(*files, max_new_tokens=2, best_of=2, reward=str(tmp_path / "rm"), say=heard.append)
    assert [("here 2024-02-29" in text, "here 2023-01-02" in text) for text in heard] == [(True, False), (False, True)]
    assert heard[1].startswith(str(tmp_path / "rm"))
