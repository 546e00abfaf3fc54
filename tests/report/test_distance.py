"""Curves over the distance on the page: drawn, told in a table, damaged, hostile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.report import html
from truing.report.curves import over_distance
from truing.report.distance import COLUMNS, Way

FIT = {"alpha": 0.6, "alpha_interval": [0.5, 0.7], "beta": 0.4, "beta_interval": None, "misfit": 1.1}
ROW = {
    "name": "plain", "form": "rl", "word": "turns", "best": 1, "prompts": 1200, "at": [0, 5, 10],
    "distance": [0.0, 1.0, 2.0], "kl": [0.0, 1.0, 4.0], "proxy": [1.0, 2.5, 4.0], "gold": [0.1, 0.4, -0.2],
    "proxy_error": [0.1, 0.1, 0.1], "gold_error": [0.02, None, 0.02], "fit": FIT | {"line": [[0, 0.1], [2, -0.2]]},
}  # fmt: skip


def page(folder: Path, rows: list[object], truth: str = "gold") -> str:
    (folder / "over").mkdir()
    (folder / "manifest.json").write_text(json.dumps({"stages": [{"name": "over", "do": "diagnose", "state": "done"}]}))
    (folder / "over" / "curve.json").write_text(json.dumps({"truth": truth, "curves": rows}))
    return html.write(folder).read_text(encoding="utf-8")


def test_curves_are_drawn_and_told(tmp_path: Path) -> None:
    text = page(tmp_path, [ROW, ROW | {"name": "picked", "form": "best_of", "fit": None}])
    assert text.count("<svg") == 1 and "Over-optimisation" in text
    assert "plain: gold turns, from 0.1 to -0.2" in text
    for said in ("update 5", "n = 5", "1,200", "0.6 [0.5, 0.7]", "turns"):
        assert said in text, said


def test_a_row_of_the_table_has_a_cell_for_each_column() -> None:
    cells = Way.from_json(ROW).cells()
    assert len(cells) == len(COLUMNS)
    assert cells[COLUMNS.index("proxy gained")] == "3" and cells[COLUMNS.index("beta")] == "0.4"
    assert cells[COLUMNS.index("misfit")] == "1.1"
    assert Way.from_json(ROW | {"fit": {}}).cells()[COLUMNS.index("alpha")] == "–"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gold": [0.1]}, "'gold' has not one number for each evaluation"),
        ({"kl": [0, 1, float("nan")]}, "'kl' has not one number"),
        ({"at": []}, "'at' has not one number"),
        ({"best": 3}, "'best' is no evaluation"),
    ],
)
def test_a_damaged_curve_is_named_and_the_others_are_drawn(change, said, tmp_path: Path) -> None:
    text = page(tmp_path, [ROW | change, ROW])
    assert "over/curve.json, curve 1: " in text and said.replace("'", "&#39;") in text
    assert text.count("<svg") == 1


def test_errors_that_are_not_known_are_not_drawn() -> None:
    assert Way.from_json(ROW).gold_error is None and Way.from_json(ROW).proxy_error == [0.1, 0.1, 0.1]


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    nasty = '"><script>alert(1)</script>\u202e$x_1$'
    text = page(tmp_path, [ROW | {"name": nasty, "word": nasty}], truth=nasty)
    assert "<script" not in text and "\u202e" not in text and "&lt;script&gt;" in text


def test_no_curve_has_no_picture() -> None:
    assert over_distance([], "gold") == ""
