"""Log-probabilities of given tokens, and entropies, without ever holding a [tokens, vocabulary] tensor.

The language-model head, the log-softmax and the gather run in chunks. The backward pass uses the logits of the first
chunks, as many as fit a fixed amount of memory, and computes those of the others again. So memory is bounded whatever
the number of tokens and the vocabulary.

Logits are never rounded to less than fp32: at logits of 16 to 32 a bf16 number has a step of 0.125. A GPU multiplies
hidden states and weights in bf16 and sums in fp32; a CPU has no such product, and multiplies in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

CHUNK_ELEMENTS = 2**22  # logits computed at once: 16 MiB in fp32
KEPT_ELEMENTS = 2**24  # logits kept for the backward pass: 64 MiB in fp32


@dataclass(frozen=True)
class Logits:
    """The form of a head's logits: cap * tanh((scale * (h W^T) + bias) / cap) / temperature. `scale` multiplies them
    (Cohere, Granite), `cap` soft-caps them (Gemma 2), both as the model's config says; the temperature is the
    reader's."""

    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0

    def of(self, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The logits of some tokens, fp32 or more."""
        z = product(h, weight)
        if self.scale != 1.0:
            z = z * self.scale
        if bias is not None:
            z = z + bias
        z = self.cap * torch.tanh(z / self.cap) if self.cap else z
        return z if self.temperature == 1 else z / self.temperature

    def slope(self, z: Tensor) -> Tensor | None:
        """Derivative of the cap at these logits, or None where there is none."""
        if not self.cap:
            return None
        capped = z if self.temperature == 1 else z * self.temperature
        return 1 - (capped / self.cap).square()


def product(h: Tensor, weight: Tensor) -> Tensor:
    """h W^T, summed and returned in fp32 or more.

    >>> h, w = torch.tensor([[1.0, 2**-7]]).bfloat16(), torch.tensor([[16.0, 1.0]])
    >>> product(h, w).item(), (h @ w.bfloat16().t()).item()
    (16.0078125, 16.0)
    """
    exact = torch.promote_types(torch.promote_types(h.dtype, weight.dtype), torch.float32)
    if h.is_cuda and h.dtype == weight.dtype != exact:
        return torch.mm(h, weight.t(), out_dtype=exact)
    return linear(h.to(exact), weight.to(exact))


class _ChunkedLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, logits: Logits, spread: bool
    ) -> tuple[Tensor, Tensor | None]:
        rows = chunk_rows(weight.shape[0])
        logp = torch.empty(h.shape[0], dtype=torch.promote_types(h.dtype, torch.float32), device=h.device)
        norm, saved_logits = torch.empty_like(logp), []
        entropy = torch.empty_like(logp) if spread else None
        room = KEPT_ELEMENTS // weight.shape[0] if any(ctx.needs_input_grad[:3]) else 0
        for at in range(0, h.shape[0], rows):
            here = slice(at, at + rows)
            z = logits.of(h[here], weight, bias)
            norm[here] = z.logsumexp(-1)
            logp[here] = z.gather(1, target[here, None]).squeeze(1) - norm[here]
            if entropy is not None:
                p = (z - norm[here, None]).exp_()
                entropy[here] = norm[here] - p.mul_(z).sum(-1)
            if at + rows <= room:
                saved_logits.append(z)
        ctx.save_for_backward(h, weight, bias, target, norm, entropy, *saved_logits)
        ctx.logits, ctx.rows = logits, rows
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, entropy_grad: Tensor | None) -> tuple[Tensor | None, ...]:
        h, weight, bias, target, norm, entropy, *saved_logits = ctx.saved_tensors
        dh, low = torch.empty_like(h), weight.to(h.dtype)
        exact = torch.promote_types(weight.dtype, torch.float32)  # summed over many chunks, even if returned in bf16
        dw = torch.zeros_like(weight, dtype=exact) if ctx.needs_input_grad[1] else None
        db = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for number, at in enumerate(range(0, h.shape[0], ctx.rows)):
            here = slice(at, at + ctx.rows)
            z = saved_logits[number] if number < len(saved_logits) else ctx.logits.of(h[here], weight, bias)
            slope = ctx.logits.slope(z)
            if entropy is None or entropy_grad is None:
                dz = (z - norm[here, None]).exp_().mul_(-grad[here, None])
            else:  # d entropy / dz = -p (log p + entropy)
                dz = z - norm[here, None]
                pull = (dz + entropy[here, None]).mul_(entropy_grad[here, None]).add_(grad[here, None])
                dz = dz.exp_().mul_(pull).neg_()
            dz.scatter_add_(1, target[here, None], grad[here, None])
            if slope is not None:
                dz.mul_(slope)
            dz = dz.mul_(ctx.logits.scale / ctx.logits.temperature)
            dh[here] = dz.to(h.dtype) @ low
            if dw is not None:
                if dw.dtype == dz.dtype and not h.is_cuda:
                    dw.addmm_(dz.t(), h[here].to(dz.dtype))  # in place: no second tensor of the head's size
                else:
                    dw += dz.to(h.dtype).t() @ h[here]
            if db is not None:
                db += dz.sum(0) / ctx.logits.scale
        return dh, None if dw is None else dw.to(weight.dtype), db, None, None, None


def chunk_rows(vocabulary: int) -> int:
    """Number of tokens that are scored at once for a vocabulary of this size.

    >>> chunk_rows(8192), chunk_rows(32768), chunk_rows(2**30)
    (512, 128, 1)
    """
    return max(1, CHUNK_ELEMENTS // vocabulary)


def token_logp(
    h_RH: Tensor, weight_VH: Tensor, target_R: Tensor, bias_V: Tensor | None = None, logits: Logits = Logits()
) -> Tensor:
    """log softmax(logits)[target] in nats, fp32, shape [R]; `logits` says how the head makes them.

    >>> h, w = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    >>> round(token_logp(h, w, torch.tensor([1])).item(), 4)      # two equal logits
    -0.6931
    """
    out: tuple[Tensor, None] = _ChunkedLogp.apply(h_RH, weight_VH, bias_V, target_R, logits, False)
    return out[0]


def token_logp_and_entropy(
    h_RH: Tensor, weight_VH: Tensor, target_R: Tensor, bias_V: Tensor | None = None, logits: Logits = Logits()
) -> tuple[Tensor, Tensor]:
    """`token_logp`, and the entropy of the whole distribution that each token stands in, nats; both [R], with gradient,
    from one pass over the logits.

    >>> h, w = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    >>> [round(x.item(), 4) for x in token_logp_and_entropy(h, w, torch.tensor([1]))]
    [-0.6931, 0.6931]
    """
    out: tuple[Tensor, Tensor] = _ChunkedLogp.apply(h_RH, weight_VH, bias_V, target_R, logits, True)
    return out
