"""Drawing tokens: from logits to a token and its log-probability under the distribution it was drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from truing.errors import UserError
from truing.records import Sampling
from truing.streams import Stream, generator

BLOCK = 128
"""Tokens whose probabilities are summed together first: a running sum over the whole vocabulary is several times slower
than everything else that drawing does."""


def check_sampling(sampling: Sampling) -> None:
    """UserError for options that say no distribution."""
    if sampling.temperature < 0 or sampling.max_new_tokens < 1:
        raise UserError("temperature must be 0 or more, and max_new_tokens 1 or more")
    if not 0 < sampling.top_p <= 1 or (sampling.top_k is not None and sampling.top_k < 1):
        raise UserError("top_p must be above 0 and at most 1, and top_k 1 or more")
    if "" in sampling.stop_strings:
        raise UserError("a stop string must have at least one character")


def check_ratio(sampling: Sampling, temperature: float = 1.0) -> None:
    """UserError where the log-probabilities of responses sampled in this way cannot enter the ratio of a trainer that
    reads its policy at `temperature`."""
    named = {"top_p": sampling.top_p if sampling.top_p != 1 else None, "top_k": sampling.top_k}
    options = " and ".join(f"{name} {value:g}" for name, value in named.items() if value is not None)
    if options:
        raise UserError(
            f"sampling with {options} cuts tokens off: the log-probabilities are those of another distribution than "
            "the trainer's, and cannot enter a ratio.\n  Leave it out, and lower the temperature on both sides instead."
        )
    if sampling.temperature != temperature or not sampling.enters_ratio:
        raise UserError(
            f"responses are sampled at temperature {sampling.temperature:g} and the trainer reads its policy at "
            f"{temperature:g}: their log-probabilities cannot enter one ratio.\n  Give both the same, above 0."
        )


def uniforms(sampling: Sampling, prompt: int, response: int) -> NDArray[np.float64]:
    """The numbers in [0, 1) that decide a response, one for each token: a function of seed, prompt and response
    alone."""
    return generator(Stream.RESPONSE, sampling.seed, prompt, response).random(sampling.max_new_tokens)


def draw(logits_BV: Tensor, sampling: Sampling, uniform_B: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """A token for each row, where its uniform number stands in the running sum of probabilities, and its
    log-probability, fp32.

    >>> draw(torch.tensor([[0.0, 1.0, 0.0]]).log(), Sampling(), np.array([0.3]))[0].tolist()
    [1]
    """
    if sampling.temperature == 0:
        token = logits_BV.argmax(-1)
        return token, logits_BV.gather(1, token[:, None]).squeeze(1) - logits_BV.logsumexp(-1)
    z = logits_BV if sampling.temperature == 1 else logits_BV / sampling.temperature
    z = z if sampling.top_p == 1 and sampling.top_k is None else cut(z, sampling)
    most = z.amax(-1, keepdim=True)
    weight_BV = (z - most).exp_()
    summed = _by_block(weight_BV).sum(-1).double().cumsum(-1)  # [B, blocks]
    total = summed[:, -1:]
    at = torch.from_numpy(uniform_B).to(z.device)[:, None] * total
    block = _where(summed, at)
    before = torch.where(block > 0, summed.gather(1, (block - 1).clamp(min=0)), 0.0)
    inner = _by_block(weight_BV)[torch.arange(len(z), device=z.device), block[:, 0]].double().cumsum(-1)
    token = block * BLOCK + _where(inner, torch.minimum(at - before, inner[:, -1:] * (1 - 1e-12)))
    token = token.clamp(max=z.shape[1] - 1)  # no place at all where logits are no numbers; the caller finds out
    return token[:, 0], (z.gather(1, token) - most - total.log()).squeeze(1).float()


def _by_block(weight_BV: Tensor) -> Tensor:
    short = -weight_BV.shape[1] % BLOCK
    out: Tensor = torch.nn.functional.pad(weight_BV, (0, short)).unflatten(1, (-1, BLOCK))
    return out


def _where(summed: Tensor, at: Tensor) -> Tensor:
    """The first place whose running sum is above `at`."""
    return torch.searchsorted(summed, at, right=True).clamp(max=summed.shape[1] - 1)


def cut(z_BV: Tensor, sampling: Sampling) -> Tensor:
    """Logits with those of tokens that are not sampled from set to minus infinity: all but the `top_k` largest, and of
    these all but the fewest whose probabilities reach `top_p`.

    >>> cut(torch.tensor([[0.5, 0.2, 0.3]]).log(), Sampling(top_p=0.6)).isfinite().tolist()
    [[True, False, True]]
    """
    top_k = min(sampling.top_k or z_BV.shape[1], z_BV.shape[1])
    sorted_z, token = z_BV.topk(top_k, -1)
    p = sorted_z.softmax(-1, dtype=torch.float64)
    allowed = p.cumsum(-1) - p < sampling.top_p
    return torch.full_like(z_BV, -torch.inf).scatter_(1, token, sorted_z.masked_fill(~allowed, -torch.inf))


def has_stop(tokenizer: Any, ids: Sequence[int], stop_strings: Sequence[str]) -> bool:
    """True if the text of these tokens has one of the strings near its end, where the last token may have put it."""
    if not stop_strings:
        return False
    tail = max(len(text.encode()) for text in stop_strings) + 8  # every token has a byte; and some room for odd ones
    text = tokenizer.decode(ids[-tail:], skip_special_tokens=False)
    return any(stop in text for stop in stop_strings)
