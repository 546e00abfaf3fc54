"""Checks before an update: a policy begins at its reference and at its sampler, and a loss is a number.

Readings are compared token by token, as far as rounding explains (`policy/precision.py`): a sum's rounding grows with
its length, so one bound for all lengths would refuse long responses or trust short ones too much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from truing.data.batch import Batch
from truing.policy.policy import Policy
from truing.policy.precision import Gap, unit
from truing.train.objective_sum import WeightedObjectives

RATIO = "old_"
"""Prefixes of the signals that a ratio to the sampling policy is formed with."""

SIGNED = {
    "tie_tolerance_B": frozenset({"rejected_reward_B", "ref_rejected_logp_B"}),
    "lead_tolerance_B": frozenset({"rank_mask_BK"}),
}
"""The signals by which metrics tell ties, and those of whose differences they count the signs."""


def compared(objective: WeightedObjectives, step: int, fresh: bool, alike: bool) -> frozenset[str]:
    """The readings that `trouble` compares at this step, and what metrics tell ties by.

    `fresh`: the policy gave the step's rollouts itself, just now; `alike`: before the first update it is its own
    reference.
    """
    readings: set[str] = set()
    if step == 1 and alike and objective.needs_reference:
        readings |= {"own_R", "reference_R"}
    if fresh and any(term.objective.advantage is not None for term in objective.terms):
        readings |= {"own_R", "sampler_R", "sampler_gap_B"}
    names = {name.partition(":")[0] for name in objective.all_signals}
    readings |= {tolerance for tolerance, signed in SIGNED.items() if names & signed}
    return frozenset(readings)


def with_own(names: Iterable[str]) -> frozenset[str]:
    """These signals, and of each that is known from sampling the policy's own."""
    names = frozenset(names)
    return names | {name.removeprefix(RATIO) for name in names if name.startswith(f"{RATIO}logp")}


def at_sampling(signals: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The signals of a policy that has not been updated since it gave the rollouts: it is itself the one that ratios
    are taken to, so they are exactly 1 whatever engine and precision sampled."""
    distances = [name for name in signals if name.startswith(f"{RATIO}logp")]
    return dict(signals) | {name: signals[name.removeprefix(RATIO)].detach().double() for name in distances}


def trouble(
    step: int, part: Batch, policy: Policy, signals: Mapping[str, Tensor], loss: float, corrected: bool = False
) -> str:
    """Why the model must not be updated by this part, or an empty string. `corrected`: how far the sampler is off is
    weighed, and no reason to stop."""
    if "reference_R" in signals:
        gap, allowed = Gap.between(signals["own_R"], signals["reference_R"]), policy.allowed(part)
        if not gap.within(allowed):
            return (
                f"step {step}: the policy's log-probabilities differ from its reference's by {text(gap, allowed)} "
                "before any update; the reference belongs to other weights, or something in the forward pass is random"
            )
    if "sampler_R" in signals and not corrected:
        exact = max(policy.dtype, torch.float32, key=unit)  # samplers give no more than fp32
        gap, allowed = Gap.between(signals["own_R"], signals["sampler_R"]), policy.allowed(part, exact)
        if not gap.within(allowed):
            return (
                f"step {step}: the sampler's log-probabilities differ from the trainer's by {text(gap, allowed)} "
                "before any update, so other weights sampled; nothing was updated. Where the sampler computes in "
                "another precision, weigh its responses by the difference: sampler_cap: 2"
            )
    return "" if math.isfinite(loss) else not_finite(step, part, loss)


def text(gap: Gap, allowed: float) -> str:
    """A gap in words.

    >>> text(Gap(0.5, 2.0), 1e-4)
    '5.0e-01 nats a token (root mean square; at most 2.0e+00; rounding explains 1.0e-04)'
    """
    return f"{gap.rms:.1e} nats a token (root mean square; at most {gap.largest:.1e}; rounding explains {allowed:.1e})"


def not_finite(step: int, part: Batch, loss: float) -> str:
    """The message for a loss that is not a number: where it came from, and that nothing was updated."""
    rows = [tree.row for tree in part.trees]
    shown = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
    what = "not a number" if math.isnan(loss) else "infinite"
    return (
        f"step {step}: the loss is {what} on data rows {shown}; the model was not updated. Try a lower learning_rate."
    )
