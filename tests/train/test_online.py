"""Learning from one's own answers: what begins at 1 and 0, what parts, passes and kills change (nothing), what is told."""

import json
import math
from dataclasses import replace

import pytest
import torch

from small_fit import apart
from small_online import (
    beta_of,
    collected,
    folder_of,
    judged,
    made,
    prompts,
    rewards_of,
    run,
    terms_of,
    trained,
    trees_of,
)
from truing import registry
from truing.data.batch import Batch, Branch, Tree
from truing.errors import RunFailed, UserError
from truing.objectives import advantage as adv
from truing.online import advantages, preferences
from truing.online.advantages import Round
from truing.online.source import Judged, OnlineOptions, Place, rollout_source
from truing.policy.load import load
from truing.rewards.combine import Cost
from truing.rollout import experience
from truing.rollout.engine import InProcess
from truing.settings import Online, Training
from truing.signals.observe import observe
from truing.stages.reinforce import untaught
from truing.train.objective_sum import Term, WeightedObjectives

PREFERENCES = ["dpo", "ipo", "simpo", "dpo_ranked", "bco", "kldo", "nll"]
METHODS = ["ppo", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce", "reinforce_pp", "awr", "rwr", "gdc"]
METHODS += ["reinforce_pp_baseline", "lite_ppo"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_begins_at_ratio_one_and_its_parts_change_nothing(name, folder, tmp_path) -> None:
    """The first update is on-policy: loss and gradient are those of ratio 1. Memory changes nothing."""
    whole, rows = trained(folder, tmp_path / "a", name, steps=3)
    split, again = trained(folder, tmp_path / "b", name, steps=3, tokens_per_device=30)
    assert ("kl" in rows[0]) == (beta_of(name) > 0 or terms_of(name).needs_reference)
    assert rows[0].get("kl", 0.0) == pytest.approx(0.0, abs=1e-3) and rows[0]["score"] == again[0]["score"]
    assert [r["loss"] for r in rows[:1]] == pytest.approx([r["loss"] for r in again[:1]], rel=1e-4, abs=1e-5)
    assert rows[0]["grad_norm"] == pytest.approx(again[0]["grad_norm"], rel=1e-3) and rows[0]["grad_norm"] > 0
    before = {n: p.detach() for n, p in load(folder).model.named_parameters()}
    assert apart(before, whole) > 1e-3 and apart(whole, split) < apart(before, whole)


@pytest.mark.parametrize(("name", "stop_after"), [("ppo", 5), ("ppo", 4), ("grpo", 3), ("dapo", 6)])
def test_killed_within_a_round_it_goes_on_bitwise(name, stop_after, folder, tmp_path) -> None:
    """Rounds of four updates: killed in the middle of one, or between two, with the last checkpoint before either."""
    options = dict(steps=8, minibatches=2, epochs_per_round=2, rows_per_step=2, checkpoint_every=3)
    whole, rows = trained(folder, tmp_path / "a", name, **options)
    trained(folder, tmp_path / "b", name, stop_after=stop_after, **options)
    again, more = trained(folder, tmp_path / "b", name, **options)
    assert apart(whole, again) == 0.0
    drop = {"seconds"}
    assert [{k: v for k, v in r.items() if k not in drop} for r in rows] == [
        {k: v for k, v in r.items() if k not in drop} for r in more
    ]


def test_a_round_read_back_is_the_round_that_was_lived(folder, tmp_path) -> None:
    """To the last bit; and another number in it gives other weights, so that the equality above can fail."""
    _, source = made(folder, tmp_path, "ppo")
    rows = collected(source, 0)
    experience.write(tmp_path / "r.parquet", rows)
    assert experience.read(tmp_path / "r.parquet") == rows
    assert len(rows) == 2 * 3 and all(len(r.logp_T) == len(r.value_T) == len(r.ref_logp_T) for r in rows)
    (tmp_path / "r.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(RunFailed, match="experience cannot be read"):
        experience.read(tmp_path / "r.parquet")


def test_what_the_sampler_said_is_what_the_trainer_reads(folder, tmp_path) -> None:
    policy, source = made(folder, tmp_path, "grpo")
    trees = trees_of(source, collected(source, 0))
    names = frozenset({"logp_BT", "old_logp_BT", "ref_logp_BT", "mask_BT"})
    with torch.no_grad():
        seen = observe(policy, Batch(tuple(trees)), names)
    assert (seen["logp_BT"] - seen["old_logp_BT"]).abs().max() < 1e-4
    assert (seen["logp_BT"] - seen["ref_logp_BT"]).abs().max() < 1e-4
    assert seen["mask_BT"].sum() == sum(len(b.ids) for t in trees for b in t.branches)
    assert [len(t.branches) for t in trees] == [3, 3], "a group is a tree: its prompt is read once"


def test_a_sampler_that_differs_from_the_trainer_stops_the_run(folder, tmp_path, monkeypatch) -> None:
    real = InProcess.generate

    def off(*given):
        return [replace(r, logp_T=tuple(x + 0.01 for x in r.logp_T)) for r in real(*given)]

    monkeypatch.setattr(InProcess, "generate", off)
    with pytest.raises(
        RunFailed, match=r"step 1: the sampler's log-probabilities differ from the trainer's by 1.0e-02 nats a token"
    ):
        trained(folder, tmp_path, "grpo")


def test_advantages_are_those_of_the_formulas(folder, tmp_path) -> None:
    """By hand from a round: groups for grpo and rloo, generalised advantages under KL control for ppo."""
    _, source = made(folder, tmp_path, "ppo", beta=0.3, truncated_penalty=0.5)
    rows = collected(source, 0)
    whole = Round(rows, source.schedule.online)
    cut = [r.stop == "length" for r in rows]
    assert any(cut)
    assert whole.score.tolist() == pytest.approx([r.score - 0.5 * c for r, c in zip(rows, cut, strict=True)])
    kl = torch.tensor([sum(r.logp_T) - sum(r.ref_logp_T) for r in rows], dtype=torch.float64)
    assert torch.allclose(whole.kl_penalised, whole.score - 0.3 * kl)
    assert torch.allclose(whole.rewards.sum(1), whole.kl_penalised), "spread over tokens it is the same"
    for kind, wanted in (
        ("centred", adv.centred(whole.kl_penalised, whole.group)),
        ("leave_one_out", adv.leave_one_out(whole.kl_penalised, whole.group)),
        ("standardised", adv.standardised(whole.kl_penalised, whole.group)),
    ):
        found = advantages.ADVANTAGES[kind](whole)
        assert torch.allclose(found, wanted[:, None] * whole.mask), kind
        assert found.abs().max() > 0.01
    advantage, returns = adv.gae(whole.rewards, whole.values, whole.mask)
    assert torch.allclose(advantages.ADVANTAGES["gae"](whole), adv.whitened(advantage, whole.mask))
    tree = trees_of(source, rows)[0]
    assert tree.branches[0].facts["return_BT"] == pytest.approx(returns[0, : len(rows[0].response_ids)].tolist())


def test_equal_scores_teach_nothing_and_are_counted(folder, tmp_path) -> None:
    """A group whose answers all score the same has no advantage: no gradient from the score, and it is told."""
    before = dict(load(folder).model.named_parameters())
    after, rows = trained(folder, tmp_path, "dapo", judge=judged(lambda ids: [1.0] * len(ids)), beta=0.0)
    assert apart({n: p.detach() for n, p in before.items()}, after) == 0.0
    assert all(row["equal_groups"] == 1.0 and row["loss"] == 0.0 for row in rows)


def test_every_prompt_comes_once_before_any_comes_again(folder, tmp_path) -> None:
    _, source = made(folder, tmp_path, "grpo", rows_per_step=2, epochs=2.0, steps=None)
    assert source.steps == 6
    rows = [p.row for number in range(6) for p in source.schedule.prompts_of(number)]
    assert sorted(rows[:6]) == sorted(rows[6:]) == [1, 2, 3, 4, 5, 6] and rows[:6] != rows[6:]


def test_passes_and_minibatches_are_the_updates_of_a_round(folder, tmp_path) -> None:
    _, source = made(folder, tmp_path, "grpo", minibatches=2, epochs_per_round=3, rows_per_step=2, steps=12)
    trees = trees_of(source, collected(source, 0))
    parts = [[t.row for t in part] for part in source.schedule.parts(trees, 0)]
    assert len(parts) == source.schedule.updates == 6 and all(len(part) == 2 for part in parts)
    assert all(sorted(parts[i] + parts[i + 1]) == sorted(parts[0] + parts[1]) for i in (2, 4))
    assert [source.fresh(step) for step in range(1, 8)] == [True, *[False] * 5, True]


@pytest.mark.parametrize("name", PREFERENCES)
def test_methods_of_preferences_learn_from_fresh_answers(name, folder, tmp_path) -> None:
    """Online DPO and the like: two or more answers, sorted by their scores; nothing else is another trainer's."""
    weights, rows = trained(folder, tmp_path, name, steps=3, beta=0.0)
    before = {n: p.detach() for n, p in load(folder).model.named_parameters()}
    assert apart(before, weights) > 1e-3 and all(0 < row["rows"] <= 8 for row in rows)


def test_a_group_is_sorted_by_its_scores() -> None:
    values = (0.2, 0.9, 0.2, 0.5)
    branches = tuple(Branch("response", (i,), (True,), facts={"score_B": (v,)}) for i, v in enumerate(values))
    tree = Tree((1,), branches, 0, 1)

    def told(kind):
        sorted_ = preferences.SORTED[kind](tree)
        return [(b.ids[0], b.role) for b in sorted_.branches]

    assert told("pairs") == [(1, "chosen"), (2, "rejected")]
    assert told("ranked") == [(1, "chosen"), (3, "rejected"), (0, "rejected")]
    assert told("labelled") == [(0, "undesirable"), (1, "desirable"), (2, "undesirable"), (3, "desirable")]
    imitated = [preferences.imitated(tree, passing) for passing in (None, 0.5, 0.95)]
    assert [[b.ids[0] for b in t.branches] if t else None for t in imitated] == [[1], [1, 3], None]
    equal = Tree((1,), branches[:1] + branches[2:3], 0, 1)
    assert [preferences.SORTED[kind](equal) for kind in ("pairs", "ranked", "labelled")] == [None] * 3


def test_rounds_in_which_no_answer_is_better_have_no_update(folder, tmp_path) -> None:
    """A solved round is passed over and told; a run of nothing else has failed."""
    with pytest.raises(RunFailed, match=r"no response of 6 rounds .* all \d+ scored the same \(1\)"):
        trained(folder, tmp_path / "a", "dpo", judge=judged(lambda ids: [1.0] * len(ids)))
    rounds = []

    def solved(ids):
        rounds.append(1)
        return [float(i == 0 and len(rounds) == 2) for i in range(len(ids))]

    _, source, rows = run(folder, tmp_path / "b", "bco", judge=judged(solved), steps=4)
    assert [row["step"] for row in rows] == [2] and source.skipped == [1, 3, 4]
    _, resumed = made(folder, tmp_path / "b", "bco", steps=4)
    told = [untaught(tmp_path / "b", each) for each in (source, resumed)]
    assert told == [["3 rounds taught nothing and had no update: 1, 3, 4"]] * 2, "those before a resume are told too"


@pytest.mark.parametrize("value", [0.1, 0.7, 0.3])
def test_equal_scores_are_equal_whatever_their_sum_rounds_to(value) -> None:
    facts = {"score_B": (value,)}
    tree = Tree((1,), tuple(Branch("response", (i,), (True,), facts=facts) for i in range(6)), 0, 1)
    assert preferences.labelled(tree) is None


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("grpo", "dr_grpo"), "different advantages: centred, standardised"),
        (("grpo", "nll"), "'nll' imitates whatever response it reads, and 'grpo' learns from good ones and bad ones"),
    ],
)
def test_terms_that_cannot_stand_together_are_refused(names, said, folder, tmp_path) -> None:
    both = WeightedObjectives([term for name in names for term in terms_of(name).terms])
    every = OnlineOptions(Online(), Training(steps=1))
    with pytest.raises(UserError, match=said):
        rollout_source(load(folder), prompts(), judged(), both, every, Place(tmp_path))


def test_a_plug_in_that_does_not_say_which_advantages_it_reads_is_refused(folder, tmp_path) -> None:
    @registry.objective(source="nobody")
    def silent(logp_B, score_B):
        return -score_B * logp_B

    every, terms = OnlineOptions(Online(), Training(steps=1)), WeightedObjectives([Term(silent, {})])
    with pytest.raises(UserError, match="'silent' learns from rollouts and does not say how its advantages are made"):
        rollout_source(load(folder), prompts(), judged(), terms, every, Place(tmp_path))


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("dpo", {"beta": 0.1}),
        ("rwr", {"beta": 0.1}),
        ("grpo", {"gae_lambda": 0.5}),
        ("reinforce_pp", {"gae_lambda": 0.5}),
        ("rloo", {"passing": 1.0}),
        ("rloo", {"sample_deviation": True}),
        ("dapo", {"gamma": 0.9}),
    ],
)
def test_an_option_that_says_nothing_is_refused(name, option, folder, tmp_path) -> None:
    with pytest.raises(UserError, match=f"'{next(iter(option))}' has no effect on this objective"):
        made(folder, tmp_path, name, **option)


def test_a_round_that_is_lost_in_its_middle_is_not_sampled_anew(folder, tmp_path) -> None:
    """The policy has moved since: its answers would be another round's."""
    options = dict(steps=8, minibatches=2, epochs_per_round=2, rows_per_step=2, checkpoint_every=3)
    trained(folder, tmp_path, "grpo", stop_after=3, **options)
    (tmp_path / "rollouts" / "round-00001.parquet").unlink()
    with pytest.raises(
        RunFailed, match=r"round-00001.parquet: was changed, or removed, after the checkpoint of update 3"
    ):
        trained(folder, tmp_path, "grpo", **options)


def test_rounds_of_neighbouring_seeds_draw_other_answers(folder, tmp_path) -> None:
    """Round 1 of seed 0 is not round 0 of seed 1, nor that of another stage."""
    drawn = []
    for seed, number, stage in ((0, 1, "a"), (1, 0, "a"), (0, 1, "b")):
        _, source = made(folder, tmp_path, "grpo", asked=prompts(1), seed=seed, stage=stage)
        drawn.append([r.response_ids for r in collected(source, number)])
    assert drawn[0] != drawn[1] and drawn[0] != drawn[2]


def test_answers_that_fail_leave_their_group_and_are_counted(folder, tmp_path) -> None:
    """Fault 36: one answer of three fails in a group: two are learned from. Where two fail, the third is alone and left out."""

    def values(ids):
        return [None if i % 3 == 0 or i in (4, 5) else float(i) for i in range(len(ids))]

    def below(responses):
        return values(responses)

    dropping = Judged(judged().text, rewards_of(below, on_error="drop"))
    _, source = made(folder, tmp_path / "a", "grpo", judge=dropping)
    rows = collected(source, 0)
    assert [bool(r.why) for r in rows] == [True, False, False, True, True, True]
    assert "reward 'below': gave None" in rows[0].why
    trees = trees_of(source, rows)
    assert [len(t.branches) for t in trees] == [2]
    assert source.metrics["failed"] == 4 and source.metrics["ungrouped"] == 0 and source.metrics["reward_below"] == 1.5
    one = [replace(r, why="late") if i == 2 else r for i, r in enumerate(rows)]
    assert trees_of(source, one) == [], "where one alone is left, nothing is compared"
    with pytest.raises(RunFailed, match="all 6 responses of this round failed; the first: late"):
        trees_of(source, [replace(r, why="late") for r in rows])
    _, alone = made(folder, tmp_path / "b", "reinforce_pp", judge=dropping)
    assert [len(t.branches) for t in trees_of(alone, one)] == [1], "a method that compares no answers learns from one"
    _, strict = made(folder, tmp_path / "c", "grpo", judge=Judged(judged().text, rewards_of(below)))
    with pytest.raises(RunFailed, match=r"reward 'below': gave None, which is no finite number\. The response was: '"):
        collected(strict, 0)


def test_a_cost_is_kept_within_its_budget_and_resumed_bitwise(folder, tmp_path) -> None:
    """The multiplier grows while the cost exceeds its budget, by the formula, and a killed run finds it again."""

    def good(responses):
        return [sum(i < 150 for i in json.loads(r)) / len(json.loads(r)) for r in responses]

    def harm(responses):
        return [1.0 - 0.01 * i for i in range(len(responses))]

    judge = Judged(judged().text, rewards_of(good, harm, costs={"harm": Cost(0.5, 0.3, 2.0)}))
    options = dict(steps=8, epochs_per_round=2, rows_per_step=2, checkpoint_every=3, judge=judge)
    whole, rows = trained(folder, tmp_path / "a", "rloo", **options)
    curve = [row["multiplier_harm"] for row in rows]
    wanted = [2.0]
    for _ in range(3):
        wanted.append(adv.next_multiplier(wanted[-1], 0.975 - 0.5, rate=0.3))
    assert curve == pytest.approx([m for m in wanted for _ in range(2)]) and curve[-1] > 3
    first = rows[0]
    assert first["score"] == pytest.approx((first["reward_good"] - 2.0 * first["reward_harm"]) / 3.0)
    trained(folder, tmp_path / "b", "rloo", stop_after=5, **options)
    again, more = trained(folder, tmp_path / "b", "rloo", **options)
    assert apart(whole, again) == 0.0 and [r["multiplier_harm"] for r in more] == curve


def test_rewards_fall_to_what_is_asked_for(folder, tmp_path) -> None:
    """rloo learns what is rewarded: the mean score rises clearly within a few rounds."""
    _, rows = trained(folder, tmp_path, "rloo", steps=25, group_size=8, rows_per_step=6, learning_rate=1e-2, beta=0.0)
    first, last = (sum(r["score"] for r in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last > first + 0.2, (first, last)


def lived(*answers: tuple[float, int, int]) -> list[experience.Experience]:
    """Answers by their score, length and group, as likely under the reference as under the policy."""
    rows = []
    for score, length, group in answers:
        ids, logp = tuple(range(length)), (-1.0,) * length
        rows.append(experience.Experience(1, (), "", (1,), ids, logp, logp, (0.0,) * length, score, "end", group, 0))
    return rows


def test_the_options_of_advantages_reach_their_formulas() -> None:
    """gamma, gae_lambda and the sample deviation, by hand: a reward at the end, seen from each token before it."""
    rows = lived((8.0, 3, 0), (4.0, 1, 0))
    whole = Round(rows, Online(gamma=0.5, gae_lambda=0.25))
    assert whole.forecast[0].tolist() == [[0.125, 1.0, 8.0], [4.0, 0.0, 0.0]]
    returns = torch.tensor([[2.0, 4.0, 8.0], [4.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(advantages.ADVANTAGES["returns"](whole), adv.whitened(returns, whole.mask))
    for sample, deviation in ((False, 2.0), (True, 8.0**0.5)):
        found = advantages.ADVANTAGES["standardised"](Round(rows, Online(sample_deviation=sample)))
        assert found[:, 0].tolist() == pytest.approx([2.0 / deviation, -2.0 / deviation], rel=1e-4)


def test_an_answer_that_came_twice_is_imitated_once() -> None:
    scored = tuple(Branch("response", ids, (True,), facts={"score_B": (1.0,)}) for ids in ((5,), (7,), (5,)))
    found = preferences.imitated(Tree((1,), scored, 0, 1), 1.0)
    assert found is not None and [b.ids for b in found.branches] == [(5,), (7,)]


def test_groups_are_equal_by_the_scores_that_there_are() -> None:
    """An answer that failed has no score, a lone one teaches nothing, and told is the share of groups, not of answers."""
    rows = lived((1.0, 2, 0), (1.0, 2, 0), (1.0, 2, 1), (0.0, 2, 1), (3.0, 2, 2), (math.nan, 2, 2))
    rows[-1] = replace(rows[-1], why="late")
    assert advantages.equal(rows) == [0, 2]
    assert advantages.metrics_of(Round(rows[:5], Online()))["equal_groups"] == 2 / 3
