"""Data sets of the world: each maker gives `Records`, the same for the same parameters on every machine."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Sequence
from typing import Annotated

from truing.errors import UserError
from truing.records import Demonstration, Judgement, Message, Messages, Records, Verdict, digest, prompt_id
from truing.world import names, options
from truing.world.answers import answer, draw_flaws
from truing.world.desk import Case, best, case, cases, gold, held_out
from truing.world.facts import Rule, rule_text
from truing.world.raters import Rater
from truing.world.raters import rater as find_rater
from truing.world.reading import step_label

CRITIQUE_REQUEST, REVISION_REQUEST = names.CRITIQUE_REQUEST, names.REVISION_REQUEST

VERSION = 1
"""Part of every digest: raise it when the same parameters come to mean other rows, so that no cache serves old ones."""

MOST = 8
"""Answers of a ranking."""
_HARM = 4.0
"""Weight of an answer's harm in utility: the whole range of the gold, twice."""

_SAYS = {
    "uncited": "It cites no rule.",
    "miscited": "It cites the wrong rule.",
    "rude": "It is rude.",
    "curt": "It is not polite.",
    "padded": "It is too long.",
    "listed": "It is a list.",
    "hedged": "It doubts what is clear.",
    "sure": "It is too certain.",
    "flattering": "It agrees with a false claim.",
    "leaking": "It gives away private data.",
    "complying": "It helps to do harm.",
}
_WANTED = {
    "grant": "It should say yes.",
    "refuse": "It should say no.",
    "ask": "It should ask.",
    "escalate": "It should go to the lead.",
    "hedge": "It should say that we do not know.",
}


def demonstrations(
    n: options.Rows = 1000, seed: options.Seed = 0, split: options.Split = "train", quality: options.Quality = 0.5
) -> Records:
    """Answers as agents wrote them: mostly right, not perfect. `quality` 1 is the best answer always, 0.5 an average
    agent."""
    params = _params(n=n, seed=seed, split=split, quality=quality)
    rows = [_conversation(item, quality, random.Random(f"demonstration/{seed}/{i}")) for i, item in _numbered(params)]
    return _records("demonstrations", params, rows)


def prompts(n: options.Rows = 500, seed: options.Seed = 0, split: options.Split = "train") -> Records:
    """Prompts of every kind, each with the best answer as its response."""
    params = _params(n=n, seed=seed, split=split)
    return _records("prompts", params, [_ideal(item) for _, item in _numbered(params)])


def red_team(n: options.Rows = 200, seed: options.Seed = 0, split: options.Split = "eval") -> Records:
    """Requests that must be refused, each with a refusal that leaks nothing."""
    params = _params(n=n, seed=seed, split=split)
    return _records("red_team", params, [_ideal(item) for _, item in _numbered(params, ("red_team",))])


def pushback(n: options.Rows = 200, seed: options.Seed = 0, split: options.Split = "eval") -> Records:
    """Right answers that the customer disputes without evidence, each with an answer that stays."""
    params = _params(n=n, seed=seed, split=split)
    return _records("pushback", params, [_ideal(item) for _, item in _numbered(params, ("pushback",))])


def comparisons(
    n: options.Rows = 1000,
    seed: options.Seed = 0,
    split: options.Split = "train",
    rater: options.Rater = "careful",
    ties: Annotated[float, "units of gold by which answers are called a tie"] = 0.0,
) -> Records:
    """Pairs of different answers of unequal gold to one prompt, judged by a simulated rater (see `world.raters`). With
    `ties` the rater calls answers a tie that feel closer than that (in units of gold)."""
    params = _params(n=n, seed=seed, split=split) | {"rater": rater} | ({"ties": ties} if ties else {})
    if not 0 <= ties < math.inf:
        raise UserError(f"ties={ties}: how close answers are that are called a tie is a number from 0 up")
    judge = find_rater(rater)
    rows = [_pair(item, judge, random.Random(f"comparison/{seed}/{i}"), ties) for i, item in _numbered(params)]
    return _records("comparisons", params, rows)


def rankings(
    n: options.Rows = 1000,
    seed: options.Seed = 0,
    split: options.Split = "train",
    k: Annotated[int, "answers to each prompt"] = 4,
    rater: options.Rater = "careful",
) -> Records:
    """`k` different answers of unequal gold to one prompt, ranked by a simulated rater."""
    params = _params(n=n, seed=seed, split=split) | {"k": k, "rater": rater}
    if not 2 <= k <= MOST:
        raise UserError(f"k={k}: a ranking has from 2 to {MOST} answers")
    judge, rows = find_rater(rater), []
    for i, item in _numbered(params):
        rng = random.Random(f"ranking/{seed}/{i}")
        drawn, values = _unequal(item, k, rng)
        rows.append(_judged(item, drawn, judge.rank(item.prompt, drawn, rng), rater, "ranking", gold=values))
    return _records("rankings", params, rows)


def ratings(
    n: options.Rows = 1000, seed: options.Seed = 0, split: options.Split = "train", rater: options.Rater = "careful"
) -> Records:
    """One answer with a score for each part of the gold (helpful, harmless, honest), as a simulated rater sees it."""
    params = _params(n=n, seed=seed, split=split) | {"rater": rater}
    judge, rows = find_rater(rater), []
    for i, item in _numbered(params):
        rng = random.Random(f"rating/{seed}/{i}")
        response = _mixed(item, rng)
        rows.append(_judged(item, [response], judge.rate(item.prompt, response, rng), rater, "rating"))
    return _records("ratings", params, rows)


def labels(
    n: options.Rows = 1000, seed: options.Seed = 0, split: options.Split = "train", rater: options.Rater = "careful"
) -> Records:
    """One answer that a simulated rater calls desirable (1) or not (0)."""
    params = _params(n=n, seed=seed, split=split) | {"rater": rater}
    judge, rows = find_rater(rater), []
    for i, item in _numbered(params):
        rng = random.Random(f"label/{seed}/{i}")
        response = _mixed(item, rng)
        rows.append(_judged(item, [response], judge.label(item.prompt, response, rng), rater, "label"))
    return _records("labels", params, rows)


def harms(
    n: options.Rows = 1000, seed: options.Seed = 0, split: options.Split = "train", rater: options.Rater = "careful"
) -> Records:
    """Two answers to a request that must be refused, the less harmful chosen, and of each whether it is harmless:
    data for a cost model. Where both do harm or neither does, the rater chooses by the whole answer."""
    params = _params(n=n, seed=seed, split=split) | {"rater": rater}
    judge = find_rater(rater)
    rows = [_harm(item, judge, random.Random(f"harm/{seed}/{i}")) for i, item in _numbered(params, ("red_team",))]
    return _records("harms", params, rows)


def steps(
    n: options.Rows = 1000, seed: options.Seed = 0, split: options.Split = "train", quality: options.Quality = 0.3
) -> Records:
    """One answer, a sentence a step, each labelled by what the policy and the record say of it: 1 where it agrees with
    them, -1 where it contradicts them, 0 where it says nothing of either. `quality` as in `demonstrations`."""
    params = _params(n=n, seed=seed, split=split, quality=quality)
    rows = []
    for i, item in _numbered(params):
        rng = random.Random(f"steps/{seed}/{i}")
        flaws = draw_flaws(item.facts, quality, rng) - {"listed"}
        parts = re.split(r"(?<=\.) ", answer(item.facts, flaws, rng))
        verdict = Verdict("steps", [[step_label(item.prompt, part) for part in parts]])
        rows.append(_judged(item, ["\n".join(parts)], verdict, "", "steps", flaws=sorted(flaws), steps=parts))
    return _records("steps", params, rows)


def critiques(n: options.Rows = 500, seed: options.Seed = 0, split: options.Split = "train") -> Records:
    """In turn: an answer and its critique; an answer, its critique and the answer rewritten."""
    params = _params(n=n, seed=seed, split=split)
    rows = []
    for i, item in _numbered(params):
        rng = random.Random(f"critique/{seed}/{i}")
        flaws = _one_manner(draw_flaws(item.facts, 0.35, rng))
        response = answer(item.facts, flaws, rng)
        rows.append(_critique(item, response, flaws) if i % 2 == 0 else _revision(item, response, flaws))
    return _records("critiques", params, rows)


def text(n: options.Rows = 4000, seed: options.Seed = 0, quality: options.Quality = 0.75) -> Records:
    """Pretraining texts of a base model: conversations of mixed quality, rules, comparisons of numbers, critiques
    and revisions. Only train combinations appear."""
    params = _params(n=n, seed=seed, split="train", quality=quality)
    rows = []
    for i in range(n):
        rng = random.Random(f"text/{seed}/{i}")
        item = case(f"text/{seed}/{i}")
        form = rng.choices(tuple(_FORMS), list(_FORMS.values()))[0]
        if form == "answer":
            rows.append(_conversation(item, quality, rng))
        elif form in _DRILLS:
            rows.append(_DRILLS[form](item, rng))
        else:
            flaws = _one_manner(draw_flaws(item.facts, 0.35, rng))
            response = answer(item.facts, flaws, rng)
            rows.append(_critique(item, response, flaws) if form == "critique" else _revision(item, response, flaws))
    return _records("text", params, rows)


def _params(**params: int | float | str) -> dict[str, int | float | str]:
    n, quality = params["n"], params.get("quality", 0.5)
    assert not isinstance(n, str) and not isinstance(quality, str)
    if n < 1:
        raise UserError(f"n={n}: ask for at least one row")
    if not 0 <= quality <= 1:
        raise UserError(f"quality={quality}: a quality is a number from 0 (worst) to 1 (always the best answer)")
    return params


def _numbered(params: dict[str, int | float | str], kinds: Sequence[str] | None = None) -> Iterable[tuple[int, Case]]:
    return enumerate(cases(int(params["n"]), params["seed"], str(params["split"]), kinds))  # type: ignore[arg-type]


def _records(maker: str, params: dict[str, int | float | str], rows: Sequence[Demonstration | Judgement]) -> Records:
    query = "&".join(f"{key}={value}" for key, value in params.items())
    return Records(
        f"world:{maker}?{query}", tuple(rows), tuple(range(1, len(rows) + 1)), digest=digest([maker, params, VERSION])
    )


def _assistant(response: str) -> Messages:
    return (Message("assistant", response),)


def _meta(item: Case, form: str, **more: object) -> dict[str, object]:
    return {"kind": item.kind, "form": form, "split": item.split, "decision": item.truth.decision, **more}


def _ideal(item: Case) -> Demonstration:
    return Demonstration(item.prompt, _assistant(best(item)), _meta(item, "answer"))


def _conversation(item: Case, quality: float, rng: random.Random) -> Demonstration:
    flaws = draw_flaws(item.facts, quality, rng)
    return Demonstration(
        item.prompt, _assistant(answer(item.facts, flaws, rng)), _meta(item, "answer", flaws=sorted(flaws))
    )


def _pair(item: Case, judge: Rater, rng: random.Random, ties: float) -> Judgement:
    drawn, values = _unequal(item, 2, rng)
    verdict = judge.judge(item.prompt, drawn[0], drawn[1], rng, ties)
    return _judged(item, drawn, verdict, judge.name, "comparison", gold=values)


def _harm(item: Case, judge: Rater, rng: random.Random) -> Judgement:
    drawn: list[str] = []
    while len(drawn) < 2:
        flaws = draw_flaws(item.facts, rng.random(), rng) | set(rng.choice(((), ("complying",), ("leaking",))))
        if (response := answer(item.facts, flaws, rng)) not in drawn:
            drawn.append(response)
    harmless = [gold(item.prompt, response).parts["harmless"] for response in drawn]
    felt = [judge.utility(item.prompt, response) + _HARM * part for response, part in zip(drawn, harmless, strict=True)]
    verdict = Verdict("choice", 0 if rng.random() < judge.preference(*felt) else 1)
    safe = [rng.random() < judge.preference(part, 0.5) for part in harmless]
    chosen, rejected = safe[verdict.value], safe[1 - verdict.value]
    return _judged(item, drawn, verdict, judge.name, "harm", chosen_safe=chosen, rejected_safe=rejected)


def _mixed(item: Case, rng: random.Random) -> str:
    """One answer of any quality."""
    return answer(item.facts, draw_flaws(item.facts, rng.uniform(0, 0.8), rng), rng)


def _unequal(item: Case, count: int, rng: random.Random) -> tuple[list[str], list[float]]:
    """Answers of one agent, each of another gold, and their golds."""
    quality = rng.uniform(0.25, 0.85)
    drawn: list[str] = []
    values: list[float] = []
    while len(drawn) < count:
        near = min(1.0, max(0.0, quality + rng.gauss(0, 0.1)))
        response = answer(item.facts, draw_flaws(item.facts, near, rng), rng)
        value = gold(item.prompt, response).value
        if value not in values:
            drawn.append(response)
            values.append(value)
    return drawn, values


def _judged(item: Case, responses: Sequence[str], verdict: Verdict, rater: str, form: str, **more: object) -> Judgement:
    return Judgement(
        prompt_id=prompt_id(item.prompt),
        prompt=item.prompt,
        responses=tuple(map(_assistant, responses)),
        verdict=verdict,
        generators=("world",) * len(responses),
        rater=rater,
        seen_order=tuple(range(len(responses))),
        meta=_meta(item, form, **more),
    )


def _one_manner(flaws: Iterable[str]) -> list[str]:
    """Flaws as they will show: a rude answer is not also called impolite, an uncited one not miscited."""
    shown = set(flaws)
    for stronger, weaker in (
        ("rude", "curt"),
        ("uncited", "miscited"),
        ("flattering", "wrong"),
        ("complying", "wrong"),
    ):
        if stronger in shown:
            shown.discard(weaker)
    if "sure" in shown:
        shown.discard("hedged")
    return sorted(shown)


def critique(item: Case, response: str, flaws: Iterable[str]) -> str:
    """A critique of an answer, in a few short sentences, the decision first."""
    score, truth = gold(item.prompt, response), item.truth
    lines = []
    if "decides" in score.why or score.parts["helpful"] == 0:
        lines.append(f"The decision is wrong. {_WANTED[truth.decision]}")
    lines += [_SAYS[flaw] for flaw in flaws if flaw in _SAYS]
    return " ".join(lines) if lines else "Nothing is wrong. The answer is right, polite and short."


def _turns(item: Case, response: str) -> Messages:
    return (*item.prompt, *_assistant(response), Message("user", CRITIQUE_REQUEST))


def _critique(item: Case, response: str, flaws: Sequence[str]) -> Demonstration:
    meta = _meta(item, "critique", flaws=list(flaws))
    return Demonstration(_turns(item, response), _assistant(critique(item, response, flaws)), meta)


def _revision(item: Case, response: str, flaws: Sequence[str]) -> Demonstration:
    prompt = (*_turns(item, response), *_assistant(critique(item, response, flaws)), Message("user", REVISION_REQUEST))
    return Demonstration(prompt, _assistant(best(item)), _meta(item, "revision", flaws=list(flaws)))


def _drill(form: str, prompt: Messages, reply: str) -> Demonstration:
    return Demonstration(prompt, _assistant(reply), {"kind": "drill", "form": form, "split": "train"})


def _days(item: Case, rng: random.Random) -> Demonstration:
    """One rule, one number on record, and what follows, in the words that answers use."""
    while True:
        limit, days = rng.choice(names.LIMITS), rng.choice(names.DAYS)
        if not held_out(("days", str(limit), str(days))):
            break
    topic = rng.choice(names.TIMED)
    rule = rule_text(Rule(topic, f"R{names.TOPICS.index(topic) + 1}0{rng.randint(1, names.SECTIONS)}", limit))
    request = rng.choice(names.REQUESTS[topic]).format(item=item.facts.order.item)
    end = (
        f"too late, so no, we cannot {names.ACTS[topic]}"
        if days > limit
        else f"in time, so yes, we will {names.ACTS[topic]}"
    )
    shown = rng.choice(("Our record says", "The order shows"))
    ask = Message("user", f"{rule} Order: {item.facts.order.item}, bought {days} days ago. {request}")
    return _drill("days", (ask,), f"{rule} {shown} {days} days, which is {end}.")


def _rule(item: Case, rng: random.Random) -> Demonstration:
    rule: Rule = rng.choice(item.facts.rules)
    ask = Message("user", f"What is the rule {names.TITLES[rule.topic]}?")
    return _drill("rule", (item.prompt[0], ask), rule_text(rule))


def _order(item: Case, rng: random.Random) -> Demonstration:
    ask = Message("user", "What is the order on record?")
    order = item.prompt[0].content.partition(" Order: ")[2].partition(".")[0]
    return _drill("order", (item.prompt[0], ask), f"{order}.")


_DRILLS = {"days": _days, "rule": _rule, "order": _order}
_FORMS = {"answer": 42, "days": 33, "rule": 5, "order": 6, "critique": 5, "revision": 9}
"""Percent of texts of each form. From the short drills a small model first learns to copy."""
