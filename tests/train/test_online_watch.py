"""Looks at held-out prompts: what they say, that they change nothing, that they end a run, and that kills change nothing."""

import json
import math

import pytest
import torch

from small_fit import apart
from small_online import folder_of, judged, made, prompts, rewards_of, run, trained
from truing.data.batch import Batch, Branch, Tree
from truing.errors import RunFailed
from truing.online.generation import GenerationClient, Prompt
from truing.online.history import moments
from truing.online.monitor import Monitor, MonitorLog, failure
from truing.policy.load import load
from truing.records import Message, Sampling, Score
from truing.rewards.call import SILENT, Response
from truing.rewards.combine import Cost, Rewards
from truing.rollout.engine import InProcess
from truing.settings import KLControl, Monitoring
from truing.train.record.snapshots import WeightSnapshots

HELD_OUT = [Prompt(i + 1, (Message("user", "x"),), tuple(range(40 + i, 46 + i))) for i in range(4)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory)


def above(responses):
    """The share of an answer's tokens from 150 up: what is not rewarded."""
    rows = [json.loads(answer) for answer in responses]
    return [sum(i >= 150 for i in row) / len(row) for row in rows]


def length(responses):
    """Something of a name that a line of monitor.jsonl has already."""
    return [1.0 for _ in responses]


def watch(out, every=2, patience=None, rewards=(above, length), on_error="stop"):
    out.mkdir(parents=True, exist_ok=True)
    return MonitorLog(
        out / "monitor.jsonl", HELD_OUT, rewards_of(*rewards, on_error=on_error), Monitoring(every, patience)
    )


def looks(out):
    return [json.loads(line) for line in (out / "monitor.jsonl").read_text().splitlines()]


def test_a_look_has_every_mean_with_its_error_and_changes_nothing(folder, tmp_path) -> None:
    plain, _ = trained(folder, tmp_path / "a", "grpo", steps=5)
    seen, rows = trained(folder, tmp_path / "b", "grpo", steps=5, monitor_log=watch(tmp_path / "b"))
    assert apart(plain, seen) == 0.0
    found = looks(tmp_path / "b")
    assert [look["step"] for look in found] == [0, 2, 4, 5]
    means = ("kl", "proxy", "above", "reward_length", "length")
    assert set(found[0]) == {"step", "tokens", "prompts", "failed", "each", *means, *(f"{name}_se" for name in means)}
    for look in found:
        assert set(look["each"]) == {"kl", "proxy", "above", "reward_length", "length"}
        for name, values in look["each"].items():
            assert len(values) == 4 and look[name] == pytest.approx(sum(values) / 4, abs=1e-12)
    assert not any("each" in key for row in rows for key in row)
    assert abs(found[0]["kl"]) < 1e-3 and found[-1]["kl"] > 0.01 and found[0]["tokens"] == 0 < found[1]["tokens"]
    assert all(look["proxy"] + look["above"] == pytest.approx(1.0) and look["prompts"] == 4 for look in found)
    assert [row.get("monitor_above") for row in rows] == [
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

    policy, source = made(folder, tmp_path, "grpo", monitor_log=watch(tmp_path, rewards=(mine,)))
    with torch.no_grad():
        for parameter in source.kl.reference.model.parameters():
            parameter.mul_(1.1)
    source.begin(0)
    (look,) = looks(tmp_path)
    trees = [
        Tree(p.ids, (Branch("response", tuple(a), (True,) * len(a)),), i, i)
        for i, (p, a) in enumerate(zip(HELD_OUT, kept, strict=True))
    ]
    with torch.no_grad():
        logp, ref = (x.logp(Batch(tuple(trees))).double() for x in (policy, source.kl.reference))
    sums = [x.sum().item() for x in (logp - ref).split([len(a) for a in kept])]
    assert look["kl"] == pytest.approx(sum(sums) / 4, abs=1e-4) and abs(look["kl"]) > 1e-2
    deviation = torch.tensor(sums, dtype=torch.float64).std().item()
    assert look["kl_se"] == pytest.approx(deviation / 2, rel=1e-3)
    assert look["mine"] == look["length"] == sum(map(len, kept)) / 4


@pytest.mark.parametrize("stop_after", [3, 4])
def test_killed_between_looks_it_goes_on_bitwise(stop_after, folder, tmp_path) -> None:
    options = dict(steps=6, epochs_per_round=2, checkpoint_every=3, kl_control=KLControl(refresh_reference=1))
    whole, rows = trained(folder, tmp_path / "a", "grpo", monitor_log=watch(tmp_path / "a", patience=9), **options)
    trained(folder, tmp_path / "b", "grpo", stop_after, monitor_log=watch(tmp_path / "b", patience=9), **options)
    assert len(looks(tmp_path / "b")) > 1
    again, more = trained(folder, tmp_path / "b", "grpo", monitor_log=watch(tmp_path / "b", patience=9), **options)
    assert apart(whole, again) == 0.0 and looks(tmp_path / "a") == looks(tmp_path / "b")
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in more]


def test_patience_ends_the_run_with_the_weights_of_the_best_look(folder, tmp_path) -> None:
    """What is watched falls while it learns the opposite: the best look is the first one, and its weights are kept."""
    before = {n: p.detach() for n, p in load(folder).model.named_parameters()}
    options = dict(steps=40, group_size=6, rows_per_step=6, learning_rate=2e-2, beta=0.0)
    weights, rows = trained(folder, tmp_path, "rloo", monitor_log=watch(tmp_path, 1, patience=3), **options)
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
    options = dict(steps=8, group_size=4, rows_per_step=4, learning_rate=3e-2, beta=0.0, checkpoint_every=3)

    def given(out):
        return watch(out, 2, patience=50, rewards=(lambda_below,))

    whole, _ = trained(folder, tmp_path / "a", "rloo", monitor_log=given(tmp_path / "a"), **options)
    trained(folder, tmp_path / "b", "rloo", 7, monitor_log=given(tmp_path / "b"), **options)
    again, _ = trained(folder, tmp_path / "b", "rloo", monitor_log=given(tmp_path / "b"), **options)
    best = made_best(looks(tmp_path / "a"), "lambda_below")
    assert best > 0 and apart(whole, again) == 0.0
    policy = load(folder)
    WeightSnapshots(tmp_path / "a" / "best", tmp_path / "a" / "checkpoints").back(best, policy.model)
    assert apart(whole, {n: p.detach() for n, p in policy.model.named_parameters()}) == 0.0


def test_a_kill_between_the_first_look_and_its_weights_changes_nothing(folder, tmp_path) -> None:
    """The look is on disk and its weights are not: the run goes on, and in the end finds the best look's weights."""
    options = dict(steps=2, group_size=6, rows_per_step=6, learning_rate=2e-2, beta=0.0)
    before = {n: p.detach() for n, p in load(folder).model.named_parameters()}
    trained(folder, tmp_path, "rloo", 1, monitor_log=watch(tmp_path, 1, patience=9), **options)
    (tmp_path / "best" / "step-00000000.safetensors").unlink()
    weights, _ = trained(folder, tmp_path, "rloo", monitor_log=watch(tmp_path, 1, patience=9), **options)
    assert made_best(looks(tmp_path), "above") == 0 and apart(before, weights) == 0.0


def test_the_policy_that_is_left_is_looked_at_whatever_rounds_teach_nothing(folder, tmp_path) -> None:
    """Rounds 2, 3 and 6 of six are solved and have no update: a look that was due then comes with the next update, and
    the last one when all is over."""
    rounds = []

    def solved(ids):
        if len(ids) == 6:  # a round's answers, not those of a look
            rounds.append(1)
        return [float(i == 0 and len(rounds) not in (2, 3, 6)) for i in range(len(ids))]

    options = dict(judge=judged(solved), steps=6, monitor_log=watch(tmp_path, 3))
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
    options = dict(steps=40, learning_rate=2e-2, beta=0.0, kl_control=KLControl(stop_at_kl=0.5))
    _, source, rows = run(folder, tmp_path, "rloo", monitor_log=watch(tmp_path, 1), **options)
    found = looks(tmp_path)
    assert found[-1]["step"] == len(rows) < 40 and found[-1]["kl"] >= 0.5 > found[-2]["kl"]
    assert source.ended.startswith(f"stopped after update {len(rows)}: the KL of")
    assert source.account()[0] == source.ended and "monitored" in source.account()[1]


def test_a_watched_reward_that_fails_is_no_number(folder, tmp_path) -> None:
    def odd(responses):
        return [math.nan if i == 1 else 2.0 for i in range(len(responses))]

    with pytest.raises(RunFailed, match="monitored reward 'odd': gave nan"):
        trained(folder, tmp_path / "a", "grpo", steps=1, monitor_log=watch(tmp_path / "a", rewards=(odd,)))
    dropping = watch(tmp_path / "b", rewards=(odd,), on_error="drop")
    trained(folder, tmp_path / "b", "grpo", steps=1, monitor_log=dropping, judge=judged(on_error="drop"))
    (look, _) = looks(tmp_path / "b")
    assert look["odd"] == 2.0 and look["odd_se"] == 0.0 and look["failed"] == 1
    assert look["each"]["odd"] == [2.0, None, 2.0, 2.0]


def test_moments_are_those_of_the_formulas_however_they_are_joined() -> None:
    values = [0.3, -1.5, 2.25, 7.0, 7.0]
    whole, parts = moments(values), moments(values[:2]).joined(moments([])).joined(moments(values[2:]))
    tensor = torch.tensor(values, dtype=torch.float64)
    assert whole.mean == pytest.approx(tensor.mean().item()) == pytest.approx(parts.mean)
    assert whole.deviation == pytest.approx(tensor.std(correction=0).item()) == pytest.approx(parts.deviation)
    assert whole.error == pytest.approx(tensor.std().item() / math.sqrt(5)) and moments([1.0]).error is None
    assert len(prompts()) == 6


def resumed(out, found, step=99, **options):
    """A watch that has looked already, with nothing to compute: `found` are its looks."""
    looking = watch(out, **options)
    looking.path.write_text("".join(json.dumps(look) + "\n" for look in found))
    looking.begin(step)
    return looking


def look(step, kl=0.0, above=0.5, error=0.0):
    return {"step": step, "kl": kl, "above": above, "above_se": error}


def test_a_resume_keeps_whole_looks_up_to_its_update(tmp_path) -> None:
    """One taken at that very update stays; later ones, and a line that a kill has torn, go."""
    found = [look(step) for step in (0, 2, 4)]
    assert (
        [row["step"] for row in resumed(tmp_path, found, 2).rows] == [0, 2] == [row["step"] for row in looks(tmp_path)]
    )
    again = watch(tmp_path)
    again.path.write_text(json.dumps(found[0]) + "\n" + json.dumps(found[1])[:9])
    again.begin(2)
    assert again.rows == looks(tmp_path) == found[:1]


def test_a_look_is_due_at_multiples_and_after_the_last_update(tmp_path) -> None:
    first = resumed(tmp_path, [look(0)], every=3)
    assert [step for step in range(1, 8) if first.due(step, 7)] == [3, 4, 5, 6, 7]
    assert not first.due(2, 7) and first.due(2, 2)
    late = resumed(tmp_path, [look(0), look(4)], every=3)
    assert [step for step in range(5, 8) if late.due(step, 9)] == [6, 7]


def test_looks_end_a_run_at_their_bounds(tmp_path) -> None:
    """At the KL itself, never before the first update; after as many looks as patience has, not one more. A gain within
    its own standard error is none."""
    assert resumed(tmp_path, [look(0, kl=2.0)]).over(1.0) == ""
    assert "the KL of the evaluation is 1.00 nats (stop_at_kl 1)" in resumed(tmp_path, [look(0), look(2, kl=1.0)]).over(
        1.0
    )
    assert resumed(tmp_path, [look(0), look(2, kl=0.99)]).over(1.0) == ""
    still = [look(0), look(2, above=0.6), look(4, above=0.7, error=0.1), look(6, above=0.1)]
    waiting = resumed(tmp_path, still, patience=3)
    assert waiting.best["step"] == 2 and waiting.over(None) == ""
    assert "above was no better in 2 evaluations (patience 2)" in resumed(tmp_path, still, patience=2).over(None)


def test_a_proxy_without_a_sum_is_seen_by_its_first_reward(tmp_path) -> None:
    """Lexicographic scores are shares of siblings, and a look has one answer a prompt. With a cost what the round
    before said of it counts; what fails for one reward alone counts as failed."""
    answers = [Response((), text, (1,), i) for i, text in enumerate(("[1, 200]", "[1, 2]"))]
    two = rewards_of(lambda_below, above)
    ordered = Rewards(two.terms, "lexicographic")
    assert watch(tmp_path).scored(ordered, answers, ())["proxy"] == 0.75
    costly = rewards_of(lambda_below, above, costs={"above": Cost(0.0, start=1.0)})
    before = [{"above": 0.0, "multiplier:above": 3.0}]
    assert watch(tmp_path).scored(costly, answers, before)["proxy"] == pytest.approx((0.75 - 3.0 * 0.25) / 4.0)

    def half(responses):
        return [math.nan, 1.0]

    row = watch(tmp_path, rewards=(half,)).scored(rewards_of(above, on_error="drop"), answers, ())
    assert (row["half"], row["failed"], row["proxy"]) == (1.0, 1, 0.25)


def monitor_of(folder, out, temperature=1.0, patience=None):
    """The looking side alone, of a policy that is its reference."""
    policy, reference = load(folder), load(folder)
    policy.temperature = reference.temperature = temperature
    desk, bests = GenerationClient(InProcess(policy), policy), WeightSnapshots(out / "best", out / "checkpoints")
    seen = watch(out, patience=patience)
    return Monitor(seen, desk, reference, judged(), bests, Sampling(12, seed=3), lambda step: (0, ()), 999)


def test_looks_measure_the_kl_at_the_temperature_they_are_answered_at(folder, tmp_path) -> None:
    """At 1, wherever the policy is read to learn from; a policy that is its reference is at 0 from it."""
    monitor_of(folder, tmp_path, temperature=0.5).begin(0)
    assert abs(looks(tmp_path)[0]["kl"]) < 1e-3


def test_weights_of_looks_that_will_be_done_again_are_forgotten(folder, tmp_path) -> None:
    """A resume that goes back behind a best look has its weights no more; those of earlier ones stay."""
    looking = monitor_of(folder, tmp_path, patience=9)
    looking.begin(0)
    looking.bests.put(4, looking.client.policy.model)
    assert looking.bests.steps() == [0, 4]
    looking.begin(2)
    assert looking.bests.steps() == [0] and len(looking.log.rows) == 1
