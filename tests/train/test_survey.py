"""What couples a whole step: made once from all its rows, wherever they are computed; kept from step to step."""

import json

import pytest
import torch

import bounds
from small_fit import apart, fitted, weights
from small_models import build, exact
from small_trees import fitting, ragged, trainable
from truing import registry, seals
from truing.data.batch import Batch
from truing.errors import UserError
from truing.objectives import bco, dapo, dr_grpo, grpo, kldo, kto, nll, prm, regression
from truing.objectives.divergence import class_weight, log_mean_exp_undesirable
from truing.objectives.ratio import log_mean_exp
from truing.policy import heads
from truing.policy.load import load
from truing.policy.reference import compute
from truing.settings import Training
from truing.signals.observe import observe
from truing.train.fit import fit
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.optim import Optim
from truing.train.record.metrics import Record
from truing.train.source import DataSource
from truing.train.step_statistics import Survey

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return str(build("llama", TEXT, tmp_path_factory.mktemp("survey"), vocab=300))


def model_for(objective, folder):
    """A policy, or a reward model where the objective teaches one, in fp64: what differs is arithmetic, not rounding."""
    teaches = any("reward" in n or n == "step_logit_BS" for n in objective.needs)
    policy = heads.fresh_reward(folder, seed=3) if teaches else load(folder)
    if "tie_logit_B" in objective.needs:
        policy.model.register_parameter("tie_logit", torch.nn.Parameter(torch.zeros(1)))
    policy.verified = True  # transformers' own attention, the measure, takes its softmax in fp32
    exact(policy.model)
    return policy


def everything(trees):
    return (*trees, *(tree.shadow for tree in trees))


def trained(name, folder, out, stop_after=None, **options):
    """The weights after a few updates from trees of the objective's kind, and the metrics."""
    return traced(name, folder, out, stop_after, **options)[:2]


def traced(name, folder, out, stop_after=None, **options):
    """The same, and how far rounding may move each weight."""
    objective, trees = registry.load(name, "objective"), fitting(name)
    policy = model_for(objective, folder)
    training = Training(**({"steps": 5, "rows_per_step": 6, "learning_rate": 1e-2} | options))
    source, terms = DataSource(trees, training), WeightedObjectives([Term(objective, {})])
    reference = compute(policy, everything(trees), 4096) if terms.needs_reference else None
    optim = Optim(policy.model, training, source.steps)
    tokens = sum(tree.tokens for tree in trees)
    drift = bounds.Drift(policy.model, optim.adamw, bounds.relative(policy.model, tokens, torch.float64))
    rows = fitted(policy, source, terms, out, stop_after, reference, optim)
    return weights(policy), rows, drift.off


@pytest.mark.parametrize("name", trainable())
def test_every_objective_trains_and_its_parts_change_nothing(name, folder, tmp_path) -> None:
    """All in one part, or a tree at a time: the same weights; and they are not the ones it began with."""
    whole, rows, off = traced(name, folder, tmp_path / "a", steps=3, tokens_per_device=4096)
    split, again = trained(name, folder, tmp_path / "b", steps=3, tokens_per_device=20)
    assert bounds.worst(whole, split, off) <= 1
    for key in ("loss", "grad_norm"):
        assert [r[key] for r in rows] == pytest.approx([r[key] for r in again], rel=1e-9, abs=1e-9)
    before = {n: p.detach() for n, p in model_for(registry.load(name, "objective"), folder).model.named_parameters()}
    assert apart(whole, before) > 1e-3


@pytest.mark.parametrize("name", ["kto", "bco", "kldo", "confidence"])
def test_resumed_is_uninterrupted_bitwise(name, folder, tmp_path) -> None:
    whole, rows = trained(name, folder, tmp_path / "a", checkpoint_every=2)
    trained(name, folder, tmp_path / "b", checkpoint_every=2, stop_after=3)
    again, more = trained(name, folder, tmp_path / "b", checkpoint_every=2)
    assert apart(whole, again) == 0.0
    assert [r["loss"] for r in rows] == [r["loss"] for r in more]


def test_a_moving_statistic_is_part_of_the_checkpoint(folder, tmp_path) -> None:
    """Another value of it in the manifest gives other weights: the equality above can fail."""
    whole, _ = trained("bco", folder, tmp_path / "a", checkpoint_every=2)
    trained("bco", folder, tmp_path / "b", checkpoint_every=2, stop_after=3)
    path = tmp_path / "b" / "checkpoints" / "step-00000002" / "manifest.json"
    facts = json.loads(path.read_text())
    assert set(facts["facts"]["statistics"]) == {"bco"}
    facts["facts"]["statistics"]["bco"]["shift_B"] += 0.5
    path.write_text(json.dumps(seals.sealed(facts)))
    again, _ = trained("bco", folder, tmp_path / "b", checkpoint_every=2)
    assert apart(whole, again) > 1e-6


def read(policy, step, signals, reference=None):
    with torch.no_grad():
        return observe(policy, step, frozenset(signals), reference)


def test_the_statistics_are_those_of_all_rows_and_follow_the_row(folder) -> None:
    """kldo and bco by hand: the step's own means, whatever the parts; a row's own weight stays with it."""
    policy = model_for(kldo, folder)
    trees = ragged("labelled", 7)
    step, parts = Batch(trees), [(part, 1.0) for part in Batch(trees).split(25)]
    assert len(parts) > 3 and sum(part.rows for part, _ in parts) == step.rows > len(trees)
    reference = compute(policy, everything(trees), 4096)
    reference.logp = reference.logp + torch.linspace(-1, 1, len(reference.logp))  # not where the policy is
    terms = WeightedObjectives([Term(kldo, {"beta": 0.5}), Term(bco, {"beta": 2.0, "rate": 0.25}), Term(kto, {})])
    survey = Survey(terms)
    survey.take(step, parts, lambda part, names: observe(policy, part, names, reference))
    s = read(policy, step, ["logp_B", "ref_logp_B", "desirable_B", "prompt_B"], reference)
    r = s["logp_B"] - s["ref_logp_B"]
    assert r.abs().min() > 1e-3 and r.std() > 0.1
    found = survey.of(step)
    bad = s["desirable_B"] == 0
    wanted = {"log_mean_exp_B": log_mean_exp((0.5 * r)[bad]), "moving_log_mean_exp_B": log_mean_exp((0.5 * r)[bad])}
    wanted["class_weight_B"] = class_weight(s["desirable_B"])
    for name, value in wanted.items():
        assert torch.allclose(found["kldo"][name], value.expand(step.rows)), name
    assert torch.allclose(found["bco"]["shift_B"], (2.0 * r).mean().expand(step.rows))
    m = read(policy, step, ["mismatched_logp_B", "ref_mismatched_logp_B"], reference)
    z = (m["mismatched_logp_B"] - m["ref_mismatched_logp_B"]).mean().clamp(min=0)
    assert torch.allclose(found["kto"]["kl_baseline_B"], z.expand(step.rows))
    by_part = torch.cat([survey.of(part)["kldo"]["class_weight_B"] for part, _ in parts])
    assert torch.equal(by_part, found["kldo"]["class_weight_B"])
    before = survey.state["bco"]["shift_B"]
    assert before == found["bco"]["shift_B"][0].item() and set(survey.state) == {"kldo", "bco"}
    reference.logp = reference.logp - 1
    survey.take(step, parts, lambda part, names: observe(policy, part, names, reference))
    s = read(policy, step, ["logp_B", "ref_logp_B"], reference)
    now = (2.0 * (s["logp_B"] - s["ref_logp_B"])).mean().item()
    assert survey.state["bco"]["shift_B"] == pytest.approx(before + 0.25 * (now - before))
    assert abs(now - before) > 0.1


def test_means_within_a_prompt_follow_the_prompt(folder) -> None:
    """per_prompt: a tree with both kinds has means of its own; one with a single kind weighs nothing."""
    policy, trees = model_for(kldo, folder), ragged("labelled", 6)
    step = Batch(trees)
    reference = compute(policy, everything(trees), 4096)
    reference.logp = reference.logp + torch.linspace(-1, 1, len(reference.logp))
    survey = Survey(WeightedObjectives([Term(kldo, {"per_prompt": True})]))
    survey.take(step, [(p, 1.0) for p in step.split(20)], lambda p, names: observe(policy, p, names, reference))
    found = survey.of(step)["kldo"]
    both = torch.tensor([len(tree.branches) == 2 for tree in trees for _ in tree.branches])
    assert 0 < both.sum() < len(both)
    assert bool((found["class_weight_B"][~both] == 0).all()) and bool((found["class_weight_B"][both] > 0).all())
    s = read(policy, step, ["logp_B", "ref_logp_B", "desirable_B", "prompt_B"], reference)
    wanted = log_mean_exp_undesirable(**s, beta=0.1, per_prompt=True)
    assert torch.allclose(found["log_mean_exp_B"], wanted) and len(set(wanted[both].tolist())) > 1


def test_a_step_in_one_part_is_looked_at_once(folder, tmp_path) -> None:
    """kldo reads the policy for its statistics; a step that is whole in hand costs no second forward pass."""
    seen = []

    class Counting(type(load(folder))):
        def hidden(self, batch, at):
            seen.append(torch.is_grad_enabled())
            return super().hidden(batch, at)

    trees = ragged("labelled", 6)
    for tokens, looks in ((4096, [True]), (60, [False] * 3 + [True] * 3)):
        policy = load(folder)
        policy.__class__, policy.verified = Counting, True
        reference = compute(policy, trees, 4096)
        training = Training(steps=1, rows_per_step=6, tokens_per_device=tokens)
        source = DataSource(trees, training)
        seen.clear()
        record = Record(tmp_path / str(tokens))
        fit(policy, source, WeightedObjectives([Term(kldo, {})]), Optim(policy.model, training, 1), record, reference)
        assert seen == looks


def test_what_a_sum_is_divided_by() -> None:
    """rows, learned tokens, labelled steps, rows, rows times the longest response; undesirable tokens do not count."""
    labelled, steps = Batch(ragged("labelled", 6)), Batch(ragged("steps", 6))
    good = sum(len(b.ids) for b in labelled.branches if b.role == "desirable")
    assert good < sum(len(b.ids) for b in labelled.branches)
    assert WeightedObjectives([Term(kto, {}), Term(nll, {})]).counts(labelled).tolist() == [labelled.rows, good]
    assert Term(prm, {}).count(steps) == sum(len(b.steps) for b in steps.branches)
    tokens = sum(len(b.ids) for b in steps.branches)
    counts = [Term(o, {}, longest=40).count(steps) for o in (grpo, dr_grpo, dapo)]
    assert counts == [steps.rows, 40 * steps.rows, tokens]
    compared = Batch(ragged("compared", 5))
    assert compared.rows == 15 and compared.singles == []


def test_each_response_is_divided_by_its_own_tokens() -> None:
    """grpo: two responses, one of 1 token and one of 4, weigh the same; under dapo their tokens do."""
    mask = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]])
    signals = {"logp_BT": torch.zeros(2, 4), "old_logp_BT": torch.zeros(2, 4), "ref_logp_BT": torch.zeros(2, 4)}
    signals |= {"mask_BT": mask, "advantage_BT": torch.tensor([[3.0], [1.0]]).expand(2, 4)}
    losses = Term(grpo, {}).losses(signals, {})
    assert losses.tolist() == [-3.0, -1.0]
    assert Term(dapo, {}).losses(signals, {}).sum() == -7.0


def test_an_undesirable_response_is_not_imitated(folder) -> None:
    """nll beside kto reads the desirable responses alone."""
    policy, step = load(folder), Batch(ragged("labelled", 4))
    found = read(policy, step, ["mask_BT", "desirable_B"])
    assert torch.equal(found["mask_BT"].sum(1) > 0, found["desirable_B"] > 0)
    assert 0 < found["desirable_B"].sum() < step.rows


def test_comparisons_of_one_tree_are_rows_that_share_their_reading(folder) -> None:
    """Four answers, three verdicts: each verdict is a pair of the same four scores."""
    policy = heads.fresh_reward(folder, seed=1)
    trees = ragged("compared", 3)
    step = Batch(trees)
    found = read(policy, step, ["chosen_reward_B", "rejected_reward_B", "tie_B", "chosen_length_B"])
    with torch.no_grad():
        scores = policy.rewards(step).view(3, 4)
    assert torch.equal(found["chosen_reward_B"].view(3, 3), scores[:, [0, 3, 1]])
    assert torch.equal(found["rejected_reward_B"].view(3, 3), scores[:, [1, 2, 3]])
    assert found["tie_B"].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_a_head_or_a_score_that_is_not_there_is_named(folder) -> None:
    policy, step = heads.fresh_reward(folder, seed=1), Batch(ragged("scored", 3))
    signals = WeightedObjectives([Term(regression, {}, head="clarity")]).signals
    assert signals == {"reward_B:clarity", "target_B:clarity"}
    with pytest.raises(UserError, match=r"reads the head 'clarity', and .* has one head without a name"):
        read(policy, step, signals)
    with pytest.raises(UserError, match="data row 1 has no score 'clarity': it has one score without a name"):
        read(policy, step, ["target_B:clarity"])
