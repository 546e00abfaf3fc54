"""A policy: a causal or reward model that is read in trees."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from truing.data.batch import Batch
from truing.errors import RunFailed
from truing.policy.logp import token_logp
from truing.policy.trees import Plan, attending

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


@dataclass
class Policy:
    """A Hugging Face model with its tokenizer. `layout` says whether its layers read trees, or padded rows."""

    model: Any
    tokenizer: Any
    name: str
    layout: Literal["trees", "padded"] = "trees"
    verified: bool = field(default=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def body(self) -> nn.Module:
        """The model without its head: token ids to hidden states."""
        return self.model.base_model  # type: ignore[no-any-return]

    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states of the packed row, [N, H], prompt tokens computed once per tree."""
        with attending(Plan(batch.trees)):
            out = self.body(
                input_ids=batch.ids_N[None].to(self.device),
                position_ids=batch.positions_N[None].to(self.device),
                use_cache=False,
            )
        return out.last_hidden_state[0]  # type: ignore[no-any-return]

    def logp(self, batch: Batch) -> Tensor:
        """Log-probability of every response token, nats, fp32, shape [R]."""
        if self.layout == "padded":
            return plain_logp(self, batch)
        self.verify(batch)
        return self._head_logp(self.hidden(batch).index_select(0, batch.source_R.to(self.device)), batch)

    def rewards(self, batch: Batch) -> Tensor:
        """The scalar head read at the last token of every branch, shape [M]."""
        if self.layout == "padded":
            return plain_rewards(self, batch)
        self.verify(batch)
        h_MH = self.hidden(batch).index_select(0, batch.ends_M.to(self.device))
        return self.model.score(h_MH).squeeze(-1).float()  # type: ignore[no-any-return]

    def _head_logp(self, h_RH: Tensor, batch: Batch) -> Tensor:
        head, config = self.model.get_output_embeddings(), self.model.config
        scale = float(getattr(config, "logit_scale", None) or 1.0) / float(
            getattr(config, "logits_scaling", None) or 1.0
        )
        cap = getattr(config, "final_logit_softcapping", None)
        return token_logp(h_RH, head.weight, batch.target_R.to(self.device), head.bias, scale=scale, cap=cap)

    def verify(self, batch: Batch) -> None:
        """Once per policy: the smallest tree of the first batch must read the same as plain rows, or the run stops."""
        if self.verified:
            return
        self.verified = True
        small = Batch((min(batch.trees, key=lambda t: t.tokens),))
        with torch.no_grad():
            if self.is_reward:
                off = (self.rewards(small) - plain_rewards(self, small)).abs().max().item()
            else:
                off = (self.logp(small) - plain_logp(self, small)).abs().max().item()
        if not off <= TOLERANCE[self.model.dtype]:
            raise RunFailed(
                f"{self.name}: reading trees differs from plain rows by {off:.2e} per token, so this architecture "
                f"({self.model.config.model_type}) has a part that tree attention does not honour; nothing was trained"
            )

    @property
    def is_reward(self) -> bool:
        """Whether this is a reward model (a scalar head) and not a language model."""
        return hasattr(self.model, "score")

    def weights_digest(self) -> str:
        """A content hash of all weights: two policies with the same digest give the same numbers."""
        out = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            out.update(name.encode() + str(tuple(tensor.shape)).encode() + str(tensor.dtype).encode())
            out.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return out.hexdigest()[:16]


def plain_rows(batch: Batch) -> list[list[int]]:
    """One full sequence per branch: what a model without trees would read."""
    return [[*tree.prompt, *branch.ids] for tree in batch.trees for branch in tree.branches]


def _plain_hidden(policy: Policy, batch: Batch) -> list[Tensor]:
    """Hidden states of every branch read as a row of its own, through the model's own attention."""
    before = policy.model.config._attn_implementation
    policy.model.set_attn_implementation("eager")
    try:
        rows = []
        for ids in plain_rows(batch):
            out = policy.body(input_ids=torch.tensor([ids], device=policy.device))
            rows.append(out.last_hidden_state[0])
        return rows
    finally:
        policy.model.set_attn_implementation(before)


def plain_logp(policy: Policy, batch: Batch) -> Tensor:
    """`Policy.logp` computed the plain way, one row per answer: the measure of the fast way, and the fallback."""
    hidden = _plain_hidden(policy, batch)
    branches = batch.branches
    parts = [h[-len(b.ids) - 1 : -1] for h, b in zip(hidden, branches, strict=True)]
    return policy._head_logp(torch.cat(parts), batch)


def plain_rewards(policy: Policy, batch: Batch) -> Tensor:
    """`Policy.rewards` computed the plain way, one row per answer."""
    h_MH = torch.stack([h[-1] for h in _plain_hidden(policy, batch)])
    return policy.model.score(h_MH).squeeze(-1).float()  # type: ignore[no-any-return]
