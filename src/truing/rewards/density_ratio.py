"""The explicit divergence objective as a reward: how much likelier a response is under a model of good responses than
of bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from truing.data.batch import Batch, pack
from truing.data.rendering.render import Renderer
from truing.errors import UserError
from truing.objectives.closed_form import floored_log_ratio
from truing.policy.policy import Policy
from truing.records import Messages, Score
from truing.rewards.call import failed
from truing.rewards.readable import readable

TOKENS = 16384


@dataclass(frozen=True)
class DensityRatio:
    """A reward from two language models, one fitted to good responses (`safe`) and one to bad (`unsafe`).

        R(y) = alpha * log[p_s(y) / q(y)] + weight * log[ref(y) / p_s(y)],   q = (1 - floor) p_u + floor p_s

    Under KL control to p_s with coefficient 1 - alpha + weight (the policy begins as `safe`, `beta` of the stage), what
    maximises it minimises KL(pi || p_s) - alpha KL(pi || p_u) + weight KL(pi || ref); `kl_coefficient` is that number.
    `floor` bounds the first logarithm by -log floor, for the fitted p_u is least to be trusted where the policy is
    pushed; 0 leaves it out. Sums over a response's tokens, nats; each model reads the text by its own tokenizer. Has a
    closed form: `closed_form.explicit_optimum`. UserError unless alpha < 1 + weight: the objective is otherwise
    unbounded.
    """

    safe: Policy
    unsafe: Policy
    alpha: float = 0.5
    floor: float = 0.01
    reference: Policy | None = None
    weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise UserError(f"floor is {self.floor:g}: give a share from 0 up, and below 1")
        if (self.reference is None) != (self.weight == 0):
            raise UserError("a density ratio with a reference needs its weight above 0, and a weight its reference")
        if not 0 < self.alpha < 1 + self.weight:
            raise UserError(f"alpha is {self.alpha:g}: it must be above 0 and below {1 + self.weight:g}")

    @property
    def kl_coefficient(self) -> float:
        """The coefficient of KL(pi || p_s) (`beta`) that this reward goes with."""
        return 1 - self.alpha + self.weight

    def __call__(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]:
        """The reward of each response, and each model's log-probability of it; one that a model cannot read has
        failed."""
        named = {"safe": self.safe, "unsafe": self.unsafe}
        named |= {} if self.reference is None else {"reference": self.reference}
        logps = {name: log_probabilities(policy, prompts, responses) for name, policy in named.items()}
        return [self._score(dict(zip(logps, row, strict=True))) for row in zip(*logps.values(), strict=True)]

    def _score(self, row: dict[str, float | Score]) -> Score:
        for name, read in row.items():
            if isinstance(read, Score):
                return failed(f"{name}: {read.why}", read.blame)
        logp = {name: read for name, read in row.items() if not isinstance(read, Score)}
        safe, unsafe = (torch.tensor(logp[name], dtype=torch.float64) for name in ("safe", "unsafe"))
        ratio = floored_log_ratio(safe, unsafe, self.floor) if self.floor else safe - unsafe
        away = self.weight * (logp["reference"] - logp["safe"]) if self.reference is not None else 0.0
        return Score(self.alpha * ratio.item() + away, logp)


def log_probabilities(policy: Policy, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | Score]:
    """Each response's log-probability with its end token, nats; or a failed score that says why the policy cannot read
    it."""
    trees, problems = readable(policy, Renderer(policy.tokenizer), prompts, responses, "it")
    by_place: dict[int, float | Score] = dict(problems)
    with torch.inference_mode():
        for group in pack(trees, TOKENS):
            batch = Batch(group)
            sums = batch.sums(policy.logp(batch).cpu())
            by_place |= dict(zip((tree.index for tree in group), sums.tolist(), strict=True))
    return [by_place[i] for i in range(len(responses))]
