"""A model read in plain rows, one a response, by its own forward: the check of reading in trees, and the fallback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from truing.data.batch import Batch
from truing.objectives.kl import entropy
from truing.policy.precision import Gap, Rounding
from truing.policy.probes import alike, plain_rows
from truing.policy.trees import NAME


class Reader(Protocol):
    """The parts of a policy that are needed to read rows with it."""

    model: Any
    layout: Any
    precision: Any
    temperature: float

    @property
    def device(self) -> torch.device:
        """The device of the weights."""

    @property
    def body(self) -> nn.Module:
        """The model without its head."""

    @property
    def is_reward(self) -> bool:
        """True for a reward model."""

    def computing(self) -> AbstractContextManager[Any]:
        """Within this block layers compute in the policy's precision."""

    def computing_in(self, precision: Any) -> AbstractContextManager[Any]:
        """Within this block they compute in another one."""

    def head_logp(self, h_RH: Tensor, batch: Batch, spread: bool = False) -> dict[str, Tensor]:
        """Log-probabilities of a batch's response tokens from hidden states."""

    def head_scores(self, h_MH: Tensor) -> Tensor:
        """Rewards from hidden states."""


def uncached(policy: Reader) -> dict[str, bool]:
    """Keyword arguments of a forward that keeps no cache, for the models that know the word."""
    return {"use_cache": False} if hasattr(policy.model.config, "use_cache") else {}


@contextmanager
def own_attention(policy: Reader) -> Iterator[None]:
    """Within this block the model attends as transformers wrote it, not over trees."""
    before = policy.model.config._attn_implementation
    if before == NAME:
        policy.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if before == NAME:
            policy.model.set_attn_implementation(before)


def _plain_hidden(policy: Reader, batch: Batch) -> list[Tensor]:
    """Hidden states of every branch read as a row of its own, through the model's own attention."""
    with own_attention(policy):
        rows = [torch.tensor([ids], device=policy.device) for ids in plain_rows(batch)]
        with policy.computing():
            return [policy.body(input_ids=ids, **uncached(policy)).last_hidden_state[0] for ids in rows]


def plain_logp(policy: Reader, batch: Batch) -> Tensor:
    """`Policy.logp` with one row per response and our head: the check of attention over trees."""
    hidden = _plain_hidden(policy, batch)
    parts = [h[-len(b.ids) - 1 : -1] for h, b in zip(hidden, batch.branches, strict=True)]
    return policy.head_logp(torch.cat(parts), batch)["logp"]


def plain_rewards(policy: Reader, batch: Batch) -> Tensor:
    """`Policy.head_rewards` computed the plain way, one row per response."""
    return policy.head_scores(torch.stack([h[-1] for h in _plain_hidden(policy, batch)]))


def own_logp(policy: Reader, batch: Batch, tokens: int = 1) -> Tensor:
    """`Policy.logp` from the model's own logits: see `own_reading`."""
    return own_reading(policy, batch, tokens)["logp"]


def own_reading(policy: Reader, batch: Batch, tokens: int, spread: bool = False) -> dict[str, Tensor]:
    """`logp`, and with `spread` `entropy`, from the model's own logits: the check of our head, and the fallback.

    Rows are read together as long as they hold, padded, at most so many tokens; a larger one stands alone.
    """
    parts: dict[int, tuple[Tensor, ...]] = {}
    for m, z in own_response_logits(policy, batch, tokens):
        logp_TV = z.log_softmax(-1)
        logp = logp_TV.gather(1, torch.tensor(batch.branches[m].ids, device=z.device)[:, None]).squeeze(1)
        parts[m] = (logp, entropy(logp_TV)) if spread else (logp,)
    whole = [torch.cat(pieces) for pieces in zip(*(parts[m] for m in range(len(parts))), strict=True)]
    return dict(zip(("logp", "entropy"), whole, strict=False))


def own_response_logits(policy: Reader, batch: Batch, tokens: int) -> Iterator[tuple[int, Tensor]]:
    """The place of each branch, and the model's own logits where its tokens are predicted, at the policy's temperature,
    in fp32 or more; in any order."""
    rows = plain_rows(batch)
    for group, logits in own_logits(policy, rows, tokens):
        for m, z in zip(group, logits, strict=True):
            end = len(rows[m])
            z = z[end - len(batch.branches[m].ids) - 1 : end - 1]
            z = z.to(torch.promote_types(z.dtype, torch.float32))
            yield m, z if policy.temperature == 1 else z / policy.temperature


def measured(policy: Reader, probed: Batch) -> Rounding:
    """Measure the rounding of a policy's readings by its own forward over the rows of a few trees."""
    read = own_rewards if policy.is_reward else own_logp
    with torch.no_grad():
        with policy.computing_in("fp32"):
            exact, spread = read(policy, probed), own_spread(policy, probed)
        low = read(policy, probed) if policy.precision == "bf16" else exact
    layers = getattr(policy.model.config.get_text_config(), "num_hidden_layers", None) or 1
    return Rounding(layers, spread, Gap.between(exact, torch.zeros_like(exact)).rms, Gap.between(low, exact).rms)


def own_spread(policy: Reader, probed: Batch) -> float:
    """The standard deviation of the model's own logits over the vocabulary, root mean square over response tokens; of a
    reward model |h| |w| / sqrt(H) at the ends of branches, and of one without such a head 1."""
    if not policy.is_reward:
        deviations = [z.std(-1) for _, z in own_response_logits(policy, probed, 1)]
        return torch.cat(deviations).square().mean().sqrt().item()
    if policy.layout != "trees":
        return 1.0
    ends, weight = torch.stack([h[-1] for h in _plain_hidden(policy, probed)]), policy.model.score.weight
    return float(ends.norm(dim=1).mean() * weight.norm(dim=1).mean()) / float(ends.shape[1] ** 0.5)


def own_rewards(policy: Reader, batch: Batch, tokens: int = 1) -> Tensor:
    """`Policy.head_rewards` from the model's own forward; rows are read together as in `own_logp`."""
    parts: dict[int, Tensor] = {}
    rows = plain_rows(batch)
    for group, scores in own_logits(policy, rows, tokens):
        parts |= dict(zip(group, scores.reshape(len(group), -1), strict=True))
    rewards = torch.stack([parts[m] for m in range(len(rows))])
    return rewards.to(torch.promote_types(rewards.dtype, torch.float32))


def own_logits(policy: Reader, rows: list[list[int]], tokens: int) -> Iterator[tuple[list[int], Tensor]]:
    """Logits (or scores) of the model's own forward for rows of like length, padded on the right, each group with the
    places of its rows."""
    pad = policy.model.config.get_text_config().pad_token_id or 0
    with own_attention(policy), policy.computing():
        for group in alike(list(map(len, rows)), tokens):
            width = len(rows[group[0]])
            ids = torch.tensor([rows[m] + [pad] * (width - len(rows[m])) for m in group], device=policy.device)
            read = torch.tensor([[1] * len(rows[m]) + [0] * (width - len(rows[m])) for m in group], device=ids.device)
            kwargs = {"attention_mask": read} if len(group) > 1 else {}
            yield group, policy.model(input_ids=ids, **kwargs, **uncached(policy)).logits
