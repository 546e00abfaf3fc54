"""Log-probabilities of given tokens, without ever holding a [tokens, vocabulary] tensor.

The language-model head, the log-softmax and the gather run in chunks. The backward pass uses the logits of the first
chunks, as many as fit a fixed amount of memory, and computes those of the others again. So memory is bounded whatever
the number of tokens and the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

CHUNK_ELEMENTS = 2**22  # logits computed at once: 16 MiB in fp32
KEPT_ELEMENTS = 2**24  # logits kept for the backward pass: 64 MiB in fp32


class _ChunkedLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, scale: float, cap: float | None
    ) -> Tensor:
        rows = chunk_rows(weight.shape[0])
        logp = torch.empty(h.shape[0], dtype=torch.promote_types(h.dtype, torch.float32), device=h.device)
        norm, kept = torch.empty_like(logp), []
        room = KEPT_ELEMENTS // weight.shape[0] if any(ctx.needs_input_grad[:3]) else 0
        for at in range(0, h.shape[0], rows):
            here = slice(at, at + rows)
            z = _logits(h[here], weight, bias, scale, cap)
            norm[here] = z.logsumexp(-1)
            logp[here] = z.gather(1, target[here, None]).squeeze(1) - norm[here]
            if at + rows <= room:
                kept.append(z)
        ctx.save_for_backward(h, weight, bias, target, norm, *kept)
        ctx.scale, ctx.cap, ctx.rows = scale, cap, rows
        return logp

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, bias, target, norm, *kept = ctx.saved_tensors
        dh = torch.empty_like(h)
        exact = torch.promote_types(weight.dtype, torch.float32)  # summed over many chunks, even if returned in bf16
        dw = torch.zeros_like(weight, dtype=exact) if ctx.needs_input_grad[1] else None
        db = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for number, at in enumerate(range(0, h.shape[0], ctx.rows)):
            here = slice(at, at + ctx.rows)
            z = kept[number] if number < len(kept) else _logits(h[here], weight, bias, ctx.scale, ctx.cap)
            slope = 1 - (z / ctx.cap).square() if ctx.cap else None
            dz = (z - norm[here, None]).exp_().mul_(-grad[here, None])
            dz.scatter_add_(1, target[here, None], grad[here, None])
            if slope is not None:
                dz.mul_(slope)
            dz = dz.mul_(ctx.scale).to(h.dtype)
            dh[here] = dz @ weight
            if dw is not None:
                if dw.dtype == h.dtype:
                    dw.addmm_(dz.t(), h[here])  # in place: no second tensor of the head's size
                else:
                    dw += dz.t() @ h[here]
            if db is not None:
                db += dz.sum(0) / ctx.scale
        return dh, None if dw is None else dw.to(weight.dtype), db, None, None, None


def _logits(h: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None) -> Tensor:
    z = linear(h, weight)
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    if scale != 1.0:
        z = z * scale
    if bias is not None:
        z = z + bias
    return cap * torch.tanh(z / cap) if cap else z


def chunk_rows(vocabulary: int) -> int:
    """How many tokens are scored at once for a vocabulary of this size.

    >>> chunk_rows(8192), chunk_rows(32768), chunk_rows(2**30)
    (512, 128, 1)
    """
    return max(1, CHUNK_ELEMENTS // vocabulary)


def token_logp(
    h_RH: Tensor,
    weight_VH: Tensor,
    target_R: Tensor,
    bias_V: Tensor | None = None,
    *,
    scale: float = 1.0,
    cap: float | None = None,
) -> Tensor:
    """log softmax(cap * tanh(scale * (h W^T) + bias) / cap))[target] in nats, fp32, shape [R].

    `scale` multiplies the logits (Cohere, Granite), `cap` soft-caps them (Gemma 2); both as the model's config says.

    >>> h, w = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    >>> round(token_logp(h, w, torch.tensor([1])).item(), 4)      # two equal logits
    -0.6931
    """
    out: Tensor = _ChunkedLogp.apply(h_RH, weight_VH, bias_V, target_R, scale, cap)
    return out
