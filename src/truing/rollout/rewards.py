"""Rewards: functions of prompt and response as text. A reward that fails says so; it never becomes 0.0."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from truing.data.batch import Batch, Branch, Tree, pack
from truing.data.render import Renderer
from truing.errors import DataError, RunFailed
from truing.policy.load import context_length
from truing.policy.policy import Policy
from truing.types import Message, Messages, Reward, Score, is_number
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
        """The scalar head's value for each response; one that its template cannot write, or that it cannot read whole,
        has failed."""
        read, found, most = [], {}, context_length(self.policy)
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            try:
                tree = self._tree(prompt, response, i)
            except DataError as error:
                found[i] = _failed(str(error))
                continue
            if tree.tokens > most:
                found[i] = _failed(f"prompt and response have {tree.tokens} tokens, and the reward model reads {most}")
            else:
                read.append(tree)
        with torch.inference_mode():
            values = [v for group in pack(read, TOKENS) for v in self.policy.rewards(Batch(group)).tolist()]
        found |= {tree.index: Score(v) for tree, v in zip(read, values, strict=True)}
        return [found[i] for i in range(len(responses))]

    def _tree(self, prompt: Messages, response: str, index: int) -> Tree:
        r = self.renderer.encode(prompt, (Message("assistant", response),))
        branch = Branch("response", tuple(r.response_ids), tuple(r.loss_mask))
        return Tree(tuple(r.prompt_ids), (branch,), index, index + 1)


def _failed(why: str) -> Score:
    return Score(math.nan, failed=True, why=why)


def scores(reward: Reward, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float]:
    """The values of a reward, checked: as many as responses, finite, none failed."""
    given = reward(prompts, responses)
    if len(given) != len(responses):
        raise RunFailed(f"the reward gave {len(given)} scores for {len(responses)} responses")
    for i, score in enumerate(given):
        if not isinstance(score, Score):
            raise RunFailed(f"the reward failed on response {i + 1}: it gave {score!r}, which is no Score")
        if score.failed or not is_number(score.value):
            raise RunFailed(f"the reward failed on response {i + 1}: {score.why or f'its value is {score.value!r}'}")
    return [score.value for score in given]
