"""Diagnosing over-optimisation as a user meets it: the recipe that ships, best-of-n, and the report."""

import json
from pathlib import Path

import pytest

from truing.errors import UserError
from truing.recipe.check import check
from truing.run import runner as running

HOME = Path(__file__).parent.parent.parent
RUNS = ("plain", "leashed", "worst", "early")
SMALL = [
    "base={new: llama, hidden: 32, layers: 1, vocab: 300, text: 'world:text?n=40'}",
    "demonstrations=world:demonstrations?n=16",
    "prompts=world:prompts?n=6",
    "held_out=world:prompts?n=4&split=eval",
    "fresh=world:prompts?n=4&split=eval&seed=1",
    *(f"pairs{i}=world:comparisons?n=4&rater=careful+length:1&seed={i or 1}" for i in ("", 2, 3)),
    "warm.steps=2",
    *(
        f"{run}.{option}"
        for run in RUNS
        for option in ("steps=4", "rows_per_step=2", "group_size=2", "max_new_tokens=4", "monitor_every=1")
    ),
    "early.patience=9",
    "exam.samples=4",
    "exam.max_new_tokens=4",
    "picked.samples=3",
    "picked.n=4",
    "picked.max_new_tokens=4",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The recipe that ships, run in miniature."""
    folder = tmp_path_factory.mktemp("run")
    assert running.run(check(HOME / "recipes" / "overoptimisation.yaml", SMALL), folder) == 0
    return folder


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_every_run_has_a_curve_of_its_own_looks(run) -> None:
    drawn = read(run, "curves/curve.json")
    assert drawn["truth"] == "gold" and [c["name"] for c in drawn["curves"]] == list(RUNS)
    for one in drawn["curves"]:
        looks = [json.loads(line) for line in (run / one["name"] / "monitor.jsonl").read_text().splitlines()]
        assert one["at"] == [look["step"] for look in looks] == [0, 1, 2, 3, 4]
        assert one["gold"] == [look["gold"] for look in looks] and one["proxy"] == [look["proxy"] for look in looks]
        assert one["kl"] == [look["kl"] for look in looks] and one["kl"][0] == pytest.approx(0, abs=1e-4)
        assert (one["against"], one["prompts"]) == ("warm", 4)


def test_findings_are_of_the_runs_against_their_start(run) -> None:
    found = read(run, "curves/findings.json")["findings"]
    assert {(f["model"], f["against"]) for f in found} == {(name, "warm") for name in RUNS}
    assert {"gold_peak_kl_nats", "gold_lost_after_peak", "gold_gained", "proxy_gained"} <= {f["check"] for f in found}
    assert read(run, "curves/summary.json")["headline"].startswith("plain: gold ")


def test_best_of_n_has_a_curve_of_its_own(run) -> None:
    (one,) = read(run, "picked/curve.json")["curves"]
    assert (one["name"], one["form"], one["prompts"]) == ("warm best of n", "best_of", 3)
    assert one["at"][0] == 1 and one["at"][-1] == 4
    assert one["proxy"] == sorted(one["proxy"])


def test_the_report_draws_both(run) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Over-optimisation" in page and "<h3>curves</h3>" in page and "<h3>picked</h3>" in page
    assert page.count("gold and proxy over the square root of the KL") == 2


def test_runs_that_watched_nothing_and_strange_truths_are_the_user_s_to_mend(tmp_path) -> None:
    recipe = tmp_path / "r.yaml"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    recipe.write_text(f"title: t\nstages:\n  curves: {{do: diagnose, runs: ['{tmp_path / 'old'}']}}\n")
    with pytest.raises(UserError, match=r"(?s)monitor\.jsonl: cannot be read .*`monitor: \[gold\]`"):
        running.run(check(recipe, []), tmp_path / "out")
