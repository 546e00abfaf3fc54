"""What all rounds of a stage come to, and which of their answers are shown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from truing.records import Message
from truing.rollout import account, experience
from truing.rollout.experience import Experience


def answer(row: int, group: int, score: float, **more: Any) -> Experience:
    parts = (("mine", score), ("unread:mine", 1.0))
    known: dict[str, Any] = {"parts": parts, "stop": "eos", "response": f"{row} says {score:g}"} | more
    asked = (Message("user", f"question {row}"),)
    return Experience(
        row, asked, known["response"], (1,), (2, 3), (-1.0, -2.0), (), (), score, known["stop"], group, 0, known["parts"],
        known.get("why", ""),
    )  # fmt: skip


def lives(folder: Path, *rounds: list[Experience]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, rows in enumerate(rounds, start=1):
        experience.write(folder / f"round-{number:05d}.parquet", rows)
    return folder


def samples(folder: Path) -> list[dict[str, Any]]:
    return account.samples(folder, account.of(folder))


def test_prompts_groups_and_scores_are_counted(tmp_path: Path) -> None:
    first = [answer(1, 0, 0.5), answer(1, 0, 0.5), answer(2, 1, 0.0), answer(2, 1, 1.0, stop="length")]
    failed = answer(3, 1, math.nan, parts=(), why="it broke")
    second = [answer(1, 0, 2.0), answer(1, 0, 2.0), failed, answer(3, 1, 0.25)]
    found = account.of(lives(tmp_path, first, second))
    assert (found.rounds, found.prompts, found.requests, found.responses, found.failed, found.cut) == (2, 3, 4, 8, 1, 1)
    assert (found.groups, found.equal) == (3, 2), "a lone answer is no group"
    assert (found.score.low, found.score.high, found.score.count) == (0.0, 2.0, 7)
    assert list(found.rewards) == ["mine"] and not found.rewards["mine"].level


def test_what_differs_by_rounding_alone_is_level(tmp_path: Path) -> None:
    found = account.of(lives(tmp_path, [answer(1, 0, 0.1 + 0.2), answer(1, 0, 0.3)]))
    assert found.score.level and found.rewards["mine"].level and found.equal == found.groups == 1
    assert account.of(tmp_path / "none").responses == 0


def test_a_prompt_that_came_again_is_followed(tmp_path: Path) -> None:
    """Prompt 4 comes in rounds 1, 3 and 5; others once: its answers of the first, the middle and the last are shown."""
    rounds = [
        [answer(4 if n % 2 else 10 + n, 0, n / 10), answer(20 + n, 1, 1.0), answer(20 + n, 1, 0.0)] for n in range(1, 6)
    ]
    shown = samples(lives(tmp_path, *rounds))
    assert [(entry["round"], entry["row"]) for entry in shown] == [(1, 4), (3, 4), (5, 4)]
    assert shown[1]["responses"] == [{"text": "4 says 0.3", "score": 0.3, "stop": "eos"}]
    assert shown[0]["prompt"] == [{"role": "user", "content": "question 4"}]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_where_none_came_again_each_round_shows_its_own(tmp_path: Path, count: int) -> None:
    rounds = [[answer(10 * n + k, k, float(k)) for k in range(3)] for n in range(1, count + 1)]
    shown = samples(lives(tmp_path, *rounds))
    numbers = sorted({1, count // 2 + 1, count})
    assert [(entry["round"], entry["row"]) for entry in shown] == [(n, 10 * n + k) for n in numbers for k in range(2)]


def test_what_was_not_scored_has_no_reward_and_long_answers_are_cut(tmp_path: Path) -> None:
    rows = [
        answer(1, 0, math.nan, parts=(), why="it broke", response="a" * 700),
        *(answer(1, 0, 1.0) for _ in range(4)),
    ]
    (entry,) = samples(lives(tmp_path, rows))
    assert entry["responses"][0]["score"] is None and entry["responses"][0]["text"].endswith("a… (100 more letters)")
    assert len(entry["responses"]) == account.RESPONSES and samples(tmp_path / "none") == []
