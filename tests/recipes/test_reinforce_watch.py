"""A recipe that watches held-out prompts, follows its KL and stops in time: what it leaves, what it refuses."""

import json

import pytest

LEARN = """\
title: small
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
  learn:
    do: reinforce
    model: $base
    prompts: world:prompts?n=6
    rewards: gold
    group_size: 3
    steps: 4
    rows_per_step: 2
    max_new_tokens: 5
    learning_rate: 1.0e-3
    objective: rloo
"""
WATCH = [
    "monitor: [gold, {length: {per_token: 1.0}}]",
    "monitor_prompts: world:prompts?n=4&split=eval",
    "monitor_every: 2",
]


def recipe(*more: str) -> str:
    return LEARN + "".join(f"    {line}\n" for line in more)


def test_looks_are_in_the_folder_the_metrics_and_the_summary(desk) -> None:
    desk.write(recipe(*WATCH, "patience: 1", "beta: 0.05", "kl_target: 1.0", "normalise: running", "resample: 1"))
    assert desk.run() == 0, desk.said
    folder = desk.out / "learn"
    looks = [json.loads(line) for line in (folder / "monitor.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert looks[0]["step"] == 0 and abs(looks[0]["kl"]) < 1e-3 and looks[0]["prompts"] == 4
    assert {"gold", "gold_se", "proxy", "proxy_se", "kl_se", "reward_length", "length_se"} <= set(looks[0])
    assert all(look["gold"] == look["proxy"] and look["reward_length"] == look["length"] for look in looks)
    assert rows[1]["monitor_gold"] == looks[1]["gold"] and {"beta", "resampled"} <= set(rows[0])
    notes = " ".join(json.loads((folder / "summary.json").read_text())["notes"])
    assert (
        f"monitored {len(looks)} times on 4 prompts: proxy" in notes and "the model's weights are those after" in notes
    )
    assert "monitored after update 2: proxy" in desk.said
    assert (len(rows) < 4) == ("stopped after update" in notes)
    assert not any((folder / name).exists() for name in ("best", "references", "checkpoints")), "for a resume alone"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["monitor: gold"], "'monitor' needs 'monitor_prompts'"),
        (["patience: 2"], "'patience' has no effect without 'monitor'"),
        (["monitor_every: 5"], "'monitor_every' has no effect without 'monitor'"),
        (["monitor_prompts: world:prompts?n=4"], "'monitor_prompts' has no effect without 'monitor'"),
        (
            ["monitor: gold", "monitor_prompts: world:prompts?n=1&split=eval"],
            "a mean over one monitored prompt has no error",
        ),
        (["monitor: goldd", "monitor_prompts: world:prompts?n=4"], "unknown reward 'goldd'"),
        (["beta: 0.1", "kl_horizon: 5"], "'kl_horizon' has no effect here, without kl_target"),
    ],
)
def test_what_cannot_be_watched_is_refused(more, said, desk) -> None:
    desk.write(recipe(*more))
    assert desk.run() == 2 and said in " ".join(desk.said.split()), desk.said


def test_prompts_that_are_learned_from_are_not_watched(desk) -> None:
    """Of eight watched prompts six are those of the stage: the looks are at the other two."""
    desk.write(recipe("monitor: gold", "monitor_prompts: world:prompts?n=8").replace("steps: 4", "steps: 1"))
    assert desk.run() == 0, desk.said
    looks = [json.loads(line) for line in (desk.out / "learn" / "monitor.jsonl").read_text().splitlines()]
    assert [look["prompts"] for look in looks] == [2, 2]
    notes = " ".join(json.loads((desk.out / "learn" / "summary.json").read_text())["notes"])
    assert "begins as one that was trained on" in notes


def test_a_prompt_without_room_is_counted_and_a_reward_model_has_its_own_tokens(desk, monkeypatch) -> None:
    """The one that fills the context is left out; a reward model of another tokenizer reads the answers as text."""
    monkeypatch.chdir(desk.folder)
    rows = [{"prompt": f"question {i}" + " and so on" * (500 if i == 2 else 0)} for i in range(6)]
    (desk.folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = (
        "  other:\n    do: fit_reward\n    model: {new: llama, hidden: 64, layers: 1, vocab: 280, text: pairs.jsonl}\n"
    )
    other += "    data: pairs.jsonl\n    steps: 1\n"
    text = recipe().replace("stages:\n", "stages:\n" + other).replace("world:prompts?n=6", "asked.jsonl")
    desk.write(text.replace("rewards: gold", "rewards: $other").replace("steps: 4", "steps: 2"))
    assert desk.run() == 0, desk.said
    summary = json.loads((desk.out / "learn" / "summary.json").read_text())
    assert "leaves no room for a response within" in " ".join(summary["notes"]), summary["notes"]
    metrics = [json.loads(line) for line in (desk.out / "learn" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2 and all("reward_other" in row for row in metrics)
