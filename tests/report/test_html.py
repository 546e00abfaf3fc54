"""The page: whole, partial, empty, damaged, and hostile."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from truing.errors import UserError
from truing.evaluate.winrate import win_rate
from truing.records import Finding
from truing.report import html, words
from truing.report.curves import choose, curve, intervals

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'></script></style></svg>--><!--\u202e{{7*7}}$x_1$"


KNOWN = (
    "html head meta title style body main header section footer article h1 h2 h3 p b small span div table thead tbody "
    "tr th td ul li pre figure figcaption svg g path defs use rect clippath text"
)
Whole = Callable[..., Path]


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, whole_run: Whole) -> str:
    return html.write(whole_run(tmp_path_factory.mktemp("run"))).read_text(encoding="utf-8")


def test_it_says_what_a_reader_needs(page: str) -> None:
    for said in (
        "<b>Hold</b>",
        "1 of 2 met",
        "direct beats warm: win rate 66 % (62–70 %; ties half); 500 prompts: 310 won, 40 tied, 150 lost; judged by gold.",
        "policy is worse than warm",
        "Responses of direct are 6.4 tokens longer",
        "9.31 nats per response",
        "4,000 rows read, 3,956 usable",
        "and 21 more",
        "On red-team",
        "objective: {dpo: {beta: 0.1}}",
        "torch 2.11.0",
        "AVX2",
        "a41be0c37d2aa903",
        "6 min 52 s",
        "tokens/s",
    ):
        assert said in page, said
    assert page.count("<svg") == 10  # the intervals, one curve of warm, four each of rm and direct


def test_ties_are_not_worded_as_wins() -> None:
    found = win_rate("direct", [1.0] * 30 + [0.0] * 64 + [-1.0] * 6, "warm", [0.0] * 100, [f"p{i}" for i in range(100)])
    assert words.summary(found[:1]) == (
        "direct beats warm: win rate 62 % (56–68 %; ties half); 100 prompts: 30 won, 64 tied, 6 lost; judged by gold."
    )
    level = words.summary([Finding("win_rate", "a", 0.5, "b", n=4)])
    assert level == "a and b cannot be told apart: win rate 50 % (ties half) on 4 prompts."


def test_what_a_stage_left_out_is_on_the_page(tmp_path: Path) -> None:
    put(tmp_path / "manifest.json", {"stages": [{"name": "exam", "do": "evaluate"}]})
    put(tmp_path / "exam/summary.json", {"do": "evaluate", "notes": ["no KL of a to b: their tokenizers differ"]})
    assert "<li>no KL of a to b: their tokenizers differ</li>" in html.write(tmp_path).read_text(encoding="utf-8")


def test_it_loads_nothing(page: str) -> None:
    assert "http://" not in page and "https://" not in page
    for tag, attrs in Tags(page).seen:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert (attrs.get(name) or "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", page)


def test_ids_are_unique_and_pointed_at(page: str) -> None:
    seen = Tags(page).seen
    ids = [str(a["id"]) for _, a in seen if a.get("id")]
    assert len(ids) == len(set(ids))
    used = {str(a["href"])[1:] for _, a in seen if a.get("href")} | set(re.findall(r"url\(#([\w.-]+)\)", page))
    assert used <= set(ids)


def test_the_same_run_gives_the_same_page(tmp_path: Path, whole_run: Whole) -> None:
    run = whole_run(tmp_path)
    assert html.write(run).read_bytes() == html.write(run, out=tmp_path / "b.html").read_bytes()


def test_hostile_text_is_inert(tmp_path: Path, whole_run: Whole) -> None:
    text = html.write(whole_run(tmp_path / "run", NASTY)).read_text(encoding="utf-8")
    assert "<script" not in text.lower() and "<img" not in text and "\u202e" not in text and "⟨U+202E⟩" in text
    assert "&lt;script&gt;alert(1)" in text and "{{7*7}}" in text
    tags = Tags(text).seen
    assert not [a for _, attrs in tags for a in attrs if a.startswith("on")]
    assert {t for t, _ in tags} <= set(KNOWN.split())
    assert text.count("</svg>") == text.count("<svg") and text.count("</style>") == 1


def test_hostile_text_in_pictures() -> None:
    drawn = intervals([Finding("win_rate", NASTY[:30], 0.6, "<b>", interval=(0.5, 0.7), n=3)])
    assert "<script" not in drawn and "<b>" not in drawn and "&lt;script&gt;" in drawn
    drawn = curve([{"step": i, '"><script>': 1.0} for i in range(3)], '"><script>')
    assert "<script" not in drawn


def test_an_empty_run_and_no_run(tmp_path: Path) -> None:
    put(tmp_path / "manifest.json", {})
    text = html.write(tmp_path).read_text(encoding="utf-8")
    assert "Nothing has been measured" in text and "No gate" in text and "<svg" not in text
    (tmp_path / "other").mkdir()
    for name in ("absent", "other"):
        with pytest.raises(UserError, match="there is no such run; a run's folder has a manifest"):
            html.write(tmp_path / name)


@pytest.mark.parametrize("piece", ["decision.json", "exam/findings.json", "rm/metrics.jsonl"])
def test_a_missing_piece_is_left_out(tmp_path: Path, whole_run: Whole, piece: str) -> None:
    (whole_run(tmp_path) / piece).unlink()
    text = html.write(tmp_path).read_text(encoding="utf-8")
    assert "Could not be read" not in text and text.rstrip().endswith("</html>")


def test_a_damaged_piece_is_named(tmp_path: Path, whole_run: Whole) -> None:
    whole_run(tmp_path)
    (tmp_path / "exam/findings.json").write_text('{"findings": [')
    (tmp_path / "decision.json").write_text("[1, 2]")
    with (tmp_path / "rm/metrics.jsonl").open("a") as file:
        file.write('{"step": 181, "lo')
    text = html.write(tmp_path).read_text(encoding="utf-8")
    assert "exam/findings.json: cannot be read" in text
    assert "rm/metrics.jsonl: 1 line could not be read" in text


def test_odd_shapes_do_not_break_the_page(tmp_path: Path) -> None:
    put(tmp_path / "manifest.json", {"title": 3, "stages": [3, {"name": "a"}], "seconds": "soon", "versions": None})
    odd = {"figures": [3, {"name": None}], "tables": [{"title": "t", "rows": 3}], "notes": "n", "data": {"notes": [{}]}}
    put(tmp_path / "a/summary.json", odd)
    put(tmp_path / "a/examples.json", [{"prompt": 3, "responses": {"m": "text", "k": {"text": None, "score": "x"}}}])
    (tmp_path / "a/metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n{"loss": Infinity}\n3\n')
    put(
        tmp_path / "a/findings.json", {"findings": [{"check": "win_rate", "value": 0.5, "interval": [1]}, {"value": 1}]}
    )
    text = html.write(tmp_path).read_text(encoding="utf-8")
    assert "2 of its values are not numbers" in text and "finding 2: has no check" in text


def test_curves_choose_what_matters_and_stay_small() -> None:
    rows = [
        {"step": i, "tokens": 1.0, "zeta": 1.0, "kl": 0.1, "loss": 1.0, "reward": 1.0, "eta": 2.0} for i in range(5)
    ]
    assert choose(rows) == ["loss", "reward", "kl", "zeta"]
    assert choose([{"step": 1, "loss": 1.0, "learned_tokens": 9.0, "rows": 2.0}]) == ["loss"], "a count has no curve"
    long = [{"step": i, "loss": float(i % 7)} for i in range(50_000)]
    assert len(curve(long, "loss")) < 60_000
    assert curve([{"step": 1}], "loss") == ""


def test_lengths_that_cannot_be_told_apart_are_not_called_equal_or_different() -> None:
    """A difference whose interval holds 0 is no equality, and one without an interval is no difference."""
    both = Finding("mean_length_delta_tokens", "a", 3.2, "b", interval=(-1.0, 7.4), n=40)
    few = Finding("mean_length_delta_tokens", "a", 3.2, "b", n=4)
    unclear = "Responses of a cannot be told to be longer or shorter than those of b: +3.2 tokens"
    assert words.summary([both]) == f"{unclear} (−1.0 to +7.4)."
    assert words.summary([few]) == f"{unclear}, too few to say."
