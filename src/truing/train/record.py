"""What a training run leaves behind: a line of metrics per step, checkpoints, and the notes between them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from truing.data.batch import Batch
from truing.errors import UserError
from truing.policy.policy import Policy
from truing.train import checkpoint
from truing.train.optim import Optim

Show = Callable[[Mapping[str, float], int], None]


class Record:
    """The record of one training stage in its folder. `key` ties checkpoints to the recipe and data they belong to."""

    def __init__(self, folder: Path, *, key: str = "", every: int | None = None, show: Show | None = None) -> None:
        self.folder, self.key, self.every, self.show = folder, key, every, show
        self.step, self.steps = 0, 0
        self.messages: list[str] = []
        self._parts: list[dict[str, Tensor]] = []
        self._shares: dict[str, float] = {}
        self._loss, self._started = 0.0, time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def metrics_path(self) -> Path:
        """One JSON object per step."""
        return self.folder / "metrics.jsonl"

    def begin(self, policy: Policy, optim: Optim, steps: int) -> None:
        """Go on from the newest whole checkpoint, if there is one; drop metrics of steps that will be done again."""
        self.steps = steps
        found = checkpoint.latest(self.folder / "checkpoints")
        if found is not None:
            step, tensors, facts, damaged = found
            if facts["key"] != self.key:
                raise UserError(
                    f"{self.folder}: its checkpoint belongs to another recipe or other data; give another --out, "
                    "or remove the folder"
                )
            if facts["threads"] != torch.get_num_threads():
                self.messages.append(
                    f"resumed with {torch.get_num_threads()} threads, begun with {facts['threads']}: equal, "
                    "but not bitwise"
                )
            self.messages += damaged
            with torch.no_grad():
                for name, tensor in policy.model.named_parameters():
                    tensor.copy_(tensors["model"][name])
            optim.restore(tensors["optim"])
            self.step = step
        lines = []
        if self.metrics_path.exists():
            lines = [x for x in self.metrics_path.read_text(encoding="utf-8").split("\n") if x.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        self.metrics_path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._started = time.monotonic()

    def note(self, signals: Mapping[str, Tensor], loss: float, shares: Mapping[str, float]) -> None:
        """Keep what a part of the step showed."""
        self._parts.append({name: value.detach() for name, value in signals.items() if name.endswith("_B")})
        self._loss += loss
        for name, share in shares.items():
            self._shares[name] = self._shares.get(name, 0.0) + share

    def close(self, step: int, batch: Batch, optim: Optim, policy: Policy, facts: Mapping[str, float]) -> None:
        """End a step: its line of metrics, and a checkpoint where one is due."""
        now = time.monotonic()
        row: dict[str, Any] = {"step": step, "seconds": round(now - self._started, 4), "tokens": batch.data_tokens}
        row |= {"computed_tokens": batch.tokens, "rows": len(batch.trees), "loss": self._loss}
        row |= (self._shares if len(self._shares) > 1 else {}) | describe(self._parts) | dict(facts)
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._parts, self._shares, self._loss, self._started = [], {}, 0.0, now
        self.step = step
        if self.show is not None:
            self.show(row, self.steps)
        if self.every and step % self.every == 0 and step < self.steps:
            self.keep(optim, policy)

    def keep(self, optim: Optim, policy: Policy) -> None:
        """Write a checkpoint of this step."""
        weights = {name: tensor.detach() for name, tensor in policy.model.named_parameters()}
        facts = {"key": self.key, "threads": torch.get_num_threads()}
        checkpoint.save(self.folder / "checkpoints", self.step, {"model": weights, "optim": optim.state()}, facts)


def describe(parts: list[dict[str, Tensor]]) -> dict[str, float]:
    """The metrics that matter for a method, from its signals: margins and accuracies of pairs, mean log-ratios."""
    if not parts:
        return {}
    shared = set(parts[0]).intersection(*parts)  # a column of the data may be missing from one part's rows
    s = {name: torch.cat([p[name] for p in parts]).double() for name in shared}
    out: dict[str, float] = {}
    if "chosen_reward_B" in s and "rejected_reward_B" in s:
        d = s["chosen_reward_B"] - s["rejected_reward_B"]
        out |= {"accuracy": _share(d), "margin": d.mean().item(), "chosen_reward": s["chosen_reward_B"].mean().item()}
    if "ref_chosen_logp_B" in s and "chosen_logp_B" in s:
        chosen = s["chosen_logp_B"] - s["ref_chosen_logp_B"]
        rejected = s["rejected_logp_B"] - s["ref_rejected_logp_B"]
        out |= {
            "accuracy": _share(chosen - rejected),
            "margin_nats": (chosen - rejected).mean().item(),
            "chosen_log_ratio": chosen.mean().item(),
            "rejected_log_ratio": rejected.mean().item(),
        }
    return out


def _share(difference: Tensor) -> float:
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean().item()
