"""The records that travel between the parts of Truing, and the few Protocols by which lower parts ask for higher ones.

Everything here is frozen and free of torch. One `Judgement` serves a human click, an imported preference data set, a
constitutional critic and a verifier, so that every method trains from every source.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from truing.consistency import contradiction
from truing.errors import short, unknown

Positive = Annotated[float, "a number above 0"]
NonNegative = Annotated[float, "a number from 0 up"]
Fraction = Annotated[float, "a number from 0 to 1"]
BelowOne = Annotated[float, "a number from 0 up and below 1"]
PositiveFraction = Annotated[float, "a number above 0, up to 1"]
Clip = Annotated[float, "a number above 0 and below 1"]
Cap = Annotated[float, "a number from 1 up"]
DualClip = Annotated[float, "a number above 1"]
Smoothing = Annotated[float, "a number of at least 0 and below 0.5"]
PositiveSmoothing = Annotated[float, "a number of at least 1e-06 and below 0.5"]
Count = Annotated[int, "a whole number from 1 up"]

Per: TypeAlias = Literal["row", "token", "step"]
Stop: TypeAlias = Literal["eos", "string", "length"]
Mean: TypeAlias = Literal["row", "token", "response", "constant", "step"]
"""The divisor of a whole step's losses: its rows; its learned tokens; each response's own tokens, then
the rows; the rows times the longest response allowed; its labelled steps."""

Advantage: TypeAlias = Literal[
    "gae", "returns", "standardised", "centred", "leave_one_out", "batch_centred", "batch_raw", "none", "any"
]
"""The estimator of advantages from a round's scores: generalised, by a value head; the whitened returns of tokens;
scores against their group's mean, over its deviation or not, or against that of the siblings; against their group's
mean over the whole round's deviation, of these differences or of the raw scores; or the score is read itself; or none
are read, beside an objective that reads any (a penalty)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. Roles: system, user, assistant, tool. `learned` is false for an assistant's turn of a
    response that its data marks as not to be learned from; `apart` is true where the thought that begins the content
    stands in a key or a part of its own in the data. Neither is compared between messages."""

    role: str
    content: str
    learned: bool = field(default=True, compare=False)
    apart: bool = field(default=False, compare=False)


Messages: TypeAlias = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and the response a model should learn to give. `response` is one assistant message, or the rest of a
    conversation (assistant, user, assistant, ...) of which every assistant turn is learned from."""

    prompt: Messages
    response: Messages
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rater's verdict on the responses.

    choice: `value` is the index of the better response; tie: None; score: one number per response;
    ranking: response indices from best to worst; comparisons: (first, second, P(first is better)) of each verdict on
    two of the responses, one half for a tie; steps: one list of step labels per response, 1 good, 0 neutral, -1 bad.
    A score may be a mapping of names to numbers (clarity, truth, ...). `probability` is the soft label
    P(response `value` is better), where it is known.
    """

    kind: Literal["choice", "tie", "score", "ranking", "comparisons", "steps"]
    value: Any = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """One rater's verdict on the responses to one prompt. Each response is a tuple of messages, nearly always one."""

    prompt_id: str
    prompt: Messages
    responses: tuple[Messages, ...]
    verdict: Verdict
    generators: tuple[str, ...] = ()
    rater: str = ""
    rubric: str = ""
    reason: str = ""
    principle: str = ""
    seen_order: tuple[int, ...] = ()
    strength: float | None = None
    licence: str = ""
    at: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> Messages:
        """The better response of a choice."""
        return self.responses[self.verdict.value]

    @property
    def rejected(self) -> Messages:
        """The worse response of a choice between two."""
        return self.responses[1 - self.verdict.value]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Options of sampling. A response ends with an end token of the model's or of `stop_tokens`, or where its text has
    one of `stop_strings`. The log-probabilities kept are those of the distribution sampled from: temperature first,
    then the `top_k` likeliest tokens, then the likeliest that reach `top_p`. At temperature 0 the likeliest token is
    taken, and they are the model's own. Every response draws by itself from (`seed`, prompt, response)."""

    max_new_tokens: Count = 64
    temperature: NonNegative = 1.0
    seed: int = 0
    top_p: PositiveFraction = 1.0
    top_k: Count | None = None
    stop_strings: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()

    @property
    def enters_ratio(self) -> bool:
        """Return whether the log-probabilities can enter a ratio to the trainer's at this temperature: no token is
        excluded."""
        return self.temperature > 0 and self.top_p == 1 and self.top_k is None


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response of a policy: token ids in, token ids and their log-probabilities (nats) out. It stopped at an end
    token (`eos`, kept), at a stop string (`string`, kept), or at the limit."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logp_T: tuple[float, ...]
    stop: Stop
    policy_version: int = 0
    group: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """A reward's score of one response. A reward that failed has `failed=True` and says why; it is never 0.0.
    `timed_out`: the score is low because the reward timed out on the response; `unread`: because the response has no
    answer that the reward can read. `blame`: whether it failed by the response's own doing (it is longer than can be
    read), which ends no run, or by the reward's or the data's."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    failed: bool = False
    why: str = ""
    timed_out: bool = False
    unread: bool = False
    blame: Literal["reward", "response"] = "reward"


class NotRead(float):
    """The score of a response whose answer the reward cannot read: a number like any other, and counted as unread."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One measured fact about a model, the only thing a report shows and a gate reads.

    `interval` is the 95 % interval of `value` (None where there is none), `n` the number of independent items,
    `bound` what the value was to be held against, `verdict` a word ("better", "worse", "unclear", "passed", ...),
    `evidence` a short text: how it was measured; `reservation` why nothing may be decided by it, empty where it may.
    """

    check: str
    model: str
    value: float
    against: str = ""
    slice: str = "all"
    interval: tuple[float, float] | None = None
    n: int = 0
    bound: float | None = None
    verdict: str = ""
    evidence: str = ""
    reservation: str = ""

    def __post_init__(self) -> None:
        """ValueError for a finding that contradicts itself."""
        wrong = contradiction(self.check, self.value, self.interval, self.n, self.bound, self.verdict)
        if wrong:
            raise ValueError(f"{wrong} ({self.check}{f' of {self.model}' if self.model else ''})")

    def as_json(self) -> dict[str, Any]:
        """The stable form that programs read."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}
        row["interval"] = list(self.interval) if self.interval else None
        return row

    @classmethod
    def from_json(cls, row: Any) -> Finding:
        """The finding that `as_json` wrote; ValueError says which field cannot be used.

        >>> Finding.from_json({"check": "win_rate", "model": "direct", "value": 0.6, "interval": [0.5, 0.7]}).interval
        (0.5, 0.7)
        """
        if not isinstance(row, Mapping):
            raise ValueError("is not an object")
        strange = [key for key in row if key not in cls.__dataclass_fields__]
        if strange:
            raise ValueError(unknown("key", str(strange[0]), cls.__dataclass_fields__))
        text = ("check", "model", "against", "slice", "verdict", "evidence", "reservation")
        words = {name: row.get(name) or "" for name in text}
        for name, word in words.items():
            if not isinstance(word, str):
                raise ValueError(f"{name} must be text, not {word!r}")
        check, value = words["check"], row.get("value")
        bound: Any = row.get("bound")
        interval, n = row.get("interval"), row.get("n") or 0
        if not check:
            raise ValueError("has no check")
        if value is None or not is_number(value):
            raise ValueError(f"value must be a number, not {value!r} ({check})")
        if interval is not None and not (
            isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
        ):
            raise ValueError(f"interval must be [low, high], not {interval!r} ({check})")
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n must be a whole number from 0 up, not {n!r} ({check})")
        if bound is not None and not is_number(bound):
            raise ValueError(f"bound must be a number, not {bound!r} ({check})")
        words["slice"] = words["slice"] or "all"
        ends = (float(interval[0]), float(interval[1])) if interval else None
        return cls(value=float(value), interval=ends, n=n, bound=None if bound is None else float(bound), **words)


@dataclass(frozen=True, slots=True)
class RowNote:
    """A row of a data file that was odd, and what was done with it. Rows are counted from 1, as in every message."""

    row: int
    field: str
    problem: str
    action: Literal["dropped", "joined", "kept", "truncated"]


@dataclass(frozen=True, slots=True)
class ColumnNote:
    """The use of columns of a file that no convention names, or of keys of its messages, and the number of such
    rows."""

    columns: tuple[str, ...]
    what: str
    rows: int
    sort: str = "column"

    @property
    def text(self) -> str:
        """One line for people.

        >>> ColumnNote(("source", "idx"), "not read", 20_000).text
        "columns 'source', 'idx' not read (20,000 rows)"
        """
        names = ", ".join(f"'{short(name)}'" for name in self.columns[:20])
        more = f" and {len(self.columns) - 20} more" if len(self.columns) > 20 else ""
        plural = "s" * (len(self.columns) > 1)
        return f"{self.sort}{plural} {names}{more} {self.what} ({self.rows:,} row{'s' * (self.rows != 1)})"


@dataclass(frozen=True)
class Records:
    """A data set in memory: records of one kind, where they came from, notes on odd rows, and of a whole file notes on
    the columns that no convention names."""

    name: str
    records: tuple[Demonstration | Judgement, ...]
    rows: tuple[int, ...]
    notes: tuple[RowNote, ...] = ()
    digest: str = field(default="")
    columns: tuple[ColumnNote, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def texts(self) -> Iterator[str]:
        """The text of every message, on which a tokenizer is trained."""
        for record in self.records:
            responses = (record.response,) if isinstance(record, Demonstration) else record.responses
            for messages in (record.prompt, *responses):
                yield from (m.content for m in messages)

    def subset(self, indices: Sequence[int], name: str) -> Records:
        """The records at `indices` with their notes, under a new name; row numbers stay those of the file."""
        chosen = {self.rows[i] for i in indices}
        return Records(
            name=name,
            records=tuple(self.records[i] for i in indices),
            rows=tuple(self.rows[i] for i in indices),
            notes=tuple(note for note in self.notes if note.row in chosen),
            digest=digest([self.digest, list(indices)]),
        )


class Engine(Protocol):
    """Anything that samples rollouts with their log-probabilities: the in-process engine, a server, a test."""

    def generate(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling) -> list[Rollout]:
        """`n` responses to each prompt, in order; `group` is the prompt's place, `policy_version` that of the
        weights."""

    def sync(self, policy: Any, version: int) -> None:
        """Sample from these weights from now on; RunFailed where they did not arrive whole."""


class Reward(Protocol):
    """Anything that scores a response as text."""

    def __call__(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]: ...


OWED: frozenset[str] = frozenset()
"""Signals of the vocabulary that no stage computes yet. An objective that needs one is called from Python only."""


def default_mean(signals: Sequence[str]) -> Mean:
    """The divisor where an objective does not say: tokens or steps if it asks for their mask."""
    return "token" if "mask_BT" in signals else "step" if "step_mask_BS" in signals else "row"


def per_of(mean: Mean) -> Per:
    """The unit of one loss, from the divisor of the losses.

    >>> per_of("response")
    'token'
    """
    return "token" if mean == "response" or mean == "constant" else mean


def messages_json(messages: Messages) -> list[dict[str, str]]:
    """Messages as plain data, the form chat templates and files use."""
    return [{"role": m.role, "content": m.content} for m in messages]


def marked_json(messages: Messages) -> list[dict[str, Any]]:
    """Messages of a response as a file holds them: `weight: 0` stands on turns that are not learned from."""
    return [
        {"role": m.role, "content": m.content} if m.learned else {"role": m.role, "content": m.content, "weight": 0}
        for m in messages
    ]


def is_number(x: Any) -> bool:
    """Return whether `x` is a finite number (true and false are none)."""
    if isinstance(x, bool) or not isinstance(x, int | float):
        return False
    try:
        return math.isfinite(float(x))
    except OverflowError:  # a whole number of hundreds of digits
        return False


@cache
def source_digest(*parts: str) -> str:
    """A content hash of the package's own source, or of some of its folders and files: what made a thing that is
    kept. It is read once a process, whose code does not change either."""
    package = Path(__file__).parent
    places = [package / part for part in parts or (".",)]
    files = sorted(f for place in places for f in ([place] if place.is_file() else place.rglob("*.py")))
    return digest([[f.relative_to(package).as_posix(), f.read_text(encoding="utf-8")] for f in files])


def digest(value: Any) -> str:
    """A content hash of plain data: 16 hexadecimal digits of sha256 over canonical JSON.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def prompt_id(prompt: Messages) -> str:
    """The identity of a prompt: the same words in the same roles give the same id."""
    return digest(messages_json(prompt))
