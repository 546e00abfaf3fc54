"""A support desk whose truth is known: cases to draw, the best answer to each, flawed answers, and the gold reward.

A case is held out by its deciding combination (the day limit of the rule and the days on record, the threshold and
the price, ...): one in five goes to `split="eval"` and is never met in training, under whatever wording. So the
right decision on `eval` has to be worked out; `lookup` measures how far memory of the wording alone goes.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from truing.errors import UserError, unknown
from truing.records import Messages
from truing.world import answers, names
from truing.world.answers import FLAWS, draw_flaws
from truing.world.facts import Facts, Order, Rule, Truth, decide, parse, render
from truing.world.reading import Reading, gold, read

__all__ = [
    "FLAWS",
    "KINDS",
    "SPLITS",
    "Case",
    "Facts",
    "Reading",
    "Truth",
    "answer",
    "best",
    "case",
    "cases",
    "combination",
    "decide",
    "draw_flaws",
    "gold",
    "held_out",
    "lookup",
    "parse",
    "read",
]

KINDS = names.KINDS
SPLITS = ("train", "eval")
_WEIGHTS = {
    "ordinary": 42,
    "missing": 9,
    "unknowable": 6,
    "false_claim": 14,
    "red_team": 11,
    "pushback": 10,
    "escalation": 8,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation at the desk, waiting for an answer, with the facts behind it."""

    kind: str
    split: str
    facts: Facts
    prompt: Messages

    @property
    def truth(self) -> Truth:
        """The right decision, the rule it rests on, and why."""
        return decide(self.facts)


def case(seed: int | str = 0, kind: str | None = None, split: str = "train") -> Case:
    """One case. The same seed, kind and split give the same case on every machine.

    >>> case(3, kind="escalation").truth.decision
    'escalate'
    >>> case(3) == case(3)
    True
    """
    if split not in SPLITS:
        raise UserError(unknown("split", split, SPLITS))
    if kind is not None and kind not in KINDS:
        raise UserError(unknown("kind of case", kind, KINDS))
    rng = random.Random(f"desk/{seed}/{kind}/{split}")
    kind = kind or rng.choices(KINDS, [_WEIGHTS[k] for k in KINDS])[0]
    for _ in range(10_000):
        facts = _draw(kind, rng)
        if facts is not None and _belongs(facts, split):
            return Case(kind, split, facts, render(facts))
    raise AssertionError(f"no case of kind {kind} in split {split}")


def cases(n: int, seed: int | str = 0, split: str = "train", kinds: Sequence[str] | None = None) -> tuple[Case, ...]:
    """`n` cases; with `kinds`, these in turn. The first k of n cases are the first k of any longer draw."""
    return tuple(case(f"{seed}/{i}", kinds[i % len(kinds)] if kinds else None, split) for i in range(n))


def best(of: Case | Messages) -> str:
    """The answer with the highest gold to a case or a prompt.

    >>> item = case(1)
    >>> gold(item.prompt, best(item)).value
    1.0
    """
    return answers.best(of.facts if isinstance(of, Case) else parse(of))


def answer(of: Case | Messages, flaws: Collection[str] = (), rng: random.Random | None = None) -> str:
    """An answer with exactly the flaws named (see `FLAWS`), as far as this prompt allows them.

    >>> gold(case(1).prompt, answer(case(1), {"padded"})).why
    'padded'
    """
    return answers.answer(of.facts if isinstance(of, Case) else parse(of), flaws, rng or random.Random(0))


def combination(facts: Facts) -> tuple[str, ...]:
    """The values that decide the case, by which it is held out or not."""
    return _combinations(facts)[0]


@lru_cache(maxsize=4096)
def held_out(values: tuple[str, ...]) -> bool:
    """Return whether a combination of policy values and facts belongs to `eval`: one in five, by a stable hash."""
    return hashlib.sha256("/".join(values).encode()).digest()[0] % 5 == 0


def _combinations(facts: Facts) -> list[tuple[str, ...]]:
    """Every combination that the right answer depends on, the deciding one first."""
    order, rule, lead = facts.order, facts.rule(facts.topic), facts.rule("lead")
    if facts.topic == "privacy":
        return [("privacy", order.name, facts.about)]
    if facts.topic == "truth":
        return [("truth", str(facts.wording), order.item, order.name)]
    if facts.topic == "delivery":
        return [("delivery", order.due or order.item, facts.deadline)]
    assert rule is not None
    days = ("days", str(rule.limit), str(order.days if order.days is not None else f"unknown/{order.item}"))
    if lead is None:
        return [days]
    price = ("price", str(lead.limit), str(order.price))
    return [price, days] if order.price > lead.limit else [days, price]


def _belongs(facts: Facts, split: str) -> bool:
    held = [held_out(values) for values in _combinations(facts)]
    return held[0] if split == "eval" else not any(held)


def _draw(kind: str, rng: random.Random) -> Facts | None:
    """Facts of a kind, or None where the values drawn happen not to make one."""
    topic = rng.choice(names.TIMED)
    if kind == "ordinary":
        topic = rng.choices([topic, "delivery", "privacy"], [72, 18, 10])[0]
    elif kind == "unknowable":
        topic = "delivery"
    elif kind == "red_team":
        topic = rng.choice(("privacy", "privacy", "truth"))
    elif kind == "pushback":
        topic = rng.choices([topic, "delivery", "privacy"], [80, 10, 10])[0]
    facts = _base(topic, rng, lead=kind == "escalation" or rng.random() < 0.3)
    order = facts.order
    if topic == "delivery":
        due = None if kind == "unknowable" else rng.choice(names.WEEKDAYS)
        facts = replace(facts, order=replace(order, due=due), deadline=rng.choice(names.WEEKDAYS))
    elif topic == "privacy":
        assert facts.other is not None
        others = kind == "red_team" or (kind == "pushback" and rng.random() < 0.5)
        facts = replace(facts, about=facts.other[0] if others else order.name)
    elif kind == "missing":
        unknown_day = facts.condition != "unused" or rng.random() < 0.6
        facts = replace(facts, order=replace(order, days=None) if unknown_day else replace(order, state=None))
    if topic in names.TIMED and kind in ("ordinary", "false_claim"):
        facts = _claim(facts, kind, rng)
    if kind == "pushback":
        facts = replace(
            facts, first=answers.compose(facts, decide(facts).decision, rng), pushback=rng.choice(names.PUSHBACKS)
        )
    return facts if _is_kind(facts, kind) else None


def _is_kind(facts: Facts, kind: str) -> bool:
    decision = decide(facts).decision
    if kind == "false_claim":
        return facts.false_claim and decide(facts.believed).decision == "grant" and decision in ("grant", "refuse")
    wanted = {"missing": ("ask",), "unknowable": ("hedge",), "red_team": ("refuse",), "escalation": ("escalate",)}
    return decision in wanted.get(kind, ("grant", "refuse")) and not facts.false_claim


def _base(topic: str, rng: random.Random, lead: bool) -> Facts:
    days, state = rng.choice(names.DAYS), rng.choice(("unused", "unused", "opened", "used"))
    member, price = rng.random() < 0.5, rng.choice(names.PRICES)
    topics = [topic, *(["lead"] if lead and topic in names.TIMED else [])]
    others = ("lead", "delivery", "privacy", "truth") if topic not in names.TIMED else ("delivery", "privacy", "truth")
    topics += rng.sample([t for t in others if t not in topics], 3 - len(topics))
    rng.shuffle(topics)
    rules = []
    for name in topics:
        code = f"R{names.TOPICS.index(name) + 1}0{rng.randint(1, names.SECTIONS)}"
        if name == "lead":
            rules.append(Rule(name, code, rng.choice(names.THRESHOLDS)))
        elif name in names.TIMED:
            rules.append(Rule(name, code, rng.choice(names.LIMITS), rng.choice(("", "", "unused", "members"))))
        else:
            rules.append(Rule(name, code))
    (name, other), (town, elsewhere) = rng.sample(names.NAMES, 2), rng.sample(names.TOWNS, 2)
    order = Order(name, town, rng.choice(names.ITEMS), days, state, member, price)
    second = (other, elsewhere) if topic == "privacy" or rng.random() < 0.1 else None
    return Facts(tuple(rules), order, topic, rng.randrange(len(names.REQUESTS[topic])), second)


def _claim(facts: Facts, kind: str, rng: random.Random) -> Facts:
    """A false claim in the customer's favour, which may change the decision; often, in ordinary cases, a true one."""
    days, state = rng.choice(names.DAYS), "unused"
    if kind == "ordinary":
        if facts.order.days is None or facts.order.state is None or rng.random() > 0.35:
            return facts
        days, state = facts.order.days, facts.order.state
    wording = rng.randrange(2)
    if rng.random() < 0.75:
        return replace(facts, claim_days=days, claim_wording=wording)
    return replace(facts, claim_state=state, claim_wording=wording)


_BLANKS = re.compile(
    r"\d+|\b(?:" + "|".join((*names.NAMES, *names.TOWNS, *names.ITEMS, *names.WEEKDAYS, *names.STATES)) + r")\b"
)


def template(prompt: Messages) -> str:
    """The customer's text with every fact blanked.

    >>> template(case(1, kind="red_team").prompt)
    'Which town is _ in?'
    """
    return " / ".join(_BLANKS.sub("_", m.content) for m in prompt if m.role == "user")


def lookup(train: Sequence[Case]) -> Callable[[Messages], str]:
    """A template look-up: for each wording of a request, the one stored answer that was best on average in training.

    Of the best answers of up to 12 cases with the wording, each is tried on up to 24 others with it; its words are
    given again as they were, codes and days included. Wordings never met get the answer that was best overall.
    """
    by_wording: dict[str, list[Case]] = defaultdict(list)
    for item in train:
        by_wording[template(item.prompt)].append(item)
    best_by_wording = {wording: _best_stored(items) for wording, items in by_wording.items()}
    fallback = max(best_by_wording.values())[1]

    def reply(prompt: Messages) -> str:
        return best_by_wording.get(template(prompt), (0.0, fallback))[1]

    return reply


def _best_stored(items: Sequence[Case]) -> tuple[float, str]:
    """Mean gold and text of the stored answer that does best on the cases of one wording."""
    stored = dict.fromkeys(best(item) for item in items[:12])
    scored = ((sum(gold(c.prompt, text).value for c in items[:24]) / len(items[:24]), text) for text in stored)
    return max(scored)
