"""KL control over rounds: a beta that follows the KL, a reference that is refreshed, an end in time, and a policy that is
lost. What later rounds need of earlier ones is on disk."""

import json
from dataclasses import replace

import pytest
import torch

from small_fit import apart
from small_online import collected, folder_of, made, round_of, run, trained
from truing.errors import RunFailed, UserError
from truing.objectives.kl import adapted
from truing.online.advantages import check_horizon, check_read
from truing.online.history import Moments, RoundHistory, RoundSummary, check_kl, summary
from truing.policy.load import load
from truing.rollout.engine import InProcess
from truing.rollout.experience import Experience
from truing.settings import KLControl, Online, Shaping
from truing.train.record.snapshots import WeightSnapshots


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory)


def lines(rows):
    return [{**row, "seconds": 0} for row in rows]


def test_beta_follows_the_kl_of_each_round_and_a_kill_changes_nothing(folder, tmp_path) -> None:
    options = dict(steps=8, epochs_per_round=2, checkpoint_every=3, beta=0.05, learning_rate=3e-2)
    options |= dict(kl_control=KLControl(kl_target=0.1, kl_horizon=20))
    whole, rows = trained(folder, tmp_path / "a", "rloo", **options)
    betas = [0.05]
    for row in rows[:-2:2]:
        betas.append(adapted(betas[-1], row["kl"], target=0.1, rows=6, horizon=20))
    assert [row["beta"] for row in rows] == pytest.approx([b for b in betas for _ in range(2)])
    assert betas[1] == pytest.approx(0.05 * (1 - 0.2 * 6 / 20)) and betas[-1] > betas[-2]
    trained(folder, tmp_path / "b", "rloo", 5, **options)
    again, more = trained(folder, tmp_path / "b", "rloo", **options)
    assert apart(whole, again) == 0.0 and lines(rows) == lines(more)


def test_the_beta_of_a_round_is_what_its_answers_pay(folder, tmp_path) -> None:
    """The same rounds with KL control as it began give other advantages."""
    kl_control = KLControl(kl_target=0.5, kl_horizon=2)
    _, source, _ = run(folder, tmp_path, "rloo", steps=3, beta=0.05, learning_rate=3e-2, kl_control=kl_control)
    rows = source.history.note(2, source.experience(source.plan(2), 3)) and source.experience(source.plan(2), 3)
    paid = round_of(source, rows)
    assert paid.online.beta == source.history.beta(2, 0.05, kl_control) != 0.05
    kl = torch.tensor([sum(r.logp_T) - sum(r.ref_logp_T) for r in rows], dtype=torch.float64)
    assert torch.allclose(paid.kl_penalised, paid.score - paid.online.beta * kl)


def test_the_kl_of_a_round_ends_the_run_well(folder, tmp_path) -> None:
    """With no KL control, a reference is read for this alone; the round that is too far is not learned from."""
    _, source, rows = run(
        folder, tmp_path, "rloo", steps=30, beta=0.0, learning_rate=3e-2, kl_control=KLControl(stop_at_kl=0.3)
    )
    assert 1 < len(rows) < 30 and all(row["kl"] < 0.3 for row in rows)
    assert source.history.of(len(rows)).kl >= 0.3
    assert source.account() == [source.ended]
    assert source.ended.startswith(f"stopped after update {len(rows)}: the KL of a round is ")


def test_a_policy_that_is_lost_stops_the_run(folder, tmp_path) -> None:
    """Caused by a learning rate that ruins it: the step, the figure and what to do; the limit is far from a good run."""
    with pytest.raises(
        RunFailed, match=r"step \d+: the KL to the reference is [\d.]+ nats a response, beyond kl_limit"
    ) as said:
        trained(
            folder, tmp_path, "rloo", steps=30, learning_rate=1.0, beta=0.001, max_new_tokens=60, warmup=0.0,
            schedule="constant", kl_control=KLControl(kl_limit=30.0),
        )  # fmt: skip
    assert "Lower learning_rate, raise beta, or learn fewer times" in str(said.value)
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert f"step {json.loads(rows[-1])['step'] + 1}:" in str(said.value), "the update that would have been next"


def test_a_kl_that_is_no_number_stops_the_run(folder, tmp_path) -> None:
    _, source = made(folder, tmp_path, "rloo")
    rows = collected(source, 0)
    lost = [replace(rows[0], ref_logp_T=(-float("inf"),) * len(rows[0].response_ids)), *rows[1:]]
    check_kl(7, summary(rows), 100.0)
    with pytest.raises(RunFailed, match="step 7: the KL to the reference is not finite"):
        check_kl(7, summary(lost), 100.0)


def test_a_refreshed_reference_is_the_policy_as_it_was_and_a_kill_changes_nothing(folder, tmp_path) -> None:
    """Every two rounds of two updates: the KL begins at 0 again, and a resume finds the reference on disk."""
    options = dict(
        steps=12, epochs_per_round=2, checkpoint_every=5, learning_rate=3e-2, kl_control=KLControl(refresh_reference=2)
    )
    whole, rows = trained(folder, tmp_path / "a", "grpo", **options)
    fresh = [abs(rows[at]["kl"]) < 1e-3 for at in (0, 2, 4, 6, 8, 10)]
    assert fresh == [True, False, True, False, True, False]
    for killed in (6, 11):
        out = tmp_path / f"b{killed}"
        trained(folder, out, "grpo", killed, **options)
        again, more = trained(folder, out, "grpo", **options)
        assert apart(whole, again) == 0.0 and lines(rows) == lines(more), killed
    other, _ = trained(folder, tmp_path / "c", "grpo", **(options | dict(kl_control=KLControl())))
    assert apart(whole, other) > 1e-3, "the reference matters"


def test_weights_set_aside_stay_while_a_resume_could_ask_for_them(folder, tmp_path) -> None:
    policy = load(folder)
    aside = WeightSnapshots(tmp_path / "best", tmp_path / "checkpoints")
    for step in (2, 4, 6):
        aside.put(step, policy.model)
        (tmp_path / "checkpoints" / "step-00000004").mkdir(parents=True, exist_ok=True)
    assert aside.steps() == [4, 6]
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.zero_()
    aside.back(4, policy.model)
    assert apart(before, dict(policy.model.named_parameters())) == 0.0
    aside.forget(4)
    assert aside.steps() == [4]
    aside.path(4).write_bytes(b"torn")
    with pytest.raises(RunFailed, match="the weights set aside here cannot be read"):
        aside.back(4, policy.model)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "rloo",
            dict(beta=0.0, kl_control=KLControl(kl_target=1.0)),
            "'kl_target' has no effect here, which moves beta",
        ),
        ("rloo", dict(kl_control=KLControl(kl_horizon=9)), "'kl_horizon' has no effect here, without kl_target"),
        ("rloo", dict(beta=0.0, kl_control=KLControl(refresh_reference=1)), "'refresh_reference' has no effect here"),
        (
            "rloo",
            dict(beta=0.0, kl_control=KLControl(kl_limit=9.0)),
            "'kl_limit' has no effect here, where no KL is measured",
        ),
        ("dpo", dict(kl_control=KLControl(kl_target=1.0)), "'kl_target' has no effect here"),
        (
            "rloo",
            dict(kl_control=KLControl(stop_at_kl=200.0)),
            r"stop_at_kl \(200\) is never reached: a round beyond kl_limit",
        ),
        (
            "rloo",
            dict(kl_control=KLControl(kl_target=1.0, kl_horizon=1)),
            "too short for rounds of 6 responses.* at least 2",
        ),
    ],
)
def test_a_leash_that_says_nothing_is_refused(name, options, said, folder, tmp_path) -> None:
    with pytest.raises(UserError, match=said):
        made(folder, tmp_path, name, **options)


def test_an_engine_of_another_kind_is_told_when_the_weights_move_and_is_held_to_it(folder, tmp_path) -> None:
    """It samples as the one in this process does; one that goes on with old weights is found out."""
    said = []

    class Told(InProcess):
        """The engine in this process, which says when it is told."""

        def sync(self, policy, version):
            said.append(version)
            super().sync(policy, version)

    class Deaf(InProcess):
        """An engine whose sync does nothing."""

        def sync(self, policy, version):
            pass

    policy, _ = made(folder, tmp_path, "grpo")
    options = dict(steps=6, epochs_per_round=2)
    plain, _ = trained(folder, tmp_path / "a", "grpo", **options)
    weights, source, _ = run(folder, tmp_path / "b", "grpo", engine=Told(policy), **options)
    assert said == [0, 2, 4] and apart(plain, dict(weights.model.named_parameters())) == 0.0
    lived = [r.policy_version for number in range(3) for r in source.experience(source.plan(number), 6)]
    assert lived == [0] * 6 + [2] * 6 + [4] * 6
    with pytest.raises(
        RunFailed, match="answered with the weights of update 0, and was to answer with those of update 2"
    ):
        trained(folder, tmp_path / "c", "grpo", engine=Deaf(policy), **options)


def test_an_engine_may_answer_in_any_order_and_has_to_answer_all(folder, tmp_path) -> None:
    """Answers are known by their group: what the reference says of them goes with them. One that is missing is no round."""

    class Backwards(InProcess):
        """The engine in this process, whose prompts come the last first."""

        def generate(self, prompts, n, sampling):
            found = super().generate(prompts, n, sampling)
            return [r for place in reversed(range(len(prompts))) for r in found if r.group == place]

    class Tired(InProcess):
        """One that leaves the last answer out."""

        def generate(self, prompts, n, sampling):
            return super().generate(prompts, n, sampling)[:-1]

    policy, plain = made(folder, tmp_path / "a", "grpo")
    _, turned = made(folder, tmp_path / "b", "grpo", engine=Backwards(policy))
    assert collected(turned, 0) == collected(plain, 0)
    _, short = made(folder, tmp_path / "c", "grpo", engine=Tired(policy))
    with pytest.raises(RunFailed, match="gave 5 responses to 2 prompts, and each was to have 3"):
        collected(short, 0)
    with pytest.raises(UserError, match="'mixture' is sampled in this process alone"):
        made(folder, tmp_path / "d", "ipo", mixture=0.5, engine=InProcess(policy))


def test_what_a_round_showed_is_read_from_its_file(folder, tmp_path) -> None:
    _, source, _ = run(folder, tmp_path, "rloo", steps=2)
    fresh = RoundHistory(tmp_path / "rollouts")
    assert [fresh.of(i) for i in (0, 1)] == [source.history.of(i) for i in (0, 1)]
    assert fresh.tokens(2) == sum(len(r.response_ids) for i in (0, 1) for r in source.experience(source.plan(i), 2))
    with pytest.raises(RunFailed, match="cannot be read"):
        fresh.of(2)


def test_bounds_of_the_leash_are_exact() -> None:
    """A round at kl_limit goes on, one that could take beta to 0 is refused, and so is an end that is the limit."""
    check_kl(1, RoundSummary(1, 1, 2.0, Moments()), 2.0)
    with pytest.raises(RunFailed, match=r"step 1: the KL to the reference is 2\.1 nats a response, beyond kl_limit"):
        check_kl(1, RoundSummary(1, 1, 2.1, Moments()), 2.0)
    check_horizon(KLControl(kl_target=1.0, kl_horizon=2), 9)
    with pytest.raises(UserError, match="give at least 3, better"):
        check_horizon(KLControl(kl_target=1.0, kl_horizon=2), 10)
    with pytest.raises(UserError, match=r"stop_at_kl \(9\) is never reached"):
        check_read(Online(beta=0.1), Shaping(), KLControl(stop_at_kl=9.0, kl_limit=9.0), "centred", False, True, True)
    check_read(Online(max_new_tokens=12), Shaping(overlong_buffer=12), KLControl(), "centred", False, True, True)


def test_answers_without_a_reference_have_no_part_in_the_kl(tmp_path) -> None:
    """The mean is over those that have one; a round without any leaves beta where it was, and the next one moves it."""
    one = Experience(1, (), "", (1,), (1, 2), (-1.0, -1.0), (-2.0, -2.0), (), 0.0, "end", 0, 0)
    none = replace(one, ref_logp_T=())
    assert summary([one, none]).kl == 2.0 and summary([none]).kl is None
    past, kl_control = RoundHistory(tmp_path), KLControl(kl_target=1.0, kl_horizon=20)
    past.note(0, [none]), past.note(1, [one, one])
    assert past.beta(1, 0.1, kl_control) == 0.1
    assert past.beta(2, 0.1, kl_control) == adapted(0.1, 2.0, target=1.0, rows=2, horizon=20) > 0.1
    assert (past.tokens(1), past.tokens(2)) == (2, 6)
