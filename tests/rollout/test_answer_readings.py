"""What is read whole or not at all: letters in their order, shares, real roots, units of one letter, numbers in prose.

Each table holds instances of one kind of misreading and neighbours of them: (form, truth, response, worth), where no
worth says that the response is unread and counted as such.
"""

from __future__ import annotations

import pytest

from truing.errors import UserError
from truing.records import NotRead
from truing.rewards.builtin_verifier import verifier

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


LARGE: tuple[Case, ...] = (
    ("number", "70000000", "It has 70 million people.", 1.0),
    ("number", "70", "It has 70 million people.", 0.0),
    ("number", "3000", "3 thousand", 1.0),
    ("number", "24", "2 dozen eggs", 1.0),
    ("number", "2", "2 dozen eggs", 0.0),
    ("number", "1500000", "1.5 million", 1.0),
    ("number", "70000000", "a 70-million bill", 1.0),
    ("number", "500000", "about 5 hundred thousand", 1.0),
    ("number", "3000000", "It costs $3 million.", 1.0),
    ("number", "2", "2 thirds", None),
    ("number", "5", "It costs 5 bn", None),
    ("number", "3", "3 and a half", None),
    ("number", "5", "5 squared", None),
    ("number", "2", "The answer is 2 thirds", None),
    ("number", "3", r"\boxed{3 and a half}", None),
    ("number", "3", "#### 3 halves", None),
    ("number", "3", "#### 3 and a half", None),
    ("number", "3", "The answer is 3 and a half.", None),
    ("number", "1", "The answer is 1 in 5 people.", None),
    ("number", "12", "The answer is 12 because there are 3 in each.", 1.0),
)


@pytest.mark.parametrize("case", LARGE)
def test_a_word_that_makes_another_number_is_part_of_it(case: Case) -> None:
    """An instance of a number cut out of its words: 70 million was 70."""
    held(case)


MONEY: tuple[Case, ...] = (
    ("number", "-50", "It is -$50.", 1.0),
    ("number", "50", "It is -$50.", 0.0),
    ("number", "-50", "It is $-50", 1.0),
    ("number", "-50", "It is −$50", 1.0),
    ("number", "-5", "It is –5.", 1.0),
    ("number", "$50", "So £50.", 0.0),
    ("number", "50", "So £50.", 1.0),
    ("number", "50 dollars", "€50", 0.0),
    ("number", "$50", "so 50€", 0.0),
    ("number", "$50", "so 50 yen", 0.0),
    ("number", "$50", "so 50$", 1.0),
    ("number", "$50", "EUR 50", 0.0),
    ("number", "$50", "She paid Rs. 50", 0.0),
    ("number", "$50", "US$50", 1.0),
    ("number", "20 °C", "20 °F", 0.0),
    ("number", "18 Hz", "It is 18 kHz.", 0.0),
    ("number", "-5", "It is minus 5", 1.0),
    ("number", "5", "minus 5", 0.0),
    ("number", "5", "negative 5", 0.0),
    ("number", "-5", "The answer is negative 5.", 1.0),
    ("number", "5", "Answer - 5", None),
    ("number", "5", "step-5", None),
)


@pytest.mark.parametrize("case", MONEY)
def test_the_sign_and_the_unit_of_a_number_in_prose_are_read(case: Case) -> None:
    """An instance of a number cut off its sign and currency: -$50 was 50, and £50 was $50."""
    held(case)


PARTS: tuple[Case, ...] = (
    *(("number", "3", text, 0.0) for text in ("it is x+3", "it is 2x+3", "it is x + 3", "it is x - 3", "it is 3xy")),
    ("number", "1", "so y = 2x+1.", 0.0),
    ("math", "2x+1", "2x+1", 1.0),
    ("math", "2x+1", "so y = 2x+1.", 1.0),
    ("number", "3", "it is 3 - x", 0.0),
    ("number", "12", "3 * 4", 1.0),
    ("number", "12", "3 x 4 = 12", 1.0),
    ("number", "2", "6 / 3", 1.0),
    ("number", "25", "90-65=25", 1.0),
    ("number", "5", "5 - a nice number", 1.0),
    ("number", "-3.5", "It is -3 1/2 cups", 1.0),
    ("number", "-3", "x = - 3", 1.0),
    ("number", "-2", "5 - -2", 0.0),
    ("number", "-1436", "146 -466 -1436", 1.0),
    ("number", "3", "it is pi + 3", 0.0),
    *(("number", "20", text, None) for text in ("it is 10 + (20)", "10 vs 20", "10 & 20", "10–20")),
    *(
        ("number", "2", text, None)
        for text in ("the difference is 5 - 2", "it is 5 -2", "5 plus 2", "5 minus 2", "4 x 2")
    ),
    *(("number", "20", text, None) for text in ("10-20", "from 10 to 20", "10 or 20", "10,20", "it is 10 20")),
    *(("number", "5", text, None) for text in ("2,5", "the square root of 5", "twice 5", "2 + $5")),
)


@pytest.mark.parametrize("case", PARTS)
def test_a_number_that_is_part_of_something_is_not_read_by_itself(case: Case) -> None:
    """An instance of an answer guessed from a part: x+3 was 3, 10-20 was 20."""
    held(case)
