"""A model over several processes: FSDP2, one shard of every parameter to a rank; whole again when training is over."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from truing.data.batch import Batch
from truing.policy.policy import Policy
from truing.train.distributed import process_group


@contextmanager
def sharded(policy: Policy, first: Batch) -> Iterator[Policy]:
    """A policy to train whose parameters are divided over the ranks; at the end `policy` has the trained ones, whole,
    on the first rank, and none on the others.

    `first` is a batch that is the same on every rank, by which all come to one judgement of how the model is read.
    With one process it is the policy itself. What a rank keeps meanwhile is its shard: the skeleton of `policy` holds
    no weights until the shards are gathered into it.
    """
    if process_group.world() == 1:
        yield policy
        return
    policy.verify(first)
    policy.allowed(first)  # measured while every rank has the whole model
    named = dict(policy.model.named_parameters())
    model = copy.deepcopy(policy.model, {id(p): p for p in named.values()})
    with process_group.reaching():
        divide(model, whole=policy.layout != "trees")
    for parameter in named.values():
        parameter.data = parameter.data.new_empty(0)
    yield replace(policy, model=model)
    with process_group.reaching():
        for name, shard in model.named_parameters():
            whole = full(shard)
            if process_group.rank() == 0:
                named[name].data = whole


def divide(model: Any, whole: bool) -> None:
    """Shard a model layer by layer, then the rest. `whole`: as one piece, for models whose layers are called a
    different number of times on each rank. Gradients are summed over ranks, not averaged."""
    mesh = init_device_mesh(next(model.parameters()).device.type, (process_group.world(),))
    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    for layer in [m for m in model.modules() if type(m).__name__ in names and not whole]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def full(tensor: Tensor) -> Tensor:
    """A tensor whole on this rank; a collective where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def piece(tensor: Tensor) -> tuple[Tensor, int]:
    """The rows of a tensor that are held here, and the first one's number."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    each = -(-tensor.shape[0] // tensor.device_mesh.size())
    return tensor.to_local(), min(each * tensor.device_mesh.get_local_rank(), tensor.shape[0])


def held_here(tensor: Tensor) -> bool:
    """True if this rank writes its part of a tensor: each its rows, rank 0 whatever is not divided."""
    return isinstance(tensor, DTensor) or process_group.rank() == 0
