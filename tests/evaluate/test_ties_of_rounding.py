"""A difference within rounding of zero has no sign: it is a tie and counts half, in every metric that counts signs."""

import math

import pytest
import torch

from small_models import build
from small_pairs import TEXT, ragged
from truing.data.batch import Batch, Branch, Tree
from truing.evaluate import held_out, reward_model, winrate
from truing.evaluate.exam import Responses, compare, pair_accuracy
from truing.objectives import bradley_terry, dpo, dpo_ranked
from truing.policy import heads
from truing.policy.load import load
from truing.policy.precision import Rounding
from truing.policy.reference import compute
from truing.policy.scalars import Heads
from truing.records import Message
from truing.rewards.scoring import RewardModel
from truing.signals.observe import observe
from truing.train.checks import compared
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.record.metrics import describe

OFF = 1e-7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(build("llama", TEXT, tmp_path_factory.mktemp("model"), vocab=300))


@pytest.fixture(scope="module")
def trees():
    return ragged(12, longest=20)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_before_the_first_update_of_dpo_every_pair_is_a_tie(folder, trees, precision) -> None:
    """Policy and reference agree; margins are rounding, and their signs would be those of the processor's."""
    policy, terms = load(folder), WeightedObjectives([Term(dpo, {})])
    policy.compute_in(precision)
    reference = compute(policy, trees, 4096)
    batch = Batch(trees)
    with torch.no_grad():
        for part in batch.split(60):
            names = terms.signals | compared(terms, 1, False, True)
            assert describe(observe(policy, part, names, reference))["accuracy"] == 0.5 * part.rows


def test_a_margin_beyond_rounding_has_its_sign(folder, trees) -> None:
    policy, terms = load(folder), WeightedObjectives([Term(dpo, {})])
    reference = compute(policy, trees, 4096)
    reference.logp += torch.linspace(-0.01, 0.01, len(reference.logp))
    batch = Batch(trees)
    with torch.no_grad():
        signals = observe(policy, batch, terms.signals | {"tie_tolerance_B"}, reference)
    margin = (signals["chosen_logp_B"] - signals["ref_chosen_logp_B"]) - (
        signals["rejected_logp_B"] - signals["ref_rejected_logp_B"]
    )
    assert signals["tie_tolerance_B"].max() < 1e-3
    assert describe(signals)["accuracy"] == pytest.approx((margin > 0).double().sum().item(), abs=1)


def test_the_tolerance_grows_with_the_root_of_the_length(folder) -> None:
    policy = load(folder)
    short, long = (Batch(ragged(8, longest=n)) for n in (4, 40))
    with torch.no_grad():
        a, b = (observe(policy, batch, frozenset({"tie_tolerance_B"}))["tie_tolerance_B"] for batch in (short, long))
    tokens = [sum(len(branch.ids) for branch in tree.branches) for tree in long.trees]
    assert a.mean() < b.mean()
    assert (b / b[0]).tolist() == pytest.approx([math.sqrt(n / tokens[0]) for n in tokens])


def test_equal_responses_are_tied_for_a_reward_model_in_training(folder) -> None:
    """One response twice is read at two places, and the two scores differ in their last bits."""
    policy = heads.fresh_reward(folder, seed=0)
    twins = []
    for tree in ragged(6, longest=12):
        first = tree.branches[0]
        twin = tree.branches[1].__class__("rejected", first.ids, first.loss)
        twins.append(tree.__class__(tree.prompt, (first, twin), tree.index, tree.row))
    terms = WeightedObjectives([Term(bradley_terry, {})])
    with torch.no_grad():
        signals = observe(policy, Batch(tuple(twins)), terms.signals | compared(terms, 1, False, True))
    assert describe(signals)["accuracy"] == 0.5 * len(twins)
    assert pair_accuracy("rm", policy, twins).value == 0.5


def test_a_ranking_whose_best_two_are_tied_counts_half() -> None:
    scores = torch.tensor([[1.0, 1.0 + OFF, 0.0], [1.0, 0.0, 2.0], [2.0, 1.0, 0.0], [1.0, 1.0 + OFF, 9.0]])
    signals = {"logp_BK": scores, "rank_mask_BK": torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]])}
    signals["lead_tolerance_B"] = torch.full((4,), 1e-6)
    assert describe(signals)["best_first"] == 0.5 + 0 + 1 + 0.5
    names = compared(WeightedObjectives([Term(dpo_ranked, {})]), 2, False, True)
    assert names == {"lead_tolerance_B"}


def test_findings_count_what_is_within_rounding_as_ties() -> None:
    found = reward_model.accuracy("rm", [1.0, 1.0 - OFF, 2.0], [0.5, 1.0, 1.0], within=1e-6)
    assert found.value == pytest.approx(2.5 / 3) and "1 tied" in found.evidence
    each = reward_model.accuracy("rm", [1.0, 1.0], [0.9, 0.9], within=[0.2, 0.05])
    assert each.value == 0.75
    labels, *_ = reward_model.label_accuracy("c", "rm", [OFF, -OFF, 1.0], [True, True, True], list("abc"), within=1e-6)
    assert labels.value == pytest.approx(2 / 3)
    tau, share = reward_model.rankings("rm", [[1.0, 1.0 + OFF, 0.0]], ["a"], within=1e-6)
    assert tau.value == pytest.approx(2 / 3) and share.value == pytest.approx(2.5 / 3)


def test_scores_of_a_judge_within_its_rounding_are_no_win() -> None:
    ours, theirs = [1.0 + OFF, 2.0, 3.0], [1.0, 2.0 + OFF, 1.0]
    exact = winrate.win_rate("a", ours, "b", theirs, list("abc"))[0]
    rounded = winrate.win_rate("a", ours, "b", theirs, list("abc"), within=1e-6)[0]
    assert exact.value == pytest.approx(2 / 3) and "0 tied" in exact.evidence
    assert rounded.value == pytest.approx(2 / 3) and "1 won, 2 tied, 0 lost" in rounded.evidence


def test_a_rankings_tolerance_is_that_of_its_best_and_its_longest_rival(folder) -> None:
    policy = load(folder)

    def branch(role: str, n: int) -> Branch:
        return Branch(role, tuple(range(20, 20 + n)), (True,) * n)

    tree = Tree((5, 6, 7), (branch("chosen", 1), branch("rejected", 1), branch("rejected", 100)), 0, 1)
    with torch.no_grad():
        found = observe(policy, Batch((tree,)), frozenset({"lead_tolerance_B"}))["lead_tolerance_B"]
    assert found.item() == pytest.approx(policy.noise(Batch((tree,))) * math.sqrt(2 * 101))


def test_the_tolerance_of_scores_grows_with_them(folder, trees) -> None:
    """A head that has been trained to a thousand times the scores rounds as much more."""
    policy = heads.fresh_reward(folder, seed=0)
    with torch.no_grad():
        before = observe(policy, Batch(trees), frozenset({"tie_tolerance_B"}))["tie_tolerance_B"].mean()
        policy.model.score.weight.mul_(1000)
        after = observe(policy, Batch(trees), frozenset({"tie_tolerance_B"}))["tie_tolerance_B"].mean()
    assert 300 < after / before < 3000


def test_findings_are_told_the_rounding_of_the_model_they_measure(folder, trees, monkeypatch) -> None:
    """Held-out accuracy, a judge's win rate: where nothing can be told apart, all is tied."""
    policy, terms = heads.fresh_reward(folder, seed=0), WeightedObjectives([Term(bradley_terry, {})])
    assert "0 tied" in held_out.measure("rm", policy, trees, terms)[0][0].evidence
    judge = RewardModel(policy)
    prompts = [(Message("user", "a refund"),), (Message("user", "the rule"),)]
    texts = (["no", "the desk"], ["thirty days", "no refund"])
    values = [tuple(score.value for score in judge(prompts, some)) for some in texts]
    assert 0 < judge.tie_tolerance < 1e-4
    monkeypatch.setattr(Rounding, "allowed", lambda *_: 1e6)
    told = held_out.measure("rm", policy, trees, terms)[0][0]
    assert told.value == 0.5 and f"{len(trees)} tied" in told.evidence
    assert pair_accuracy("rm", policy, trees).value == 0.5
    sides = [Responses(name, ("", ""), v, within=judge.tie_tolerance) for name, v in zip("ab", values, strict=True)]
    assert compare(*sides, prompts, "rm")[0].value == 0.5


def test_weighed_heads_round_by_their_weights(folder) -> None:
    tolerances = []
    for weights in ((1.0, 1.0), (100.0, -100.0)):
        policy = heads.fresh_reward(folder, seed=0, heads=Heads(("a", "b"), weights))
        judge = RewardModel(policy)
        judge([(Message("user", "a refund"),)], ["no"])
        tolerances.append(judge.tie_tolerance)
    assert tolerances[1] / tolerances[0] == pytest.approx(100, rel=1e-6)
