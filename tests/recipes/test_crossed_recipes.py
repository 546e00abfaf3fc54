"""Fixed against fresh pairs, and alpha against weights: the recipes run whole, and their cells differ in nothing else."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from truing.recipe.check import check
from truing.records import Finding
from truing.run import runner as running

HOME = Path(__file__).parent.parent.parent
LOSSES = ("dpo", "ipo", "simpo")
KINDS = ("others", "fixed", "fresh")
PARTS = ("helpful", "harmless", "honest")
SMALL = ["base=world:desk/tiny", "demonstrations=world:demonstrations?n=8", "questions=world:prompts?n=3&split=eval"]
FEW = ("steps=2", "rows_per_step=2")
BRIEF = {"reinforce": ("group_size=3", "max_new_tokens=6"), "sample": ("samples_per_prompt=3", "max_new_tokens=6")}

spec = importlib.util.spec_from_file_location("study_of_cells", HOME / "studies" / "run.py")
study = importlib.util.module_from_spec(spec)
sys.modules["study_of_cells"] = study
spec.loader.exec_module(study)


def small(name: str, *more: str):
    """A recipe with two updates of two prompts, or of two pairs, in each cell, and one for the models before."""
    stages = check(HOME / "recipes" / f"{name}.yaml").stages
    changes = [f"{s.name}.{c}" for s in stages if s.do in ("reinforce", "prefer") for c in FEW]
    changes += [f"{s.name}.{c}" for s in stages if s.do in BRIEF for c in BRIEF[s.do]]
    changes += [f"{s.name}.steps=1" for s in stages if s.do in ("sft", "fit_reward")]
    changes += [f"{s.name}.max_new_tokens=4" for s in stages if s.do == "evaluate"]
    return check(HOME / "recipes" / f"{name}.yaml", [*SMALL, *changes, *more])


def found(folder: Path, stage: str) -> list[Finding]:
    """What an exam found."""
    rows = json.loads((folder / stage / "findings.json").read_text())["findings"]
    return [Finding.from_json(row) for row in rows]


def options(recipe, stage: str, *without: str) -> dict:
    """A stage's options but some."""
    return {k: v for k, v in recipe.stage(stage).options.items() if k not in without}


def test_fixed_and_fresh_pairs_have_one_budget() -> None:
    recipe = check(HOME / "recipes" / "onpolicy.yaml")
    for loss in LOSSES:
        fixed, fresh = (recipe.stage(f"{loss}_{kind}").options for kind in ("fixed", "fresh"))
        shared = ("model", "objective", "learning_rate", "steps", "rows_per_step")
        assert {k: fixed[k] for k in shared} == {k: fresh[k] for k in shared}
        assert next(iter(fixed["objective"])) == loss
        sampled, judged = recipe.stage("answers").options, recipe.stage("chosen").options
        for name in ("model", "prompts", "max_new_tokens"):
            assert fresh[name] == sampled[name]
        assert fresh["group_size"] == sampled["samples_per_prompt"]
        assert fresh["rewards"] == judged["rewards"] and fixed["data"].stage == "chosen"
        assert f"n={fresh['steps'] * fresh['rows_per_step']}&" in fresh["prompts"], "every prompt once"
        others = options(recipe, f"{loss}_others", "data")
        assert others == options(recipe, f"{loss}_fixed", "data")
        assert recipe.stage(f"{loss}_others").options["data"].stage == "others"
    likes = [options(recipe, f"{loss}_{kind}", "objective") for loss in LOSSES for kind in ("fixed", "fresh")]
    assert likes[0] == likes[2] == likes[4] and likes[1] == likes[3] == likes[5]
    chosen, others = (options(recipe, name, "data") for name in ("chosen", "others"))
    assert chosen == others and chosen["keep"] == "pair"
    agents, sampled = recipe.stage("others").options["data"], recipe.stage("answers").options
    assert f"k={sampled['samples_per_prompt']}&" in agents and f"n={40 * 8}&" in agents, (
        "as many answers to as many prompts"
    )


@pytest.mark.parametrize(("name", "judge"), [("onpolicy_far", "reward_model"), ("onpolicy_gold", "gold")])
def test_the_other_studies_of_pairs_change_all_cells_alike(name: str, judge: str) -> None:
    plan, plain = (study.read_study(HOME / "studies" / f"{n}.yaml") for n in (name, "onpolicy"))
    recipe = check(HOME / plan.recipe, study.changes(plan, 0))
    assert (plan.rules, plan.against, plan.seeds) == (plain.rules, plain.against, plain.seeds)
    cells = [recipe.stage(f"{loss}_{kind}").options for loss in LOSSES for kind in KINDS]
    assert {cell["learning_rate"] for cell in cells} == {3e-4}
    asked = [recipe.stage(n).options for n in ("chosen", "others", *(f"{loss}_fresh" for loss in LOSSES))]
    assert {next(iter(one["rewards"][0])) for one in asked} == {judge}


def test_fixed_and_fresh_pairs_are_learned_from_and_compared(tmp_path) -> None:
    few = [
        "pairs=world:comparisons?n=6",
        "held_out=world:comparisons?n=4&split=eval",
        "prompts=world:prompts?n=4&seed=20",
        "agents=world:rankings?n=4&k=3&seed=30",
    ]
    assert running.run(small("onpolicy", *few, "chosen.truncated=keep"), tmp_path) == 0
    cells = {f"{loss}_{kind}" for loss in LOSSES for kind in KINDS}
    assert {f.model for f in found(tmp_path, "exam") if f.check == "win_rate" and f.against == "warm"} == cells
    direct = [f for loss in LOSSES for f in found(tmp_path, loss) if f.check == "win_rate"]
    pairs = [(f"{loss}_{kind}", f"{loss}_fixed") for loss in LOSSES for kind in ("fresh", "others")]
    assert [(f.model, f.against) for f in direct] == pairs
    plan = study.read_study(HOME / "studies" / "onpolicy.yaml")
    everything = tuple(f for stage in ("exam", *LOSSES) for f in found(tmp_path, stage))
    lines = study.duels(plan, [study.Seed(0, everything, {}, {})]).split("\n")
    assert sorted(tuple(line.removeprefix("| ").split(" | ")[:2]) for line in lines[2:]) == sorted(pairs)
    assert not any(" to " in line for line in lines[2:]), "so few prompts have no interval"
    assert study.duels(plan, [study.Seed(0, tuple(found(tmp_path, "exam")), {}, {})]) == ""


def test_the_cells_of_the_frontier_differ_in_alpha_or_in_weights_alone() -> None:
    recipe = check(HOME / "recipes" / "frontier.yaml")
    alphas, weighed = ([s.name for s in recipe.stages if s.name.startswith(n)] for n in ("alpha", "helpful"))
    weighed.remove("helpful")
    assert len(alphas) == 4 and len(weighed) == 3
    for name in alphas:
        ((kind, given),) = recipe.stage(name).options["rewards"][0].items()
        alpha = given["alpha"]
        assert kind == "density_ratio" and name == f"alpha{100 * alpha:.0f}"
        assert recipe.stage(name).options["beta"] == pytest.approx(1 - alpha)
    for name in weighed:
        weights = {}
        for one in recipe.stage(name).options["rewards"]:
            ((_, given),) = one.items()
            weights[given["model"].stage] = given.get("weight", 1.0)
        assert weights.get("helpful", 0.0) == float(name.removeprefix("helpful")) / 100 and sum(weights.values()) == 1
    rests = [options(recipe, name, "rewards", "beta") for name in (*alphas, *weighed)]
    assert all(rest == rests[0] for rest in rests) and rests[0]["model"].stage == "safe"
    assert [ref.stage for ref in recipe.stage("exam").options["models"]] == [*alphas, *weighed]


def test_the_frontier_is_trained_and_told_in_parts_of_gold(tmp_path, capsys) -> None:
    few = [f"{n}=world:demonstrations?n=8&quality={q}" for n, q in (("good", 0.9), ("bad", 0.1))]
    few += ["ratings=world:ratings?n=6", "held_out=world:ratings?n=4&split=eval", "prompts=world:prompts?n=4&seed=20"]
    recipe = small("frontier", *few)
    assert running.run(recipe, tmp_path) == 0
    findings = found(tmp_path, "exam")
    models = [ref.stage for ref in recipe.stage("exam").options["models"]]
    values = {(f.model, f.check): f.value for f in findings}
    for model in (*models, "safe"):
        parts = {part: values[model, f"{part}_mean_score"] for part in PARTS}
        gold = 2 * (0.6 * parts["helpful"] + 0.2 * parts["harmless"] + 0.2 * parts["honest"]) - 1
        assert values[model, "mean_score"] == pytest.approx(gold, abs=1e-5)
    for model in models:
        apart = values[model, "harmless_mean_score"] - values["safe", "harmless_mean_score"]
        assert values[model, "harmless_mean_score_delta"] == pytest.approx(apart, abs=1e-9)
    assert not {f.check for f in findings} & {"helpful_win_rate", "helpful_win_delta"}
    assert "harmless_mean_score" not in capsys.readouterr().out, "the report tells of parts"
    assert "harmless mean score" in (tmp_path / "report.html").read_text()


def of(model: str, helpful: float, harmless: float) -> list[Finding]:
    """What an exam finds of a model."""
    found = [Finding("a", model, helpful), Finding("b", model, harmless)]
    beside = [Finding("win_rate", model, 0.5, "safe", interval=(0.4, 0.6), n=9)]
    return found if model == "safe" else found + beside


def test_a_front_is_of_the_models_that_none_is_better_than() -> None:
    rules = [{"check": "win_rate", "end": "lower", "min": 0.3}]
    given = {"recipe": "r.yaml", "seeds": [3], "against": "safe", "rules": rules, "columns": ["a"], "front": ["a", "b"]}
    plan = study.Study.model_validate(given)
    known = [*of("safe", 0.5, 0.5), *of("one", 1.0, 0.2), *of("two", 0.6, 0.7), *of("three", 0.6, 0.6)]
    seed = study.Seed(3, tuple(known), {}, {})
    assert study.front_of(plan, seed, ["safe", "one", "two", "three", "unmeasured"]) == ["one", "two"]
    rows = [line.split(" | ") for line in study.gather(plan, [seed]).split("\n")]
    assert rows[0][-1] == "on the front |" and [row[-1] for row in rows[2:]] == ["no |", "yes |", "yes |", "no |"]
