"""Rewards: functions of prompt and response as text. A reward that fails is a failed score, never 0.0."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from truing.data.batch import Batch, pack
from truing.data.rendering.whole_conversation import WholeConversation
from truing.data.thoughts import answer_of
from truing.errors import RunFailed, UserError
from truing.objectives.equal import rounding
from truing.policy.policy import Policy
from truing.records import Messages, Reward, Score, is_number
from truing.rewards.call import failed
from truing.rewards.readable import readable
from truing.world.reading import gold as world_gold

TOKENS = 16384
How: TypeAlias = Literal["mean", "worst", "uncertainty"]
"""The ways to make one value of an ensemble's members: their mean, the lowest, or the mean less a share of the
variance."""
Panel: TypeAlias = Callable[[Sequence[Messages], Sequence[str]], Mapping[str, list[Score]]]
"""A function that returns the scores of responses by every member of an ensemble, by name."""
DISAGREEMENT = "disagreement"


def gold(prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]:
    """The embedded world's true reward of each response."""
    return [world_gold(prompt, answer_of(response)) for prompt, response in zip(prompts, responses, strict=True)]


class RewardModel:
    """A trained reward model as a reward. It reads a conversation as its own template writes it.

    UserError for a model of single steps."""

    def __init__(self, policy: Policy) -> None:
        policy.scalars.check_whole(policy.name)
        self.policy, self.renderer = policy, WholeConversation(policy.tokenizer)

    @property
    def tie_tolerance(self) -> float:
        """The most by which two scores may differ by rounding alone; 0 until some have been computed."""
        rounding = self.policy.rounding
        if rounding is None:
            return 0.0
        return 2**0.5 * math.hypot(*self.policy.scalars.shares) * rounding.allowed(self.policy.dtype) / 2

    def __call__(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]:
        """The reward of each response, with the score of each named head among its `parts`; one whose prompt its
        template cannot write, or that it cannot read whole, has failed."""
        read, problems = readable(self.policy, self.renderer, prompts, responses, "the reward model")
        by_place = dict(problems)
        with torch.inference_mode():
            rows = [row for group in pack(read, TOKENS) for row in self.policy.head_rewards(Batch(group)).tolist()]
        by_place |= {tree.index: self._score(row) for tree, row in zip(read, rows, strict=True)}
        return [by_place[i] for i in range(len(responses))]

    def _score(self, row: Sequence[float]) -> Score:
        heads = self.policy.scalars
        value = sum(weight * each for weight, each in zip(heads.shares, row, strict=True))
        return Score(value, {name: each for name, each in zip(heads.names, row, strict=True) if name})


def of_models(rewards: Mapping[str, Reward]) -> Panel:
    """Several rewards as the members of an ensemble."""
    return lambda prompts, responses: {name: reward(prompts, responses) for name, reward in rewards.items()}


def of_heads(model: RewardModel) -> Panel:
    """The heads of one reward model as the members of an ensemble."""

    def read(prompts: Sequence[Messages], responses: Sequence[str]) -> Mapping[str, list[Score]]:
        scores = model(prompts, responses)
        return {name: [s if s.failed else Score(s.parts[name]) for s in scores] for name in model.policy.heads}

    return read


@dataclass(frozen=True)
class Ensemble:
    """Several members as one reward. Its scores have every member's own among their `parts`, and their `disagreement`.

    Preferences do not determine a reward's offset, and members that were fitted otherwise differ in scale. So each is
    first put on one scale, where the responses that the ensemble was made on (see `ensemble`) have mean 0 and deviation
    1: values, and disagreements, are in such deviations.
    """

    panel: Panel
    scales: Mapping[str, tuple[float, float]]
    how: How = "mean"
    coefficient: float = 0.5

    def __call__(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]:
        """One score for each response; it has failed where one member's has."""
        members = self.panel(prompts, responses)
        return [
            self._score(dict(zip(members, rows, strict=True)))
            for rows in zip(*(_as_many(name, rows, responses) for name, rows in members.items()), strict=True)
        ]

    def _score(self, row: Mapping[str, Score]) -> Score:
        for name, score in row.items():
            if score.failed or not is_number(score.value):
                return failed(f"{name}: {score.why or f'its value is {score.value!r}'}", score.blame)
        parts = {n: (s.value - self.scales[n][0]) / self.scales[n][1] for n, s in row.items()}
        values = np.array(list(parts.values()))[:, None]
        return Score(aggregated(values, self.how, self.coefficient).item(), parts | {DISAGREEMENT: float(values.std())})


def ensemble(
    panel: Panel,
    prompts: Sequence[Messages],
    responses: Sequence[str],
    how: How = "mean",
    coefficient: float = 0.5,
) -> Ensemble:
    """The members of a panel as one reward, each put on one scale by its scores of these responses: best those of
    the policy that everything else is measured from, where members were fitted and agree most.

    UserError for fewer than two members, or one that scores all these responses alike.
    """
    scales = {}
    for name, member in panel(prompts, responses).items():
        values = np.array([value for value in _values(member, responses, strict=False) if not math.isnan(value)])
        scales[name] = (float(values.mean()), float(values.std())) if len(values) else (0.0, 0.0)
        if not scales[name][1] > rounding(torch.float32) * abs(scales[name][0]):  # reward models score in fp32
            raise UserError(
                f"ensemble: {name} scores all {len(values)} responses alike, so it has no scale like the others"
            )
    if len(scales) < 2:
        raise UserError("an ensemble has at least two members: give several reward models, or one of several heads")
    return Ensemble(panel, scales, how, coefficient)


def aggregated(values_KB: NDArray[np.float64], how: How, coefficient: float = 0.5) -> NDArray[np.float64]:
    """One value for each response from those of K members, which have one scale.

        mean: m     worst: the lowest     uncertainty: m - coefficient * v,   m, v the mean and variance over members

    The variance is that of the members themselves (divided by K), as in the paper's own best-of-n code; its PPO code
    divides by K - 1 (Coste et al. 2023, arXiv 2310.02743).

    >>> aggregated(np.array([[1.0, 2.0], [3.0, 2.0]]), "uncertainty").tolist()
    [1.5, 2.0]
    """
    penalty = coefficient * values_KB.var(axis=0) if how == "uncertainty" else 0.0
    values_B: NDArray[np.float64] = values_KB.min(axis=0) if how == "worst" else values_KB.mean(axis=0) - penalty
    return values_B


def scores(reward: Reward, prompts: Sequence[Messages], responses: Sequence[str], strict: bool = True) -> list[float]:
    """The values of a reward, checked: as many as responses, finite, none failed. Unless `strict`, a response that
    is itself the reason why it has no score is NaN, and is to be left out and counted."""
    return [score.value for score in judged(reward, prompts, responses, strict)]


def judged(reward: Reward, prompts: Sequence[Messages], responses: Sequence[str], strict: bool = True) -> list[Score]:
    """The scores of a reward, checked in the same way."""
    checked = reward(prompts, responses)
    _values(checked, responses, strict)
    return checked


def _values(scores: Sequence[Score], responses: Sequence[str], strict: bool) -> list[float]:
    _as_many("the reward", scores, responses)
    for i, score in enumerate(scores):
        if not isinstance(score, Score):
            raise RunFailed(f"the reward failed on response {i + 1}: it gave {score!r}, which is no Score")
        if (score.failed or not is_number(score.value)) and (strict or score.blame == "reward"):
            raise RunFailed(f"the reward failed on response {i + 1}: {score.why or f'its value is {score.value!r}'}")
    return [score.value for score in scores]


def _as_many(name: str, scores: Sequence[Score], responses: Sequence[str]) -> Sequence[Score]:
    if len(scores) != len(responses):
        raise RunFailed(f"{name} gave {len(scores)} scores for {len(responses)} responses")
    return scores
