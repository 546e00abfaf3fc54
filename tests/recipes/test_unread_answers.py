"""Answers that a verifier cannot read, from recipe to metrics and notes; rows that it cannot judge by are refused first."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow.parquet as parquet
import pytest

from truing.rewards.combine import UNREAD

HEAD = """\
title: small
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
"""
LEARN = (
    "  learn: {do: reinforce, model: $base, prompts: asked.jsonl, rewards: [{verifier: {answer: math, wrong: -1}}, "
    "{length: {per_token: 0.01}}], group_size: 4, steps: 2, rows_per_step: 2, max_new_tokens: 6MORE}\n"
)
EXAM = (
    "  warm: {do: sft, model: $base, data: pairs.jsonl, steps: 1}\n"
    "  exam: {do: evaluate, models: [$warm], against: $base, prompts: asked.jsonl, samples: 8, max_new_tokens: 4, "
    "judge: {verifier: {answer: math}}}\n"
)
JUDGE = (
    "  said: {do: sample, model: $base, prompts: asked.jsonl, samples_per_prompt: 2, max_new_tokens: 4}\n"
    "  kept: {do: judge, data: $said, rewards: [{verifier: {answer: math}}], keep: scores, truncated: keep}\n"
)
NOTE = re.compile(r"reward 'verifier' could read no answer in (\d+) responses, which got its lowest score")


@pytest.fixture
def asked(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prompts with an answer each."""
    rows = [{"prompt": f"asked {i}", "answer": rf"\frac{{{i}}}{{7}}"} for i in range(8)]
    (desk.folder / "asked.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.chdir(desk.folder)
    return desk


def counted(desk: Any, stage: str) -> int:
    """How many responses the notes of a stage call unread."""
    notes = [NOTE.fullmatch(note) for note in desk.read(f"{stage}/summary.json")["notes"]]
    return sum(int(match[1]) for match in notes if match)


def test_unread_answers_of_training_are_in_metrics_rows_and_summary(asked: Any) -> None:
    asked.write(HEAD + LEARN.replace("MORE", ""))
    assert asked.run() == 0, asked.said
    lines = [json.loads(line) for line in (asked.out / "learn/metrics.jsonl").read_text().splitlines()]
    files = sorted((asked.out / "learn/rollouts").glob("round-*.parquet"))
    parts = [dict(row["parts"]) for file in files for row in parquet.read_table(file).to_pylist()]
    unread = [own for own in parts if own.get(UNREAD + "verifier")]
    assert len(unread) > 0 and all(own["verifier"] == -1 for own in unread), "an untrained model has no answer"
    assert sum(line.get("unread_verifier", 0) for line in lines) == len(unread) == counted(asked, "learn")
    assert not any(line["failed"] for line in lines)


def test_unread_answers_are_seen_by_who_watches(asked: Any) -> None:
    rows = [{"prompt": f"watched {i}", "answer": i} for i in range(4)]
    (asked.folder / "watched.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    watch = ", monitor: [{verifier: {answer: math}}], monitor_prompts: watched.jsonl, monitor_every: 1"
    asked.write(HEAD + LEARN.replace("MORE", watch))
    assert asked.run() == 0, asked.said
    looks = [json.loads(line) for line in (asked.out / "learn/monitor.jsonl").read_text().splitlines()]
    assert all(0 < look["unread_verifier"] <= look["prompts"] == 4 for look in looks)
    assert all(look["unread_verifier"] == look["unread_proxy"] for look in looks)


def test_unread_answers_of_an_exam_are_noted(asked: Any) -> None:
    asked.write(HEAD + EXAM)
    assert asked.run() == 0, asked.said
    assert 0 < counted(asked, "exam") <= 16
    assert "could read no answer in" in asked.page()


def test_unread_answers_of_judged_data_are_noted(asked: Any) -> None:
    asked.write(HEAD + JUDGE)
    assert asked.run() == 0, asked.said
    rows = [json.loads(line) for line in (asked.out / "kept/data.jsonl").read_text().splitlines()]
    assert all(score == 0.0 for row in rows for score in row["scores"]), "an untrained model is never right"
    assert 8 < counted(asked, "kept") <= 16


@pytest.mark.parametrize("stage", ["learn", "exam", "kept"])
def test_rows_that_nothing_can_be_judged_by_are_refused_before_anything_is_asked(stage: str, asked: Any) -> None:
    """Not in the round that meets them: with the first row, its column, how many there are, and the way out."""
    lines = [json.loads(line) for line in (asked.folder / "asked.jsonl").read_text().splitlines()]
    for row in lines[2:4]:
        row["answer"] = r"\int_0^1 x"
    (asked.folder / "asked.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    asked.write({"learn": HEAD + LEARN.replace("MORE", ""), "exam": HEAD + EXAM, "kept": HEAD + JUDGE}[stage])
    assert asked.run() == 2, asked.said
    said = " ".join(asked.said.split()).replace(f"stage '{stage}'", f"stage {stage}")  # as a check quotes it
    assert f"stage {stage}: row 3 of the prompts: reward 'verifier': the right answer" in said
    assert "cannot be read; leave the row out, or set answer: text to compare words ('answer': '\\int')" in said
    assert "2 of 8 rows are refused so: 3, 4" in said
    assert not (asked.out / stage / "rollouts").exists()
