"""The `rewards` of a recipe: what is checked before anything runs, and what a run with several of them leaves."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as parquet
import pytest

from truing.errors import RecipeError
from truing.recipe.check import check
from truing.recipe.references import Ref

MINE = """\
from truing.registry import Model, reward

@reward(scope="response")
def polite(response, tone, *, at_least: float = 0.0):
    \"\"\"How polite it is.\"\"\"
    if "e" in response:
        raise ValueError("an e")
    return at_least + len(response)

@reward(scope="response")
def modelled(response, *, model: Model):
    return float(model is None)

@reward(scope="response")
def owned(response, *, timeout_score: float = 3.0, weight: float = 1.0):
    return timeout_score + weight

@reward(scope="response")
def hanging(response):
    while len(response) % 4 == 0:
        pass
    return 1.0

def accuracy(completions, tone, **kwargs):
    return [float(len(c[0]["content"]) % 2) for c in completions]
"""
HEAD = """\
title: small
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
"""
RM = "  rm: {do: fit_reward, model: $base, data: pairs.jsonl, steps: 2}\n"
LEARN = (
    "  learn: {{do: reinforce, model: $base, prompts: {prompts}, rewards: {rewards}, group_size: 4, steps: 2, "
    "rows_per_step: 2, max_new_tokens: 6{more}}}\n"
)


def recipe(rewards: str, more: str = "", prompts: str = "asked.jsonl") -> str:
    return HEAD + RM + LEARN.format(rewards=rewards, more=more, prompts=prompts)


@pytest.fixture
def asked(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The small recipe's folder with prompts that have a column, and a file of rewards."""
    rows = [{"prompt": f"question {i}", "tone": "warm", "answer": i} for i in range(8)]
    (desk.folder / "asked.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (desk.folder / "mine.py").write_text(MINE)
    monkeypatch.chdir(desk.folder)
    return desk


MISTAKES = {
    "golds": "unknown reward 'golds'. Did you mean 'gold'?",
    "rm": r"unknown reward 'rm'\..* Did you mean '\$rm'\?",
    "[]": "rewards is an empty list",
    "[gold]": r"the reward is gold, which knows the truth of prompts of the world only, and these come from '.*asked.jsonl'",
    "[{length: {per_tokens: 1}}]": "reward 'length': unknown option 'per_tokens'. Did you mean 'per_token'",
    "[{length: {per_token: much}}]": "reward 'length': per_token must be a number, got 'much'",
    "[{length: {weight: yes, per_token: 1}}]": "reward 'length': weight must be a number",
    "[{regex: {}}]": "reward 'regex' needs 'pattern'",
    "[{length: 3}]": "the options of 'length' are a mapping such as {weight: 0.5}, not 3",
    "[{length: {}, regex: {}}]": "a reward is a name, .* or one name with its options",
    "[{verifier: {answer: numbers}}]": "reward 'verifier': answer must be one of number, math, text, got 'numbers'",
    "[$warm]": r"there is no stage '\$warm' before this one",
    "[$base]": r"'rewards' must be a reward model .*, but \$base is a model",
    "[{density_ratio: {safe: $rm, unsafe: $base}}]": r"'safe' must be a model .*, but \$rm is a reward model",
    "[{density_ratio: {safe: $base}}]": "reward 'density_ratio' needs 'unsafe'",
    "[length, {cost: {budget: 1}}]": "a cost needs the reward that it is of: {cost: {of: ",
    "[length, {cost: {of: $rm}}]": "a cost needs its budget",
    "[length, {cost: {of: $rm, budget: 1, rate: 0}}]": "cost: rate must be a number above 0",
    "[{cost: {of: $rm, budget: 1}}]": "rewards are all costs: name one that is to grow",
    "[length, {regex: {pattern: a, tie_tolerance: 0.1}}]": "'tie_tolerance' has no effect without 'combine: lexicographic'",
    "[{length: {timeout_score: low, per_token: 1}}]": "reward 'length': timeout_score must be a number",
    "[{$rm: {timeout_score: 0}}]": "unknown option 'timeout_score'",
    "[{mine.py:accuracy: {timeout_score: 0}}]": "'timeout_score' is for a function that reads one response at a time",
    "[{program: {timeout_score: 0}}]": "'timeout_score' is not for programs, which have a limit of their own",
    "[{mine.py:modelled: {model: $base, timeout_score: 0}}]": "'timeout_score' is for a function that reads no model",
    "[mine.py:rude]": "mine.py:rude: unknown reward 'rude'",
    "[{mine.py:polite: {at_last: 1}}]": "reward 'mine.py:polite': unknown option 'at_last'. Did you mean 'at_least'",
}


@pytest.mark.parametrize("rewards", MISTAKES)
def test_mistakes_are_said_before_anything_runs(rewards: str, asked: Any) -> None:
    asked.write(recipe(rewards))
    with pytest.raises(RecipeError, match=MISTAKES[rewards]) as found:
        check(asked.folder / "r.yaml")
    assert len(found.value.mistakes) == 1, "what one mistake hides is no mistake of its own"


def test_the_old_name_is_told_the_new_one(asked: Any) -> None:
    asked.write(recipe("[length]").replace("rewards:", "reward:"))
    with pytest.raises(RecipeError, match=r"unknown option 'reward'. Did you mean 'rewards'\?"):
        check(asked.folder / "r.yaml")


def test_a_checked_reward_is_plain_data(asked: Any) -> None:
    rewards = (
        "[$rm, {$rm: {weight: 0.5}}, {cost: {of: {mine.py:polite: {at_least: 1}}, budget: 2}}, regex: {pattern: a}]"
    )
    asked.write(recipe(rewards))
    options = check(asked.folder / "r.yaml").stage("learn").options
    model = {"model": Ref("reward", "rm")}
    mine = f"{asked.folder.resolve()}/mine.py:polite"
    assert options["rewards"] == [
        {"reward_model": model},
        {"reward_model": {**model, "weight": 0.5}},
        {"cost": {"of": {mine: {"at_least": 1.0}}, "budget": 2.0}},
        {"regex": {"pattern": "a"}},
    ]


def test_several_rewards_and_a_cost_from_recipe_to_metrics(asked: Any) -> None:
    """A reward model, a user's own that fails on some answers, TRL's, a density ratio and a cost; dropped and counted."""
    rewards = (
        "[$rm, {mine.py:polite: {weight: 0.1}}, mine.py:accuracy, {density_ratio: {safe: $base, unsafe: $base}}, "
        "{verifier: {wrong: -1}}, {ensemble: {models: [$rm, $rm2], how: worst}}, {cost: {of: {length: {per_token: 1}}, budget: 2}}]"
    )
    rm2 = RM.replace("rm:", "rm2:").replace("steps: 2", "steps: 3, seed: 5")
    asked.write(recipe(rewards, ", on_error: drop").replace(RM, RM + rm2))
    assert asked.run() == 0, asked.said
    rows = [json.loads(line) for line in (asked.out / "learn/metrics.jsonl").read_text().splitlines()]
    kept = [
        r for n in (1, 2) for r in parquet.read_table(asked.out / f"learn/rollouts/round-{n:05d}.parquet").to_pylist()
    ]
    failed = [r for r in kept if r["why"]]
    assert failed and all("reward 'polite': ValueError: an e" in r["why"] for r in failed)
    assert sum(row["failed"] for row in rows) == len(failed) < len(kept) == 16
    parts = [dict(r["parts"]) for r in kept if not r["why"]]
    names = ["rm", "polite", "accuracy", "density_ratio", "verifier", "ensemble", "length", "multiplier:length"]
    assert [name for name in parts[0] if not name.startswith("unread:")] == names
    assert {"reward_rm", "reward_length", "multiplier_length"} <= set(rows[0])
    for r, p in zip([r for r in kept if not r["why"]], parts, strict=True):
        whole = p["rm"] + 0.1 * p["polite"] + p["accuracy"] + p["density_ratio"] + p["verifier"] + p["ensemble"]
        multiplier = p["multiplier:length"]
        assert r["score"] == pytest.approx((whole - multiplier * p["length"]) / (1 + multiplier))
        assert p["length"] == len(r["response_ids"]) and abs(p["density_ratio"]) < 1e-5 and p["verifier"] == -1
    notes = asked.read("learn/summary.json")["notes"]
    assert any(
        f"{len(failed)} of 16 responses could not be scored and were left out; the first: reward" in n for n in notes
    )


def test_answers_that_a_reward_hangs_on_are_worth_the_least_and_are_counted(asked: Any) -> None:
    asked.write(recipe("[{mine.py:hanging: {timeout_score: -2}}]", ", time_limit: 1").replace(RM, ""))
    assert asked.run() == 0, asked.said
    rows = [json.loads(line) for line in (asked.out / "learn/metrics.jsonl").read_text().splitlines()]
    kept = [
        r for n in (1, 2) for r in parquet.read_table(asked.out / f"learn/rollouts/round-{n:05d}.parquet").to_pylist()
    ]
    hung = [r for r in kept if len(r["response"]) % 4 == 0]
    assert 0 < len(hung) < len(kept)
    assert [r["score"] for r in kept] == [-2.0 if r in hung else 1.0 for r in kept]
    assert sum(row.get("timed_out_hanging", 0) for row in rows) == len(hung)
    assert all(dict(r["parts"]).get("timed_out:hanging") == 1 for r in hung)
    assert not any(row["failed"] for row in rows)


def test_options_of_a_functions_own_go_before_those_that_all_share(asked: Any) -> None:
    asked.write(recipe("[{mine.py:owned: {timeout_score: 5, weight: 2}}]").replace(RM, ""))
    assert asked.run() == 0, asked.said
    kept = parquet.read_table(asked.out / "learn/rollouts/round-00001.parquet").to_pylist()
    assert {r["score"] for r in kept} == {7.0} and {name for r in kept for name, _ in r["parts"]} == {"owned"}


def test_a_reward_that_fails_stops_the_run_and_is_named(asked: Any) -> None:
    asked.write(recipe("[{mine.py:polite: {}}]", ", max_length: 512").replace(RM, ""))
    assert asked.run() == 3 and "reward 'polite': ValueError: an e. The response was:" in asked.said
    (asked.folder / "mine.py").write_text(MINE.replace("tone,", "mood,"))
    assert asked.run("--restart") == 2
    assert "reward 'polite' reads the column 'mood', which row 1 of the prompts does not have" in asked.said
    assert "columns beside the prompt: tone, answer" in asked.said


def test_a_changed_reward_is_another_stage(asked: Any) -> None:
    """Its file is part of what the stage depends on, as a plugged-in objective is."""
    from truing.run.plan import plan

    asked.write(recipe("[$rm, {cost: {of: mine.py:polite, budget: 1}}]"))
    keys = [plan(check(asked.folder / "r.yaml"), asked.out)[-1].key]
    (asked.folder / "mine.py").write_text(MINE + "\n# another\n")
    keys.append(plan(check(asked.folder / "r.yaml"), asked.out)[-1].key)
    assert keys[0] != keys[1]


def test_rewards_are_listed_and_shown(asked: Any) -> None:
    assert asked("list", "rewards", "--from", "mine.py") == 0
    for name in ("gold", "verifier", "density_ratio", "mine.py:polite", "mine.py:accuracy"):
        assert f"  {name} " in asked.said
    assert asked("show", "reward", "verifier") == 0 and "needs:  response, row" in asked.said
    assert "answer  Literal['number', 'math', 'text']  default number" in asked.said
