"""What a training run leaves behind: a line of metrics per step, checkpoints, and the notes between them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from truing.data.batch import Batch
from truing.disk import write_text
from truing.errors import UserError
from truing.policy.policy import Policy
from truing.train import checkpoint, parallel
from truing.train.optim import Optim
from truing.train.shard import piece

Show = Callable[[Mapping[str, float], int], None]
Statistics: TypeAlias = dict[str, dict[str, float]]


class Record:
    """The record of one training stage in its folder. `key` ties checkpoints to the recipe and data they belong to.

    The first rank writes it, for all: figures are those of the whole step.
    """

    def __init__(self, folder: Path, *, key: str = "", every: int | None = None, show: Show | None = None) -> None:
        self.folder, self.key, self.every, self.show = folder, key, every, show
        self.step, self.steps = 0, 0
        self.state: Statistics = {}
        self.messages: list[str] = []
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

        Raises UserError where the checkpoint is another recipe's, or the disk has no room for what will be written.
        """
        self.steps, self.state = steps, {} if state is None else state
        found, damaged = checkpoint.latest(self.folder / "checkpoints")
        self.messages += damaged
        size = sum(p.numel() * p.element_size() for p in policy.model.parameters())
        checkpoint.check_room(self.folder, size, checkpoint.KEPT + 1 if self.every else 1)
        if found is not None:
            self._resume(found, policy, optim)
        if parallel.rank() == 0:
            self._cut_metrics()
        self._started = time.monotonic()

    def _resume(self, found: checkpoint.Stored, policy: Policy, optim: Optim) -> None:
        if found.facts["key"] != self.key:
            raise UserError(
                f"{self.folder}: its checkpoint belongs to another recipe or other data; give another --out, "
                "or remove the folder"
            )
        for name, now in layout().items():
            if found.facts[name] != now:
                self.messages.append(
                    f"resumed with {now} {name}, begun with {found.facts[name]}: equal, but not bitwise"
                )
        named = dict(policy.model.named_parameters())
        stored = found.read("model", named)
        with torch.no_grad():
            for name, parameter in named.items():
                piece(parameter)[0].copy_(stored[name])
        optim.restore(found.read("optim", named))
        self.state.update(found.facts.get("statistics", {}))
        self.step = found.step

    def _cut_metrics(self) -> None:
        lines = []
        if self.metrics_path.exists():
            lines = [x for x in self.metrics_path.read_text(encoding="utf-8").split("\n") if x.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        with checkpoint.room(self.metrics_path):
            write_text(self.metrics_path, "".join(line + "\n" for line in kept))

    def note(
        self, signals: Mapping[str, Tensor], loss: float, shares: Mapping[str, float], weight: float = 1.0
    ) -> None:
        """Keep what a part of the step showed; a part of weight 0 shows nothing."""
        for into, figures in ((self._terms, shares), (self._figures, {"loss": loss} | describe(signals))):
            for name, value in figures.items():
                into[name] = into.get(name, 0.0) + (value if weight else 0.0)

    def close(self, step: int, batch: Batch, optim: Optim, policy: Policy, facts: Mapping[str, float]) -> None:
        """End a step: its line of metrics, and a checkpoint where one is due. RunFailed where the disk is full."""
        now = time.monotonic()
        terms, figures = summed(self._terms), summed(self._figures)
        row: dict[str, Any] = {"step": step, "seconds": round(now - self._started, 4), "tokens": batch.data_tokens}
        row |= {"computed_tokens": batch.tokens, "rows": batch.rows, "loss": figures.pop("loss")}
        row |= terms if len(terms) > 1 else {}
        row |= {name: value / batch.rows for name, value in figures.items()} | dict(facts)
        parallel.agree(self._append(row) if parallel.rank() == 0 else "")
        self._terms, self._figures, self._started = {}, {}, now
        self.step = step
        if self.show is not None:
            self.show(row, self.steps)
        if self.every and step % self.every == 0 and step < self.steps:
            self.keep(optim, policy)

    def _append(self, row: Mapping[str, Any]) -> str:
        """Add a line to the metrics; what went wrong, if anything did, and then no half of the line stays."""
        before = self.metrics_path.stat().st_size
        try:
            with self.metrics_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.metrics_path, before)
            return checkpoint.cannot_write(self.metrics_path, error)
        return ""

    def keep(self, optim: Optim, policy: Policy) -> None:
        """Write a checkpoint of this step. RunFailed where the disk is full."""
        weights = {name: tensor.detach() for name, tensor in policy.model.named_parameters()}
        tensors = {"model": weights, "optim": optim.state()}
        facts = {"key": self.key, "statistics": self.state}
        checkpoint.save(self.folder / "checkpoints", self.step, tensors, facts | layout())


def layout() -> dict[str, int]:
    """What a result depends on in its last bits: the threads of each process, and the processes."""
    return {"threads": torch.get_num_threads(), "processes": parallel.world()}


def summed(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of the whole step from those of each rank; all have the same names, in the same order."""
    values = parallel.total(torch.tensor(list(figures.values()), dtype=torch.float64)).tolist()
    return dict(zip(figures, values, strict=True))


def describe(signals: Mapping[str, Tensor]) -> dict[str, float]:
    """The metrics that matter for a method, summed over rows: margins and accuracies of pairs, log-ratios."""
    s = {name: value.detach().double() for name, value in signals.items() if name.endswith("_B")}
    out: dict[str, Tensor] = {}
    if "chosen_reward_B" in s and "rejected_reward_B" in s:
        d = s["chosen_reward_B"] - s["rejected_reward_B"]
        out |= {"accuracy": _points(d), "margin": d, "chosen_reward": s["chosen_reward_B"]}
    if "ref_chosen_logp_B" in s and "chosen_logp_B" in s:
        chosen = s["chosen_logp_B"] - s["ref_chosen_logp_B"]
        rejected = s["rejected_logp_B"] - s["ref_rejected_logp_B"]
        out |= {
            "accuracy": _points(chosen - rejected),
            "margin_nats": chosen - rejected,
            "chosen_log_ratio": chosen,
            "rejected_log_ratio": rejected,
        }
    return {name: value.sum().item() for name, value in out.items()}


def _points(difference: Tensor) -> Tensor:
    return (difference > 0).double() + 0.5 * (difference == 0).double()
