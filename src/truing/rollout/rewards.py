"""Rewards: functions of prompt and response as text. A reward that fails says so; it never becomes 0.0."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from truing.data.batch import Batch, Branch, Tree, pack
from truing.data.render import Renderer
from truing.errors import RunFailed
from truing.policy.load import context_length
from truing.policy.policy import Policy
from truing.types import Message, Messages, Reward, Score
from truing.world.reading import gold as world_gold

TOKENS = 16384


def gold(prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]:
    """The embedded world's true reward of each response."""
    return [world_gold(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]


class RewardModel:
    """A trained reward model as a reward. It reads text through its own tokenizer and template."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.renderer = policy, Renderer(policy.tokenizer)

    def __call__(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]:
        """The scalar head's value for each response; one that the model cannot read whole has failed."""
        trees, most = [], context_length(self.policy)
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            r = self.renderer.encode(prompt, (Message("assistant", response),))
            branch = Branch("response", tuple(r.response_ids), tuple(r.loss_mask))
            trees.append(Tree(tuple(r.prompt_ids), (branch,), i, i + 1))
        read = [tree for tree in trees if tree.tokens <= most]
        with torch.inference_mode():
            values = [v for group in pack(read, TOKENS) for v in self.policy.rewards(Batch(group)).tolist()]
        found = {tree.index: Score(v) for tree, v in zip(read, values, strict=True)}
        return [found.get(tree.index) or _too_long(tree, most) for tree in trees]


def _too_long(tree: Tree, most: int) -> Score:
    why = f"prompt and response have {tree.tokens} tokens, and the reward model reads {most}"
    return Score(math.nan, failed=True, why=why)


def scores(reward: Reward, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float]:
    """The values of a reward, checked: as many as responses, finite, none failed."""
    given = reward(prompts, responses)
    if len(given) != len(responses):
        raise RunFailed(f"the reward gave {len(given)} scores for {len(responses)} responses")
    for i, score in enumerate(given):
        if score.failed or not math.isfinite(score.value):
            raise RunFailed(f"the reward failed on response {i + 1}: {score.why or score.value}")
    return [score.value for score in given]
