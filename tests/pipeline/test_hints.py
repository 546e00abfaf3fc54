"""Hints go by meaning before spelling, and every right-hand word of other systems' names exists here."""

import pytest

from truing import registry
from truing.errors import RecipeError
from truing.recipe import check, hints, other_names
from truing.recipe.reward_spec import TIE_TOLERANCE, TIMEOUT_SCORE

LINES = [line for section in other_names.sections().values() for line in section]
PREFER = "stages:\n  a: {do: prefer, model: world:desk/small, data: 'world:comparisons?n=50', %s}\n"
REINFORCE = "stages:\n  a: {do: reinforce, model: world:desk/small, prompts: 'world:prompts?n=50', rewards: gold, %s}\n"


def mistakes(text: str) -> list[str]:
    """What `check` says of a recipe that is wrong."""
    with pytest.raises(RecipeError) as problem:
        check.check(text)
    return problem.value.mistakes


def exists(address: str) -> bool:
    """Whether an address of the table leads to something that a recipe can say."""
    first, _, rest = address.partition(": ")
    kinds = {"do": "stage", "objective": "objective", "rewards": "reward"}
    if rest:
        return rest in registry.parts(kinds[first])
    if address in check.KEYS:
        return True
    owner, _, option = address.rpartition(".")
    parts = {name: part for kind in kinds.values() for name, part in registry.parts(kind).items()}
    if not owner:
        return option in SHARED or any(part.option(option) for part in registry.parts("stage").values())
    weighted = option == "weight" and owner in registry.parts("objective")
    return owner in parts and (weighted or parts[owner].option(option) is not None or hints.has("stage", owner, option))


SHARED = (TIE_TOLERANCE.name, TIMEOUT_SCORE.name)


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.system}-{line.name}")
def test_every_right_hand_word_exists(line) -> None:
    assert all(map(exists, line.here)), line.here
    assert line.here or line.remark
    assert line.system in ("TRL", "axolotl", "OpenRLHF", "verl", other_names.EARLIER)


def test_the_table_is_long_and_names_each_once_a_system() -> None:
    pairs = [(line.system, line.name) for line in LINES]
    assert len(set(pairs)) == len(pairs) >= 200
    own = {option.name for part in registry.parts("stage").values() for option in part.options}
    assert not {line.name for line in LINES if line.here == (line.name,)} & own  # the same name needs no translation


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (PREFER % "beta: 0.3", "option 'beta'. It is an option of the objective: objective: {dpo: {beta: 0.3}}."),
        (PREFER % "objective: [ipo, nll], tau: 1", "It is an option of the objective: objective: {ipo: {tau: 1}}."),
        (PREFER % "gamma: 1.5", "It is an option of the objective: objective: {simpo: {gamma: 1.5}}."),
        (PREFER % "rewards: gold", "It is an option of stages judge, reinforce."),
        (PREFER % "gradient_accumulation_steps: 4", "TRL's gradient_accumulation_steps is 'rows_per_step' or"),
        (
            PREFER % "grad_clip: 1",
            "verl's grad_clip is 'max_grad_norm' here (max_grad_norm: largest norm of a step's gr",
        ),
        (PREFER % "clip: 1", "truing 0.1's clip is 'max_grad_norm' here: clip is now the ratio's alone"),
        (REINFORCE % "passes: 2", "truing 0.1's passes is 'epochs_per_round' here (epochs_per_round: how often"),
        (REINFORCE % "answers: 4", "truing 0.1's answers is 'reinforce.group_size' or 'sample.samples_per_prompt' or"),
        (REINFORCE % "smoothing: 1", "truing 0.1's smoothing is 'gae_lambda' here"),
        (REINFORCE % "watch: gold", "truing 0.1's watch is 'reinforce.monitor' here"),
        (REINFORCE % "watch_every: 5", "truing 0.1's watch_every is 'monitor_every' here"),
        (REINFORCE % "unfinished_penalty: 1", "truing 0.1's unfinished_penalty is 'truncated_penalty' here"),
        (REINFORCE % "mask_unfinished: true", "truing 0.1's mask_unfinished is 'mask_truncated' here"),
        (REINFORCE.replace("gold", "{length: {late: 0}}") % "steps: 1", "truing 0.1's late is 'timeout_score' here"),
        (
            REINFORCE.replace("gold", "{length: {within: 0}}") % "steps: 1",
            "truing 0.1's within is 'tie_tolerance' here",
        ),
        (PREFER % "bf16: true", "TRL's bf16 is 'precision' here: precision: bf16."),
        (PREFER % "packing: true", "TRL's packing: always on"),
        (PREFER % "load_in_4bit: true", "TRL's load_in_4bit: not built"),
        (REINFORCE % "reward: gold", "Did you mean 'rewards'? (rewards: the rewards that score responses"),
        (PREFER % "epoch: 2", "Did you mean 'epochs'? (epochs: passes over the data"),
        (PREFER % "objective: {dpo: {learning_rate: 1}}", "It is an option of the stage: write it beside 'objective'."),
        (PREFER % "objective: {dpo: {label_smoothing: 0.1}}", "an option of the objective cdpo, robust_dpo, exo."),
        (PREFER % "objective: sigmoid", "unknown objective 'sigmoid'. TRL's sigmoid is 'objective: dpo' here."),
        (PREFER % "objective: prefer", "unknown objective 'prefer'. It is a stage: {do: prefer, ...}."),
        (
            REINFORCE % "num_generations: 8",
            "TRL's num_generations is 'reinforce.group_size' or 'sample.samples_per_prompt' here",
        ),
        (
            REINFORCE % "'actor_rollout_ref.rollout.n': 8",
            "verl's actor_rollout_ref.rollout.n is 'reinforce.group_size' or 'sample.samples_per_prompt' here",
        ),
        (REINFORCE % "init_kl_coef: 0.1", "'reinforce.beta' or 'grpo.beta' here"),
        (REINFORCE % "objective: {grpo: {epsilon: 0.2}}", "TRL's epsilon is 'grpo.clip' or 'ppo.clip' here"),
        ("stages:\n  a: {do: dpo}\n", "unknown stage 'dpo'. It is an objective: {do: prefer, objective: dpo}."),
        ("stages:\n  a: {do: grpo}\n", "It is an objective: {do: reinforce, objective: grpo}."),
        ("stages:\n  a: {do: DPOTrainer}\n", "TRL's DPOTrainer is 'do: prefer' here: objective: {dpo: {beta: 0.1}}."),
        ("stages:\n  a: {do: verifier}\n", "It is a reward: rewards: verifier."),
        ("rl: dpo\nstages: {}\n", "axolotl's rl is 'do: prefer' or 'do: reinforce' here"),
        ("sequence_len: 512\nstages: {}\n", "axolotl's sequence_len is 'max_length' here"),
        (
            "learning_rate: 1\nstages: {}\n",
            "It is an option of a stage: stages: {NAME: {do: ..., learning_rate: ...}}.",
        ),
        ("sft: {}\nstages: {}\n", "It is a stage: stages: {NAME: {do: sft, ...}}."),
        (
            "base: {new: llama, text: 'world:text?n=9', layer: 2}\nstages: {}\n",
            "Did you mean 'layers'? (layers: decoder",
        ),
    ],
)
def test_a_hint_by_meaning(text, hint) -> None:
    mistake = next((mistake for mistake in mistakes(text) if hint in mistake), "")
    assert mistake, mistakes(text)
    assert ("Known: " in mistake) == ("Did you mean" in mistake)  # what is meant is an answer; a spelling is a guess


def test_a_change_on_the_command_line_without_its_stage_is_told_which() -> None:
    text = "stages:\n  cut: {do: split, data: 'world:prompts?n=9'}\n" + (PREFER % "steps: 1").removeprefix("stages:\n")
    with pytest.raises(RecipeError) as problem:
        check.check(text, ["learning_rate=1e-5"])
    (mistake,) = problem.value.mistakes
    assert mistake.endswith("'learning_rate' is an option of a stage: write a.learning_rate=...")


@pytest.mark.parametrize("word", ["zzz", "context", "foo_bar", "sampler", "notes"])
def test_no_hint_where_none_fits(word) -> None:
    (mistake,) = (m for m in mistakes(PREFER % f"{word}: 1") if word in m)
    assert f"unknown option '{word}'. Known: " in mistake


def test_a_reward_of_another_kind_is_told_what_it_is() -> None:
    (mistake,) = mistakes(REINFORCE.replace("rewards: gold, %s", "rewards: [grpo]"))
    assert "unknown reward 'grpo'. It is an objective: {do: reinforce, objective: grpo}." in mistake


def test_a_name_that_would_act_on_a_terminal_is_shown_harmless() -> None:
    (mistake,) = mistakes(PREFER % '"beta\\x1b[2J": 1')
    assert "\x1b" not in mistake
    assert "\x1b" not in hints.unknown_name("objective", "a\x1b[2J")


def test_a_wrong_value_says_what_the_option_is() -> None:
    (mistake,) = mistakes(PREFER % "epochs: -1")
    assert mistake.endswith(
        "epochs must be a number above 0, got -1 (epochs: passes over the data; more fit it closer, "
        "and then memorise it)"
    )
