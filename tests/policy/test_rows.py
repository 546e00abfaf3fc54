"""Models that cannot attend by mask: rows of answers, padded where that changes nothing, and written token by token."""

import pytest
import torch
from transformers import AutoModelForCausalLM

import bounds
from small_models import ROWS, build_rows
from small_pairs import ragged, updated
from truing.data.batch import Batch, Branch, Tree
from truing.objectives import bradley_terry, dpo
from truing.policy import heads
from truing.policy.load import load
from truing.policy.plain import own_logp, own_rewards
from truing.policy.probes import alike
from truing.rollout.engine import Sampling, generate


@pytest.fixture(scope="module", params=ROWS)
def folder(request, tmp_path_factory):
    return build_rows(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def batch():
    return Batch(ragged(6, longest=24))


def opened(folder):
    reward = folder.name.startswith("bert")
    return heads.fresh_reward(str(folder), seed=0) if reward else load(str(folder))


def reading(policy):
    return (policy.head_rewards, own_rewards) if policy.is_reward else (policy.logp, own_logp)


def forwards(policy, call):
    """What a call gives, and how many rows each forward of the model read in it."""
    sizes = []
    hook = policy.model.register_forward_pre_hook(
        lambda _, given, named: sizes.append(len(named["input_ids"])), with_kwargs=True
    )
    out = call()
    hook.remove()
    return out, sizes


def test_padded_rows_read_as_they_do_alone(folder, batch) -> None:
    """Values and gradients of rows read together, against one row at a time; and they are read together."""
    policy = opened(folder)
    fast, own = reading(policy)
    fast(batch)
    assert policy.layout == "padded" and not policy.notes
    got, sizes = forwards(policy, lambda: fast(batch))
    wanted, alone = forwards(policy, lambda: own(policy, batch))
    assert sum(sizes) == 12 and len(sizes) <= 3 and alone == [1] * 12
    assert (got - wanted).abs().max() <= bounds.LOGP and wanted.std() > 0.01
    weight = torch.linspace(-1, 1, got.numel()).reshape(got.shape)
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad((x * weight).sum(), parameters, allow_unused=True) for x in (got, wanted))
    for one, two in zip(ours, theirs, strict=True):
        assert (one is None) == (two is None)
        assert one is None or (one - two).norm() <= 1e-4 * two.norm() + 1e-5


def test_they_are_what_plain_transformers_gives(tmp_path, batch) -> None:
    policy = load(str(build_rows("mamba", tmp_path)))
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    got, one = policy.logp(batch), batch.trees[0]
    ids = torch.tensor([[*one.prompt, *one.branches[0].ids]])
    logp = model(input_ids=ids).logits[0].log_softmax(-1)[len(one.prompt) - 1 : -1]
    assert torch.allclose(
        got[: len(logp)], logp.gather(1, ids[0, len(one.prompt) :, None]).squeeze(1), atol=bounds.LOGP
    )


def test_where_padding_changes_the_numbers_rows_are_read_alone(tmp_path, batch) -> None:
    """A BERT that does not look at its mask: found out on the first batch, said, and read one row at a time."""
    policy = opened(build_rows("bert", tmp_path / "bert"))
    real = policy.model.forward
    policy.model.forward = lambda **named: real(**{k: v for k, v in named.items() if k != "attention_mask"})
    wanted = own_rewards(policy, batch)
    got, sizes = forwards(policy, lambda: policy.head_rewards(batch))
    assert torch.equal(got, wanted)
    assert policy.layout == "rows" and "padding changes what bert gives by" in policy.notes[0]
    assert sizes[-12:] == [1] * 12


def test_rows_of_like_length_are_read_together() -> None:
    lengths = [5, 30, 6, 29, 2]
    groups = list(alike(lengths, 60))
    assert groups == [[1, 3], [2, 0, 4]]
    assert all(len(g) * max(lengths[m] for m in g) <= 60 for g in groups)
    assert list(alike(lengths, 1)) == [[1], [3], [2], [0], [4]]


def test_they_are_trained_by_the_one_loop(folder, batch, tmp_path) -> None:
    policy = opened(folder)
    fast, _ = reading(policy)
    before = fast(batch).detach()
    updated(policy, batch.trees, tmp_path, bradley_terry if policy.is_reward else dpo, steps=2)
    assert (fast(batch) - before).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["mamba", "gpt_neo"])
def test_they_answer_with_their_own_log_probabilities(name, tmp_path) -> None:
    """Batched in whatever way, a recurrent model's answers are those of rows read whole."""
    policy = load(str(build_rows(name, tmp_path)))
    prompts = [tree.prompt for tree in ragged(3)]
    rollouts = generate(policy, prompts, Sampling(max_new_tokens=5, seed=4), n=2)
    assert len({r.response_ids for r in rollouts}) > 3 and not policy.notes
    for r in rollouts:
        branch = Branch("response", r.response_ids, (True,) * len(r.response_ids))
        with torch.no_grad():
            logp = own_logp(policy, Batch((Tree(r.prompt_ids, (branch,), 0, 1),)))
        assert torch.allclose(logp, torch.tensor(r.logp_T), atol=bounds.LOGP)
