"""Every error a user can cause or meet, and how it is said.

`UserError` is the user's to mend (exit code 2): its text names the file, row or field and the way out.
`RunFailed` is a run that could not go on (exit code 3): a loss that is not a number, a folder that is in use.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

# Characters that would change how the text around them is read, or that no page may hold.
_HIDDEN = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)

# What a key of a service looks like, and a name with its password in front of a host.
_KEY = re.compile(r"\b(?:hf_|sk-|gh[pousr]_|xox[abp]-)[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_KEY_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")


class TruingError(Exception):
    """The root of every error that Truing raises on purpose."""

    exit_code = 3


class UserError(TruingError):
    """Something in the recipe, the data or the command line has to change before the run can start."""

    exit_code = 2


class DataError(UserError):
    """A row or file that cannot be used. `place` is how a person finds it: `pairs.jsonl, row 12, field chosen`."""

    def __init__(self, place: str, problem: str, way_out: str = "") -> None:
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


def holds_key(text: str) -> bool:
    """Whether a text holds what looks like a key of a service, or a password in an address.

    >>> holds_key("https://me:pass@host/pairs.jsonl"), holds_key("sk-learn/pairs")
    (True, False)
    """
    return _KEY.search(text) is not None


def redacted(text: str) -> str:
    """A text without keys: what looks like one, and the value of every environment variable called so (`..._TOKEN`).

    >>> redacted("cannot read https://me:pass@host/pairs.jsonl")
    'cannot read https://⟨key⟩@host/pairs.jsonl'
    """
    for name, value in os.environ.items():
        if _KEY_NAME.search(name) and len(value) >= 8:
            text = text.replace(value, f"⟨{name}⟩")
    return _KEY.sub("⟨key⟩", text)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that a misspelt one was most likely meant to be, or an empty string.

    >>> nearest("lerning_rate", ["learning_rate", "epochs"])
    'learning_rate'
    >>> nearest("xyz", ["learning_rate", "epochs"])
    ''
    """
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return found[0] if found else ""


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """One sentence for a name that does not exist, with the nearest one that does.

    >>> unknown("objective", "dpoo", ["dpo", "nll"])
    "unknown objective 'dpoo'. Did you mean 'dpo'? Known: dpo, nll"
    """
    known = sorted(known)
    guess = nearest(word, known)
    hint = f" Did you mean '{guess}'?" if guess else ""
    return f"unknown {what} '{word}'.{hint} Known: {', '.join(known)}"
