"""Share of unrelated real prompts that are taken for leaks, and of real leaks in disguise that are found.

    python benchmarks/leaks.py choose ../shared/data    # the sets by which `likeness.LEAST` was chosen
    python benchmarks/leaks.py judge ../shared/data     # the other sets, looked at when it was frozen
    python benchmarks/leaks.py between ../shared/data   # one part asked where the other was learned from
    python benchmarks/leaks.py disguise ../shared/data  # real prompts of the judging sets in disguise; time and size

Of every data set half of the groups is learned from and the other half asked (`within`); that half is asked too where
the other sets of the same part are learned from (`across`). A set's own near-duplicates count as flagged.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from truing.data import likeness
from truing.data.likeness import KINDS, Questions, fingerprint
from truing.policy.files.lineage import size
from truing.records import Demonstration, Message, Messages, Records

COLUMNS = ("prompt", "question", "problem", "input", "prompt_text", "instruction", "turns", "chosen")
LEASTS = (0.5, 0.6, 0.7, 0.8, 0.9)


def prompt_of(row: dict[str, Any]) -> Messages | None:
    """The prompt of a row of any of the sets."""
    value = next((row[name] for name in COLUMNS if row.get(name)), None)
    if isinstance(value, str):
        return (Message("user", value),)
    if isinstance(value, list) and isinstance(value[0], str):
        return (Message("user", value[0]),)
    if isinstance(value, list) and isinstance(value[0], dict):
        turns = tuple(Message(m["role"], m["content"]) for m in value)
        return turns[:-1] if turns[-1].role == "assistant" else turns
    return None


def read(folder: Path) -> dict[Messages, str]:
    """Every different prompt of a set, and the group that it belongs to."""
    prompts: dict[Messages, str] = {}
    for path in sorted(folder.glob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                if prompt := prompt_of(row):
                    prompts.setdefault(prompt, str(row.get("group", prompt)))
    return prompts


def records(prompts: Iterable[Messages]) -> Records:
    """Prompts as rows."""
    rows = tuple(Demonstration(prompt, (Message("assistant", ""),)) for prompt in prompts)
    return Records("prompts", rows, tuple(range(1, len(rows) + 1)))


def is_learned(group: str) -> bool:
    """True if a group is on the side that is learned from."""
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % 2 == 0


def flagged(learned: Sequence[Messages], queries: Sequence[Messages]) -> Counter[str]:
    """The number of `queries` taken for one of `learned`, by kind."""
    matches = fingerprint(records(learned)).nearest(Questions(records(queries)))
    return Counter(match.kind for match in matches if match is not None)


def replaced(prompt: Messages, count: int) -> Messages:
    """A prompt with so many words of its first turn replaced, evenly apart."""
    words = prompt[0].content.split(" ")
    for number in range(count):
        words[(2 * number + 1) * len(words) // (2 * count)] = "otherwise"
    return (Message("user", " ".join(words)), *prompt[1:])


def choose(sets: dict[str, dict[Messages, str]]) -> None:
    """The share flagged within a set, and of prompts of 20 to 60 words with words replaced the share found, for several
    values of `LEAST`."""
    print("| least share | flagged within a set | found with a word replaced | with three |\n| --- | --- | --- | --- |")
    for least in LEASTS:
        likeness.LEAST = least
        within, total = Counter[str](), 0
        for prompts in sets.values():
            sides = [[p for p, group in prompts.items() if is_learned(group) == side] for side in (True, False)]
            within += flagged(*sides)
            total += len(sides[1])
        long = [p for ps in sets.values() for p in ps if p[0].role == "user" and 20 <= len(p[0].content.split()) <= 60]
        some = long[:: max(1, len(long) // 400)]
        shares = [sum(flagged([replaced(p, n) for p in some], some).values()) / len(some) for n in (1, 3)]
        print(f"| {least} | {sum(within.values())} of {total} | {shares[0]:.0%} | {shares[1]:.0%} |", flush=True)


def judge(sets: dict[str, dict[Messages, str]]) -> None:
    """Print the flagged prompts of every set, by kind."""
    print("| set | asked | within | across | kinds |\n| --- | --- | --- | --- | --- |")
    totals, all_asked, began, count = Counter[str](), 0, time.perf_counter(), 0
    for name, prompts in sets.items():
        sides = [[p for p, group in prompts.items() if is_learned(group) == side] for side in (True, False)]
        others = [prompt for other in sets if other != name for prompt in sets[other]]
        within, across = flagged(*sides), flagged(others, sides[1])
        both = ", ".join(f"{(within + across)[kind]} {kind}" for kind in KINDS if (within + across)[kind])
        print(f"| {name} | {len(sides[1])} | {sum(within.values())} | {sum(across.values())} | {both} |", flush=True)
        totals += Counter(within=sum(within.values()), across=sum(across.values()))
        all_asked, count = all_asked + len(sides[1]), count + len(prompts) + len(others)
    print(f"| all | {all_asked} | {totals['tie_tolerance']} | {totals['across']} | |")
    print(f"{count:,} prompts learned from or asked in {time.perf_counter() - began:.0f} s")


def between(chosen: dict[str, dict[Messages, str]], judged: dict[str, dict[Messages, str]]) -> None:
    """Print the flagged prompts of one part where the other was learned from."""
    print("| learned from | asked | flagged | kinds |\n| --- | --- | --- | --- |")
    for names, part_learned, part_asked in (("choosing", chosen, judged), ("judging", judged, chosen)):
        learned, queries = (
            [prompt for prompts in part.values() for prompt in prompts] for part in (part_learned, part_asked)
        )
        kinds = flagged(learned, queries)
        both = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
        print(
            f"| the sets for {names}: {len(learned):,} | {len(queries):,} | {sum(kinds.values())} | {both} |",
            flush=True,
        )


def wide(text: str) -> str:
    """A text in full-width letters."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text)


DISGUISES: dict[str, Callable[[str], list[Message]]] = {
    "full stop": lambda text: [Message("user", text + ".")],
    "full-width letters": lambda text: [Message("user", wide(text))],
    "system message": lambda text: [Message("system", "You are a careful guide."), Message("user", text)],
    "case and blanks": lambda text: [Message("user", text.upper().replace(" ", " \n "))],
    "polite frame": lambda text: [Message("user", f"Could you please answer: {text} Thank you very much!")],
    "longer conversation": lambda text: [
        Message("user", "Hello."),
        Message("assistant", "Yes?"),
        Message("user", text),
    ],
    "markdown": lambda text: [Message("user", f"> **{text}**")],
    "few-shot example": lambda text: [Message("user", f"Q: Who?\nA: Nobody.\nQ: {text}\nA: Yes.\nQ: Why?\nA:")],
    "amid a sentence": lambda text: [Message("user", f"My aunt wrote to me that {text} and I wonder")],
    "a word replaced": lambda text: list(replaced((Message("user", text),), 1)),
}


def disguise(sets: dict[str, dict[Messages, str]]) -> None:
    """Print the share of real prompts found in each disguise among all the others, and the time and size of 20,000 rows
    and 1,000 prompts."""
    prompts = [prompt for each in sets.values() for prompt in each if len(prompt) == 1 and prompt[0].role == "user"]
    some, others = prompts[:: len(prompts) // 1000][:1000], prompts[1 :: len(prompts) // 1000]
    noise = (prompts * (19_000 // len(prompts) + 1))[:19_000]
    print("| disguise | found | found of those of 20 words or more |\n| --- | --- | --- |")
    for name, change in DISGUISES.items():
        learned = [*others, *(tuple(change(prompt[0].content)) for prompt in some)]
        queries = Questions(records(some))
        matches = dict(
            zip((rows[0] for rows in queries.rows), fingerprint(records(learned)).nearest(queries), strict=True)
        )
        long = [row for row in matches if len(some[row - 1][0].content.split()) >= 20]
        shares = [sum(matches[row] is not None for row in rows) / len(rows) for rows in (list(matches), long)]
        print(f"| {name} | {shares[0]:.1%} | {shares[1]:.1%} |", flush=True)
    began = time.perf_counter()
    prints = fingerprint(records([*noise, *some]))
    made = time.perf_counter()
    queries = Questions(records(some))
    prints.nearest(queries)
    sizes = f"{len(prints.grams.hashes):,} grams, window {prints.window}, {size(prints):,} bytes"
    spent = f"{made - began:.1f} s; {len(some):,} prompts asked in {time.perf_counter() - made:.1f} s"
    print(f"{len(prints):,} rows ({sizes}) in {spent}")


def main(part: str, data: str) -> None:
    """Read the sets of a part, every second one, and show its table."""
    sets = {folder.name: read(folder) for folder in sorted(Path(data).iterdir())}
    large = [name for name, prompts in sets.items() if len(prompts) > 20]
    chosen, judged = ({name: sets[name] for name in large[place::2]} for place in (0, 1))
    if part == "between":
        between(chosen, judged)
    else:
        {"choose": choose, "judge": judge, "disguise": disguise}[part](chosen if part == "choose" else judged)


if __name__ == "__main__":
    main(*sys.argv[1:])
