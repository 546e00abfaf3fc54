"""A value model of its own: a reward model's network, read where each token is about to be written.

It stands within the policy's model for the length of the training, so whatever holds for the policy's weights (the
optimiser, checkpoints, division over ranks) holds for its weights too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from truing.data.batch import Batch
from truing.errors import UserError
from truing.policy.policy import Policy
from truing.policy.scalars import Heads

OWN = ("value_head", "value_model")
"""Modules that a policy has beside its own weights while it learns with values."""


class ValueModel(nn.Module):
    """A reward model that forecasts the reward still to come: its score, read after each prefix of a response.

    It begins as the reward model and is trained from there (Ziegler et al. 2019, arXiv 1909.08593; Ouyang et al. 2022,
    arXiv 2203.02155). Of several heads the forecast is their weighted sum, as the reward is.
    """

    def __init__(self, reader: Policy) -> None:
        super().__init__()
        self.network: nn.Module = reader.model  # under a name of its own, so that its weights are trained and kept
        self.reader = reader

    def forward(self, batch: Batch) -> Tensor:
        """The forecast at every response token, before it is written; shape [R], fp32 or more."""
        scores = self.reader.head_rewards_at(batch, batch.source_R)
        shares = Heads.of(self.reader.model.config).shares
        return (scores * torch.tensor(shares, dtype=scores.dtype, device=scores.device)).sum(1)


def put_on(policy: Policy, reader: Policy, first: Batch) -> None:
    """Give a language model the network of a reward model to forecast with. By `first`, the same batch on every rank,
    it is judged how that model is read.

    UserError for one whose tokens are other ones, that is not read in trees, or that was fitted to single steps.
    """
    reader.scalars.check_whole(reader.name)
    vocabulary = reader.tokenizer.get_vocab()
    strange = next((t for t, i in policy.tokenizer.get_vocab().items() if vocabulary.get(t) != i), None)
    if strange is not None:
        raise UserError(
            f"value model '{reader.name}' has another tokenizer than '{policy.name}' ({strange!r} is not the same "
            "token of both), and it has to read the policy's tokens.\n  Fit a reward model from the policy's own "
            "model, or leave 'value' out for a head on the policy's network; as a reward this one can stay."
        )
    reader.verify(first)
    if reader.layout != "trees":
        raise UserError(
            f"value model '{reader.name}': {reader.model.config.model_type} gives no score inside a response; give "
            "one that is read in trees, or leave 'value' out for a head on the policy's own network"
        )
    policy.model.value_model = ValueModel(reader)


def take_off(policy: Policy) -> None:
    """Leave the policy its own weights alone: a value head or model is of use in training, and unknown to others."""
    for name in OWN:
        if hasattr(policy.model, name):
            delattr(policy.model, name)
