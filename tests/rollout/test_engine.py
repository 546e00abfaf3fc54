"""The engine: what is computed, that it is exact on every architecture, where answers end, and what is refused."""

import dataclasses

import pytest
import torch

from small_models import CONFIGS, build
from truing.errors import RunFailed, UserError
from truing.policy import decoding
from truing.policy.load import load
from truing.records import Engine
from truing.rollout import engine as engines
from truing.rollout import rows
from truing.rollout.engine import InProcess, Sampling, batches, generate, sampler_agrees, stop_ids

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5
MANY = tuple(range(10, 20))
"""End tokens, so that answers of all lengths end."""


def asked(lengths=(3, 30, 7, 60, 28), most: int = 290, seed: int = 1) -> list[tuple[int, ...]]:
    """Random prompts of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(20, most, (n,), generator=generator).tolist()) for n in lengths]


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_architecture_shares_its_prompts_and_is_exact(name, tmp_path) -> None:
    """Past the sliding windows of those that have one (48), with rows and whole prompts that end in between."""
    policy = load(str(build(name, TEXT, tmp_path, vocab=300)))
    sampling = Sampling(max_new_tokens=60, seed=11, stop_tokens=tuple(range(20, 290, 30)))
    rollouts = generate(policy, asked(), sampling, 3)
    assert policy.shares_prompts and not policy.notes and not policy.verified
    assert len({len(r.response_ids) for r in rollouts}) > 1 and max(len(r.response_ids) for r in rollouts) > 50
    assert sampler_agrees(policy, rollouts).largest < 1e-4
    policy.shares_prompts = False
    apart = generate(policy, asked(), sampling, 3)
    same = [(a, b) for a, b in zip(rollouts, apart, strict=True) if a.response_ids == b.response_ids]
    assert len(same) >= len(rollouts) - 1, "the same draws but for rounding"
    assert all(a.logp_T == pytest.approx(b.logp_T, abs=1e-4) for a, b in same)


def test_each_prompt_is_read_once_and_no_row_after_its_end(policy, monkeypatch) -> None:
    """Tokens that the model reads: every different prompt's, and of each answer all but the last."""
    monkeypatch.setattr(rows, "PROMPT_TOKENS", 40)
    generate(policy, asked(), Sampling(max_new_tokens=1))  # the policy has been tried
    read = []
    policy.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: read.append(ids[0].numel()))
    prompts = [*asked(), *asked()[1:3]]
    rollouts = generate(policy, prompts, Sampling(max_new_tokens=20, seed=3, stop_tokens=MANY), 4)
    assert len({len(r.response_ids) for r in rollouts}) > 5
    assert sum(read) == sum(map(len, asked())) + sum(len(r.response_ids) - 1 for r in rollouts)
    assert read[:3] == [3 + 7 + 28, 30, 60], "prompts are read in parts"
    assert len({r.response_ids for r in rollouts}) > 20, "the same prompt twice is answered in different words"


def test_how_prompts_are_batched_changes_nothing(policy, monkeypatch) -> None:
    sampling = Sampling(max_new_tokens=12, seed=4, stop_tokens=MANY, top_p=0.95, temperature=1.2)
    together = generate(policy, asked(), sampling, 3)
    assert [r.group for r in together] == [p for p in range(5) for _ in range(3)]
    for held in (1, 60, 200):
        monkeypatch.setattr(engines, "BATCH_TOKENS", held)
        assert [r.response_ids for r in generate(policy, asked(), sampling, 3)] == [r.response_ids for r in together]
    monkeypatch.setattr(decoding, "LIKE", 0.0)
    assert [r.response_ids for r in generate(policy, asked(), sampling, 3)] == [r.response_ids for r in together]


def test_a_batch_holds_a_shared_prompt_once(monkeypatch) -> None:
    monkeypatch.setattr(engines, "BATCH_TOKENS", 100)
    prompts, todo = [(1,) * 10, (1,) * 40], [(p, k) for p in (0, 1) for k in range(8)]
    sampling = Sampling(max_new_tokens=10)
    assert [len(b) for b in batches(prompts, todo, sampling, True)] == [6, 5, 5]
    assert [len(b) for b in batches(prompts, todo, sampling, False)] == [2, 2, 2, 2, 5, 3]
    assert sorted(row for b in batches(prompts, todo, sampling, True) for row in b) == todo


def test_answers_end_at_end_tokens_stop_strings_or_the_limit(policy) -> None:
    word = policy.tokenizer.decode([40])
    sampling = Sampling(max_new_tokens=30, seed=1, stop_tokens=(50, 51, 52), stop_strings=("ef", word), temperature=1.5)
    rollouts = generate(policy, asked(), sampling, 8)
    assert {r.stop for r in rollouts} == {"eos", "string", "length"}
    ends = stop_ids(policy) | {50, 51, 52}
    for r in rollouts:
        text, earlier = (policy.tokenizer.decode(ids) for ids in (r.response_ids, r.response_ids[:-1]))
        assert not ends & set(r.response_ids[:-1]) and not any(s in earlier for s in sampling.stop_strings)
        assert (r.response_ids[-1] in ends) == (r.stop == "eos")
        assert r.stop == "eos" or any(s in text for s in sampling.stop_strings) == (r.stop == "string")
        assert len(r.response_ids) == 30 or r.stop != "length"
    assert (
        sampler_agrees(policy, generate(policy, asked(), dataclasses.replace(sampling, temperature=1.0), 2)).largest
        < 1e-4
    )


def test_no_answer_ends_and_every_answer_is_empty(policy) -> None:
    rollouts = generate(policy, asked(), Sampling(max_new_tokens=4, stop_strings=("never said",)), 2)
    assert {(r.stop, len(r.response_ids)) for r in rollouts} == {("length", 4)}
    rollouts = generate(policy, asked(), Sampling(max_new_tokens=4, stop_tokens=tuple(range(300))), 2)
    assert {(r.stop, len(r.response_ids), len(r.logp_T)) for r in rollouts} == {("eos", 1, 1)}
    assert generate(policy, [], Sampling()) == []


def test_a_prompt_that_fills_the_context_or_is_empty(policy) -> None:
    policy.model.config.max_position_embeddings = 32
    sampling = Sampling(max_new_tokens=12)
    assert len(generate(policy, [[25] * 20], sampling, 2)) == 2
    with pytest.raises(UserError, match=r"prompt 2 has 21 tokens; with max_new_tokens 12 .* beyond the 32"):
        generate(policy, [[25] * 20, [25] * 21], sampling)
    with pytest.raises(UserError, match="prompt 2 has no tokens"):
        generate(policy, [[25], []], sampling)
    with pytest.raises(UserError, match="its embedding has 300 rows"):
        generate(policy, [[25], [26, 300]], sampling)


def test_logits_that_are_no_numbers_stop_the_run(policy) -> None:
    policy.shares_prompts = True
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[25] = torch.nan
    with pytest.raises(RunFailed, match="gives logits that are no numbers"):
        generate(policy, [[25]], Sampling(max_new_tokens=2))


def crooked(monkeypatch) -> None:
    """Rows that are written take twice what they see."""
    straight = decoding.attention

    def twice(*given):
        out, norm = straight(*given)
        return 2 * out, norm

    monkeypatch.setattr(decoding, "attention", twice)


def test_a_policy_that_cannot_share_its_prompts_answers_row_by_row(folder, policy, monkeypatch) -> None:
    sampling = Sampling(max_new_tokens=12, seed=3)
    wanted = generate(policy, asked(), sampling, 2)
    crooked(monkeypatch)
    other = load(str(folder))
    rollouts = generate(other, asked(), sampling, 2)
    assert other.shares_prompts is False and other.model.config._attn_implementation == "tree"
    assert "prompts are read anew for each of their responses (slower): log-probabilities" in other.notes[0]
    assert [r.response_ids for r in rollouts] == [r.response_ids for r in wanted]
    assert sampler_agrees(other, rollouts).largest < 1e-4


def test_the_engine_says_whose_weights_answered(policy, folder) -> None:
    engine: Engine = InProcess(policy, version=3)
    first = engine.generate(asked(), 2, Sampling(max_new_tokens=5))
    assert {r.policy_version for r in first} == {3}
    other = load(str(folder))
    with torch.no_grad():
        other.model.get_input_embeddings().weight.add_(0.3 * torch.randn(other.model.config.vocab_size, 64))
    engine.sync(other, 4)
    second = engine.generate(asked(), 2, Sampling(max_new_tokens=5))
    assert {r.policy_version for r in second} == {4} and sampler_agrees(other, second).largest < 1e-4
    assert sampler_agrees(policy, second).largest > 0.1


def test_the_engine_refuses_where_sampler_and_trainer_differ(policy, monkeypatch) -> None:
    crooked(monkeypatch)
    policy.shares_prompts = True
    with pytest.raises(RunFailed, match=r"nats off the trainer's \(root mean square.* rounding explains"):
        InProcess(policy).generate(asked(), 2, Sampling(max_new_tokens=5))


def test_in_bf16_sampler_and_trainer_agree_as_far_as_its_digits_go(policy) -> None:
    policy.compute_in("bf16")
    rollouts = InProcess(policy).generate(asked(), 2, Sampling(max_new_tokens=8))
    assert policy.shares_prompts and not policy.notes
    assert 1e-4 < sampler_agrees(policy, rollouts).largest < 0.05


@pytest.mark.parametrize("window", [None, 4, 40])
@pytest.mark.parametrize("cap", [None, 3.0])
def test_attention_of_rows_is_that_of_whole_rows(window, cap) -> None:
    """On tensors alone, in fp64: six rows of three prompts, tokens written one at a time, rows that end."""
    generator, scale, written = torch.Generator().manual_seed(0), 0.3, 9
    prompts, owners, alive = [4, 5, 11], [0, 0, 1, 2, 2, 2], list(range(6))
    layer = torch.nn.Module()

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    held = [(random(2, n, 8), random(2, n, 8)) for n in prompts]
    own = [(random(2, written, 8), random(2, written, 8)) for _ in owners]
    reading = decoding.Prompts([engines.Tree((1,) * n, (), i, i) for i, n in enumerate(prompts)], torch.device("cpu"))
    reading.cache[layer] = tuple(torch.cat(x, 1)[None] for x in zip(*held, strict=True))
    blocks = list(reading.blocks([[0, 1], [2], [3, 4, 5]]))
    assert [len(b.lengths) for b in blocks] == [2, 1]
    answers = decoding.Responses(blocks, written)
    for t in range(written):
        q = random(4, 6, 8)
        k, v = (torch.stack([own[r][i][:, t] for r in alive], 1)[None] for i in (0, 1))
        out = answers.attend(layer, q[None, :, : len(alive)], k, v, window, scale, cap)
        for place, r in enumerate(alive):
            keys, values = (
                torch.cat([held[owners[r]][i], own[r][i][:, : t + 1]], 1)[:, -(window or 999) :] for i in (0, 1)
            )
            scores = q[:, place].unflatten(0, (2, 2)) @ keys.transpose(1, 2) * scale
            scores = cap * torch.tanh(scores / cap) if cap else scores
            assert torch.allclose(out[0, place], (scores.softmax(-1) @ values).flatten(0, 1), atol=1e-12)
        answers.advance()
        keep = {2: [0, 1, 3, 4, 5], 4: [1, 2, 3], 6: [2]}.get(t)
        if keep:
            order = decoding.filled(keep)
            answers.keep(order)
            alive = [alive[j] for j in order]
