"""What `check` sees beyond a recipe's words: rows, models' limits, exams and gates; and what it says it did not see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from truing import cli
from truing.errors import RecipeError
from truing.run.outlook import ROWS, look

RECIPES = Path(__file__).parent.parent.parent / "recipes"
PAIR = {"prompt": "What is it?", "chosen": "This.", "rejected": "That."}
TOLD = {"prompt": "What is it?", "response": "This."}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder, and no Hub cache."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def numbered(row: dict[str, Any], count: int = 5) -> list[dict[str, Any]]:
    return [row | {"prompt": f"{row['prompt']} {i}"} for i in range(count)]


def mistakes(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        look(text, overrides)
    return caught.value.mistakes


def recipe(stages: str, base: str = "world:desk/tiny") -> str:
    return f"base: {base}\nstages:\n{stages}"


WARM = "  warm: {do: sft, model: $base, data: %s}\n"
EXAM = "  exam: {do: evaluate, models: [%s], against: [$base], %s}\n"


# --- data ------------------------------------------------------------------------------------------------------------


def test_columns_that_no_convention_knows_are_a_mistake_of_the_stage(here) -> None:
    data = write("rows.jsonl", [{"prompt": "a", "good_one": "b", "other": "c"}])
    (said,) = mistakes(recipe(WARM % data))
    assert said.startswith("recipe:3: stage 'warm': rows.jsonl: ") and "good_one" in said


@pytest.mark.parametrize(
    ("stage", "rows", "what"),
    [
        ("{do: prefer, model: $base, data: rows.jsonl}", numbered(TOLD), "learns from pairs"),
        ("{do: fit_reward, model: $base, data: rows.jsonl}", numbered(TOLD), "learns from pairs"),
        ("{do: prefer, model: $base, data: rows.jsonl, objective: kto}", numbered(TOLD), "desirable or undesirable"),
        (
            "{do: fit_reward, model: $base, data: pairs.jsonl, eval: rows.jsonl}",
            numbered(TOLD | {"prompt": "?"}),
            "learns from pairs",
        ),
        ("{do: evaluate, models: [$base], against: [world:desk/small], data: rows.jsonl}", numbered(TOLD), "pairs"),
        ("{do: sft, model: $base, data: rows.jsonl}", numbered({"prompt": "p"}), "response"),
    ],
)
def test_rows_that_do_not_hold_what_the_stage_learns_from(here, stage, rows, what) -> None:
    write("rows.jsonl", rows)
    write("pairs.jsonl", numbered(PAIR))
    (said,) = mistakes(recipe(f"  it: {stage}\n"))
    assert "stage 'it': rows.jsonl" in said and what in said


def test_rows_behind_a_split_are_tried_for_what_the_later_stage_learns(here) -> None:
    write("rows.jsonl", numbered(TOLD))
    text = recipe("  data: {do: split, data: rows.jsonl}\n  it: {do: prefer, model: $base, data: $data.train}\n")
    (said,) = mistakes(text)
    assert said.startswith("recipe:4: stage 'it': rows.jsonl, row 1: ") and "(5 of 5 rows checked)" in said


def test_rows_that_are_to_be_dropped_are_no_mistake_unless_none_is_left(here) -> None:
    write("some.jsonl", [*numbered(PAIR), TOLD | {"prompt": "x", "chosen": "", "rejected": None}])
    look(recipe("  it: {do: prefer, model: $base, data: some.jsonl, on_bad_row: drop}\n"))
    write("none.jsonl", numbered(TOLD))
    (said,) = mistakes(recipe("  it: {do: prefer, model: $base, data: none.jsonl, on_bad_row: drop}\n"))
    assert "(5 of 5 rows checked)" in said


def test_a_column_that_a_reward_reads_has_to_be_there(here) -> None:
    write("prompts.jsonl", [{"prompt": "2 + 2 =", "target": "4"}])
    Path("mine.py").write_text(
        'from truing.registry import reward\n\n\n@reward("response")\ndef right(response, answer):\n    return 0.0\n'
    )
    stage = "  it: {do: reinforce, model: $base, prompts: prompts.jsonl, rewards: ['mine.py:right']}\n"
    (said,) = mistakes(recipe(stage))
    assert "reads the column 'answer', which row 1" in said and "columns beside the prompt: target" in said


@pytest.mark.parametrize(
    ("reward", "why"),
    [
        ("{verifier: {answer: number}}", "row 1 of the prompts: reward 'verifier': a prompt's row has no 'answer'"),
        ("'mine.py:right'", "reads the column 'solution', which row 1 of the prompts does not have"),
        ("'mine.py:keyed'", "reads the column 'level', which row 1"),
        ("{reward_model: {model: ./empty}}", "there is no config.json in it"),
    ],
)
def test_what_a_reward_needs_is_looked_for_wherever_it_scores(here, reward, why) -> None:
    """TRL's functions read columns by their parameters, and truing's own check a row before anything is trained."""
    write("prompts.jsonl", numbered({"prompt": "2 + 2 =", "target": "4"}))
    write("whole.jsonl", numbered({"prompt": "1 + 1 =", "answer": "2", "solution": "2", "level": 1}))
    Path("empty").mkdir()
    Path("mine.py").write_text(
        "def right(completions, solution, **kwargs):\n    return [0.0 for _ in completions]\n\n\n"
        "def keyed(completions, target=None, *, level):\n    return [0.0 for _ in completions]\n"
    )
    learns = "  it: {do: reinforce, model: $base, prompts: %s, rewards: [%s]%s}\n"
    exam = EXAM % ("$base", "prompts: %s, judge: %s, exact: true")
    length = "{length: {per_token: 1.0}}"
    for stage in (
        learns % ("prompts.jsonl", reward, ""),
        learns % ("whole.jsonl", length, f", monitor: [{reward}], monitor_prompts: prompts.jsonl"),
        exam.replace("[$base]", "[world:desk/small]", 1) % ("prompts.jsonl", reward),
    ):
        (said,) = mistakes(recipe(stage))
        assert why in said
    if "empty" not in reward:
        look(recipe(learns % ("whole.jsonl", reward, "")))


def test_columns_are_those_of_the_stages_own_data(here) -> None:
    """What is held out, watched or answered beside it has columns of its own."""
    write("qa.jsonl", [{"question": f"{i}?", "answer": "a"} for i in range(5)])
    write("ab.jsonl", [{"question": f"{i}?", "a": "a", "b": "b"} for i in range(5)])
    write("prompts.jsonl", numbered({"prompt": "p", "answer": "4"}))
    told = "  it: {do: sft, model: $base, data: qa.jsonl, columns: {prompt: question, response: answer}, without: %s}\n"
    look(recipe(told % "prompts.jsonl"))
    text = "{do: reinforce, model: $base, prompts: qa.jsonl, columns: {prompt: question}, rewards: {verifier: {answer: text}}"
    look(recipe(f"  it: {text}, monitor: {{verifier: {{}}}}, monitor_prompts: prompts.jsonl}}\n"))
    columns = "columns: {prompt: question, chosen: a, rejected: b}"
    look(recipe(EXAM % ("world:desk/small", f"data: ab.jsonl, prompts: prompts.jsonl, {columns}, {SCORED}")))


def test_texts_beside_answers_are_tried_for_words_to_learn(here) -> None:
    write("prompts.jsonl", numbered({"prompt": "p", "answer": "4"}))
    write("pairs.jsonl", numbered(PAIR))
    text = (
        "  it: {do: reinforce, model: $base, prompts: prompts.jsonl, pretrain: prompts.jsonl, "
        "objective: [dapo, {ptx: {weight: 1.0}}], rewards: {verifier: {}}}\n"
    )
    (said,) = mistakes(recipe(text))
    assert "prompts.jsonl: missing column 'response'" in said
    write("asked.jsonl", numbered({"prompt": "p"}))
    (said,) = mistakes(recipe(text.replace("pretrain: prompts", "pretrain: asked")))
    assert "asked.jsonl, row 1: this is a prompt alone" in said
    look(recipe(text.replace("pretrain: prompts", "pretrain: pairs")))


def test_a_long_file_is_read_to_its_first_rows_and_that_is_said(here) -> None:
    rows = [*numbered(PAIR, ROWS), {"prompt": "odd"}]
    outlook = look(recipe("  it: {{do: prefer, model: $base, data: {}}}\n".format(write("long.jsonl", rows))))
    assert "long.jsonl beyond its first 1,000 rows" in outlook.text()


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Qwen/Qwen3--0.6B", "has '--' in it"),
        ("Qwen/Qwen3..6B", "has '..' in it"),
        ("Qwen/-Qwen3", "begins or ends with"),
        ("Qwen/" + "q" * 92, "longer than 96 characters"),
    ],
)
def test_a_name_that_the_hub_cannot_have(here, name, why) -> None:
    (said,) = mistakes(recipe(WARM % write("rows.jsonl", numbered(TOLD)), base=name))
    assert why in said


def test_a_name_that_the_hub_may_have_is_not_looked_at_and_said(here) -> None:
    outlook = look(recipe(WARM % write("rows.jsonl", numbered(TOLD)), base="Qwen/Qwen3-0.6B"))
    assert "the model 'Qwen/Qwen3-0.6B' of the Hub" in outlook.text()
    outlook = look(recipe(WARM % "Anthropic/hh-rlhf:test"))
    assert "the data set 'Anthropic/hh-rlhf:test' of the Hub" in outlook.text()


@pytest.mark.parametrize(
    ("base", "most"), [("world:desk/tiny", 1024), ("{new: llama, text: rows.jsonl}", 2048)], ids=["world", "new"]
)
def test_a_length_beyond_the_model(here, base, most) -> None:
    data = write("rows.jsonl", numbered(TOLD))
    text = recipe(WARM % data + f"  more: {{do: sft, model: $warm, data: {data}, max_length: {most + 1}}}\n", base)
    (said,) = mistakes(text)
    assert said.startswith("recipe:4: stage 'more': ") and f"beyond the {most} tokens" in said
    look(text.replace(str(most + 1), str(most)))


def test_answers_and_prompts_have_to_fit_into_the_model(here) -> None:
    write("prompts.jsonl", numbered({"prompt": "p", "answer": "4"}))
    learns = "  it: {do: reinforce, model: $base, prompts: prompts.jsonl, rewards: {verifier: {}}, %s}\n"
    sample = "  it: {do: sample, model: $base, prompts: prompts.jsonl, %s}\n"
    exam = EXAM % ("world:desk/small", f"prompts: prompts.jsonl, {SCORED}, %s")
    for stage in (learns, sample, exam):
        (said,) = mistakes(recipe(stage % "max_new_tokens: 1024"))
        assert "max_new_tokens 1024 leaves no room for a prompt in the 1024 tokens" in said
        look(recipe(stage % "max_new_tokens: 1000"))
    (said,) = mistakes(recipe(learns % "max_length: 1025"))
    assert "max_length 1025 is beyond the 1024 tokens that its model reads" in said
    write("pairs.jsonl", numbered(PAIR))
    text = "  it: {do: prefer, model: $base, reference: world:desk/small, data: pairs.jsonl, max_length: 1500}\n"
    (said,) = mistakes(recipe(text, "{new: llama, text: pairs.jsonl}"))
    assert "max_length 1500 is beyond the 1024 tokens that its reference reads" in said


def test_a_users_own_stage_may_call_its_options_as_it_likes(here) -> None:
    Path("mine.py").write_text(
        "from truing.registry import stage\nfrom truing.settings import *\n\n\n"
        "@stage(gives='model')\ndef odd(run, *, judge: dict, prompts: str, max_new_tokens: str, eval: float) -> None:\n"
        "    print(judge, prompts, max_new_tokens, eval)\n"
    )
    look("stages:\n  it: {do: 'mine.py:odd', judge: {a: 1, b: 2}, prompts: x, max_new_tokens: many, eval: 0.5}\n")


def test_a_model_folder_is_read_for_its_limit_and_for_what_it_lacks(here) -> None:
    data = write("rows.jsonl", numbered(TOLD))
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 64}))
    said = mistakes(recipe(WARM % data, base="./model"))
    assert any("there are no weights (*.safetensors) in it" in text for text in said)


# --- exams and gates -------------------------------------------------------------------------------------------------


def test_prompts_that_no_model_here_answers(here) -> None:
    write("pairs.jsonl", numbered(PAIR))
    rm = "  rm: {do: fit_reward, model: $base, data: pairs.jsonl}\n"
    (said,) = mistakes(recipe(rm + EXAM % ("$rm", "prompts: 'world:prompts?n=9'")))
    assert said.startswith("recipe:4: stage 'exam': ") and "no model here answers" in said
    write("others.jsonl", numbered(PAIR | {"prompt": "Which is it?"}))
    look(recipe(rm + EXAM % ("$rm", "data: others.jsonl")))


def test_an_exam_on_what_its_model_learned_from(here) -> None:
    data = write("rows.jsonl", numbered(TOLD))
    rm = "  rm: {{do: fit_reward, model: $base, data: {}}}\n".format(write("pairs.jsonl", numbered(PAIR)))
    (said,) = mistakes(recipe(WARM % data + rm + EXAM % ("$warm", f"prompts: {data}, judge: $rm")))
    assert "all its prompts (rows.jsonl) are among those that $warm learned from" in said


SCORED = "judge: {length: {per_token: 1.0}}, exact: true"
SPLIT = "  data: {do: split, data: rows.jsonl}\n"


@pytest.mark.parametrize(
    ("before", "taught", "prompts"),
    [
        ("", "rows.jsonl", "copy.jsonl"),
        (SPLIT, "rows.jsonl", "$data.eval"),
        (SPLIT, "$data.train", "$data.train"),
    ],
)
@pytest.mark.parametrize("stages", [1, 2])
def test_an_exam_of_whose_prompts_none_is_new(here, before, taught, prompts, stages) -> None:
    write("rows.jsonl", numbered(TOLD, 8))
    write("copy.jsonl", numbered({"prompt": TOLD["prompt"]}, 4))
    write("others.jsonl", numbered(PAIR | {"prompt": "Which is it?"}))
    direct = "  direct: {do: prefer, model: $warm, data: others.jsonl}\n" * (stages - 1)
    exam = EXAM % ("$direct" if direct else "$warm", f"prompts: {prompts}, {SCORED}")
    (said,) = mistakes(recipe(before + WARM % taught + direct + exam))
    assert "are among those that" in said and f"all its prompts ({prompts})" in said


@pytest.mark.parametrize(
    ("warm", "prompts"),
    [
        ("{do: sft, model: $base, data: $data.train}", "$data.eval"),
        ("{do: sft, model: $base, data: $data.train}", "rows.jsonl"),
        ("{do: sft, model: $base, data: rows.jsonl, without: copy.jsonl}", "copy.jsonl"),
        ("{do: sft, model: $base, data: copy.jsonl}", "rows.jsonl"),
    ],
)
def test_an_exam_with_something_new_is_none(here, warm, prompts) -> None:
    write("rows.jsonl", numbered(TOLD, 8))
    write("copy.jsonl", numbered(TOLD, 4))
    look(recipe(f"{SPLIT}  warm: {warm}\n" + EXAM % ("$warm", f"prompts: {prompts}, {SCORED}")))


def test_pairs_that_are_held_out_and_learned(here) -> None:
    write("pairs.jsonl", numbered(PAIR))
    fit = "  rm: {do: fit_reward, model: $base, data: pairs.jsonl%s}\n"
    (said,) = mistakes(recipe(fit % ", eval: pairs.jsonl"))
    assert "all pairs of eval (pairs.jsonl) are among those that the stage learns from" in said
    (said,) = mistakes(recipe(fit % "" + EXAM % ("$rm", "data: pairs.jsonl")))
    assert "all pairs of data (pairs.jsonl) are among those that $rm learns from" in said
    look(recipe(WARM % "pairs.jsonl" + EXAM % ("$warm", "data: pairs.jsonl")))  # a demonstration is no verdict
    parts = "  data: {do: split, data: pairs.jsonl}\n  rm: {do: fit_reward, model: $base, data: $data.train, "
    look(recipe(f"{parts}eval: $data.eval}}\n" + EXAM % ("$rm", "data: $data.eval")))


def test_a_rule_about_a_model_or_a_check_that_no_exam_has(here) -> None:
    data = write("rows.jsonl", numbered(TOLD))
    Path("rules.yaml").write_text(
        "rules:\n- {check: win_rate, model: wram, against: base, min: 0.5}\n- {check: win_rat, against: base, min: 0.5}\n"
    )
    gate = "  release: {do: gate, evidence: $exam, rules: rules.yaml}\n"
    text = recipe(WARM % data + EXAM % ("$warm", "prompts: 'world:prompts?n=9'") + gate)
    model, check = mistakes(text)
    assert "is about model 'wram'" in model and "Did you mean 'warm'?" in model
    assert "no exam finds 'win_rat'. Did you mean 'win_rate'?" in check


@pytest.mark.parametrize("check", ["pass_at_2_delta", "pass_at_16", "held_out_step_accuracy", "a_win_rate"])
def test_a_check_that_is_near_to_another_and_is_one(here, check) -> None:
    Path("rules.yaml").write_text(f"rules:\n- {{check: {check}, model: base, min: 0.1}}\n")
    gate = "  release: {do: gate, evidence: $exam, rules: rules.yaml}\n"
    look(recipe(EXAM.replace("[$base]", "[world:desk/small]") % ("$base", "prompts: 'world:prompts?n=9'") + gate))


# --- as a whole ------------------------------------------------------------------------------------------------------


def test_mistakes_in_words_and_in_data_are_said_together(here) -> None:
    write("rows.jsonl", numbered(TOLD))
    text = recipe(
        "  warm: {do: sft, model: $base, data: rows.jsonl, epoch: 2}\n"
        "  direct: {do: prefer, model: $warm, data: rows.jsonl}\n"
    )
    words, rows = mistakes(text)
    assert "unknown option 'epoch'" in words and "learns from pairs" in rows


def test_a_run_stops_before_anything_is_trained(here, capsys) -> None:
    Path("recipe.yaml").write_text(recipe(WARM % write("rows.jsonl", [{"a": 1}])))
    with pytest.raises(RecipeError, match=r"stage 'warm': rows\.jsonl"):
        cli.run("recipe.yaml", out=here / "out")
    assert not (here / "out").exists()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_is_shipped_is_seen_to_be_whole(here, path) -> None:
    if path.read_text().find("\nstages:") < 0:
        pytest.skip("a rules file")
    given = {"hh_dpo": ["data=" + write("pairs.jsonl", numbered(PAIR))]}
    given["arithmetic_grpo"] = ["data=" + write("sums.jsonl", [{"prompt_text": "1 + 1 =", "answer": "2"}])]
    assert look(path, given.get(path.stem, [])).notes == []


def test_nothing_heavy_is_imported_for_it(here) -> None:
    write("pairs.jsonl", numbered(PAIR))
    code = (
        "import sys; from truing.run.outlook import look; "
        f"look({str(RECIPES / 'hh_dpo.yaml')!r}, ['data=pairs.jsonl']); "
        "print(sorted({'torch', 'transformers', 'pyarrow', 'datasets'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_stage_that_names_one_with_a_mistake_is_not_looked_at(here) -> None:
    pairs = write("pairs.jsonl", numbered(PAIR))
    text = recipe(f"  warm: {{do: sft, data: {pairs}}}\n" + EXAM % ("$warm", f"data: {pairs}"))
    assert mistakes(text) == ["recipe:3: stage 'warm' (sft) needs 'model'"]
