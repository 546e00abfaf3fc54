"""Learning from one's own answers: what begins at 1 and 0, what parts, passes and kills change (nothing), what is told."""

import json

import pytest
import torch

from small_models import build
from truing import registry
from truing.data.batch import Batch, Branch, Tree
from truing.errors import RunFailed, UserError
from truing.objectives import advantage as adv
from truing.policy.load import load
from truing.rollout import experience
from truing.train import online as module
from truing.train.fit import fit
from truing.train.observe import observe
from truing.train.online import Judged, Prompt, RolloutSource, Round
from truing.train.optim import Optim
from truing.train.record import Record
from truing.train.terms import Sum, Term
from truing.types import Message, Online, Training

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8
PREFERENCES = ["dpo", "ipo", "simpo", "dpo_ranked", "bco", "kldo", "nll"]
METHODS = ["ppo", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce", "reinforce_pp", "awr", "rwr", "gdc"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return str(build("llama", TEXT, tmp_path_factory.mktemp("online"), vocab=300))


def prompts(n=6):
    said = ["a refund", "the rule", "thirty days, please", "no", "the desk grants what", "an order"]
    return [Prompt(i + 1, (Message("user", said[i]),), tuple(range(20 + i, 24 + 2 * i))) for i in range(n)]


def judged(values=None):
    """An answer is worth the share of its tokens below 150; `text` is its token ids."""

    def text(policy, rollout):
        return json.dumps(rollout.response_ids)

    def reward(asked, answers):
        ids = [json.loads(answer) for answer in answers]
        return values(ids) if values else [sum(i < 150 for i in row) / len(row) for row in ids]

    return Judged(text, reward)


def terms_of(name, longest=12):
    terms = [Term(registry.load(name, "objective"), {}, longest=longest)]
    if name == "ppo":
        terms.append(Term(registry.load("value_clipped", "objective"), {}, 0.1))
    return Sum(terms)


def made(folder, out, name, judge=None, **options):
    """A policy and the source of its rollouts."""
    own = {f: options.pop(f) for f in Online.__dataclass_fields__ if f in options}
    online = Online(**({"answers": 3, "max_new_tokens": 12, "beta": 0.05} | own))
    training = Training(**({"steps": 6, "rows_per_step": 2, "learning_rate": 1e-2} | options))
    policy, terms = load(folder), terms_of(name)
    if "value_BT" in terms.all_signals:
        policy.put_value_head()
    reference = load(folder)
    source = RolloutSource(
        policy, prompts(), judge or judged(), terms, online, training, out / "rollouts", 0, reference
    )
    return policy, source


def trained(folder, out, name, stop_after=None, judge=None, **options):
    """The weights after the run, and its metrics; `stop_after` an update the process dies."""
    policy, source = made(folder, out, name, judge, **options)
    optim = Optim(policy.model, source.training, source.steps)
    if stop_after is not None:
        step = optim.step
        optim.step = lambda number: step(number) if number <= stop_after else exit(9)
    record = Record(out, key="k", every=source.training.checkpoint_every)
    try:
        fit(policy, source, source.terms, optim, record)
    except SystemExit:
        assert stop_after is not None
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {n: p.detach().clone() for n, p in policy.model.named_parameters()}, rows


def apart(one, two):
    return max((one[name] - two[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_begins_at_ratio_one_and_its_parts_change_nothing(name, folder, tmp_path) -> None:
    """The first update is on-policy: loss and gradient are those of ratio 1. Memory changes nothing."""
    whole, rows = trained(folder, tmp_path / "a", name, steps=3)
    split, again = trained(folder, tmp_path / "b", name, steps=3, tokens_per_device=30)
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-3) and rows[0]["score"] == again[0]["score"]
    assert [r["loss"] for r in rows[:1]] == pytest.approx([r["loss"] for r in again[:1]], rel=1e-4, abs=1e-5)
    assert rows[0]["grad_norm"] == pytest.approx(again[0]["grad_norm"], rel=1e-3) and rows[0]["grad_norm"] > 0
    before = {n: p.detach() for n, p in load(folder).model.named_parameters()}
    assert apart(before, whole) > 1e-3 and apart(whole, split) < apart(before, whole)


@pytest.mark.parametrize(("name", "stop_after"), [("ppo", 5), ("ppo", 4), ("grpo", 3), ("dapo", 6)])
def test_killed_within_a_round_it_goes_on_bitwise(name, stop_after, folder, tmp_path) -> None:
    """Rounds of four updates: killed in the middle of one, or between two, with the last checkpoint before either."""
    options = dict(steps=8, minibatches=2, passes=2, rows_per_step=2, checkpoint_every=3)
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
    rows = source.live(0)
    experience.write(tmp_path / "r.parquet", rows)
    assert experience.read(tmp_path / "r.parquet") == rows
    assert len(rows) == 2 * 3 and all(len(r.logp_T) == len(r.value_T) == len(r.ref_logp_T) for r in rows)
    (tmp_path / "r.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(RunFailed, match="experience cannot be read"):
        experience.read(tmp_path / "r.parquet")


def test_what_the_sampler_said_is_what_the_trainer_reads(folder, tmp_path) -> None:
    policy, source = made(folder, tmp_path, "grpo")
    trees = source.trees(source.live(0))
    names = frozenset({"logp_BT", "old_logp_BT", "ref_logp_BT", "mask_BT"})
    with torch.no_grad():
        seen = observe(policy, Batch(tuple(trees)), names)
    assert (seen["logp_BT"] - seen["old_logp_BT"]).abs().max() < 1e-4
    assert (seen["logp_BT"] - seen["ref_logp_BT"]).abs().max() < 1e-4
    assert seen["mask_BT"].sum() == sum(len(b.ids) for t in trees for b in t.branches)
    assert [len(t.branches) for t in trees] == [3, 3], "a group is a tree: its prompt is read once"


def test_a_sampler_that_differs_from_the_trainer_stops_the_run(folder, tmp_path, monkeypatch) -> None:
    from dataclasses import replace

    real = module.generate

    def off(*given):
        return [replace(r, logp_T=tuple(x + 0.01 for x in r.logp_T)) for r in real(*given)]

    monkeypatch.setattr(module, "generate", off)
    with pytest.raises(
        RunFailed, match=r"step 1: the sampler's log-probabilities differ from the trainer's by 1.00e-02"
    ):
        trained(folder, tmp_path, "grpo")


def test_advantages_are_those_of_the_formulas(folder, tmp_path) -> None:
    """By hand from a round: groups for grpo and rloo, generalised advantages under the leash for ppo."""
    _, source = made(folder, tmp_path, "ppo", beta=0.3, unfinished_penalty=0.5)
    rows = source.live(0)
    whole = Round(rows, source.online)
    cut = [r.stop == "length" for r in rows]
    assert any(cut)
    assert whole.score.tolist() == pytest.approx([r.score - 0.5 * c for r, c in zip(rows, cut, strict=True)])
    kl = torch.tensor([sum(r.logp_T) - sum(r.ref_logp_T) for r in rows], dtype=torch.float64)
    assert torch.allclose(whole.leashed, whole.score - 0.3 * kl)
    assert torch.allclose(whole.rewards.sum(1), whole.leashed), "spread over tokens it is the same"
    for kind, wanted in (
        ("centred", adv.centred(whole.leashed, whole.group)),
        ("leave_one_out", adv.leave_one_out(whole.leashed, whole.group)),
        ("standardised", adv.standardised(whole.leashed, whole.group)),
    ):
        found = module.ADVANTAGES[kind](whole)
        assert torch.allclose(found, wanted[:, None] * whole.mask), kind
        assert found.abs().max() > 0.01
    advantage, returns = adv.gae(whole.rewards, whole.values, whole.mask)
    assert torch.allclose(module.ADVANTAGES["gae"](whole), adv.whitened(advantage, whole.mask))
    tree = source.trees(rows)[0]
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
    rows = [p.row for number in range(6) for p in source.choose(number)]
    assert sorted(rows[:6]) == sorted(rows[6:]) == [1, 2, 3, 4, 5, 6] and rows[:6] != rows[6:]


def test_passes_and_minibatches_are_the_updates_of_a_round(folder, tmp_path) -> None:
    _, source = made(folder, tmp_path, "grpo", minibatches=2, passes=3, rows_per_step=2, steps=12)
    trees = source.trees(source.live(0))
    parts = [[t.row for t in part] for part in source.parts(trees, 0)]
    assert len(parts) == source.updates == 6 and all(len(part) == 2 for part in parts)
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
        sorted_ = module.SORTED[kind](tree)
        return [(b.ids[0], b.role) for b in sorted_.branches]

    assert told("pairs") == [(1, "chosen"), (2, "rejected")]
    assert told("ranked") == [(1, "chosen"), (3, "rejected"), (0, "rejected")]
    assert told("labelled") == [(0, "undesirable"), (1, "desirable"), (2, "undesirable"), (3, "desirable")]
    imitated = [module.kept(tree, passing) for passing in (None, 0.5, 0.95)]
    assert [[b.ids[0] for b in t.branches] if t else None for t in imitated] == [[1], [1, 3], None]
    equal = Tree((1,), branches[:1] + branches[2:3], 0, 1)
    assert [module.SORTED[kind](equal) for kind in ("pairs", "ranked", "labelled")] == [None] * 3


def test_a_round_in_which_no_answer_is_better_is_told(folder, tmp_path) -> None:
    with pytest.raises(RunFailed, match="no answer to any of 2 prompts teaches the objective anything"):
        trained(folder, tmp_path, "dpo", judge=judged(lambda ids: [1.0] * len(ids)))


def test_terms_that_read_other_advantages_are_refused(folder, tmp_path) -> None:
    both = Sum([*terms_of("grpo").terms, *terms_of("dr_grpo").terms])
    given = (load(folder), prompts(), judged(), both, Online(), Training(steps=1), tmp_path)
    with pytest.raises(UserError, match="different advantages: centred, standardised"):
        RolloutSource(*given)


def test_rewards_fall_to_what_is_asked_for(folder, tmp_path) -> None:
    """rloo learns what is rewarded: the mean score rises clearly within a few rounds."""
    _, rows = trained(folder, tmp_path, "rloo", steps=25, answers=8, rows_per_step=6, learning_rate=1e-2, beta=0.0)
    first, last = (sum(r["score"] for r in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last > first + 0.2, (first, last)
