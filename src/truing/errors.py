"""Every error a user can cause or meet, and how it is said.

`UserError` is the user's to mend (exit code 2): its text names the file, row or field and the way out.
`RunFailed` is a run that could not go on (exit code 3): a loss that is not a number, a folder that is in use.
"""

from __future__ import annotations

import difflib
import functools
import html
import json
import os
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any
from urllib.parse import quote

# Characters that would change how the text around them is read, or that no page may hold.
_HIDDEN = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
    "|\r(?!\n)"
)

# What a key of a service looks like, and a name with its password in front of a host.
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_|sk-|[rs]k_(?:live|test)_|gh[pousr]_|github_pat_|glpat-|xox[a-z]-|npm_|pypi-)[\w-]{16,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|(?<=://)[^/\s:@⟨]*:[^/\s@]+(?=@)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----|.*)",
    re.DOTALL,
)
# What stands behind the name of a secret, in a header, an address or an assignment. A recipe is not refused for it.
_NAMED = re.compile(
    r"(?i)(\b(?:bearer|basic) +|[?&](?:key|token|auth|sig|signature|code|secret|pass|pwd)="
    r"|\b(?:(?:x[-_])?api[-_]?key|access[-_]?(?:key|token)|auth[-_]?token|refresh[-_]?token|secret(?:[-_]?key)?"
    r"|client[-_]secret|password|passwd|passphrase)\b['\"]?\s*[=:]\s*['\"]?)(?=[^\s'\"&]{8})[\w.~+/=%!@#$^*-]+"
)
_KEY_NAME = re.compile(
    r"(?i)(?:^|_)(?:API_?KEY|\w*KEY|\w*TOKEN|\w*SECRET|\w*PASSWORD|PASSWD|PASSPHRASE|PASS|CREDENTIALS?|AUTH|BEARER|PAT)S?(?:_|\d|$)"
)

LONG, MOST = 100, 1000
"""How long a name may be to be shown whole, and how many are compared with one that is misspelt."""


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


def holds_key(text: str) -> bool:
    """Whether a text holds what looks like a key of a service, or a password in an address.

    >>> holds_key("https://me:pass@host/pairs.jsonl"), holds_key("sk-learn/pairs")
    (True, False)
    """
    return _KEY.search(text) is not None


def redacted(text: str) -> str:
    """A text without keys: what looks like one, what stands behind the name of one (`Bearer ...`, `api_key=...`), and
    the value of every environment variable called so (`..._TOKEN`). Done twice, it changes nothing more.

    >>> redacted("cannot read https://me:pass@host/pairs.jsonl?token=0123456789")
    'cannot read https://⟨key⟩@host/pairs.jsonl?token=⟨key⟩'
    """
    for name, value in os.environ.items():
        if _says_secret(name) and _long_enough(value) and not os.path.exists(value):
            for form in _forms(value):
                text = text.replace(form, f"⟨{name}⟩")
    return _NAMED.sub(r"\1⟨key⟩", _KEY.sub("⟨key⟩", text))


def cleaned(value: Any) -> Any:
    """A JSON value whose texts, and names of entries, hold no keys."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {cleaned(name): cleaned(item) for name, item in value.items()}
    return [cleaned(item) for item in value] if isinstance(value, list | tuple) else value


@functools.cache
def _says_secret(name: str) -> bool:
    return name not in ("PWD", "OLDPWD") and _KEY_NAME.search(name) is not None


def _long_enough(value: str) -> bool:
    """Whether a value can be told from a common word: a secret of `true` would take the word out of every text."""
    return len(value) >= 8 or (len(value) >= 6 and not value.isalpha())


@functools.cache
def _forms(value: str) -> tuple[str, ...]:
    """A value as it stands in a text, in JSON, in Python, on a page, in an address, on one line; the longest first."""
    forms = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    forms |= {html.escape(value), quote(value, safe=""), " ".join(value.split()), value.strip()}
    return tuple(sorted(forms, key=len, reverse=True))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that a misspelt one was most likely meant to be, or an empty string. Of very many words the first
    are looked at, and none that is far longer or shorter, so that a hint costs nothing.

    >>> nearest("lerning_rate", ["learning_rate", "epochs"])
    'learning_rate'
    >>> nearest("xyz", ["learning_rate", "epochs"])
    ''
    """
    if len(word) > LONG:
        return ""
    like = (name for name in known if len(word) <= 3 * len(name) <= 9 * len(word))  # or fewer than half could agree
    found = difflib.get_close_matches(word, list(islice(like, MOST)), n=1, cutoff=0.5)
    return found[0] if found else ""


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """One sentence for a name that does not exist, with the nearest one that does.

    >>> unknown("objective", "dpoo", ["dpo", "nll"])
    "unknown objective 'dpoo'. Did you mean 'dpo'? Known: dpo, nll"
    """
    known = sorted(known)
    guess = nearest(word, known)
    hint = f" Did you mean '{short(guess)}'?" if guess else ""
    return f"unknown {what} '{short(word)}'.{hint} Known: {listed(known)}"


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
