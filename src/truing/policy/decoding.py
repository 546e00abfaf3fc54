"""Attention while responses are sampled: every prompt's keys and values are held once, for all of its responses.

The prompts are read as trees without branches (`Prompts`), and the keys and values of their layers are moved into
blocks of prompts of like length. Then every row writes a token at a time (`Responses`): rows attend to their prompts in
one call of the kernel per block, and to their own tokens in one call, and the two are joined by their norms. Rows that
have ended are left out: the last rows move into their places, so that little is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor, nn

from truing.data.batch import Tree
from truing.policy.trees import Plan, additive

LIKE = 0.75
"""The shortest prompt of a block has at least this share of the longest one's tokens."""
Memory: TypeAlias = dict[nn.Module, tuple[Tensor, ...]]
"""Keys and values by layer, each [rows, H_kv, tokens, D]."""


class Prompts(Plan):
    """Reads prompts, each once, keeps every layer's keys and values, and the hidden state of each last token."""

    def __init__(self, prompts: Sequence[Tree], device: torch.device) -> None:
        self.lengths = [tree.tokens for tree in prompts]
        self.ends = torch.tensor(list(accumulate(self.lengths)), device=device) - 1
        super().__init__(tuple(prompts), self.ends)
        self.cache: Memory = {}

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window: int | None,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """Attend as a plan of trees does, and keep the layer's keys and values."""
        self.cache[module] = (key, value)
        return super().attend(module, query, key, value, window, scale, softcap)

    def blocks(self, rows: Sequence[Sequence[int]]) -> Iterator[Block]:
        """The prompts, which stand in order of length, in blocks of like length; `rows[p]` respond to p."""
        first = 0
        for last in range(1, len(self.lengths) + 1):
            if last == len(self.lengths) or self.lengths[first] < LIKE * self.lengths[last]:
                memory = {m: tuple(self._padded(x, first, last) for x in pair) for m, pair in self.cache.items()}
                yield Block(memory, self.lengths[first:last], [list(r) for r in rows[first:last]])
                first = last

    def _padded(self, packed: Tensor, first: int, last: int) -> Tensor:
        out = packed.new_zeros(last - first, packed.shape[1], max(self.lengths[first:last]), packed.shape[3])
        for p in range(first, last):
            end = int(self.ends[p]) + 1
            out[p - first, :, : self.lengths[p]] = packed[0, :, end - self.lengths[p] : end]
        return out


@dataclass
class Block:
    """Prompts of like length, their keys and values, and the rows that respond to each."""

    memory: Memory
    lengths: list[int]
    rows: list[list[int]]
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """The most responses that one of its prompts has."""
        return max(map(len, self.rows))

    def slots(self) -> list[int]:
        """The row at each place of [prompts, width]; the first row of a prompt fills the places left over."""
        return [row for rows in self.rows for row in rows + rows[:1] * (self.width - len(rows))]

    def places(self) -> Iterator[tuple[int, int]]:
        """Each row with its place."""
        for p, rows in enumerate(self.rows):
            yield from ((row, p * self.width + i) for i, row in enumerate(rows))

    def keep(self, moved: Mapping[int, int]) -> None:
        """Keep only rows that `moved` names, under their new numbers, and only prompts that still have any."""
        self.rows = [[moved[row] for row in rows if row in moved] for rows in self.rows]
        order = filled([p for p, rows in enumerate(self.rows) if rows])
        fill(self.memory, order, max(self.lengths))
        self.rows, self.lengths = [self.rows[p] for p in order], [self.lengths[p] for p in order]
        self.masks.clear()

    def mask(self, like: Tensor, window: int | None, written: int) -> Tensor | None:
        """[prompts, 1, 1, tokens] to add to the scores of rows that have written so many tokens before this one."""
        if window not in self.masks:
            length, place = torch.tensor(self.lengths)[:, None, None, None], torch.arange(like.shape[2])
            sees = place < length
            sees = sees if window is None else sees & (place > length + written - window)
            self.masks[window] = None if sees.all() else additive(sees, like.dtype).to(like.device)
        return self.masks[window]


class Responses:
    """Rows that are written in step, a token each: the attention in force while a model reads their last tokens."""

    read: Tensor | None = None

    def __init__(self, blocks: Sequence[Block], most: int) -> None:
        self.blocks, self.most = list(blocks), most
        self.tokens = sum(len(rows) for block in blocks for rows in block.rows)
        self.written = 0
        self.cache: Memory = {}
        self._arrange()

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window: int | None,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """Every row attends to its prompt and to what it has written, this token included."""
        q = query[0].unflatten(0, (key.shape[1], -1)).permute(2, 0, 1, 3)  # [rows, H_kv, H / H_kv, D]
        end, first = self.written + 1, 0 if window is None else max(0, self.written + 1 - window)
        keys, values = self._write(module, key, value)
        out, norm = attention(q, keys[:, :, first:end], values[:, :, first:end], None, scale, softcap)
        if window is None or self.written < window - 1:
            of_prompt, prompt_norm = self._prompt_attention(module, q, window, scale, softcap)
            out = torch.lerp(out, of_prompt.to(out.dtype), torch.sigmoid(prompt_norm - norm)[..., None].to(out.dtype))
        return out.flatten(1, 2)[None]

    def advance(self) -> None:
        """All rows have written a token."""
        self.written += 1
        for block in self.blocks:
            block.masks = {window: mask for window, mask in block.masks.items() if window is None}

    def keep(self, order: Sequence[int]) -> None:
        """Go on with these rows only, in this order, as `filled` gives it."""
        fill(self.cache, order, self.written)
        self.tokens = len(order)
        moved = {row: new for new, row in enumerate(order)}
        self.blocks = [block for block in self.blocks if any(row in moved for rows in block.rows for row in rows)]
        for block in self.blocks:
            block.keep(moved)
        self._arrange()

    def _arrange(self) -> None:
        """Index the places of rows in the blocks, and the rows at these places."""
        place, at = [0] * self.tokens, 0
        for block in self.blocks:
            for row, slot in block.places():
                place[row] = at + slot
            at += len(block.lengths) * block.width
        self.slots, self.place = [torch.tensor(block.slots()) for block in self.blocks], torch.tensor(place)

    def _write(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if module not in self.cache:
            heads, rows = key.shape[1], key.shape[2]
            self.cache[module] = tuple(x.new_empty(rows, heads, self.most, x.shape[3]) for x in (key, value))
        held = tuple(x[: self.tokens] for x in self.cache[module])
        for cached, new in zip(held, (key, value), strict=True):
            cached[:, :, self.written] = new[0].transpose(0, 1)
        return held

    def _prompt_attention(
        self, module: nn.Module, q: Tensor, window: int | None, scale: float, softcap: float | None
    ) -> tuple[Tensor, Tensor]:
        outs, norms = [], []
        for block, slots in zip(self.blocks, self.slots, strict=True):
            size = (len(block.lengths), block.width)
            keys, values = (x[: size[0]] for x in block.memory[module])
            grid = q.index_select(0, slots.to(q.device)).unflatten(0, size).transpose(1, 2).flatten(2, 3)
            mask = block.mask(keys, window, self.written)
            out, norm = attention(grid, keys, values, mask, scale, softcap)
            outs.append(out.unflatten(2, (size[1], -1)).transpose(1, 2).flatten(0, 1))
            norms.append(norm.unflatten(2, (size[1], -1)).transpose(1, 2).flatten(0, 1))
        place = self.place.to(q.device)
        return torch.cat(outs).index_select(0, place), torch.cat(norms).index_select(0, place)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Attention of queries [B, H, Q, D] to keys and values [B, H, K, D], and the scores' log-sum-exp, [B, H, Q]."""
    if query.device.type == "cpu" and softcap is None and query.shape[-1] == value.shape[-1]:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # type: ignore[no-any-return]
            query, key, value, 0.0, False, attn_mask=mask, scale=scale
        )
    scores = (query @ key.transpose(2, 3)).to(torch.promote_types(query.dtype, torch.float32)) * scale
    scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
    scores = scores if mask is None else scores + mask
    norm = scores.logsumexp(-1)
    return (scores - norm[..., None]).exp().to(value.dtype) @ value, norm


def filled(keep: Sequence[int]) -> list[int]:
    """The order in which rows are kept with the fewest moves: the last of them move into the places of those that go.

    >>> filled([0, 2, 3, 5])
    [0, 5, 2, 3]
    """
    stay = [row for row in keep if row < len(keep)]
    movers = iter([row for row in keep if row >= len(keep)])
    there = set(stay)
    return [row if row in there else next(movers) for row in range(len(keep))]


def fill(memory: Memory, order: Sequence[int], tokens: int) -> None:
    """Move rows, as `order` says, within the first `tokens` keys and values of every layer."""
    holes = [place for place, row in enumerate(order) if place != row]
    if not holes:
        return
    to, row = torch.tensor(holes), torch.tensor([order[place] for place in holes])
    for pair in memory.values():
        for x in pair:
            x[to.to(x.device), :, :tokens] = x[row.to(x.device), :, :tokens]
