"""A policy: a causal or reward model that is read in trees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from truing.data.batch import Batch
from truing.errors import RunFailed, UserError
from truing.policy.logp import token_logp
from truing.policy.trees import NAME, Plan, attending

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
UNREAD = ("dtype", "torch_dtype", "transformers_version", "architectures", "name_or_path")
"""What stands in a config and changes no number."""


@dataclass
class Policy:
    """A Hugging Face model with its tokenizer. `layout` says whether its layers read trees, or padded rows."""

    model: Any
    tokenizer: Any
    name: str
    layout: Literal["trees", "padded"] = "trees"
    verified: bool = False
    notes: list[str] = field(default_factory=list)

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
        self.check_ids(batch)
        self.verify(batch)
        if self.layout == "padded":
            return own_logp(self, batch)
        return self._head_logp(self.hidden(batch).index_select(0, batch.source_R.to(self.device)), batch)

    def rewards(self, batch: Batch) -> Tensor:
        """The scalar head read at the last token of every branch, shape [M]."""
        self.check_ids(batch)
        self.verify(batch)
        if self.layout == "padded":
            return own_rewards(self, batch)
        h_MH = self.hidden(batch).index_select(0, batch.ends_M.to(self.device))
        return self.model.score(h_MH).squeeze(-1).float()  # type: ignore[no-any-return]

    def _head_logp(self, h_RH: Tensor, batch: Batch) -> Tensor:
        head, config = self.model.get_output_embeddings(), self.model.config
        scale = float(getattr(config, "logit_scale", None) or 1.0) / float(
            getattr(config, "logits_scaling", None) or 1.0
        )
        cap = getattr(config, "final_logit_softcapping", None)
        return token_logp(h_RH, head.weight, batch.target_R.to(self.device), head.bias, scale=scale, cap=cap)

    def check_ids(self, batch: Batch) -> None:
        """Refuse a token that the model has no embedding for."""
        rows, largest = self.model.get_input_embeddings().weight.shape[0], int(batch.ids_N.max())
        if largest >= rows:
            raise UserError(
                f"model '{self.name}': its tokenizer writes {self.tokenizer.convert_ids_to_tokens(largest)!r} as "
                f"{largest}, and its embedding has {rows} rows; they do not belong together"
            )

    def verify(self, batch: Batch) -> None:
        """Once per policy: two trees of the first batch, packed, must read as the model's own forward reads rows.

        Where our head does not give the model's own logits (a head with parts of its own), the policy falls back to
        the model's own forward, one row per answer, and `notes` says so. Where attention over trees is what differs,
        the run stops.
        """
        if self.verified or self.layout == "padded":
            return
        trees = probe(batch, getattr(self.model.config, "sliding_window", None))
        self.verified = True  # what follows reads by this very policy
        try:
            with torch.no_grad():
                if not self._agrees(trees):
                    self.layout = "padded"
                    self.model.set_attn_implementation("eager")
        except BaseException:
            self.verified = False
            raise

    def _agrees(self, probed: Batch) -> bool:
        kind, most = self.model.config.model_type, TOLERANCE[self.model.dtype]
        fast, own = (self.rewards, own_rewards) if self.is_reward else (self.logp, own_logp)
        wanted = own(self, probed)
        off = (fast(probed) - wanted).abs().max().item()
        if off <= most:
            return True
        plain = plain_rewards(self, probed) if self.is_reward else plain_logp(self, probed)
        apart = (plain - wanted).abs().max().item()
        if apart <= most:
            raise RunFailed(
                f"{self.name}: reading trees differs from plain rows by {off:.2e} per token, so this architecture "
                f"({kind}) has a part that tree attention does not honour; nothing was trained"
            )
        self.notes.append(
            f"the head of {kind} has parts of its own ({apart:.2e} nats apart): reading one row per answer (slower)"
        )
        return False

    @property
    def is_reward(self) -> bool:
        """Whether this is a reward model (a scalar head) and not a language model."""
        return type(self.model).__name__.endswith("ForSequenceClassification")

    def weights_digest(self) -> str:
        """A content hash of all weights and of the config: two policies with the same digest give the same numbers."""
        config = {k: v for k, v in self.model.config.to_dict().items() if k not in UNREAD and not k.startswith("_")}
        out = hashlib.sha256(json.dumps([config, self.layout], sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            out.update(name.encode() + str(tuple(tensor.shape)).encode() + str(tensor.dtype).encode())
            out.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return out.hexdigest()[:16]


def probe(batch: Batch, window: int | None) -> Batch:
    """Two trees of this batch, packed: the smallest, and the smallest beyond the sliding window (or the next one).

    A tree of one branch alone is a plain row; only a second tree shows whether the first is kept out of its sight.
    """
    by_size = sorted(batch.trees, key=lambda t: t.tokens)
    longer = [t for t in by_size[1:] if window is not None and t.tokens > window]
    return Batch((by_size[0], (longer or by_size[1:] or by_size)[0]))


def plain_rows(batch: Batch) -> list[list[int]]:
    """One full sequence per branch: what a model without trees would read."""
    return [[*tree.prompt, *branch.ids] for tree in batch.trees for branch in tree.branches]


def uncached(policy: Policy) -> dict[str, bool]:
    """Keyword arguments of a forward that keeps no cache, for the models that know the word."""
    return {"use_cache": False} if hasattr(policy.model.config, "use_cache") else {}


@contextmanager
def own_attention(policy: Policy) -> Iterator[None]:
    """Within this block the model attends as transformers wrote it, not over trees."""
    before = policy.model.config._attn_implementation
    if before == NAME:
        policy.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if before == NAME:
            policy.model.set_attn_implementation(before)


def _plain_hidden(policy: Policy, batch: Batch) -> list[Tensor]:
    """Hidden states of every branch read as a row of its own, through the model's own attention."""
    with own_attention(policy):
        rows = [torch.tensor([ids], device=policy.device) for ids in plain_rows(batch)]
        return [policy.body(input_ids=ids, **uncached(policy)).last_hidden_state[0] for ids in rows]


def plain_logp(policy: Policy, batch: Batch) -> Tensor:
    """`Policy.logp` with one row per answer and our head: the measure of attention over trees."""
    hidden = _plain_hidden(policy, batch)
    parts = [h[-len(b.ids) - 1 : -1] for h, b in zip(hidden, batch.branches, strict=True)]
    return policy._head_logp(torch.cat(parts), batch)


def plain_rewards(policy: Policy, batch: Batch) -> Tensor:
    """`Policy.rewards` computed the plain way, one row per answer."""
    h_MH = torch.stack([h[-1] for h in _plain_hidden(policy, batch)])
    return policy.model.score(h_MH).squeeze(-1).float()  # type: ignore[no-any-return]


def own_logp(policy: Policy, batch: Batch) -> Tensor:
    """`Policy.logp` from the model's own logits, one row per answer: the measure of our head, and the fallback."""
    parts = []
    with own_attention(policy):
        for ids, branch in zip(plain_rows(batch), batch.branches, strict=True):
            logits = policy.model(input_ids=torch.tensor([ids], device=policy.device), **uncached(policy)).logits[0]
            logp = logits[-len(branch.ids) - 1 : -1].float().log_softmax(-1)
            parts.append(logp.gather(1, torch.tensor(branch.ids, device=logp.device)[:, None]).squeeze(1))
    return torch.cat(parts)


def own_rewards(policy: Policy, batch: Batch) -> Tensor:
    """`Policy.rewards` from the model's own forward, one row per answer."""
    with own_attention(policy):
        rows = [torch.tensor([ids], device=policy.device) for ids in plain_rows(batch)]
        return torch.cat([policy.model(input_ids=ids, **uncached(policy)).logits.reshape(-1) for ids in rows]).float()
