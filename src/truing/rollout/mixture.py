"""Responses of a policy and its reference together: both write the same rows in step, and each token is drawn from the
geometric mixture of what they say (IPO-MD)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from truing.policy.policy import Policy
from truing.rollout.rows import Rows


@dataclass(frozen=True)
class Mixture:
    """A policy to mix with, and its share b: at every token pi^(1 - b) other^b, normalised over the vocabulary
    (Calandriello et al. 2024, arXiv 2403.08635). It reads the same tokens."""

    other: Policy
    share: float


class Lockstep:
    """The same rows as two models write them, whose logits are mixed. Both keep their rows in the same way, and so in
    the same order."""

    def __init__(self, policy: Rows, other: Rows, share: float) -> None:
        self.policy, self.other, self.share = policy, other, share

    def logits(self) -> Tensor:
        """Logits of the mixture for every row's next token, [rows, vocabulary], fp32."""
        return torch.lerp(self.policy.logits().float(), self.other.logits().float(), self.share)

    def go_on(self, token: Tensor, keep: list[int]) -> list[int]:
        """Write a token to each row of both, and keep only these rows; returns the order in which they now stand."""
        self.other.go_on(token, keep)
        return self.policy.go_on(token, keep)
