"""A model whose parameters may be divided over processes, called by another way than its own forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

Function = TypeVar("Function", bound=Callable[..., Any])


def forward(model: nn.Module, function: Function) -> Function:
    """`function` as a forward pass of `model`: its parameters are whole while it runs. The same function where the
    model is not sharded."""
    if not isinstance(model, FSDPModule):
        return function
    setattr(model, "observed", function)  # noqa: B010  a module takes functions as attributes, its type does not
    register_fsdp_forward_method(model, "observed")
    wrapped: Function = model.observed  # type: ignore[assignment]
    del model.observed  # the model would keep alive whatever `function` holds
    return wrapped
