"""Entropy of the whole next-token distribution from the chunked head: value, gradient, memory, cost; and reading at a
temperature."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import bounds
from small_models import build, build_rows
from truing.data.batch import Batch, Branch, Tree
from truing.policy.load import load
from truing.policy.logp import Logits, token_logp, token_logp_and_entropy
from truing.policy.policy import Policy
from truing.signals.observe import observe

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8
ROWS = (((20, 21, 22), ((30, 31), (40, 41, 42, 43), (50,))), ((25, 26), ((60, 61, 62), (70, 71))))
BATCH = Batch(
    tuple(
        Tree(prompt, tuple(Branch("response", ids, (True,) * len(ids)) for ids in answers), i, i + 1)
        for i, (prompt, answers) in enumerate(ROWS)
    )
)


@pytest.mark.parametrize("kept", [0, 26, 10**6])
@pytest.mark.parametrize(
    ("bias", "logits"),
    [
        (False, Logits()),
        (True, Logits(0.25)),
        (False, Logits(2.0, 1.5)),
        (True, Logits(0.5, 2.0, 0.7)),
        (True, Logits(3.0, None, 1.6)),
    ],
)
def test_values_and_gradients_are_those_of_the_plain_formula(bias, logits, kept, monkeypatch) -> None:
    """In chunks of two rows, and against finite differences in fp64; with none, some and all logits kept."""
    monkeypatch.setattr("truing.policy.logp.KEPT_ELEMENTS", kept)
    monkeypatch.setattr("truing.policy.logp.CHUNK_ELEMENTS", 26)
    generator = torch.Generator().manual_seed(0)
    h, w, b = (torch.randn(*n, generator=generator).double().requires_grad_() for n in ((7, 5), (13, 5), (13,)))
    target = torch.randint(0, 13, (7,), generator=generator)
    inputs = (h, w, b) if bias else (h, w)

    def ours(*given):
        return token_logp_and_entropy(given[0], given[1], target, given[2] if bias else None, logits)

    z = h @ w.T * logits.scale + (b if bias else 0)
    z = logits.cap * torch.tanh(z / logits.cap) if logits.cap else z
    plain = (z / logits.temperature).log_softmax(-1)
    wanted = plain.gather(1, target[:, None]).squeeze(1), -(plain.exp() * plain).sum(-1)
    for one, two in zip(ours(*inputs), wanted, strict=True):
        assert torch.allclose(one, two, atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(ours, inputs, atol=1e-7)
    for pick in (0, 1):  # each by itself, the other without a gradient
        found, theirs = (torch.autograd.grad(x[pick].sum(), inputs, retain_graph=True) for x in (ours(*inputs), wanted))
        assert all(torch.allclose(one, two, atol=1e-12, rtol=0) for one, two in zip(found, theirs, strict=True))
    alone = token_logp(h, w, target, b if bias else None, logits)
    assert torch.equal(alone, ours(*inputs)[0]), "asking for the entropy changes no bit of the log-probability"


class Seen(TorchDispatchMode):
    """The elements of the largest tensor that is made, and which operations are."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.names = 0, []

    def __torch_dispatch__(self, fn, types, args=(), kwargs=None):
        out = fn(*args, **(kwargs or {}))
        self.names.append(str(fn))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.numel())
        return out


def test_nothing_of_tokens_by_vocabulary_is_made_and_nothing_at_all_unless_asked(monkeypatch) -> None:
    monkeypatch.setattr("truing.policy.logp.KEPT_ELEMENTS", 2000)
    monkeypatch.setattr("truing.policy.logp.CHUNK_ELEMENTS", 2000)
    h, w = torch.randn(400, 4, requires_grad=True), torch.randn(500, 4, requires_grad=True)
    target = torch.zeros(400, dtype=torch.long)
    with Seen() as seen:
        logp, entropy = token_logp_and_entropy(h, w, target)
        (logp + entropy).sum().backward()
    assert seen.most <= 2000 < 400 * 500
    with Seen() as seen:
        token_logp(h, w, target)
    assert not [name for name in seen.names if "exp_" in name or "mul" in name]


@pytest.fixture(scope="module", params=["llama", "gemma2", "cohere", "mamba"])
def policy(request, tmp_path_factory) -> Policy:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "mamba":
        return load(str(build_rows("mamba", folder)))
    return load(str(build(request.param, TEXT, folder, vocab=300)))


def plain(policy: Policy) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy of every response token from the model's own logits, each answer a row."""
    policy.model.set_attn_implementation("eager")
    found = []
    for prompt, answers in ROWS:
        for ids in answers:
            z = policy.model(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            p = torch.distributions.Categorical(logits=z.float() / policy.temperature)
            found.append(torch.stack([p.log_prob(torch.tensor(ids)), p.entropy()]))
    both = torch.cat(found, 1)
    return both[0], both[1]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_policy_reads_both_at_its_temperature(policy, temperature) -> None:
    """Of every architecture, also one that is read in rows; the gradient of the weights too."""
    policy = load(policy.name)
    policy.temperature = temperature
    found = policy.read(BATCH, "entropy")
    assert torch.equal(found["logp"], policy.logp(BATCH))
    weight = torch.linspace(-1, 1, len(found["entropy"]))
    ours = gradients(policy, (found["logp"] + weight * found["entropy"]).sum())
    logp, entropy = plain(policy)
    assert torch.allclose(found["logp"], logp, atol=bounds.LOGP) and torch.allclose(
        found["entropy"], entropy, atol=bounds.LOGP
    )
    wanted = gradients(policy, (logp + weight * entropy).sum())
    most = max(g.abs().max().item() for g in wanted.values())
    assert most > 1e-2 and all(torch.allclose(ours[n], g, atol=2e-4 * most) for n, g in wanted.items())


def gradients(policy: Policy, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.model.zero_grad(set_to_none=True)
    loss.backward()
    return {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}


def test_all_signals_come_from_one_forward_pass(tmp_path) -> None:
    policy = load(str(build("llama", TEXT, tmp_path, vocab=300)))
    policy.put_value_head()
    policy.logp(BATCH)  # verified
    calls = []
    policy.body.register_forward_hook(lambda *_: calls.append(1))
    names = frozenset({"logp_BT", "logp_B", "entropy_BT", "value_BT", "mask_BT"})
    assert observe(policy, BATCH, names)["entropy_BT"].shape == (5, 4) and calls == [1]
