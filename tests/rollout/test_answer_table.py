"""The verifier on fraction, tuple, interval and unit answers: no wrong one accepted, nearly all right ones, each unread
one counted. An instance of answers that are more than digits (`\\boxed{\\frac{1}{2}}` was right for 2)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from answer_table import Case, cases, made_answers, real_answers
from truing.records import Message
from truing.rewards.builtin_verifier import verifier
from truing.rewards.call import Call, Response
from truing.rewards.combine import Rewards, Term, round_metrics

ASKED = (Message("user", "what is it?"),)
UNREADABLE = (
    r"\boxed{\frac{1}{2}",
    r"\boxed{\int_0^1 x\,dx}",
    r"\boxed{3 4}",
    r"\boxed{1/2x}",
    r"\boxed{(3, 4}",
    r"\boxed{\begin{vmatrix} 1 \\ 2 \end{vmatrix}}",
    r"\boxed{2 + 3 = 6}",
    r"\boxed{\frac{1}{0}}",
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{}",
    "<think>it may be 3",
    "no idea",
)


def scores(table: list[Case]) -> tuple[Counter[tuple[bool, float]], list[Case], dict[str, float]]:
    """How many right and wrong responses had each score, those that were misjudged, and what is counted of a round."""
    call = Call(verifier, {"answer": "math"})
    answers = [Response(ASKED, case.response, group=i, row={"answer": case.truth}) for i, case in enumerate(table)]
    found = Rewards((Term("verifier", call),))(answers)
    count = Counter((case.right, score.value) for case, score in zip(table, found, strict=True))
    odd = [case for case, score in zip(table, found, strict=True) if (score.value == 1.0) != case.right]
    return count, odd, round_metrics([(score.parts, score.why) for score in found])


def judged(table: list[Case]) -> Counter[tuple[bool, float]]:
    """The count, after it was held to the bounds."""
    count, odd, seen = scores(table)
    right = count[True, 1.0] + count[True, 0.0]
    print(f"{len({case.truth for case in table})} answers, {len(table)} responses: {dict(count)}, {seen}")
    assert set(count) <= {(True, 1.0), (True, 0.0), (False, 0.0)}, [case for case in odd if not case.right][:5]
    assert count[True, 1.0] >= 0.95 * right, [case for case in odd if case.right][:5]
    assert seen["failed"] == 0
    return count


def test_answers_made_by_rule_are_judged_right() -> None:
    table = list(cases(made_answers()))
    assert {case.kind for case in table} == {"fraction", "tuple", "interval", "unit"} and len(table) > 600
    judged(table)


def test_answers_of_a_real_test_set_are_judged_right(real_data: Path) -> None:
    table = list(cases(real_answers(real_data)))
    assert len({case.truth for case in table}) >= 400
    kinds = Counter(kind for kind, _ in {(case.kind, case.truth) for case in table})
    assert min(kinds.values()) >= 30 and len(kinds) == 4, kinds
    judged(table)


def test_no_numerator_stands_for_another(real_data: Path) -> None:
    """Of 429 plain fractions of the test set all took any numerator with their denominator, in the default form too."""
    taken = 0
    for case in cases(real_answers(real_data)):
        if case.kind == "fraction":
            taken += (verifier(case.response, {"answer": case.truth}) == 1.0) != case.right
    assert taken == 0


def test_every_response_that_cannot_be_read_is_counted() -> None:
    table = [Case("unread", r"\frac{1}{2}", text, False, "unread") for text in UNREADABLE]
    read = [Case("fraction", r"\frac{1}{2}", r"\boxed{\frac12}", True, "itself")]
    count, _, seen = scores([*table, *read])
    assert count == {(False, 0.0): len(UNREADABLE), (True, 1.0): 1}
    assert seen["unread_verifier"] == len(UNREADABLE) and seen["failed"] == 0
    assert seen["reward_verifier"] == 1 / (len(UNREADABLE) + 1), "an unread answer is worth the lowest, and no less"


def test_the_answers_of_a_real_test_set_are_all_read(real_data: Path) -> None:
    """Each is right for itself in a box; only a handful may be refused as a row."""
    own = [Case("any", text, rf"\boxed{{{text}}}", True, "itself") for text in real_answers(real_data)]
    count, odd, seen = scores(own)
    assert count == {(True, 1.0): len(own)}, odd
    assert "unread_verifier" not in seen
