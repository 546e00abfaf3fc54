"""What the page says of a stage that learned from its own answers, and the three lines that it begins with."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from truing.records import Finding
from truing.report import brief, html, rounds
from truing.report.curves import curve
from truing.report.folder import RunPieces, StagePieces

NASTY = "<script>alert(1)</script>\u202e\x1b[31m\"'>"


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def lived(folder: Path, word: str = "", again: bool = True) -> str:
    """The page of a run with one stage that learned from 24 rounds."""
    put(folder / "manifest.json", {"title": "t", "state": "done", "stages": [{"name": "policy", "do": "reinforce"}]})
    told = (
        f"policy began as stage warm and learned by ppo from its own responses to 12 of the 2,000 prompts of p{word}."
    )
    taught = {"anything": False, "nothing": f"all 96 responses scored the same{word}"}
    put(folder / "policy/summary.json", {"do": "reinforce", "paragraph": told, "taught": taught})
    rows = [
        {"step": s, "rows": 8, "tokens": 90, "loss": 0.0, "responses": 8.0, "groups": 2.0, "score": s / 24}
        | {
            "score_deviation": 0.3,
            "kl": s / 9,
            "length": 40.0 - s,
            "sampled_entropy": 2.0,
            "truncated": 0.5,
            "equal_groups": 0.5,
        }
        for s in range(1, 25)
    ]
    (folder / "policy/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries = [
        {
            "round": number,
            "row": 7 if again else number,
            "prompt": [{"role": f"user{word}", "content": f"May I have it?{word}"}],
            "responses": [{"text": f"answer of {number}{word}", "score": number / 24, "stop": stop}],
        }
        for number, stop in ((1, "length"), (12, "eos"), (24, "eos"))
    ]
    entries[1]["responses"].append({"text": "none", "score": None, "stop": "eos"})
    put(folder / "policy/responses.json", entries)
    return html.write(folder).read_text(encoding="utf-8")


class Text(HTMLParser):
    """The text of a page in order, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_an_online_stage_has_the_curves_it_is_judged_by(tmp_path: Path) -> None:
    page = lived(tmp_path)
    heads = re.findall(r'<div class="head"><b>(.*?)</b><span>(.*?)</span>', page)
    names = [name for name, _ in heads[:6]]
    assert names == [
        "reward", "KL to the reference, nats", "length of responses, tokens", "entropy, nats a token", "share truncated",
        "share of equal groups",
    ]  # fmt: skip
    assert heads[0][1].startswith("0.0417 → ") and page.count("<svg") == 6
    assert not any(name.startswith("loss") for name, _ in heads), "of a policy gradient it says nothing"
    assert "The band around the reward" in page


def test_a_lone_answer_has_no_curve_of_equal_groups() -> None:
    row = {"step": 1.0, "score": 1.0, "equal_groups": 1.0, "responses": 8.0, "groups": 8.0, "accuracy": 0.5}
    assert rounds.curves_of([row]) == ["score", "accuracy"]
    assert rounds.curves_of([row | {"groups": 4.0}]) == ["score", "equal_groups", "accuracy"]


def test_the_band_is_drawn_where_every_step_has_it() -> None:
    rows = [{"step": float(s), "score": 1.0, "score_deviation": 0.5} for s in range(1, 9)]
    plain = curve(rows, "score")
    assert len(curve(rows, "score", spread="score_deviation")) > len(plain)
    assert curve([*rows, {"step": 9.0, "score": 1.0}], "score", spread="score_deviation") == curve(
        [*rows, {"step": 9.0, "score": 1.0}], "score"
    )


def test_answers_of_the_same_prompt_stand_together_with_their_rewards(tmp_path: Path) -> None:
    page = lived(tmp_path)
    shown = page[page.index("Responses while it learned") :]
    assert shown.count("May I have it?") == 1 and "The same prompts, from the first round to the last." in shown
    cards = re.findall(r'<div class="answer"><b>(.*?)</b>(.*?)</div>', shown)
    assert [name for name, _ in cards] == ["round 1", "round 12", "round 24"]
    assert [re.findall("<p.*?>(.*?)</p>", text) for _, text in cards] == [
        ["reward 0.04167, truncated", "answer of 1"],
        ["reward 0.5", "answer of 12", "not scored", "none"],
        ["reward 1", "answer of 24"],
    ]


def test_prompts_that_never_came_again_are_not_called_the_same(tmp_path: Path) -> None:
    page = lived(tmp_path, again=False)
    assert page.count("May I have it?") == 3 and "No prompt was repeated" in page


def test_hostile_text_of_answers_is_inert(tmp_path: Path) -> None:
    page = lived(tmp_path, NASTY)
    assert "<script" not in page and "\u202e" not in page and "\x1b" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 6 and "script" not in Text(page).tags


@pytest.mark.parametrize(
    "odd", [3, [3], [{"round": 1}], [{"row": 1, "responses": [3, {}]}], [{"prompt": 3, "responses": {}}]]
)
def test_odd_responses_break_no_page(tmp_path: Path, odd: Any) -> None:
    lived(tmp_path)
    put(tmp_path / "policy/responses.json", odd)
    put(tmp_path / "policy/summary.json", {"paragraph": 3, "taught": [1]})
    assert html.write(tmp_path).read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_the_page_begins_with_three_lines_in_plain_words(tmp_path: Path) -> None:
    page = lived(tmp_path)
    (first,) = re.findall(r'<section class="brief">(.*?)</section>', page, re.S)
    said = re.findall("<p>(.*?)</p>", first)
    assert said == [
        "policy began as stage warm and learned by ppo from its own responses to 12 of the 2,000 prompts of p. It taught "
        "nothing: all 96 responses scored the same.",
        "Whether it is better was not measured.",
        "Whether it may ship was not asked: no gate decides in this run.",
    ]
    assert page.index("brief") < page.index('class="banner') and "rows 2,000" not in page


def a_run(*findings: Finding, **decision: Any) -> RunPieces:
    trained = StagePieces("direct", "prefer", "done", summary={"paragraph": "direct learned."})
    exam = StagePieces("exam", "evaluate", "done", findings=list(findings))
    return RunPieces("r", {"state": "done"}, [trained, exam], decision, [])


def rate(value: float, half: float | None, model: str = "direct", **more: Any) -> Finding:
    ends = None if half is None else (value - half, value + half)
    return Finding("win_rate", model, value, "warm", interval=ends, n=500, **more)


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (
            rate(0.62, 0.04),
            "direct wins 62 of 100 comparisons with warm, ties half (with 95 % confidence between 58 and 66): it is better.",
        ),
        (rate(0.38, 0.04), "(with 95 % confidence between 34 and 42): it is worse."),
        (rate(0.52, 0.04), "whether it is better or worse cannot be told from these 500 prompts."),
        (rate(0.52, None), "that is too little to say how sure this is."),
        (rate(0.62, 0.04, reservation="its judge is a coin"), "is better than warm is not known: its judge is a coin."),
    ],
)
def test_how_sure_it_is_follows_from_the_whole_interval(finding: Finding, said: str) -> None:
    assert brief.lines(a_run(rate(0.9, 0.01, "other"), finding))[1].endswith(said)


def test_who_is_better_is_named_where_it_is_not_the_trained_one() -> None:
    """`it` would be read as the model of the first line, which here is the loser."""
    rival = Finding("win_rate", "rival", 0.8, "direct", interval=(0.75, 0.85), n=500)
    assert brief.lines(a_run(rival))[1].endswith("between 75 and 85): rival is better.")
    tied = Finding("win_rate", "rival", 0.5, "direct", interval=(0.45, 0.55), n=500)
    assert "whether rival is better or worse" in brief.lines(a_run(tied))[1]


def test_why_it_may_not_ship_is_said() -> None:
    rows = [
        {"rule": "win_delta: lower end at least 0", "state": "failed", "text": "-0.1 [-0.2, 0.0]"},
        {"rule": "other", "state": "passed", "text": "fine"},
    ]
    held = brief.lines(a_run(verdict="hold", results=rows))[2]
    assert held == "It may not ship: win_delta: lower end at least 0 (-0.1 [-0.2, 0.0])."
    assert brief.lines(a_run(verdict="ship", results=rows[1:]))[2].startswith("It may ship")
    assert brief.lines(a_run(verdict="undecided", results=3))[2].startswith("Whether it may ship is not decided")
    broken = a_run(verdict="ship")
    broken.manifest |= {"state": "failed", "reason": "no room"}
    assert brief.lines(broken)[2] == "This run did not come to its end: no room."
    assert brief.lines(RunPieces("r", {}, [], {}, [])) == []
