"""Log-probabilities of given tokens, without ever holding a [tokens, vocabulary] tensor.

The language-model head, the log-softmax and the gather run in chunks; the backward pass computes each chunk's logits
again. Memory is bounded by one chunk, whatever the number of tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

CHUNK_ELEMENTS = 2**23  # logits held at once: 32 MiB in fp32


class _ChunkedLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, scale: float, cap: float | None
    ) -> Tensor:
        rows = chunk_rows(weight.shape[0])
        logp = torch.empty(h.shape[0], dtype=torch.float32, device=h.device)
        norm = torch.empty_like(logp)
        for at in range(0, h.shape[0], rows):
            here = slice(at, at + rows)
            z = _logits(h[here], weight, bias, scale, cap)
            norm[here] = z.logsumexp(-1)
            logp[here] = z.gather(1, target[here, None]).squeeze(1) - norm[here]
        ctx.save_for_backward(h, weight, bias, target, norm)
        ctx.scale, ctx.cap, ctx.rows = scale, cap, rows
        return logp

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, weight, bias, target, norm = ctx.saved_tensors
        dh = torch.empty_like(h)
        dw = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        db = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for at in range(0, h.shape[0], ctx.rows):
            here = slice(at, at + ctx.rows)
            z = _logits(h[here], weight, bias, ctx.scale, ctx.cap)
            slope = 1 - (z / ctx.cap).square() if ctx.cap else None
            dz = z.sub_(norm[here, None]).exp_().mul_(-grad[here, None])
            dz.scatter_add_(1, target[here, None], grad[here, None])
            if slope is not None:
                dz.mul_(slope)
            dz = dz.mul_(ctx.scale).to(h.dtype)
            dh[here] = dz @ weight
            if dw is not None:
                dw.addmm_(dz.t(), h[here])
            if db is not None:
                db += dz.sum(0) / ctx.scale
        return dh, dw, db, None, None, None


def _logits(h: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None) -> Tensor:
    z = linear(h, weight).float()
    if scale != 1.0:
        z = z * scale
    if bias is not None:
        z = z + bias
    return cap * torch.tanh(z / cap) if cap else z


def chunk_rows(vocabulary: int) -> int:
    """How many tokens are scored at once for a vocabulary of this size.

    >>> chunk_rows(8192), chunk_rows(32768), chunk_rows(2**30)
    (1024, 256, 1)
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
