"""What scores become before they are learned from, prompts that teach nothing, and answers that were cut."""

import pytest
import torch

from small_fit import apart
from small_online import collected, folder_of, judged, made, prompts, rewards_of, round_of, run, trained, trees_of
from truing.errors import UserError
from truing.online.history import moments
from truing.online.reward_shaping import normalised, overlong, shaped
from truing.online.source import Judged
from truing.rollout import engine
from truing.rollout.experience import Experience
from truing.settings import Shaping


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory)


def by_order(ids):
    """A number that differs from answer to answer and from round to round."""
    return [float(sum(row) % 17) for row in ids]


@pytest.mark.parametrize("kind", ["round", "running"])
def test_scores_are_put_on_the_scale_of_their_round_or_of_all_so_far(kind, folder, tmp_path) -> None:
    shaping = Shaping(normalise=kind, clip_score=0.9)
    _, source, _ = run(folder, tmp_path, "reinforce", judge=judged(by_order), steps=3, shaping=shaping, beta=0.0)
    lived = [source.experience(source.plan(number), 3) for number in range(3)]
    known = [r.score for rows in (lived[2:] if kind == "round" else lived) for r in rows]
    scale = torch.tensor(known, dtype=torch.float64)
    wanted = (torch.tensor([r.score for r in lived[2]]).double() - scale.mean()) / scale.std(correction=0)
    assert torch.allclose(round_of(source, lived[2]).score, wanted.clamp(-0.9, 0.9)) and wanted.abs().max() > 0.9
    assert [r.score for r in lived[2]] != wanted.tolist(), "the file says what the reward said"


def test_normalised_over_a_run_a_kill_changes_nothing(folder, tmp_path) -> None:
    options = dict(judge=judged(by_order), steps=8, epochs_per_round=2, checkpoint_every=3, shaping=Shaping("running"))
    whole, rows = trained(folder, tmp_path / "a", "ppo", **options)
    trained(folder, tmp_path / "b", "ppo", 5, **options)
    again, more = trained(folder, tmp_path / "b", "ppo", **options)
    assert apart(whole, again) == 0.0 and [r["loss"] for r in rows] == [r["loss"] for r in more]
    other, _ = trained(folder, tmp_path / "c", "ppo", **(options | dict(shaping=Shaping("round"))))
    assert apart(whole, other) > 1e-4


def test_scores_that_failed_are_on_no_scale(folder, tmp_path) -> None:
    """A third of the answers fail: the moments are those of the others."""

    def some(ids):
        return [None if i % 3 == 0 else float(i) for i in range(len(ids))]

    judge = judged(some, on_error="drop")
    _, source = made(folder, tmp_path, "reinforce", judge=judge, beta=0.0, shaping=Shaping("round"))
    rows = source.experience(source.plan(0), 0)
    assert source.history.of(0).scores == moments([1.0, 2.0, 4.0, 5.0])
    trees_of(source, rows)
    assert source.metrics["failed"] == 2 and source.metrics["score"] == 3.0, "what is shown is the reward's"


@pytest.mark.parametrize("value", [2.0, 0.1, 0.7])
def test_scores_that_are_all_equal_have_no_deviation_to_divide_by(value) -> None:
    """Three times 0.1 is not 0.3 in floating point: that is no deviation, of one round or over several."""
    scale, scores = moments([value] * 3), torch.tensor([value] * 3, dtype=torch.float64)
    for known in (scale, scale.joined(moments([value] * 4)).joined(scale)):
        assert normalised(scores, known, None).tolist() == [0.0] * 3


def test_overlong_answers_pay_before_the_limit(folder, tmp_path) -> None:
    lengths = torch.tensor([6, 8, 9, 12, 13])
    assert overlong(lengths, longest=12, buffer=4).tolist() == [0.0, 0.0, -0.25, -1.0, -1.0]
    _, source = made(folder, tmp_path, "rloo", beta=0.0, shaping=Shaping(overlong_buffer=4))
    rows = collected(source, 0)
    found = round_of(source, rows).score - torch.tensor([r.score for r in rows]).double()
    assert torch.allclose(found, overlong(torch.tensor([len(r.response_ids) for r in rows]), longest=12, buffer=4))
    assert found.min() == -1.0
    with pytest.raises(UserError, match=r"overlong_buffer \(13\) is the end of max_new_tokens \(12\)"):
        made(folder, tmp_path, "rloo", shaping=Shaping(overlong_buffer=13))


def test_answers_that_were_cut_are_compared_with_and_not_learned_from(folder, tmp_path) -> None:
    _, source = made(folder, tmp_path, "rloo", group_size=8, max_new_tokens=40, beta=0.0)
    rows = collected(source, 0)
    cut = sum(r.stop == "length" for r in rows)
    assert 0 < cut < 16, cut
    every = trees_of(source, rows)
    _, masking = made(
        folder, tmp_path, "rloo", group_size=8, max_new_tokens=40, beta=0.0, shaping=Shaping(mask_truncated=True)
    )
    left = trees_of(masking, rows)
    ended = [r.response_ids for r in rows if r.stop != "length"]
    assert [b.ids for tree in left for b in tree.branches] == ended
    facts = {b.ids: b.facts["advantage_B"] for tree in every for b in tree.branches}
    assert all(facts[b.ids] == b.facts["advantage_B"] for tree in left for b in tree.branches), "the baseline has them"
    assert masking.metrics["truncated"] == cut / 16


def test_a_round_in_which_no_answer_ended_teaches_nothing(folder, tmp_path) -> None:
    """Without masking it is learned from; masked there is no update, and it is told."""
    options = dict(max_new_tokens=1, steps=2)
    _, rows = trained(folder, tmp_path / "a", "rloo", **options)
    assert rows[0]["truncated"] == 1.0
    _, source = made(folder, tmp_path / "b", "rloo", shaping=Shaping(mask_truncated=True), **options)
    assert trees_of(source, collected(source, 0)) == []


def test_answers_that_are_empty_are_learned_from(folder, tmp_path, monkeypatch) -> None:
    """Every answer ends at once: its end token is all that is read, scored and learned from."""
    monkeypatch.setattr(engine, "stop_ids", lambda policy: frozenset(range(300)))
    _, rows = trained(folder, tmp_path, "rloo", judge=judged(by_order), steps=2, beta=0.0)
    assert all(row["length"] == 1.0 and row["truncated"] == 0.0 and row["grad_norm"] > 0 for row in rows)


def judged_by_prompt(rows):
    """Prompts of these rows are dull."""
    texts = [p.messages[0].content for p in prompts()]

    def varied(prompts, responses):
        own = [texts.index(prompt[0].content) + 1 for prompt in prompts]
        said = enumerate(zip(own, responses, strict=True))
        return [0.5 if row in rows else float(len(answer) + i) for i, (row, answer) in said]

    return Judged(judged().text, rewards_of(varied))


def test_prompts_that_teach_nothing_give_way_to_others(folder, tmp_path) -> None:
    """Of six prompts four are dull; a round of two asks others until both teach, or its draws are used up."""
    options = dict(judge=judged_by_prompt({1, 2, 3, 4}), beta=0.0)
    _, source = made(folder, tmp_path / "a", "dapo", **options)
    plain = [collected(source, number) for number in range(3)]
    assert {r.row for rows in plain for r in rows} == {1, 2, 3, 4, 5, 6}
    _, source = made(folder, tmp_path / "b", "dapo", resample=9, **options)
    for number in range(3):
        rows = collected(source, number)
        assert {r.row for r in rows} == {5, 6} and [r.group for r in rows] == [0, 0, 0, 1, 1, 1]
        there = {r.group: r.row for r in rows}
        first = [p.row for p in source.schedule.prompts_of(number)]
        trees_of(source, rows)
        assert source.metrics["resampled"] == sum(there[i] != row for i, row in enumerate(first))
        assert source.metrics["equal_groups"] == 0.0
    _, source = made(folder, tmp_path / "c", "dapo", resample=9, judge=judged_by_prompt(set(range(1, 7))), beta=0.0)
    trees_of(source, collected(source, 0))
    assert source.metrics["equal_groups"] == 1.0, "where no prompt teaches, the draws end with the prompts"


def test_resampled_rounds_are_lived_again_bitwise(folder, tmp_path) -> None:
    options = dict(
        judge=judged_by_prompt({1, 2, 3}), resample=2, steps=6, epochs_per_round=2, checkpoint_every=3, beta=0.0
    )
    whole, rows = trained(folder, tmp_path / "a", "dapo", **options)
    trained(folder, tmp_path / "b", "dapo", 5, **options)
    again, more = trained(folder, tmp_path / "b", "dapo", **options)
    assert apart(whole, again) == 0.0 and [r["resampled"] for r in rows] == [r["resampled"] for r in more]
    assert sum(r["resampled"] for r in rows) > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpo", dict(shaping=Shaping(normalise="round"))),
        ("nll", dict(shaping=Shaping(clip_score=1.0))),
        ("reinforce_pp", dict(resample=1)),
        ("nll", dict(resample=1)),
    ],
)
def test_shaping_that_says_nothing_is_refused(name, options, folder, tmp_path) -> None:
    with pytest.raises(UserError, match="has no effect on this objective"):
        made(folder, tmp_path, name, **options)


def test_what_length_costs_comes_after_scale_and_bounds() -> None:
    """In the units of what is learned from: neither put on the scores' scale nor held within their bound."""
    rows = [
        Experience(1, (), "", (1,), (1,) * n, (-1.0,) * n, (), (), score, stop, 0, 0)
        for score, n, stop in ((3.0, 8, "length"), (1.0, 6, "end"))
    ]
    scale, shaping = moments([0.0, 4.0]), Shaping(clip_score=0.25, overlong_buffer=4)
    assert shaped(rows, shaping, 8, 0.5, scale).tolist() == [0.25 - 0.5 - 1.0, -0.25 - 0.5]
    assert shaped(rows, Shaping(), 8, 0.5, scale).tolist() == [0.5 - 0.5, -0.5]
