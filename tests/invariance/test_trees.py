"""Trees against the plain way, on real human pairs: one row per answer through transformers' own forward."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import bounds
from small_models import CONFIGS, build
from truing.data.batch import Batch
from truing.data.formats import loading
from truing.data.rendering.render import Renderer
from truing.data.trees import build_trees
from truing.errors import UserError
from truing.objectives import dpo
from truing.policy import heads
from truing.policy.load import load
from truing.policy.reference import compute
from truing.signals.observe import observe

ROWS = 12


@pytest.fixture(scope="session")
def pairs(hh):
    """The first pairs of the data set that are short enough to compare quickly."""
    records = loading.load(hh, want="pairs", on_bad_row="drop")
    short = [
        i
        for i, r in enumerate(records.records)
        if sum(len(m.content) for m in (*r.prompt, *r.chosen, *r.rejected)) < 900
    ]
    return records.subset(short[:ROWS], "pairs")


@pytest.fixture(scope="session", params=CONFIGS)
def folder(request, pairs, tmp_path_factory):
    return build(request.param, pairs.texts(), tmp_path_factory.mktemp(request.param))


def grown(folder, pairs):
    policy = load(str(folder))
    dataset = build_trees(pairs, Renderer(policy.tokenizer), max_length=1024, shape="pairs")
    return policy, Batch(dataset.trees)


def plain_token_logp(folder, batch: Batch):
    """The measure: transformers' own model, eager attention, one row per answer, full log-softmax."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    out = []
    for tree in batch.trees:
        for branch in tree.branches:
            ids = torch.tensor([[*tree.prompt, *branch.ids]])
            logp = model(input_ids=ids).logits[0].float().log_softmax(-1)
            here = logp[len(tree.prompt) - 1 : -1].gather(1, ids[0, len(tree.prompt) :, None]).squeeze(1)
            out.append(here)
    return model, torch.cat(out)


def test_token_logp_and_gradients(folder, pairs) -> None:
    policy, batch = grown(folder, pairs)
    model, plain = plain_token_logp(folder, batch)
    tree = policy.logp(batch)
    assert policy.layout == "trees" and not policy.notes
    assert (tree - plain).abs().max() <= bounds.LOGP
    weight = torch.linspace(-1, 1, len(plain))
    (tree * weight).sum().backward()
    (plain * weight).sum().backward()
    theirs, most = dict(model.named_parameters()), bounds.relative(model, batch.tokens, torch.float32)
    for name, parameter in policy.model.named_parameters():
        if theirs[name].grad is None:
            assert parameter.grad is None or parameter.grad.abs().max() == 0, name
            continue
        off = (parameter.grad - theirs[name].grad).norm() / theirs[name].grad.norm().clamp(min=1e-12)
        # A gradient that is zero but for rounding (the key bias of attention) has no relative size of its own.
        assert off <= most or theirs[name].grad.norm() < 1e-4, (name, off)


def test_dpo_starts_at_ln_2(folder, pairs) -> None:
    policy, batch = grown(folder, pairs)
    reference = compute(policy, batch.trees, 700)
    with torch.no_grad():
        signals = observe(policy, batch, frozenset(dpo.signals), reference)
    assert torch.allclose(dpo(**signals), torch.tensor(2.0, dtype=torch.float64).log(), atol=bounds.LOGP, rtol=0)


def test_a_saved_policy_is_the_same_in_plain_transformers(folder, pairs, tmp_path) -> None:
    policy, batch = grown(folder, pairs)
    heads.save(policy, tmp_path)
    _, plain = plain_token_logp(tmp_path, batch)
    assert (policy.logp(batch) - plain).abs().max() <= bounds.LOGP


def test_the_logits_of_rows_that_are_no_token_count(pairs, tmp_path) -> None:
    """As in plain transformers: an embedding is often padded to a round size, and the softmax runs over all of it."""
    folder = build("llama-spare", pairs.texts(), tmp_path)
    policy, batch = grown(folder, pairs)
    rows, tokens = policy.model.get_output_embeddings().weight.shape[0], len(policy.tokenizer)
    assert rows == tokens + 64
    before = policy.logp(batch).detach()
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[tokens:] = 0
        assert (policy.logp(batch) - before).abs().max() > 1e-3


def test_a_saved_reward_model_scores_the_same_in_plain_transformers(folder, pairs, tmp_path) -> None:
    if type(AutoConfig.from_pretrained(folder)) not in AutoModelForSequenceClassification._model_mapping:
        with pytest.raises(UserError, match="has no reward form"):
            heads.fresh_reward(str(folder), seed=3)
        return
    policy = heads.fresh_reward(str(folder), seed=3)
    batch = Batch(build_trees(pairs, Renderer(policy.tokenizer), max_length=1024, shape="pairs").trees)
    ours = policy.rewards(batch)
    heads.save(policy, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = [[*t.prompt, *b.ids] for t in batch.trees for b in t.branches]
    width = max(map(len, rows))
    padded = torch.tensor([r + [tokenizer.pad_token_id] * (width - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    with torch.no_grad():
        theirs = model(input_ids=padded, attention_mask=mask).logits.squeeze(-1)
    assert model.config.num_labels == 1
    assert (ours - theirs).abs().max() <= bounds.LOGP
    assert ours.std() > 0.01, "scores that are all alike would agree for any reason"


def test_siblings_and_neighbours_are_invisible(folder, pairs) -> None:
    policy, batch = grown(folder, pairs)
    whole = policy.logp(batch).split([len(b.ids) for b in batch.branches])
    alone = Batch((batch.trees[-1],))
    assert torch.allclose(policy.logp(alone), torch.cat(whole[-2:]), atol=bounds.LOGP)
    changed = batch.trees[-1].branches[0]
    other = type(changed)(changed.role, changed.ids[::-1], changed.loss)
    tree = type(batch.trees[-1])(batch.trees[-1].prompt, (other, batch.trees[-1].branches[1]), 0, 1)
    assert torch.allclose(policy.logp(Batch((tree,)))[len(other.ids) :], whole[-1], atol=bounds.LOGP)
