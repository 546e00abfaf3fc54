"""What is read whole or not at all: letters in their order, shares, real roots, units of one letter, numbers in prose.

Each table holds instances of one kind of misreading and neighbours of them: (form, truth, response, worth), where no
worth says that the response is unread and counted as such.
"""

from __future__ import annotations

import pytest

from truing.errors import UserError
from truing.rollout.reward_verifier import verifier
from truing.types import NotRead

Case = tuple[str, str, str, float | None]


def held(case: Case) -> None:
    """One response's worth, and whether it was counted as unread."""
    form, truth, response, worth = case
    score = verifier(response, {"answer": truth}, answer=form)  # type: ignore[arg-type]
    assert (float(score), isinstance(score, NotRead)) == (worth or 0.0, worth is None), case


LETTERS: tuple[Case, ...] = (
    ("math", "BDC", r"\boxed{BCD}", 0.0),
    ("math", "PQRS", r"\boxed{SRQP}", 0.0),
    ("math", "HTT", r"\boxed{TTH}", 0.0),
    ("math", "YN", r"\boxed{NY}", 0.0),
    ("math", "(HT, TH)", r"\boxed{(TH, HT)}", 0.0),
    ("math", "BCD", r"\boxed{x = BDC}", 0.0),
    ("math", "BCD", r"\boxed{\text{BDC}}", 0.0),
    ("math", "BCD", r"\boxed{BCD}", 1.0),
    ("math", "BCD", r"\boxed{\text{BCD}}", 1.0),
    ("math", "BCD", r"\boxed{B C D}", 1.0),
    ("math", r"\{HT, TH\}", r"\boxed{\{TH, HT\}}", 1.0),
    ("math", "xy", r"\boxed{yx}", 1.0),
    ("math", r"\frac{AB}{2}", r"\boxed{\frac{1}{2} BA}", 1.0),
)


@pytest.mark.parametrize("case", LETTERS)
def test_capitals_side_by_side_keep_their_order(case: Case) -> None:
    """An instance of a word read as a product: BCD was BDC."""
    held(case)


SHARES: tuple[Case, ...] = (
    ("number", r"0.5\%", r"\boxed{0.5}", 0.0),
    ("number", "0.5", r"\boxed{0.5\%}", 0.0),
    ("number", r"1\%", r"\boxed{1}", 0.0),
    ("number", r"-0.2\%", r"\boxed{-0.2}", 0.0),
    ("number", r"\frac{\sqrt{2}}{2}\%", r"\boxed{\frac{\sqrt{2}}{2}}", 0.0),
    ("number", r"0.5\%", r"\boxed{0.005}", 1.0),
    ("number", r"0.5\%", r"\boxed{\frac{1}{200}}", 1.0),
    ("number", r"50\%", r"\boxed{50}", 1.0),
    ("number", r"50\%", r"\boxed{0.5}", 1.0),
)


@pytest.mark.parametrize("case", SHARES)
def test_a_percent_sign_is_left_out_above_one_alone(case: Case) -> None:
    """An instance of a rule that held on one side: a row's 0.5 % was the response's 0.5."""
    held(case)


ROOTS: tuple[Case, ...] = (
    ("number", r"\sqrt[3]{-8}", r"\boxed{-2}", 1.0),
    ("number", "-2", r"\boxed{\sqrt[3]{-8}}", 1.0),
    ("number", "-2", r"\boxed{\sqrt[5]{-32}}", 1.0),
    ("number", r"-\sqrt{2}", r"\boxed{\sqrt[3]{-\sqrt{8}}}", 1.0),
    ("math", "x", r"\boxed{\sqrt[3]{x^3}}", 1.0),
    ("math", r"-\sqrt[3]{x}", r"\boxed{\sqrt[3]{-x}}", 1.0),
    ("number", "-2", r"\boxed{(-8)^{1/3}}", None),
    ("number", "4", r"\boxed{(-8)^{2/3}}", None),
    ("number", "2", r"\boxed{\sqrt[3]{-8}}", 0.0),
    ("math", "x", r"\boxed{\sqrt{x^2}}", 0.0),
    ("number", "2i", r"\boxed{\sqrt{-4}}", 1.0),
)


@pytest.mark.parametrize("case", ROOTS)
def test_a_root_of_odd_degree_is_the_real_one(case: Case) -> None:
    """An instance of a convention that no answer has: the third root of -8 was a complex number."""
    held(case)


def test_a_row_with_two_readings_of_a_power_is_refused() -> None:
    with pytest.raises(UserError, match="real in one reading only"):
        verifier(r"\boxed{-2}", {"answer": "(-8)^{1/3}"})


UNITS: tuple[Case, ...] = (
    *(("number", "18", text, 1.0) for text in ("She walked 18 m.", "It weighs 18 g.", "18 s", "18 h", "18 L", "18 V")),
    *(("number", "18", text, 1.0) for text in ("18 m²", "18 m/s", r"\boxed{18 m}", r"\boxed{18\, m}", r"\boxed{18m}")),
    *(("number", "18", text, 1.0) for text in (r"\boxed{18 N\cdot m}", r"\boxed{18 Hz}", r"\boxed{x = 18 m}")),
    ("number", "1/2", r"\boxed{1/2 m}", 1.0),
    ("number", "1/2", "it is 1/2 m.", 1.0),
    ("math", "18", r"\boxed{18 m}", 1.0),
    ("number", "18 kHz", r"\boxed{18000 Hz}", 1.0),
    ("number", "18 V", r"\boxed{18 W}", 0.0),
    ("number", "18 m", r"\boxed{18 g}", 0.0),
    ("number", "18", r"\boxed{19 m}", 0.0),
    ("number", "18", r"\boxed{-18 m}", 0.0),
    ("number", "18", r"\boxed{18x}", 0.0),
    ("number", "18", r"\boxed{18 m + 3}", 0.0),
    ("math", "2m", r"\boxed{2}", 0.0),
    ("math", "18", r"\boxed{18m}", None),
    ("number", "18", r"\boxed{18K}", None),
    ("number", "5", "It costs $5K.", None),
)


@pytest.mark.parametrize("case", UNITS)
def test_a_unit_of_one_letter_may_be_left_out_as_any_other(case: Case) -> None:
    """An instance of a unit read as an unknown: 18 m was wrong for 18. Beside its number, where letters are unknowns
    too, it has two readings."""
    held(case)
