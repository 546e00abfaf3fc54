"""Calls of reward functions: with the arguments their signature names, within a time limit, every value checked.

    response                                one response at a time: prompt, response, tokens, row
    responses, scope="response"             many responses at once: prompts, responses, tokens, rows, as lists
    responses, scope="group"                all responses to one prompt: prompt, responses, tokens, row
    none of them                            it is called once, before anything is scored, and returns a `Reward`

A function of one response may also read `whole_turn`: True if its text begins where the policy's turn does.
Any other positional name is a column of the prompt's row. TRL's signature (prompts, completions, columns) is accepted
as it is. A function may be async: calls for single responses then run concurrently.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from truing.errors import TruingError, UserError, redacted
from truing.records import Messages, NotRead, Score, is_number, messages_json
from truing.registry import RewardFunction
from truing.schema.signature import TRL, TRL_TAKES

KNOWN = frozenset({"prompt", "prompts", "response", "responses", "tokens", "row", "rows", "first", "whole_turn"})
"""The argument names that truing itself fills; any other name is a column's."""
TRL_KNOWN = frozenset({"prompts", TRL_TAKES, "completion_ids"})
AT_ONCE = 32
"""The number of concurrent calls of an async function."""
SILENT = "has no score for it"
"""The reason why a reward of TRL's signature that returned None has no value: it is left out of the sum."""


@dataclass(frozen=True)
class Response:
    """One response to be scored: its text and token ids, its prompt, and the other columns of the prompt's row. A
    policy's own is `whole`: its text begins where the policy's turn does, with what the generation prompt opened."""

    prompt: Messages
    response: str
    ids: tuple[int, ...] = ()
    group: int = 0
    row: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False


@dataclass(frozen=True)
class Call:
    """A reward function with its options, ready to be called. `seconds` is the timeout of one call of a user's own."""

    function: RewardFunction
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 60.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the prompts' rows that its signature cannot do without."""
        reserved = TRL_KNOWN if self.function.scope == TRL else KNOWN
        wanted = {n: p for n, p in self._parameters.items() if p.default is p.empty and n not in reserved}
        return tuple(name for name in wanted if name not in self.options)

    @property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self.function.fn).parameters
        return {n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

    def __call__(self, answers: Sequence[Response]) -> list[Score]:
        """One score for each response. Where the function raised, timed out, or returned something else than one finite
        number for each response, those of that call have failed and say why."""
        reads = self.function.reads
        if self.function.scope == TRL:
            return self._of_many(answers, self._trl(answers))
        if self.function.scope == "group":
            return self._by_group(answers)
        if "responses" in reads:
            many = {"prompts": [a.prompt for a in answers], "responses": [a.response for a in answers]}
            return self._of_many(answers, self._read(many | columns_of(answers)))
        if inspect.iscoroutinefunction(self.function.fn):
            return self._at_once(answers)
        return [self._of_many([a], self._read(single(a)), wrap=True)[0] for a in answers]

    def _by_group(self, answers: Sequence[Response]) -> list[Score]:
        scores: dict[int, Score] = {}
        groups: dict[int, list[int]] = {}
        for i, answer in enumerate(answers):
            groups.setdefault(answer.group, []).append(i)
        for places in groups.values():
            group = [answers[i] for i in places]
            lists = {"responses": [a.response for a in group], "tokens": [len(a.ids) for a in group]}
            available = single(group[0]) | lists
            scores |= zip(places, self._of_many(group, self._read(available)), strict=True)
        return [scores[i] for i in range(len(answers))]

    def _at_once(self, answers: Sequence[Response]) -> list[Score]:
        """Score every response by a coroutine of its own, `AT_ONCE` at a time, each within the time limit."""
        calls = [self._read(single(a)) for a in answers]

        async def score(arguments: Mapping[str, Any], room: asyncio.Semaphore) -> Score:
            async with room:
                try:
                    return scored(await asyncio.wait_for(self.function.fn(**arguments, **self.options), self.seconds))
                except TruingError:
                    raise
                except Exception as problem:
                    return failed(self._reason(problem))

        async def all_of_them() -> list[Score]:
            room = asyncio.Semaphore(AT_ONCE)
            return await asyncio.gather(*(score(arguments, room) for arguments in calls))

        limit = self.seconds * (1 + math.ceil(len(answers) / AT_ONCE))
        scores, problem = attempt(lambda: asyncio.run(all_of_them()), limit)
        return scores if problem is None else [failed(self._reason(problem))] * len(answers)

    def _of_many(self, answers: Sequence[Response], arguments: Mapping[str, Any], wrap: bool = False) -> list[Score]:
        """The scores of one call; with `wrap` the call is for one response and returns one value."""

        def work() -> Any:
            returned = self.function.fn(**arguments, **({} if self.function.scope == TRL else self.options))
            return asyncio.run(asyncio.wait_for(returned, self.seconds)) if inspect.iscoroutine(returned) else returned

        returned, problem = attempt(work, self.seconds if self.function.place else None)
        if problem is not None:
            return [failed(self._reason(problem))] * len(answers)
        values = [returned] if wrap else listed(returned)
        if len(values) != len(answers):
            return [failed(f"gave {len(values)} values for {len(answers)} responses")] * len(answers)
        silent = self.function.scope == TRL
        return [failed(SILENT) if silent and v is None else scored(v) for v in values]

    def _read(self, available: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that the function's signature names, of all that are available."""
        missing = [name for name in self.columns if name not in available]
        if missing:
            there = ", ".join(sorted(set(available) - KNOWN)) or "none"
            raise UserError(
                f"reward '{self.function.name}' reads '{missing[0]}', which the rows of the prompts do not have; "
                f"their columns: {there}"
            )
        return {name: available[name] for name in self.function.reads if name in available}

    def _trl(self, answers: Sequence[Response]) -> dict[str, Any]:
        """The arguments of TRL's signature: conversations as lists of messages, or with its option `text` as texts, and
        each column as a list."""
        text = self.options.get("text", False)
        arguments: dict[str, Any] = {
            "prompts": ["\n".join(m.content for m in a.prompt) if text else messages_json(a.prompt) for a in answers],
            TRL_TAKES: [a.response if text else [{"role": "assistant", "content": a.response}] for a in answers],
            "completion_ids": [list(a.ids) for a in answers],
        }
        arguments |= columns_of(answers, list(self.columns))
        if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.function.fn).parameters.values()):
            return arguments
        return {name: arguments[name] for name in self._parameters if name in arguments}

    def _reason(self, problem: BaseException) -> str:
        if isinstance(problem, TimeoutError):
            return f"timed out after {self.seconds:g} s"
        return f"{type(problem).__name__}: {problem}"


def single(answer: Response) -> dict[str, Any]:
    """The arguments that a reward may read of one response, by name."""
    fields = {"prompt": answer.prompt, "response": answer.response, "tokens": len(answer.ids), "row": answer.row}
    fields["whole_turn"] = answer.whole
    return {**answer.row, **fields}


def columns_of(answers: Sequence[Response], least: Iterable[str] = ()) -> dict[str, Any]:
    """Every column of the responses' rows as a list, None where a row has none; and their rows and tokens."""
    names = dict.fromkeys([*(name for a in answers for name in a.row), *least])
    rows = {"rows": [a.row for a in answers], "tokens": [len(a.ids) for a in answers]}
    return {name: [a.row.get(name) for a in answers] for name in names} | rows


def attempt(work: Callable[[], Any], seconds: float | None) -> tuple[Any, BaseException | None]:
    """Return the result of `work` and the exception it raised. With a time limit it runs in a thread that is abandoned
    when it times out: nothing within a process can end it. An error of truing's own is raised."""
    if seconds is None:
        return raised(tried(work))
    box: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    threading.Thread(target=lambda: box.put(tried(work, BaseException)), daemon=True).start()
    try:
        return raised(box.get(timeout=min(seconds, threading.TIMEOUT_MAX)))
    except queue.Empty:
        return None, TimeoutError()


def raised(done: tuple[Any, BaseException | None]) -> tuple[Any, BaseException | None]:
    """Return the same, or raise an error of truing's own."""
    if isinstance(done[1], TruingError):
        raise done[1]
    return done


def tried(
    work: Callable[[], Any],
    caught: type[BaseException] | tuple[type[BaseException], ...] = (Exception, SystemExit),
) -> tuple[Any, BaseException | None]:
    """Return the result of `work`, and the exception it raised, if it is of a kind to be `caught`."""
    try:
        return work(), None
    except caught as problem:
        return None, problem


def listed(values: Any) -> list[Any]:
    """A list, tuple, array or tensor of values as a list; anything else as a list of itself."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    return list(values) if isinstance(values, list | tuple) else [values]


def scored(value: Any) -> Score:
    """Return a value that a function returned as a score: a finite number, true or false, or a `Score`; all else has
    failed."""
    if isinstance(value, Score):
        if value.failed or is_number(value.value):
            return replace(value, why=redacted(value.why)) if value.why else value
        return failed(value.why or f"its value is {value.value!r}")
    if isinstance(value, NotRead):
        return Score(float(value), unread=True) if is_number(value) else failed(f"gave {float(value)!r}")
    if getattr(value, "ndim", None) == 0:  # a number of numpy or torch
        value = value.item()
    if isinstance(value, bool):
        return Score(float(value))
    return Score(float(value)) if is_number(value) else failed(f"gave {value!r}, which is no finite number")


def failed(why: str, blame: Literal["reward", "response"] = "reward") -> Score:
    """A score that is missing. `why` may be the message of a user's function, so it is redacted: rounds store it."""
    return Score(math.nan, failed=True, why=redacted(why), blame=blame)
