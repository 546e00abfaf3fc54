"""Signals: from a batch and a policy to exactly what an objective asks for by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from truing.data.batch import Batch
from truing.errors import UserError
from truing.policy.policy import Policy
from truing.policy.reference import Reference


class View:
    """One batch seen by one policy; every quantity is computed when it is first asked for, and once."""

    def __init__(self, policy: Policy, batch: Batch, reference: Reference | None) -> None:
        self.policy, self.batch, self.reference = policy, batch, reference
        self._logp_R: Tensor | None = None
        self._ref_R: Tensor | None = None
        self._reward_M: Tensor | None = None

    def logp_R(self) -> Tensor:
        """Log-probability of every response token under the policy."""
        if self._logp_R is None:
            self._logp_R = self.policy.logp(self.batch)
        return self._logp_R

    def ref_R(self) -> Tensor:
        """The same under the reference, which has no gradient."""
        if self.reference is None:
            raise UserError("this objective needs a reference, and the stage has none")
        if self._ref_R is None:
            self._ref_R = self.reference.tokens(self.batch).to(self.policy.device)
        return self._ref_R

    def reward_M(self) -> Tensor:
        """The scalar head at the end of every branch."""
        if self._reward_M is None:
            self._reward_M = self.policy.rewards(self.batch)
        return self._reward_M

    def sums(self, logp_R: Tensor, role: str) -> Tensor:
        """Sum over the learned tokens of each branch with this role, accumulated in fp64, shape [B]."""
        device = logp_R.device
        out = torch.zeros(len(self.batch.branches), dtype=torch.float64, device=device)
        learned = self.batch.learned_R.to(device)
        out = out.index_add(0, self.batch.branch_R.to(device), logp_R.double() * learned)
        return out[self.batch.rows(role)]

    def padded(self, value_R: Tensor, role: str) -> Tensor:
        """Response tokens of the branches with this role, padded with zeros to [B, T]."""
        lengths = [len(b.ids) for b in self.batch.branches]
        pieces = value_R.split(lengths)
        return pad_sequence([pieces[m] for m in self.batch.rows(role)], batch_first=True)

    def lengths(self, role: str) -> Tensor:
        """Learned tokens of each branch with this role."""
        counts = [sum(b.loss) for b in self.batch.branches if b.role == role]
        return torch.tensor(counts, dtype=torch.float64, device=self.policy.device)

    @property
    def single(self) -> str:
        """The role that a signal without `chosen_` or `rejected_` is read from: `response`, or a pair's `chosen`."""
        return "chosen" if self.batch.branches[0].role in ("chosen", "rejected") else "response"

    def values(self, name: str) -> Tensor | None:
        """A column of the data, or None where no tree of the data has it."""
        column = [tree.values.get(name) for tree in self.batch.trees]
        if all(value is None for value in column):
            return None
        neutral = {"margin_B": 0.0, "preference_B": 1.0}[name]
        return torch.tensor(
            [neutral if v is None else v for v in column], dtype=torch.float64, device=self.policy.device
        )


SOURCES: dict[str, Callable[[View], Tensor | None]] = {
    "logp_BT": lambda v: v.padded(v.logp_R(), v.single),
    "mask_BT": lambda v: v.padded(v.batch.learned_R.to(v.policy.device).float(), v.single),
    "logp_B": lambda v: v.sums(v.logp_R(), v.single),
    "length_B": lambda v: v.lengths(v.single),
    "chosen_logp_B": lambda v: v.sums(v.logp_R(), "chosen"),
    "rejected_logp_B": lambda v: v.sums(v.logp_R(), "rejected"),
    "chosen_length_B": lambda v: v.lengths("chosen"),
    "rejected_length_B": lambda v: v.lengths("rejected"),
    "ref_logp_B": lambda v: v.sums(v.ref_R(), v.single),
    "ref_chosen_logp_B": lambda v: v.sums(v.ref_R(), "chosen"),
    "ref_rejected_logp_B": lambda v: v.sums(v.ref_R(), "rejected"),
    "reward_B": lambda v: v.reward_M()[v.batch.rows(v.single)],
    "chosen_reward_B": lambda v: v.reward_M()[v.batch.rows("chosen")],
    "rejected_reward_B": lambda v: v.reward_M()[v.batch.rows("rejected")],
    "margin_B": lambda v: v.values("margin_B"),
    "preference_B": lambda v: v.values("preference_B"),
}


def observe(
    policy: Policy, batch: Batch, signals: frozenset[str], reference: Reference | None = None
) -> dict[str, Tensor]:
    """The named signals of this batch. Optional data signals that the data does not have are left out."""
    view = View(policy, batch, reference)
    found = {name: SOURCES[name](view) for name in sorted(signals)}
    return {name: value for name, value in found.items() if value is not None}
