"""What must not ship, as whole recipes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from truing.recipe.check import check
from truing.run import runner as running

CASES = Path(__file__).parent
LETTERS = 450


def short_pairs(whole: str, out: Path) -> Path:
    """The pairs of a file whose prompt and responses are short, one message each to choose from."""
    with gzip.open(whole, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    sides = ("prompt", "chosen", "rejected")
    short = [
        {side: row[side] for side in sides}
        for row in rows
        if sum(len(m["content"]) for side in sides for m in row[side]) < LETTERS
        and len(row["chosen"]) == len(row["rejected"]) == 1
        and row["chosen"][0]["content"].strip()
    ]
    out.write_text("".join(json.dumps(row) + "\n" for row in short), encoding="utf-8")
    return out


@pytest.mark.data
@pytest.mark.slow
def test_word_salad_does_not_ship(hh: str, tmp_path: Path) -> None:
    """By its own reward model, right in 59 % of held-out pairs, the policy wins more than three of four answers."""
    data = short_pairs(hh, tmp_path / "pairs.jsonl")
    code = running.run(check(CASES / "word_salad.yaml", [f"data={data}"]), tmp_path / "run", quiet=True)
    decision = json.loads((tmp_path / "run/decision.json").read_text())
    assert (code, decision["verdict"]) == (4, "undecided")
    rows = json.loads((tmp_path / "run/exam/findings.json").read_text())["findings"]
    found: dict[str, Any] = {f["check"]: f for f in rows}
    assert found["judged_win_rate"]["interval"][0] > 0.6, "as judged it would ship"
    assert 0.5 < found["judge_accuracy"]["value"] < 0.66
    why = found["win_rate"]["reservation"]
    assert why.endswith("is below 0.6 at its lower end: it decides nothing") and found["win_rate"]["interval"] is None
    assert why in decision["results"][0]["text"]
    page = (tmp_path / "run/report.html").read_text()
    assert page.index("Judged by reward model rm, right in 0.") < page.index("Results")
