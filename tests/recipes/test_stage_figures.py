"""A stage's figures are what they are called: held out where anything was, else means over the last tenth of its
updates, named so; instances of a figure that promises more than it is. Every mean is computed here again from the
metrics file, by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow.parquet as parquet
import pytest

from truing.evaluate.intervals import mean_interval

HEAD = """\
title: small
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
"""
SPLIT = "  data: {do: split, data: pairs.jsonl, eval: 0.2}\n"
LEARN = (
    "  learn: {do: reinforce, model: $base, prompts: asked.jsonl, rewards: REWARDS, group_size: 4, "
    "rows_per_step: 2, max_new_tokens: 5, learning_rate: 1.0e-3MORE}\n"
)
MINE = """\
def sometimes(completions, tone, **kwargs):
    return [float(i) if tone[i] == "warm" else None for i in range(len(completions))]
"""


def metrics(desk: Any, stage: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (desk.out / stage / "metrics.jsonl").read_text().splitlines()]


def pooled(rows: list[dict[str, float]], name: str, column: str) -> float:
    own = [row for row in rows if name in row]
    return math.fsum(row[name] * row[column] for row in own) / math.fsum(row[column] for row in own)


def shown(desk: Any, stage: str) -> dict[str, Any]:
    return {f["name"]: f["value"] for f in desk.read(f"{stage}/summary.json")["figures"]}


def card(desk: Any, stage: str) -> str:
    return (desk.out / stage / "model" / "README.md").read_text(encoding="utf-8")


def test_a_reward_models_figure_is_its_held_out_accuracy(desk: Any) -> None:
    """First in summary, card, terminal and report; the accuracy of training stands under what it is, nowhere alone."""
    options = "steps: 25, rows_per_step: 3}"
    desk.write(HEAD + SPLIT + "  rm: {do: fit_reward, model: $base, data: $data.train, eval: $data.eval, " + options)
    assert desk.run() == 0, desk.said
    (finding,) = desk.read("rm/findings.json")["findings"]
    summary, rows = desk.read("rm/summary.json"), metrics(desk, "rm")
    first = summary["figures"][0]
    assert (first["name"], first["value"]) == ("held-out accuracy", finding["value"])
    assert first["interval"] == finding["interval"] and finding["n"] == 12
    assert summary["held_out"] == {"held_out_accuracy": {k: finding[k] for k in ("value", "interval", "n")}}
    assert summary["headline"].startswith("held-out accuracy")
    assert summary["last_tenth"]["steps"] == [24, 25] and summary["last_tenth"]["of"] == 25
    mean = pooled(rows[-2:], "accuracy", "rows")
    assert summary["last_tenth"]["means"]["accuracy"] == mean
    name = "accuracy, mean of the last 2 of 25 steps"
    assert shown(desk, "rm")[name] == mean and "accuracy" not in shown(desk, "rm")
    page, text = desk.page(), card(desk, "rm")
    assert f"| {name} | {mean:.4g} |" in text and "| accuracy |" not in text
    assert "| held out accuracy | rm |" in text and text.index("held out accuracy") < text.index(name)
    assert desk.said.index("held-out accuracy") < desk.said.index("mean of the last 2 of 25 steps: loss")
    assert name in page and page.index("held-out accuracy") < page.index(name)
    assert "  step 25/25  " in desk.said and "step 25/25  loss" not in desk.said


def test_a_loss_per_token_is_weighed_by_the_tokens_that_are_learned(desk: Any) -> None:
    """Responses of very different lengths, a row a step; no accuracy is made up for a stage that has none."""
    pairs = [{"prompt": f"question {i}", "response": "so it is " * (1 + 9 * (i % 2))} for i in range(20)]
    (desk.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    desk.write(HEAD + "  warm: {do: sft, model: $base, data: pairs.jsonl, steps: 30, rows_per_step: 1}\n")
    assert desk.run() == 0, desk.said
    rows, summary = metrics(desk, "warm"), desk.read("warm/summary.json")
    last = rows[-3:]
    assert len({row["learned_tokens"] for row in last}) == 2, "lengths differ"
    mean = pooled(last, "loss", "learned_tokens")
    assert summary["last_tenth"]["means"]["loss"] == mean != pytest.approx(pooled(last, "loss", "rows"), abs=1e-6)
    assert shown(desk, "warm")["loss, mean of the last 3 of 30 steps"] == mean
    assert shown(desk, "warm")["data tokens learned from, repeats counted"] == sum(row["tokens"] for row in rows)
    assert summary["held_out"] == {} and f"mean of the last 3 of 30 steps: loss {mean:.4g}" in desk.said
    assert "| loss, mean of the last 3 of 30 steps |" in card(desk, "warm")


def test_terms_of_an_objective_are_each_weighed_by_their_own_count(desk: Any) -> None:
    terms = "objective: [{dpo: {beta: 1.0}}, {nll: {weight: 0.5}}]"
    rows = [{"prompt": f"q {i}", "chosen": "good " * (1 + i), "rejected": f"bad {i}"} for i in range(30)]
    (desk.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    desk.write(
        HEAD + f"  direct: {{do: prefer, model: $base, data: pairs.jsonl, {terms}, steps: 21, rows_per_step: 2}}"
    )
    assert desk.run() == 0, desk.said
    last, means = metrics(desk, "direct")[-2:], desk.read("direct/summary.json")["last_tenth"]["means"]
    assert means["dpo"] == pooled(last, "dpo", "rows") and means["nll"] == pooled(last, "nll", "learned_tokens")
    assert means["loss"] == pytest.approx(means["dpo"] + 0.5 * means["nll"], rel=1e-12)
    assert means["margin_nats"] == pooled(last, "margin_nats", "rows")


def test_a_resumed_stage_has_the_figures_of_an_unbroken_one(desk: Any, dies: Any) -> None:
    """All but times; the interruption lies within the last tenth."""
    options = "steps: 20, rows_per_step: 3, checkpoint_every: 1}"
    desk.write(HEAD + SPLIT + "  rm: {do: fit_reward, model: $base, data: $data.train, eval: $data.eval, " + options)
    whole, desk.out = desk.out, desk.folder / "broken"
    dies(20, KeyboardInterrupt())
    assert desk.run() == 130 and desk.run("--resume") == 0, desk.said
    broken, desk.out = desk.read("rm/summary.json"), whole
    assert desk.run() == 0
    unbroken = desk.read("rm/summary.json")
    for name in ("held_out", "last_tenth", "headline"):
        assert json.dumps(broken[name]) == json.dumps(unbroken[name]), name
    assert broken["whole_stage"] | {"seconds": 0} == unbroken["whole_stage"] | {"seconds": 0}
    timed = ("data tokens a second", "time in the loop")
    assert [f for f in broken["figures"] if f["name"] not in timed] == [
        f for f in unbroken["figures"] if f["name"] not in timed
    ]


@pytest.mark.parametrize(("steps", "word"), [(1, "the only step"), (7, "the last of 7 steps")])
def test_a_short_stage_says_that_its_figure_is_of_one_step(steps: int, word: str, desk: Any) -> None:
    desk.write(HEAD + f"  rm: {{do: fit_reward, model: $base, data: pairs.jsonl, steps: {steps}}}")
    assert desk.run() == 0, desk.said
    assert shown(desk, "rm")[f"accuracy, {word}"] == metrics(desk, "rm")[-1]["accuracy"]
    assert f"{word}: loss" in desk.said and f"| accuracy, {word} |" in card(desk, "rm")
    assert not {"accuracy", "loss"} & set(shown(desk, "rm"))


@pytest.fixture
def asked(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prompts with a column and a right answer each, and a reward that is silent on some."""
    rows = [{"prompt": f"asked {i}", "answer": str(i), "tone": "warm" if i % 3 else "cold"} for i in range(9)]
    (desk.folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (desk.folder / "mine.py").write_text(MINE)
    monkeypatch.chdir(desk.folder)
    return desk


def test_counts_of_rounds_are_summed_over_the_stage_and_means_are_over_what_was_scored(asked: Any) -> None:
    """A round that is learned from four times is counted once; a reward that is silent on some answers is a mean over
    the others of all rounds."""
    rewards = "[{verifier: {answer: number, wrong: -1}}, {length: {per_token: 0.01}}, 'mine.py:sometimes']"
    asked.write(
        HEAD + LEARN.replace("REWARDS", rewards).replace("MORE", ", minibatches: 2, epochs_per_round: 2, steps: 24")
    )
    assert asked.run() == 0, asked.said
    rows, summary = metrics(asked, "learn"), asked.read("learn/summary.json")
    files = sorted((asked.out / "learn/rollouts").glob("round-*.parquet"))
    parts = [dict(row["parts"]) for file in files for row in parquet.read_table(file).to_pylist()]
    unread = sum("unread:verifier" in row for row in parts)
    assert summary["whole_stage"]["responses"] == len(parts) == 6 * 4 * 4
    assert summary["whole_stage"]["unread_verifier"] == unread > max(row["unread_verifier"] for row in rows)
    assert shown(asked, "learn")["unread verifier, in the whole stage"] == unread
    means, last = summary["last_tenth"]["means"], rows[-2:]
    assert summary["last_tenth"]["steps"] == [23, 24]
    for name in ("score", "score_deviation", "length", "truncated", "reward_verifier"):
        assert means[name] == pytest.approx(pooled(last, name, "responses"), abs=1e-12), name
    assert {"unread_verifier", "failed", "responses", "learning_rate"}.isdisjoint(means)
    assert shown(asked, "learn")["score, mean of the last 2 of 24 steps"] == means["score"]
    assert "mean of the last 2 of 24 steps: score " in asked.said and "loss" not in asked.said


def test_a_reward_that_is_silent_on_some_answers_is_a_mean_over_the_others(asked: Any) -> None:
    rewards = "[{length: {per_token: 0.01}}, 'mine.py:sometimes']"
    asked.write(HEAD + LEARN.replace("REWARDS", rewards).replace("MORE", ", steps: 30"))
    assert asked.run() == 0, asked.said
    files = sorted((asked.out / "learn/rollouts").glob("round-*.parquet"))[-3:]
    own = [dict(row["parts"]) for file in files for row in parquet.read_table(file).to_pylist()]
    values = [parts["sometimes"] for parts in own if "sometimes" in parts]
    assert 0 < len(values) < len(own), "it said nothing of some"
    means = asked.read("learn/summary.json")["last_tenth"]["means"]
    assert means["reward_sometimes"] == pytest.approx(sum(values) / len(values), abs=1e-12)


WATCH = ", monitor: [{length: {per_token: PER}}], monitor_prompts: held.jsonl, monitor_every: 2, steps: 24PATIENCE"


def watched(desk: Any, per: float, patience: str, rate: str = "3.0e-2") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    held = [{"prompt": f"held out number {i}", "answer": "1", "tone": "warm"} for i in range(12)]
    (desk.folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    more = WATCH.replace("PER", str(per)).replace("PATIENCE", patience)
    text = LEARN.replace("REWARDS", "[{length: {per_token: -1.0}}]").replace("MORE", more)
    desk.write(HEAD + text.replace("1.0e-3", rate).replace("max_new_tokens: 5", "max_new_tokens: 12"))
    assert desk.run() == 0, desk.said
    looks = [json.loads(line) for line in (desk.out / "learn" / "monitor.jsonl").read_text().splitlines()]
    return looks, desk.read("learn/summary.json")


def test_the_last_look_is_held_out_and_stands_first(asked: Any) -> None:
    looks, summary = watched(asked, -1.0, "", "1.0e-3")
    assert summary["held_out"]["monitor_reward_length"]["value"] == looks[-1]["reward_length"]
    first = summary["figures"][0]
    assert first["name"] == "held-out reward length, after update 24" and first["value"] == looks[-1]["reward_length"]
    assert summary["held_out"]["monitor_kl"]["interval"] == pytest.approx(mean_interval(looks[-1]["each"]["kl"]))
    assert "best_checkpoint" not in summary and summary["last_tenth"]["steps"] == [23, 24]
    assert "  after update 24: held-out reward length " in asked.said
    assert "| held-out reward length, after update 24 |" in card(asked, "learn")


def test_where_the_best_looks_weights_are_kept_the_figures_are_of_them(asked: Any) -> None:
    """Learned to be short and watched for length: the first look is the best, and no update led to it."""
    looks, summary = watched(asked, 1.0, ", patience: 2")
    best = max(looks, key=lambda look: look["reward_length"])
    assert (
        summary["best_checkpoint"] == {"step": 0, "evaluations": len(looks), "metric": "reward_length"}
        and best["step"] == 0
    )
    assert len(metrics(asked, "learn")) == 4, "learned on until patience ran out"
    found = summary["held_out"]["monitor_reward_length"]
    assert (found["value"], found["interval"], found["best_of"]) == (looks[0]["reward_length"], None, len(looks))
    assert (
        summary["figures"][0]["name"]
        == f"monitored reward length, after update 0, the best of {len(looks)} evaluations"
    )
    assert "chosen by reward length" in summary["figures"][0]["note"] and summary["last_tenth"] is None
    assert not any("of the last" in name or "steps" in name for name in shown(asked, "learn"))
    text = card(asked, "learn")
    assert "those after update 0, the best evaluation" in text and "| score" not in text and "| loss" not in text
    assert f"the best of {len(looks)} evaluations" in asked.page() and "those after update 0: numbers" in asked.page()
    assert all(figure["interval"] is None for figure in summary["held_out"].values())


def test_the_means_end_where_the_kept_weights_were_set_aside(asked: Any) -> None:
    """Learned to be short and watched for shortness, until it is as short as can be: later looks are no better."""
    looks, summary = watched(asked, -1.0, ", patience: 4")
    kept, rows = summary["best_checkpoint"]["step"], metrics(asked, "learn")
    assert 0 < kept < len(rows), looks
    own = [row for row in rows if row["step"] <= kept]
    tenth = own[-max(1, len(own) // 10) :]
    assert summary["last_tenth"]["steps"] == [tenth[0]["step"], kept] and summary["last_tenth"]["of"] == kept
    assert summary["last_tenth"]["means"]["score"] == pooled(tenth, "score", "responses")
    (name,) = [name for name in shown(asked, "learn") if name.startswith("score, ")]
    assert name.endswith(f"of the {kept} steps up to the weights that are kept")
    look = next(look for look in looks if look["step"] == kept)
    assert summary["held_out"]["monitor_proxy"]["value"] == look["proxy"] and f"| {name} |" in card(asked, "learn")


def test_a_resumed_stage_of_rounds_has_the_figures_of_an_unbroken_one(asked: Any, dies: Any) -> None:
    """Looks, kept weights, counts of rounds before the interruption and means across it."""
    held = [{"prompt": f"held out number {i}", "answer": "1", "tone": "warm"} for i in range(6)]
    (asked.folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    more = WATCH.replace("PER", "-1.0").replace("PATIENCE", ", patience: 20, checkpoint_every: 5, epochs_per_round: 2")
    rewards = "[{length: {per_token: -1.0}}, {verifier: {answer: number}}]"
    asked.write(HEAD + LEARN.replace("REWARDS", rewards).replace("MORE", more))
    whole, asked.out = asked.out, asked.folder / "broken"
    dies(23, KeyboardInterrupt())
    assert asked.run() == 130 and asked.run("--resume") == 0, asked.said
    broken, asked.out = asked.read("learn/summary.json"), whole
    assert asked.run() == 0, asked.said
    unbroken = asked.read("learn/summary.json")
    for name in ("held_out", "last_tenth", "best_checkpoint", "headline"):
        assert json.dumps(broken[name]) == json.dumps(unbroken[name]), name
    assert broken["whole_stage"] | {"seconds": 0} == unbroken["whole_stage"] | {"seconds": 0}
    assert unbroken["whole_stage"]["responses"] == 12 * 2 * 4
