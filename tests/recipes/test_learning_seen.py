"""What somebody sees of a stage that learns, from outside: its lines while it runs, its last line, and its report."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

HEAD = """\
title: small
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
"""
ONLINE = (
    "  policy: {do: reinforce, model: $base, prompts: asked.jsonl, rewards: ['mine.py:letters'], group_size: 4, "
    "rows_per_step: 2, max_new_tokens: 6, learning_rate: 1.0e-3, beta: 0.01, steps: 6, objective: OBJECTIVE}\n"
)
OFFLINE = "  policy: {do: prefer, model: $base, data: pairs.jsonl, steps: 6, rows_per_step: 4, objective: dpo}\n"
MINE = """\
def letters(prompts, completions, **kwargs):
    return [float(len(str(answer))) for answer in completions]
"""


@pytest.fixture
def asked(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four prompts, one of them hostile, and a reward of one's own."""
    rows = [{"prompt": f"question {i}"} for i in range(3)] + [{"prompt": "<script>alert(1)</script>"}]
    (desk.folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (desk.folder / "mine.py").write_text(MINE)
    monkeypatch.chdir(desk.folder)
    return desk


def heads(page: str) -> list[str]:
    """The names of the curves on a page."""
    return re.findall(r'<figure><div class="head"><b>(.*?)</b>', page)


@pytest.mark.parametrize("objective", ["grpo", "[ppo, {value_clipped: {weight: 0.1}}]"])
def test_an_online_stage(asked: Any, objective: str) -> None:
    asked.write(HEAD + ONLINE.replace("OBJECTIVE", objective))
    assert asked.run() == 0, asked.said
    (line,) = [line for line in asked.said.splitlines() if line.startswith("  step 1/6  ")]
    number = r"-?[\d.e-]+"
    assert re.fullmatch(
        rf"  step 1/6  reward {number} ± {number}  equal groups \d+ %  truncated \d+ %  KL {number} nats  "
        rf"length {number} tokens  [\d,]+ tokens/s  .* left",
        line,
    ), line
    assert "loss" not in asked.said and "the last of 6 steps: score " in asked.said
    page, summary = asked.page(), asked.read("policy/summary.json")
    assert heads(page)[:5] == [
        "reward", "KL to the reference, nats", "length of responses, tokens", "entropy, nats a token", "share truncated",
    ]  # fmt: skip
    names = {figure["name"]: figure["value"] for figure in summary["figures"]}
    assert names["prompts, of 4 in the data"] == 4 and summary["headline"].startswith("score, ")
    told = "on its own responses to all 4 prompts of asked.jsonl (sampled 12 times in all), scored by letters; 48 responses"
    assert told in summary["paragraph"] and told in page.split('class="banner')[0]
    shown = page[page.index("Responses while it learned") :]
    assert "round 1<" in shown and "round 6<" in shown and "reward " in shown and "The same prompts" in shown
    assert "<script" not in page


def test_of_a_part_of_the_prompts_it_says_so(asked: Any) -> None:
    """`rows 2,000` where 120 prompts were used: the page says how many were asked."""
    rows = "".join(json.dumps({"prompt": f"question {i}"}) + "\n" for i in range(50))
    (asked.folder / "asked.jsonl").write_text(rows)
    asked.write(HEAD + ONLINE.replace("OBJECTIVE", "rloo"))
    assert asked.run() == 0, asked.said
    page = asked.page()
    assert (
        "its own responses to 12 of the 50 prompts of asked.jsonl, scored by letters; 48 responses in 6 rounds" in page
    )
    assert "No prompt was repeated" in page


def test_an_offline_stage(desk: Any) -> None:
    desk.write(HEAD + OFFLINE)
    assert desk.run() == 0, desk.said
    assert re.search(r"  step 1/6  margin -?[\d.e-]+ nats  accuracy \d+ %  loss 0\.693  [\d,]+ tokens/s", desk.said)
    page = desk.page()
    assert heads(page)[0] == "loss" and "Responses while it learned" not in page
    assert "was trained by dpo on the 60 rows of pairs.jsonl: 6 updates, 24 rows drawn in all." in page


def test_quiet_prints_nothing(asked: Any) -> None:
    asked.write(HEAD + ONLINE.replace("OBJECTIVE", "grpo"))
    assert asked.run("--quiet") == 0 and asked.said == ""
