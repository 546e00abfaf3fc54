"""Attention over trees on tensors alone: every layout of calls against one dense mask, values and gradients."""

import pytest
import torch
from torch import Tensor

import bounds
from truing.data.batch import Branch, Tree
from truing.policy import trees
from truing.policy.trees import Plan, attending, tree_attention

LENGTHS = [(5, (3, 4)), (7, (6,)), (4, (2, 3, 1, 5, 2)), (0, (6,)), (9, ()), (1, (1, 1))]


def planted(lengths=LENGTHS) -> Plan:
    def branch(n: int) -> Branch:
        return Branch("response", (1,) * n, (True,) * n)

    return Plan(tuple(Tree((1,) * p, tuple(branch(n) for n in b), i, i) for i, (p, b) in enumerate(lengths)))


def dense(plan: Plan, window: int | None) -> Tensor:
    """[N, N] by the definition: same tree, the prompt or the own branch, not later, within the window."""
    places = []
    for t, s in enumerate(plan.segments):
        places += [(t, 0, i) for i in range(s.prompt)]
        places += [(t, k, s.prompt + i) for k, n in enumerate(s.branches, 1) for i in range(n)]
    out = torch.zeros(len(places), len(places), dtype=torch.bool)
    for q, (tq, bq, pq) in enumerate(places):
        for k, (tk, bk, pk) in enumerate(places):
            out[q, k] = tq == tk and bk in (0, bq) and pk <= pq and (window is None or pq - pk < window)
    return out


def inputs(n: int, heads: int, shared: int, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, n, heads, 16, generator=generator, dtype=dtype).transpose(1, 2)
    k, v = (torch.randn(1, shared, n, 16, generator=generator, dtype=dtype) for _ in range(2))
    return [x.requires_grad_() for x in (q, k, v)]


def plain(q: Tensor, k: Tensor, v: Tensor, sees: Tensor, cap: float | None) -> Tensor:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * 0.3
    scores = cap * torch.tanh(scores / cap) if cap else scores
    return (scores.masked_fill(~sees, float("-inf")).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (4, 2), (3, 1)])
def test_values_and_gradients_are_those_of_a_dense_mask(heads, shared, window, cap) -> None:
    plan = planted()
    sees = dense(plan, window)
    given = inputs(len(sees), heads, shared)
    with attending(plan):
        got, _ = tree_attention(torch.nn.Module(), *given, None, scaling=0.3, sliding_window=window, softcap=cap)
    wanted = plain(*given, sees, cap)
    dtype = torch.float32 if cap else torch.float64  # a capped softmax is fp32's
    assert (got - wanted).abs().max() <= bounds.summed(dtype, 16 + len(sees), wanted.abs().max().item())
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=got.dtype)
    theirs = torch.autograd.grad((wanted * weight).sum(), given)
    for one, two in zip(torch.autograd.grad((got * weight).sum(), given), theirs, strict=True):
        assert (one - two).abs().max() <= bounds.summed(dtype, 16 + len(sees), two.abs().max().item())


@pytest.mark.parametrize("window", [None, 3, 100])
def test_the_gpu_rule_is_the_same_mask(window) -> None:
    plan = planted()
    n = sum(s.tokens for s in plan.segments)
    at = torch.arange(n)
    rule = plan.rule(window, torch.device("cpu"))
    assert torch.equal(rule(at, at, at[:, None], at[None, :]), dense(plan, window))
    block = plan.block_mask(window, torch.device("cpu"))
    assert block.shape[-2:] == (n, n) and plan.block_mask(window, torch.device("cpu")) is block


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 3])
def test_flex_attention_reads_the_plan(window, cap, monkeypatch) -> None:
    """The call that a GPU makes, uncompiled (a CPU has its forward only), against the dense mask."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(trees, "_compiled", lambda: flex_attention)
    plan = planted()
    sees = dense(plan, window)
    q, k, v = (x.detach() for x in inputs(len(sees), 4, 2, torch.float32))
    got = trees._flex(q, k, v, plan, window, 0.3, cap)
    assert torch.allclose(got, plain(q, k, v, sees, cap), atol=1e-5)


def test_little_that_is_masked_away_is_computed() -> None:
    """Scores computed for a prompt of 200 and eight answers of 64: less than half of the whole square."""
    [segment] = planted([(200, (64,) * 8)]).segments
    sizes = [
        (c.queries.stop - c.queries.start) * sum(k.stop - k.start for k in c.keys)
        for c in planted([(200, (64,) * 8)]).calls(None, torch.float32)
    ]
    assert sum(sizes) == 200 * 200 + 8 * 64 * 264 < 0.5 * segment.tokens**2


def test_outside_of_a_plan() -> None:
    with pytest.raises(RuntimeError, match="outside of `attending"):
        tree_attention(torch.nn.Module(), *inputs(4, 2, 2), None)
