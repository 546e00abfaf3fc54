"""What a terminal and a log show while a stage learns: what it is about, never a loss that means nothing."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from truing.run import console, moment
from truing.run.console import Show, drawn_bar
from truing.terminal import Redacting, moves

ROUND = {
    "step": 1, "rows": 8, "tokens": 90, "loss": 0.0, "responses": 8.0, "groups": 2.0, "failed": 0.0, "score": 0.25,
    "score_deviation": 0.4, "equal_groups": 0.5, "truncated": 0.125, "length": 12.0, "kl": 0.031,
}  # fmt: skip
RECIPE = """\
title: shown
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
  warm: {do: sft, model: $base, data: pairs.jsonl, steps: 12, rows_per_step: 2}
"""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_of_answers_their_reward_is_shown_and_no_loss() -> None:
    assert moment.summary([ROUND]) == (
        "reward 0.25 ± 0.4  equal groups 50 %  truncated 12 %  KL 0.031 nats  length 12 tokens"
    )
    lone = {name: value for name, value in ROUND.items() if name != "kl"} | {"groups": 8.0, "failed": 3.0}
    assert moment.summary([lone]) == "reward 0.25 ± 0.4  truncated 12 %  length 12 tokens  not scored 3"
    preferring = ROUND | {"accuracy": 0.75, "margin_nats": 1.5, "loss": 0.4}
    assert moment.summary([preferring]).endswith("margin 1.5 nats  accuracy 75 %")


def test_of_given_data_margin_accuracy_and_loss_are_shown() -> None:
    row = {"step": 1, "rows": 4, "tokens": 9, "loss": 0.5, "accuracy": 0.75, "margin": 1.25, "chosen_reward": 3.0}
    assert moment.summary([row]) == "margin 1.25  accuracy 75 %  loss 0.5"
    assert moment.summary([{"step": 1, "rows": 4, "loss": 2.0, "learned_tokens": 9}]) == "loss 2"
    assert moment.summary([{"step": 1, "rows": 4, "loss": 2.0, "signed_log_ratio": -0.5}]) == (
        "signed log ratio -0.5 nats  loss 2"
    )
    assert moment.summary([row | {"loss": float("nan")}]).endswith("loss no number"), "a failure is no number"
    assert moment.summary([]) == ""


def test_a_mean_is_weighed_by_what_each_step_is_a_mean_over() -> None:
    rows = [ROUND, ROUND | {"score": 1.0, "responses": 24.0}]
    assert moment.summary(rows).startswith("reward 0.812 ")
    rows = [{"step": s, "rows": n, "loss": float(s), "accuracy": float(s - 1)} for s, n in ((1, 1), (2, 3))]
    assert moment.summary(rows) == "accuracy 75 %  loss 1.75"


def steps(shown: Show, count: int) -> None:
    for number in range(1, count + 1):
        shown.step(ROUND | {"step": number}, count)


def test_a_log_has_few_plain_lines_and_its_last_line_no_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step a second for three hours: ten seconds apart at first, then a fiftieth of the time that has passed."""
    clock = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    shown = Show()
    for number in range(1, 10_801):
        clock[0] += 1.0
        shown.step(ROUND | {"step": number}, 10_800)
    lines = capsys.readouterr().out.splitlines()
    assert 100 < len(lines) < 300 and not any("\r" in line or "\x1b" in line for line in lines)
    assert lines[0] == f"  step 1/10800  {moment.summary([ROUND])}  90 tokens/s  2 h 59 min left"
    assert " (means of 10)  90 tokens/s" in lines[1]
    assert lines[-1] == "  step 10800/10800  90 tokens/s  in 3 h 0 min"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Show(quiet=True)
    steps(shown, 30)
    shown.say("anything")
    assert capsys.readouterr() == ("", "")


def test_a_bar_moves_on_a_terminal_and_passes_its_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", Redacting(stream))  # type: ignore[arg-type]
    shown = Show()
    assert shown.live
    shown.step(ROUND | {"step": 1}, 10)
    drawn = stream.getvalue()
    assert drawn.startswith("\r\x1b[K  ━") and "1/10  " in drawn and "reward 0.25 ± 0.4" in drawn
    assert "⟨U+" not in drawn and "\x1b" not in drawn.replace("\r\x1b[K", "") and len(drawn) < 84


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CI": "true"}])
def test_who_asks_for_plain_lines_gets_them(setting: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert moves(Terminal()) and not moves(io.StringIO())
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert not moves(Terminal())


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_bar_keeps_to_one_line(columns: int) -> None:
    drawn = drawn_bar(31, 40, "1 min 3 s left", moment.summary([ROUND]), columns)
    assert len(drawn) < columns and "\n" not in drawn
    assert drawn_bar(10, 10, "", "", 80).count("━") == console.BAR > drawn_bar(5, 10, "", "", 80).count("━")


def on_a_terminal(command: list[str], folder: Path, **settings: str) -> tuple[str, int]:
    """What a command writes to a terminal of 100 columns, and how it ends."""
    main, other = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI")} | settings
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=other, stdout=other, stderr=other)
    os.close(other)
    text, until = b"", time.monotonic() + 120
    while time.monotonic() < until and (select.select([main], [], [], 1.0)[0] or process.poll() is None):
        try:
            text += os.read(main, 1 << 16)
        except OSError:  # the other end is closed
            break
    os.close(main)
    return text.decode("utf-8"), process.wait(timeout=60)


@pytest.mark.parametrize(
    ("setting", "moving"), [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)]
)
def test_a_run_on_a_terminal(tmp_path: Path, setting: dict[str, str], moving: bool) -> None:
    """From outside: a bar whose only code is the line that begins anew; plain lines where they are asked for."""
    rows = "".join(f'{{"prompt": "question {i}", "response": "so it is {i}"}}\n' for i in range(24))
    (tmp_path / "pairs.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    said, code = on_a_terminal([sys.executable, "-m", "truing", "run", "r.yaml"], tmp_path, **setting)
    assert code == 0, said
    assert ("━" in said) == moving and ("\x1b" in said) == moving
    assert "\x1b" not in said.replace("\r\x1b[K", "") and "⟨U+" not in said
    assert "step 12/12  " in said and "loss " in said


@pytest.mark.parametrize(("value", "text"), [(0.998, "99.80 %"), (0.002, "0.20 %"), (1.0, "100 %"), (0.0, "0 %")])
def test_a_part_is_never_called_all_nor_a_little_none(value: float, text: str) -> None:
    rows = [{"step": 1, "rows": 2, "loss": 0.69, "accuracy": value}]
    assert f"accuracy {text}" in moment.summary(rows)
