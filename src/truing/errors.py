"""Every error a user can cause or meet, and its wording.

`UserError` is the user's to mend (exit code 2): its text names the file, row or field and the way out.
`RunFailed` is a run that could not go on (exit code 3): a loss that is not a number, a folder that is in use.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from itertools import islice

from truing.redaction import cleaned as cleaned
from truing.redaction import holds_key as holds_key
from truing.redaction import redacted as redacted

# Characters that would change how the text around them is read, or that no page may hold.
_HIDDEN = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
    "|\r(?!\n)"
)

LONG, MOST = 100, 1000
"""Longest name that is shown whole, and the number of names compared with one that is misspelt."""


class TruingError(Exception):
    """The root of every error that Truing raises on purpose."""

    exit_code = 3

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class UserError(TruingError):
    """Something in the recipe, the data or the command line has to change before the run can start."""

    exit_code = 2


class DataError(UserError):
    """A row or file that cannot be used. `place` is how a person finds it: `pairs.jsonl, row 12, field chosen`."""

    def __init__(self, place: str, problem: str, way_out: str = "") -> None:
        place = one_line(place if len(place) <= 20 * LONG else f"{place[: 20 * LONG]}...")
        super().__init__(f"{place}: {problem}" + (f"\n  {way_out}" if way_out else ""))
        self.place, self.problem, self.way_out = place, problem, way_out


class RecipeError(UserError):
    """All mistakes of a recipe at once, one line each, with file and line number."""

    def __init__(self, mistakes: list[str]) -> None:
        count = len(mistakes)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in the recipe\n" + "\n".join(mistakes))
        self.mistakes = mistakes


class RunFailed(TruingError):
    """The run cannot go on; what is on disk can be resumed."""


def visible(text: str) -> str:
    """Text with control, zero-width and direction characters replaced by their visible code.

    >>> visible("a\\u202eb")
    'a⟨U+202E⟩b'
    """
    return _HIDDEN.sub(lambda m: f"⟨U+{ord(m[0]):04X}⟩", text)


def one_line(text: str) -> str:
    """Text that is part of a line of ours, such as the name of a file or a column: its line breaks made visible, too.

    >>> one_line("rows\\nship.jsonl")
    'rows⟨U+000A⟩ship.jsonl'
    """
    return re.sub("[\n\r]", lambda m: f"⟨U+{ord(m[0]):04X}⟩", visible(text))


def nearest(word: str, candidates: Iterable[str], least: float = 0.5) -> str:
    """The known word that a misspelt one was most likely meant to be, or an empty string where none is at least so like
    it. Of very many words only the first are compared, and none that is far longer or shorter, so that a hint costs
    nothing.

    >>> nearest("lerning_rate", ["learning_rate", "epochs"])
    'learning_rate'
    >>> nearest("xyz", ["learning_rate", "epochs"])
    ''
    """
    if len(word) > LONG:
        return ""
    # Of a name far longer or shorter fewer than half of the letters could agree.
    like = (name for name in candidates if len(word) <= 3 * len(name) <= 9 * len(word))
    matches = difflib.get_close_matches(word, list(islice(like, MOST)), n=1, cutoff=least)
    return matches[0] if matches else ""


def unknown(what: str, word: str, names: Iterable[str], *, guess: bool = True) -> str:
    """One sentence for a name that does not exist, with the nearest one that does, unless `guess` is false.

    >>> unknown("objective", "dpoo", ["dpo", "nll"])
    "unknown objective 'dpoo'. Did you mean 'dpo'? Known: dpo, nll"
    """
    names = sorted(names)
    near = nearest(word, names) if guess else ""
    hint = f" Did you mean '{short(near)}'?" if near else ""
    return f"unknown {what} '{short(word)}'.{hint} Known: {listed(names)}"


def listed(names: Iterable[object], most: int = 200) -> str:
    """Names as part of a line of ours: each short, and no more than `most` of them.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(short(str(name)) for name in names[:most]) + more


def short(name: str) -> str:
    """A name as part of a line of ours, cut where it is no name any more."""
    return one_line(name if len(name) <= LONG else f"{name[:LONG]}...")
