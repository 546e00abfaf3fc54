"""A verifier as reward and as judge: the arithmetic recipe in small, GSM8K's plumbing, and what is refused."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from truing.errors import RecipeError
from truing.recipe.check import check
from truing.run import runner as running

HOME = Path(__file__).parent.parent.parent
TINY = [
    "warm.data=world:arithmetic?n=16&shown=either",
    "warm.steps=2",
    "policy.steps=2",
    "policy.rows_per_step=2",
    "policy.group_size=3",
    "policy.max_new_tokens=6",
    "exam.samples=5",
    "exam.samples_per_prompt=4",
    "exam.max_new_tokens=6",
]
EXAM = """\
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: "world:arithmetic?n=200", digits: single}
stages:
  data: {do: split, data: DATA, read: prompts, columns: {prompt: question}, eval: 0.5}
  warm: {do: sft, model: $base, data: "world:arithmetic?n=8", steps: 1}
  exam: {do: evaluate, models: [$warm], against: $base, prompts: $data.eval, samples: 4, max_new_tokens: 4, MORE}
"""
MINE = """\
from truing.registry import reward

@reward(scope="response")
def told(response, final_answer):
    return float(final_answer in response)

@reward(scope="response")
def broken(response, final_answer):
    raise ValueError("no verifier today")

@reward(scope="response")
def counting(response, tokens):
    return -tokens
"""


def findings(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    rows = json.loads((out / "exam" / "findings.json").read_text())["findings"]
    return {(f["check"], f["model"]): f for f in rows}


def test_the_recipe_splits_teaches_verifies_and_measures(real_data: Path, tmp_path: Path) -> None:
    data = real_data / "simple_arithmetic/problems.dev.jsonl.gz"
    recipe = check(HOME / "recipes/arithmetic_grpo.yaml", [f"data={data}", *TINY])
    assert set(recipe.expect) == {"exam.policy.pass_at_1_delta"}
    wide = dataclasses.replace(recipe, expect=dict.fromkeys(recipe.expect, (-1.0, 1.0)))
    assert running.run(wide, tmp_path, quiet=True) == 4, "five problems are too few for an interval"
    stored = json.loads((tmp_path / "data/split.json").read_text())
    with gzip.open(data) as file:
        rows = [json.loads(line) for line in file]
    groups = [{rows[row - 1]["group"] for row in stored[part]} for part in ("train", "eval")]
    assert not groups[0] & groups[1] and len(stored["train"]) + len(stored["eval"]) == len(rows)
    metrics = [json.loads(line) for line in (tmp_path / "policy/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["score"] <= 1 for row in metrics)
    found = findings(tmp_path)
    for model in ("policy", "warm"):
        once, ever = found["pass_at_1", model], found["pass_at_4", model]
        assert once["n"] == ever["n"] == 5 and 0 <= once["value"] <= ever["value"] <= 1
        assert ever["interval"] is None, "five prompts are too few"
        assert once["value"] == pytest.approx(found["mean_score", model]["value"])
        assert once["evidence"].endswith("5 prompts, 4 responses to each, right from 1 on; judged by reward verifier")
    assert found["pass_at_1_delta", "policy"]["against"] == "warm"


def test_each_digit_is_a_token_and_the_rest_is_as_it_was() -> None:
    from truing.policy.fresh import tokenizer_from

    texts = ["order 714 of 2024 costs 432 dollars"] * 20
    single, joined = tokenizer_from(texts, 320, "single"), tokenizer_from(texts, 320)
    assert single.tokenize("714+2024") == list("714+2024")
    assert joined.tokenize("714+2024") == ["714", "+", "2024"]
    assert single.decode(single("it costs 714.").input_ids) == "it costs 714."


def gsm8k(real_data: Path, folder: Path, count: int = 12) -> Path:
    with gzip.open(real_data / "gsm8k/test.dev.jsonl.gz", "rt") as file:
        lines = [next(file) for _ in range(count)]
    (folder / "gsm.jsonl").write_text("".join(lines))
    return folder / "gsm.jsonl"


def test_gsm8k_is_read_and_its_own_solutions_are_right(real_data: Path, tmp_path: Path) -> None:
    """What the judge is given are the file's columns: the reference behind ####, which a changed number does not meet."""
    from truing.data.formats import loading
    from truing.rewards.builtin_verifier import verifier
    from truing.rewards.call import Call, Response
    from truing.stages.loaded_rewards import columns_of

    records = loading.load(str(gsm8k(real_data, tmp_path, 40)), want="prompts", columns={"prompt": "question"})
    assert len(records) == 40
    call = Call(verifier)
    for record in records.records:
        row = columns_of(record)
        reference, final = row["answer"], row["final_answer"]
        said = [
            reference,
            f"So it is {final}.",
            f"#### {final}1",
            reference.replace("#### ", "#### 1"),
            "I do not know",
        ]
        scores = call([Response(record.prompt, text, row=row) for text in said])
        assert [s.value for s in scores] == [1, 1, 0, 0, 0], reference


@pytest.mark.parametrize("judge", ["verifier", "{verifier: {column: final_answer, wrong: -1}}", "mine.py:told"])
def test_any_reward_judges_by_the_columns_of_the_prompts(judge: str, real_data: Path, desk: Any) -> None:
    gsm8k(real_data, desk.folder)
    (desk.folder / "mine.py").write_text(MINE)
    desk.write(EXAM.replace("DATA", "gsm.jsonl").replace("MORE", f"judge: {judge}, samples_per_prompt: 2, passing: 1"))
    assert desk.run() == 0, desk.said
    found = findings(desk.out)
    name = judge.strip("{}").split(":")[-1] if "mine" in judge else "verifier"
    assert found["win_rate", "warm"]["evidence"].endswith(f"judged by reward {name}")
    assert found["win_rate", "warm"]["n"] == 4 and ("pass_at_2_delta", "warm") in found
    (desk.folder / "mine.py").write_text(MINE + "\n# changed\n")
    assert desk.run() == 0
    assert desk.states()["exam"] == ("done" if "mine" in judge else "reused"), "a judge's file is part of the stage"


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        ("judge: mine.py:broken", 3, "the reward failed on response 1: ValueError: no verifier today"),
        ("judge: mine.py:counting", 2, "reward 'counting' reads tokens, and a judge reads text"),
        ("judge: {verifier: {column: solution}}", 2, "a prompt's row has no 'solution' to compare answers with"),
    ],
)
def test_a_judge_that_cannot_judge_ends_the_run(more: str, code: int, told: str, real_data: Path, desk: Any) -> None:
    gsm8k(real_data, desk.folder)
    (desk.folder / "mine.py").write_text(MINE)
    desk.write(EXAM.replace("DATA", "gsm.jsonl").replace("MORE", more))
    assert desk.run() == code and told in desk.said, desk.said


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("judge: {verifier: {weight: 2}}", "'weight' has no effect on a reward that judges alone"),
        ("judge: {cost: {of: verifier, budget: 1}}", "a cost is no judge; give the reward itself"),
        ("judge: {verifer: {}}", "unknown reward 'verifer'. Did you mean 'verifier'"),
        ("judge: {verifier: {answer: numbers}}", "answer must be one of number, math, text, got 'numbers'"),
        ("judge: verifier, aggregate: worst", "aggregate is for an ensemble, and judge is verifier"),
        ("judge: {gold: {}}", "judge is gold, which knows the truth of prompts of the world only"),
        ("judge: [verifier, length]", "there is no"),
    ],
)
def test_what_is_no_judge_is_said_before_anything_runs(more: str, told: str, desk: Any) -> None:
    (desk.folder / "gsm.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    desk.write(EXAM.replace("DATA", "gsm.jsonl").replace("MORE", more))
    with pytest.raises(RecipeError, match=told.replace("'", ".")):
        check(desk.folder / "r.yaml")


def test_rows_that_ask_what_is_held_out_are_left_out_of_training(desk: Any) -> None:
    rows = [{"prompt": f"{i} + {i} =", "response": f"{2 * i}"} for i in range(20)]
    texts = [{"text": f"5 + 5 = 10\n{i} + {i} = {2 * i}"} for i in (3, 15, 30)]
    for name, some in (
        ("held.jsonl", rows[:10]),
        ("all.jsonl", rows),
        ("texts.jsonl", texts),
        ("low.jsonl", rows[3:4]),
    ):
        (desk.folder / name).write_text("".join(json.dumps(r) + "\n" for r in some))
    desk.write(
        "base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: all.jsonl}\n"
        "stages:\n"
        "  warm: {do: sft, model: $base, data: all.jsonl, without: held.jsonl, steps: 1}\n"
        "  text: {do: pretrain, model: $base, data: texts.jsonl, without: low.jsonl, steps: 1}\n"
    )
    assert desk.run() == 0, desk.said
    assert "kept 10 rows, truncated 0, dropped 10 (prompt has what one of held.jsonl asks: rows 1, 2," in desk.said
    assert "kept 2 rows, truncated 0, dropped 1 (prompt has what one of low.jsonl asks: row" in desk.said
    desk.write((desk.folder / "r.yaml").read_text().replace("without: held.jsonl", "without: all.jsonl"))
    assert (
        desk.run("--overwrite") == 2
        and "nothing is left to train on: each of its 20 rows has what one of all.jsonl" in desk.said
    )
