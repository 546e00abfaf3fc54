"""The record of a training run: a line of metrics per step, checkpoints, and the notes between them."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from truing import door
from truing.data.batch import Batch
from truing.disk import appending, as_json, write_exact
from truing.errors import RunFailed, UserError
from truing.policy.policy import Policy
from truing.policy.precision import Rounding
from truing.train.distributed import process_group
from truing.train.distributed.fsdp import full, piece
from truing.train.optim import Optim
from truing.train.record import believed, checkpoint

Show = Callable[[Mapping[str, float], int], None]
Statistics: TypeAlias = dict[str, dict[str, float]]


class Record:
    """The record of one training stage in its folder. `key` ties checkpoints to the recipe and data they belong to.

    The first rank writes it, for all: figures are those of the whole step.
    """

    def __init__(self, folder: Path, *, key: str = "", every: int | None = None, show: Show | None = None) -> None:
        self.folder, self.key, self.every, self.show = folder, key, every, show
        self.step, self.steps, self.frozen = 0, 0, ""
        self.state: Statistics = {}
        self.messages: list[str] = []
        self._policy: Policy | None = None
        self._terms: dict[str, float] = {}
        self._figures: dict[str, float] = {}
        self._started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def metrics_path(self) -> Path:
        """One JSON object per step."""
        return self.folder / "metrics.jsonl"

    def begin(self, policy: Policy, optim: Optim, steps: int, state: Statistics | None = None) -> None:
        """Go on from the newest whole checkpoint, if there is one; drop metrics of steps that will be done again.

        `state` is what the statistics of whole steps keep from one to the next: it is filled, and kept with every
        checkpoint from then on.

        Raises UserError where the checkpoint is another recipe's or was trained over other frozen weights, or the disk
        has no room for what will be written.
        """
        self.steps, self.state, self._policy = steps, {} if state is None else state, policy
        self.frozen = frozen_digest(policy)
        rows, damaged = checkpoint.latest(self.folder / "checkpoints")
        self.messages += damaged
        learned = size(optim.named.values())
        left = learned if policy.adapter is not None and not policy.merge else size(policy.model.parameters())
        checkpoint.check_room(self.folder, left, learned, checkpoint.KEPT + 1 if self.every else 1)
        if rows is not None:
            self._resume(rows, policy, optim)
        if process_group.rank() == 0:
            self._cut_metrics()
        self._started = time.monotonic()

    def _resume(self, rows: checkpoint.Stored, policy: Policy, optim: Optim) -> None:
        if rows.facts["key"] != self.key:
            raise UserError(
                f"{self.folder}: its checkpoint belongs to another recipe or other data; give another --out, "
                "or remove the folder"
            )
        if rows.facts["frozen"] != self.frozen:
            raise UserError(
                f"{self.folder}: its checkpoint was trained over other frozen weights than those of '{policy.name}' "
                f"now ({rows.facts['frozen']} then, {self.frozen} now); put that model back, or begin with --restart"
            )
        believed.check(self.folder, rows.facts["believed"], rows.step)
        for name, now in layout().items():
            if (then := rows.facts.get(name, "unknown")) != now:
                self.messages.append(f"resumed with {now} {name}, begun with {then}: equal, but not bitwise")
        stored = rows.read("model", optim.named)
        with torch.no_grad():
            for name, parameter in optim.named.items():
                piece(parameter)[0].copy_(stored[name])
        optim.restore(rows.read("optim", optim.named))
        self.state.update(rows.facts.get("statistics", {}))
        self.step = rows.step
        if "rounding" in rows.facts:
            policy.rounding = Rounding(**rows.facts["rounding"])

    def _cut_metrics(self) -> None:
        lines = door.read_log(self.metrics_path) if self.metrics_path.exists() else []
        earlier = [line for line, row in lines if row["step"] <= self.step]
        with checkpoint.room(self.metrics_path):
            write_exact(self.metrics_path, "".join(line + "\n" for line in earlier))

    def note(
        self,
        signals: Mapping[str, Tensor],
        loss: float,
        shares: Mapping[str, float],
        weight: float = 1.0,
        lower_is_better: bool = False,
    ) -> None:
        """Keep what a part of the step showed; a part of weight 0 shows nothing."""
        shown = {"loss": loss} | describe(signals, lower_is_better)
        for into, figures in ((self._terms, shares), (self._figures, shown)):
            for name, value in figures.items():
                into[name] = into.get(name, 0.0) + (value if weight else 0.0)

    def close(self, step: int, batch: Batch, optim: Optim, facts: Mapping[str, float]) -> None:
        """End a step: its line of metrics, and a checkpoint where one is due. RunFailed where the disk is full."""
        now = time.monotonic()
        terms, figures = summed(self._terms), summed(self._figures)
        row: dict[str, Any] = {"step": step, "seconds": round(now - self._started, 4), "tokens": batch.data_tokens}
        row |= {"computed_tokens": batch.tokens, "rows": batch.rows, "loss": figures.pop("loss")}
        row |= terms if len(terms) > 1 else {}
        row |= {name: value / batch.rows for name, value in figures.items()} | dict(facts)
        process_group.agree(self._append(row) if process_group.rank() == 0 else "")
        self._terms, self._figures, self._started = {}, {}, now
        self.step = step
        if self.show is not None:
            self.show(row, self.steps)
        if self.every and step % self.every == 0 and step < self.steps:
            self.keep(optim)

    def _append(self, row: Mapping[str, Any]) -> str:
        """Add a line to the metrics; what went wrong, if anything did, and then no half of the line stays."""
        before = self.metrics_path.stat().st_size
        try:
            with appending(self.metrics_path) as file:
                file.write(as_json(row, self.metrics_path.name) + "\n")
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.metrics_path, before)
            return checkpoint.cannot_write(self.metrics_path, error)
        except RunFailed as error:  # the other processes wait for what this one says
            return str(error)
        return ""

    def keep(self, optim: Optim) -> None:
        """Write a checkpoint of this step: what is trained, and a hash of what is not. RunFailed where the disk is
        full."""
        weights = {name: tensor.detach() for name, tensor in optim.named.items()}
        tensors = {"model": weights, "optim": optim.state()}
        facts = {"key": self.key, "frozen": self.frozen, "statistics": self.state}
        facts["believed"] = believed.listed(self.folder, self.step) if process_group.rank() == 0 else {}
        if self._policy is not None and self._policy.rounding is not None:
            facts["rounding"] = asdict(self._policy.rounding)  # what later steps tell ties by
        checkpoint.save(self.folder / "checkpoints", self.step, tensors, facts | layout())


def layout() -> dict[str, int | str]:
    """The machine as far as a result's last bits depend on it: the threads of each process, the processes, and the
    instruction set that torch computes with on this processor."""
    return {
        "threads": torch.get_num_threads(),
        "processes": process_group.world(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def size(parameters: Iterable[Tensor]) -> int:
    """The bytes of these parameters over all ranks."""
    return sum(p.numel() * p.element_size() for p in parameters)


def frozen_digest(policy: Policy) -> str:
    """A content hash of the weights that are not trained, the same for any number of ranks; empty where there are none.

    Buffers are not in it, nor in a checkpoint: the model is in evaluation mode throughout, so nothing writes to them.
    """
    frozen = [(name, p) for name, p in policy.model.named_parameters() if not p.requires_grad]
    return _digest(frozen) if frozen else ""


def learned_digest(policy: Policy) -> str:
    """A content hash of the weights that are trained: the same before and after a stage that moved none. One that is 0
    beside the largest but for rounding is 0 here: every rate moves a weight that was 0, however small it is."""
    named = [(name, p.detach()) for name, p in policy.model.named_parameters() if p.requires_grad]
    largest = max((p.abs().max().item() for _, p in named if p.numel()), default=0.0)
    return _digest((name, p.masked_fill(p.abs() <= largest * torch.finfo(p.dtype).eps, 0)) for name, p in named)


def _digest(named: Iterable[tuple[str, Tensor]]) -> str:
    out = hashlib.sha256()
    for name, parameter in named:
        whole = full(parameter.detach()).cpu().contiguous()
        out.update(f"{name} {list(whole.shape)} {whole.dtype}".encode())
        out.update(whole.reshape(-1).view(torch.uint8).numpy().data)
    return out.hexdigest()[:16]


def summed(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of the whole step from those of each rank; all have the same names, in the same order."""
    values = process_group.total(torch.tensor(list(figures.values()), dtype=torch.float64)).tolist()
    return dict(zip(figures, values, strict=True))


def describe(signals: Mapping[str, Tensor], lower_is_better: bool = False) -> dict[str, float]:
    """The metrics that matter for a method, summed over rows: margins and accuracies of pairs, whether the best of a
    ranking comes first, log-ratios with the sign of their label, errors of scores. What is within rounding of a tie
    counts half. Of a cost (`lower_is_better`) the chosen response is to have less."""
    sign = -1 if lower_is_better else 1
    s = {name: value.detach().double() for name, value in signals.items()}
    within = s.get("tie_tolerance_B", torch.zeros((), dtype=torch.float64))
    out: dict[str, Tensor] = {}
    if "chosen_reward_B" in s and "rejected_reward_B" in s:
        d = sign * (s["chosen_reward_B"] - s["rejected_reward_B"])
        out |= {"accuracy": _points(d, within), "margin": d, "chosen_reward": s["chosen_reward_B"]}
    if "ref_chosen_logp_B" in s and "chosen_logp_B" in s:
        chosen = s["chosen_logp_B"] - s["ref_chosen_logp_B"]
        rejected = s["rejected_logp_B"] - s["ref_rejected_logp_B"]
        out |= {
            "accuracy": _points(chosen - rejected, within),
            "margin_nats": chosen - rejected,
            "chosen_log_ratio": chosen,
            "rejected_log_ratio": rejected,
        }
    if "rank_mask_BK" in s:
        score = sign * s["reward_BK"] if "reward_BK" in s else s["logp_BK"] - s.get("ref_logp_BK", torch.zeros(()))
        others = score.masked_fill(s["rank_mask_BK"] == 0, -math.inf)[:, 1:].amax(1)
        out["best_first"] = _points(score[:, 0] - others, s.get("lead_tolerance_B", torch.zeros_like(others)))
    if "entropy_BT" in s:  # of each response its own tokens' mean, as all of these are means over rows
        out["entropy_nats"] = (s["entropy_BT"] * s["mask_BT"]).sum(1) / s["mask_BT"].sum(1).clamp(min=1)
    if "sampler_gap_B" in s:
        out["sampler_gap"] = s["sampler_gap_B"]
    if "desirable_B" in s and "ref_logp_B" in s:
        out["signed_log_ratio"] = (2 * s["desirable_B"] - 1) * (s["logp_B"] - s["ref_logp_B"])
    for name in [key for key in s if key.startswith("target_B") and key.replace("target", "reward") in s]:
        error = (s[name.replace("target", "reward")] - s[name]).square()
        out[name.replace("target_B", "squared_error").replace(":", "_")] = error
    return {name: value.sum().item() for name, value in out.items()}


def _points(difference: Tensor, within: Tensor) -> Tensor:
    return (difference > within).double() + 0.5 * (difference.abs() <= within).double()
