"""Drawing: which token a number takes, its log-probability, what top-k and top-p leave, what may enter a ratio."""

import numpy as np
import pytest
import torch

from truing.errors import UserError
from truing.records import Sampling
from truing.rollout.sample import BLOCK, check_ratio, check_sampling, cut, draw, has_stop, uniforms


def logits(rows: int, tokens: int) -> torch.Tensor:
    return torch.randn(rows, tokens, generator=torch.Generator().manual_seed(tokens)) * 3


@pytest.mark.parametrize("tokens", [1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 1000, 4 * BLOCK])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_token_is_where_its_number_stands_in_the_running_sum(tokens, temperature) -> None:
    z, u = logits(300, tokens), uniforms(Sampling(300), 0, 0)
    token, logp = draw(z, Sampling(temperature=temperature), u)
    wanted = (z.double() / temperature).log_softmax(-1)
    summed = wanted.exp().cumsum(-1)
    after, before = (torch.cat([torch.zeros(300, 1), summed], 1).gather(1, token[:, None] + i)[:, 0] for i in (1, 0))
    assert ((before - 1e-6 <= torch.from_numpy(u)) & (torch.from_numpy(u) <= after + 1e-6)).all()
    assert torch.allclose(logp.double(), wanted.gather(1, token[:, None])[:, 0], atol=2e-6)


def test_a_token_without_probability_is_never_drawn() -> None:
    z = logits(4, 3 * BLOCK + 7)
    z[:, ::2] = -torch.inf
    z[0, : 2 * BLOCK] = -torch.inf
    z[1, BLOCK:] = -torch.inf
    for u in (0.0, 1e-300, 0.5, 1 - 2**-53):
        token, logp = draw(z, Sampling(), np.full(4, u))
        assert z.gather(1, token[:, None]).isfinite().all() and logp.isfinite().all()


def test_temperature_0_takes_the_likeliest_and_keeps_the_models_own_log_probability() -> None:
    z = logits(5, 50)
    token, logp = draw(z, Sampling(temperature=0.0), np.zeros(5))
    assert torch.equal(token, z.argmax(-1))
    assert torch.allclose(logp, z.log_softmax(-1).amax(-1))


def by_hand(z: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution by its definition, one token at a time."""
    p = (z.double() / sampling.temperature).softmax(-1)
    out = torch.zeros_like(p)
    for row, kept in zip(p, out, strict=True):
        order = row.argsort(descending=True).tolist()[: sampling.top_k]
        total, mass = row[order].sum(), 0.0
        for token in order:
            kept[token], mass = row[token], mass + row[token] / total
            if mass >= sampling.top_p:
                break
    return out / out.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_k=1),
        Sampling(top_k=7),
        Sampling(top_k=10_000),
        Sampling(top_p=0.9),
        Sampling(top_p=1e-9),
        Sampling(temperature=2.0, top_k=20, top_p=0.5),
    ],
)
def test_log_probabilities_are_those_of_what_is_left(sampling) -> None:
    z = logits(200, 150)
    token, logp = draw(z, sampling, uniforms(Sampling(200), 1, 0))
    p = by_hand(z, sampling)
    assert torch.allclose(p.log().gather(1, token[:, None])[:, 0], logp.double(), atol=1e-5)
    assert torch.equal(cut(z / sampling.temperature, sampling).isfinite(), p > 0)
    assert len(token.unique()) > 1


def test_frequencies_are_those_of_what_is_left() -> None:
    sampling, n = Sampling(top_k=6, top_p=0.8, temperature=1.5), 20_000
    z = logits(1, 40)
    token, _ = draw(z.expand(n, -1), sampling, uniforms(Sampling(n), 2, 3))
    share = torch.bincount(token, minlength=40) / n
    assert (share - by_hand(z, sampling)[0]).abs().max() < 4 * (0.25 / n) ** 0.5


def test_what_may_enter_a_ratio() -> None:
    check_ratio(Sampling())
    check_ratio(Sampling(temperature=0.7), temperature=0.7)
    with pytest.raises(UserError, match=r"top_p 0.9 and top_k 5 cuts tokens off: .* cannot enter a ratio"):
        check_ratio(Sampling(top_p=0.9, top_k=5))
    with pytest.raises(UserError, match=r"sampled at temperature 0.7 and the trainer reads its policy at 1"):
        check_ratio(Sampling(temperature=0.7))
    with pytest.raises(UserError, match="sampled at temperature 0 and"):
        check_ratio(Sampling(temperature=0.0), temperature=0.0)


@pytest.mark.parametrize(
    ("sampling", "told"),
    [
        (Sampling(temperature=-1), "temperature must be 0 or more"),
        (Sampling(max_new_tokens=0), "max_new_tokens 1 or more"),
        (Sampling(top_p=0), "top_p must be above 0"),
        (Sampling(top_p=1.1), "at most 1"),
        (Sampling(top_k=0), "top_k 1 or more"),
        (Sampling(stop_strings=("a", "")), "a stop string must have at least one character"),
    ],
)
def test_options_that_say_no_distribution(sampling, told) -> None:
    with pytest.raises(UserError, match=told):
        check_sampling(sampling)


def test_a_stop_string_is_found_over_the_borders_of_tokens(policy) -> None:
    ids = policy.tokenizer("a refund is due, the desk says so " * 9, add_special_tokens=False).input_ids
    ends = [t for t in range(1, len(ids) + 1) if "due, the d" in policy.tokenizer.decode(ids[:t])]
    assert len(policy.tokenizer("due, the d", add_special_tokens=False).input_ids) > 1
    assert (
        next(t for t in range(1, len(ids) + 1) if has_stop(policy.tokenizer, ids[:t], ["never", "due, the d"]))
        == ends[0]
    )
    assert not has_stop(policy.tokenizer, ids, ["never"]) and not has_stop(policy.tokenizer, ids, [])
