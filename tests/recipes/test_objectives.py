"""Every objective on preferences trains from one recipe; and a study gathers seeds into one table, or refuses."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from truing import registry, seals
from truing.data.kinds import shape_of
from truing.disk import write_json
from truing.errors import UserError
from truing.recipe.check import check
from truing.recipe.families import of_reward
from truing.records import OWED, Finding
from truing.report.exam_table import table
from truing.run import runner as running

HOME = Path(__file__).parent.parent.parent
RECIPE = HOME / "recipes" / "objectives.yaml"
SMALL = [
    "base=world:desk/tiny",
    "demonstrations=world:demonstrations?n=16",
    "pairs=world:comparisons?n=6",
    "rankings=world:rankings?n=3",
    "prompts=world:prompts?n=3&split=eval",
    "exam.max_new_tokens=2",
]


def study_module():
    """studies/run.py, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("study", HOME / "studies" / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["study"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


study = study_module()


@pytest.fixture
def _now(monkeypatch) -> None:
    """A study finds the source to be as it was when the seeds were run."""
    monkeypatch.setattr(study, "source_digest", lambda: "now")


def preferences() -> set[str]:
    """The objectives that teach a policy from preferences, of those that a stage can train."""
    parts = registry.parts("objective").values()
    of_policies = [p for p in parts if not of_reward(p) and not OWED & {*p.needs}]
    return {p.name for p in of_policies if shape_of(p.needs) not in ("single", "scored", "steps", "outcomes")}


def small(*more: str):
    names = [spec.name for spec in check(RECIPE).stages if spec.do == "prefer"]
    return check(RECIPE, [*SMALL, *(f"{name}.steps=1" for name in ("warm", *names)), *more])


def test_every_objective_on_preferences_trains_from_one_recipe(tmp_path, capsys) -> None:
    recipe = small()
    trained = [spec.name for spec in recipe.stages if spec.do == "prefer"]
    objectives = [spec.options["objective"] for spec in recipe.stages if spec.do == "prefer"]
    assert {o if isinstance(o, str) else next(iter(o)) for o in objectives} == preferences()
    assert running.run(recipe, tmp_path) == 0
    last = capsys.readouterr().out.partition("exam (evaluate)")[2]
    for name in trained:
        line = next(line for line in last.split("\n") if line.startswith(f"  {name} over warm "))
        assert line.rstrip().endswith(" s") and line.count("%") >= 2, "a win rate, and how long it was trained"
    found = json.loads((tmp_path / "exam" / "findings.json").read_text())["findings"]
    measured = {(f["model"], f["check"]) for f in found}
    checks = ("win_rate", "mean_score", "kl_to_reference", "mean_length_delta_tokens")
    assert {(name, check) for name in trained for check in checks} <= measured


def exam(rate: float, n: int = 500, wide: float = 0.04) -> list[Finding]:
    """What an exam of one model against `warm` finds."""
    return [
        Finding("win_rate", "dpo", rate, "warm", interval=(rate - wide, rate + wide), n=n),
        Finding("win_rate", "dpo", 0.9, "lookup", interval=(0.8, 1.0), n=n),
        Finding("mean_score", "dpo", 0.41, n=n),
        Finding("mean_score", "warm", 0.3, n=n),
        Finding("kl_to_reference", "dpo", 1.25, "warm", n=n),
        Finding("implicit_accuracy", "dpo", 0.8, n=n),
        Finding("win_rate", "dpo", 0.2, "warm", "red_team", interval=(0.1, 0.3), n=n),
    ]


def test_the_terminal_shows_a_row_for_each_comparison_and_a_line_for_the_rest() -> None:
    lines = table(exam(0.6), {"dpo": 12.34, "rm": None}).split("\n")
    assert lines[0].split() == ["win", "rate", "score", "KL,", "nats", "training"]
    assert lines[1].split() == [
        "dpo",
        "over",
        "warm",
        "60.0",
        "%",
        "(56.0",
        "to",
        "64.0)",
        "0.410",
        "1.25",
        "12.3",
        "s",
    ]
    assert lines[2].startswith("  dpo over lookup") and "1.25" not in lines[2]
    assert lines[3].split() == ["dpo", "implicit_accuracy", "0.800"] and len(lines) == 5
    assert "red_team" in lines[4] and "win_rate" in lines[4] and "0.200" in lines[4]
    assert table([Finding("held_out_accuracy", "rm", 0.7)], {}).split() == ["rm", "held_out_accuracy", "0.700"]


PLAN = {
    "recipe": "recipes/objectives.yaml",
    "seeds": [0, 7],
    "change": ["pairs=world:comparisons?n=6&seed={seed}"],
    "against": "warm",
    "rules": [{"check": "win_rate", "end": "lower", "min": 0.5, "samples": 500}],
    "columns": ["mean_score", "kl_to_reference"],
}


def left_by(folder: Path, plan, seed: int, findings: list[Finding], code: str = "now") -> None:
    """Write what a run of one seed leaves, as far as a study reads it."""
    recipe = check(HOME / plan.recipe, study.changes(plan, seed))
    stages = []
    files = {"dpo/summary.json": {"figures": [{"name": "time in the loop", "value": 11.6}]}}
    rows = [f.as_json() for f in reversed(findings)]  # the wrong ones first
    files["exam/findings.json"] = seals.sealed({"findings": rows, "about": {"stage": "exam"}})
    (folder / "dpo").mkdir(parents=True)
    (folder / "dpo" / "metrics.jsonl").write_text('{"tokens": 700}\n{"tokens": 800}\n')
    for name, value in files.items():
        write_json(folder / name, value)
    for name in (spec.name for spec in recipe.stages):
        facts = {"name": name, "state": "done", "parts": {"code": code}, "seconds": 5.4}
        stage = seals.sealed(facts | {"outputs": seals.outputs_of(folder / name)})
        write_json(folder / name / "stage.json", stage)
        stages.append({"name": name, "state": "done", "seal": stage["seal"]})
    write_json(folder / "manifest.json", seals.sealed({"state": "done", "recipe": recipe.text, "stages": stages}))


@pytest.mark.parametrize(
    ("second", "word"),
    [(exam(0.58), "yes"), (exam(0.53), "no (7)"), (exam(0.58, n=499), "no (7)"), (exam(0.4), "no (7)")],
)
@pytest.mark.usefixtures("_now")
def test_a_table_shows_each_seed_and_holds_only_where_all_do(tmp_path, second, word) -> None:
    plan = study.Study.model_validate(PLAN)
    for seed, findings in ((0, exam(0.6)), (7, second)):
        left_by(tmp_path / str(seed), plan, seed, findings)
    seeds = [study.read_seed(plan, seed, tmp_path / str(seed)) for seed in plan.seeds]
    head, _, warm, dpo = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in study.gather(plan, seeds).split("\n")
    ]
    assert head == [
        "model",
        "win rate, seed 0",
        "win rate, seed 7",
        "mean score",
        "kl to reference, nats",
        "tokens learned",
        "time, s",
        "holds",
    ]
    rate = 100 * second[0].value
    assert dpo[:3] == ["dpo", "60.0 % (56.0 to 64.0)", f"{rate:.1f} % ({rate - 4:.1f} to {rate + 4:.1f})"]
    assert dpo[4:] == ["1.25 / 1.25", "1,500 / 1,500", "12 / 12", word]
    assert warm[0] == "warm" and warm[1:3] == ["-", "-"] and "0.300" in warm[3]
    assert warm[5:] == ["0 / 0", "5 / 5", ""]


def test_a_model_costs_what_lies_between_it_and_the_one_it_is_held_against() -> None:
    reads = {"warm": [], "rm": ["warm"], "answers": ["warm"], "pairs": ["answers", "rm"], "policy": ["warm", "pairs"]}
    spent = {name: study.Spent(float(10**i), 2 * 10**i) for i, name in enumerate(reads)}
    seed = study.Seed(0, (), spent, {name: frozenset(read) for name, read in reads.items()})
    assert seed.cost("policy", "warm") == study.Spent(11110, 22220)  # each stage once, and not what made warm
    assert seed.cost("rm", "warm") == study.Spent(10, 20)
    assert seed.cost("warm", "warm") == study.Spent(1, 2)
    assert seed.cost("rm", "base") == study.Spent(11, 22)
    assert seed.cost("lookup", "warm") is None


def test_what_a_stage_reads_is_found_wherever_an_option_names_it() -> None:
    reads = study.read_by(check(HOME / "recipes" / "quickstart.yaml"))
    assert reads["exam"] == {"direct", "warm", "data"} and reads["rm"] == {"warm", "data"} and not reads["data"]


@pytest.mark.usefixtures("_now")
def test_a_study_refuses_seeds_of_other_code_or_another_recipe_and_waits_for_those_not_done(tmp_path) -> None:
    plan = study.Study.model_validate(PLAN)
    assert study.read_seed(plan, 0, tmp_path / "none") is None
    left_by(tmp_path / "old", plan, 0, exam(0.6), code="other")
    left_by(tmp_path / "new", plan, 0, exam(0.6))
    assert study.read_seed(plan, 0, tmp_path / "new").number == 0
    for seed, folder in ((0, "old"), (7, "new")):
        with pytest.raises(UserError, match="the recipe or truing's source has changed since"):
            study.read_seed(plan, seed, tmp_path / folder)


def test_a_study_that_is_written_wrong_is_named() -> None:
    assert study.read_study(HOME / "studies" / "objectives.yaml").seeds == (0, 1, 2)
    with pytest.raises(UserError, match=r"Studies: .*objectives, online"):
        study.read_study(HOME / "studies" / "nothing.yaml")


@pytest.mark.parametrize("name", sorted(path.stem for path in (HOME / "studies").glob("*.yaml")))
def test_every_study_changes_what_its_recipe_has_and_shares_no_data_between_seeds(name, real_data, monkeypatch) -> None:
    monkeypatch.setenv("TRUING_DATA", str(real_data))
    plan = study.read_study(HOME / "studies" / f"{name}.yaml")
    first, second = (check(HOME / plan.recipe, study.changes(plan, seed)) for seed in plan.seeds[:2])
    assert first.seed != second.seed and {plan.against} < {stage.name for stage in first.stages}
    made = [
        {w for w in re.findall(r"world:\w+\?[^\s\"]+", r.text) if "shown=columns" not in w} for r in (first, second)
    ]
    assert made[0] and not made[0] & made[1], "the digits of a new model's text are all that seeds may share"
