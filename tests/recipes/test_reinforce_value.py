"""A value model of its own, and answers of a mixture (IPO-MD), as a recipe asks for them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors import safe_open

from truing.data.batch import Batch, Branch, Tree
from truing.policy.load import load
from truing.policy.value import put_on
from truing.recipe.check import check

HEAD = """\
title: small
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
  rm: {do: fit_reward, model: $base, data: pairs.jsonl, steps: 2}
  learn: {do: reinforce, model: $base, prompts: pairs.jsonl, rewards: [$rm], group_size: 3, steps: 3, rows_per_step: 2,
          max_new_tokens: 6, learning_rate: 1e-3, """
PPO = "objective: [ppo, {value_clipped: {weight: 0.1}}], beta: 0.05, value: $rm"


def test_ppo_forecasts_with_the_reward_model_and_leaves_a_policy_alone(desk: Any) -> None:
    """Of the first round, the forecasts on disk are the reward model's scores after every prefix, by its own file."""
    desk.write(HEAD + PPO + "}\n")
    assert desk.run() == 0, desk.said
    rows = parquet.read_table(desk.out / "learn/rollouts/round-00001.parquet").to_pylist()
    reader = load(str(desk.out / "rm/model"), "reward")
    for row in rows:
        whole, start = [*row["prompt_ids"], *row["response_ids"]], len(row["prompt_ids"])
        said = [reader.rewards(Batch((prefix(whole[:end]),))).item() for end in range(start, len(whole))]
        assert row["value_T"] == pytest.approx(said, abs=1e-5)
    later = parquet.read_table(desk.out / "learn/rollouts/round-00003.parquet").to_pylist()
    policy = load(str(desk.out / "learn/model"))
    put_on(policy, reader, Batch((prefix(whole),)))
    answer = Branch("response", tuple(later[0]["response_ids"]), (True,) * len(later[0]["response_ids"]))
    with torch.no_grad():
        now = policy.logp_and_values(Batch((Tree(tuple(later[0]["prompt_ids"]), (answer,), 0, 1),)))[1].tolist()
    assert now != pytest.approx(later[0]["value_T"], abs=1e-5), "the value model was trained"
    assert all("value_clipped" in row for row in metrics(desk))
    with safe_open(desk.out / "learn/model/model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "value_model" in name or "score" in name]  # noqa: SIM118


def metrics(desk: Any) -> list[dict[str, float]]:
    """The lines of the stage's metrics."""
    return [json.loads(line) for line in (desk.out / "learn/metrics.jsonl").read_text().splitlines()]


def prefix(ids: list[int]) -> Tree:
    """These tokens as a tree of one branch."""
    return Tree(tuple(ids[:-1]), (Branch("response", (ids[-1],), (True,)),), 0, 1)


def test_ipo_md_learns_from_answers_of_the_mixture(desk: Any) -> None:
    """In the first round policy and reference are one; later the log-probabilities kept are between the two."""
    desk.write(HEAD + "objective: {ipo: {tau: 0.1}}, mixture: 0.5, truncated_penalty: 0}\n")
    assert desk.run() == 0, desk.said
    first, last = (parquet.read_table(desk.out / f"learn/rollouts/round-0000{n}.parquet").to_pylist() for n in (1, 3))
    assert all(row["logp_T"] == pytest.approx(row["ref_logp_T"], abs=1e-4) for row in first)
    gaps = [x - y for row in last for x, y in zip(row["logp_T"], row["ref_logp_T"], strict=True)]
    assert max(map(abs, gaps)) > 1e-3 and all("margin_nats" in row for row in metrics(desk))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "objective: grpo, mixture: 0.5",
            "'mixture' samples responses from the policy and its reference together, and",
        ),
        ("objective: rwr, mixture: 0.5", "this objective takes them for the policy's own; leave it out, or learn from"),
        ("objective: grpo, value: $rm", "'value' has no effect on this objective, which reads no value estimates"),
        (PPO.replace("$rm", "[$rm, $rm]"), "'value' is one reward model, not a list of them"),
    ],
)
def test_what_says_nothing_here_is_refused(more: str, said: str, desk: Any) -> None:
    desk.write(HEAD + more + "}\n")
    assert desk.run() == 2 and said in desk.said


def test_a_language_model_is_no_value_model(desk: Any) -> None:
    desk.write(HEAD + PPO.replace("$rm", "$base") + "}\n")
    with pytest.raises(Exception, match=r"'value' must be a reward model .*, but \$base is a model"):
        check(desk.folder / "r.yaml")
