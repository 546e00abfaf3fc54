"""Less memory, same result: layers computed again in the backward pass, and bf16 within what bf16 can tell apart."""

import copy
import dataclasses
import math

import pytest
import torch

from small_models import build
from small_pairs import TEXT, ragged, updated
from truing.data.batch import Batch
from truing.errors import UserError
from truing.objectives import bradley_terry, dpo
from truing.policy import adapters, heads
from truing.policy.load import load
from truing.policy.logp import token_logp
from truing.policy.recompute import recompute_layers
from truing.policy.reference import compute
from truing.settings import Lora
from truing.signals.observe import observe

ARCHITECTURES = ["llama", "gemma2", "gpt2", "gpt_neox"]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, tmp_path_factory):
    return build(request.param, TEXT, tmp_path_factory.mktemp(request.param), vocab=300)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return build("llama", TEXT, tmp_path_factory.mktemp("llama"), vocab=300)


@pytest.fixture(scope="module")
def batch():
    return Batch(ragged(12, longest=40))


def kept(policy, batch) -> tuple[int, dict[str, torch.Tensor]]:
    """Bytes that the backward pass keeps, weights not counted, and the gradients."""
    weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        read = policy.rewards if policy.is_reward else policy.logp
        out = read(batch)
    bytes_kept = sum(seen.values())
    (out * torch.linspace(-1, 1, len(out))).sum().backward()
    return bytes_kept, {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}


def read_by(folder, make, precision="fp32"):
    found = []
    for again in (False, True):
        policy = make(folder)
        policy.compute_in(precision)
        if again:
            recompute_layers(policy.model)
        found.append(policy)
    return found


def a_policy(folder):
    return load(str(folder))


def a_reward(folder):
    return heads.fresh_reward(str(folder), seed=0)


def an_adapter(folder):
    policy = load(str(folder))
    adapters.put_on(policy, Lora(lora_rank=4), seed=0)
    return policy


@pytest.mark.parametrize("make", [a_policy, a_reward, an_adapter])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_layers_give_the_same_gradients(folder, batch, make, precision) -> None:
    """Bit for bit, by the plan of the very batch though another is read in between; and half the memory or less."""
    plain, again = read_by(folder, make, precision)
    for policy in (plain, again):
        (policy.rewards if policy.is_reward else policy.logp)(Batch(batch.trees[:2]))  # verified, and another plan
    (more, wanted), (less, got) = kept(plain, batch), kept(again, batch)
    assert wanted.keys() == got.keys() and len(got) > 5
    for name, gradient in wanted.items():
        assert torch.equal(gradient, got[name]), name
    # Of a language model the head's logits stay, which no layer can give back.
    head = sum(len(b.ids) for b in batch.branches) * 300 * 4 if not plain.is_reward else 0
    assert less - head < 0.5 * (more - head)


def test_training_with_recomputed_layers_is_the_same(llama, tmp_path) -> None:
    plain, again = read_by(llama, a_policy)
    for name, policy in (("a", plain), ("b", again)):
        updated(policy, ragged(), tmp_path / name, dpo, tokens_per_device=60)
    for (name, one), two in zip(plain.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_a_copy_of_the_model_computes_its_own_layers(llama, batch) -> None:
    """A process that shards the model trains a copy of it; the layers of the first have no weights by then."""
    policy = a_policy(llama)
    recompute_layers(policy.model)
    wanted = policy.logp(batch).detach()
    other = dataclasses.replace(policy, model=copy.deepcopy(policy.model))
    for parameter in policy.model.parameters():
        parameter.data.zero_()
    assert torch.equal(other.logp(batch), wanted)


def test_generation_is_not_touched(llama) -> None:
    from truing.rollout.engine import Sampling, generate

    plain, again = read_by(llama, a_policy)
    answers = [generate(p, [(5, 6, 7), (9, 8)], Sampling(max_new_tokens=6, seed=1)) for p in (plain, again)]
    assert answers[0] == answers[1]


def test_a_model_without_layers_of_its_own() -> None:
    with pytest.raises(UserError, match="Linear has no layers to compute again; leave out gradient_checkpointing"):
        recompute_layers(torch.nn.Linear(2, 2))


def test_bf16_reads_nearly_the_same_and_keeps_weights_in_fp32(folder, batch, tmp_path) -> None:
    exact, short = load(str(folder)), load(str(folder))
    short.compute_in("bf16")
    with torch.no_grad():
        off = (short.logp(batch) - exact.logp(batch)).abs()
    assert 1e-4 < off.max() < 0.5 and off.mean() < 0.05, "another precision, and the same model"
    assert short.layout == "trees" and short.logp(batch).dtype == torch.float32
    reference = updated(short, batch.trees, tmp_path, dpo, learning_rate=1e-5, steps=1, warmup=0.0)
    assert {p.dtype for p in short.model.parameters()} == {torch.float32}
    moved = (short.model.get_input_embeddings().weight - exact.model.get_input_embeddings().weight).abs().max()
    assert 0 < moved < 2e-5, "an update of 1e-5 is lost in bf16 weights, and kept in fp32"
    assert reference.logp.dtype == torch.float32


def test_dpo_starts_at_ln_2_in_bf16(folder, batch) -> None:
    """Read in parts as in training, against a reference read whole: within 2^-8 of the sizes of what is summed."""
    policy = load(str(folder))
    policy.compute_in("bf16")
    reference = compute(policy, batch.trees, 8192)
    for part in batch.split(200):
        with torch.no_grad():
            signals = observe(policy, part, frozenset(dpo.signals), reference)
        assert torch.allclose(dpo(**signals), torch.tensor(math.log(2), dtype=torch.float64), atol=0.01, rtol=0)


def test_the_heads_gradient_is_summed_in_fp32(monkeypatch) -> None:
    """Over 500 chunks a sum kept in bf16 would stand still at 2^8 times what is added; only its end is rounded."""
    monkeypatch.setattr("truing.policy.logp.CHUNK_ELEMENTS", 64)
    generator = torch.Generator().manual_seed(0)
    h, weight = (torch.rand(n, 8, generator=generator).bfloat16() for n in (2000, 16))
    target = torch.zeros(2000, dtype=torch.long)
    found = []
    for dtype in (torch.bfloat16, torch.float64):
        w = weight.detach().to(dtype, copy=True).requires_grad_()
        token_logp(h.to(dtype), w, target).sum().backward()
        found.append(w.grad.double())
    assert found[0].dtype == torch.float64 and ((found[0] - found[1]).abs() / found[1].abs()).max() < 2**-7


def test_rewards_of_bf16_are_read_in_fp32(llama, batch, tmp_path) -> None:
    policy = a_reward(llama)
    policy.compute_in("bf16")
    updated(policy, batch.trees, tmp_path, bradley_terry)
    values = policy.rewards(batch).detach()
    assert not torch.equal(values, values.bfloat16().float()), "a reward rounded to 8 bits could not order close pairs"
