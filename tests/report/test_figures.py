"""Means over the last tenth of a stage: weighed, named, and never made of what is no number; instances of a figure that
promises more than it is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from truing.evaluate import intervals
from truing.records import Finding
from truing.report import html
from truing.report.figures import Stretch, Term, last_tenth, lines, of_finding, of_stretch
from truing.stages.prepare import compile_objective
from truing.stages.stage_figures import Evaluation, Measured, StageFigures, read_metrics


def row(step: int, **metrics: float) -> dict[str, float]:
    return {"step": step, "seconds": 1.0, "tokens": 10, "rows": 2, "loss": 1.0 / step} | metrics


def test_a_metric_that_only_some_steps_have_is_a_mean_over_those_and_says_so() -> None:
    rows = [row(i, **({"sampler_gap": float(i)} if i % 2 else {})) for i in range(1, 31)]
    stretch = last_tenth(rows)
    assert stretch is not None and (stretch.first, stretch.last, stretch.means["sampler_gap"]) == (28, 30, 29.0)
    words = "mean of 1 of the last 3 of 30 steps, those that have it"
    assert stretch.words("sampler_gap") == words and stretch.words("loss") == "mean of the last 3 of 30 steps"
    assert words in [figure.of for figure in of_stretch(stretch)]
    assert stretch.as_json()["measured"] == {"sampler_gap": 1}
    assert last_tenth([*rows[:-1], row(30)]).means.keys() == {"loss", "sampler_gap"}
    assert "sampler_gap" not in last_tenth(rows[:18]).means


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_has_no_mean_and_is_counted(odd: float) -> None:
    rows = [row(i, gap=odd if i == 29 else 1.0) for i in range(1, 31)]
    stretch = last_tenth(rows)
    assert stretch is not None and "gap" not in stretch.means and stretch.broken == {"gap": 1}
    assert json.loads(json.dumps(stretch.as_json(), allow_nan=False))["means"] == {"loss": stretch.means["loss"]}
    assert not any(figure.name == "gap" for figure in of_stretch(stretch))


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1.0, 1e308, 0.0])
def test_a_weight_that_is_no_count_gives_no_mean(weight: float) -> None:
    """A file that somebody changed, or steps that taught nothing: no mean, no error; a step without number is none."""
    stretch = last_tenth([row(1, loss=1e308), row(math.nan, loss=3.0), row(2, rows=weight, loss=1e9)])
    assert stretch is not None and (stretch.first, stretch.of, dict(stretch.means)) == (2, 2, {})


def test_the_last_tenth_is_at_least_a_step_and_the_one_of_the_weights_that_are_kept() -> None:
    rows = [row(i) for i in range(1, 101)]
    at = {n: (s.first, s.last, s.words()) for n in (1, 19, 20, 100) if (s := last_tenth(rows[:n]))}
    assert at == {
        1: (1, 1, "the only step"),
        19: (19, 19, "the last of 19 steps"),
        20: (19, 20, "mean of the last 2 of 20 steps"),
        100: (91, 100, "mean of the last 10 of 100 steps"),
    }
    kept = last_tenth(rows, upto=40)
    assert kept is not None and (kept.first, kept.last, kept.of) == (37, 40, 40)
    assert kept.words() == "mean of the last 4 of the 40 steps up to the weights that are kept"
    whole = last_tenth(rows, upto=100)
    assert whole is not None and whole.words() == "mean of the last 10 of 100 steps"
    assert last_tenth(rows, upto=0) is None and last_tenth([]) is None and lines([], None) == []


def test_each_mean_is_weighed_by_what_it_is_over() -> None:
    """Rows, learned tokens, responses, groups; what is over nothing by nothing; counts and looks have no mean."""
    last = [
        row(
            20,
            learned_tokens=1,
            responses=1,
            groups=1,
            ungrouped=1,
            reward_x=0.0,
            score=0.0,
            equal_groups=0.0,
            beta=0.0,
        ),
        row(
            21,
            learned_tokens=3,
            responses=3,
            groups=4,
            ungrouped=2,
            reward_x=1.0,
            score=1.0,
            equal_groups=1.0,
            beta=1.0,
        ),
    ]
    last[0] |= {"loss": 0.0, "rows": 1, "accuracy": 0.0, "failed": 2.0, "unread_x": 3.0, "monitor_x": 1.0}
    last[1] |= {"loss": 1.0, "rows": 5, "accuracy": 1.0, "failed": 0.0, "scored_by_y": 2.0, "reward_y": 4.0}
    rows = [row(i) for i in range(1, 20)] + last
    stretch = last_tenth(rows, [Term("nll", 1.0, "learned_tokens")])
    assert stretch is not None and list(stretch.means)[:2] == ["score", "accuracy"], "the loss of rounds is no headline"
    wanted = {"loss": 3 / 4, "accuracy": 5 / 6, "score": 3 / 4, "reward_x": 5 / 7, "reward_y": 4.0}
    assert stretch.means == pytest.approx(wanted | {"equal_groups": 4 / 5, "beta": 1 / 2})


def test_terms_of_different_counts_make_the_loss_of_their_pooled_means() -> None:
    last = [row(20, dpo=1.0, nll=4.0, learned_tokens=30.0), row(21, dpo=3.0, nll=2.0, learned_tokens=10.0)]
    stretch = last_tenth([row(i) for i in range(1, 20)] + last, [Term("dpo"), Term("nll", 0.5, "learned_tokens")])
    assert stretch is not None and stretch.means["loss"] == 2.0 + 0.5 * 3.5


def test_held_out_comes_first_with_its_interval_and_its_slice() -> None:
    finding = Finding("held_out_accuracy", "rm", 0.8234, slice="clarity", interval=(0.78, 0.86), n=400)
    figure = of_finding(finding)
    assert figure.as_json() == {
        "name": "held-out accuracy (clarity)",
        "value": 0.8234,
        "interval": [0.78, 0.86],
        "n": 400,
        "note": "95 % interval 0.78 to 0.86, n 400",
    }
    assert lines([figure], Stretch(91, 100, 10, 100, {"loss": 0.5, "grad_norm": 2.0})) == [
        "held-out accuracy (clarity) 0.8234 [0.78, 0.86] of 400",
        "mean of the last 10 of 100 steps: loss 0.5",
    ]


def test_the_interval_of_a_look_is_that_of_its_prompts_and_there_is_none_of_few_or_of_no_spread() -> None:
    values = [0.1 * i * i for i in range(12)]
    look = {"step": 4, "prompts": 14, "x": 4.2, "x_n": 12, "y": 1.0, "y_n": 9, "proxy": None, "kl": 1.0, "length": 3.0}
    each = {"x": [*values, None, None], "y": values[:9], "kl": [1.0] * 14}
    found = Evaluation(look | {"each": each}, ["x", "y"], 3, picked=False).figures()
    assert list(found) == ["monitor_x", "monitor_y", "monitor_kl", "monitor_length"]
    assert (found["monitor_x"].n, found["monitor_x"].interval) == (12, intervals.mean_interval(values))
    assert all(found[f"monitor_{name}"].interval is None for name in ("y", "kl", "length"))
    best = Evaluation(look | {"each": each}, ["x"], 3, picked=True).figures()["monitor_x"]
    assert (best.interval, best.title) == (None, "monitored x, after update 4, the best of 3 evaluations")


def test_a_stage_without_an_update_says_so(tmp_path: Path) -> None:
    """Every round taught nothing until the stage ended early: no line of metrics, no mean, no error."""
    (tmp_path / "metrics.jsonl").write_text("")
    made = StageFigures(read_metrics(tmp_path), compile_objective("nll"), Measured(counts={"responses": 8}))
    assert made.headline() == "no update was made" and made.lines() == ["no update was made"] and made.broken() == []
    assert made.as_json() == {
        "held_out": {},
        "last_tenth": None,
        "whole_stage": {"updates": 0, "rows": 0, "tokens": 0, "seconds": 0.0, "responses": 8},
    }


def page(folder: Path, summary: dict[str, Any], rows: list[dict[str, float]], state: str = "done") -> str:
    stage = folder / "rm"
    stage.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"stages": [{"name": "rm", "state": state}]}))
    (stage / "summary.json").write_text(json.dumps(summary))
    (stage / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    return html.write(folder).read_text(encoding="utf-8")


def test_the_report_puts_no_last_step_beside_a_curve(tmp_path: Path) -> None:
    """Of a stage that is done what its summary says; of one that failed the mean of its last tenth so far; of one whose
    kept weights are from before the first update nothing."""
    rows = [row(i, accuracy=0.375 if i == 20 else 0.8) for i in range(1, 21)]
    stored = {"last_tenth": {"steps": [19, 20], "of": 20, "means": {"accuracy": 0.61}}}
    done = page(tmp_path / "done", stored, rows)
    assert "0.8 → 0.61" in done and "0.375" not in done and "from 0.8 to 0.61" in done
    failed = page(tmp_path / "failed", {}, rows, "failed")
    assert "0.8 → 0.588" in failed and "from 0.8 to 0.5875" in failed and "0.375" not in failed
    none = page(
        tmp_path / "none", {"last_tenth": None, "best_checkpoint": {"step": 0, "evaluations": 2, "metric": "x"}}, rows
    )
    assert "0.8 → –" in none and "those after update 0" in none and "0.375" not in none
    for odd in (3, [1], {"means": 3}, {"means": {"accuracy": "high", "loss": None}}):
        assert "0.8 → –" in page(
            tmp_path / str(hash(str(odd))), {"last_tenth": odd, "held_out": odd, "kept": odd}, rows
        )
