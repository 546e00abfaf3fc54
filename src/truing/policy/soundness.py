"""Checks of a model that was loaded: no larger than its files, its weights finite, and its first reading too.

All of it happens when a model is loaded, so that a folder whose config and weights do not go together is refused with
its name, before data are read, and never gives numbers that are none.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.initialization import no_init_weights

from truing.data.foreign import foreign
from truing.errors import UserError
from truing.policy import ends
from truing.policy.files import weight_files
from truing.policy.plain import own_attention, uncached
from truing.policy.policy import Policy

PROBE = 8
"""Tokens a model is tried on."""
BUILDING = 120.0
"""Processor time a model may take to be laid out, without its weights."""
BUFFERS = 500_000_000
"""Bytes of masks and positions a model may make beyond the size of its files."""
SPARE = 10_000_000
"""Weights a model may have beyond those in its files, such as a fresh head; larger models are not made."""


def check_size(who: str, auto: Any, config: Any, tensors: Mapping[str, weight_files.Tensor]) -> None:
    """Refuse a config whose model has far more weights than the files: memory would be taken for them before it is
    seen that they are missing. The model is laid out without any memory of its own."""
    plain = copy.deepcopy(config)
    laid_out = foreign(lambda text: UserError(f"{who}: its config.json describes no model: {text}"), BUILDING)
    with laid_out, torch.device("meta"), no_init_weights():
        empty = auto.from_config(plain)
    needed = sum(weight.numel() for weight in {id(p): p for p in empty.parameters()}.values())
    there = sum(tensor.elements for tensor in tensors.values())
    extra = sum(buffer.numel() * buffer.element_size() for buffer in empty.buffers())  # masks, mostly: a byte each
    if needed > 2 * there + SPARE or extra > 4 * there + BUFFERS:
        raise UserError(
            f"{who}: by its config.json it has {max(needed, extra):,} numbers, and its files hold {there:,}; they do "
            "not belong together.\n  Take the config.json as it was published with these weights."
        )


def check_finite(who: str, weights: Mapping[str, Tensor], way_out: str = weight_files.AGAIN) -> None:
    """Refuse weights that are NaN or infinite in the precision that they are computed with."""
    bad = [name for name, weight in weights.items() if weight.is_floating_point() and not _finite(weight)]
    if bad:
        broken = weights[bad[0]]
        count = int((~broken.isfinite()).sum())
        more = f", and {len(bad) - 1} more tensors" if bad[1:] else ""
        raise UserError(
            f"{who}: {count:,} of the {broken.numel():,} weights in {bad[0]} are NaN or infinite{more}.\n  {way_out}"
        )


def _finite(weight: Tensor) -> bool:
    """True if all of a tensor's numbers are finite, without a second tensor of its size: then most sums are, and where
    one is not, its ends say whether it was only the sum that is too large."""
    weight = weight.detach()
    if weight.sum().isfinite().item():
        return True
    return all(end.isfinite().item() for end in weight.aminmax())


def check_reading(who: str, policy: Policy) -> None:
    """Refuse a model that cannot read a few tokens, or of them gives what is no number."""
    model = policy.model
    count = min(PROBE, getattr(model.config.get_text_config(), "max_position_embeddings", None) or PROBE)
    ids = torch.arange(count, device=policy.device)[None] % ends.rows(model)
    tried = foreign(lambda text: UserError(f"{who}: it cannot read {count} tokens: {text}"))
    with torch.no_grad(), own_attention(policy), tried:
        logits = model(input_ids=ids, **uncached(policy)).logits
    if not logits.isfinite().all():
        raise UserError(
            f"{who}: what it gives of {count} tokens is NaN or infinite, though its weights are finite; its settings "
            "do not belong to them, or they overflow.\n  Take both as they were published."
        )
