"""Recipes: what a good one becomes, and what is said of every mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from truing.errors import RecipeError
from truing.recipe.check import Recipe, Ref, StageSpec, check

EIGHT = """\
titel: RLHF
base: world:desk/smal
stages:
  data: {do: splitt, data: some/pairs}
  warm: {do: sft, model: $base, data: some/pairs, lerning_rate: 1e-3}
  direct: {do: prefer, model: $wram, data: some/pairs, objective: bradley_terry}
  late: {do: prefer, model: $warm, data: some/pairs, objective: ddpo, epochs: -1}
"""
EIGHT_SAID = """\
8 mistakes in the recipe
eight.yaml:1: unknown top-level key 'titel'. Did you mean 'title'? Known: base, chat_template_kwargs, expect, inputs, production, seed, stages, title
eight.yaml:2: base: unknown model 'world:desk/smal'. Did you mean 'world:desk/small'? Known: world:desk/medium, world:desk/small, world:desk/tiny
eight.yaml:4: stage 'data': unknown stage 'splitt'. Did you mean 'split'? Known: STAGES
eight.yaml:5: stage 'warm' (sft): unknown option 'lerning_rate'. Did you mean 'learning_rate'? (learning_rate: largest step size of AdamW; too large and the model breaks, too small and it stays as it was) Known: OPTIONS
eight.yaml:6: stage 'direct': there is no stage '$wram' before this one. Did you mean '$warm'? Known: $data, $warm, $base
eight.yaml:6: objective 'bradley_terry' needs chosen_reward_B, rejected_reward_B, which prefer does not give; it belongs under fit_reward
eight.yaml:7: unknown objective 'ddpo'. Did you mean 'dpo'? Known: OBJECTIVES
eight.yaml:7: stage 'late': epochs must be a number above 0, got -1 (epochs: passes over the data; more fit it closer, and then memorise it)"""


def test_eight_planted_mistakes_are_found_at_once_and_without_torch(tmp_path):
    from truing import registry

    (tmp_path / "eight.yaml").write_text(EIGHT, encoding="utf-8")
    code = (
        "import sys\nfrom truing.recipe.check import check\nfrom truing.errors import RecipeError\n"
        "try: check('eight.yaml')\nexcept RecipeError as problem: print(problem)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    said = EIGHT_SAID.replace("STAGES", ", ".join(sorted(registry.parts("stage"))))
    said = said.replace("OPTIONS", ", ".join(sorted(o.name for o in registry.parts("stage")["sft"].options)))
    said = said.replace("OBJECTIVES", ", ".join(sorted(registry.parts("objective"))))
    assert done.stdout == said + "\nFalse\n"


def test_a_good_recipe(good):
    recipe = check(good)
    assert (recipe.title, recipe.seed, recipe.base) == ("a story", 3, "world:desk/tiny")
    assert [(spec.name, spec.do) for spec in recipe.stages][:2] == [("data", "split"), ("warm", "sft")]
    assert recipe.stage("data").options == {"data": "some/pairs", "eval": 0.2}
    assert recipe.stage("warm").options == {
        "model": "world:desk/tiny",
        "data": Ref("data", "data", "train"),
        "epochs": 2.0,
        "learning_rate": 3e-5,
    }
    assert recipe.stage("direct").options["objective"] == ["dpo", {"nll": {"weight": 0.1}}]
    assert recipe.stage("exam").options["models"] == [Ref("model", "direct"), Ref("reward", "rm")]
    assert recipe.stage("exam").line == 10
    assert recipe.expect == {"exam.direct.win_rate": (0.5, 1.0)}
    assert recipe.text == good.read_text() and recipe.path == str(good)


def test_a_recipe_can_be_made_in_python():
    warm = StageSpec("warm", "sft", {"model": "world:desk/tiny", "data": "world:demonstrations"})
    recipe = Recipe(title="warm up", stages=(warm,))
    assert recipe.stage("warm") is warm
    with pytest.raises(AttributeError):
        recipe.title = "other"


ONE_MISTAKE = {
    "wrong type": ("seed: 3", "seed: three", "2: seed must be a whole number, got 'three'"),
    "unknown reference": (
        "evidence: $exam",
        "evidence: $exan",
        "stage 'release': there is no stage '$exan' before this one. Did you mean '$exam'?",
    ),
    "later": (
        "model: $warm, data: $data.train, eval",
        "model: $direct, data: $data.train, eval",
        "8: stage 'rm': '$direct' comes later: a stage refers only to stages before it",
    ),
    "part": (
        "data: $data.train, epochs",
        "data: $data.trian, epochs",
        "7: stage 'warm': stage 'data' gives no 'trian'. Did you mean '$data.train'? It gives $data.train, $data.eval",
    ),
    "no part": (
        "data: $data.train, epochs",
        "data: $data, epochs",
        "7: stage 'warm': '$data' has several parts: say which of $data.train, $data.eval",
    ),
    "one output": ("against: $warm", "against: $warm.best", "stage 'warm' gives no 'best'. It has one output, $warm"),
    "kind": (
        "model: $warm, data: $data.train, objective",
        "model: $data.train, data: $data.train, objective",
        "9: stage 'direct': 'model' must be a model ($stage, $base, a Hub name, a folder or world:...), but $data.train is data. Fitting here: $warm, $base",
    ),
    "reward as policy": (
        "model: $warm, data: $data.train, objective",
        "model: $rm, data: $data.train, objective",
        "but $rm is a reward model. Fitting here: $warm, $base",
    ),
    "no input": (
        "$inputs.data",
        "$inputs.dta",
        "there is no input '$inputs.dta'. Did you mean '$inputs.data'? Known: $inputs.data",
    ),
    "reference where none fits": ("eval: 0.2", "eval: $inputs", "there is no input '$inputs'."),
    "stage where a number is wanted": (
        "epochs: 2",
        "epochs: $data",
        "7: stage 'warm': 'epochs' refers to no stage: it must be a number above 0, got '$data'",
    ),
    "range": ("eval: 0.2", "eval: 1.2", "6: stage 'data': eval must be a number from 0 to 1, got 1.2"),
    "choice": (
        "eval: 0.2",
        "by: promt",
        "6: stage 'data': by must be one of prompt, row, got 'promt'. Did you mean 'prompt'?",
    ),
    "missing option": ("model: $base, data", "data", "7: stage 'warm' (sft) needs 'model'"),
    "weight": ("{weight: 0.1}", "{weight: much}", "9: objective 'nll': weight must be a number from 0 up, got 'much'"),
    "option of an objective": (
        "{weight: 0.1}",
        "{wieght: 0.1}",
        "9: objective 'nll': unknown option 'wieght'. Did you mean 'weight'? (weight: what the term counts for",
    ),
    "range of an objective": (
        "[dpo, {nll: {weight: 0.1}}]",
        "{dpo: {beta: 0}}",
        "9: objective 'dpo': beta must be a number above 0, got 0",
    ),
    "only an added term": (
        "[dpo, {nll: {weight: 0.1}}]",
        "nll",
        "9: objective 'nll' reads single responses; under prefer it can only be added to one that learns from pairs",
    ),
    "not this stage's": ("epochs: 2", "objective: dpo", "which sft does not give; it belongs under prefer"),
    "shape of an objective": (
        "[dpo, {nll: {weight: 0.1}}]",
        "{dpo: {}, nll: {}}",
        "9: an objective is a name, or one name with its options such as {dpo: {beta: 0.1}}",
    ),
    "empty objective": ("[dpo, {nll: {weight: 0.1}}]", "[]", "9: objective is an empty list"),
    "no do": ("do: sft, ", "", "7: stage 'warm' does not say what to do. Known: "),
    "stage is no mapping": (
        "{do: gate, evidence: $exam, rules: release.yaml}",
        "gate",
        "11: stage 'release' is a mapping such as {do: sft, ...}, not 'gate'",
    ),
    "name of a stage": (
        "  release:",
        "  ../release:",
        "11: stage '../release': this name has letters that a folder's name should not have",
    ),
    "taken name": ("  release:", "  base:", "11: stage 'base': this name is taken"),
    "twice": ("  release:", "  exam:", "11: 'exam' stands twice (first on line 10)"),
    "expected stage": (
        "exam.direct.win_rate",
        "exma.direct.win_rate",
        "13: expect: 'exma.direct.win_rate': unknown stage 'exma'. Did you mean 'exam'?",
    ),
    "expected model": (
        "exam.direct.win_rate",
        "exam.drect.win_rate",
        "13: expect: 'exam.drect.win_rate': unknown model 'drect'. Did you mean 'direct'?",
    ),
    "expected form": (
        "exam.direct.win_rate",
        "win_rate",
        "13: expect: 'win_rate' is not of the form stage.model.check",
    ),
    "expected of what measures nothing": (
        "exam.direct.win_rate",
        "warm.warm.win_rate",
        "stage 'warm' (sft) measures nothing",
    ),
    "bounds": (
        "[0.5, 1.0]",
        "[1.0, 0.5]",
        "13: expect: 'exam.direct.win_rate' needs [lowest, highest], got [1.0, 0.5]",
    ),
    "unused input": (
        "inputs: {",
        "inputs: {other: 1, ",
        "4: input 'other' is read by no stage; use it as $inputs.other or remove it",
    ),
    "input of many values": (
        "inputs: {data: some/pairs}",
        "inputs: {data: [a, b]}",
        "4: input 'data' is a single value, not ['a', 'b']",
    ),
    "missing file": (
        "data: some/pairs",
        "data: pairs.jsonl",
        "4: input 'data': there is no file 'pairs.jsonl'. Give your own: data=FILE",
    ),
    "world data": (
        "data: $inputs.data",
        "data: world:comparisns",
        "6: stage 'data': data: unknown data set of the world 'comparisns'. Did you mean 'comparisons'?",
    ),
    "option of world data": (
        "data: $inputs.data",
        "data: 'world:comparisons?m=4'",
        "unknown parameter 'm'. Known: n, rater, seed, split",
    ),
    "option of world data without quotes": (
        "data: $inputs.data",
        "data: world:comparisons?m=4",
        "6: stage 'data': data: world:comparisons?m=4: unknown parameter 'm'. Known: n, rater, seed, split, ties",
    ),
    "model as data": (
        "data: $inputs.data",
        "data: world:desk/small",
        "6: stage 'data': data: 'world:desk/small' is a model, not a data set",
    ),
    "alias": ("[0.5, 1.0]", "&a [0.5, 1.0]", "13: a recipe has no anchors (&) and aliases (*): write"),
    "alias of nothing": ("[0.5, 1.0]", "*a", "13: a recipe has no anchors (&) and aliases (*): write the value out"),
    "anchor of a key": ("seed: 3", "&a seed: 3", "2: a recipe has no anchors (&) and aliases (*): write the value out"),
    "merge key": ("epochs: 2", "<<: {epochs: 2}", "7: a recipe has no merge keys (<<): write the merged entries out"),
    "tag": (
        "seed: 3",
        "seed: !!python/object:os.system 3",
        "2: a recipe has no tags (tag:yaml.org,2002:python/object:os.system): write the value without one",
    ),
    "tag of a word": ("seed: 3", "seed: !!int 3", "2: a recipe has no tags (tag:yaml.org,2002:int): write the value"),
    "bare tag": ("epochs: 2", "epochs: ! 2", "7: a recipe has no tags (!): write the value without one"),
    "another YAML": ("title: a story", "%YAML 1.1\n---\ntitle: a story", "2: a recipe is YAML 1.2 without tags"),
    "two documents": ("seed: 3", "---\nseed: 3", "2: a recipe is one document: take out the line ---"),
    "a word of YAML 1.1": ("seed: 3", "seed: yes", "2: seed must be a whole number"),
    "a clock time": ("seed: 3", "seed: 1:30", "2: seed must be a whole number"),
    "too deep": ("seed: 3", "seed: " + "[" * 101 + "]" * 101, "2: is nested too deeply: more than 100 lists"),
    "a letter that YAML has not": ("seed: 3", "seed: \a", "2: is not YAML: the character U+0007 may not stand in it"),
    "not YAML": ("seed: 3", "seed: [3", "expected ',' or ']', but got ':'"),
    "new model": (
        "base: world:desk/tiny",
        "base: {new: llama, hiden: 64}",
        "3: base: unknown key 'hiden'. Did you mean 'hidden'?",
    ),
    "new model without text": ("base: world:desk/tiny", "base: {new: llama}", "3: base: a new model needs 'text'"),
    "stage without $ as model": (
        "model: $warm, data: $data.train, eval",
        "model: warm, data: $data.train, eval",
        "8: stage 'rm': model: there is no folder 'warm'. Did you mean '$warm'?",
    ),
    "part without $ as data": (
        "data: $data.train, epochs",
        "data: data.train, epochs",
        "7: stage 'warm': data: there is no file 'data.train'. Did you mean '$data.train'?",
    ),
    "misspelt gold": (
        "judge: $rm",
        "judge: golt",
        "10: stage 'exam': judge: there is no folder 'golt'. Did you mean 'gold'?",
    ),
    "gold where no truth is known": (
        "judge: $rm",
        "judge: gold, prompts: $data.eval",
        "10: stage 'exam': judge is gold, which knows the truth of prompts of the world only, and these come from "
        "'some/pairs'; fit a reward model and give it as judge",
    ),
    "gold by default": (
        "prompts: $data.eval, judge: $rm",
        "prompts: some/prompts",
        "and these come from 'some/prompts'",
    ),
    "misspelt rules": (
        "rules: release.yaml",
        "rules: relase.yaml",
        "11: stage 'release': rules: there is no file 'relase.yaml'. Did you mean 'release.yaml'?",
    ),
    "a stage as rules": (
        "rules: release.yaml",
        "rules: $exam",
        "11: stage 'release': 'rules' must be a rules file, but $exam is findings",
    ),
    "missing evidence": (
        "evidence: $exam",
        "evidence: [$exam, fond.json]",
        "11: stage 'release': evidence: there is no file 'fond.json'",
    ),
    "misspelt ending": (
        "data: some/pairs",
        "data: pairs.jsnol",
        "4: input 'data': there is no file 'pairs.jsnol', and a Hub name has the form owner/name. "
        "Give your own: data=FILE",
    ),
    "a name that no file can have": (
        "data: some/pairs",
        f"data: {'x' * 300}",
        "4: input 'data': there is no file 'xxx",
    ),
    "base that is nothing": (
        "base: world:desk/tiny",
        "base: gpt2",
        "3: base: there is no folder 'gpt2', and a Hub name has the form owner/name",
    ),
    "epochs and steps": ("epochs: 2", "epochs: 2, steps: 5", "7: stage 'warm': give epochs or steps, not both"),
    "two sizes of a step": (
        "epochs: 2",
        "rows_per_step: 2, tokens_per_step: 5",
        "7: stage 'warm': give tokens_per_step or rows_per_step, not both",
    ),
    "no base": ("base: world:desk/tiny\n", "", "'model' is $base, but the recipe has no 'base'"),
}


@pytest.mark.parametrize(("old", "new", "said"), ONE_MISTAKE.values(), ids=ONE_MISTAKE.keys())
def test_what_is_said_of_a_mistake(mistakes, old, new, said):
    found = mistakes(old, new)
    assert any(said in line for line in found), found


def test_a_mistake_does_not_cause_others(mistakes):
    """References to a stage whose own `do` is wrong are not mistakes of their own."""
    assert len(mistakes("do: split", "do: splt")) == 1
    assert len(mistakes("epochs: 2", "epochs: none at all")) == 1


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("warm.epochs=x", "command line: stage 'warm': epochs must be a number above 0, got 'x'"),
        ("wram.epochs=1", "command line: wram.epochs=...: unknown stage 'wram'. Did you mean 'warm'?"),
        ("dta=x", "command line: dta=...: unknown name 'dta'. Did you mean 'data'?"),
        ("seed", "command line: 'seed' is not of the form name=value"),
        ("warm.epoch=1", "command line: stage 'warm' (sft): unknown option 'epoch'. Did you mean 'epochs'?"),
        ("data=world:comparisns", "unknown data set of the world 'comparisns'. Did you mean 'comparisons'?"),
        ("inputs.dta=x", "command line: inputs.dta=...: unknown input 'dta'. Did you mean 'data'?"),
    ],
)
def test_what_is_said_of_the_command_line(mistakes, item, said):
    found = mistakes(overrides=[item])
    assert any(said in line for line in found), found


def test_the_command_line_overrides(good):
    recipe = check(
        good,
        ["data=other/pairs", "seed=7", "base=Qwen/Qwen3-0.6B", "warm.epochs=1", "direct.objective={dpo: {beta: 1e-2}}"],
    )
    assert (recipe.seed, recipe.base, recipe.inputs) == (7, "Qwen/Qwen3-0.6B", {"data": "other/pairs"})
    assert recipe.stage("data").options["data"] == "other/pairs"
    assert recipe.stage("warm").options["epochs"] == 1.0
    assert recipe.stage("warm").options["model"] == "Qwen/Qwen3-0.6B"
    assert recipe.stage("direct").options["objective"] == {"dpo": {"beta": 0.01}}


def test_what_the_command_line_says_replaces_the_other_of_a_pair(good):
    options = check(good, ["warm.steps=3"]).stage("warm").options
    assert options["steps"] == 3 and "epochs" not in options
    with pytest.raises(RecipeError, match="give epochs or steps, not both"):
        check(good, ["warm.steps=3", "warm.epochs=1"])


def test_gold_knows_the_worlds_prompts_through_a_split(good):
    override = ["exam.judge=gold", "exam.prompts=$data.eval"]
    assert check(good, [*override, "data=world:comparisons?n=20"]).stage("exam").options["judge"] == "gold"
    with pytest.raises(RecipeError, match="these come from 'other/pairs'"):
        check(good, [*override, "data=other/pairs"])


def test_an_expectation_of_a_reward_model_without_held_out_pairs(good):
    good.write_text(good.read_text().replace(", eval: $data.eval", "") + "  rm.rm.held_out_accuracy: [0.5, 1]\n")
    with pytest.raises(RecipeError, match=r"stage 'rm' .fit_reward. measures nothing without 'eval'"):
        check(good)


def test_every_mistake_of_a_rules_file_is_said_with_the_recipes(good, tmp_path):
    (tmp_path / "release.yaml").write_text("rules:\n  - {chek: win_rate, min: 1}\n  - {check: win_rate}\n")
    with pytest.raises(RecipeError) as problem:
        check(good)
    assert len(problem.value.mistakes) == 2
    assert "story.yaml:11: stage 'release': rules: release.yaml, rule 1, line 2: unknown key 'chek'" in str(
        problem.value
    )


def test_files_are_looked_for_beside_the_recipe_and_typed_ones_here(good, tmp_path, monkeypatch):
    here = tmp_path / "here"
    for folder in (tmp_path, here):
        folder.mkdir(exist_ok=True)
        (folder / "pairs.jsonl").write_text("{}\n")
        (folder / "release.yaml").write_text("rules: [{check: win_rate, min: 0}]\n")
    monkeypatch.chdir(here)
    assert check(good).stage("release").options["rules"] == str(tmp_path / "release.yaml")
    assert check(good, ["release.rules=release.yaml"]).stage("release").options["rules"] == "release.yaml"
    assert check(good, ["data=pairs.jsonl"]).stage("data").options["data"] == "pairs.jsonl"


def test_a_recipe_tells_what_the_command_line_changed(good):
    recipe = check(good, ["warm.epochs=9", "seed=4"])
    assert recipe.overrides == ("warm.epochs=9", "seed=4")
    good.write_text(recipe.text)
    again = check(good)
    assert (again.seed, again.stage("warm").options["epochs"]) == (4, 9.0)


def test_a_file_beside_the_recipe_is_found(good, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    assert check(good, ["data=pairs.jsonl"]).stage("data").options["data"] == str(tmp_path / "pairs.jsonl")


def test_a_new_model(good, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    recipe = check(good, ["data=pairs.jsonl", "base={new: llama, hidden: 64, text: $inputs.data}"])
    wanted = {"new": "llama", "hidden": 64, "text": str(tmp_path / "pairs.jsonl")}
    assert recipe.base == wanted
    assert recipe.stage("warm").options["model"] == wanted


def test_an_objective_of_the_users_own(good, tmp_path):
    (tmp_path / "mine.py").write_text(
        "raise SystemExit('executed')\n"
        "@objective(source='me')\n"
        "def mine(chosen_logp_B, rejected_logp_B, *, scale: Positive, idle: float = 0.0):\n"
        "    return scale * chosen_logp_B\n"
    )
    recipe = check(good, ["direct.objective={'mine.py:mine': {scale: 2}}"])
    assert recipe.stage("direct").options["objective"] == {f"{tmp_path}/mine.py:mine": {"scale": 2.0}}
    with pytest.raises(RecipeError, match="needs 'scale'"):
        check(good, ["direct.objective=mine.py:mine"])
    with pytest.raises(RecipeError, match="its option 'idle' is never read"):
        check(good, ["direct.objective={'mine.py:mine': {scale: 2, idle: 1}}"])
    with pytest.raises(RecipeError, match=r"there is no file other\.py"):
        check(good, ["direct.objective=other.py:mine"])


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        check(tmp_path / "none.yaml")
    for text, said in {
        "- a\n- b\n": "a recipe is a mapping",
        "\n": "at least one stage",
        "stages: [1]\n": "'stages' is a mapping",
        "a: [" * 3000 + "\n": "too deeply",
        "{}{\n": "expected",
        "a: \x07\n": "is not YAML",
    }.items():
        with pytest.raises(RecipeError, match=said):
            check(text)


def test_the_order_of_the_file_is_kept_and_yes_is_a_word(good):
    """A key such as `on` or `yes` stays the word it is, though YAML would read a truth value."""
    with pytest.raises(RecipeError, match="unknown top-level key 'on'"):
        check(good.read_text() + "on: 1\n")


@pytest.mark.parametrize(
    ("stage", "name", "signal"), [("prefer", "reinforce", "advantage_B"), ("sft", "grpo", "old_logp_BT")]
)
def test_an_objective_of_rollouts_needs_the_stage_that_samples_them(stage, name, signal) -> None:
    text = (
        "title: t\nbase: world:desk/tiny\nstages:\n"
        f"  one: {{do: {stage}, model: $base, data: 'world:comparisons?n=20', objective: {name}}}\n"
    )
    said = rf"objective '{name}' needs .*{signal}.*, which {stage} does not give; it belongs under reinforce"
    with pytest.raises(RecipeError, match=said):
        check(text)


@pytest.mark.parametrize("name", ["dpo", "dpo_ranked", "kldo", "nll", "[dpo, {nll: {weight: 0.1}}]"])
def test_the_stage_that_samples_trains_objectives_of_preferences_too(name) -> None:
    check(
        "title: t\nbase: world:desk/tiny\nstages:\n"
        f"  one: {{do: reinforce, model: $base, prompts: 'world:prompts?n=20', rewards: gold, objective: {name}}}\n"
    )
