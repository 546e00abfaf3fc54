"""Text as token ids, so that the ids decode back to the text."""

from __future__ import annotations

import re
from typing import Any

from truing.data.foreign import foreign
from truing.data.rendering.template import shown
from truing.errors import DataError


class Ids:
    """Token ids of texts by one tokenizer. `special` are its control tokens, the longest first."""

    def __init__(self, tokenizer: Any, special: tuple[str, ...]) -> None:
        self.tokenizer, self.special = tokenizer, special

    def of(self, text: str) -> list[int]:
        """The ids of a text that begins with it."""
        with foreign(lambda words: unreadable(text, words)):
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, ids: list[int]) -> str:
        """The text of ids, control tokens among them."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def behind(self, text: str, ids: list[int], piece: str) -> list[int]:
        """The ids of `piece` behind `text`, whose ids stay as they are; text and piece decode back to themselves."""
        full = text + piece
        whole = self.of(full)
        candidates = [whole[len(ids) :]]
        if whole[: len(ids)] != ids or len(whole) == len(ids):
            candidates = [self.of(piece), *self._anchored(piece)]
        for more in candidates:
            decoded = self.decode([*ids, *more])
            # A tokenizer that normalises (NFC, a blank before words) gives back what it makes of the whole text.
            if decoded == full or decoded == self.decode(whole):
                self.check_known(more, piece)
                return more
        self.check_known(candidates[0], piece)
        raise DataError(
            "tokenizer",
            "the ids of prompt and response do not decode back to the text",
            f"text:    {shown(full, len(text))}\n  decoded: {shown(self.decode([*ids, *candidates[0]]), len(text))}",
        )

    def spelt(self, before: list[int], text: str) -> list[int]:
        """The ids of a text behind others, with a control token that it spells as letters."""
        parts = re.split(f"({'|'.join(map(re.escape, self.special))})", text) if self.special else [text]
        ids = list(before)
        for place, part in enumerate(parts):
            if place % 2:  # spelt out: the token itself would end the response, or begin another
                ids += self.tokenizer(part, add_special_tokens=False, split_special_tokens=True).input_ids
            elif part:
                candidates = [self.of(part), *self._anchored(part)]
                goal = self.decode(ids) + part
                ids += next((more for more in candidates if self.decode([*ids, *more]) == goal), candidates[0])
        return ids[len(before) :]

    def _anchored(self, piece: str) -> list[list[int]]:
        """Ids of a piece as they are in the middle of a text, for tokenizers that put a blank before the first word."""
        out = []
        for anchor in (*self.special[:1], "\n", ":", "a"):
            before, both = self.of(anchor), self.of(anchor + piece)
            if both[: len(before)] == before:
                out.append(both[len(before) :])
        return out

    def check_known(self, ids: list[int], piece: str) -> None:
        """DataError where a part of a text has no token."""
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids and unknown != self.tokenizer.eos_token_id:
            raise DataError(
                "tokenizer",
                f"has no token for a part of this text ('{self.tokenizer.unk_token}'): {shown(piece, 0)}",
                "Take the sign out of the text, use a model whose vocabulary has it, or set on_bad_row: drop, which "
                "leaves such rows out and counts them.",
            )


def unreadable(text: str, words: str) -> DataError:
    """The refusal of a text that a tokenizer makes no tokens of, in its own words."""
    return DataError("tokenizer", f"cannot read this text ({words}): {shown(text, 0)}")
