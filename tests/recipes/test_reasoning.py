"""Reasoning models from end to end: sampled, taught with and without their thoughts, preferred, rewarded, judged."""

from __future__ import annotations

import json

import pyarrow.parquet as parquet
import pytest

from small_templates import HYBRID, MAGISTRAL, R1, THINKING, model

ROW = "<think>\nwe add them\n</think>\n\n<answer>4</answer>"
INLINE = {"messages": [{"role": "user", "content": "two and two?"}, {"role": "assistant", "content": ROW}]}
KEYED = {
    "messages": [
        {"role": "user", "content": "two and two?"},
        {"role": "assistant", "content": "<answer>4</answer>", "reasoning_content": "we add them"},
    ]
}
TEACH = """\
title: taught
base: base
inputs: {rows: rows.jsonl}
stages:
  taught: {do: sft, model: $base, data: $inputs.rows, steps: 40, rows_per_step: 2, learning_rate: 2e-2, max_length: 200}
"""
REST = """\
title: rest
seed: 1
base: base
inputs: {pairs: pairs.jsonl, prompts: prompts.jsonl, held: held.jsonl}
stages:
  direct: {do: prefer, model: $base, data: $inputs.pairs, steps: 1, rows_per_step: 4, max_length: 200, thoughts: THOUGHTS}
  rm: {do: fit_reward, model: $base, data: $inputs.plain, steps: 2, rows_per_step: 4, max_length: 400}
  policy: {do: reinforce, model: $base, prompts: $inputs.prompts, rewards: [{format: {tags: [think, answer]}}, {verifier: {}}, $rm],
           steps: 2, rows_per_step: 2, group_size: 4, max_new_tokens: 16, max_length: 200, monitor: [$rm], monitor_prompts: $inputs.held}
  drawn: {do: sample, model: $policy, prompts: $inputs.held, samples_per_prompt: 2, max_new_tokens: 8}
  judged: {do: judge, data: $drawn, rewards: [$rm], keep: scores, truncated: keep}
  exam: {do: evaluate, models: [$policy], against: $base, prompts: $inputs.held, judge: $rm, max_new_tokens: 8}
""".replace("inputs: {", "inputs: {plain: plain.jsonl, ")


def lines(path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("template", [R1, HYBRID, THINKING, MAGISTRAL], ids=["r1", "hybrid", "thinking", "magistral"])
def test_a_model_that_is_taught_thoughts_writes_them(desk, template) -> None:
    """From rows that hold a thought in their text or in a key, to a policy whose text is whole for the rewards."""
    model(desk.folder / "base", template)
    lines(desk.folder / "rows.jsonl", [INLINE, KEYED])
    desk.write(TEACH)
    assert desk.run() == 0, desk.said
    lines(desk.folder / "prompts.jsonl", [{"prompt": "two and two?"}])
    said = desk.folder / "said.jsonl"
    asked = ("--temperature", "0", "--max-new-tokens", "60", "--out", str(said))
    assert desk("sample", str(desk.out / "taught" / "model"), str(desk.folder / "prompts.jsonl"), *asked) == 0, (
        desk.said
    )
    text = json.loads(said.read_text())["response"]
    assert "".join(text.split()) == "".join(ROW.split())


@pytest.mark.parametrize("template, thoughts", [(R1, "mask"), (HYBRID, "learn")], ids=["r1", "hybrid"])
def test_it_is_preferred_rewarded_and_judged(desk, template, thoughts) -> None:
    """The reward model's template takes thoughts out (R1) or keeps the last (Qwen3); a random policy writes anything."""
    model(desk.folder / "base", template)
    thinks = [f"<think>\nwe guess {i}\n</think>\n\n<answer>{i}</answer>" for i in range(9)]
    pairs = [{"prompt": f"what is {i}?", "chosen": thinks[i], "rejected": thinks[i + 1]} for i in range(8)]
    lines(desk.folder / "pairs.jsonl", pairs)
    lines(
        desk.folder / "plain.jsonl",
        [{"prompt": "which?", "chosen": f"it is {i}", "rejected": f"not {i}"} for i in range(8)],
    )
    lines(desk.folder / "prompts.jsonl", [{"prompt": f"what is {i} and {i}?", "answer": str(2 * i)} for i in range(6)])
    lines(desk.folder / "held.jsonl", [{"prompt": f"what is {i} less {i}?", "answer": "0"} for i in range(4)])
    desk.write(REST.replace("THOUGHTS", thoughts))
    assert desk.run() == 0, desk.said
    rows = parquet.read_table(desk.out / "policy" / "rollouts" / "round-00001.parquet").to_pylist()
    assert all(not row["why"] for row in rows)
    opened = ["<think>\n"] * len(rows) if template == R1 else [""] * len(rows)
    assert all(row["response"].startswith(start) for row, start in zip(rows, opened, strict=True))
    learned = json.loads((desk.out / "direct" / "metrics.jsonl").read_text().splitlines()[0])
    assert learned["tokens"] > 0


LONG = """\
title: long
base: base
inputs: {pairs: pairs.jsonl, prompts: prompts.jsonl, held: held.jsonl}
stages:
  rm: {do: fit_reward, model: short, data: $inputs.pairs, steps: 1, rows_per_step: 4, max_length: 100}
  policy: {do: reinforce, model: $base, prompts: $inputs.prompts, rewards: [$rm], steps: 1, rows_per_step: 4, group_size: 2,
           max_new_tokens: 30, max_length: 300}
  exam: {do: evaluate, models: [$policy], against: $base, prompts: $inputs.held, judge: $rm, max_new_tokens: 30, best_of: 2,
         best_by: $rm}
  curve: {do: diagnose_best_of, model: $base, reward: $rm, judge: $rm, prompts: $inputs.held, n: 2, max_new_tokens: 30}
"""


def test_answers_longer_than_a_reward_model_reads_are_left_out_and_counted(desk) -> None:
    """By their own doing: neither a run nor an exam ends with them, and none of them becomes a number."""
    model(desk.folder / "base", R1)
    model(desk.folder / "short", R1, context=110)
    lines(
        desk.folder / "pairs.jsonl",
        [{"prompt": "which?", "chosen": f"it is {i}", "rejected": f"not {i}"} for i in range(8)],
    )
    for name, digits in (("prompts", "0 1 2 3 4 5 6 7 8 9 "), ("held", "9 8 7 6 5 4 3 2 1 0 ")):
        asked = [f"{name} {i}?" for i in range(3)] + [f"{name} " + digits * 4]
        lines(desk.folder / f"{name}.jsonl", [{"prompt": text} for text in asked])
    desk.write(LONG)
    assert desk.run() == 0, desk.said
    rows = parquet.read_table(desk.out / "policy" / "rollouts" / "round-00001.parquet").to_pylist()
    assert [bool(row["why"]) for row in rows].count(True) == 2 and any("reads 110" in row["why"] for row in rows)
    assert any("2 of 8 responses could not be scored" in note for note in desk.read("policy/summary.json")["notes"])
    exam = desk.read("exam/findings.json")["findings"]
    assert {f["n"] for f in exam if f["check"] == "win_rate"} == {3}
    assert "1 of 4 prompts left out: a response to them is longer than the judge reads" in desk.said
    assert "1 of 4 prompts left out: a response is longer than a judge reads" in desk.said
    best = ("--best-of", "2", "--reward", str(desk.out / "rm" / "model"), "--max-new-tokens", "30")
    held, drawn = str(desk.folder / "held.jsonl"), desk.folder / "best.jsonl"
    assert desk("sample", str(desk.folder / "base"), held, *best, "--out", str(drawn)) == 0, desk.said
    values = [json.loads(line)["reward"] for line in drawn.read_text().splitlines()]
    assert [value is None for value in values] == [False, False, False, True]
