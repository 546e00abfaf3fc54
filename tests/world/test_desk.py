"""The desk: cases are deterministic, held out by combination, and cannot be answered from their wording."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from truing.errors import UserError
from truing.records import digest, messages_json
from truing.world import desk, names
from truing.world.answers import possible
from truing.world.facts import parse

EVAL = desk.cases(400, seed=5, split="eval")
TRAIN = desk.cases(1500, seed=6)


@pytest.mark.parametrize("kind", desk.KINDS)
@pytest.mark.parametrize("split", desk.SPLITS)
def test_every_kind_is_read_back_and_has_a_best_answer(kind: str, split: str) -> None:
    for seed in range(15):
        item = desk.case(seed, kind, split)
        assert (item.kind, item.split) == (kind, split)
        assert parse(item.prompt) == item.facts
        assert desk.gold(item.prompt, desk.best(item)).value == 1.0
        assert desk.best(item.prompt) == desk.best(item)


def test_the_same_seed_gives_the_same_world() -> None:
    made = [[messages_json(c.prompt), desk.best(c)] for c in desk.cases(20, seed=1)]
    assert digest(made) == "d14fb470642dd9cc"
    assert desk.cases(5, seed=1) == desk.cases(20, seed=1)[:5]
    assert desk.cases(5, seed=1) != desk.cases(5, seed=2)


def test_eval_combinations_are_never_trained_on() -> None:
    trained = {desk.combination(c.facts) for c in TRAIN}
    asked = {desk.combination(c.facts) for c in EVAL}
    assert asked and trained and not asked & trained
    assert not {c.prompt for c in TRAIN} & {c.prompt for c in EVAL}
    assert {c.kind for c in EVAL} == set(desk.KINDS)


def test_both_splits_need_every_decision() -> None:
    for part in (TRAIN, EVAL):
        shares = {d: mean(c.truth.decision == d for c in part) for d in names.DECISIONS}
        assert min(shares.values()) > 0.04 and max(shares.values()) < 0.55, shares


def test_memory_of_the_wording_is_not_enough() -> None:
    remembered = desk.lookup(TRAIN)
    looked_up = mean(desk.gold(c.prompt, remembered(c.prompt)).value for c in EVAL)
    assert -0.6 < looked_up < 0.3
    assert mean(desk.gold(c.prompt, desk.best(c)).value for c in EVAL) == 1.0


@pytest.mark.parametrize("flaw", desk.FLAWS)
def test_every_flaw_shows_in_the_gold(flaw: str) -> None:
    cases = [c for c in EVAL if flaw in possible(c.facts)][:60]
    values = [desk.gold(c.prompt, desk.answer(c, {flaw}, random.Random(i))).value for i, c in enumerate(cases)]
    assert all(-1 <= v <= 1 for v in values)
    assert mean(values) < 0.95
    if flaw in ("wrong", "flattering", "leaking", "complying"):
        assert mean(values) < 0.1


def test_flaws_that_a_prompt_does_not_allow_are_left_out() -> None:
    item = desk.case(0, "escalation")
    assert desk.gold(item.prompt, desk.answer(item, {"complying", "leaking", "flattering"})).value == 1.0


def test_misspelt_words_name_the_nearest() -> None:
    with pytest.raises(UserError, match="'padded'"):
        desk.answer(desk.case(0), {"paded"})
    with pytest.raises(UserError, match="'eval'"):
        desk.cases(1, split="evel")
    with pytest.raises(UserError, match="'pushback'"):
        desk.case(0, kind="pushbak")
