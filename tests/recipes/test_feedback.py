"""Answers as data: sampled, judged, and learned from; every answer that no row is made of is counted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from truing.data.formats import loading
from truing.errors import RecipeError
from truing.recipe.check import check
from truing.recipe.references import Ref
from truing.records import Demonstration, Judgement, Message
from truing.rollout import experience, stored
from truing.rollout.experience import Experience
from truing.run import plan as planning

PROMPTS = [(Message("system", "Be brief."), Message("user", f"question {i}")) for i in range(4)]
LIVED = [  # group, answer, score, stop, why
    (0, "worst", -1.0, "eos", ""), (0, "good", 2.0, "eos", ""), (0, "good", 2.0, "eos", ""), (0, "fair", 0.5, "eos", ""),
    (0, "cut of", 9.0, "length", ""), (0, " ", 8.0, "eos", ""), (0, "lost", math.nan, "eos", "reward 'rm': ValueError"),
    (1, "same", 1.0, "eos", ""), (1, "alike", 1.0, "string", ""),
    (2, "lone", 0.0, "eos", ""),
    (3, "two", 2.0, "eos", ""), (3, "one", 1.0, "eos", ""),
]  # fmt: skip
MINE = """\
from truing.registry import reward

@reward(scope="response")
def warmth(response, tone):
    \"\"\"How often the tone's letter is in it.\"\"\"
    if "e" in response:
        raise ValueError("an e")
    return response.count(tone)
"""
HEAD = "title: small\nbase: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}\nstages:\n"


def lived(scored: bool = True) -> list[Experience]:
    return [
        Experience(
            g + 1, PROMPTS[g], text, (1, 2), (3, 4), (-0.5, -0.25), (), (), score if scored else math.nan,
            stop, g, 0, (("rm", score), ("multiplier:c", 1.0)) if scored and not why else (), why if scored else "",
        )
        for g, text, score, stop, why in LIVED
    ]  # fmt: skip


@pytest.fixture
def asked(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder with prompts that have a column, experience, a file of rewards, and one of texts with scores."""
    rows = [{"prompt": f"question {i}", "tone": "o"} for i in range(6)]
    (desk.folder / "asked.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    more = [*rows, {"prompt": "another"}, {"prompt": "a third"}]
    (desk.folder / "more.jsonl").write_text("".join(json.dumps({"prompt": r["prompt"]}) + "\n" for r in more))
    texts = [{"prompt": "q", "responses": ["a", "b", "c"], "scores": [0, 2, 1]}, {"prompt": "p", "response": "only"}]
    (desk.folder / "scores.jsonl").write_text(json.dumps(texts[0]) + "\n")
    (desk.folder / "texts.jsonl").write_text("".join(json.dumps(texts[1] | {"response": r}) + "\n" for r in "xyz"))
    (desk.folder / "mine.py").write_text(MINE)
    experience.write(desk.folder / "lived.parquet", lived())
    monkeypatch.chdir(desk.folder)
    return desk


def rows_of(desk: Any, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (desk.out / stage / "data.jsonl").read_text().splitlines()]


def texts(value: Any) -> Any:
    return [texts(v) for v in value] if isinstance(value[0], list) else value[0]["content"]


def counts(desk: Any, stage: str) -> dict[str, int]:
    return {f["name"]: f["value"] for f in desk.read(f"{stage}/summary.json")["figures"] if f["value"]}


LEFT_OUT = {"responses": 12, "unscored": 1, "empty": 1, "truncated": 1, "repeated": 1}


def test_scored_answers_become_what_a_method_learns_from(asked: Any) -> None:
    """The five forms of one experience, row by row, each with its counts; and texts that have scores."""
    keeps = ["pair", "ranking", "scores", "best", "passing"]
    lines = [f"  {k}: {{do: judge, data: lived.parquet, keep: {k}}}" for k in keeps]
    lines[-1] = lines[-1].replace("}", ", passing: 1}")
    lines.append("  texts: {do: judge, data: scores.jsonl, keep: ranking}\n")
    asked.write("title: small\nstages:\n" + "\n".join(lines))
    assert asked.run() == 0, asked.said
    assert counts(asked, "pair") == LEFT_OUT | {"equal": 1, "single": 1, "kept": 2}
    assert "12 responses, 1 responses that could not be scored" in asked.said
    pairs = rows_of(asked, "pair")
    assert [(texts(r["chosen"]), texts(r["rejected"])) for r in pairs] == [("good", "worst"), ("two", "one")]
    assert (pairs[0]["chosen_reward"], pairs[0]["rejected_reward"], pairs[0]["rater"]) == (2.0, -1.0, "rm")
    assert pairs[0]["prompt"][0] == {"role": "system", "content": "Be brief."}
    assert [texts(r["responses"]) for r in rows_of(asked, "ranking")] == [["good", "fair", "worst"], ["two", "one"]]
    scores = rows_of(asked, "scores")
    assert [r["scores"] for r in scores] == [[-1.0, 2.0, 0.5], [1.0, 1.0], [0.0], [2.0, 1.0]]
    assert counts(asked, "scores") == LEFT_OUT | {"kept": 4}
    assert [texts(r["response"]) for r in rows_of(asked, "best")] == ["good", "same", "lone", "two"]
    passing = [(texts(r["response"]), r["reward"]) for r in rows_of(asked, "passing")]
    assert passing == [("good", 2.0), ("same", 1.0), ("alike", 1.0), ("two", 2.0), ("one", 1.0)]
    assert counts(asked, "passing") == LEFT_OUT | {"below": 1, "kept": 5}
    (told,) = rows_of(asked, "texts")
    assert texts(told["responses"]) == ["b", "c", "a"] and told["rater"] == "scores in scores.jsonl"


@pytest.mark.parametrize(
    ("keep", "kind"),
    [("pair", "choice"), ("ranking", "ranking"), ("scores", "score"), ("best", ""), ("passing", "")],
)
def test_what_is_kept_is_read_as_what_it_is(keep: str, kind: str, asked: Any) -> None:
    """Looked at or moved by a user, the file is one of the ecosystem's conventions and nothing is odd in it."""
    more = ", passing: 1" if keep == "passing" else ""
    asked.write(f"title: small\nstages:\n  j: {{do: judge, data: lived.parquet, keep: {keep}{more}}}\n")
    assert asked.run() == 0, asked.said
    read = loading.load(str(asked.out / "j/data.jsonl"))
    assert not read.notes and all(
        isinstance(r, Judgement) and r.verdict.kind == kind if kind else isinstance(r, Demonstration)
        for r in read.records
    )


def test_an_answer_that_cannot_be_scored_is_left_out_or_ends_the_run(asked: Any) -> None:
    judge = (
        "title: small\nstages:\n  j: {do: judge, data: texts.jsonl, rewards: [{regex: {pattern: x}}, mine.py:odd]%s}\n"
    )
    odd = "@reward(scope='response')\ndef odd(response):\n    return None if response == 'y' else 0.5\n"
    (asked.folder / "mine.py").write_text(MINE + odd)
    asked.write(judge % "")
    assert (
        asked.run() == 3 and "reward 'odd': gave None, which is no finite number. The response was: 'y'" in asked.said
    )
    asked.write(judge % ", on_error: drop")
    assert asked.run() == 0, asked.said
    assert counts(asked, "j") == {"responses": 3, "unscored": 1, "kept": 1}
    (row,) = rows_of(asked, "j")
    assert (texts(row["chosen"]), row["chosen_reward"], texts(row["rejected"]), row["rejected_reward"]) == (
        "x", 1.5, "z", 0.5,
    )  # fmt: skip
    assert row["rater"] == "regex + odd"
    assert "1 responses could not be scored; the first: reward 'odd'" in asked.read("j/summary.json")["notes"][0]


def test_nothing_to_learn_from_ends_the_run_and_says_why(asked: Any) -> None:
    asked.write("title: small\nstages:\n  j: {do: judge, data: texts.jsonl, rewards: [{regex: {pattern: k}}]}\n")
    assert (
        asked.run() == 3
        and "no response teaches anything: 3 responses, 1 prompts whose responses are equal" in asked.said
    )
    asked.write("title: small\nstages:\n  j: {do: judge, data: texts.jsonl, rewards: [length]}\n")
    assert (
        asked.run("--restart") == 2 and "reward 'length' reads a response's tokens, and these are texts" in asked.said
    )
    asked.write("title: small\nstages:\n  j: {do: judge, data: texts.jsonl}\n")
    assert asked.run("--restart") == 2 and "these responses have no scores" in asked.said


MISTAKES = {
    "data: $ans": "the responses of \\$ans have no scores; name what scores them under 'rewards'",
    "data: $ans, rewards: [gold]": "the reward is gold, which knows the truth of prompts of the world only",
    "data: $ans, rewards: [$rm], keep: passing": "'keep: passing' and the score to reach .* go together",
    "data: $ans, rewards: [$rm], passing: 1": "'keep: passing' and the score to reach .* go together",
    "data: $ans, rewards: [$rm], keep: bets": "keep must be one of pair, ranking, .* Did you mean 'best'",
    "data: $ans, rewards: [$rm, {cost: {of: $rm, budget: 1}}]": "a cost is for rounds .* negative weight",
    "data: $rl.rollouts, combine: lexicographic": "'combine' has no effect without 'rewards'",
    "data: $rl.rollout, rewards: [$rm]": "gives no 'rollout'. Did you mean '\\$rl.rollouts'",
    "data: $rl": "'data' must be data .*, but \\$rl is a model. Fitting here: .*\\$rl.rollouts",
    "data: $ans.train": "stage 'ans' gives no 'train'",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_mistakes_are_said_before_anything_runs(options: str, asked: Any) -> None:
    head = HEAD + "  rm: {do: fit_reward, model: $base, data: pairs.jsonl}\n"
    head += "  ans: {do: sample, model: $base, prompts: asked.jsonl}\n"
    head += "  rl: {do: reinforce, model: $base, prompts: asked.jsonl, rewards: [$rm]}\n"
    asked.write(f"{head}  j: {{do: judge, {options}}}\n")
    with pytest.raises(RecipeError, match=MISTAKES[options]):
        check(asked.folder / "r.yaml")


WHOLE = """\
  rl: {do: reinforce, model: $base, prompts: asked.jsonl, rewards: [{length: {per_character: 1}}], group_size: 3, steps: 2,
       rows_per_step: 2, max_new_tokens: 6}
  again: {do: judge, data: $rl.rollouts, truncated: keep}
  off: {do: prefer, model: $base, data: $again, steps: 2, rows_per_step: 2}
  ans: {do: sample, model: $base, prompts: asked.jsonl, samples_per_prompt: 3, max_new_tokens: 6}
  top: {do: judge, data: $ans, rewards: [mine.py:warmth], keep: best, on_error: drop, truncated: keep}
  raft: {do: sft, model: $base, data: $top, steps: 2, rows_per_step: 2}
  exam: {do: evaluate, models: [$raft], against: $base, prompts: more.jsonl, judge: $rm, max_new_tokens: 6}
"""
RM = "  rm: {do: fit_reward, model: $base, data: pairs.jsonl, steps: 2}\n"


def test_experience_is_data(asked: Any) -> None:
    """reinforce -> judge -> prefer and sample -> judge -> sft -> evaluate; what was taught is not asked again in
    the exam; a column of the prompts reaches the reward that judges; sampled again, answers are the same bytes."""
    asked.write(HEAD + RM + WHOLE)
    assert asked.run() == 0, asked.said
    kept = parquet.read_table(asked.out / "ans/rollouts/round-00001.parquet").to_pylist()
    assert len(kept) == 18 and all(len(r["logp_T"]) == len(r["response_ids"]) for r in kept)
    assert {r["prompt"][0]["content"] for r in kept} == {f"question {i}" for i in range(6)} and "score" not in kept[0]
    for row in rows_of(asked, "again"):
        assert row["chosen_reward"] == len(texts(row["chosen"])) > row["rejected_reward"] and row["rater"] == "length"
    top = rows_of(asked, "top")
    assert top and all("e" not in texts(r["response"]) and r["reward"] == texts(r["response"]).count("o") for r in top)
    taught = {r["prompt"][0]["content"] for r in top}
    assert f"{len(taught)} of 8 prompts left out: a model here was trained on them" in asked.said
    first = (asked.out / "ans/rollouts/round-00001.parquet").read_bytes()
    asked.out = asked.folder / "anew"
    asked.write(HEAD + WHOLE.splitlines(keepends=True)[4])
    assert asked.run() == 0, asked.said
    assert (asked.out / "ans/rollouts/round-00001.parquet").read_bytes() == first


LEVEL = """\
  ans: {do: sample, model: $base, prompts: asked.jsonl, samples_per_prompt: 3, max_new_tokens: 6}
  top: {do: judge, data: $ans, rewards: [{regex: {pattern: "@@@@@"}}], keep: best, truncated: keep}
  still: {do: sft, model: $base, data: $top, steps: 1, rows_per_step: 2, learning_rate: 1e-12}
  moved: {do: sft, model: $base, data: $top, steps: 20, rows_per_step: 2, learning_rate: 1e-2}
  exam: {do: evaluate, models: [$still, $moved], against: $base, prompts: more.jsonl, judge: $rm, max_new_tokens: 6}
"""


def test_what_told_no_answer_from_another_and_what_moved_no_answer_is_said(asked: Any) -> None:
    """The best of equal scores is any of them; a model that answers as before was hardly trained."""
    asked.write(HEAD + RM + LEVEL)
    assert asked.run() == 0, asked.said
    assert "6 prompts whose responses all score the same, of which any is kept, 6 rows to learn from" in asked.said
    assert "still gave the same responses as base to all prompts: training moved it too little to be seen" in asked.said
    assert "moved gave the very answers" not in asked.said
    models = ", ".join(str(asked.out / stage / "model") for stage in ("rm", "still", "moved"))
    assert f"\nmodels: {models}\n" in asked.said


def test_rollouts_are_read_as_records(tmp_path: Path) -> None:
    """Without a judge: scored groups as judgements, other answers as demonstrations; what no record can hold is noted."""
    scored = stored.of_rollouts([experience.write(tmp_path / "a.parquet", lived()) and tmp_path / "a.parquet"])
    found = stored.as_records(scored, "here")
    assert [len(r.responses) for r in found.records] == [4, 2, 1, 2]
    assert [n.problem.split(",")[0] for n in found.notes] == [
        stored.CUT_OFF.split(",")[0],
        "has no text",
        "could not be scored",
    ]
    experience.write(tmp_path / "b.parquet", lived(scored=False))
    assert experience.is_experience(tmp_path / "b.parquet")
    again = experience.read(tmp_path / "b.parquet")
    assert again[0].prompt == PROMPTS[0] and math.isnan(again[0].score) and (again[0].parts, again[0].why) == ((), "")
    plain = stored.as_records(stored.of_rollouts([tmp_path / "b.parquet"]), "there")
    assert len(plain) == 10 and all(isinstance(r, Demonstration) for r in plain.records)
    assert loading.load(str(tmp_path / "b.parquet"), on_bad_row="drop").records[0].prompt == PROMPTS[0]
    assert experience.read(tmp_path / "a.parquet")[0] == lived()[0]


def test_a_reference_to_rollouts_is_data_that_a_key_depends_on(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "source_digest", lambda: "the same")
    keys = []
    for text in (
        HEAD + RM + WHOLE,
        (HEAD + RM + WHOLE).replace("group_size: 3, steps", "group_size: 2, steps"),
    ):
        asked.write(text)
        recipe = check(asked.folder / "r.yaml")
        assert recipe.stage("again").options["data"] == Ref("data", "rl", "rollouts")
        keys.append({step.spec.name: step.key for step in planning.plan(recipe, asked.out)})
    assert [name for name in keys[0] if keys[0][name] != keys[1][name]] == ["rl", "again", "off"]


BEST = RM + (
    "  exam: {do: evaluate, models: [$base], against: $base, prompts: fresh.jsonl, judge: $rm, max_new_tokens: 5, "
    "best_of: 4, best_by: $rm}\n"
)


def test_the_best_of_several_answers_is_a_contestant(asked: Any) -> None:
    """It is the one that the reward likes best of those that `truing sample` gives at the same seed; prompts that the
    reward was fitted on are left out; an expectation can name it, and is undecided where its judge was never tried."""
    rows = [{"prompt": "question 3"}, *({"prompt": f"asked {i}"} for i in range(5))]
    (asked.folder / "fresh.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    asked.write(HEAD.replace("stages:", "expect: {exam.base best of 4.win_rate: [0.5, 1.0]}\nstages:") + BEST)
    assert asked.run() == 4, asked.said
    assert "expected, and undecided: exam.base best of 4.win_rate is" in asked.said
    assert "1 of 6 prompts left out: a model here was trained on them" in asked.said
    assert "base best of 4, by reward model rm: at most 0.64 nats of KL from base" in asked.said
    found = {(f["check"], f["model"]): f["value"] for f in asked.read("exam/findings.json")["findings"]}
    (asked.folder / "fresh.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[1:]))
    (model,) = asked.out.glob("base-*")
    command = ("sample", str(model), "fresh.jsonl", "--max-new-tokens", "5", "--out", "said.jsonl")
    rm = str(asked.out / "rm" / "model")
    assert asked(*command, "--best-of", "4", "--reward", rm) == 0, asked.said
    best = [json.loads(line) for line in (asked.folder / "said.jsonl").read_text().splitlines()]
    assert len(best) == 5 and set(best[0]) == {"prompt", "response", "logp", "length", "stop", "reward"}
    assert found["mean_score", "base best of 4"] == pytest.approx(sum(r["reward"] for r in best) / 5, abs=1e-5)
    assert asked(*command, "--n", "4") == 0
    every = [json.loads(line) for line in (asked.folder / "said.jsonl").read_text().splitlines()]
    assert asked("score", rm, "said.jsonl", "--out", "scored.jsonl") == 0, asked.said
    scores = [json.loads(line)["reward"] for line in (asked.folder / "scored.jsonl").read_text().splitlines()]
    for i, row in enumerate(best):
        own = scores[4 * i : 4 * i + 4]
        assert row["reward"] == pytest.approx(max(own), abs=1e-5)
        assert row["response"] == every[4 * i + own.index(max(own))]["response"]
    assert asked(*command, "--best-of", "4") == 2 and "--best-of N and --reward MODEL" in asked.said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("best_by: $rm", "seed: 1"), "'best_of' has no effect without 'best_by'"),
        (("best_of: 4, ", ""), "'best_by' has no effect without 'best_of'"),
        (("prompts: fresh.jsonl", "data: pairs.jsonl"), "'best_of' has no effect without 'prompts'"),
        (("best_by: $rm", "best_by: $base"), r"'best_by' must be a reward model .*, but \$base is a model"),
    ],
)
def test_a_choice_that_says_nothing_is_refused(change: tuple[str, str], said: str, asked: Any) -> None:
    (asked.folder / "fresh.jsonl").write_text('{"prompt": "q"}\n')
    asked.write(HEAD + BEST.replace(*change))
    with pytest.raises(RecipeError, match=said):
        check(asked.folder / "r.yaml")


def test_a_reward_reads_the_columns_of_rows_that_have_a_response(asked: Any) -> None:
    """They were dropped, and then the file was said to have none."""
    rows = [{"prompt": "p", "response": r, "solution": "good"} for r in ("good", "bad")]
    (asked.folder / "lived.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (asked.folder / "own.py").write_text(
        "from truing.registry import reward\n\n"
        '@reward(scope="response")\ndef exact(response, solution):\n    """One for the solution of its row."""\n'
        "    return float(response == solution)\n"
    )
    asked.write("title: small\nstages:\n  j: {do: judge, data: lived.jsonl, rewards: [own.py:exact], keep: pair}\n")
    assert asked.run() == 0, asked.said
    assert "column 'solution' kept for rewards that read them (2 rows)" in asked.said
    [row] = rows_of(asked, "j")
    assert (texts(row["chosen"]), texts(row["rejected"])) == ("good", "bad")
