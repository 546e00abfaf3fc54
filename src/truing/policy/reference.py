"""The reference's log-probabilities: computed once per data set, in inference mode, and kept on disk.

The reference of a run is the policy as the stage received it, or another model that the policy is kept near. What is
stored is keyed by the content of the reference's weights and of the tokens (and so of data, tokenizer and template),
the precision, and truing's way of reading; a file with another key is refused. It is a table of its own, which no
training of the policy reaches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from truing import door
from truing.data.batch import Batch, Tree, pack, trees_digest
from truing.data.foreign import foreign
from truing.disk import replacing
from truing.errors import UserError
from truing.policy.policy import Policy

READING = 2
"""Counted up whenever a change of truing's own reading may change a log-probability; stored references then go."""


class Reference:
    """Log-probabilities of every response token of a data set under the reference, by tree index. `left` says that the
    policy is elsewhere already when training begins, so that their log-ratio does not begin at 0."""

    def __init__(self, logp: Tensor, offsets: Tensor, left: bool = False) -> None:
        self.logp, self.offsets, self.left = logp, offsets, left

    def digest(self) -> str:
        """The SHA-256 of the numbers."""
        tensors = (self.logp.contiguous(), self.offsets.contiguous())
        return hashlib.sha256(b"".join(t.cpu().view(torch.uint8).numpy().tobytes() for t in tensors)).hexdigest()

    def tokens(self, batch: Batch) -> Tensor:
        """The reference's log-probabilities of the batch's response tokens, shape [R], in the batch's order."""
        parts = [self.logp[self.offsets[t.index] : self.offsets[t.index + 1]] for t in batch.trees]
        return torch.cat(parts)


def compute(policy: Policy, trees: Sequence[Tree], tokens_per_device: int) -> Reference:
    """Read every tree once with `policy` as it is now. Trees must be numbered 0, 1, 2, ... by `index`."""
    lengths = torch.tensor([0] + [sum(len(b.ids) for b in t.branches) for t in trees])
    with torch.inference_mode():
        parts = [policy.logp(Batch(group)).cpu() for group in pack(trees, tokens_per_device)]
    return Reference(torch.cat(parts).clone(), lengths.cumsum(0))


Compute: TypeAlias = Callable[[Policy, Sequence[Tree], int], Reference]


def cached(
    policy: Policy,
    trees: Sequence[Tree],
    path: Path,
    tokens_per_device: int,
    compute: Compute = compute,
    keep: bool = True,
) -> Reference:
    """The reference from `path` if its key is right, else computed and, with `keep`, written there; a wrong key is
    refused. Several processes compute it together, and one of them keeps it."""
    key = {"weights": policy.weights_digest(), "data": trees_digest(trees)}
    key |= {"precision": policy.precision, "reading": str(READING)}
    if path.exists():
        return read(path, key)
    reference = compute(policy, trees, tokens_per_device)
    if not keep:
        return reference
    facts = {"key": json.dumps(key), "content": reference.digest()}
    with replacing(path) as part:
        save_file({"logp": reference.logp, "offsets": reference.offsets}, part, metadata=facts)
    return reference


def read(path: Path, key: dict[str, str]) -> Reference:
    """Stored reference log-probabilities, refused if they belong to other weights or other data, or were changed."""
    again = "Delete it to have it computed again."
    door.check_file(path)
    damaged = foreign(lambda text: UserError(f"{path}: this reference cannot be read ({text}).\n  {again}"))
    with damaged, safe_open(str(path), framework="pt") as file:
        facts = file.metadata() or {}
        stored_key = dict(door.parse_json(facts.get("key", "{}")))
        reference = Reference(file.get_tensor("logp"), file.get_tensor("offsets"))
    wrong = [name for name in key if stored_key.get(name) != key[name]]
    if wrong:
        differences = "; ".join(f"{name}: {stored_key.get(name, 'unknown')} there, {key[name]} here" for name in wrong)
        raise UserError(
            f"{path}: these reference log-probabilities come from other {' and '.join(wrong)} ({differences}).\n"
            "  Delete the file to have them computed again."
        )
    if facts.get("content") != reference.digest():
        raise UserError(
            f"{path}: these reference log-probabilities were changed after they were written.\n"
            "  Delete the file to have them computed again."
        )
    if not reference.logp.isfinite().all():
        raise UserError(f"{path}: some of these reference log-probabilities are NaN or infinite.\n  {again}")
    return reference
