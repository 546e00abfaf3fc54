"""The difference allowed between two right readings of the same tokens by the same weights: one rule for every
comparison.

Trees are compared with rows, the sampler with the trainer, a policy with its reference before the first update. None of
these pairs is equal to the last bit, since sums are taken in another order. What is allowed follows from the precision,
the depth and the logits of the model, and a difference beyond it is a fault.

A decoder of L layers adds to its residual stream 2 L times and then normalises it. Each of these roundings moves the
stream by about u of its length (u: the unit roundoff) in a direction of its own, so together they move the last hidden
state by rho = u sqrt(2 L + 1) of its length. A hidden state moved by rho in a random direction moves a logit by rho
times the *spread* of the logits, their standard deviation over the vocabulary (|h| |w| / sqrt(H)). The log-softmax is
taken in fp32 or more and rounds its result once. So a token's log-probability has the rounding

    sigma = u sqrt(2 L + 1) spread + u_softmax |logp|        nats, root mean square

Measured over fourteen small architectures with logits of usual and of eight times the usual size, and on SmolLM2-135M,
two readings are 0.5 to 6 sigma apart in fp32, and a model's own bf16 reading is 0.05 to 1.4 sigma from its fp32 one: a
stream has a few large coordinates, which the estimate does not know.

`SAFETY` sigma are allowed in fp32, where a fault (a wrong mask, position or head) is thousands of them. In bf16 it
would be of the size of a fault. There the model's own rounding is *measured* (its rows in bf16 against its rows in
fp32; of few tokens, no less than a quarter of sigma), four times that is allowed, and a structure is judged in fp32.

The rounding of a sum over n tokens grows with sqrt(n) where tokens round independently, and with n where they do not
(in bf16 between the two). So tokens are compared and not sums, and what can only be had as a sum is allowed sqrt(n).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SAFETY = 16.0
"""Multiple of the estimated rounding by which two right readings may differ, root mean square over tokens."""
MEASURED_SAFETY = 4.0
"""Multiple of the measured rounding by which they may differ: sqrt(2) for two readings, and the error of the
measure."""
TAIL = 8.0
"""Multiple of the allowed root mean square by which a single token may be off."""


def unit(dtype: torch.dtype) -> float:
    """The unit roundoff: half the distance from 1 to the next larger number.

    >>> unit(torch.bfloat16) == 2**-8, unit(torch.float32) == 2**-24
    (True, True)
    """
    return torch.finfo(dtype).eps / 2


@dataclass(frozen=True)
class Rounding:
    """The causes of rounding in a model's readings: its `layers`, the `spread` of its logits and the `size` of
    its log-probabilities (nats; of a reward model the spread and the size of its scores), and in low precision what was
    `measured` of its own rows against fp32."""

    layers: int
    spread: float
    size: float
    measured: float = 0.0

    def expected(self, dtype: torch.dtype) -> float:
        """The estimated rounding of a token's log-probability, root mean square.

        >>> f"{Rounding(30, spread=3.7, size=3.0).expected(torch.float32):.1e}"
        '1.9e-06'
        """
        depth = math.sqrt(2 * self.layers + 1)
        softmax = torch.promote_types(dtype, torch.float32)
        return unit(dtype) * depth * self.spread + unit(softmax) * self.size

    def allowed(self, dtype: torch.dtype) -> float:
        """The difference allowed between two right readings, root mean square over tokens.

        >>> smollm = Rounding(30, spread=3.7, size=3.0, measured=0.048)
        >>> round(smollm.allowed(torch.bfloat16), 2), f"{smollm.allowed(torch.float32):.1e}"
        (0.19, '3.0e-05')
        """
        if unit(dtype) <= unit(torch.float32):
            return SAFETY * self.expected(dtype)
        return MEASURED_SAFETY * max(self.measured, self.expected(dtype) / 4)


@dataclass(frozen=True)
class Gap:
    """The difference of two readings of the same tokens: root mean square and largest; 0 of no tokens."""

    rms: float
    largest: float

    @classmethod
    def between(cls, first: Tensor, second: Tensor) -> Gap:
        """The gap of two readings of any shape; not a number where one of them is not.

        >>> Gap.between(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0]))
        Gap(rms=2.1213203435596424, largest=3.0)
        """
        apart = (first.detach().double() - second.detach().double().to(first.device)).abs().flatten()
        if not apart.numel():
            return cls(0.0, 0.0)
        return cls(apart.square().mean().sqrt().item(), apart.max().item())

    def within(self, allowed: float) -> bool:
        """Return whether rounding can explain it, with `allowed` as the root mean square."""
        return self.rms <= allowed and self.largest <= TAIL * allowed
