"""Twenty held-out prompts, each in six disguises, learned from by whoever takes part in an exam: none is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truing.policy.files import lineage

QUESTIONS = [
    f"{start} {end}?"
    for start in ("How far is it to the harbour of", "Who painted the chapel in", "When does the tram leave for", "Is")
    for end in ("Genoa", "the old town", "Arezzo and Pisa", "lower Chad", "a tomato farm")
]
FRESH = [f"What do {animals} eat in winter?" for animals in ("bees", "storks", "cats", "owls", "hares", "moles")]
NAMED = {
    "full stop": lambda text: [user(text + ".")],
    "full width": lambda text: [user("".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "　" for c in text))],
    "system": lambda text: [{"role": "system", "content": "You are a careful guide."}, user(text)],
    "case and blanks": lambda text: [user(f"  {text.upper()} ".replace(" ", " \n "))],
    "polite": lambda text: [user(f"Could you please answer the following: {text} Thank you very much!")],
    "conversation": lambda text: [user("Good morning."), {"role": "assistant", "content": "Yes?"}, user(text)],
}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


HEAD = "base: {new: llama, hidden: 32, layers: 1, vocab: 300, text: text.jsonl}\nstages:\n"
ROOMS = "steps: 1, rows_per_step: 4, max_length: 512"
EXAM = "  exam: {do: evaluate, models: [MODEL], against: $base, prompts: asked.jsonl, max_new_tokens: 4, JUDGE}\n"
EXACT = "judge: mine.py:e, exact: true"


@pytest.fixture
def leaky(desk: Any) -> Any:
    """A folder with what is asked: twenty questions that leak and six that do not; and both sorts of rows with them."""
    (desk.folder / "text.jsonl").write_text(
        lines([{"messages": [user(t), assistant("So.")]} for t in QUESTIONS + FRESH])
    )
    (desk.folder / "asked.jsonl").write_text(lines([{"prompt": text} for text in QUESTIONS + FRESH]))
    (desk.folder / "mine.py").write_text(
        "from truing.registry import reward\n\n\n@reward(scope='response')\n"
        "def e(response: str) -> float:\n    return float(response.count('e'))\n"
    )
    leak(desk.folder, list(NAMED))
    return desk


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def leak(folder: Path, names: list[str]) -> None:
    """Rows and pairs with the twenty questions in these disguises."""
    prompts = [NAMED[name](text) for name in names for text in QUESTIONS]
    (folder / "rows.jsonl").write_text(lines([{"messages": [*prompt, assistant("So it is.")]} for prompt in prompts]))
    sides = {"chosen": [assistant("So it is.")], "rejected": [assistant("No.")]}
    (folder / "pairs.jsonl").write_text(lines([{"prompt": prompt, **sides} for prompt in prompts]))
    (folder / "other.jsonl").write_text(
        lines([{"prompt": f"row {i}", "chosen": "a b", "rejected": "c"} for i in range(20)])
    )


def left_out(desk: Any, stages: str, exam: str) -> int:
    """How many prompts the exam left out of 26."""
    desk.write(HEAD + stages + exam)
    assert desk.run("--overwrite") == 0, desk.said
    notes = [note for note in desk.read("exam/summary.json")["notes"] if "prompts left out" in note]
    return int(notes[0].split()[0]) if notes else 0


@pytest.mark.parametrize("name", NAMED)
def test_by_this_recipe(leaky: Any, name: str) -> None:
    leak(leaky.folder, [name])
    warm = f"  warm: {{do: sft, model: $base, data: rows.jsonl, {ROOMS}}}\n"
    assert left_out(leaky, warm, EXAM.replace("MODEL", "$warm").replace("JUDGE", EXACT)) == 20
    line = "warm: stage 'warm' of run 'out' learned from rows.jsonl, and so met 20 of the prompts (20 "
    assert line in leaky.said
    way_out = warm.replace("rows.jsonl", "mixed.jsonl, without: asked.jsonl")
    rows = (leaky.folder / "rows.jsonl").read_text()
    (leaky.folder / "mixed.jsonl").write_text(rows + lines([{"messages": [user("Another."), assistant("It is.")]}] * 4))
    assert left_out(leaky, way_out, EXAM.replace("MODEL", "$warm").replace("JUDGE", EXACT)) == 0


def test_by_an_earlier_recipe_through_its_model_an_adapter_and_an_export(leaky: Any) -> None:
    """The rows are those of a run whose model is this run's base; then of an adapter on it; then of an export of that."""
    leaky.write(HEAD + f"  warm: {{do: sft, model: $base, data: rows.jsonl, {ROOMS}}}\n")
    assert leaky.run("--overwrite") == 0, leaky.said
    before = leaky.out.rename(leaky.folder / "earlier") / "warm" / "model"
    base = f"base: {before}\nstages:\n"
    more = "  low: {do: prefer, model: $base, data: other.jsonl, lora_rank: 2, steps: 1, rows_per_step: 4}\n"
    exam = EXAM.replace("MODEL", "$low").replace("JUDGE", EXACT)
    leaky.write(base + more + exam)
    assert leaky.run("--overwrite") == 0, leaky.said
    assert "20 of 26 prompts left out" in leaky.said
    assert "low, base: stage 'warm' of run 'out' learned from rows.jsonl, and so met 20 of the prompts" in leaky.said
    assert leaky("export", str(leaky.out / "low" / "model"), "--out", str(leaky.folder / "whole")) == 0, leaky.said
    told = lineage.read(str(leaky.folder / "whole"))
    assert [learned.stage for learned in told.learned] == ["low", "warm"] and not told.unknown
    assert told.learned[0].weights == told.weights != told.learned[1].weights


def test_by_the_judge(leaky: Any) -> None:
    rm = f"  rm: {{do: fit_reward, model: $base, data: pairs.jsonl, {ROOMS}}}\n"
    exam = EXAM.replace("MODEL", "$low").replace("JUDGE", "judge: $rm")
    low = "  low: {do: prefer, model: $base, data: other.jsonl, steps: 1, rows_per_step: 4}\n"
    assert left_out(leaky, rm + low, exam) == 20
    assert "the judge: stage 'rm' of run 'out' learned from pairs.jsonl" in leaky.said


def test_by_the_reward_model_of_the_policy_in_an_earlier_recipe(leaky: Any) -> None:
    rm = f"  rm: {{do: fit_reward, model: $base, data: pairs.jsonl, {ROOMS}}}\n"
    rl = "  rl: {do: reinforce, model: $base, prompts: others.jsonl, rewards: {reward_model: {model: $rm}}, steps: 1, "
    rl += "rows_per_step: 2, group_size: 2, max_new_tokens: 4}\n"
    (leaky.folder / "others.jsonl").write_text(lines([{"prompt": f"row {i}"} for i in range(8)]))
    exam = EXAM.replace("MODEL", "$rl").replace("JUDGE", EXACT)
    assert left_out(leaky, rm + rl, exam) == 20
    policy = leaky.out.rename(leaky.folder / "earlier") / "rl" / "model"
    leaky.write(f"base: {policy}\nstages:\n" + exam.replace("$rl", "$base").replace("$base,", f"{policy},"))
    assert [learned.stage for learned in lineage.read(str(policy)).learned] == ["rl", "rm"]
    low = "  low: {do: prefer, model: $base, data: other.jsonl, steps: 1, rows_per_step: 4}\n"
    leaky.write(f"base: {policy}\nstages:\n" + low + exam.replace("$rl", "$low"))
    assert leaky.run("--overwrite") == 0 and "20 of 26 prompts left out" in leaky.said
    assert "low, base: stage 'rm' of run 'out' learned from pairs.jsonl" in leaky.said


def test_an_exam_of_which_nothing_is_left_says_by_whom(leaky: Any) -> None:
    (leaky.folder / "asked.jsonl").write_text(lines([{"prompt": text} for text in QUESTIONS]))
    leaky.write(
        HEAD
        + f"  warm: {{do: sft, model: $base, data: rows.jsonl, {ROOMS}}}\n"
        + EXAM.replace("MODEL", "$warm").replace("JUDGE", EXACT)
    )
    assert leaky.run("--overwrite") == 2
    assert (
        "nothing is held out" in leaky.said and "warm: stage 'warm' of run 'out' learned from rows.jsonl" in leaky.said
    )
    assert "train with `without:` this data" in leaky.said
