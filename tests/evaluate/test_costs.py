"""A reward model that says a cost is to be lower for the better response: said by `lower_is_better`, and by nothing else."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import truing.registry
from small_models import build
from truing.contract import violations
from truing.data.batch import Branch, Tree
from truing.errors import UserError
from truing.evaluate.exam import pair_accuracy
from truing.evaluate.held_out import HeldOut, pairs, ranked
from truing.policy import heads
from truing.policy.load import load
from truing.policy.scalars import Heads
from truing.recipe import catalogue
from truing.recipe.check import check
from truing.registry import Objective, parts
from truing.run.console import Show
from truing.run.stage_run import StageRun
from truing.stages.exam_judge import appoint
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.record.metrics import describe

SOURCE = Path(truing.__file__).parent


def apart(chosen_reward_B, rejected_reward_B):
    """The chosen response has less.

    loss = softplus(c_w - c_l)). Differs from the source: nothing.

    >>> 1
    1
    """
    return torch.nn.functional.softplus(chosen_reward_B - rejected_reward_B)


def higher(chosen_reward_B, rejected_reward_B):
    """The chosen response has more.

    loss = softplus(r_l - r_w)). Differs from the source: nothing.

    >>> 1
    1
    """
    return torch.nn.functional.softplus(rejected_reward_B - chosen_reward_B)


COST = Objective(apart, "nobody", lower_is_better=True)
EXEMPT = Objective(higher, "nobody", exempt={"direction": "some rows go the other way"})


def accuracy(objective, chosen, rejected):
    """The published accuracy of these pairs, one a prompt."""
    trees = [
        Tree((i,), (Branch("chosen", (1,), (True,)), Branch("rejected", (2,), (True,))), i, i)
        for i in range(len(chosen))
    ]
    seen = {"chosen_reward_B": chosen, "rejected_reward_B": rejected}
    (found,) = pairs(HeldOut("rm", trees, seen, "", Term(objective, {})))
    return found.value


def test_an_exemption_from_the_contract_turns_no_accuracy() -> None:
    """It is a fact about tests. A cost is one about the model, and is declared as what it is."""
    assert accuracy(EXEMPT, [1.0, 2.0, 0.0, 5.0], [0.0, 1.0, 1.0, 1.0]) == 0.75
    assert accuracy(COST, [1.0, 2.0, 0.0, 5.0], [0.0, 1.0, 1.0, 1.0]) == 0.25
    assert accuracy(parts_of("cost_model"), [-1.0, 1.0], [1.0, 2.0]) == 1.0


def parts_of(name):
    return truing.registry.load(name, "objective")


def test_rankings_of_a_cost_have_the_least_first() -> None:
    trees = [Tree((0,), tuple(Branch("response", (i,), (True,)) for i in range(3)), 0, 1)]
    for objective, sign in ((COST, -1.0), (EXEMPT, 1.0)):
        held = HeldOut("rm", trees, {"reward_BK": [[1.0, 2.0, 3.0]]}, "", Term(objective, {}))
        assert {f.check: f.value for f in ranked(held)}["held_out_kendall_tau"] == -sign


def test_the_metrics_of_training_are_turned_too() -> None:
    signals = {"chosen_reward_B": torch.tensor([-1.0, 3.0]), "rejected_reward_B": torch.tensor([1.0, 2.0])}
    assert describe(signals) == {"accuracy": 1.0, "margin": -1.0, "chosen_reward": 2.0}
    assert describe(signals, lower_is_better=True) == {"accuracy": 1.0, "margin": 1.0, "chosen_reward": 2.0}
    only = {name: value[:1] for name, value in signals.items()}
    assert describe(only, WeightedObjectives([Term(COST, {})]).lower_is_better)["accuracy"] == 1.0
    assert describe(only, WeightedObjectives([Term(EXEMPT, {})]).lower_is_better)["accuracy"] == 0.0


def test_the_contract_holds_a_cost_to_its_own_direction() -> None:
    assert not violations(COST)
    assert "the first step moves chosen_reward_B the wrong way" in violations(Objective(apart, "nobody"))[0]
    assert "direction" in violations(Objective(higher, "nobody", lower_is_better=True))[0]


def test_the_overview_says_which_objectives_teach_a_cost() -> None:
    costs = [part.name for part in parts("objective").values() if part.lower_is_better]
    assert costs == ["cost_model"]
    row = catalogue.row(parts("objective")["cost_model"])
    assert row["lower_is_better"] and "teaches a cost: lower is better" in catalogue.lines(row)


def test_only_the_contract_and_what_lists_it_read_exemptions() -> None:
    may = {"registry.py", "schema/signature.py", "recipe/catalogue.py", "contract/__init__.py"}
    reads = {f.relative_to(SOURCE).as_posix() for f in SOURCE.rglob("*.py") if ".exempt" in f.read_text("utf-8")}
    assert reads <= may


@pytest.fixture(scope="module")
def cost(tmp_path_factory):
    """The folder of a reward model that was fitted to say a cost, drawn and not trained."""
    base = build(
        "llama", ["one response is better", "another one does harm"] * 8, tmp_path_factory.mktemp("b"), vocab=300
    )
    folder = tmp_path_factory.mktemp("cost")
    heads.save(heads.fresh_reward(str(base), seed=3, heads=Heads(costs=("",))), folder)
    return folder


def test_a_model_that_says_a_cost_is_measured_as_one_wherever_it_is_loaded(cost) -> None:
    """`evaluate` with `data`: the same weights as a reward order the pairs the other way round."""
    ids = [((5, 6, 7), (i, i + 1), (i + 2,)) for i in range(20, 56, 4)]
    trees = [
        Tree(prompt, (Branch("chosen", one, (True,) * 2), Branch("rejected", two, (True,))), i, i)
        for i, (prompt, one, two) in enumerate(ids)
    ]
    policy = load(str(cost), "reward")
    assert policy.scalars.is_cost and policy.scalars == Heads(costs=("",))
    turned = pair_accuracy("harm", policy, trees).value
    policy.put_heads(Heads())
    assert turned == pytest.approx(1 - pair_accuracy("harm", policy, trees).value) and turned != 0.5


def test_a_cost_is_no_judge(cost, tmp_path) -> None:
    recipe = check(
        "base: world:desk/tiny\nstages:\n  warm: {do: sft, model: $base, data: world:demonstrations}\n"
        f"  exam: {{do: evaluate, models: [$warm], against: $base, prompts: 'world:prompts?n=2', judge: {cost}}}\n"
    )
    run = StageRun(recipe, "exam", "evaluate", tmp_path, "", Show(quiet=True))
    with pytest.raises(UserError, match="was fitted to score a cost, lower for the better response"):
        appoint(run, str(cost), None, None, run.records("world:prompts?n=2", want="prompts"))


def test_heads_that_say_costs_are_written_and_read_with_the_others() -> None:
    made = Heads(("helpful", "harm"), (1.0, -0.5), costs=("harm",))
    assert Heads.from_json(asdict(made)) == made and not made.is_cost
    with pytest.raises(ValueError, match="its head_costs are"):
        Heads.from_json(asdict(made) | {"costs": ["other"]})
