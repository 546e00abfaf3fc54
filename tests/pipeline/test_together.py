"""Options that have no effect without another, or lack one: refused by the check of a recipe, before anything runs."""

from __future__ import annotations

import pytest

from truing.data.split import opening
from truing.errors import RecipeError
from truing.recipe.check import check
from truing.recipe.references import Ref
from truing.run.console import Show
from truing.run.lineage import learned, verdicts
from truing.run.stage_run import StageRun

HEAD = """\
base: world:desk/tiny
stages:
  warm: {do: sft, model: $base, data: world:demonstrations}
  rm: {do: fit_reward, model: $warm, data: world:comparisons}
"""
LEARN = "policy: {do: reinforce, model: $warm, prompts: world:prompts, rewards: [$rm], "
WATCH = "monitor: [gold, {length: {per_token: 1.0}}], monitor_prompts: 'world:prompts?split=eval'}"
EXAM = "exam: {do: evaluate, models: [$rm], against: $warm, "


def said(*stages: str, expect: str = "") -> str:
    """Every mistake of a recipe with these stages in one text, empty where there is none."""
    text = HEAD + "".join(f"  {stage}\n" for stage in stages) + (f"expect: {expect}\n" if expect else "")
    try:
        check(text)
    except RecipeError as problem:
        return "\n".join(problem.mistakes)
    return ""


def test_what_goes_together_is_taken() -> None:
    both = "curves: {do: diagnose, runs: [$policy], truth: reward_length}"
    picked = (
        "picked: {do: diagnose_best_of, model: $warm, reward: [$rm, $rm], aggregate: worst, prompts: world:prompts}"
    )
    assert said(LEARN + WATCH, both, picked) == ""
    ppo = "objective: [ppo, {value_clipped: {weight: 0.1}}, ptx], value: $rm, pretrain: world:demonstrations, group_size: 1}"
    assert said(LEARN + ppo) == ""
    assert said(LEARN + "objective: dpo, resample: 2}") == said(LEARN + "objective: nll, passing: 1.0}") == ""
    assert said(LEARN + "objective: rloo, beta: 0.1, kl_target: 6.0, normalise: round}") == ""
    assert said(EXAM + "data: world:comparisons}") == ""


@pytest.mark.parametrize(
    ("stage", "problem"),
    [
        (LEARN + "monitor: gold}", "'monitor' needs 'monitor_prompts'"),
        (LEARN + "patience: 2}", "'patience' has no effect without 'monitor'"),
        (LEARN + "monitor_every: 10}", "'monitor_every' has no effect without 'monitor'"),
        (
            LEARN + "monitor: [gold, {cost: {of: $rm, budget: 0}}], monitor_prompts: world:prompts}",
            "a cost is for learning",
        ),
        (
            LEARN + "monitor: {gold: {weight: 2.0}}, monitor_prompts: world:prompts}",
            "'weight' has no effect on a monitored",
        ),
        (
            LEARN + "monitor: gold, monitor_prompts: some/prompts}",
            "the monitored reward is gold, which knows the truth of",
        ),
        (LEARN + "value: $rm}", "'value' has no effect on this objective"),
        (LEARN + "objective: [grpo, ptx]}", "'pretrain' (texts) and the objective 'ptx' go together"),
        (LEARN + "pretrain: world:text}", "'pretrain' (texts) and the objective 'ptx' go together"),
        (LEARN + "group_size: 1}", "responses are compared with each other"),
        (LEARN + "tokens_per_step: 99}", "responses have no length before they are sampled"),
        (LEARN + "objective: dpo, beta: 0.2}", "leave it out; the objective has its own, dpo: {beta: 0.2}"),
        (LEARN + "objective: grpo, passing: 1.0}", "'passing' has no effect on this objective"),
        (LEARN + "objective: dpo, normalise: round}", "'normalise' has no effect on this objective"),
        (LEARN + "objective: grpo, gamma: 0.9}", "'gamma' has no effect on this objective"),
        (LEARN + "objective: rloo, kl_target: 6.0}", "'kl_target' has no effect here, which moves beta: give beta"),
        ("curves: {do: diagnose, runs: [$warm]}", "$warm (sft) is no stage that monitors itself"),
        ("curves: {do: diagnose, runs: [$base]}", "$base is no run that monitored itself"),
        (EXAM + "data: world:comparisons, passing: 1.0}", "'passing' has no effect without 'prompts'"),
        (EXAM + "data: world:comparisons, judge: $rm}", "'judge' has no effect without 'prompts'"),
        (EXAM + "samples: 3}", "there is nothing to measure: give prompts (to answer) or data"),
        (
            EXAM + "prompts: 'world:prompts?split=eval', best_of: 4, best_by: $rm, temperature: 0}",
            "none is the best of several",
        ),
        ("answers: {do: sample, model: $warm, prompts: world:prompts, temperature: 0}", "all 4 responses to a prompt"),
    ],
)
def test_what_says_nothing_is_refused(stage: str, problem: str) -> None:
    found = said(stage)
    assert problem in found and found.startswith("recipe:5: stage '") and "\n" not in found, found


def test_a_run_is_diagnosed_by_what_it_watched() -> None:
    assert "$policy monitored nothing" in said(LEARN + "steps: 1}", "curves: {do: diagnose, runs: [$policy]}")
    found = said(LEARN + WATCH, "curves: {do: diagnose, runs: [$policy], truth: golden}")
    assert "$policy: unknown monitored reward 'golden'. Did you mean 'gold'?" in found


def test_a_diagnosis_may_be_expected() -> None:
    curves = "curves: {do: diagnose, runs: [$policy]}"
    picked = "picked: {do: diagnose_best_of, model: $warm, reward: $rm, prompts: world:prompts}"
    expect = "{curves.policy.overoptimised: [0, 0], picked.warm best of n.gold_lost_after_peak: [0, 0.1]}"
    assert said(LEARN + WATCH, curves, picked, expect=expect) == ""
    wrong = said(LEARN + WATCH, curves, expect="{curves.polic.overoptimised: [0, 0]}")
    assert "unknown model 'polic'. Did you mean 'policy'?" in wrong


LINEAGE = """\
base: world:desk/tiny
stages:
  warm: {do: sft, model: $base, data: "world:demonstrations?n=7", without: "world:demonstrations?n=3"}
  loop:
    repeat: 2
    carry: {policy: $warm}
    stages:
      policy:
        do: reinforce
        model: $policy
        prompts: "world:prompts?n=5&seed=1$turn"
        rewards: gold
        monitor: gold
        monitor_prompts: "world:prompts?n=2&split=eval"
        patience: $turn
"""


def test_what_a_model_learned_from_is_known_through_every_stage_before(tmp_path) -> None:
    """Both turns' prompts, what the best look was chosen by, and the demonstrations less those that were left out."""
    run = StageRun(check(LINEAGE), "exam", "evaluate", tmp_path, "", Show(quiet=True))
    found = learned(run, Ref("model", "loop-2-policy"))
    assert [records.name.split("&")[0] for records in found] == [
        "world:prompts?n=5",
        "world:prompts?n=2",
        "world:prompts?n=5",
        "world:prompts?n=2",
        "world:demonstrations?n=7",
    ]
    assert set(map(opening, found[0].records)).isdisjoint(map(opening, found[2].records))
    left_out = set(map(opening, run.records("world:demonstrations?n=3").records))
    assert left_out.isdisjoint(map(opening, found[-1].records)) and len(found[-1]) <= 4
    assert learned(run, "someone/elses") == []


def test_a_mistake_in_an_option_is_said_alone() -> None:
    """Prompts that cannot be read are given all the same: what goes with them is not complained of too."""
    found = said(EXAM + "prompts: 3, passing: 1.0}")
    assert "prompts" in found and "has no effect without" not in found and "nothing to measure" not in found


@pytest.mark.parametrize("objective", ["reinforce_pp", "[ppo, {value_clipped: {weight: 0.1}}]"])
def test_methods_that_compare_no_answers_learn_from_one(objective: str) -> None:
    assert said(LEARN + f"objective: {objective}, group_size: 1}}") == ""


def test_a_value_model_is_for_whatever_reads_forecasts_be_it_optional(tmp_path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "from truing.registry import objective\n\n\n"
        '@objective(source="nobody", advantage="gae")\n'
        "def mine(logp_BT, old_logp_BT, advantage_BT, mask_BT, value_BT=None):\n"
        '    """Its own."""\n'
        "    return -logp_BT * advantage_BT * mask_BT\n"
    )
    assert said(LEARN + f"objective: '{own}:mine', value: $rm}}") == ""


VERDICTS = """\
base: world:desk/tiny
stages:
  warm: {do: sft, model: $base, data: "world:demonstrations?n=7"}
  first: {do: prefer, model: $warm, data: "world:comparisons?n=4"}
  policy:
    do: reinforce
    model: $first
    prompts: "world:prompts?n=5"
    rewards: gold
    objective: [grpo, {ptx: {weight: 0.1}}]
    pretrain: "world:text?n=3"
    monitor: gold
    monitor_prompts: "world:prompts?n=2&split=eval"
  judge: {do: fit_reward, model: $policy, data: "world:comparisons?n=6"}
"""


def test_of_the_stages_before_a_judge_only_verdicts_count(tmp_path) -> None:
    """Its own data and the comparisons of earlier stages; what was only looked at taught nothing, a text beside did."""
    run = StageRun(check(VERDICTS), "exam", "evaluate", tmp_path, "", Show(quiet=True))

    def names(found) -> list[str]:
        return [records.name.partition("&")[0] for records in found]

    own, earlier = "world:comparisons?n=6", "world:comparisons?n=4"
    assert names(verdicts(run, Ref("reward_model", "judge"))) == [own, earlier]
    assert names(verdicts(run, [Ref("reward_model", "judge"), "someone/elses"])) == [own, earlier]
    taught = ["world:prompts?n=5", "world:text?n=3", earlier, "world:demonstrations?n=7"]
    assert names(learned(run, Ref("model", "policy"))) == taught


OWN = '''
from typing import Annotated
from truing.registry import Data, stage


@stage(gives="data")
def evaluate(
    run,
    *,
    data: Annotated[Data, "rows"],
    lookup: Annotated[bool, "whether they are looked up"] = False,
    monitor: Annotated[int, "a screen"] = 0,
    patience: Annotated[int, "how long"] = 1,
    runs: Annotated[int, "how often"] = 1,
    samples: Annotated[int, "how many"] = 1,
    samples_per_prompt: Annotated[int, "how many of each"] = 2,
    temperature: Annotated[float, "degrees"] = 0.0,
    aggregate: Annotated[str, "a rock"] = "",
    coefficient: Annotated[float, "a factor"] = 1.0,
    reference: Annotated[str, "a book"] = "",
    objective: Annotated[str, "a lens"] = "",
    trusted_samples: Annotated[int, "how many"] = 1,
) -> None:
    """Say what was given."""
    print(run, data, lookup, monitor, patience, runs, samples, samples_per_prompt, temperature, aggregate)
    print(coefficient, reference, objective, trusted_samples)
'''


def test_a_stage_of_ones_own_inherits_no_rule_whatever_its_options_are_called(tmp_path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "r.yaml").write_text(
        "stages:\n  it: {do: mine.py:evaluate, data: world:demonstrations?n=5, lookup: true, patience: 3, runs: 4, samples: 5,\n"
        "       samples_per_prompt: 6, temperature: 0, aggregate: granite, coefficient: 2, reference: Bible, objective: Zeiss,\n"
        "       trusted_samples: 3}\n"
    )
    assert check(tmp_path / "r.yaml").stages[0].options["samples_per_prompt"] == 6


def test_a_rule_on_an_option_that_is_not_set_is_told_at_the_stage(tmp_path, monkeypatch) -> None:
    """The rules of a stage are those in the file of its name; what they say of a default has the stage's line."""
    from truing.recipe import constraints
    from truing.recipe.constraints import sample

    assert constraints.rules_of("sample") == sample.RULES and constraints.rules_of("gate") == ()

    def cold(part, options, nodes, scope):
        yield "temperature", "it is cold"

    monkeypatch.setattr(sample, "RULES", (cold,))
    with pytest.raises(RecipeError, match=r"recipe:3: stage 'it': it is cold"):
        check("title: x\nstages:\n  it: {do: sample, model: world:desk/tiny, prompts: world:prompts?n=5}\n")
