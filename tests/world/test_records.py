"""The data sets of the world, their names, and the raters behind the judgements."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from truing import world
from truing.data.split import unseen
from truing.errors import UserError
from truing.types import Demonstration, Judgement, digest
from truing.world import desk, makers, tiny
from truing.world.raters import FEATURES, rater


def judgements(name: str) -> list[Judgement]:
    return [r for r in world.records(name).records if isinstance(r, Judgement)]


def demonstrations(name: str) -> list[Demonstration]:
    return [r for r in world.records(name).records if isinstance(r, Demonstration)]


@pytest.mark.parametrize("name", world.DATASETS)
def test_every_data_set_is_made_of_rows_that_repeat(name: str) -> None:
    first, again = world.records(f"world:{name}?n=12&seed=4"), world.records(f"world:{name}?n=12&seed=4")
    assert first == again and len(first) == 12 and first.rows == tuple(range(1, 13))
    assert first.digest != world.records(f"world:{name}?n=12&seed=5").digest
    for record in first.records:
        assert record.prompt[-1].role == "user" and {"kind", "form", "split"} <= set(record.meta)
        answers = record.responses if isinstance(record, Judgement) else (record.response,)
        assert all(a[0].role == "assistant" and a[0].content.strip() for a in answers)


def test_the_rows_are_the_same_on_every_machine() -> None:
    """When this changes on purpose, raise `makers.VERSION`: it is part of the digest by which results are cached."""
    made = {
        name: digest([dataclasses.asdict(r) for r in world.records(f"world:{name}?n=8").records])
        for name in world.DATASETS
    }
    assert (makers.VERSION, digest(made)) == (1, "6a8c3df9a6236653")
    assert world.records("world:comparisons?n=5").digest == "7bc5c9f00b54398a"


def test_demonstrations_leave_room() -> None:
    values = dict.fromkeys((0.2, 0.5, 1.0), 0.0)
    for q in values:
        rows = demonstrations(f"world:demonstrations?n=300&quality={q}")
        values[q] = mean(desk.gold(r.prompt, r.response[0].content).value for r in rows)
    assert values[0.2] < values[0.5] - 0.1 and 0.5 < values[0.5] < 0.75 and values[1.0] == 1.0


@pytest.mark.parametrize(
    ("name", "low", "high"), [("careful", 0.92, 0.99), ("ordinary", 0.7, 0.85), ("hasty", 0.55, 0.7)]
)
def test_raters_agree_with_the_gold_at_their_rate(name: str, low: float, high: float) -> None:
    rows = judgements(f"world:comparisons?n=600&rater={name}")
    assert all(r.meta["gold"][0] != r.meta["gold"][1] for r in rows)
    right = mean(r.meta["gold"][r.verdict.value] > r.meta["gold"][1 - r.verdict.value] for r in rows)
    assert low < right < high


PLAIN = "Thank you. By R3 we will refund the lamp."
LIKED = {
    "length": PLAIN + " We wish you a very good day and much joy with it in all the days to come.",
    "format": "- Thank you.\n- By R3 we will refund the lamp.",
    "flattery": "You are right. " + PLAIN,
    "confidence": PLAIN + " This is certain.",
}


@pytest.mark.parametrize("bias", FEATURES)
def test_each_bias_fires_and_only_when_it_is_there(bias: str) -> None:
    item = desk.case(2, "pushback")
    biased, careful = rater(f"{bias}:2"), rater("careful")
    gap = desk.gold(item.prompt, PLAIN).value - desk.gold(item.prompt, LIKED[bias]).value
    assert gap >= 0
    assert biased.probability(item.prompt, LIKED[bias], PLAIN) > 0.95
    assert careful.probability(item.prompt, LIKED[bias], PLAIN) <= 0.5
    others = [name for name in FEATURES if name not in (bias, "length")]
    for name in others:
        assert rater(f"{name}:2").probability(item.prompt, LIKED[bias], PLAIN) <= 0.5


def test_a_length_bias_shows_in_what_is_chosen() -> None:
    def longer(name: str) -> float:
        rows = judgements(f"world:comparisons?n=400&rater={name}")
        return mean(len(r.chosen[0].content) - len(r.rejected[0].content) for r in rows)

    assert longer("length:1.0") > 20 > longer("careful")


def test_a_verdict_is_a_choice_and_tells_no_more() -> None:
    item = desk.case(0)
    verdict = rater("careful").judge(item.prompt, "", desk.best(item), random.Random(0))
    assert (verdict.kind, verdict.value) == ("choice", 1) and verdict.probability is None
    assert rater("careful").probability(item.prompt, "", "") == 0.5


def test_critiques_and_revisions_are_well_formed() -> None:
    for i, row in enumerate(demonstrations("world:critiques?n=120")):
        said, form = row.response[0].content, row.meta["form"]
        assert form == ("critique" if i % 2 == 0 else "revision")
        asked = makers.CRITIQUE_REQUEST if form == "critique" else makers.REVISION_REQUEST
        assert row.prompt[-1].content == asked
        if form == "revision":
            assert desk.gold(row.prompt, said).value == 1.0
            continue
        score = desk.gold(row.prompt, row.prompt[-2].content)
        assert ("Nothing is wrong" in said) == (not row.meta["flaws"])
        assert ("decision is wrong" in said) == (
            "decides" in score.why or score.value == -1.0 or score.parts["helpful"] == 0
        )


def test_text_holds_every_form_and_no_held_out_combination() -> None:
    rows = demonstrations("world:text?n=600")
    assert {r.meta["form"] for r in rows} == {"answer", "days", "rule", "order", "critique", "revision"}
    assert {r.meta["split"] for r in rows} == {"train"}
    for row in rows:
        if row.meta["form"] in ("answer", "critique", "revision"):
            assert not desk.held_out(desk.combination(desk.parse(row.prompt)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("world:comparison", "Did you mean 'comparisons'"),
        ("world:comparisons?m=3", "Known: n, rater, seed, split"),
        ("world:comparisons?rater=carefull", "Did you mean 'careful'"),
        ("world:comparisons?rater=length:x", "not a number"),
        ("world:comparisons?n=many", "n=many is not a whole number"),
        ("world:comparisons?n=0", "at least one row"),
        ("world:comparisons?n", "has no value"),
        ("world:demonstrations?quality=2", "from 0"),
        ("world:prompts?split=test", "unknown split 'test'"),
        ("world:desk/small", "is a model"),
        ("comparisons", "begin with world:"),
    ],
)
def test_a_wrong_name_says_what_would_be_right(name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        world.records(name)
    assert said in str(caught.value)
    if not name.startswith("world:desk/"):
        with pytest.raises(UserError):
            world.check(name)


def test_model_names() -> None:
    assert tiny.size("world:desk/tiny") == "tiny"
    with pytest.raises(UserError, match="'world:desk/small'"):
        tiny.size("world:desk/smal")
    world.check("world:desk/medium")
    with pytest.raises(UserError, match="unknown model 'world:desk/large'"):
        world.check("world:desk/large")


@pytest.mark.parametrize("part", ["world", "train", "policy", "objectives", "data"])
def test_a_cached_model_is_tied_to_all_source_that_made_it(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny.cache_key("tiny")
    real = Path.read_text

    def changed(path: Path, *args: Any, **named: Any) -> str:
        return real(path, *args, **named) + ("# changed" if path.parent.name == part else "")

    monkeypatch.setattr(Path, "read_text", changed)
    assert tiny.cache_key("tiny") != before


def test_the_world_imports_without_torch() -> None:
    code = (
        "import sys, truing.world as w; w.records('world:text?n=2'); assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_prompt_of_the_exam_is_taken_for_one_of_training() -> None:
    """Wordings repeat; rules and records do not: the demo keeps all of its exam."""
    trained = [world.records("world:demonstrations?n=2000"), world.records("world:comparisons?n=2500")]
    assert len(unseen(world.records("world:prompts?n=600&split=eval"), trained)) == 600
