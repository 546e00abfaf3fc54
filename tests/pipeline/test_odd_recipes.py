"""Recipes that a hostile reader wrote: each mistake is told once, with its line and the way out, and none is a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.errors import RecipeError, RunFailed
from truing.recipe import hints
from truing.recipe.check import check
from truing.run.products import check_products
from truing.schema.option import Option

HEAD = "base: world:desk/tiny\nstages:\n  warm: {do: sft, model: $base, data: world:demonstrations}\n"
SAMPLED = "  s: {do: sample, model: $warm, prompts: world:prompts}\n"
OWN = """
from truing.registry import Columns, Count, Data, Model, stage


@stage(gives="model")
def watching(run, *, model: Model, monitor: str = ""):
    print(run, model, monitor)


@stage(gives="findings")
def counting(run, *, runs: Count = 1, against: Model | None = None):
    print(run, runs, against)


@stage(gives="data")
def sample(run, *, prompts: Data, columns: list[str] = (), rewards: list[str] = (), lora_alpha: float = 1.0,
           epochs: int = 1, steps: int = 1):
    print(run, prompts, columns, rewards, lora_alpha, epochs, steps)
"""


def mistakes(folder: Path, text: str, *overrides: str) -> list[str]:
    """Every mistake of a recipe, as `LINE: sentence`; none where it is right."""
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    (folder / "r.yaml").write_text(text, encoding="utf-8")
    try:
        check(folder / "r.yaml", list(overrides))
    except RecipeError as error:
        return [line.strip().removeprefix(f"{folder}/r.yaml:") for line in str(error).splitlines()[1:]]
    return []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"%YAML 1.3\n---\n{HEAD}", "take out the lines that begin with %"),
        (f"{HEAD}  d: {{do: diagnose, runs: $m}}\n".replace("  d:", "  m: {do: own.py:watching, model: $warm, monitor: x}\n  d:"),
         "$m (watching) is no stage that monitors itself"),
        (f"{HEAD}  p: {{do: prefer, model: $warm, data: world:comparisons, objective: {{cdpo: {{smoothing: 0.1}}}}}}\n",
         "Did you mean 'label_smoothing'?"),
        (f"{HEAD}{SAMPLED}  j: {{do: judge, data: $s, rewards: null}}\n", "the responses of $s have no scores"),
        (f"{HEAD}  l: {{repeat: 2, stages: {{'a\\q': {{do: sample, model: $warm, prompts: world:prompts}}}}}}\n"
         "expect: {warm.warm.taught: [1, 1]}\n", "'a\\q'"),
        (f"{HEAD}  e: {{do: evaluate, models: [{{new: llama}}, {{new: mistral}}], against: [$warm], prompts: world:prompts}}\n"
         "expect: {e.new.win_rate: [0, 1]}\n", "two models are called 'new'"),
        (f"{HEAD}  r: {{do: reinforce, model: $warm, prompts: world:prompts, objective: grpo, rewards: [gold, "
         "{cost: {of: {cost: {of: gold, budget: 0}}, budget: 1}}]}\n", "a cost is of a reward, and not of another cost"),
        (f"{HEAD}  e: {{do: evaluate, models: [$warm], against: $base, prompts: world:prompts, judge: [gold]}}\n", "gold"),
        (f"{HEAD}  e: {{do: evaluate, models: [$warm], against: $base, prompts: null}}\n", "there is nothing to measure"),
        (f"{HEAD}  p: {{do: prefer, model: $warm, data: world:comparisons, objective: [$inputs.x, dpo]}}\n",
         "there is no input '$inputs.x'"),
        (f"{HEAD}{SAMPLED}  j: {{do: judge, data: $s, rewards: [$inputs.x, {{length: {{weight: 1}}}}]}}\n",
         "there is no input '$inputs.x'"),
        (f"chat_template_kwargs: {{a: $inputs.x}}\n{HEAD}", "there is no input '$inputs.x'"),
        (f"{HEAD}expect: {{warm.warm.taught: [1, 1], warm.warm.taught#: [0, 1]}}\n", "expect"),
        (f"{HEAD}  long: {{do: {'l' * 5000}.py:x}}\n", "stage 'long': lll"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_once_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    (line,) = mistakes(tmp_path, text)
    assert told in line and line.partition(":")[0].isdigit() and "object at" not in line


def test_two_bounds_on_a_finding_are_a_mistake(tmp_path: Path) -> None:
    loop = "  l: {repeat: 2, carry: {w: $warm}, stages: {w: {do: sft, model: $w, data: world:demonstrations}}}\n"
    text = HEAD + loop + "expect: {l.w.l.w.taught: [1, 1], l-2-w.l-2-w.taught: [0, 1]}\n"
    (line,) = mistakes(tmp_path, text)
    assert "is a finding that another line has a bound for" in line


@pytest.mark.parametrize(
    "stage",
    [
        "{do: own.py:sample, prompts: world:prompts, columns: [a], rewards: [a, b], lora_alpha: 2, epochs: 1, steps: 2}",
        "{do: own.py:counting, against: null}",
    ],
)
def test_a_stage_of_ones_own_inherits_no_rule(tmp_path: Path, stage: str) -> None:
    assert mistakes(tmp_path, f"{HEAD}  it: {stage}\n") == []


def test_findings_of_a_stage_of_ones_own_may_be_expected(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, f"{HEAD}  it: {{do: own.py:counting, runs: 3}}\nexpect: {{it.a.b: [0, 1]}}\n")
    assert "unknown model 'a'" in line


def test_responses_of_a_stage_called_sample_may_have_scores(tmp_path: Path) -> None:
    text = f"{HEAD}  s: {{do: own.py:sample, prompts: world:prompts}}\n  j: {{do: judge, data: $s}}\n"
    assert mistakes(tmp_path, text) == []


def test_production_may_be_set_on_the_command_line(tmp_path: Path) -> None:
    assert mistakes(tmp_path, HEAD, "production=world:desk/small") == []


@pytest.mark.parametrize(
    ("decorator", "annotation", "told"),
    [
        ('gives="data", parts=5', "int", "parts is a tuple of names"),
        ('gives="data", parts="train"', "int", "parts is a tuple of names"),
        ('gives="data", keeps=None', "int", "keeps is a tuple of names"),
        ("gives=None", "int", "unknown gives 'None'"),
        ('gives="data"', '"not a type!"', "has a type that is no Python"),
    ],
)
def test_a_decorator_is_read_or_refused(tmp_path: Path, decorator: str, annotation: str, told: str) -> None:
    (tmp_path / "odd.py").write_text(f"@stage({decorator})\ndef odd(run, *, x: {annotation} = 1):\n    print(x)\n")
    (line,) = mistakes(tmp_path, f"{HEAD}  it: {{do: odd.py:odd}}\n")
    assert told in line


def test_parts_of_data_may_be_folders_of_rollouts(tmp_path: Path) -> None:
    for part in ("easy", "hard"):
        with pytest.raises(RunFailed, match=r"left no data\.jsonl"):
            check_products("data", ("easy", "hard"), tmp_path, "it")
        (tmp_path / part).mkdir()
    check_products("data", ("easy", "hard"), tmp_path, "it")


def test_an_earlier_name_is_a_hint_where_the_new_one_is_an_option() -> None:
    old = Option("max_grad_norm", "Positive", doc="largest norm")
    assert "is 'max_grad_norm' here" in hints.unknown_option("option", "clip", [old])
    assert "Did you mean 'clip_low'?" in hints.unknown_option("option", "clip", [Option("clip_low", "Clip")])
