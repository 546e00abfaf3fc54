"""Shapes of secrets in a text: keys of services, passwords in addresses, what stands behind a secret's name.

Every search here is linear in the text: what repeats is possessive or bounded, and no stretch is read twice for
nothing. A span is the beginning and the end of a secret.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise

Span = tuple[int, int]

MARK = r"⟨(?!U\+)[^⟨⟩\s]{1,80}⟩"
"""Pattern of the text put in the place of a secret. A hidden character's code (`⟨U+000D⟩`) ends a value, as the
character may."""

_SERVICES = [
    *("sk-", "sk_live_", "sk_test_", "rk_live_", "rk_test_", "gsk_", "xai-", "nvapi-", "npm_", "pypi-"),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    *("xoxa-", "xoxb-", "xoxc-", "xoxd-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-"),
]
# The look behind stands after the prefix: so the search jumps from first letter to first letter.
_KEY = re.compile(
    "|".join(rf"{re.escape(p)}(?<![A-Za-z0-9]{re.escape(p)})[\w-]{{16,}}" for p in _SERVICES)
    + r"|hf_(?<![A-Za-z0-9]...)(?=[A-Za-z0-9]{16})[\w-]+"  # and not hf_deepspeed_config
    r"|A[KS]IA(?<![A-Za-z0-9]....)[0-9A-Z]{16}(?![0-9A-Za-z])|AIza(?<![A-Za-z0-9]....)[\w-]{30,}"
)
_PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:.*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|.*)", re.DOTALL
)
_RUN = re.compile(r"[\w-]*+")
_JWT_TAIL = re.compile(r"\.[\w-]{8,}+(?:\.[\w-]*+){1,3}")

_SCHEME = re.compile(r":(?:\\?/){2}|(?i:%(?:25)?3a%(?:25)?2f%(?:25)?2f)")
_ADDRESS = re.compile(r"[^\s'\"<>⟨]*+")
_AUTHORITY = re.compile(r"(?:(?!%(?:25)?(?:2[fF]|3[fF]|23))[^/?#\\])*+")
_AT = re.compile(r"@|(?i:%(?:25)?40)")
_COLON = re.compile(r":(?!\d{1,5}(?:[/?#,;.)]|$))|(?i:%(?:25)?3a)")

# What a name ends with, of a text in small letters. `key` and `token` say little without what stands before them.
_QUOTE = r"(?:\\{0,8}[\"'`]|&quot;|&apos;|&\#0?3[49];|&\#x2[27];|%22)"
_ENDING = r"(?:s|[-_](?:prod|dev|test|live|staging|v?\d{1,3})|\d{1,3})?"
_NAME = re.compile(
    r"(?P<stem>pass(?:word|wd|phrase|code)?|pwd|key|secret|token|auth(?:orization)?|credential|pw|pat|sig(?:nature)?"
    rf"|session(?:[-_]?id)?|cookie){_ENDING}"
    rf"(?P<sep>{_QUOTE}?\]?(?: provided)?[ \t]{{0,8}}(?:=>|:=|={{1,3}}|:|%3[ad])[ \t]{{0,8}}"
    rf"|{_QUOTE},[ \t]?(?=[bru]?{_QUOTE}))(?:[bru]?(?P<quote>{_QUOTE}))?"
)
_STRONG = ("password", "passwd", "passphrase", "passcode", "pwd", "secret", "credential")
_BEFORE_KEY = re.compile(
    r"(?:api|access|secret|private|subscription|account|auth|encryption|signing|service|master|admin|license|storage"
    r"|deploy|webhook)[-_. ]?$"
)
_BEFORE_TOKEN = re.compile(
    r"(?:access|auth|refresh|session|security|bearer|private|personal|(?<![a-z])(?:id|hf|bot|api))[-_. ]?$"
)
_OF_A_VOCABULARY = re.compile(
    r"(?:[bceu]os|pad|unk|sep|cls|mask|special|stop|end|start|per|next|last|first|image|audio|video|new|max|min|prefix"
    r"|suffix|template|added|extra|each|turn|text|tool|think)[-_. ]$"
)
_ARGUMENT = re.compile(
    r"(?i)--(?:\w{1,20}-){0,3}(?:password|passphrase|secret|token|(?:api|access|secret)-?key)"
    rf"(?:{_QUOTE},[ ]?{_QUOTE}|[ ]{{1,4}})(?=[^\s-])"
)
_QUERY = re.compile(r"(?i)(?:[?&;]|%26|%3f)(?:key|token|auth|sig|signature|code|secret|pass|pwd)(?:=|%3d)")
_SCHEME_WORD = re.compile(r"(?i)(bearer|basic)(?:[ ]{1,4}|%20|\+|\\u0020)(?=[^\s'\"&⟨]{8})")
_HEADER_SCHEME = re.compile(
    r"(?i)(?:bearer|basic|token|api-?key|key|digest|negotiate|jwt|oauth|sso-key|splunk)(?:[ \t]+|%20|\+)"
    r"|(?i:([a-z][\w-]{0,30}))[ \t]+"
)

_BARE = re.compile(
    rf"(?:[^\s'\"`<>&\\⟨⟩]++|{MARK}|&(?!(?:quot|apos|lt|gt|\#0?3[49]|\#x2[27]);)|\\(?!\\{{0,8}}[\"'`])|['\"`](?=\w)"
    r"|<(?!/?[A-Za-z]\w{0,15}[\s/>])|>(?=\w))++"
)
_IN_QUERY = re.compile(rf"(?:[^\s'\"`<>&#\\⟨⟩%]++|{MARK}|%(?!26|23))++")
_TOKEN68 = re.compile(r"[\w.~+/=%!@#$^*:-]++")
_LINE = re.compile(rf"(?:[^\r\n'\"<⟨⟩]++|{MARK})++")
_CLOSED = {quote: re.compile(rf"(?:[^{quote}\\\n]++|\\.)*+") for quote in "\"'`"}
# A hidden character in a value, or its code, hides nothing: what stands before it is judged.
_UNSEEN = r"\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
_FIRST = re.compile(rf"(?:[^\s\"'`⟨{_UNSEEN}]|⟨(?!U\+)){{0,64}}")
_FIRST_OF_LINE = re.compile(rf"(?:[^⟨{_UNSEEN}]|⟨(?!U\+)){{0,64}}")
_LAST = ",.;:)]}"

_NO_SECRET = frozenset(
    {
        "none",
        "null",
        "nil",
        "true",
        "false",
        "yes",
        "required",
        "optional",
        "missing",
        "unset",
        "empty",
        "string",
        "bytes",
    }
    | {"redacted", "hidden", "invalid", "undefined", "todo", "your", "input", "value"}
)
_CODE = re.compile(r"(?:self|os|args|config|settings|kwargs|options|cfg|environ|getpass)\.[a-z_]\w*")
_NUMBER = re.compile(r"[-+]?[\d.,_]*(?:e[-+]?\d+)?%?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d")


def key_spans(text: str) -> Iterator[Span]:
    """Spans of keys of services, private keys, and addresses with their passwords."""
    yield from (match.span() for match in _KEY.finditer(text))
    if "PRIVATE KEY" in text:
        yield from (match.span() for match in _PEM.finditer(text))
    yield from _web_tokens(text)
    yield from _addresses(text)


def _web_tokens(text: str) -> Iterator[Span]:
    """JSON web tokens. Whatever begins in one run of letters has the same end, so a run is read once."""
    start = text.find("eyJ")
    while start >= 0:
        end = _end(_RUN, text, start)
        if end - start >= 11 and (tail := _JWT_TAIL.match(text, end)):
            end = tail.end()
            yield start, end
        start = text.find("eyJ", end)


def _addresses(text: str) -> Iterator[Span]:
    """Spans between `://` and `@`, where these hold more than the name of a user."""
    schemes = [match.span() for match in _SCHEME.finditer(text)] if "/" in text or "%" in text else []
    for (_, start), (following, _) in pairwise([*schemes, (len(text), len(text))]):
        stop = _end(_ADDRESS, text, start, following)  # an address is not read beyond the next one
        authority = text[start : _end(_AUTHORITY, text, start, stop)]
        whole = text[start:stop]
        if (colon := _COLON.search(authority)) and not authority.startswith("["):
            reach = whole[: len(authority)] if _AT.search(authority) else ""
            reach = reach if reach and not _AT.search(whole.partition("?")[0], len(reach)) else whole
            if (last := _last(_AT, reach)) and last.start() > colon.start():
                yield start, start + last.start()
        elif (last := _last(_AT, authority)) and _is_opaque(authority[: last.start()], 12, 20):
            yield start, start + last.start()


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last place where a pattern fits."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def named_spans(text: str) -> Iterator[Span]:
    """Spans of values whose name says that they are secret: of a header, an address's query, an assignment."""
    low = text.replace("\u0130", "I").lower()  # the one letter whose small form is two
    yield from _in_order(text, _NAME, _named, low)
    if "--" in text:
        yield from _in_order(text, _ARGUMENT, _behind(_BARE, 4))
    if "=" in text or "%3" in text:
        yield from _in_order(text, _QUERY, _behind(_IN_QUERY, 8))
    if "bearer" in low or "basic" in low:
        yield from _in_order(text, _SCHEME_WORD, _of_a_scheme)


def is_named_secret(name: str, value: str) -> bool:
    """Return whether an entry of this name and value is a secret, as it would be in a JSON text."""
    text = f'{name[-80:]}": "'
    match = next((match for match in _NAME.finditer(text.lower()) if match.end() == len(text)), None)
    return match is not None and _accepts(match, text, value[:64])


def _in_order(
    text: str, names: re.Pattern[str], value_of: Callable[[re.Match[str], str], Span | None], low: str = ""
) -> Iterator[Span]:
    """The values behind names; a name within a value is none."""
    done = 0
    for match in names.finditer(low or text):
        if match.end() >= done and (span := value_of(match, text)):
            done = span[1]
            yield span


def _behind(shape: re.Pattern[str], least: int) -> Callable[[re.Match[str], str], Span | None]:
    """A reader of what stands right behind a name and is at least so long."""

    def value(match: re.Match[str], text: str) -> Span | None:
        end = _end(shape, text, match.end())
        head = text[match.end() : min(end, match.end() + 90)]
        return (match.end(), end) if len(head) >= least and not _is_marked(head) else None

    return value


def _of_a_scheme(match: re.Match[str], text: str) -> Span | None:
    """The value behind `Bearer` or `Basic`, unless it is a common word."""
    end = _end(_TOKEN68, text, match.end())
    head = text[match.end() : min(end, match.end() + 64)].rstrip(_LAST)
    secret = _is_opaque(head, 8, 16) or re.search("[a-z][A-Z]|[+/=_.]", head)
    if not secret or text[max(0, match.start() - 1) : match.start()].isalnum():
        return None
    return match.end(), match.end() + len(head) if end - match.end() <= 64 else end


def _named(match: re.Match[str], text: str) -> Span | None:
    """The value behind the name that was matched, where it is a secret."""
    start, quote = match.end(), match["quote"]
    if match["stem"] == "authorization":
        start = _behind_scheme(text, start)
    head = _head(text, start, quote)
    if len(head) < 4 or not _accepts(match, text, head):
        return None
    if match["stem"] == "cookie":
        return start, _end(_LINE, text, start)
    if quote and (end := _closing(text, start, text[match.start("quote") : match.end("quote")])) is not None:
        return start, end
    end = _end(_IN_QUERY if "%3" in match["sep"] or _in_query(match.start(), text) else _BARE, text, start)
    while end > start + 1 and text[end - 1] in _LAST:
        end -= 1
    return (start, end) if end > start else None


def _in_query(start: int, text: str) -> bool:
    """True if a name stands in the query of an address, such as `&X-Amz-Security-Token=`."""
    return re.search(r"[?&][\w-]*$", text[max(0, start - 40) : start]) is not None


def _strength(match: re.Match[str], text: str) -> str:
    """The strength of a name: `strong`, a secret whatever its value; `weak`, one if its value looks like one (a token
    may be a word of a vocabulary); empty, none. It begins where a word does: `DB_PASSWORD`, `dbToken`, `PGPASSWORD`,
    not `retoken`."""
    stem, start = match["stem"], match.start()
    before = text[max(0, start - 16) : start]
    small = before.lower()
    if stem == "key":
        weak = before.endswith("_") and before[-2:-1].isupper() and text[start] == "K"
        return "strong" if _BEFORE_KEY.search(small) else "weak" if weak else ""
    if before[-1:].isalpha() and not (text[start].isupper() and before[-1].islower()) and not stem.startswith("passw"):
        return ""
    if stem == "token":
        many = text[match.end("stem")] in "sS"
        return "strong" if _BEFORE_TOKEN.search(small) else "" if many or _OF_A_VOCABULARY.search(small) else "weak"
    return "strong" if stem in (*_STRONG, "authorization", "cookie") else "weak"


def _behind_scheme(text: str, start: int) -> int:
    """The start of the value of an `Authorization`: behind the word that says of what kind it is."""
    match = _HEADER_SCHEME.match(text, start)
    if match is None:
        return start
    head = _head(text, match.end(), None)
    return start if match[1] and not _is_marked(head) and not _is_opaque(head, 6, 16) else match.end()


def _head(text: str, start: int, quote: str | None) -> str:
    """The first characters of a value, by which it is judged."""
    if not quote:
        return text[start : _end(_FIRST, text, start)].rstrip(_LAST)
    piece = text[start : _end(_FIRST_OF_LINE, text, start)]
    first = text[start : _end(_FIRST, text, start)]
    if quote in piece or quote[-1] in piece:
        return piece.split(quote if quote in piece else quote[-1])[0]
    return first if len(piece) < 64 or _is_opaque(first, 8, 16) else piece  # a quote that does not close


def _accepts(match: re.Match[str], text: str, head: str) -> bool:
    """True if a value is one that the name says it is."""
    strength, stem = _strength(match, text), match["stem"]
    adjacent = bool(match["quote"]) or match["sep"].endswith(("=", "%3d"))
    if not strength or _is_marked(head) or head.lower() in _NO_SECRET or not any(map(str.isalnum, head)):
        return False
    if stem == "cookie":
        return "=" in head
    if "," in match["sep"]:
        return _is_opaque(head, 8, 20 if strength == "strong" else 64) or (stem == "authorization" and " " in head)
    if not match["quote"] and _CODE.match(head):
        return False
    if strength == "weak":
        short = 6 if adjacent and stem in ("pass", "pw") else 8 if adjacent else 12
        return _is_opaque(head, short, 16 if adjacent else 20)
    whole_name = re.search(r"[\w-]*$", text[max(0, match.start() - 24) : match.end("stem")])  # api_key=api_key is code
    if re.fullmatch(r"<[\w |-]*>?", head) or (whole_name and head == whole_name[0]):
        return False
    return len(head) >= (4 if adjacent else 8) or _is_opaque(head, 6, 8)


def _is_opaque(value: str, mixed: int, long: int) -> bool:
    """True if a value is no word and no number: letters with digits of some length, or a long run of letters."""
    if (
        re.fullmatch(r"[A-Za-z0-9/+_][\w.~+/=%!@#$^*:-]*", value) is None
        or _NUMBER.fullmatch(value)
        or _DATE.match(value)
    ):
        return False
    digits, letters = re.search(r"\d", value), re.search("[A-Za-z]", value)
    return letters is not None and len(value) >= (mixed if digits else long)


def _is_marked(value: str) -> bool:
    """True if nothing is left of a value but marks in the place of secrets."""
    return re.match(rf"(?:{MARK})+[\W_]*$", value) is not None


def _closing(text: str, start: int, quote: str) -> int | None:
    """The place where the quote of a value closes in its line, if it does."""
    if quote in _CLOSED:
        end = _end(_CLOSED[quote], text, start)
        return end if text[end : end + 1] == quote and end > start else None
    mark = quote.lstrip("\\")
    end = text.find(mark, start)
    if end < 0 or "\n" in text[start:end]:
        return None
    while end > start and text[end - 1] == "\\":
        end -= 1
    return end if end > start else None


def _end(pattern: re.Pattern[str], text: str, start: int, stop: int | None = None) -> int:
    """The end of a pattern's match at a place; the place itself where it matches nothing."""
    match = pattern.match(text, start) if stop is None else pattern.match(text, start, stop)
    return match.end() if match else start
