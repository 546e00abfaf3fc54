"""Real judgements of every kind, converted in a few lines: the rows, ties and pairs that become of them are those that
can be counted in the raw files. Converted rows are written and read like a user's."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from truing.data.batch import Tree
from truing.data.formats.loading import load, summary
from truing.data.kinds import Shape, Ties
from truing.data.rendering.render import Renderer
from truing.data.trees import TreeDataset, build_trees
from truing.errors import DataError
from truing.policy.fresh import tokenizer_from
from truing.records import Judgement, Records

pytestmark = pytest.mark.data
Write = Callable[..., str]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(tokenizer_from(["the best answer of all is the one that was asked for"] * 5, 300))


@pytest.fixture(scope="module")
def raw(real_data: Path) -> Callable[[str], list[dict[str, Any]]]:
    def rows(name: str) -> list[dict[str, Any]]:
        with gzip.open(real_data / f"{name}.dev.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    return rows


Raw = Callable[[str], list[dict[str, Any]]]


def dataset(records: Records, renderer: Renderer, shape: Shape, ties: Ties = "refused") -> TreeDataset:
    return build_trees(records, renderer, max_length=10**6, shape=shape, on_bad_row="drop", ties=ties)


def roles(trees: tuple[Tree, ...]) -> Counter[str]:
    return Counter(branch.role for tree in trees for branch in tree.branches)


def pandalm(row: dict[str, Any]) -> dict[str, Any]:
    """Up to five models' answers; each of three raters said of two: 1 or 2 is better, 0 a tie."""
    models = list(row["responses"])
    votes = [(models.index(a), models.index(b), vote) for a, b, *three in row["votes"] for vote in three]
    said = [[i, j, {0: 0.5, 1: 1, 2: 0}[vote]] for i, j, vote in votes]
    return {"prompt": row["prompt"], "responses": list(row["responses"].values()), "comparisons": said}


def test_votes_of_three_raters_with_ties(raw: Raw, write: Write, renderer: Renderer) -> None:
    found = raw("pandalm_testset/kwise")
    source = write([pandalm(row) for row in found])
    with pytest.raises(DataError, match=r"8 rows cannot be used\n.*row 16, field responses\[0\]: is true or false"):
        load(source)
    records = load(source, want="pairs", on_bad_row="drop")
    empty = [i + 1 for i, r in enumerate(found) if not all(str(t).strip() for t in r["responses"].values())]
    assert sorted(set(range(1, 114)) - set(records.rows)) == sorted([16, *empty])

    used = [found[row - 1] for row in records.rows]
    differ = [v for r in used for v in r["votes"] if r["responses"][v[0]] != r["responses"][v[1]]]
    votes = Counter(vote for _, _, *three in differ for vote in three)
    noted = {n["problem"]: n["count"] for n in summary(records)["notes"] if n["action"] == "kept"}
    same = sum(len(set(r["responses"].values())) < len(r["responses"]) for r in used)
    assert noted == {"holds the same response twice": same}

    plain = dataset(records, renderer, "pairs")
    assert sum(t.rows for t in plain.trees) == votes[1] + votes[2]
    tied = sum(any(0 in three for _, _, *three in r["votes"]) for r in used)
    alone = sum(n.problem.startswith("this row holds nothing but ties") for n in plain.notes)
    assert sum("some are ties" in n.problem for n in plain.notes) == tied - alone
    for ties, signal in (("half", "preference_B"), ("outcome", "tie_B")):
        every = dataset(records, renderer, "pairs", ties)  # type: ignore[arg-type]
        assert sum(t.rows for t in every.trees) == sum(votes.values())
        assert sum(signal in pair.values for t in every.trees for pair in t.pairs) == votes[0]
        assert [len(t.branches) for t in every.trees] == [len(found[t.row - 1]["responses"]) for t in every.trees]

    first, row = plain.trees[0], found[plain.trees[0].row - 1]
    (a, b, *three), models = row["votes"][0], list(row["responses"])
    better, worse = (a, b) if three[0] == 1 else (b, a)
    assert (first.pairs[0].better, first.pairs[0].worse) == (models.index(better), models.index(worse))


def test_ratings_of_three_raters_by_name(raw: Raw, write: Write, renderer: Renderer) -> None:
    """The texts of HANNA are not part of the set, the ratings are: a story stands here as its number and its system."""
    found = raw("hanna_ratings/ratings")
    rows = [
        {"prompt": f"{r['prompt_idx']}", "response": f"{r['story_id']} {r['system']}", "scores": r["ratings"]}
        for r in found
    ]
    records = load(write(rows), want="pairs")
    trees = dataset(records, renderer, "scored").trees
    assert (len(trees), roles(trees)) == (726, {"response": 726})
    wanted = [{name: fmean(three) for name, three in r["ratings"].items()} for r in found]
    assert [dict(t.branches[0].targets) for t in trees] == wanted and len(wanted[0]) == 6
    [spread] = records.records[0].meta["spread"]
    assert spread["relevance"] == pytest.approx((7 / 3) ** 0.5), "ratings of 4, 5 and 2"

    by_prompt: dict[int, list[dict[str, Any]]] = {}
    for r in found:
        by_prompt.setdefault(r["prompt_idx"], []).append(r)
    several = [
        {
            "prompt": f"{prompt}",
            "responses": [f"{r['story_id']} {r['system']}" for r in group],
            "scores": [r["ratings"]["coherence"] for r in group],
        }
        for prompt, group in by_prompt.items()
    ]
    trees = dataset(load(write(several)), renderer, "pairs").trees
    means = [[sum(r["ratings"]["coherence"]) for r in group] for group in by_prompt.values()]
    assert [t.rows for t in trees] == [sum(a != b for a, b in combinations(m, 2)) for m in means]


def test_solutions_that_are_right_or_wrong(raw: Raw, write: Write, renderer: Renderer) -> None:
    found = raw("gsm8k/model_solutions")[:60]
    rows = [
        {
            "prompt": r["question"],
            "responses": [s["solution"] for s in r["solutions"].values()],
            "labels": [s["is_correct"] for s in r["solutions"].values()],
        }
        for r in found
    ]
    records = load(write(rows), want="pairs")
    right = [sum(row["labels"]) for row in rows]
    trees = dataset(records, renderer, "labelled").trees
    assert len(trees) == 60 and roles(trees) == {"desirable": sum(right), "undesirable": 240 - sum(right)}
    outcomes = dataset(records, renderer, "outcomes").trees
    assert [b.targets[""] for t in outcomes for b in t.branches] == [float(x) for row in rows for x in row["labels"]]
    assert all(len(b.steps) == sum(b.loss) for t in outcomes for b in t.branches), "every token is asked"
    pairs = dataset(records, renderer, "pairs")
    mixed = [n for n in right if 0 < n < 4]
    assert [t.rows for t in pairs.trees] == [n * (4 - n) for n in mixed]
    assert sum(n.action == "dropped" for n in pairs.notes) == 60 - len(mixed)


def test_compliance_with_safe_prompts(raw: Raw, write: Write, renderer: Renderer) -> None:
    """Responses are there for two models on safe prompts only; what complied in part is left out."""
    found = [r for r in raw("xstest/human_labels") if r["completion"] is not None]
    assert {(r["model"], r["prompt_label"]) for r in found} == {("mistralinstruct", "safe"), ("mistralguard", "safe")}
    label = {"1_full_compliance": True, "2_full_refusal": False}
    rows = [
        {"prompt": r["prompt"], "completion": r["completion"], "label": label[r["final_label"]]}
        for r in found
        if r["final_label"] in label
    ]
    trees = dataset(load(write(rows), want="pairs"), renderer, "labelled").trees
    assert roles(trees) == {"desirable": 329, "undesirable": 25} and len(trees) == 354


def test_pairs_agreed_on_by_experts(raw: Raw, write: Write, renderer: Renderer) -> None:
    found = raw("llmbar/items")[:100]
    rows = [
        {"prompt": r["prompt"], "chosen": r[f"output_{r['label']}"], "rejected": r[f"output_{3 - r['label']}"]}
        for r in found
    ]
    trees = dataset(load(write(rows), want="pairs"), renderer, "pairs").trees
    assert len(trees) == 100 and roles(trees) == {"chosen": 100, "rejected": 100}
    assert renderer.tokenizer.decode(trees[0].branches[0].ids, skip_special_tokens=True) == rows[0]["chosen"]


def test_human_pairs(real_data: Path, renderer: Renderer) -> None:
    """The whole set is read in test_formats; of its first hundred rows one (55) has an empty response."""
    records = load(str(real_data / "hh_harmless_base_test" / "pairs.dev.jsonl.gz"), on_bad_row="drop")
    records = records.subset([i for i, row in enumerate(records.rows) if row <= 100], "hh")
    trees = dataset(records, renderer, "pairs").trees
    assert [t.row for t in trees] == [row for row in range(1, 101) if row != 55]
    assert all(isinstance(r, Judgement) and r.verdict.kind == "choice" for r in records.records)
    for shape in ("labelled", "ranked", "scored", "outcomes"):
        assert len(dataset(records.subset(range(10), "few"), renderer, shape).trees) == 10
