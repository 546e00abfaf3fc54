"""Rewards that models give, and the world's truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from truing.data.thoughts import answer_of
from truing.registry import Model, RewardModel, reward
from truing.types import BelowOne, Messages, NonNegative, Positive, Reward, Score

if TYPE_CHECKING:
    from truing.rollout import rewards


@reward(scope="response", deterministic=True)
def gold(prompt: Messages, response: str) -> Score:
    """The embedded world's true reward of an answer to one of its prompts."""
    from truing.world.reading import gold

    return gold(prompt, answer_of(response))


@reward(scope="response")
def reward_model(*, model: RewardModel) -> rewards.RewardModel:
    """What a trained reward model says of an answer; what its heads say is among the parts of its score.

    `$rm` alone is short for `{reward_model: {model: $rm}}`."""
    return model  # type: ignore[no-any-return]


@reward(scope="response")
def ensemble(
    first: tuple[Sequence[Messages], Sequence[str]],
    *,
    models: RewardModel,
    how: Literal["mean", "worst", "uncertainty"] = "mean",
    coefficient: NonNegative = 0.5,
) -> Reward:
    """Several reward models, or the heads of one, as one: their mean, the lowest, or the mean less a share of the
    variance.

    Each is first put on one scale: mean 0 and deviation 1 on the policy's own first answers."""
    from truing.rollout import rewards

    several = isinstance(models, Mapping)
    panel = rewards.of_models(models) if several else rewards.of_heads(models)
    return rewards.ensemble(panel, *first, how, coefficient)


@reward(scope="response")
def density_ratio(
    *,
    safe: Model,
    unsafe: Model,
    alpha: Positive = 0.5,
    floor: BelowOne = 0.01,
    reference: Model | None = None,
    away: NonNegative = 0.0,
) -> Reward:
    """How much likelier an answer is under a model of good answers (`safe`) than under one of bad (`unsafe`), nats.

    alpha * log[p_s / ((1 - floor) p_u + floor p_s)] + away * log[reference / p_s]. Where the policy begins as `safe`
    and `beta` of the stage is 1 - alpha + away, what maximises it minimises KL(pi || p_s) - alpha KL(pi || p_u) + away
    KL(pi || reference)."""
    from truing.rollout.density import DensityRatio

    return DensityRatio(safe, unsafe, alpha, floor, reference, away)
