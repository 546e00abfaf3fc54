"""Rows that are being written: those that share what was read of their prompt, and those of models that cannot share
it, recurrent ones and others whose attention does not go through transformers' interface."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from truing.data.batch import Batch, Branch, Tree, pack
from truing.policy.decoding import Block, Prompts, Responses, filled
from truing.policy.divided import forward
from truing.policy.plain import own_logits
from truing.policy.policy import Policy
from truing.policy.trees import attending

PROMPT_TOKENS = 4096  # prompt tokens read at once
TOGETHER = 16384  # tokens that a recurrent model reads at once


class Rows(Protocol):
    """Rows that are being written in step."""

    def logits(self) -> Tensor:
        """The logits of every row's next token, [rows, vocabulary]."""

    def go_on(self, token: Tensor, keep: list[int]) -> list[int]:
        """Write a token to each row, and keep only these rows; returns the order in which they now stand."""


class Shared:
    """Rows whose prompts are read once for all of their responses, `most` tokens each."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]], most: int) -> None:
        self.policy = policy
        responses: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            responses.setdefault(tuple(prompt), []).append(row)
        trees = [Tree(prompt, (), i, i) for i, prompt in enumerate(sorted(responses, key=len))]
        blocks: list[Block] = []
        first: dict[int, Tensor] = {}
        for group in pack(trees, PROMPT_TOKENS):
            reading = Prompts(group, policy.device)
            rows = [responses[tree.prompt] for tree in group]
            logits = self._read(reading, Batch(group).ids_N, Batch(group).positions_N, reading.ends)
            first |= {row: z for z, those in zip(logits, rows, strict=True) for row in those}
            blocks += reading.blocks(rows)
        self.first: Tensor | None = torch.stack([first[row] for row in range(len(prompts))])
        self.begin = torch.tensor([len(prompt) for prompt in prompts])
        self.responses, self.ids = Responses(blocks, most), self.begin

    def logits(self) -> Tensor:
        """The logits of every row's next token, [rows, vocabulary]."""
        if self.first is not None:
            first, self.first = self.first, None
            return first
        z = self._read(self.responses, self.ids, self.begin + self.responses.written)
        self.responses.advance()
        return z

    def go_on(self, token: Tensor, keep: list[int]) -> list[int]:
        """Write a token to each row, and keep only these rows; returns the order in which they now stand."""
        order = filled(keep)
        if len(order) < len(token):
            self.responses.keep(order)
        index = torch.tensor(order)
        self.ids, self.begin = token.cpu()[index], self.begin[index]
        return order

    def _read(self, *reading: Any) -> Tensor:
        return forward(self.policy.model, self._read_rows)(*reading)

    def _read_rows(
        self, reading: Prompts | Responses, ids: Tensor, positions: Tensor, at: Tensor | None = None
    ) -> Tensor:
        device = self.policy.device
        with attending(reading), self.policy.computing():
            out = self.policy.body(
                input_ids=ids[None].to(device), position_ids=positions[None].to(device), use_cache=False
            )
        h = out.last_hidden_state[0]
        return self.policy.head_logits(h if at is None else h.index_select(0, at))


class Cached:
    """Rows that are being written: prompts padded on the left, with the keys and values of what was read."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]]) -> None:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        self.policy, self.cache, self.takes_positions = policy, None, takes_positions(policy)
        self.ids, self.mask = ids.to(policy.device), mask.to(policy.device)
        self.position = (self.mask.cumsum(-1) - 1).clamp(min=0)

    def logits(self) -> Tensor:
        """The logits of every row's next token, [rows, vocabulary]."""
        inputs: dict[str, Any] = {"input_ids": self.ids, "attention_mask": self.mask, "past_key_values": self.cache}
        inputs |= {"position_ids": self.position} if self.takes_positions else {}
        return forward(self.policy.model, self._read)(inputs)

    def _read(self, inputs: dict[str, Any]) -> Tensor:
        ours = self.policy.layout == "trees" and self.policy.precision == "bf16"  # the model's own logits are in bf16
        with self.policy.computing():
            if ours:
                out = self.policy.body(use_cache=True, **inputs)
            else:
                out = self.policy.model(use_cache=True, logits_to_keep=1, **inputs)
        self.cache = out.past_key_values
        return self.policy.head_logits(out.last_hidden_state[:, -1]) if ours else out.logits[:, -1]

    def go_on(self, token: Tensor, keep: list[int]) -> list[int]:
        """Write a token to each row, and keep only these rows; returns the order in which they now stand."""
        if len(keep) < len(token):
            index = torch.tensor(keep, device=token.device)
            self.cache.batch_select_indices(index)  # type: ignore[attr-defined]
            token, self.mask, self.position = token[index], self.mask[index], self.position[index]
        self.ids, self.position = token[:, None], self.position[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        return keep


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
        together = TOGETHER if self.policy.layout == "padded" and self.policy.verified else 1
        last: dict[int, Tensor] = {}
        for group, logits in own_logits(self.policy, self.rows, together):
            last |= {m: z[len(self.rows[m]) - 1] for m, z in zip(group, logits, strict=True)}
        return torch.stack([last[m] for m in range(len(self.rows))])

    def go_on(self, token: Tensor, keep: list[int]) -> list[int]:
        """Write a token to each row, and keep only these rows; returns the order in which they now stand."""
        written = token.tolist()
        self.rows = [[*self.rows[j], written[j]] for j in keep]
        return keep


def recurrent(policy: Policy) -> bool:
    """True if the model keeps a state in place of a cache of keys: it then reads its rows anew for every token."""
    return bool(policy.model._is_stateful)


def takes_positions(policy: Policy) -> bool:
    """True if the model takes positions; one that does not (ALiBi) counts them from the mask."""
    return "position_ids" in inspect.signature(policy.model.forward).parameters
