"""Looks at held-out prompts: what they say, that they change nothing, that they end a run, and that kills change nothing."""

import json
import math

import pytest
import torch

from small_fit import apart
from small_online import folder_of, judged, made, prompts, rewards_of, run, trained
from truing.data.batch import Batch, Branch, Tree
from truing.errors import RunFailed
from truing.policy.load import load
from truing.rollout.call import SILENT
from truing.settings import Leash, Watching
from truing.train.aside import Aside
from truing.train.asking import Prompt
from truing.train.past import moments
from truing.train.watch import Watch, failure
from truing.types import Message, Score

HELD_OUT = [Prompt(i + 1, (Message("user", "x"),), tuple(range(40 + i, 46 + i))) for i in range(4)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory)


def above(responses):
    """The share of an answer's tokens from 150 up: what is not rewarded."""
    rows = [json.loads(answer) for answer in responses]
    return [sum(i >= 150 for i in row) / len(row) for row in rows]


def length(responses):
    """Something of a name that a line of watch.jsonl has already."""
    return [1.0 for _ in responses]


def watch(out, every=2, patience=None, rewards=(above, length), on_error="stop"):
    out.mkdir(parents=True, exist_ok=True)
    return Watch(out / "watch.jsonl", HELD_OUT, rewards_of(*rewards, on_error=on_error), Watching(every, patience))


def looks(out):
    return [json.loads(line) for line in (out / "watch.jsonl").read_text().splitlines()]


def test_a_look_has_every_mean_with_its_error_and_changes_nothing(folder, tmp_path) -> None:
    plain, _ = trained(folder, tmp_path / "a", "grpo", steps=5)
    seen, rows = trained(folder, tmp_path / "b", "grpo", steps=5, watch=watch(tmp_path / "b"))
    assert apart(plain, seen) == 0.0
    found = looks(tmp_path / "b")
    assert [look["step"] for look in found] == [0, 2, 4, 5]
    means = ("kl", "proxy", "above", "reward_length", "length")
    assert set(found[0]) == {"step", "tokens", "prompts", "failed", *means, *(f"{name}_se" for name in means)}
    assert abs(found[0]["kl"]) < 1e-3 and found[-1]["kl"] > 0.01 and found[0]["tokens"] == 0 < found[1]["tokens"]
    assert all(look["proxy"] + look["above"] == pytest.approx(1.0) and look["prompts"] == 4 for look in found)
    assert [row.get("watch_above") for row in rows] == [
        None,
        found[1]["above"],
        None,
        found[2]["above"],
        found[3]["above"],
    ]


def test_the_figures_of_a_look_are_those_of_its_answers(folder, tmp_path) -> None:
    """By hand from the answers that were scored, with a reference of other weights."""
    kept = []

    def mine(responses):
        kept.extend(json.loads(r) for r in responses)
        return [float(len(json.loads(r))) for r in responses]

    policy, source = made(folder, tmp_path, "grpo", watch=watch(tmp_path, rewards=(mine,)))
    with torch.no_grad():
        for parameter in source.reference.model.parameters():
            parameter.mul_(1.1)
    source.begin(0, 0)
    (look,) = looks(tmp_path)
    trees = [
        Tree(p.ids, (Branch("response", tuple(a), (True,) * len(a)),), i, i)
        for i, (p, a) in enumerate(zip(HELD_OUT, kept, strict=True))
    ]
    with torch.no_grad():
        logp, ref = (x.logp(Batch(tuple(trees))).double() for x in (policy, source.reference))
    sums = [x.sum().item() for x in (logp - ref).split([len(a) for a in kept])]
    assert look["kl"] == pytest.approx(sum(sums) / 4, abs=1e-4) and abs(look["kl"]) > 1e-2
    deviation = torch.tensor(sums, dtype=torch.float64).std().item()
    assert look["kl_se"] == pytest.approx(deviation / 2, rel=1e-3)
    assert look["mine"] == look["length"] == sum(map(len, kept)) / 4


@pytest.mark.parametrize("stop_after", [3, 4])
def test_killed_between_looks_it_goes_on_bitwise(stop_after, folder, tmp_path) -> None:
    options = dict(steps=6, passes=2, checkpoint_every=3, leash=Leash(refresh_reference=1))
    whole, rows = trained(folder, tmp_path / "a", "grpo", watch=watch(tmp_path / "a", patience=9), **options)
    trained(folder, tmp_path / "b", "grpo", stop_after, watch=watch(tmp_path / "b", patience=9), **options)
    assert len(looks(tmp_path / "b")) > 1
    again, more = trained(folder, tmp_path / "b", "grpo", watch=watch(tmp_path / "b", patience=9), **options)
    assert apart(whole, again) == 0.0 and looks(tmp_path / "a") == looks(tmp_path / "b")
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in more]


def test_patience_ends_the_run_with_the_weights_of_the_best_look(folder, tmp_path) -> None:
    """What is watched falls while it learns the opposite: the best look is the first one, and its weights are kept."""
    before = {n: p.detach() for n, p in load(folder).model.named_parameters()}
    options = dict(steps=40, answers=6, rows_per_step=6, learning_rate=2e-2, beta=0.0)
    weights, rows = trained(folder, tmp_path, "rloo", watch=watch(tmp_path, 1, patience=3), **options)
    found = looks(tmp_path)
    assert len(rows) == found[-1]["step"] < 40
    best = made_best(found, "above")
    assert found[-1]["step"] == best + 3 and best == 0
    assert apart(before, weights) == 0.0


def made_best(found, name):
    """The step of the best look, by the rule in words."""
    best = found[0]
    for look in found[1:]:
        best = look if look[name] > best[name] + look[f"{name}_se"] else best
    return best["step"]


def test_a_run_that_ends_at_its_limit_keeps_the_best_look_too_after_a_kill(folder, tmp_path) -> None:
    """What is watched is what is rewarded: a later look is best, its weights are on disk and in the model."""
    options = dict(steps=8, answers=4, rows_per_step=4, learning_rate=3e-2, beta=0.0, checkpoint_every=3)

    def given(out):
        return watch(out, 2, patience=50, rewards=(lambda_below,))

    whole, _ = trained(folder, tmp_path / "a", "rloo", watch=given(tmp_path / "a"), **options)
    trained(folder, tmp_path / "b", "rloo", 7, watch=given(tmp_path / "b"), **options)
    again, _ = trained(folder, tmp_path / "b", "rloo", watch=given(tmp_path / "b"), **options)
    best = made_best(looks(tmp_path / "a"), "lambda_below")
    assert best > 0 and apart(whole, again) == 0.0
    policy = load(folder)
    Aside(tmp_path / "a" / "best", tmp_path / "a" / "checkpoints").back(best, policy.model)
    assert apart(whole, {n: p.detach() for n, p in policy.model.named_parameters()}) == 0.0


def test_a_kill_between_the_first_look_and_its_weights_changes_nothing(folder, tmp_path) -> None:
    """The look is on disk and its weights are not: the run goes on, and in the end finds the best look's weights."""
    options = dict(steps=2, answers=6, rows_per_step=6, learning_rate=2e-2, beta=0.0)
    before = {n: p.detach() for n, p in load(folder).model.named_parameters()}
    trained(folder, tmp_path, "rloo", 1, watch=watch(tmp_path, 1, patience=9), **options)
    (tmp_path / "best" / "step-00000000.safetensors").unlink()
    weights, _ = trained(folder, tmp_path, "rloo", watch=watch(tmp_path, 1, patience=9), **options)
    assert made_best(looks(tmp_path), "above") == 0 and apart(before, weights) == 0.0


def test_the_policy_that_is_left_is_looked_at_whatever_rounds_teach_nothing(folder, tmp_path) -> None:
    """Rounds 2, 3 and 6 of six are solved and have no update: a look that was due then comes with the next update, and
    the last one when all is over."""
    rounds = []

    def solved(ids):
        if len(ids) == 6:  # a round's answers, not those of a look
            rounds.append(1)
        return [float(i == 0 and len(rounds) not in (2, 3, 6)) for i in range(len(ids))]

    options = dict(judge=judged(solved), steps=6, watch=watch(tmp_path, 3))
    _, source, rows = run(folder, tmp_path, "bco", **options)
    assert [row["step"] for row in rows] == [1, 4, 5] and source.skipped == [2, 3, 6]
    assert [look["step"] for look in looks(tmp_path)] == [0, 4, 5]


def test_a_watched_reward_that_says_nothing_of_an_answer_has_not_failed(tmp_path) -> None:
    said = [Score(1.0), Score(math.nan, failed=True, why=SILENT), Score(math.nan, failed=True, why="late")]
    assert [failure(score) for score in said] == [False, False, True]


def lambda_below(responses):
    """What is rewarded in training too."""
    return [1.0 - value for value in above(responses)]


def test_the_kl_of_a_look_ends_the_run_well(folder, tmp_path) -> None:
    options = dict(steps=40, learning_rate=2e-2, beta=0.0, leash=Leash(stop_at_kl=0.5))
    _, source, rows = run(folder, tmp_path, "rloo", watch=watch(tmp_path, 1), **options)
    found = looks(tmp_path)
    assert found[-1]["step"] == len(rows) < 40 and found[-1]["kl"] >= 0.5 > found[-2]["kl"]
    assert source.ended.startswith(f"stopped after update {len(rows)}: the KL of")
    assert source.account()[0] == source.ended and "watched" in source.account()[1]


def test_a_watched_reward_that_fails_is_no_number(folder, tmp_path) -> None:
    def odd(responses):
        return [math.nan if i == 1 else 2.0 for i in range(len(responses))]

    with pytest.raises(RunFailed, match="watched reward 'odd': gave nan"):
        trained(folder, tmp_path / "a", "grpo", steps=1, watch=watch(tmp_path / "a", rewards=(odd,)))
    dropping = watch(tmp_path / "b", rewards=(odd,), on_error="drop")
    trained(folder, tmp_path / "b", "grpo", steps=1, watch=dropping, judge=judged(on_error="drop"))
    (look, _) = looks(tmp_path / "b")
    assert look["odd"] == 2.0 and look["odd_se"] == 0.0 and look["failed"] == 1


def test_moments_are_those_of_the_formulas_however_they_are_joined() -> None:
    values = [0.3, -1.5, 2.25, 7.0, 7.0]
    whole, parts = moments(values), moments(values[:2]).joined(moments([])).joined(moments(values[2:]))
    tensor = torch.tensor(values, dtype=torch.float64)
    assert whole.mean == pytest.approx(tensor.mean().item()) == pytest.approx(parts.mean)
    assert whole.deviation == pytest.approx(tensor.std(correction=0).item()) == pytest.approx(parts.deviation)
    assert whole.error == pytest.approx(tensor.std().item() / math.sqrt(5)) and moments([1.0]).error is None
    assert len(prompts()) == 6
