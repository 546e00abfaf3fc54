"""The column conventions of the ecosystem, accepted as they are: one table, each line with its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from truing.data.formats import cells
from truing.data.formats import conversation as talk
from truing.data.formats.files import Row
from truing.data.formats.oddities import Oddities, Unusable
from truing.errors import DataError
from truing.records import Demonstration, Judgement, Message, Messages, Verdict, prompt_id

Want = Literal["pairs", "demonstrations", "prompts", "any"]
Gives = Literal["pairs", "demonstrations", "prompts"]
Turns = Literal["last", "all"]
Record = Demonstration | Judgement
Read = Callable[[Row, Oddities], Record]

META = ("prompt_id", "group", "tools")
TOOLS = ("tools", "functions")
SAFE = ("chosen_safe", "rejected_safe")
OPTIONAL = (*META, *SAFE, "margin", "preference", "tie")


@dataclass(frozen=True, slots=True)
class Convention:
    """A set of columns that names a kind of row, what its rows become, and how one is read."""

    columns: tuple[str, ...]
    gives: Gives
    read: Read
    also: tuple[str, ...] = ()
    """Columns that it reads where they are there, beside those of every convention."""

    @property
    def reads(self) -> frozenset[str]:
        """Every column that it reads."""
        return frozenset({*self.columns, *self.also, *META, *TOOLS})

    @property
    def name(self) -> str:
        """The columns as people write them: `prompt/chosen/rejected`."""
        return "/".join(self.columns)


CONVENTIONS: list[Convention] = []


def convention(gives: Gives, *names: str, also: tuple[str, ...] = ()) -> Callable[[Read], Read]:
    """Add one or more lines (`a/b/c`) to the table. The first line whose columns a file has reads it."""

    def add(read: Read) -> Read:
        CONVENTIONS.extend(Convention(tuple(name.split("/")), gives, read, also) for name in names)
        return read

    return add


VERDICTS = ("preference", "tie")
UNLEARNED_END = "ends with turns that are marked as not to be learned"
LAST_UNLEARNED = (
    "is a verdict on the last response of the conversation, which is marked as not to be learned (weight, train, ...); "
    "take the mark away, or the turns behind the response that is meant"
)


@convention("pairs", "prompt/chosen/rejected", "chosen/rejected", also=(*SAFE, *VERDICTS, "margin"))
def pair(row: Row, odd: Oddities) -> Record:
    """Two responses of which one was preferred; the prompt apart, or as the shared beginning of both."""
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" in row and not (_opens_with_prompt(chosen) and _opens_with_prompt(rejected)):
        prompt = talk.prompt(row["prompt"], "prompt", odd)
        first, second = talk.response(chosen, "chosen", odd), talk.response(rejected, "rejected", odd)
    else:
        left, right = _conversation(chosen, "chosen", odd), _conversation(rejected, "rejected", odd)
        at = talk.shared_prompt(left, right)
        if not at:
            raise Unusable("chosen", "shares no prompt with rejected: the two must begin with the same messages")
        prompt = talk.checked_prompt(left[:at], "chosen", odd)
        _same_prompt(row.get("prompt"), prompt, odd)
        first = talk.checked_response(left[at:], "chosen", odd)
        second = talk.checked_response(right[at:], "rejected", odd)
    if first == second:
        raise Unusable("chosen", "is the same as rejected")
    verdict, swapped = _preferred(row, odd)
    safe = {name: cells.boolean(row[name], name) for name in SAFE if cells.has_value(row, name)}
    if swapped:
        first, second = second, first
        safe = {other: safe[name] for name, other in zip(SAFE, reversed(SAFE), strict=True) if name in safe}
    return Judgement(
        prompt_id=prompt_id(prompt),
        prompt=prompt,
        responses=(first, second),
        verdict=verdict,
        strength=_margin(row),
        meta=_meta(row) | safe,
    )


def _margin(row: Row) -> float | None:
    margin = cells.optional(row, "margin")
    if margin is not None and margin < 0:
        raise Unusable(
            "margin",
            f"is {margin:g}, and it is how much better chosen is: swap the responses, or say columns: {{margin: null}}",
        )
    return margin


def _preferred(row: Row, odd: Oddities) -> tuple[Verdict, bool]:
    """A choice, or a tie by the column `tie` or a preference of one half; and whether rejected is the better one."""
    sure = cells.optional(row, "preference", 0.0, 1.0)
    tie = cells.has_value(row, "tie") and cells.boolean(row["tie"], "tie")
    if tie and sure not in (None, 0.5):
        raise Unusable("preference", f"is {sure:g}, and the row is a tie")
    if (tie or sure == 0.5) and (margin := cells.optional(row, "margin")):
        raise Unusable("margin", f"is {margin:g}, and the row is a tie")
    if tie or sure == 0.5:
        return Verdict("tie"), False
    if sure is None or sure > 0.5:
        return Verdict("choice", 0, sure), False
    if margin := cells.optional(row, "margin"):
        raise Unusable("margin", f"is {margin:g}, and preference {sure:g} says that rejected is the better one")
    odd.add("preference", "below one half: the responses were swapped", "kept")
    return Verdict("choice", 0, 1 - sure), True


@convention("pairs", "prompt/completion/label", "prompt/response/label")
def unpaired(row: Row, odd: Oddities) -> Record:
    """One response and whether it is desirable."""
    prompt, response = _prompt_and_response(row, odd)
    value = float(cells.boolean(row["label"], "label"))
    return Judgement(prompt_id(prompt), prompt, (response,), Verdict("score", [value]), meta=_meta(row))


@convention(
    "pairs", "prompt/completion/score", "prompt/response/score", "prompt/completion/scores", "prompt/response/scores"
)
def rated(row: Row, odd: Oddities) -> Record:
    """One response and its score, or scores by name. Of several raters the mean; meta keeps their `spread`."""
    prompt, response = _prompt_and_response(row, odd)
    name = "score" if "score" in row else "scores"
    value, spread = cells.score(row[name], name)
    meta = _meta(row) | ({} if spread is None else {"spread": [spread]})
    return Judgement(prompt_id(prompt), prompt, (response,), Verdict("score", [value]), meta=meta)


@convention("pairs", "prompt/responses/ranking")
def ranked(row: Row, odd: Oddities) -> Record:
    """Several responses and their order: indices counted from 0, best first, each once."""
    count = _count(row, least=2)
    places = cells.entries(row["ranking"], "ranking", "response")
    order = [cells.index(value, f"ranking[{i}]", count) for i, value in enumerate(places)]
    twice = next((value for i, value in enumerate(order) if value in order[:i]), None)
    if twice is not None:
        raise Unusable("ranking", f"names response {twice} twice; a ranking has no ties, comparisons and scores have")
    if len(order) < count:
        raise Unusable("ranking", f"leaves out response {min(set(range(count)) - set(order))}")
    return _several(row, odd, Verdict("ranking", order))


@convention("pairs", "prompt/responses/comparisons")
def compared(row: Row, odd: Oddities) -> Record:
    """Several responses and raters' verdicts on two at a time: [i, j, P(response i is better)], one half for a tie.
    Each rater's verdict is an entry of its own."""
    count = _count(row, least=2)
    comparisons = []
    for k, entry in enumerate(cells.entries(row["comparisons"], "comparisons", "verdict")):
        name = f"comparisons[{k}]"
        if not isinstance(entry, list | tuple) or len(entry) != 3:
            raise Unusable(name, "is not [i, j, p]: two responses and the probability that the first is better")
        first, second = (cells.index(entry[at], f"{name}[{at}]", count) for at in (0, 1))
        if first == second:
            raise Unusable(name, f"compares response {first} with itself")
        comparisons.append((first, second, cells.number(entry[2], f"{name}[2]", 0.0, 1.0)))
    return _several(row, odd, Verdict("comparisons", comparisons))


@convention("pairs", "prompt/responses/scores")
def several_rated(row: Row, odd: Oddities) -> Record:
    """Several responses, each with its score or its scores by name. Of several raters the mean, as for one response."""
    scores = cells.entries(row["scores"], "scores", "response", _count(row))
    read = [cells.score(value, f"scores[{i}]") for i, value in enumerate(scores)]
    values, spread = [value for value, _ in read], [apart for _, apart in read]
    if len({isinstance(value, dict) for value in values}) > 1:
        raise Unusable("scores", "are by name for some responses and single numbers for others")
    return _several(row, odd, Verdict("score", values), {} if spread.count(None) == len(spread) else {"spread": spread})


@convention("pairs", "prompt/responses/labels")
def several_labelled(row: Row, odd: Oddities) -> Record:
    """Several responses and whether each is desirable."""
    labels = cells.entries(row["labels"], "labels", "response", _count(row))
    values = [float(cells.boolean(label, f"labels[{i}]")) for i, label in enumerate(labels)]
    return _several(row, odd, Verdict("score", values))


@convention("pairs", "prompt/completions/labels", "prompt/completions/ratings")
def steps(row: Row, odd: Oddities) -> Record:
    """One response in steps, each labelled right or wrong, or rated 1, 0 (neutral) or -1. Meta keeps the steps; the
    response joins them by lines."""
    prompt = talk.prompt(row["prompt"], "prompt", odd)
    name = "labels" if "labels" in row else "ratings"
    texts = cells.entries(row["completions"], "completions", "step")
    labels = cells.entries(row[name], name, "step", len(texts))
    parts = [talk.text(step, f"completions[{i}]") for i, step in enumerate(texts)]
    read = _right if name == "labels" else _rating
    values = [read(value, f"{name}[{i}]") for i, value in enumerate(labels)]
    response = (Message("assistant", "\n".join(parts)),)
    meta = {**_meta(row), "steps": parts}
    return Judgement(prompt_id(prompt), prompt, (response,), Verdict("steps", [values]), meta=meta)


def _right(value: Any, name: str) -> float:
    return 1.0 if cells.boolean(value, name) else -1.0


def _rating(value: Any, name: str) -> float:
    rating = cells.number(value, name)
    if rating not in (-1.0, 0.0, 1.0):
        raise Unusable(name, f"is {rating:g}, not 1, 0 (neutral) or -1")
    return rating


@convention("pairs", "messages/label", "conversations/label")
def labelled_dialogue(row: Row, odd: Oddities) -> Record:
    """A conversation and whether the response it ends with is desirable."""
    name, turns = _dialogue(row, odd)
    if any(problem == UNLEARNED_END for _, problem, _ in odd.notes):
        raise Unusable("label", LAST_UNLEARNED)
    last = len(turns) - 1
    while last and turns[last - 1].role not in ("user", "system"):
        last -= 1
    prompt, response = talk.checked_prompt(turns[:last], name, odd), talk.checked_response(turns[last:], name, odd)
    value = float(cells.boolean(row["label"], "label"))
    return Judgement(prompt_id(prompt), prompt, (response,), Verdict("score", [value]), meta=_meta(row))


@convention("demonstrations", "messages", "conversations")
def dialogue(row: Row, odd: Oddities) -> Record:
    """A conversation of which the assistant's turns are to be learned; what follows the last of them is cut off. Turns
    that are marked as not to be learned are read before those that are."""
    name, messages = _dialogue(row, odd)
    first = next(i for i, m in enumerate(messages) if m.role == "assistant" and m.learned)
    prompt = talk.checked_prompt(messages[:first], name, odd)
    return Demonstration(prompt, talk.checked_response(messages[first:], name, odd), _meta(row))


def _dialogue(row: Row, odd: Oddities) -> tuple[str, Messages]:
    """The column of a conversation, and its messages up to the last that is learned."""
    name = "messages" if row.get("messages") is not None or "conversations" not in row else "conversations"
    roles = talk.PLAIN_ROLES if name == "messages" else talk.SHAREGPT
    messages = talk.joined(talk.messages(row[name], name, odd, roles), name, odd, reply=True)
    replies = [i for i, m in enumerate(messages) if m.role == "assistant"]
    taught = [i for i in replies if messages[i].learned]
    if not taught:
        raise Unusable(name, talk.NONE_LEARNED if replies else "has no assistant message to learn from")
    if replies[-1] + 1 < len(messages):
        odd.add(name, f"ends with role '{messages[-1].role}', which nothing answers", "truncated")
    if taught[-1] < replies[-1]:
        odd.add(name, UNLEARNED_END, "truncated")
    talk.check_order(messages[: taught[-1] + 1], name, Oddities())
    return name, messages[: taught[-1] + 1]


@convention("demonstrations", "prompt/response", "prompt/completion")
def demonstration(row: Row, odd: Oddities) -> Record:
    """A prompt and the response to learn."""
    return Demonstration(*_prompt_and_response(row, odd), _meta(row))


@convention("demonstrations", "text")
def plain(row: Row, odd: Oddities) -> Record:
    """A text to continue to learn from, outside any conversation: no prompt, no chat template (meta `plain`)."""
    response = (Message("assistant", talk.text(row["text"], "text")),)
    return Demonstration((), response, {**_meta(row), "plain": True})


@convention("demonstrations", "instruction/output", "instruction/response")
def instruction(row: Row, odd: Oddities) -> Record:
    """An instruction and the response to learn; what is given with it stands in `input` or `context` (`columns`)."""
    name = "output" if "output" in row else "response"
    prompt = talk.prompt(row["instruction"], "instruction", odd)
    return Demonstration(prompt, talk.response(row[name], name, odd), _meta(row))


@convention("prompts", "prompt")
def prompt_alone(row: Row, odd: Oddities) -> Record:
    """A prompt to answer: a demonstration with an empty response, which no stage can learn from. What else stands in
    the row is kept for rewards that read it (meta `columns`)."""
    more = {name: value for name, value in row.items() if name not in ("prompt", *META) and value is not None}
    return Demonstration(
        talk.prompt(row["prompt"], "prompt", odd), (), _meta(row) | ({"columns": more} if more else {})
    )


ROLES = frozenset(name for line in CONVENTIONS for name in line.columns) | set(OPTIONAL)
"""Every column name that means something."""


def as_demonstration(messages: Messages, turns: Turns = "last", meta: Mapping[str, Any] | None = None) -> Demonstration:
    """A conversation as something to learn from: its last response, or every assistant turn.

    >>> talk = (Message("user", "1"), Message("assistant", "2"), Message("user", "3"), Message("assistant", "4"))
    >>> [len(as_demonstration(talk, turns).response) for turns in ("last", "all")]
    [1, 3]
    """
    replies = [i for i, m in enumerate(messages) if m.role == "assistant"]
    if not replies:
        raise DataError("messages", "no assistant message to learn from")
    start = replies[-1] if turns == "last" else replies[0]
    return Demonstration(talk.unmarked(messages[:start]), messages[start : replies[-1] + 1], meta or {})


def _prompt_and_response(row: Row, odd: Oddities) -> tuple[Messages, Messages]:
    name = "completion" if "response" not in row else "response"
    return talk.prompt(row["prompt"], "prompt", odd), talk.response(row[name], name, odd)


def _count(row: Row, least: int = 1) -> int:
    """Return the number of a row's responses; Unusable for fewer than `least`."""
    count = len(cells.entries(row["responses"], "responses", "response"))
    if count < least:
        raise Unusable("responses", f"has {count} entry, and what is compared is two or more")
    return count


def _several(row: Row, odd: Oddities, verdict: Verdict, more: Mapping[str, Any] | None = None) -> Judgement:
    prompt = talk.prompt(row["prompt"], "prompt", odd)
    responses = tuple(talk.response(value, f"responses[{i}]", odd) for i, value in enumerate(row["responses"]))
    if len(set(responses)) < len(responses):
        odd.add("responses", "holds the same response twice", "kept")
    return Judgement(prompt_id(prompt), prompt, responses, verdict, meta=_meta(row) | dict(more or {}))


def _opens_with_prompt(value: Any) -> bool:
    """True if a chosen or rejected value is a whole conversation and not the response alone."""
    if isinstance(value, str):
        return talk.is_transcript(value)
    first = value[0] if isinstance(value, list | tuple) and value else None
    return isinstance(first, Mapping) and first.get("role", first.get("from")) in ("system", "user", "human")


def _conversation(value: Any, name: str, odd: Oddities) -> Messages:
    if isinstance(value, str):
        if not talk.is_transcript(value):
            talk.text(value, name)
            raise Unusable(name, "there is no prompt: no column 'prompt', and this text is no transcript (Human: ...)")
        return talk.transcript(value)
    return talk.messages(value, name, odd)


def _same_prompt(prompt_column: Any, prompt: Messages, odd: Oddities) -> None:
    """A prompt column beside whole conversations must be what they begin with."""
    if prompt_column is None:
        return
    if isinstance(prompt_column, str) and not talk.is_transcript(prompt_column):
        agrees = any(prompt_column.strip() == m.content.strip() for m in prompt)
    else:
        agrees = talk.prompt(prompt_column, "prompt", Oddities()) == prompt
    if not agrees:
        raise Unusable("prompt", "is not what chosen and rejected begin with")


def _meta(row: Row) -> dict[str, Any]:
    meta = {name: row[name] for name in META if row.get(name) not in (None, "", [])}
    if not any(name in row for name in TOOLS):
        return meta
    named = {name: listed for name in TOOLS if (listed := cells.tools(row.get(name), name))}
    if len(named) > 1:
        raise Unusable("functions", "stands beside tools, and both name some; keep one of them")
    meta.pop("tools", None)
    for name, listed in named.items():
        # OpenAI's older `functions` are the tools without the words around each.
        meta["tools"] = listed if name == "tools" else [{"type": "function", "function": call} for call in listed]
    return meta
