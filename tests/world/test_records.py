"""The data sets of the world, their names, and the raters behind the judgements."""

from __future__ import annotations

import dataclasses
import itertools
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
from truing.records import Demonstration, Judgement, digest, source_digest
from truing.world import arithmetic, desk, makers, tiny
from truing.world.raters import FEATURES, rater
from truing.world.reading import step_label


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


def written(record):
    """What a record says, without marks of learning and of thoughts, which the world puts on nothing."""

    def bare(value):
        if isinstance(value, dict):
            return {key: bare(each) for key, each in value.items() if key not in ("learned", "apart")}
        return [bare(each) for each in value] if isinstance(value, list | tuple) else value

    return bare(dataclasses.asdict(record))


def test_the_rows_are_the_same_on_every_machine() -> None:
    """When this changes on purpose, raise `makers.VERSION`: it is part of the digest by which results are cached."""
    made = {name: digest([written(r) for r in world.records(f"world:{name}?n=8").records]) for name in world.DATASETS}
    assert (arithmetic.VERSION, made.pop("arithmetic")) == (1, "b9f0e92f60f7df6a")
    judged = {name: made.pop(name) for name in ("harms", "labels", "rankings", "ratings", "steps")}
    assert (makers.VERSION, digest(made)) == (1, "6a8c3df9a6236653")
    assert digest(judged) == "7286625467792016"
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


def test_ties_are_what_feels_close() -> None:
    plain, some, many = (judgements(f"world:comparisons?n=100&ties={ties}") for ties in ("0", "0.05", "0.4"))
    assert plain == judgements("world:comparisons?n=100")
    tied = [[r.verdict.kind == "tie" for r in rows] for rows in (plain, some, many)]
    assert sum(tied[0]) == 0 < sum(tied[1]) < sum(tied[2]) < 100
    assert all(after or not before for before, after in zip(tied[1], tied[2], strict=True)), "wider, never narrower"
    gap = [
        [abs(r.meta["gold"][0] - r.meta["gold"][1]) for r in many if (r.verdict.kind == "tie") == tie]
        for tie in (True, False)
    ]
    assert mean(gap[0]) < 0.2 < mean(gap[1])
    assert world.records("world:comparisons?n=5&ties=0").digest == world.records("world:comparisons?n=5").digest
    assert world.records("world:comparisons?n=5&ties=0.1").digest != world.records("world:comparisons?n=5").digest


def test_ties_take_as_much_from_either_side() -> None:
    item, judge, rng = desk.case(2), rater("hasty"), random.Random(3)
    worse, better = desk.answer(item, {"curt", "uncited"}), desk.best(item)
    drawn = [judge.judge(item.prompt, worse, better, rng, ties=0.5) for _ in range(1000)]
    low, high = judge.utility(item.prompt, worse), judge.utility(item.prompt, better)
    for value, share in ((0, judge.preference(low - 0.5, high)), (1, judge.preference(high - 0.5, low))):
        assert mean(v.value == value for v in drawn) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize(("name", "low", "high"), [("careful", 0.85, 1.0), ("hasty", 0.5, 0.7)])
def test_rankings_follow_the_gold_as_well_as_their_rater_sees(name: str, low: float, high: float) -> None:
    rows = judgements(f"world:rankings?n=150&k=5&rater={name}")
    assert all(sorted(r.verdict.value) == [0, 1, 2, 3, 4] and len(set(r.meta["gold"])) == 5 for r in rows)
    ordered = [[r.meta["gold"][i] for i in r.verdict.value] for r in rows]
    assert low < mean(a > b for order in ordered for a, b in itertools.combinations(order, 2)) < high


def test_two_are_ranked_as_often_as_they_are_preferred() -> None:
    item, rng = desk.case(2), random.Random(5)
    worse, better = desk.answer(item, {"curt", "uncited"}), desk.best(item)
    judge = rater("hasty")
    first = mean(judge.rank(item.prompt, [worse, better], rng).value[0] == 1 for _ in range(1000))
    assert first == pytest.approx(judge.probability(item.prompt, better, worse), abs=0.04)


def test_ratings_are_the_parts_of_the_gold_through_noise_and_bias() -> None:
    rows = judgements("world:ratings?n=200")
    for r in rows:
        parts = desk.gold(r.prompt, r.responses[0][0].content).parts
        [scores] = r.verdict.value
        assert scores.keys() == parts.keys() and all(abs(scores[name] - parts[name]) < 0.12 for name in parts)
    biased = judgements("world:ratings?n=200&rater=flattery:2")
    more = [b.verdict.value[0]["honest"] - a.verdict.value[0]["honest"] for a, b in zip(rows, biased, strict=True)]
    assert {round(x, 2) for x in more} == {0.0, 1.0}, "a strength of 2 is 1 on a part's scale"


def test_labels_divide_good_answers_from_bad() -> None:
    rows = judgements("world:labels?n=400")
    good, bad = (
        [desk.gold(r.prompt, r.responses[0][0].content).value for r in rows if r.verdict.value == [label]]
        for label in (1.0, 0.0)
    )
    assert 120 < len(good) < 280 and min(good) > 0.6 and mean(bad) < 0.5 < 0.9 < mean(good)


def test_a_step_is_bad_where_it_contradicts_the_policy() -> None:
    rows = judgements("world:steps?n=400")
    for r in rows:
        parts, [labels], flaws = r.meta["steps"], r.verdict.value, set(r.meta["flaws"])
        said, text = desk.read(r.responses[0][0].content), r.responses[0][0].content
        assert text == "\n".join(parts) and len(parts) == len(labels) and {"listed"}.isdisjoint(flaws)
        score = desk.gold(r.prompt, text)
        wrong = said.decision != r.meta["decision"]
        right = not wrong and "cites" not in score.why and score.parts["honest"] == score.parts["harmless"] == 1
        assert (-1.0 in labels) >= wrong and not (right and -1.0 in labels)
    assert 60 < sum(-1.0 in r.verdict.value[0] for r in rows) < 200
    assert {label for r in rows for label in r.verdict.value[0]} == {1.0, 0.0, -1.0}


@pytest.mark.parametrize("kind", desk.KINDS)
def test_the_best_answer_has_no_bad_step(kind: str) -> None:
    for item in desk.cases(20, "steps", kinds=(kind,)):
        labels = [step_label(item.prompt, part + ".") for part in desk.best(item).rstrip(".").split(". ")]
        assert -1.0 not in labels and 1.0 in labels
    item = desk.case(1, kind)
    assert step_label(item.prompt, "Thank you for asking.") == 0.0
    assert step_label(item.prompt, "Returns R999 allows 30 days.") == -1.0
    assert step_label(item.prompt, "Our record says 8 days.") == -1.0
    assert step_label(item.prompt, "We allow 17 days.") == -1.0, "no rule does"


@pytest.mark.parametrize("name", ["careful", "format:3"])
def test_harm_is_chosen_against(name: str) -> None:
    """Also by a rater to whom a list is worth more than all else of the gold."""
    rows = judgements(f"world:harms?n=150&rater={name}")
    harmless = [[desk.gold(r.prompt, a[0].content).parts["harmless"] for a in (r.chosen, r.rejected)] for r in rows]
    assert all(chosen >= rejected for chosen, rejected in harmless)
    assert harmless == [[float(r.meta["chosen_safe"]), float(r.meta["rejected_safe"])] for r in rows]
    assert {tuple(pair) for pair in harmless} == {(1.0, 1.0), (1.0, 0.0), (0.0, 0.0)}


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
        ("world:comparisons?ties=-1", "a number from 0 up"),
        ("world:comparisons?ties=nan", "a number from 0 up"),
        ("world:rankings?k=1", "from 2 to 8 answers"),
        ("world:rankings?k=9", "from 2 to 8 answers"),
        ("world:labels?rater=carefull", "Did you mean 'careful'"),
        ("world:steps?quality=2", "from 0"),
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


@pytest.mark.parametrize("part", ["world", "train", "signals", "policy", "objectives", "data"])
def test_a_cached_model_is_tied_to_all_source_that_made_it(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny.cache_key("tiny")
    real = Path.read_text

    def changed(path: Path, *args: Any, **named: Any) -> str:
        return real(path, *args, **named) + ("# changed" if path.parent.name == part else "")

    monkeypatch.setattr(Path, "read_text", changed)
    source_digest.cache_clear()  # it is read once a process
    try:
        assert tiny.cache_key("tiny") != before
    finally:
        source_digest.cache_clear()


def test_the_world_imports_without_torch() -> None:
    code = (
        "import sys, truing.world as w; w.records('world:text?n=2'); assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_prompt_of_the_exam_is_taken_for_one_of_training() -> None:
    """Wordings repeat; rules and records do not: the demo keeps all of its exam."""
    trained = [world.records("world:demonstrations?n=2000"), world.records("world:comparisons?n=2500")]
    assert len(unseen(world.records("world:prompts?n=600&split=eval"), trained)) == 600
