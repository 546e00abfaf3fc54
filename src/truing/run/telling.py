"""The paragraph of a training stage: what was trained, by what, on which data, and how much of it was used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from truing.run.lesson import Rounds


def paragraph(
    model: str, began: str, method: str, data: str, there: int, whole: Mapping[str, float], rounds: Rounds | None = None
) -> str:
    """Describe a stage in words. `there` is how many rows or prompts its data has, `whole` the sums over the stage.

    >>> whole = {"updates": 40, "rows": 1280}
    >>> paragraph("direct", "stage warm", "dpo", "p", 640, whole)
    'direct began as stage warm and was trained by dpo on the 640 rows of p: 40 updates, 1,280 rows drawn in all.'
    """
    updates = counted(int(whole["updates"]), "update")
    if rounds is not None:
        return f"{model} began as {began} and was trained by {method} on {_of_rounds(rounds, data, there)}: {updates}."
    drawn, rows = int(whole["rows"]), f"the {there:,} rows of {data}"
    return f"{model} began as {began} and was trained by {method} on {rows}: {updates}, {drawn:,} rows drawn in all."


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "update"), counted(2000, "prompt")
    ('1 update', '2,000 prompts')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _of_rounds(rounds: Rounds, data: str, there: int) -> str:
    account = rounds.account
    prompts = (
        f"all {counted(there, 'prompt')} of {data}"
        if account.prompts == there
        else f"{account.prompts:,} of the {there:,} prompts of {data}"
    )
    again = f" (sampled {account.requests:,} times in all)" if account.requests > account.prompts else ""
    scored = f", scored by {joined(list(account.rewards))}" if account.rewards else ""
    return (
        f"its own responses to {prompts}{again}{scored}; {counted(account.responses, 'response')} in "
        f"{counted(account.rounds, 'round')}"
    )


def joined(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> joined(["gold"]), joined(["gold", "length", "mine"])
    ('gold', 'gold, length and mine')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
