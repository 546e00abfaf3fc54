"""Attention over trees, for any Hugging Face model that goes through transformers' attention interface.

One attention function is registered under the name `tree`. It reads the plan of the batch in hand. On a CPU it calls
the fused kernel twice per tree, once for the prompt and once for its branches, and writes into one output; a tree of a
few hundred tokens fits the processor's cache, where a dense mask over the packed row would waste quadratic work. On a
GPU one FlexAttention call reads the same plan as a block mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from truing.data.batch import Tree
from truing.errors import UserError

NAME = "tree"
JOINT = 2
"""Branches that are read in one call with a mask; more than this are read one by one."""


@dataclass(frozen=True)
class Call:
    """One call of the kernel: these queries see these keys, all earlier ones (`mask` None) or as an additive mask says.
    Slices are places in the packed row."""

    queries: slice
    keys: tuple[slice, ...]
    mask: Tensor | None


@dataclass(frozen=True)
class Segment:
    """One tree of the plan: where it starts in the row, and the lengths of its prompt and of each branch, in tokens."""

    start: int
    prompt: int
    branches: tuple[int, ...]

    @cached_property
    def tokens(self) -> int:
        """Tokens of the tree."""
        return self.prompt + sum(self.branches)

    @cached_property
    def positions(self) -> Tensor:
        """The position of each token: every branch goes on where the prompt ended."""
        return torch.cat([torch.arange(self.prompt)] + [self.prompt + torch.arange(n) for n in self.branches])

    @cached_property
    def owners(self) -> Tensor:
        """The branch that each token belongs to, from 1; the prompt's tokens have 0."""
        lengths = torch.tensor([self.prompt, *self.branches])
        return torch.repeat_interleave(torch.arange(len(lengths)), lengths)

    def sees(self, window: int | None = None) -> Tensor:
        """[t, t] mask of what each token may attend to: its prompt and its own branch, up to itself.

        `window` is the number of latest positions a sliding-window layer sees, counted in positions and not in
        places of the row, since a branch stands behind its siblings.
        """
        owner, position = self.owners, self.positions
        mask = (owner[None] == 0) | (owner[:, None] == owner[None])
        mask = mask.tril()
        return mask if window is None else mask & (position[:, None] - position[None] < window)

    def calls(self, window: int | None) -> Iterator[tuple[slice, tuple[slice, ...], Tensor | None]]:
        """Queries, keys and what they see, in calls that compute little of what is masked away."""
        window = None if window is None or window >= self.tokens else window
        row = slice(self.start, self.start + self.tokens)
        if len(self.branches) <= 1:
            yield row, (row,), None if window is None else self.sees(window)
            return
        sees = self.sees(window)
        prompt = slice(self.start, self.start + self.prompt)
        if self.prompt:
            yield prompt, (prompt,), None if window is None else sees[: self.prompt, : self.prompt]
        if len(self.branches) <= JOINT:
            yield slice(prompt.stop, row.stop), (row,), sees[self.prompt :]
            return
        for at, length in zip(accumulate(self.branches, initial=self.prompt), self.branches, strict=False):
            branch = slice(self.start + at, self.start + at + length)
            yield (
                branch,
                (prompt, branch),
                torch.cat([sees[at : at + length, : self.prompt], sees[at : at + length, at : at + length]], 1),
            )


class Reading(Protocol):
    """The attention in force while a model reads, and the places whose hidden states are read in the end."""

    read: Tensor | None
    tokens: int

    def attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window: int | None,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """Attention of one layer. query [1, H, N, D], key and value [1, H_kv, N, D] -> [1, N, H, D]."""


class Plan:
    """The division of the packed row into trees, with the masks made once and used by every layer. `read` names the
    places whose hidden states are read in the end; None means all."""

    def __init__(self, trees: tuple[Tree, ...], read: Tensor | None = None) -> None:
        self.read, self.tokens = read, sum(t.tokens for t in trees)
        starts = accumulate((t.tokens for t in trees), initial=0)
        self.segments = [
            Segment(start, len(t.prompt), tuple(len(b.ids) for b in t.branches))
            for start, t in zip(starts, trees, strict=False)
        ]
        self._calls: dict[tuple[int | None, torch.dtype], list[Call]] = {}
        self._block_masks: dict[int | None, Any] = {}

    def calls(self, window: int | None, dtype: torch.dtype) -> list[Call]:
        """The kernel calls of layers with this window, in this precision."""
        if (window, dtype) not in self._calls:
            self._calls[window, dtype] = [
                Call(queries, keys, None if sees is None else additive(sees, dtype))
                for segment in self.segments
                for queries, keys, sees in segment.calls(window)
            ]
        return self._calls[window, dtype]

    def attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window: int | None,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """Every token attends to its prompt and its own branch."""
        if query.is_cuda:
            return _flex(query, key, value, self, window, scale, softcap)
        calls = self.calls(window, query.dtype)
        if softcap is None and query.shape[-1] == value.shape[-1]:
            out: Tensor = _TreeAttention.apply(query, key, value, calls, scale)
            return out
        return _composed(query, key, value, calls, scale, softcap)

    def rule(self, window: int | None, device: torch.device) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """The same as a FlexAttention mask function of places in the packed row."""
        tree = torch.cat([torch.full((s.tokens,), i) for i, s in enumerate(self.segments)]).to(device)
        owner = torch.cat([s.owners for s in self.segments]).to(device)
        position = torch.cat([s.positions for s in self.segments]).to(device)

        def sees(_: Tensor, __: Tensor, q: Tensor, k: Tensor) -> Tensor:
            same_branch = (owner[k] == 0) | (owner[k] == owner[q])
            visible = (tree[q] == tree[k]) & same_branch & (k <= q)
            return visible if window is None else visible & (position[q] - position[k] < window)

        return sees

    def block_mask(self, window: int | None, device: torch.device) -> Any:
        """`rule` as FlexAttention's block mask."""
        if window not in self._block_masks:
            from torch.nn.attention.flex_attention import create_block_mask

            n, rule = self.tokens, self.rule(window, device)
            self._block_masks[window] = create_block_mask(rule, None, None, n, n, device=device)
        return self._block_masks[window]


def additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as numbers to add to the scores."""
    return torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, float("-inf"))


_PLAN: ContextVar[Reading | None] = ContextVar("plan", default=None)


@contextmanager
def attending(plan: Reading | None) -> Iterator[None]:
    """Within this block, models with tree attention attend by `plan`."""
    token = _PLAN.set(plan)
    try:
        yield
    finally:
        _PLAN.reset(token)


def current() -> Reading | None:
    """The plan in force."""
    return _PLAN.get()


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
    if torch.is_autocast_enabled(query.device.type):  # rotation leaves queries and keys in fp32, and values not
        query, key, value = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return plan.attend(module, query, key, value, sliding_window, scale, softcap), None


class _TreeAttention(torch.autograd.Function):
    """The fused CPU kernel, call by call, into one output. Heads that share keys read them without a copy."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: list[Call], scale: float) -> Tensor:
        q, k, v = _grouped(query, key, value)
        out = query.new_empty(query.shape[0], query.shape[2], query.shape[1], query.shape[3])
        o, norms = out[0].transpose(0, 1).unflatten(0, q.shape[:2]), []
        for c in calls:
            o[:, :, c.queries], norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q[:, :, c.queries], _at(k, c), _at(v, c), 0.0, c.mask is None, attn_mask=c.mask, scale=scale
            )
            norms.append(norm)
        ctx.save_for_backward(query, key, value, out, *norms)
        ctx.calls, ctx.scale = calls, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *norms = ctx.saved_tensors
        q, k, v = _grouped(query, key, value)
        o, g = (x[0].transpose(0, 1).unflatten(0, q.shape[:2]) for x in (out, grad))
        dq, dk, dv = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        dq_grouped = dq[0].unflatten(0, q.shape[:2])
        for c, norm in zip(ctx.calls, norms, strict=True):
            a, b, d = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                g[:, :, c.queries],
                q[:, :, c.queries],
                _at(k, c),
                _at(v, c),
                o[:, :, c.queries],
                norm,
                0.0,
                c.mask is None,
                attn_mask=c.mask,
                scale=ctx.scale,
            )
            dq_grouped[:, :, c.queries] = a
            at = 0
            for keys in c.keys:
                length = keys.stop - keys.start
                dk[0, :, keys] += b[:, :, at : at + length].sum(1)
                dv[0, :, keys] += d[:, :, at : at + length].sum(1)
                at += length
        return dq, dk, dv, None, None


def _grouped(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[H_kv, H / H_kv, N, D] views of all three; keys and values are shared within a group."""
    shape = (key.shape[1], query.shape[1] // key.shape[1])
    q = query[0].unflatten(0, shape)
    return q, key[0, :, None].expand(*shape, -1, -1), value[0, :, None].expand(*shape, -1, -1)


def _at(x: Tensor, call: Call) -> Tensor:
    parts = [x[:, :, keys] for keys in call.keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _composed(
    query: Tensor, key: Tensor, value: Tensor, calls: list[Call], scale: float, softcap: float | None
) -> Tensor:
    """The same from plain operations, for what the kernel does not know (soft-caps)."""
    q, k, v = _grouped(query, key, value)
    parts = []
    for c in calls:
        scores = q[:, :, c.queries] @ _at(k, c).transpose(2, 3) * scale
        scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
        n = scores.shape[-1]
        mask = c.mask if c.mask is not None else additive(torch.ones(n, n, dtype=torch.bool).tril(), scores.dtype)
        weights = (scores + mask.to(scores.device)).softmax(-1, dtype=torch.float32).to(scores.dtype)
        parts.append((weights @ _at(v, c)).flatten(0, 1))
    return torch.cat(parts, 1).transpose(0, 1)[None]


def _flex(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, window: int | None, scale: float, softcap: float | None
) -> Tensor:
    """One FlexAttention call over the packed row."""
    cap = softcap or 1.0

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    out: Tensor = _compiled()(
        query,
        key,
        value,
        score_mod=capped if softcap is not None else None,
        block_mask=plan.block_mask(window, query.device),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2)


@cache
def _compiled() -> Any:
    """FlexAttention is only fast compiled; sizes change from batch to batch."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)
