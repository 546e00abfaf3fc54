"""The reference's log-probabilities, read by all ranks: each reads some of the data, and all have the whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from truing.data.batch import Batch, Tree, pack
from truing.policy.policy import Policy
from truing.policy.reference import Reference
from truing.train.distributed import process_group


def compute_shared(policy: Policy, trees: Sequence[Tree], tokens_per_device: int) -> Reference:
    """Compute what `policy.reference.compute` does, in the same parts as one process reads, dealt out to the ranks in
    turn.

    To be called while every rank still has the whole policy.
    """
    groups = list(pack(trees, tokens_per_device))
    lengths = torch.tensor([0] + [sum(len(b.ids) for b in t.branches) for t in trees])
    offsets = lengths.cumsum(0)
    policy.verify(Batch(groups[0]))  # by one batch on every rank, so that all come to one judgement
    logp = torch.zeros(int(offsets[-1]), dtype=torch.promote_types(policy.model.dtype, torch.float32))
    with torch.inference_mode():
        for group in groups[process_group.rank() :: process_group.world()]:
            logp[offsets[group[0].index] : offsets[group[-1].index + 1]] = policy.logp(Batch(group)).cpu()
    with process_group.reaching():
        return Reference(process_group.total(logp), offsets)
