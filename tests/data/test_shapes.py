"""Every verdict in every shape: what an objective gets to read, or the words in which it is refused."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from truing.data.kinds import Shape
from truing.data.shapes import Shaped, shaped
from truing.errors import DataError
from truing.records import Demonstration, Judgement, Message, Messages, Verdict

PROMPT: Messages = (Message("user", "q"),)


def said(text: str) -> Messages:
    return (Message("assistant", text),)


def judged(kind: Any, value: Any = None, probability: float | None = None, count: int = 2, **meta: Any) -> Judgement:
    responses = tuple(said("abcd"[i]) for i in range(count))
    return Judgement(
        "id", PROMPT, responses, Verdict(kind, value, probability), strength=meta.pop("m", None), meta=meta
    )


RECORDS = {
    "demonstration": Demonstration(PROMPT, said("a")),
    "prompt": Demonstration(PROMPT, ()),
    "choice": judged("choice", 1),
    "soft": judged("choice", 0, 0.8, m=2.0, chosen_safe=True, rejected_safe=False),
    "choice of 3": judged("choice", 1, count=3),
    "tie": judged("tie"),
    "desirable": judged("score", [1.0], count=1),
    "undesirable": judged("score", [0.0], count=1),
    "score": judged("score", [3.5], count=1),
    "named": judged("score", [{"clear": 2.0, "true": 5.0}], count=1),
    "scores": judged("score", [1.0, 3.0, 2.0], count=3),
    "equal scores": judged("score", [1.0, 1.0, 0.0], count=3),
    "named scores": judged("score", [{"clear": 2.0}, {"clear": 1.0}]),
    "two scores": judged("score", [0.0, 1.0]),
    "ranking": judged("ranking", [2, 0, 1], count=3),
    "ranking of 2": judged("ranking", [1, 0]),
    "comparisons": judged("comparisons", [(0, 1, 1.0), (2, 0, 0.25), (1, 2, 0.5), (1, 0, 1.0)], count=3),
    "one comparison": judged("comparisons", [(0, 1, 0.1)]),
    "ties": judged("comparisons", [(0, 1, 0.5)]),
    "steps": judged("steps", [[1.0, 0.0, -1.0, 1.0]], count=1, steps=list("wxyz")),
    "good steps": judged("steps", [[1.0, 0.0]], count=1, steps=list("wx")),
}  # fmt: skip


def seen(form: Shaped) -> Any:
    """A shape in short: each side as text, and what there is beside it."""
    sides = []
    for side in form.sides:
        text = f"{side.role} {side.response[0].content}"
        text += f" {dict(side.targets)}" if side.targets else ""
        sides.append(text + (f" {list(side.steps)}" if side.steps else ""))
    verdicts = [(c.better, c.worse, dict(c.values)) for c in form.comparisons]
    more = [dict(form.values)] * bool(form.values) + [verdicts] * bool(verdicts)
    return [*sides, *more, *[f"{form.ties_left_out} out"] * bool(form.ties_left_out)]


SOFT = {"margin_B": 2.0, "preference_B": 0.8, "chosen_safe_B": 1.0, "rejected_safe_B": 0.0}
COMPARED = ["compared a", "compared b", "compared c"]
GIVEN: dict[str, dict[str, Any]] = {
    "single": {
        "demonstration": ["response a"],
        "prompt": "this is a prompt alone, without a response",
        "choice": ["response b"],
        "soft": ["response a"],
        "choice of 3": "holds a choice among 3 responses, and the stage learns from responses",
        "tie": "holds a tie",
        "desirable": ["response a"],
        "undesirable": "holds one response with its score, and the stage learns from responses",
        "score": "holds one response with its score",
        "named": "holds one response with its score",
        "scores": "holds scores",
        "equal scores": "holds scores",
        "named scores": "holds scores",
        "two scores": "holds scores",
        "ranking": ["response c"],
        "ranking of 2": ["response b"],
        "comparisons": "holds comparisons",
        "one comparison": "holds comparisons",
        "ties": "holds comparisons",
        "steps": "holds labelled steps",
        "good steps": "holds labelled steps",
    },
    "pairs": {
        "demonstration": "is a demonstration, and the stage learns from pairs\n  Give pairs: prompt, chosen, rejected.",
        "prompt": "prompt alone",
        "choice": ["chosen b", "rejected a"],
        "soft": ["chosen a", "rejected b", SOFT],
        "choice of 3": "a choice among 3 responses, and the stage learns from pairs",
        "tie": "holds a tie, from which the objective does not learn\n  Train an objective that learns from ties",
        "desirable": "holds one response with its score, and the stage learns from pairs",
        "undesirable": "holds one response with its score",
        "score": "holds one response with its score",
        "named": "holds one response with its score",
        "scores": [*COMPARED, [(1, 0, {}), (2, 0, {}), (1, 2, {})]],
        "equal scores": [*COMPARED, [(0, 2, {}), (1, 2, {})], "1 out"],
        "named scores": r"has scores by name \(clear\), and one score a response is wanted",
        "two scores": ["chosen b", "rejected a"],
        "ranking": [*COMPARED, [(2, 0, {}), (2, 1, {}), (0, 1, {})]],
        "ranking of 2": ["chosen b", "rejected a"],
        "comparisons": [*COMPARED, [(0, 1, {}), (0, 2, {"preference_B": 0.75}), (1, 0, {})], "1 out"],
        "one comparison": ["chosen b", "rejected a", {"preference_B": 0.9}],
        "ties": "nothing but ties, from which the objective does not learn\n  Train an objective that learns from ties",
        "steps": "holds labelled steps, and the stage learns from pairs",
        "good steps": "holds labelled steps",
    },
    "ranked": {
        "demonstration": "Give rankings: prompt, responses, ranking.",
        "prompt": "prompt alone",
        "choice": ["chosen b", "rejected a"],
        "soft": ["chosen a", "rejected b"],
        "choice of 3": "a choice among 3 responses",
        "tie": "holds a tie, and the stage learns from rankings",
        "desirable": "one response with its score",
        "undesirable": "one response with its score",
        "score": "one response with its score",
        "named": "one response with its score",
        "scores": ["chosen b", "rejected c", "rejected a"],
        "equal scores": "two responses have the same score, and a ranking has no ties",
        "named scores": "has scores by name",
        "two scores": ["chosen b", "rejected a"],
        "ranking": ["chosen c", "rejected a", "rejected b"],
        "ranking of 2": ["chosen b", "rejected a"],
        "comparisons": "holds comparisons, and the stage learns from rankings",
        "one comparison": "holds comparisons",
        "ties": "holds comparisons",
        "steps": "holds labelled steps",
        "good steps": "holds labelled steps",
    },
    "labelled": {
        "demonstration": "Give responses labelled desirable or undesirable: prompt, response, label.",
        "prompt": "prompt alone",
        "choice": ["undesirable a", "desirable b"],
        "soft": ["desirable a", "undesirable b"],
        "choice of 3": "a choice among 3 responses",
        "tie": "holds a tie",
        "desirable": ["desirable a"],
        "undesirable": ["undesirable a"],
        "score": r"the score 3.5 is no label: 1 \(desirable\) or 0 \(undesirable\)",
        "named": "has scores by name",
        "scores": "the score 3 is no label",
        "equal scores": ["desirable a", "desirable b", "undesirable c"],
        "named scores": "has scores by name",
        "two scores": ["undesirable a", "desirable b"],
        "ranking": "holds a ranking",
        "ranking of 2": "holds a ranking",
        "comparisons": "holds comparisons",
        "one comparison": "holds comparisons",
        "ties": "holds comparisons",
        "steps": "holds labelled steps",
        "good steps": "holds labelled steps",
    },
    "outcomes": {
        "demonstration": "Give responses labelled right or wrong: prompt, response, label.",
        "prompt": "prompt alone",
        "choice": ["response a {'': 0.0}", "response b {'': 1.0}"],
        "soft": ["response a {'': 1.0}", "response b {'': 0.0}"],
        "choice of 3": "a choice among 3 responses",
        "tie": "holds a tie",
        "desirable": ["response a {'': 1.0}"],
        "undesirable": ["response a {'': 0.0}"],
        "score": "the score 3.5 is no label",
        "named": "has scores by name",
        "scores": "the score 3 is no label",
        "equal scores": ["response a {'': 1.0}", "response b {'': 1.0}", "response c {'': 0.0}"],
        "named scores": "has scores by name",
        "two scores": ["response a {'': 0.0}", "response b {'': 1.0}"],
        "ranking": "holds a ranking",
        "ranking of 2": "holds a ranking",
        "comparisons": "holds comparisons",
        "one comparison": "holds comparisons",
        "ties": "holds comparisons",
        "steps": ["response a {'': 0.0}"],
        "good steps": ["response a {'': 1.0}"],
    },
    "scored": {
        "demonstration": "Give responses with scores: prompt, response, score.",
        "prompt": "prompt alone",
        "choice": ["response a {'': 0.0}", "response b {'': 1.0}"],
        "soft": ["response a {'': 0.8}", f"response b {{'': {1 - 0.8}}}"],
        "choice of 3": "a choice among 3 responses",
        "tie": ["response a {'': 0.5}", "response b {'': 0.5}"],
        "desirable": ["response a {'': 1.0}"],
        "undesirable": ["response a {'': 0.0}"],
        "score": ["response a {'': 3.5}"],
        "named": ["response a {'clear': 2.0, 'true': 5.0}"],
        "scores": ["response a {'': 1.0}", "response b {'': 3.0}", "response c {'': 2.0}"],
        "equal scores": ["response a {'': 1.0}", "response b {'': 1.0}", "response c {'': 0.0}"],
        "named scores": ["response a {'clear': 2.0}", "response b {'clear': 1.0}"],
        "two scores": ["response a {'': 0.0}", "response b {'': 1.0}"],
        "ranking": "holds a ranking",
        "ranking of 2": "holds a ranking",
        "comparisons": "holds comparisons",
        "one comparison": "holds comparisons",
        "ties": "holds comparisons",
        "steps": "holds labelled steps",
        "good steps": "holds labelled steps",
    },
    "steps": {
        "demonstration": "Give responses whose steps are labelled: prompt, completions, labels.",
        "prompt": "prompt alone",
        "steps": ["response a [('w', 1.0), ('x', 0.0), ('y', -1.0)]"],
        "good steps": ["response a [('w', 1.0), ('x', 0.0)]"],
    },
}  # fmt: skip
"""What every record gives in every shape. Of `text` there is what there is of `single`; of `steps` the rest is refused."""
GIVEN["text"] = GIVEN["single"]
REFUSED = "and the stage learns from responses whose steps are labelled"


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("shape", get_args(Shape))
def test_every_verdict_in_every_shape(name: str, shape: Shape) -> None:
    wanted = GIVEN[shape][name] if shape != "steps" else GIVEN["steps"].get(name, REFUSED)
    if not isinstance(wanted, str):
        assert seen(shaped(RECORDS[name], shape)) == wanted
        return
    with pytest.raises(DataError, match=wanted):
        shaped(RECORDS[name], shape)


@pytest.mark.parametrize(("ties", "said_of_it"), [("half", {"preference_B": 0.5}), ("outcome", {"tie_B": 1.0})])
def test_ties_are_soft_labels_or_outcomes(ties: Any, said_of_it: dict[str, float]) -> None:
    assert seen(shaped(RECORDS["tie"], "pairs", ties)) == ["chosen a", "rejected b", said_of_it]
    assert seen(shaped(RECORDS["ties"], "pairs", ties)) == ["chosen a", "rejected b", said_of_it]
    form = shaped(RECORDS["comparisons"], "pairs", ties)
    assert [(c.better, c.worse, dict(c.values)) for c in form.comparisons] == [
        (0, 1, {}),
        (0, 2, {"preference_B": 0.75}),
        (1, 2, said_of_it),
        (1, 0, {}),
    ]
    assert form.ties_left_out == 0
    assert shaped(RECORDS["equal scores"], "pairs", ties).comparisons[0].values == said_of_it
