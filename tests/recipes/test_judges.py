"""A judge that errs, from outside: it is tried first, and its accuracy enters what is concluded and decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truing.errors import RecipeError
from truing.recipe.check import check

MINE = """
from truing.registry import reward

@reward(scope="response")
def e(response: str) -> float:
    return float(response.count("e"))

@reward(scope="response")
def bad(response: str) -> float:
    return float("bad" in response)
"""
"""Two rewards: `e` likes what has many of these letters, `bad` what is bad."""

HEAD = """\
base: {new: llama, hidden: 32, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
  warm: {do: sft, model: $base, data: pairs.jsonl, steps: 6, rows_per_step: 8, learning_rate: 1e-2}
"""
EXAM = """\
  exam: {do: evaluate, models: [$warm], against: $base, prompts: asked.jsonl, samples: 80, max_new_tokens: 8, MORE}
  release: {do: gate, evidence: $exam, rules: rules.yaml}
"""


def rows(count: int, wrong: int, word: str = "question") -> str:
    """Pairs of which `e` orders all but so many as they are labelled."""
    said = []
    for i in range(count):
        sides = ["see", "no"] if i >= wrong else ["no", "see"]
        said.append(json.dumps({"prompt": f"{word} {i}", "chosen": sides[0], "rejected": sides[1]}))
    return "\n".join(said) + "\n"


@pytest.fixture
def judged(desk: Any) -> Any:
    """A folder with pairs to learn from, pairs to try a judge on, prompts to answer, and rules."""
    files = {
        "labelled.jsonl": rows(100, 20, "labelled"),
        "others.jsonl": rows(100, 30, "other"),
        "asked.jsonl": "".join(json.dumps({"prompt": f"asked {i}"}) + "\n" for i in range(80)),
        "rules.yaml": "rules: [{check: win_rate, model: warm, end: lower, min: 0.0}]\n",
        "mine.py": MINE,
    }
    for name, text in files.items():
        (desk.folder / name).write_text(text)
    return desk


def found(desk: Any, model: str = "warm") -> dict[str, Any]:
    """The findings of a model and of judges, by check; several of one check by check and slice."""
    return {
        f["check"] + (f" {f['slice']}" if f["slice"] != "all" else ""): f
        for f in desk.read("exam/findings.json")["findings"]
        if f["model"] in (model, "e", "bad", "rm")
    }


def examine(desk: Any, more: str, before: str = "") -> dict[str, Any]:
    """Run the exam with these options; the findings by check."""
    desk.write(HEAD + before + EXAM.replace("MORE", more))
    desk.code = desk.run()
    assert desk.code in (0, 1, 4), desk.said
    return found(desk)


def test_the_win_rate_of_a_judge_that_errs_is_corrected(judged: Any) -> None:
    """The judge is right of 80 of 100 labelled pairs: (w + a - 1) / (2a - 1), and the report begins with it."""
    said = examine(judged, "judge: mine.py:e, labelled: labelled.jsonl")
    accuracy, raw, rate = said["judge_accuracy"], said["judged_win_rate"], said["win_rate"]
    assert (accuracy["value"], accuracy["n"], accuracy["model"]) == (0.8, 100, "e")
    assert rate["value"] == pytest.approx((raw["value"] - 0.2) / 0.6) and rate["reservation"] == ""
    assert raw["value"] not in (0, 0.5, 1) and rate["interval"][0] < rate["value"] < rate["interval"][1]
    first = "Judged by reward e, right in 0.800 [0.708, 0.873] of labelled pairs from 100 prompts (labelled.jsonl, "
    assert first in judged.said and first in judged.read("exam/summary.json")["judged"][0]
    page = judged.page()
    assert page.index(first) < page.index("Results") < page.index("judged win rate")


def test_a_judge_below_the_bound_decides_nothing(judged: Any) -> None:
    """The rule asks for next to nothing, and is undecided; with a lower bound the same judge is believed."""
    (judged.folder / "weak.jsonl").write_text(rows(100, 38))
    options = "judge: mine.py:e, labelled: weak.jsonl"
    said = examine(judged, options)
    why = "the judge's accuracy 0.620 [0.517, 0.715] is below 0.6 at its lower end: it decides nothing"
    assert judged.code == 4
    for name in ("win_rate", "win_delta", "judged_win_rate", "mean_score", "mean_score_delta"):
        assert said[name]["reservation"] == why, name
    assert said["win_rate"]["interval"] is None and "kl_to_reference" in said
    assert not any(said[name]["reservation"] for name in ("kl_to_reference", "truncated_share", "judge_accuracy"))
    assert f"nothing is concluded of warm over base: {why}" in judged.said
    assert "Nothing is concluded of warm and base: the judge" in judged.page() and "decides nothing" in judged.page()
    assert "below 0.6" not in str(examine(judged, options + ", least_accuracy: 0.5"))


def test_a_judge_never_tried_decides_nothing_and_the_way_out_is_said(judged: Any) -> None:
    said = examine(judged, "judge: mine.py:e")
    assert judged.code == 4 and "judge_accuracy" not in said
    assert said["win_rate"]["reservation"] == (
        "the judge was never tried on labelled pairs: give labelled: (pairs that it did not learn from), or exact: true "
        "where it cannot err"
    )
    sure = examine(judged, "judge: mine.py:e, exact: true")
    assert sure["win_rate"]["value"] == said["win_rate"]["value"] and sure["win_rate"]["interval"]
    assert "judged_win_rate" not in sure and sure["win_rate"]["reservation"] == ""


def test_single_answers_by_a_judge_that_errs_decide_nothing(judged: Any) -> None:
    said = examine(judged, "judge: mine.py:e, labelled: labelled.jsonl, passing: 1.0, samples_per_prompt: 2")
    assert (
        "single responses" in said["pass_at_1"]["reservation"]
        and "single responses" in said["pass_at_2_delta"]["reservation"]
    )
    sure = examine(judged, "judge: mine.py:e, exact: true, passing: 1.0, samples_per_prompt: 2")
    assert sure["pass_at_1"]["reservation"] == ""


def test_the_worst_of_several_sources_counts(judged: Any) -> None:
    """The stage's own data are a source too."""
    said = examine(judged, "judge: mine.py:e, labelled: labelled.jsonl, data: others.jsonl")
    values = [said[f"judge_accuracy {name}"]["value"] for name in ("labelled.jsonl", "others.jsonl")]
    assert values == [0.8, 0.7]
    assert "right in 0.700 [0.600, 0.788]" in judged.said and "its worst source" in judged.said


def test_a_reward_model_is_tried_on_what_it_did_not_learn_from(judged: Any) -> None:
    """It learned from half of the labelled rows: they are left out. From all of them: nothing is left, and said."""
    learned = rows(60, 0, "labelled")
    (judged.folder / "learned.jsonl").write_text(learned)
    rm = "  rm: {do: fit_reward, model: $warm, data: learned.jsonl, steps: 30, rows_per_step: 8, learning_rate: 3e-2}\n"
    said = examine(judged, "judge: $rm, labelled: labelled.jsonl", rm)
    assert said["judge_accuracy"]["n"] == 40
    assert "60 of 100 labelled rows of labelled.jsonl left out: the judge learned from them" in judged.said
    assert "of another source than the judge learned from" in said["judge_accuracy"]["evidence"]
    assert said["judge_accuracy"]["value"] > 0.9, "these 40 rows are all labelled as it learned"
    judged.write(HEAD + rm + EXAM.replace("MORE", "judge: $rm, labelled: learned.jsonl"))
    assert judged.run() == 2 and "nothing is held out: the first user turn of each of its 60 rows" in judged.said
    own = examine(judged, "judge: $rm, data: learned.jsonl", rm)
    assert "nothing is held out" in own["win_rate"]["reservation"]


def test_a_judge_that_taught_the_policy_is_named(judged: Any) -> None:
    """As the reward of a stage, by the pairs it labelled, and where it chose the best answer."""
    policy = (
        "  rm: {do: fit_reward, model: $warm, data: pairs.jsonl, steps: 2, rows_per_step: 8}\n"
        "  answers: {do: sample, model: $warm, prompts: asked.jsonl, samples_per_prompt: 4, max_new_tokens: 6}\n"
        "  chosen: {do: judge, data: $answers, rewards: [$rm], truncated: keep}\n"
        "  off: {do: prefer, model: $warm, data: $chosen, steps: 1, rows_per_step: 4}\n"
        "  rl: {do: reinforce, model: $warm, prompts: asked.jsonl, rewards: [$rm], steps: 1, rows_per_step: 2, group_size: 2,\n"
        "       max_new_tokens: 6}\n"
    )
    exam = EXAM.replace("asked", "fresh").replace("[$warm]", "[$off, $rl, $warm]").replace("rules.yaml", "lax.yaml")
    fresh = (judged.folder / "asked.jsonl").read_text().replace("asked", "fresh")
    (judged.folder / "fresh.jsonl").write_text(fresh)
    judged.write(HEAD + policy + exam.replace("MORE", "judge: $rm, labelled: labelled.jsonl, best_of: 2, best_by: $rm"))
    assert judged.run() in (0, 4), judged.said
    told = judged.read("exam/summary.json")["judged"]
    assert [line.split(" was trained on")[0] for line in told[1:3]] == [
        "The judge is the reward that off",
        "The judge is the reward that rl",
    ]
    assert told[3].startswith("The judge also chose the best of several responses") and len(told) == 4


def test_every_head_of_a_judge_is_tried(judged: Any) -> None:
    """A head that says something else than the labels do decides nothing, though the reward model is believed."""
    made = [
        {"prompt": f"q {i}", "response": r, "scores": {"kind": float(r == "see"), "calm": float(r == "no")}}
        for i in range(40)
        for r in ("see", "no")
    ]
    (judged.folder / "ratings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    rm = (
        "  rm: {do: fit_reward, model: $warm, data: ratings.jsonl, objective: [{regression: {head: kind}}, "
        "{regression: {head: calm}}], head_weights: {kind: 1.0, calm: 0.0}, steps: 60, rows_per_step: 8, "
        "learning_rate: 2e-2}\n"
    )
    said = examine(judged, "judge: $rm, labelled: labelled.jsonl", rm)
    assert said["judge_accuracy"]["value"] == said["judge_accuracy kind"]["value"] == 0.8
    assert "below 0.6" in said["win_rate calm"]["reservation"]
    assert "below 0.6" not in said["win_rate kind"]["reservation"] and "judged_win_rate kind" in said


def test_a_better_judge_of_a_part(judged: Any) -> None:
    """The weak judge is never tried; the world's truth sees thirty of sixty prompts."""
    text = HEAD.replace("text: pairs.jsonl", "text: 'world:demonstrations?n=40'").replace(
        "data: pairs.jsonl", "data: 'world:demonstrations?n=40'"
    )
    exam = EXAM.replace("asked.jsonl", "'world:prompts?n=60&split=eval'")
    judged.write(text + exam.replace("MORE", "judge: mine.py:e, trusted: gold, trusted_samples: 30"))
    assert judged.run() in (0, 4), judged.said
    said = found(judged)
    assert said["win_rate"]["evidence"].startswith(
        "by gold on 30 of the prompts and the judge on all (prediction-powered"
    )
    assert said["win_rate"]["interval"] and said["win_rate"]["reservation"] == ""
    told = judged.read("exam/summary.json")["judged"]
    assert told[1:] == ["On a part of the prompts: Judged by gold, which is taken to make no errors"]
    assert (
        "never tried" in said["judged_win_rate"]["reservation"] and "never tried" in said["mean_score"]["reservation"]
    )
    judged.write(text + exam.replace("MORE", "judge: gold, lookup: true"))
    assert judged.run() in (0, 4), judged.said
    assert "Judged by gold, which is taken to make no errors" in judged.page()


def test_names_of_sources_are_escaped(judged: Any) -> None:
    bold = judged.folder / "<b>pairs.jsonl"
    bold.write_text(rows(100, 20, "labelled"))
    examine(judged, "judge: mine.py:e, labelled: '<b>pairs.jsonl'")
    assert "&lt;b&gt;pairs.jsonl, " in judged.page() and "<b>pairs" not in judged.page()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("judge: gold, labelled: world:comparisons", "'labelled' has no effect where judge is gold"),
        ("exact: true", "'exact' has no effect where judge is gold"),
        (
            "judge: $rm, exact: true, labelled: world:comparisons",
            "has no effect where 'exact' declares that the judge makes no",
        ),
        ("judge: $rm, trusted_samples: 9", "'trusted_samples' has no effect without 'trusted'"),
        ("judge: $rm, trusted: $rm", "'trusted' is the judge itself"),
        ("judge: $rm, least_accuracy: 1.5", "least_accuracy must be a number from 0 to 1"),
        ("judge: $rm, labelled: nowhere.jsonl", "labelled: "),
    ],
)
def test_what_says_nothing_of_a_judge_is_refused(options: str, message: str) -> None:
    text = (
        "base: world:desk/tiny\nstages:\n  rm: {do: fit_reward, model: $base, data: world:comparisons}\n"
        "  exam: {do: evaluate, models: [$base], against: world:desk/small, prompts: 'world:prompts?split=eval', "
    )
    with pytest.raises(RecipeError) as refused:
        check(text + options + "}\n")
    assert message in str(refused.value)
    assert len(refused.value.mistakes) == 1


def test_the_truth_of_the_world_is_trusted_with_its_own_prompts_alone(tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('{"prompt": "a"}\n')
    text = (
        "base: world:desk/tiny\nstages:\n  rm: {do: fit_reward, model: $base, data: world:comparisons}\n"
        "  exam: {do: evaluate, models: [$base], against: world:desk/small, prompts: asked.jsonl, judge: $rm, trusted: gold}\n"
    )
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match="trusted is gold, which knows the truth of prompts of the world only"):
        check(tmp_path / "r.yaml")
