"""A policy: a causal or reward model that is read in trees."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from truing.data.batch import Batch
from truing.errors import RunFailed, UserError
from truing.policy import ends
from truing.policy.digest import tensors_digest
from truing.policy.logp import Logits, token_logp, token_logp_and_entropy
from truing.policy.plain import measured, own_logp, own_reading, own_rewards, plain_logp, plain_rewards
from truing.policy.precision import Gap, Rounding
from truing.policy.probes import probe, uneven_probe
from truing.policy.scalars import Heads
from truing.policy.trees import Plan, attending

Layout: TypeAlias = Literal["trees", "padded", "rows"]
Precision: TypeAlias = Literal["fp32", "bf16"]
Beside: TypeAlias = Literal["value", "entropy"]
"""Quantities of response tokens that are read besides their log-probabilities, in the same forward pass."""
TIES = "tie_logit"
"""The name of a reward model's tie parameter."""
UNREAD = ("dtype", "torch_dtype", "transformers_version", "architectures", "name_or_path")
"""Keys of a config that change no number."""


@dataclass
class Policy:
    """A Hugging Face model with its tokenizer. `layout` says whether its layers read trees, padded rows of responses,
    or one row at a time. With an `adapter` (peft's, whose layers are in the model) only that is trained. `temperature`
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
    shares_prompts: bool | None = None  # for the responses sampled from it; None until the engine has tried
    rounding: Rounding | None = None  # of its readings; None until a batch has shown it

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype layers compute in; weights may be kept in more."""
        return torch.bfloat16 if self.precision == "bf16" else self.model.dtype

    def compute_in(self, precision: Precision) -> None:
        """Compute in this precision from now on; UserError where the device has not got it."""
        if precision == "bf16" and self.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise UserError(f"{torch.cuda.get_device_name()} does not compute in bf16; set precision: fp32")
        if precision != self.precision:
            self.rounding, self.verified, self.shares_prompts = None, False, None
        self.precision = precision

    @contextmanager
    def computing_in(self, precision: Precision) -> Iterator[None]:
        """Within this block layers compute in this precision."""
        before, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = before

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
        return (read := self.read(batch, "value"))["logp"], read["value"]

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
            figures = self.head_logp(h_RH, batch, "entropy" in beside)
        else:
            figures = own_reading(self, batch, self._together(batch), "entropy" in beside)
        if headed:
            value: Tensor = self.model.value_head(h_RH.to(self.model.dtype)).squeeze(-1)
            figures["value"] = value.to(torch.promote_types(value.dtype, torch.float32))
        elif "value" in beside:
            figures["value"] = self.model.value_model(batch)
        self.check_numbers(figures["logp"])
        return figures

    def put_value_head(self) -> None:
        """Give a language model a head that forecasts the reward still to come; it begins at 0."""
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
            scores = own_rewards(self, batch, self._together(batch))
        else:
            scores = self.head_scores(self.hidden(batch, batch.ends_M))
        self.check_numbers(scores)
        return scores

    def head_rewards_at(self, batch: Batch, at: Tensor) -> Tensor:
        """Every scalar head read at these places of the packed row, shape [len(at), heads]; UserError for a model that
        is not read in trees: its own forward gives one score a row."""
        self.check_ids(batch)
        self.verify(batch)
        if self.layout != "trees":
            raise UserError(f"{self.name}: {self.model.config.model_type} gives no score inside a response")
        scores = self.head_scores(self.hidden(batch, at))
        self.check_numbers(scores)
        return scores

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

    def head_scores(self, h_MH: Tensor) -> Tensor:
        """Every scalar head's score of these hidden states, fp32 or more, shape [M, heads]."""
        score: Tensor = self.model.score(h_MH.to(self.model.dtype))
        return score.to(torch.promote_types(score.dtype, torch.float32))

    def head_logits(self, h_RH: Tensor) -> Tensor:
        """The logits that the head gives at these hidden states, fp32 or more, at temperature 1."""
        weight, bias, logits = self._head(1.0)
        return logits.of(h_RH.to(self.dtype), weight, bias)

    def _head(self, temperature: float) -> tuple[Tensor, Tensor | None, Logits]:
        """The head's weights, and how it makes logits of them. A GPU multiplies in `dtype` and sums in fp32; a CPU has
        no such product and multiplies in fp32."""
        (weight, bias), config = ends.head(self.model), self.model.config
        scale = float(getattr(config, "logit_scale", None) or 1.0) / float(
            getattr(config, "logits_scaling", None) or 1.0
        )
        cap = getattr(config, "final_logit_softcapping", None)
        weight = weight.to(self.dtype) if self.device.type == "cuda" else weight
        return weight, bias, Logits(scale, cap, temperature)

    def head_logp(self, h_RH: Tensor, batch: Batch, spread: bool = False) -> dict[str, Tensor]:
        """`logp` of the response tokens that these hidden states predict, and with `spread` their `entropy`; nats."""
        weight, bias, logits = self._head(self.temperature)
        inputs = (h_RH.to(self.dtype), weight, batch.target_R.to(self.device), bias, logits)
        figures = token_logp_and_entropy(*inputs) if spread else (token_logp(*inputs),)
        return dict(zip(("logp", "entropy"), figures, strict=False))

    def check_ids(self, batch: Batch) -> None:
        """Refuse a token that the model has no embedding for."""
        rows, largest = ends.rows(self.model), int(batch.ids_N.max())
        if largest >= rows:
            raise UserError(
                f"model '{self.name}': its tokenizer writes {self.tokenizer.convert_ids_to_tokens(largest)!r} as "
                f"{largest}, and its embedding has {rows} rows; they do not belong together"
            )

    def check_numbers(self, read: Tensor) -> None:
        """RunFailed where something read of data is NaN or infinite; in training the loss shows it, and says so."""
        if not torch.is_grad_enabled() and not read.isfinite().all():
            count = int((~read.isfinite()).sum())
            raise RunFailed(
                f"{self.name}: {count:,} of the {read.numel():,} numbers that the model gives of this data are NaN or "
                "infinite; its weights are damaged, or overflow"
            )

    def allowed(self, batch: Batch, dtype: torch.dtype | None = None) -> float:
        """The difference allowed between two right readings of tokens (of a reward model: of scores), root mean square;
        see `precision.Rounding`, measured on two trees of this batch where it has not been yet.

        Of `dtype` in place of the policy's own. transformers' own attention takes its softmax in fp32, so a model that
        is not read in trees is no more exact than that.
        """
        if self.rounding is None:
            self.measure(batch)
        assert self.rounding is not None
        dtype = dtype or self.dtype
        return self.rounding.allowed(torch.float32 if dtype == torch.float64 and self.layout != "trees" else dtype)

    def measure(self, batch: Batch) -> None:
        """Measure the rounding of this policy's readings on two trees of this batch, as its weights are now."""
        self.rounding = measured(self, probe(batch, None))

    def noise(self, batch: Batch) -> float:
        """The error of a token's log-probability (of a reward model: a score) by rounding alone, as if every reading
        rounded by itself: half of what is allowed. A margin that is no larger has no sign."""
        return self.allowed(batch) / 2

    def verify(self, batch: Batch) -> None:
        """Once per policy and precision: two trees of the first batch, packed, must read as the model's own forward
        reads rows, as far as rounding allows.

        Where our head does not give the model's own logits (a head with parts of its own), the policy falls back to
        the model's own forward, one row per response, and `notes` says so. Where attention over trees is what differs,
        the run stops. In bf16 this is judged in fp32, in which a fault stands out, and then bf16 is held against fp32.
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
        read = own_rewards if self.is_reward else own_logp
        if self.is_reward and self.model.config.pad_token_id is None:
            self.layout = "rows"
            self.notes.append("the reward model has no padding token: reading one row at a time (slower)")
            return
        uneven = uneven_probe(batch)
        with torch.no_grad(), self.computing_in("fp32"):
            gap = Gap.between(read(self, uneven, sys.maxsize), read(self, uneven, 1))
        if not gap.within(self.allowed(uneven, torch.float32)):
            self.layout = "rows"
            self.notes.append(
                f"padding changes what {self.model.config.model_type} gives by {gap.largest:.2e}: reading one row at a "
                "time"
            )

    def _agrees(self, probed: Batch) -> bool:
        """True if trees are read as rows are: judged in fp32, in which a fault stands out, and then in bf16."""
        read_rows = own_rewards if self.is_reward else own_logp
        self.allowed(probed)  # measured in the policy's own precision
        with self.computing_in("fp32"):
            wanted = read_rows(self, probed)
            if not wanted.isfinite().all():
                raise RunFailed(
                    f"{self.name}: the model's own forward gives numbers that are not finite on this data, in fp32; "
                    "its weights are damaged, or overflow. Nothing was trained"
                )
            if not self._honours_trees(probed, wanted):
                return False
        if self.precision == "bf16":
            gap = Gap.between(self._by_trees(probed), wanted)
            if not gap.within(self.allowed(probed)):
                raise RunFailed(
                    f"{self.name}: in bf16, trees read {gap.rms:.1e} nats a token (root mean square) off the model's "
                    f"own rows in fp32, and its rounding explains {self.allowed(probed):.1e}; in fp32 they agree. "
                    "Nothing was trained; set precision: fp32"
                )
        return True

    def _by_trees(self, probed: Batch) -> Tensor:
        return self.head_rewards(probed) if self.is_reward else self.logp(probed)

    def _honours_trees(self, probed: Batch, wanted: Tensor) -> bool:
        kind, most = self.model.config.model_type, self.allowed(probed, torch.float32)
        gap = Gap.between(self._by_trees(probed), wanted)
        if gap.within(most):
            return True
        plain = plain_rewards(self, probed) if self.is_reward else plain_logp(self, probed)
        apart = Gap.between(plain, wanted)
        if apart.within(most):
            raise RunFailed(
                f"{self.name}: reading trees differs from plain rows by {gap.rms:.2e} a token (root mean square; the "
                f"largest {gap.largest:.2e}), where rounding explains {most:.1e}; plain rows with the same head agree, "
                f"so this architecture ({kind}) has a part that tree attention does not honour; nothing was trained"
            )
        self.notes.append(
            f"the head of {kind} has parts of its own ({apart.largest:.2e} nats apart): reading rows of responses "
            "(slower)"
        )
        return False

    @property
    def is_reward(self) -> bool:
        """True for a reward model (a scalar head), False for a language model."""
        return type(self.model).__name__.endswith("ForSequenceClassification")

    def weights_digest(self) -> str:
        """A content hash of all weights and of the config: two policies with the same digest give the same numbers."""
        config = {k: v for k, v in self.model.config.to_dict().items() if k not in UNREAD and not k.startswith("_")}
        return tensors_digest([config, self.layout], self.model)
