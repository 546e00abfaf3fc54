"""Loops in a recipe: the plain stages they become, and what is said of every mistake in one."""

from __future__ import annotations

import pytest

from truing.errors import RecipeError
from truing.recipe import loops
from truing.recipe.check import Ref, check

LOOP = """\
base: world:desk/tiny
inputs:
  prompts: world:prompts?n=6&seed=$turn
stages:
  warm: {do: sft, model: $base, data: world:demonstrations}
  loop:
    repeat: 2
    carry: {policy: $warm}
    stages:
      answers: {do: reinforce, model: $policy, prompts: $inputs.prompts, rewards: [gold], seed: $turn}
      policy: {do: sft, model: $policy, data: "world:demonstrations?n=2$turn"}
      look: {do: evaluate, models: [$policy, $answers], against: $warm, prompts: "world:prompts?split=eval"}
  exam: {do: evaluate, models: [$loop.policy, $loop-1-policy], against: $warm, prompts: "world:prompts?split=eval"}
"""


def mistakes(text, *overrides):
    """What is said of a recipe, without its first line."""
    with pytest.raises(RecipeError) as said:
        check(text, overrides)
    return said.value.mistakes


def changed(old, new):
    """The loop's recipe with one text replaced."""
    assert LOOP.count(old) == 1
    return LOOP.replace(old, new)


def test_a_loop_becomes_plain_stages_in_order():
    recipe = check(LOOP)
    turns = [f"loop-{n}-{name}" for n in (1, 2) for name in ("answers", "policy", "look")]
    assert [spec.name for spec in recipe.stages] == ["warm", *turns, "exam"]
    assert {spec.do for spec in recipe.stages} == {"sft", "reinforce", "evaluate"}
    assert recipe.stage("loop-1-answers").line == recipe.stage("loop-2-answers").line == 10


def test_a_name_means_the_latest_of_its_stage():
    recipe = check(LOOP)
    warm, first, second = (Ref("model", name) for name in ("warm", "loop-1-policy", "loop-2-policy"))
    assert recipe.stage("loop-1-answers").options["model"] == warm  # carried in
    assert recipe.stage("loop-1-policy").options["model"] == warm
    assert recipe.stage("loop-1-look").options["models"] == [first, Ref("model", "loop-1-answers")]
    assert recipe.stage("loop-2-answers").options["model"] == first  # of the turn before
    assert recipe.stage("loop-2-policy").options["model"] == first
    assert recipe.stage("loop-2-look").options["models"] == [second, Ref("model", "loop-2-answers")]
    assert recipe.stage("exam").options["models"] == [second, first]  # the last, and a certain one


def test_turn_is_a_number_or_part_of_a_text_also_in_an_input():
    recipe = check(LOOP)
    for turn in (1, 2):
        options = recipe.stage(f"loop-{turn}-answers").options
        assert (options["seed"], options["prompts"]) == (turn, f"world:prompts?n=6&seed={turn}")
        assert recipe.stage(f"loop-{turn}-policy").options["data"] == f"world:demonstrations?n=2{turn}"


def test_the_command_line_changes_every_turn_and_how_many_there_are():
    recipe = check(LOOP, ["loop.repeat=3", "loop.policy.learning_rate=2e-5", "loop.carry.policy=$base"])
    assert [recipe.stage(f"loop-{n}-policy").options["learning_rate"] for n in (1, 2, 3)] == [2e-5] * 3
    assert recipe.stage("loop-1-policy").options["model"] == "world:desk/tiny"
    assert recipe.stage("loop-3-policy").options["model"] == Ref("model", "loop-2-policy")
    assert recipe.stage("exam").options["models"][0] == Ref("model", "loop-3-policy")
    assert "repeat: 3" in recipe.text and "loop-3" not in recipe.text  # the recipe is kept as it is written


def test_more_turns_leave_the_first_ones_as_they_were():
    two, three = check(LOOP), check(LOOP, ["loop.repeat=3"])
    assert [s for s in two.stages if s.name != "exam"] == list(three.stages[: len(two.stages) - 1])


def test_a_model_by_its_name_is_carried_in():
    recipe = check(changed("{policy: $warm}", "{policy: world:desk/small}"))
    models = [recipe.stage(f"loop-{n}-policy").options["model"] for n in (1, 2)]
    assert models == ["world:desk/small", Ref("model", "loop-1-policy")]


DATA = """\
inputs: {data: world:demonstrations}
stages:
  data: {do: split, data: $inputs.data}
  loop:
    repeat: 2
    carry: {known: CARRIED}
    stages:
      policy: {do: sft, model: a/x, data: $known}
      known: {do: sample, model: $policy, prompts: world:prompts}
"""


@pytest.mark.parametrize(
    ("carried", "first"), [("$data.train", Ref("data", "data", "train")), ("$inputs.data", "world:demonstrations")]
)
def test_data_are_carried_in(carried, first):
    recipe = check(DATA.replace("CARRIED", carried))
    assert [recipe.stage(f"loop-{n}-policy").options["data"] for n in (1, 2)] == [first, Ref("data", "loop-1-known")]


def test_what_is_carried_in_has_the_kind_that_its_reader_wants():
    found = mistakes(
        DATA.replace("CARRIED", "$data.train").replace("model: a/x, data: $known", "model: $known, data: a/y")
    )
    assert len(found) == 1 and found[0].startswith("recipe:8: stage 'loop.policy': 'model' must be a model")
    assert "but $known is data" in found[0]
    whole = mistakes(DATA.replace("CARRIED", "$data"))
    assert whole == ["recipe:6: loop 'loop': '$data' has several parts: say which of $data.train, $data.eval"]


def test_expectations_name_the_last_turn_or_a_certain_one():
    bounds = "expect: {exam.loop.policy.win_rate: [0, 1], exam.loop-1-policy.win_rate: [0, 1], LOOK: [0, 1]}\n"
    recipe = check(LOOP + bounds.replace("LOOK", "loop.look.loop.policy.mean_score"))
    assert set(recipe.expect) == {
        "exam.loop-2-policy.win_rate",
        "exam.loop-1-policy.win_rate",
        "loop-2-look.loop-2-policy.mean_score",
    }
    assert "unknown model 'loop-3-policy'. Did you mean 'loop-2-policy'?" in " ".join(
        mistakes(LOOP + "expect: {exam.loop-3-policy.win_rate: [0, 1]}\n")
    )


FRAMES = [
    (
        "repeat: 2",
        "repeat: 0",
        "7: loop 'loop': repeat must be a whole number from 1 up, got 0 (repeat: turns of the loop, each beginning with "
        "what the last one left)",
    ),
    ("repeat: 2", "repeat: 30000", "7: loop 'loop': repeat is 30000, and 1000 turns are the most"),
    ("    repeat: 2\n", "", "6: loop 'loop': how many turns? Give repeat: 3"),
    (
        "repeat: 2",
        "repeet: 2",
        "7: loop 'loop': unknown key 'repeet'. Did you mean 'repeat'? Known: carry, repeat, stages",
    ),
    (
        "{policy: $warm}",
        "{polcy: $warm}",
        "8: loop 'loop': carry: unknown stage of the loop 'polcy'. Did you mean 'policy'? Known: answers, look, policy",
    ),
    (
        "{policy: $warm}",
        "{policy: $wram}",
        "8: loop 'loop': there is no stage '$wram' before this one. Did you mean '$warm'? Known: $warm, $base, $inputs.prompts",
    ),
    (
        "{policy: $warm}",
        "{policy: $warm, look: $warm}",
        "8: loop 'loop': carry: 'look' is read by no stage up to 'look' itself; use it as $look there, or remove it",
    ),
    (
        "{policy: $warm}",
        "[$warm]",
        "8: loop 'loop': carry is a mapping such as {policy: $warm}, not ['$warm']",
    ),
    (
        "    carry: {policy: $warm}\n",
        "",
        "9: stage 'loop.answers': '$policy' is not there yet: a stage refers only to stages before it. To have that of "
        "the turn before, say what it is in the first turn: carry: {policy: $STAGE}",
    ),
    ("      look:", "      repeat:", "12: stage 'loop.repeat': this name is taken by the loop's own 'repeat'"),
    ("      look:", "      turn:", "12: stage 'turn': this name is taken"),
    (
        "      look:",
        "      exam:",
        "12: stage 'loop.exam': outside of the loop there is 'exam' too, and $exam could mean either; rename one",
    ),
    (
        "  exam:",
        "  loop-7-look:",
        "12: stage 'loop.look': a turn of it is called 'loop-7-look', and so is another stage; rename one",
    ),
    (
        "{do: evaluate, models: [$policy, $answers], against: $warm,",
        "{repeat: 2, stages: {in: {do: sft}}, against: $warm,",
        "12: stage 'loop.look': a loop has no loop in it; put its stages here, or after this loop",
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), FRAMES)
def test_a_mistake_in_the_frame_is_found_at_its_line(old, new, said):
    assert f"recipe:{said}" in mistakes(changed(old, new))


REFERENCES = [
    ("models: [$loop.policy, ", "models: [$loop.polcy, ", "there is no '$loop.polcy' in that loop. Did you mean '$lo"),
    ("models: [$loop.policy, ", "models: [$loop, ", "'$loop' is a loop: say which stage of its last turn, $loop.ans"),
    (
        "models: [$loop.policy, ",
        "models: [$policy, ",
        "there is no stage '$policy' before this one. Did you mean '$loop",
    ),
    (
        ", $loop-1-policy]",
        ", $loop-3-policy]",
        "there is no stage '$loop-3-policy' before this one. Did you mean '$loop-",
    ),
    ("[$policy, $answers]", "[$loop-1-policy]", "'$loop-1-policy' is of the loop that this stage is in: name its sta"),
    ("[$policy, $answers]", "[$loop.policy]", "'$loop.policy' is of the loop that this stage is in: name its stages"),
    (
        "[$policy, $answers]",
        "[$polici]",
        "there is no stage '$polici' before this one. Did you mean '$policy'? Known: ",
    ),
    ("data: world:demonstrations}", "data: $loop.policy}", "'$loop.policy' comes later: a stage refers only to"),
    (
        "data: world:demonstrations}",
        'data: "world:demonstrations?n=$turn"}',
        "$turn is the number of a loop's turn, and",
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), REFERENCES)
def test_a_wrong_reference_is_said_once_with_the_nearest(old, new, said):
    found = mistakes(changed(old, new))
    assert [said in line for line in found] == [True]  # once, not in every turn


def test_a_mistake_of_a_stage_is_said_once_for_all_turns():
    found = mistakes(changed("seed: $turn}", "sed: $turn, rows_per_step: -$turn, objective: pppo}"))
    assert [line.partition(" (")[0].partition(": unknown")[0] for line in found][:1] == [
        "recipe:10: stage 'loop.answers'"
    ]
    assert len([line for line in found if "unknown option 'sed'" in line]) == 1
    assert len([line for line in found if "unknown objective 'pppo'" in line]) == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loop.polcy.beta=1", "there is no 'stages.loop.polcy' to set it in. Did you mean 'policy'?"),
        ("lopo.repeat=1", "unknown stage 'lopo'. Did you mean 'loop'?"),
        ("loop.policy.lerning_rate=1", "unknown option 'lerning_rate'. Did you mean 'learning_rate'?"),
        ("loop.repeat=0", "command line: loop 'loop': repeat must be a whole number from 1 up, got 0"),
    ],
)
def test_the_command_line_is_checked_as_the_file_is(override, said):
    found = mistakes(LOOP, override)
    assert len(found) == 1 and said in found[0]


PREFER = "stages: {w: {do: sft, model: a/x, data: a/y}, p: {do: prefer, model: $w, data: a/y, reference: $w, objective: O}}\n"


@pytest.mark.parametrize(
    ("objective", "read"), [("dpo", True), ("simpo", False), ("[simpo, dpo]", True), ("{orpo: {}}", False)]
)
def test_a_reference_is_refused_where_nothing_reads_it(objective, read):
    text = PREFER.replace("objective: O", f"objective: {objective}")
    if read:
        assert check(text).stage("p").options["reference"] == Ref("model", "w")
    else:
        assert "'reference' has no effect on" in mistakes(text)[0]


def test_turns_of_two_loops_have_folders_of_their_own():
    """`a-1-x-1-b` would be a stage of both."""
    answers = "{do: sample, model: $base, prompts: 'world:prompts?n=5'}"
    text = "base: world:desk/tiny\nstages:\n"
    text += f"  a: {{repeat: 2, stages: {{x-1-b: {answers}}}}}\n  a-1-x: {{repeat: 2, stages: {{b: {answers}}}}}\n"
    said = "a turn of it is called 'a-1-x-1-b', and so is one of loop 'a'; rename one"
    assert mistakes(text) == [f"recipe:4: stage 'a-1-x.b': {said}"]


def test_what_is_carried_in_as_a_reward_is_looked_up():
    text = """\
base: world:desk/tiny
stages:
  loop:
    repeat: 2
    carry: {rm: no/such/place, policy: $base}
    stages:
      policy: {do: reinforce, model: $policy, prompts: world:prompts, rewards: [$rm]}
      rm: {do: fit_reward, model: $policy, data: world:comparisons}
"""
    (said,) = mistakes(text)
    assert "recipe:7: stage 'loop.policy': rewards: there is no folder 'no/such/place'" in said


def test_as_many_turns_as_there_may_be_are_taken(monkeypatch):
    monkeypatch.setattr(loops, "MOST", 2)
    assert check(LOOP).stages[-1].name == "exam"
    assert mistakes(changed("repeat: 2", "repeat: 3")) == [
        "recipe:7: loop 'loop': repeat is 3, and 2 turns are the most"
    ]


def test_a_loop_without_stages_is_a_loop_with_a_mistake():
    (said,) = mistakes("stages:\n  loop: {repeat: 2}\n")
    assert said.startswith("recipe:2: loop 'loop' needs 'stages', a mapping such as ")


def test_a_name_that_a_turn_makes_too_long_for_a_folder_is_refused():
    """With the turn before it: `loop-2-` and 58 letters are 65, of which a folder has at most 64."""
    assert check(changed("      look:", f"      {'a' * 57}:")).stage(f"loop-2-{'a' * 57}")
    found = mistakes(changed("      look:", f"      {'a' * 58}:"))
    assert found == [f"recipe:12: stage '{'a' * 58}': this name is too long for a folder"]
