"""Attention over trees, for any Hugging Face model that goes through transformers' attention interface.

One attention function is registered under the name `tree`. It reads the plan of the batch in hand and calls the fused
kernel once per tree, with a small mask that lets a branch see its prompt and itself and nothing else. A tree of a few
hundred tokens fits the processor's cache; a dense mask over the packed row would waste quadratic work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from truing.data.batch import Tree
from truing.errors import UserError

NAME = "tree"


@dataclass(frozen=True)
class Segment:
    """One tree of the plan: the length of its prompt and of each branch, in tokens."""

    prompt: int
    branches: tuple[int, ...]

    @cached_property
    def tokens(self) -> int:
        """Tokens of the tree."""
        return self.prompt + sum(self.branches)

    def sees(self, window: int | None, device: torch.device) -> Tensor | None:
        """[t, t] mask of what each token may attend to, or None where plain causal attention says the same.

        `window` is the number of latest positions a sliding-window layer sees, counted in positions and not in
        places of the row, since a branch stands behind its siblings.
        """
        plain = len(self.branches) <= 1
        if plain and (window is None or window >= self.tokens):
            return None
        mask = torch.ones(self.tokens, self.tokens, dtype=torch.bool, device=device).tril()
        at = self.prompt
        for length in self.branches:
            mask[at + length :, at : at + length] = False
            at += length
        if window is not None and window < self.tokens:
            position = torch.cat([torch.arange(self.prompt)] + [self.prompt + torch.arange(n) for n in self.branches])
            position = position.to(device)
            mask &= position[:, None] - position[None, :] < window
        return mask


class Plan:
    """How the packed row divides into trees, with the masks made once and used by every layer."""

    def __init__(self, trees: tuple[Tree, ...]) -> None:
        self.segments = [Segment(len(t.prompt), tuple(len(b.ids) for b in t.branches)) for t in trees]
        self._masks: dict[tuple[int | None, torch.device], list[Tensor | None]] = {}

    def masks(self, window: int | None, device: torch.device) -> list[Tensor | None]:
        """One mask per tree for layers with this window."""
        key = (window, device)
        if key not in self._masks:
            self._masks[key] = [segment.sees(window, device) for segment in self.segments]
        return self._masks[key]


_PLAN: ContextVar[Plan | None] = ContextVar("plan", default=None)


@contextmanager
def attending(plan: Plan) -> Iterator[None]:
    """Within this block, models with tree attention attend by `plan`."""
    token = _PLAN.set(plan)
    try:
        yield
    finally:
        _PLAN.reset(token)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """The registered attention function. query [1, H, N, D], key and value [1, H_kv, N, D] -> [1, N, H, D]."""
    plan = _PLAN.get()
    if plan is None:
        raise RuntimeError("tree attention was called outside of `attending(plan)`")
    if dropout:
        raise UserError("this model trains with attention dropout; set attention_dropout to 0 in its config.json")
    if unused.get("s_aux") is not None or unused.get("position_bias") is not None:
        raise UserError(f"{type(module).__name__} adds sinks or position biases that tree attention cannot honour")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    lengths = [segment.tokens for segment in plan.segments]  # split, not slices: its backward is one concatenation
    pieces = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    masks = plan.masks(sliding_window, query.device)
    parts = [_attend(q, k, v, mask, scale, softcap) for (q, k, v), mask in zip(pieces, masks, strict=True)]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    if softcap is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
    if mask is None:
        mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = torch.tanh(q @ k.transpose(2, 3) * (scale / softcap)) * softcap
    return scores.masked_fill(~mask, float("-inf")).softmax(-1, dtype=torch.float32).to(q.dtype) @ v


AttentionInterface.register(NAME, tree_attention)
