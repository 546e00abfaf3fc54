"""The in-process engine: batches of prompts in, sampled answers with their log-probabilities out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from truing.data.batch import Batch, Branch, Tree
from truing.data.render import Renderer
from truing.errors import UserError
from truing.policy.load import context_length
from truing.policy.policy import Policy, own_logits
from truing.policy.trees import NAME
from truing.types import Rollout

BATCH_TOKENS = 16384  # prompt and response tokens held at once


@dataclass(frozen=True)
class Sampling:
    """How to sample. The log-probabilities returned are those of the distribution sampled from, `temperature` included;
    at temperature 0 the most likely token is taken, and the log-probabilities are the model's own."""

    max_new_tokens: int = 64
    temperature: float = 1.0
    seed: int = 0


def generate(policy: Policy, prompts: Sequence[Sequence[int]], sampling: Sampling, n: int = 1) -> list[Rollout]:
    """`n` answers to each prompt, in the order of the prompts.

    Every answer draws from its own counter (seed, prompt, answer), so that the way prompts are batched does not change
    what is sampled. Prompts of like length are batched together; answers that have ended are taken out of the batch.
    A prompt that with its answer would not fit into the model's context is an error.
    """
    if sampling.temperature < 0 or sampling.max_new_tokens < 1:
        raise UserError("temperature must be 0 or more, and max_new_tokens 1 or more")
    long = next((p for p in range(len(prompts)) if not fits(policy, prompts[p], sampling)), None)
    if long is not None:
        raise UserError(
            f"prompt {long + 1} has {len(prompts[long])} tokens; with max_new_tokens {sampling.max_new_tokens} that is "
            f"beyond the {context_length(policy)} that {policy.name} reads.\n  Shorten it, or lower max_new_tokens."
        )
    stops = stop_ids(policy)
    todo = sorted(((p, k) for p in range(len(prompts)) for k in range(n)), key=lambda pk: len(prompts[pk[0]]))
    before = policy.model.config._attn_implementation
    if before == NAME:
        policy.model.set_attn_implementation("sdpa")
    done: dict[tuple[int, int], Rollout] = {}
    try:
        while todo:
            longest = len(prompts[todo[-1][0]]) + sampling.max_new_tokens
            size = max(1, BATCH_TOKENS // longest)
            group, todo = todo[-size:], todo[:-size]
            done |= _batch(policy, prompts, group, sampling, stops)
    finally:
        if before == NAME:
            policy.model.set_attn_implementation(before)
    return [done[p, k] for p in range(len(prompts)) for k in range(n)]


def fits(policy: Policy, prompt: Sequence[int], sampling: Sampling) -> bool:
    """Whether a prompt and the longest answer to it are within what the model reads."""
    return len(prompt) + sampling.max_new_tokens <= context_length(policy)


def stop_ids(policy: Policy) -> frozenset[int]:
    """The tokens that end an answer: those of the chat template, the tokenizer and the model's generation settings."""
    settings = getattr(policy.model, "generation_config", None)
    more = getattr(settings, "eos_token_id", None)
    listed = more if isinstance(more, list) else [more]
    return Renderer(policy.tokenizer).stop_ids | {i for i in listed if i is not None}


@torch.inference_mode()
def _batch(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    group: list[tuple[int, int]],
    sampling: Sampling,
    stops: frozenset[int],
) -> dict[tuple[int, int], Rollout]:
    given = [prompts[p] for p, _ in group]
    rows = Anew(policy, given) if recurrent(policy) else Cached(policy, given)
    draws = np.stack([_uniforms(sampling, p, k) for p, k in group])
    taken: list[list[int]] = [[] for _ in group]
    logps: list[list[float]] = [[] for _ in group]
    alive = list(range(len(group)))
    for t in range(sampling.max_new_tokens):
        token, logp = _draw(rows.logits().float(), sampling.temperature, draws[alive, t])
        for b, i, value in zip(alive, token.tolist(), logp.tolist(), strict=True):
            taken[b].append(i)
            logps[b].append(value)
        keep = [j for j, b in enumerate(alive) if taken[b][-1] not in stops]
        if not keep:
            break
        rows.go_on(token, keep)
        alive = [alive[j] for j in keep]
    return {
        key: Rollout(
            prompt_ids=tuple(prompts[key[0]]),
            response_ids=tuple(taken[b]),
            logp_T=tuple(logps[b]),
            stop="eos" if taken[b][-1] in stops else "length",
            group=key[0],
        )
        for b, key in enumerate(group)
    }


def recurrent(policy: Policy) -> bool:
    """Whether the model keeps a state in place of a cache of keys: it then reads its rows anew for every token."""
    return bool(policy.model._is_stateful)


class Cached:
    """Rows that are being written: prompts padded on the left, with the keys and values of what was read."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]]) -> None:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        self.policy, self.cache, self.told = policy, None, takes_positions(policy)
        self.ids, self.mask = ids.to(policy.device), mask.to(policy.device)
        self.position = (self.mask.cumsum(-1) - 1).clamp(min=0)

    def logits(self) -> Tensor:
        """The logits of every row's next token, [rows, vocabulary]."""
        places = {"position_ids": self.position} if self.told else {}
        with self.policy.computing():
            out = self.policy.model(
                input_ids=self.ids,
                attention_mask=self.mask,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
                **places,
            )
        self.cache = out.past_key_values
        return out.logits[:, -1]  # type: ignore[no-any-return]

    def go_on(self, token: Tensor, keep: list[int]) -> None:
        """Write a token to each row, and keep only these rows."""
        if len(keep) < len(token):
            index = torch.tensor(keep, device=token.device)
            self.cache.batch_select_indices(index)  # type: ignore[attr-defined]
            token, self.mask, self.position = token[index], self.mask[index], self.position[index]
        self.ids, self.position = token[:, None], self.position[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)


class Anew:
    """Rows that are being written by a recurrent model, and read from their beginning for every token: slow, and exact
    whatever state the model keeps."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]]) -> None:
        self.policy, self.rows = policy, [list(p) for p in prompts]
        ends = [
            Tree(tuple(p[:-1]), (Branch("response", (p[-1],), (True,)),), i, i) for i, p in enumerate(prompts) if p[1:]
        ]
        if ends:  # whether rows can be padded and read together
            policy.verify(Batch(tuple(ends)))

    def logits(self) -> Tensor:
        """The logits of every row's next token, [rows, vocabulary]."""
        together = BATCH_TOKENS if self.policy.layout == "padded" and self.policy.verified else 1
        last: dict[int, Tensor] = {}
        for group, logits in own_logits(self.policy, self.rows, together):
            last |= {m: z[len(self.rows[m]) - 1] for m, z in zip(group, logits, strict=True)}
        return torch.stack([last[m] for m in range(len(self.rows))])

    def go_on(self, token: Tensor, keep: list[int]) -> None:
        """Write a token to each row, and keep only these rows."""
        written = token.tolist()
        self.rows = [[*self.rows[j], written[j]] for j in keep]


def takes_positions(policy: Policy) -> bool:
    """Whether the model is told positions; one that is not (ALiBi) counts them from the mask."""
    return "position_ids" in inspect.signature(policy.model.forward).parameters


def _uniforms(sampling: Sampling, prompt: int, answer: int) -> np.ndarray:
    key = np.random.Philox(key=[sampling.seed % 2**63, (prompt << 20) + answer])
    return np.random.Generator(key).random(sampling.max_new_tokens)


def _draw(logits_BV: Tensor, temperature: float, uniform: np.ndarray) -> tuple[Tensor, Tensor]:
    if temperature == 0:
        logp = logits_BV.log_softmax(-1)
        token = logp.argmax(-1)
    else:
        logp = (logits_BV / temperature).log_softmax(-1)
        u = torch.from_numpy(uniform).to(logp.device)[:, None]
        summed = logp.double().exp().cumsum(-1)
        token = torch.searchsorted(summed, u * summed[:, -1:], right=True).squeeze(1).clamp(max=logp.shape[1] - 1)
    return token, logp.gather(1, token[:, None]).squeeze(1)
