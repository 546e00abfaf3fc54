"""Rewards that models give, and the world's truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from truing.data.thoughts import answer_of
from truing.records import BelowOne, Messages, NonNegative, Positive, Reward, Score
from truing.registry import Model, RewardModel, reward

if TYPE_CHECKING:
    from truing.rewards import scoring


@reward(scope="response", deterministic=True)
def gold(prompt: Messages, response: str) -> Score:
    """The embedded world's true reward of a response to one of its prompts."""
    from truing.world.reading import gold

    return gold(prompt, answer_of(response))


@reward(scope="response")
def reward_model(
    *, model: Annotated[RewardModel, "the reward model that scores, or several whose mean counts"]
) -> scoring.RewardModel:
    """The score of a trained reward model; its heads' scores are among the parts.

    `$rm` alone is short for `{reward_model: {model: $rm}}`."""
    return model  # type: ignore[no-any-return]


@reward(scope="response")
def ensemble(
    first: tuple[Sequence[Messages], Sequence[str]],
    *,
    models: Annotated[RewardModel, "the members, or one model of several heads"],
    how: Annotated[
        Literal["mean", "worst", "uncertainty"],
        "their mean, the lowest, or the mean less a share of the variance; the last two distrust what they disagree on",
    ] = "mean",
    coefficient: Annotated[
        NonNegative, "of uncertainty: how much of the members' variance is subtracted; larger is more careful"
    ] = 0.5,
) -> Reward:
    """Several reward models, or the heads of one, as one: their mean, the lowest, or the mean less a share of the
    variance.

    Each is first put on one scale: mean 0 and deviation 1 on the policy's own first responses."""
    from truing.rewards import scoring

    several = isinstance(models, Mapping)
    panel = scoring.of_models(models) if several else scoring.of_heads(models)
    return scoring.ensemble(panel, *first, how, coefficient)


@reward(scope="response")
def density_ratio(
    *,
    safe: Annotated[Model, "the model of good responses, towards which the policy is drawn"],
    unsafe: Annotated[Model, "the model of bad responses, from which it is pushed"],
    alpha: Annotated[Positive, "reward per nat of log-ratio between the two; larger pushes harder from unsafe"] = 0.5,
    floor: Annotated[BelowOne, "share of safe mixed into unsafe, which bounds the reward of a response"] = 0.01,
    reference: Annotated[Model | None, "a third model, weighted by `away`"] = None,
    away: Annotated[
        NonNegative, "reward per nat of log-ratio of reference to safe; larger draws from safe to reference"
    ] = 0.0,
) -> Reward:
    """The log-ratio of a response's likelihood under a model of good responses (`safe`) and of bad (`unsafe`), nats.

    alpha * log[p_s / ((1 - floor) p_u + floor p_s)] + away * log[reference / p_s]. Where the policy begins as `safe`
    and `beta` of the stage is 1 - alpha + away, what maximises it minimises KL(pi || p_s) - alpha KL(pi || p_u) + away
    KL(pi || reference)."""
    from truing.rewards.density_ratio import DensityRatio

    return DensityRatio(safe, unsafe, alpha, floor, reference, away)
