"""Check whether a stage taught its model anything, and why not where it did not: a stage may end well and teach
nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from truing.recipe.expected import TAUGHT
from truing.records import Finding, is_number
from truing.report import words

if TYPE_CHECKING:  # checking a recipe reads what is below without torch
    from truing.rollout.account import Account

NOTHING = "taught nothing: "
MANY = 0.5
"""Share of groups that scored the same, or of truncated responses, from which a stage remarks on it at its end."""


@dataclass(frozen=True)
class Rounds:
    """Facts of a stage that learned from scored responses: the account of its rounds, whether responses are compared
    with others to their prompt (`compares`), whether they are imitated as they are, the longest response, and what
    teaches beside the scores: a price of length, texts."""

    account: Account
    compares: bool
    imitates: bool
    longest: int
    beside: str = ""


@dataclass(frozen=True)
class Lesson:
    """Lesson of a stage: `nothing` is the reason why it taught nothing, empty where it did; `remarks` are what held it
    back."""

    nothing: str = ""
    remarks: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Lines for a terminal, a summary and a card."""
        return [*([NOTHING + self.nothing] if self.nothing else []), *self.remarks]

    def as_json(self) -> dict[str, Any]:
        """The form in summary.json."""
        return {"anything": not self.nothing, "nothing": self.nothing}


def lesson(
    rows: Sequence[Mapping[str, float]],
    moved: bool,
    learning_rate: float,
    rounds: Rounds | None = None,
    best_step: int | None = None,
) -> Lesson:
    """Return the lesson that the metrics of a stage show. `moved`: some weight has changed; `best_step`: the update
    after which the weights were taken, where the best ones are kept.

    >>> lesson([{"step": 1, "grad_norm": 0.0}], False, 1e-3).nothing
    'no weight moved: the gradient was 0 in every update'
    >>> lesson([{"step": 1, "grad_norm": 0.5}], True, 1e-3).lines()
    []
    """
    remarks = _remarks(rounds) if rounds else ()
    still = bool(rows) and all(row.get("grad_norm") == 0 for row in rows)
    why = _level(rounds) if rounds else _blank(rows) if still else ""
    if not rows:
        return Lesson(why or "it made no update", remarks)
    if best_step == 0:
        return Lesson("the weights it leaves are those before the first update, which were the best", remarks)
    if not moved:
        small = f"learning_rate {learning_rate:g} is too small to change a weight of this precision"
        return Lesson(f"no weight moved: {why or (ZERO if still else small)}", remarks)
    if still:
        return Lesson(f"{why or ZERO}; what moved the weights is weight_decay", remarks)
    if why and rounds and rounds.beside:
        return Lesson("", (f"{why}: what it learned is from {rounds.beside} alone", *remarks))
    if why and rounds:
        return Lesson(
            f"{why}; what moved the weights is not the reward (the KL control, a value estimate or rounding is)",
            remarks,
        )
    return Lesson("", remarks)


ZERO = "the gradient was 0 in every update"


def _blank(rows: Sequence[Mapping[str, float]]) -> str:
    """Reason why data without a gradient taught nothing, where the metrics show it."""
    if all(row.get("learned_tokens") == 0 for row in rows):
        return "no row had a token to learn"
    if all(row.get("labelled_steps") == 0 for row in rows):
        return "no row had a labelled step"
    if any(all(row.get(name) == 0 for row in rows) for name in ("margin_nats", "margin")):
        return "the two responses of every pair read the same"
    return ""


def _level(rounds: Rounds) -> str:
    """Reason why the scores taught nothing: they set no response apart from another, or from another to its prompt."""
    account = rounds.account
    if rounds.imitates or not account.score.count:
        return ""
    if account.score.level:
        what = _by([name for name, extent in account.rewards.items() if extent.level])
        return f"all {account.score.count:,} responses scored the same ({words.number(account.score.low)}){what}"
    if rounds.compares and account.groups and account.equal == account.groups:
        what = _by(list(account.rewards))
        return f"in all {account.groups:,} groups the responses to a prompt scored the same{what}"
    return ""


def _by(names: Sequence[str]) -> str:
    return f" by {' and '.join(names)}" if names else ""


def _remarks(rounds: Rounds) -> tuple[str, ...]:
    """Remarks on what held back a stage that learned from scored responses."""
    account, remarks = rounds.account, []
    equal, cut = account.equal / max(1, account.groups), account.cut / max(1, account.responses)
    if rounds.compares and equal >= MANY:
        teaches = f"teaches by {rounds.beside} alone" if rounds.beside else "teaches nothing"
        remarks.append(
            f"{share(equal)} of {account.groups:,} groups scored the same throughout, which {teaches}: a finer "
            "reward, a larger group_size, or resample"
        )
    if cut >= MANY:
        remarks.append(
            f"{share(cut)} of {account.responses:,} responses were truncated at max_new_tokens ({rounds.longest})"
        )
    return tuple(remarks)


def share(value: float) -> str:
    """Format a share so that a part is never rounded to all, nor a little to none."""
    return f"{100 * value:.0f} %" if value in (0.0, 1.0) or 0.005 <= value < 0.995 else f"{100 * value:.2f} %"


def finding(summary: Mapping[str, Any], model: str) -> Finding | None:
    """Return the lesson in a stage's summary as a finding of its model: 1 where it taught something, 0 where nothing.
    It is counted and not estimated, so its interval is itself. None for a stage that does not train."""
    record, whole = summary.get(TAUGHT), summary.get("whole_stage")
    if not isinstance(record, Mapping):
        return None
    updates: Any = whole.get("updates") if isinstance(whole, Mapping) else 0
    value, n = float(bool(record.get("anything"))), int(updates) if is_number(updates) else 0
    word, why = "something" if value else "nothing", str(record.get("nothing", ""))
    return Finding(TAUGHT, model, value, interval=(value, value), n=n, verdict=word, evidence=why)
