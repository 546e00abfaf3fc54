"""A run that taught nothing says so at its end and why: on the terminal, in the summary, on the card, in the report, and
to whoever expects otherwise. One that taught something says nothing of the kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from truing.rollout.account import Account, Extent
from truing.run.lesson import Rounds, lesson

HEAD = """\
title: small
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
"""
LEARN = (
    "  learn: {do: reinforce, model: $base, prompts: asked.jsonl, rewards: REWARDS, group_size: 3, "
    "rows_per_step: 2, max_new_tokens: 5, learning_rate: 1.0e-3, steps: 3MORE}\n"
)
EXPECT = "expect: {STAGE.STAGE.taught: [1, 1]}\n"
MINE = """\
def level(prompts, completions, **kwargs):
    return [0.5] * len(completions)


def letters(prompts, completions, **kwargs):
    return [float(len(answer)) for answer in map(str, completions)]


def by_prompt(prompts, completions, **kwargs):
    return [float(len(str(prompt))) for prompt in prompts]
"""


@pytest.fixture
def asked(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prompts of different lengths, and two rewards that tell no answer to a prompt from another."""
    rows = [{"prompt": "asked" + " again" * i} for i in range(6)]
    (desk.folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (desk.folder / "mine.py").write_text(MINE)
    monkeypatch.chdir(desk.folder)
    return desk


def says(desk: Any, stage: str, why: str) -> None:
    """Terminal, summary, figures, card and report say why nothing was taught, and the exit code is that of a run that
    ended well."""
    line = f"taught nothing: {why}"
    assert f"  {line}" in desk.said, desk.said
    summary = desk.read(f"{stage}/summary.json")
    assert summary["taught"] == {"anything": False, "nothing": why} and summary["headline"] == line
    assert line in summary["notes"] and summary["figures"][0] == {"name": "taught", "value": f"nothing: {why}"}
    assert "taught nothing" in (desk.out / stage / "model" / "README.md").read_text(encoding="utf-8")
    assert "aught nothing" in desk.page()


def test_equal_scores_teach_nothing_and_say_whose(asked: Any) -> None:
    asked.write(HEAD + LEARN.replace("REWARDS", "['mine.py:level']").replace("MORE", ""))
    assert asked.run() == 0, asked.said
    why = "no weight moved: all 18 responses scored the same (0.5) by level"
    says(asked, "learn", why)
    assert "100 % of 6 groups scored the same throughout" in asked.said
    assert asked.run("--resume") == 0 and f"taught nothing: {why}" in asked.said, "of a stage that is reused, too"


def test_groups_that_are_equal_within_teach_nothing(asked: Any) -> None:
    asked.write(HEAD + LEARN.replace("REWARDS", "['mine.py:by_prompt']").replace("MORE", ""))
    assert asked.run() == 0, asked.said
    says(asked, "learn", "no weight moved: in all 6 groups the responses to a prompt scored the same by by_prompt")


def test_a_forecast_moves_weights_and_the_reward_still_taught_nothing(asked: Any) -> None:
    """PPO: what it forecasts with is trained on equal scores too."""
    more = ", objective: [ppo, {value_clipped: {weight: 0.1}}]"
    asked.write(HEAD + LEARN.replace("REWARDS", "['mine.py:level']").replace("MORE", more))
    assert asked.run() == 0, asked.said
    why = "all 18 responses scored the same (0.5) by level; what moved the weights is not the reward"
    says(asked, "learn", why + " (the KL control, a value estimate or rounding is)")


@pytest.mark.parametrize(
    ("more", "source"),
    [
        (", overlong_buffer: 55", "the cost of a response's length"),
        (", truncated_penalty: 1.0", "the cost of a response's length"),
        (
            ", pretrain: texts.jsonl, objective: [grpo, {ptx: {weight: 1.0}}]",
            "the texts of pretrain",
        ),
    ],
)
def test_what_teaches_beside_equal_scores_is_no_nothing(asked: Any, more: str, source: str) -> None:
    """Answers of one score that differ by what their length costs, and texts that are learned along, did teach."""
    rows = [{"text": f"The number after {i} is {i + 1}."} for i in range(6)]
    (asked.folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = LEARN.replace("max_new_tokens: 5", "max_new_tokens: 60").replace("REWARDS", "['mine.py:level']")
    asked.write(HEAD + stage.replace("MORE", more))
    assert asked.run() == 0, asked.said
    assert "taught nothing" not in asked.said
    assert asked.read("learn/summary.json")["taught"] == {"anything": True, "nothing": ""}
    assert f"scored the same (0.5) by level: what it learned is from {source} alone" in asked.said
    assert "aught nothing" not in asked.page()


def test_a_rate_that_moves_no_weight_is_named(desk: Any) -> None:
    rate = "learning_rate: 1.0e-30, steps: 3, rows_per_step: 2}\n"
    desk.write(
        HEAD + "  direct: {do: prefer, model: $base, data: pairs.jsonl, " + rate + EXPECT.replace("STAGE", "direct")
    )
    assert desk.run() == 1, "an expectation is not met"
    says(desk, "direct", "no weight moved: learning_rate 1e-30 is too small to change a weight of this precision")
    assert "direct.direct.taught is 0.000 [0.000, 0.000], all of it outside [1.0, 1.0]" in desk.said


@pytest.mark.parametrize("stage", ["sft", "prefer", "fit_reward"])
def test_what_taught_something_says_nothing_of_it(desk: Any, stage: str) -> None:
    rate = "learning_rate: 1.0e-3, steps: 3, rows_per_step: 2}\n"
    desk.write(HEAD + f"  s: {{do: {stage}, model: $base, data: pairs.jsonl, {rate}" + EXPECT.replace("STAGE", "s"))
    assert desk.run() == 0, desk.said
    assert "taught nothing" not in desk.said and "all 1 expectations of the recipe are met" in desk.said
    summary = desk.read("s/summary.json")
    assert summary["taught"] == {"anything": True, "nothing": ""} and "taught" not in summary["figures"][0]["name"]
    assert "60 rows of pairs.jsonl" in summary["paragraph"] and "6 rows drawn in all" in summary["paragraph"]


def test_a_reward_that_tells_answers_apart_taught_something(asked: Any) -> None:
    reward = "['mine.py:letters']"
    more = ", objective: rloo}\n" + EXPECT.replace("STAGE", "learn")
    asked.write((HEAD + LEARN.replace("REWARDS", reward)).replace("MORE}\n", more))
    assert asked.run() == 0, asked.said
    account = asked.read("learn/summary.json")
    assert (
        account["taught"]["anything"]
        and "all 6 prompts of asked.jsonl" in account["paragraph"]
        and "18 responses in 3 rounds" in account["paragraph"]
    )


@pytest.mark.parametrize(
    ("path", "trouble"),
    [
        ("s.other.taught", "unknown model 'other'"),
        ("data.data.taught", "measures nothing"),
        ("s.s.win_rate", "measures nothing"),
    ],
)
def test_an_expectation_of_a_lesson_is_checked_before_the_run(desk: Any, path: str, trouble: str) -> None:
    split = "  data: {do: split, data: pairs.jsonl}\n  s: {do: sft, model: $base, data: $data.train, steps: 1}\n"
    desk.write(HEAD + split + f"expect: {{{path}: [1, 1]}}\n")
    assert desk.run() == 2 and trouble in desk.said


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "grad_norm": 0.0} | more


def test_why_is_told_by_the_metrics() -> None:
    """Each cause by its own name; none where a weight moved by a gradient."""
    pairs = [row(1, margin_nats=0.0), row(2, margin_nats=0.0)]
    assert lesson(pairs, False, 1e-3).nothing == "no weight moved: the two responses of every pair read the same"
    assert lesson([row(1, learned_tokens=0.0)], False, 1e-3).nothing == "no weight moved: no row had a token to learn"
    assert lesson([row(1)], True, 1e-3).nothing.endswith("every update; what moved the weights is weight_decay")
    assert lesson([], False, 1e-3).nothing == "it made no update"
    assert lesson([row(1, grad_norm=1.0)], False, 1e-3, best_step=0).nothing.endswith(
        "before the first update, which were the best"
    )
    assert lesson([row(1, grad_norm=1.0, margin_nats=0.0)], True, 1e-3).lines() == []


def test_an_imitated_answer_teaches_though_all_score_the_same() -> None:
    """Rejection sampling where every answer passes; and answers that were cut are a remark, not a reason."""
    account = Account(
        lived={1: {1, 2}, 2: {3, 4}}, requests=4, responses=8, cut=6, groups=4, equal=4, score=Extent(8, 1.0, 1.0)
    )
    known = [row(1, grad_norm=1.0)]
    assert lesson(known, True, 1e-3, Rounds(account, False, True, 5)).nothing == ""
    assert lesson(known, True, 1e-3, Rounds(account, True, False, 5)).nothing.startswith(
        "all 8 responses scored the same (1)"
    )
    assert lesson(known, True, 1e-3, Rounds(account, False, True, 5)).remarks == (
        "75 % of 8 responses were truncated at max_new_tokens (5)",
    )
    assert Extent(0).level is False and Account().score.level is False
