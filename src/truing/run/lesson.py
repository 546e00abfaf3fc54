"""Whether a stage taught its model anything, and why not where it did not: one that ends well may have taught none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from truing.recipe.expected import TAUGHT
from truing.report import words
from truing.types import Finding, is_number

if TYPE_CHECKING:  # checking a recipe reads what is below without torch
    from truing.rollout.account import Account

NOTHING = "taught nothing: "
MANY = 0.5
"""From what share of groups that scored the same, or of answers that were cut, a stage says so at its end."""


@dataclass(frozen=True)
class Rounds:
    """What is known of a stage that learned from scored answers: the account of its rounds, whether answers are held
    against others to their prompt (`compares`), whether they are imitated as they are, the longest answer, and what
    teaches beside the scores: what a length costs, texts."""

    account: Account
    compares: bool
    imitates: bool
    longest: int
    beside: str = ""


@dataclass(frozen=True)
class Lesson:
    """What a stage taught: `nothing` says why it taught nothing, and is empty where it did; `remarks` what held it
    back."""

    nothing: str = ""
    remarks: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What a terminal, a summary and a card say of it."""
        return [*([NOTHING + self.nothing] if self.nothing else []), *self.remarks]

    def as_json(self) -> dict[str, Any]:
        """The form in summary.json."""
        return {"anything": not self.nothing, "nothing": self.nothing}


def lesson(
    rows: Sequence[Mapping[str, float]],
    moved: bool,
    learning_rate: float,
    rounds: Rounds | None = None,
    kept: int | None = None,
) -> Lesson:
    """What the metrics of a stage say of its lesson. `moved`: some weight is another than before; `kept`: after which
    update the weights are, where those of the best look are kept.

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
    if kept == 0:
        return Lesson("the weights it leaves are those before the first update, the best look", remarks)
    if not moved:
        small = f"learning_rate {learning_rate:g} is too small to change a weight of this precision"
        return Lesson(f"no weight moved: {why or (ZERO if still else small)}", remarks)
    if still:
        return Lesson(f"{why or ZERO}; what moved the weights is weight_decay", remarks)
    if why and rounds and rounds.beside:
        return Lesson("", (f"{why}: what it learned is from {rounds.beside} alone", *remarks))
    if why and rounds:
        return Lesson(
            f"{why}; what moved the weights is not the reward (the leash, a forecast or rounding is)", remarks
        )
    return Lesson("", remarks)


ZERO = "the gradient was 0 in every update"


def _blank(rows: Sequence[Mapping[str, float]]) -> str:
    """Why given data without a gradient taught nothing, where the metrics tell."""
    if all(row.get("learned_tokens") == 0 for row in rows):
        return "no row had a token to learn"
    if all(row.get("labelled_steps") == 0 for row in rows):
        return "no row had a labelled step"
    if any(all(row.get(name) == 0 for row in rows) for name in ("margin_nats", "margin")):
        return "the two responses of every pair read the same"
    return ""


def _level(rounds: Rounds) -> str:
    """Why the scores taught nothing: they told no answer from another, or from another to its prompt."""
    account = rounds.account
    if rounds.imitates or not account.score.count:
        return ""
    if account.score.level:
        what = _by([name for name, extent in account.rewards.items() if extent.level])
        return f"all {account.score.count:,} answers scored the same ({words.number(account.score.low)}){what}"
    if rounds.compares and account.groups and account.equal == account.groups:
        what = _by(list(account.rewards))
        return f"in all {account.groups:,} groups the answers to a prompt scored the same{what}"
    return ""


def _by(names: Sequence[str]) -> str:
    return f" by {' and '.join(names)}" if names else ""


def _remarks(rounds: Rounds) -> tuple[str, ...]:
    """What held a stage back that learned from scored answers."""
    account, found = rounds.account, []
    equal, cut = account.equal / max(1, account.groups), account.cut / max(1, account.answers)
    if rounds.compares and equal >= MANY:
        teaches = f"teaches by {rounds.beside} alone" if rounds.beside else "teaches nothing"
        found.append(
            f"{share(equal)} of {account.groups:,} groups scored the same throughout, which {teaches}: a finer "
            "reward, more answers, or resample"
        )
    if cut >= MANY:
        found.append(
            f"{share(cut)} of {account.answers:,} answers were cut off at max_new_tokens ({rounds.longest}), before "
            "their end"
        )
    return tuple(found)


def share(value: float) -> str:
    """A share of which a part is never called all, nor a little none."""
    return f"{100 * value:.0f} %" if value in (0.0, 1.0) or 0.005 <= value < 0.995 else f"{100 * value:.2f} %"


def finding(summary: Mapping[str, Any], model: str) -> Finding | None:
    """What a stage's summary says of its lesson as a finding of its model: 1 where it taught something, 0 where
    nothing. It is counted and not estimated, so its interval is itself. None of a stage that does not train."""
    told, whole = summary.get(TAUGHT), summary.get("whole_stage")
    if not isinstance(told, Mapping):
        return None
    updates: Any = whole.get("updates") if isinstance(whole, Mapping) else 0
    value, n = float(bool(told.get("anything"))), int(updates) if is_number(updates) else 0
    word, why = "something" if value else "nothing", str(told.get("nothing", ""))
    return Finding(TAUGHT, model, value, interval=(value, value), n=n, verdict=word, evidence=why)
