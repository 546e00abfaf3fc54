"""A policy: a causal or reward model that is read in trees."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from truing.data.batch import Batch
from truing.errors import RunFailed, UserError
from truing.objectives.kl import entropy
from truing.policy import ends
from truing.policy.logp import Logits, token_logp, token_logp_and_entropy
from truing.policy.scalars import Heads
from truing.policy.trees import NAME, Plan, attending

Layout: TypeAlias = Literal["trees", "padded", "rows"]
Precision: TypeAlias = Literal["fp32", "bf16"]
Beside: TypeAlias = Literal["value", "entropy"]
"""What can be read of response tokens besides their log-probabilities, in the same forward pass."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
TIES = "tie_logit"
"""The name of a reward model's tie parameter."""
UNREAD = ("dtype", "torch_dtype", "transformers_version", "architectures", "name_or_path")
"""What stands in a config and changes no number."""


@dataclass
class Policy:
    """A Hugging Face model with its tokenizer. `layout` says whether its layers read trees, padded rows of answers, or
    one row at a time. With an `adapter` (peft's, whose layers are in the model) only that is trained. `temperature`
    divides the logits wherever tokens are read; sampling has its own."""

    model: Any
    tokenizer: Any
    name: str
    layout: Layout = "trees"
    verified: bool = False
    notes: list[str] = field(default_factory=list)
    precision: Precision = "fp32"
    temperature: float = 1.0
    adapter: Any = None
    base_digest: str = ""
    merge: bool = False
    shares_prompts: bool | None = None  # for the answers sampled from it; None until the engine has tried

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """What layers compute in; weights may be kept in more."""
        return torch.bfloat16 if self.precision == "bf16" else self.model.dtype

    def compute_in(self, precision: Precision) -> None:
        """Compute in this precision from now on; UserError where the device has not got it."""
        if precision == "bf16" and self.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise UserError(f"{torch.cuda.get_device_name()} does not compute in bf16; set precision: fp32")
        self.precision = precision

    def computing(self) -> AbstractContextManager[Any]:
        """Within this block layers compute in `dtype`."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def body(self) -> nn.Module:
        """The model without its head: token ids to hidden states."""
        return self.model.base_model  # type: ignore[no-any-return]

    def hidden(self, batch: Batch, at: Tensor) -> Tensor:
        """Hidden states at these places of the packed row, prompt tokens computed once per tree."""
        at = at.to(self.device)
        with attending(Plan(batch.trees, at.unique())), self.computing():
            out = self.body(
                input_ids=batch.ids_N[None].to(self.device),
                position_ids=batch.positions_N[None].to(self.device),
                use_cache=False,
            )
        return out.last_hidden_state[0].index_select(0, at)  # type: ignore[no-any-return]

    def logp(self, batch: Batch) -> Tensor:
        """Log-probability of every response token, nats, fp32, shape [R]."""
        return self.read(batch)["logp"]

    def logp_and_values(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`logp`, and at the same places the value; both [R]. See `read`."""
        return (found := self.read(batch, "value"))["logp"], found["value"]

    def read(self, batch: Batch, *beside: Beside) -> dict[str, Tensor]:
        """`logp` of every response token, nats, and from the same forward pass what else is named: its `value`, as the
        head or the value model (`policy/value.py`) forecasts it, and the `entropy` of the distribution that it was
        drawn from, nats; each fp32, [R], at this policy's temperature.

        UserError for a head on a model that is not read in trees: its own forward gives no value.
        """
        self.check_ids(batch)
        self.verify(batch)
        headed = "value" in beside and not hasattr(self.model, "value_model")
        if headed and self.layout != "trees":
            raise UserError(f"{self.name}: {self.model.config.model_type} gives no value inside a response")
        if self.layout == "trees":
            h_RH = self.hidden(batch, batch.source_R)
            found = self._head_logp(h_RH, batch, "entropy" in beside)
        else:
            found = own_look(self, batch, self._together(batch), "entropy" in beside)
        if headed:
            value: Tensor = self.model.value_head(h_RH.to(self.model.dtype)).squeeze(-1)
            found["value"] = value.to(torch.promote_types(value.dtype, torch.float32))
        elif "value" in beside:
            found["value"] = self.model.value_model(batch)
        return found

    def put_value_head(self) -> None:
        """Give a language model a head that forecasts what is still to be earned; it begins at 0."""
        head = nn.Linear(self.model.get_input_embeddings().weight.shape[1], 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.model.value_head = head.to(self.device, self.model.dtype)

    def rewards(self, batch: Batch) -> Tensor:
        """The reward of every branch, shape [M]: the scalar head at its last token; of several heads the weighted sum,
        their mean where they have no weights."""
        scores = self.head_rewards(batch)
        shares = Heads.of(self.model.config).shares
        return (scores * torch.tensor(shares, dtype=scores.dtype, device=scores.device)).sum(1)

    def head_rewards(self, batch: Batch) -> Tensor:
        """Every scalar head read at the last token of every branch, shape [M, heads]."""
        self.check_ids(batch)
        self.verify(batch)
        if self.layout != "trees":
            return own_rewards(self, batch, self._together(batch))
        return self._head_rewards(self.hidden(batch, batch.ends_M))

    def head_rewards_at(self, batch: Batch, at: Tensor) -> Tensor:
        """Every scalar head read at these places of the packed row, shape [len(at), heads]; UserError for a model that
        is not read in trees: its own forward gives one score a row."""
        self.check_ids(batch)
        self.verify(batch)
        if self.layout != "trees":
            raise UserError(f"{self.name}: {self.model.config.model_type} gives no score inside a response")
        return self._head_rewards(self.hidden(batch, at))

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of a reward model's heads; an empty one where its only head has none."""
        return Heads.of(self.model.config).names

    @property
    def scalars(self) -> Heads:
        """A reward model's heads, with the tie parameter as it is now."""
        ties = getattr(self.model, TIES, None)
        return dataclasses.replace(Heads.of(self.model.config), tie_logit=None if ties is None else ties.item())

    def put_heads(self, heads: Heads) -> None:
        """Say in a reward model's config what its heads are, and give it their tie parameter where they have one: a
        weight like any other, shape [1]."""
        heads.into(self.model.config)
        if heads.tie_logit is not None:
            begin = torch.tensor([heads.tie_logit], dtype=self.model.dtype, device=self.device)
            self.model.register_parameter(TIES, nn.Parameter(begin))

    def _together(self, batch: Batch) -> int:
        return batch.tokens if self.layout == "padded" else 1

    def _head_rewards(self, h_MH: Tensor) -> Tensor:
        score: Tensor = self.model.score(h_MH.to(self.model.dtype))
        return score.to(torch.promote_types(score.dtype, torch.float32))

    def _head_logp(self, h_RH: Tensor, batch: Batch, spread: bool = False) -> dict[str, Tensor]:
        (weight, bias), config = ends.head(self.model), self.model.config
        scale = float(getattr(config, "logit_scale", None) or 1.0) / float(
            getattr(config, "logits_scaling", None) or 1.0
        )
        cap = getattr(config, "final_logit_softcapping", None)
        h_RH, weight = h_RH.to(self.dtype), weight.to(self.dtype)
        given = (h_RH, weight, batch.target_R.to(self.device), bias, Logits(scale, cap, self.temperature))
        found = token_logp_and_entropy(*given) if spread else (token_logp(*given),)
        return dict(zip(("logp", "entropy"), found, strict=False))

    def check_ids(self, batch: Batch) -> None:
        """Refuse a token that the model has no embedding for."""
        rows, largest = ends.rows(self.model), int(batch.ids_N.max())
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
        if self.verified or self.layout == "rows":
            return
        if self.layout == "padded":
            self._verify_padding(batch)
            return
        trees = probe(batch, getattr(self.model.config, "sliding_window", None))
        self.verified = True  # what follows reads by this very policy
        try:
            with torch.no_grad():
                if not self._agrees(trees):
                    self.layout, self.verified = "padded", False
                    self.model.set_attn_implementation("eager")
                    self._verify_padding(batch)
        except BaseException:
            self.verified = False
            raise

    def _verify_padding(self, batch: Batch) -> None:
        """Once per policy: a long and a short row, padded, must read as they do alone; else no row is ever padded."""
        self.verified = True
        own, most = own_rewards if self.is_reward else own_logp, TOLERANCE[self.dtype] / 10
        if self.is_reward and self.model.config.pad_token_id is None:
            self.layout = "rows"
            self.notes.append("the reward model has no padding token: reading one row at a time (slower)")
            return
        uneven = uneven_probe(batch)
        with torch.no_grad():
            off = (own(self, uneven, sys.maxsize) - own(self, uneven, 1)).abs().max().item()
        if not off <= most:
            self.layout = "rows"
            self.notes.append(
                f"padding changes what {self.model.config.model_type} gives by {off:.2e}: reading one row at a time"
            )

    def _agrees(self, probed: Batch) -> bool:
        kind, most = self.model.config.model_type, TOLERANCE[self.dtype]
        fast, own = (self.head_rewards, own_rewards) if self.is_reward else (self.logp, own_logp)
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
            f"the head of {kind} has parts of its own ({apart:.2e} nats apart): reading rows of answers (slower)"
        )
        return False

    @property
    def is_reward(self) -> bool:
        """Whether this is a reward model (a scalar head) and not a language model."""
        return type(self.model).__name__.endswith("ForSequenceClassification")

    def weights_digest(self) -> str:
        """A content hash of all weights and of the config: two policies with the same digest give the same numbers."""
        config = {k: v for k, v in self.model.config.to_dict().items() if k not in UNREAD and not k.startswith("_")}
        return tensors_digest([config, self.layout], self.model)


def tensors_digest(facts: Any, module: nn.Module) -> str:
    """A content hash of plain facts and of every tensor of a module, with its name, shape and dtype."""
    out = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        out.update(name.encode() + str(tuple(tensor.shape)).encode() + str(tensor.dtype).encode())
        out.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return out.hexdigest()[:16]


def uneven_probe(batch: Batch) -> Batch:
    """The longest tree, and the shortest with one token of response: rows of which one needs padding."""
    by_size = sorted(batch.trees, key=lambda t: t.tokens)
    first = by_size[0].branches[0]
    short = dataclasses.replace(first, ids=first.ids[:1], loss=first.loss[:1])
    return Batch((by_size[-1], dataclasses.replace(by_size[0], branches=(short,))))


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
        with policy.computing():
            return [policy.body(input_ids=ids, **uncached(policy)).last_hidden_state[0] for ids in rows]


def plain_logp(policy: Policy, batch: Batch) -> Tensor:
    """`Policy.logp` with one row per answer and our head: the measure of attention over trees."""
    hidden = _plain_hidden(policy, batch)
    parts = [h[-len(b.ids) - 1 : -1] for h, b in zip(hidden, batch.branches, strict=True)]
    return policy._head_logp(torch.cat(parts), batch)["logp"]


def plain_rewards(policy: Policy, batch: Batch) -> Tensor:
    """`Policy.head_rewards` computed the plain way, one row per answer."""
    return policy._head_rewards(torch.stack([h[-1] for h in _plain_hidden(policy, batch)]))


def own_logp(policy: Policy, batch: Batch, tokens: int = 1) -> Tensor:
    """`Policy.logp` from the model's own logits: see `own_look`."""
    return own_look(policy, batch, tokens)["logp"]


def own_look(policy: Policy, batch: Batch, tokens: int, spread: bool = False) -> dict[str, Tensor]:
    """`logp`, and with `spread` `entropy`, from the model's own logits: the measure of our head, and the fallback.

    Rows are read together as long as they hold, padded, at most so many tokens; a larger one stands alone.
    """
    parts: dict[int, tuple[Tensor, ...]] = {}
    rows = plain_rows(batch)
    for group, logits in own_logits(policy, rows, tokens):
        for m, z in zip(group, logits, strict=True):
            ids, end = batch.branches[m].ids, len(rows[m])
            z = z[end - len(ids) - 1 : end - 1]
            z = z if policy.temperature == 1 else z / policy.temperature
            logp_TV = z.to(torch.promote_types(z.dtype, torch.float32)).log_softmax(-1)
            logp = logp_TV.gather(1, torch.tensor(ids, device=z.device)[:, None]).squeeze(1)
            parts[m] = (logp, entropy(logp_TV)) if spread else (logp,)
    whole = [torch.cat(found) for found in zip(*(parts[m] for m in range(len(rows))), strict=True)]
    return dict(zip(("logp", "entropy"), whole, strict=False))


def own_rewards(policy: Policy, batch: Batch, tokens: int = 1) -> Tensor:
    """`Policy.head_rewards` from the model's own forward; rows are read together as in `own_logp`."""
    parts: dict[int, Tensor] = {}
    rows = plain_rows(batch)
    for group, scores in own_logits(policy, rows, tokens):
        parts |= dict(zip(group, scores.reshape(len(group), -1), strict=True))
    found = torch.stack([parts[m] for m in range(len(rows))])
    return found.to(torch.promote_types(found.dtype, torch.float32))


def own_logits(policy: Policy, rows: list[list[int]], tokens: int) -> Iterator[tuple[list[int], Tensor]]:
    """What the model's own forward gives for rows of like length, padded on the right, with which rows they are."""
    pad = policy.model.config.get_text_config().pad_token_id or 0
    with own_attention(policy), policy.computing():
        for group in alike(list(map(len, rows)), tokens):
            width = len(rows[group[0]])
            ids = torch.tensor([rows[m] + [pad] * (width - len(rows[m])) for m in group], device=policy.device)
            seen = torch.tensor([[1] * len(rows[m]) + [0] * (width - len(rows[m])) for m in group], device=ids.device)
            mask = {"attention_mask": seen} if len(group) > 1 else {}
            yield group, policy.model(input_ids=ids, **mask, **uncached(policy)).logits


def alike(lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Groups of rows of like length, the longest first, that hold with padding at most so many tokens.

    >>> list(alike([5, 2, 6, 2], 12)), list(alike([5, 2], 1))
    ([[2, 0], [1, 3]], [[0], [1]])
    """
    group: list[int] = []
    for m in sorted(range(len(lengths)), key=lambda m: -lengths[m]):
        if group and (len(group) + 1) * lengths[group[0]] > tokens:
            yield group
            group = []
        group.append(m)
    if group:
        yield group
