"""Which part of a response is its answer, and which answers are the same: by their text, without a model."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from truing.errors import UserError
from truing.records import Message, NotRead, Score
from truing.rewards.answers import Unread
from truing.rewards.answers.compare import agree
from truing.rewards.answers.units import unit
from truing.rewards.builtin_verifier import number, verifier
from truing.rewards.call import Call, Response
from truing.rewards.combine import count_notes

SAME = (
    (r"\mathbb{R}", r"(-\infty, \infty)"),
    (r"\frac12", r"{1 \over 2}"),
    (r"\frac12", r"\nicefrac{1}{2}"),
    ("5", r"\text{\$}5"),
    ("5", r"\large 5"),
    ("7", "007"),
    ("1/2 cup", r"\frac12\text{ cups}"),
    ("[3,4) ", r"\left[3,4\right)"),
    ("1.234e2", "123.4"),
    ("\\frac12", "0.5"),
    ("\\frac12", "\\tfrac{1}{2}"),
    ("\\frac12", "½"),
    ("1½", "\\frac32"),
    ("11\\frac{2}{3}", "\\frac{35}{3}"),
    ("3 3/8", "3\\frac{3}{8}"),
    ("-1 1/2", "-1.5"),
    ("6\\frac15", "31/5"),
    ("2\\frac{x}{3}", "\\frac{2x}{3}"),
    ("\\frac{3}{4}\\pi", "\\frac{3\\pi}{4}"),
    ("0.\\overline{3}", "\\frac13"),
    ("0.1\\overline{6}", "1/6"),
    ("\\sqrt{8}", "2\\sqrt2"),
    ("\\frac{1}{\\sqrt{3}}", "\\frac{\\sqrt3}{3}"),
    ("\\frac{1}{1+\\sqrt2}", "\\sqrt2-1"),
    ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt2"),
    ("\\sqrt[3]{16}", "2\\sqrt[3]{2}"),
    ("2^{1/2}", "\\sqrt2"),
    ("\\sqrt{-4}", "2i"),
    ("\\sqrt 13", "\\sqrt{13}"),
    ("sqrt(5)/2", "\\frac{\\sqrt5}{2}"),
    ("6.72\\times10^{-5}", ".0000672"),
    ("6.72e-5", ".0000672"),
    ("1.5×10^3", "1500"),
    ("10^{6}", "1,000,000"),
    ("2^{10}", "1024"),
    ("1{,}000", "1,000"),
    ("10,\\!080", "10080"),
    ("(3,4)", "\\langle 3,4\\rangle"),
    ("(3,4)", "\\begin{pmatrix}3\\\\4\\end{pmatrix}"),
    ("(3,4)", "(x,y)=(3,4)"),
    ("(3,4)", "\\left(\\frac{6}{2},\\sqrt{16}\\right)"),
    ("(3,4)", "(3;4)"),
    ("[3,4)", "[3,4["),
    ("(3,4)", "]3,4["),
    ("(2,5]", "2<x\\le5"),
    ("[3,\\infty)", "x\\ge3"),
    ("[3,\\infty)", "x \\geq 3"),
    ("(3,\\infty)", "3 < x"),
    ("(-\\infty,2)\\cup(5,\\infty)", "x<2 or x>5"),
    ("(-\\infty,2)\\cup(5,\\infty)", "(5,\\infty)\\cup(-\\infty,2)"),
    ("(2,5]", "x\\in(2,5]"),
    ("1,2", "2,1"),
    ("1,2", "\\{1,2\\}"),
    ("1,2", "1 and 2"),
    ("1,2", "x=1 \\text{ or } x=2"),
    ("1\\pm\\sqrt{19}", "1+\\sqrt{19},1-\\sqrt{19}"),
    ("\\pm 2", "2,-2"),
    ("7,-2,\\text{ and }-5", "-5,-2,7"),
    ("\\emptyset", "\\{\\}"),
    ("12\\text{ cm}", "12"),
    ("12\\text{ cm}", "0.12 m"),
    ("12\\text{ cm}^2", "12 square centimeters"),
    ("12", "12\\text{ cm}"),
    ("45 mph", "45 miles per hour"),
    ("60 km/h", "60\\text{ km/h}"),
    ("135\\text{ square feet}", "135\\text{ ft}^2"),
    ("18\\text{ ways}", "18 ways"),
    ("45^\\circ", "45"),
    ("45^\\circ", "45 degrees"),
    ("45^\\circ", "\\frac{\\pi}{4}"),
    ("\\$5", "5 dollars"),
    ("\\$5", "500 cents"),
    ("\\$1,200", "1200"),
    ("\\$3 million", "3000000"),
    ("50\\%", "50"),
    ("50\\%", "0.5"),
    ("50\\%", "1/2"),
    ("0.5", "50\\%"),
    ("50", "50\\%"),
    ("5.4\\text{ cents}", "5.4"),
    ("25 \\, \\text{km}", "25km"),
    ("3 hours", "180 minutes"),
    ("20^\\circ C", "20 degrees Celsius"),
    ("x=5", "5"),
    ("5", "x=5"),
    ("y=2x+3", "2x+3"),
    ("y=2x+3", "2x-y+3=0"),
    ("4x-5y=-50", "-4x+5y=50"),
    ("x^2+y^2=13", "x^2+y^2-13=0"),
    ("f(x)=2x", "2x"),
    ("5", "2+3=5"),
    ("x=3", "3=x"),
    ("x=1,y=2", "y=2,x=1"),
    ("f(2) < f(1) < f(4)", "f(4) > f(1) > f(2)"),
    ("(2x+3)(2x-1)(2x+1)", "8x^3+12x^2-2x-3"),
    ("\\frac{11x+5}{x-2}", "\\frac{-11x-5}{2-x}"),
    ("\\frac1{2x}", "1/(2x)"),
    ("3qr+6q-15r-30", "3(q-5)(r+2)"),
    ("\\sin 3x", "\\sin(3x)"),
    ("\\sin 3x", "3\\sin x-4\\sin^3 x"),
    ("\\sin^2 x", "1-\\cos^2 x"),
    ("\\cos 60^\\circ", "1/2"),
    ("\\cos 13^\\circ", "\\sin 77^\\circ"),
    ("\\log_2 8", "3"),
    ("\\ln 4", "2\\ln 2"),
    ("e^{i\\pi}", "-1"),
    ("\\binom{5}{2}", "10"),
    ("5!", "120"),
    ("|{-3}|", "3"),
    ("\\lfloor 3.7\\rfloor", "3"),
    ("3+5i", "5i+3"),
    ("\\begin{pmatrix} 3 & -3 \\\\ 4 & -2 \\end{pmatrix}", "\\begin{bmatrix}3&-3\\\\4&-2\\end{bmatrix}"),
    ("\\begin{pmatrix} 1/5 \\\\ -3/5 \\end{pmatrix}", "\\begin{pmatrix} \\frac15\\\\ -\\frac35 \\end{pmatrix}"),
    ("3:1", "6:2"),
    ("10000_2", "10000_{2}"),
    ("16_{10}", "16"),
    ("152A_{11}", "152a_{11}"),
    ("\\text{(B)}", "B"),
    ("\\text{(B)}", "(B) 42"),
    ("\\text{B}", "\\textbf{(B)}\\ 42"),
    ("\\text{Friday}", "friday"),
    ("\\text{A,C,F}", "A, C, F"),
    ("\\text{A,C,F}", "F,C,A"),
    ("\\text{4:30 p.m.}", "4:30 p.m."),
    ("\\text{June 20}", "June 20"),
    ("\\text{VW}", "VW"),
    ("\\text{13}", "13"),
    ("\\text{no solution}", "No solution."),
    ("yes", "Yes"),
    ("2", "2.0"),
    ("2", "{2}"),
    ("2", "(2)"),
    ("2", "[2]"),
    ("2", "2."),
    ("2", "+2"),
    ("2", "2\\\\"),
    ("2", "$2$"),
    ("2", "\\(2\\)"),
    ("-2", "−2"),
    ("2", "\\frac{4}{2}"),
    ("2", "2 \\approx 2"),
    ("\\sqrt2", "\\sqrt2\\approx1.414"),
    ("2", "2^\\circ"),
    ("2", "2!"),
    ("\\infty", "\\infty"),
    ("-\\frac{1}{2}", "\\frac{-1}{2}"),
    ("-\\frac{1}{2}", "\\frac{1}{-2}"),
    ("\\dfrac{17}{50}", "0.34"),
    ("a+b", "b+a"),
    ("3\\cdot 4", "12"),
    ("3\\times4", "12"),
    ("2\\pi", "2π"),
    ("x_{1}", "x_1"),
    ("5 \\text{ or } -5", "\\pm5"),
    ("-2 \\text{ and } 3", "3, -2"),
    ("2", "\\mathbf{2}"),
)
OTHER = (
    ("11\\frac{2}{3}", "\\frac{22}{3}"),
    ("-1 1/2", "-0.5"),
    ("0.333", "\\frac13"),
    ("1/3", "0.3333333333333333"),
    ("\\sqrt{8}", "2.828"),
    ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt3"),
    ("\\sqrt{x^2}", "x"),
    ("2^{2005}", "2^{2006}"),
    ("1,00", "100"),
    ("(1,000)", "1000"),
    ("(3,4)", "(4,3)"),
    ("(3,4)", "3,4"),
    ("(3,4)", "\\{3,4\\}"),
    ("(3,4)", "\\begin{pmatrix}3&4\\end{pmatrix}"),
    ("(3,4)", "4"),
    ("(3,4)", "(3,4,5)"),
    ("[3,4)", "(3,4)"),
    ("(2,5]", "2<x<5"),
    ("[3,\\infty)", "x>3"),
    ("(3,\\infty)", "x<3"),
    ("(-\\infty,2)\\cup(5,\\infty)", "(-\\infty,2),(5,\\infty)"),
    ("[0,1]", "[0,1]\\cup\\{2\\}"),
    ("1,2", "1"),
    ("1,2", "1,2,3"),
    ("1,1", "1"),
    ("1\\pm\\sqrt{19}", "1+\\sqrt{19}"),
    ("\\pm 2", "2"),
    ("\\emptyset", "0"),
    ("12\\text{ cm}", "12\\text{ m}"),
    ("12\\text{ cm}^2", "12\\text{ cm}"),
    ("12 cm", "12 kg"),
    ("60 km/h", "60 km"),
    ("18\\text{ cats}", "18\\text{ dogs}"),
    ("45^\\circ", "45 radians"),
    ("\\$5", "5 cents"),
    ("\\$5", "€5"),
    ("50\\%", "5"),
    ("0.5", "0.5\\%"),
    ("-5^\\circ", "5^\\circ"),
    ("3 hours", "3 minutes"),
    ("20^\\circ C", "20^\\circ"),
    ("20^\\circ C", "20^\\circ F"),
    ("x=5", "y=5"),
    ("y=2x+3", "y=2x+4"),
    ("4x-5y=-50", "4x-5y=50"),
    ("3-2f(x)", "3-2f(y)"),
    ("x=1,y=2", "x=2,y=1"),
    ("f(2) < f(1) < f(4)", "f(1) < f(2) < f(4)"),
    ("x^2-5", "x^2+5"),
    ("\\cos 60^\\circ", "0.51"),
    ("\\frac{1}{2004!}", "\\frac{1}{2005!}"),
    ("\\pi", "3.14159265358979323846264338327950288419716939937510"),
    ("3+5i", "3-5i"),
    ("i", "-i"),
    ("\\begin{pmatrix} 3 & -3 \\\\ 4 & -2 \\end{pmatrix}", "\\begin{pmatrix}3&4\\\\-3&-2\\end{pmatrix}"),
    ("3:1", "1:3"),
    ("3:1", "3"),
    ("10000_2", "10000_3"),
    ("10000_2", "16"),
    ("10000_2", "10000"),
    ("\\text{(B)}", "C"),
    ("B", "D"),
    ("\\text{Friday}", "Saturday"),
    ("\\text{A,C,F}", "A,C"),
    ("\\text{4:30 p.m.}", "4:30 a.m."),
    ("\\text{June 20}", "June 21"),
    ("\\overline{CD}", "\\overline{AB}"),
    ("even", "odd"),
    ("True", "False"),
    ("x", "y"),
    ("2", "\\sqrt{2}"),
    ("2", "x^2"),
    ("2", "2x"),
    ("2", "-2"),
    ("2", "two"),
    ("2", "1, 2"),
    ("2", "2 or 3"),
    ("2", "2\\text{ or }3"),
    ("2", "x\\ne2"),
    ("2", "x>2"),
    ("2", "3!"),
    ("\\infty", "-\\infty"),
    ("\\frac{-1}{2}", "\\frac{-1}{-2}"),
    ("2\\pi", "6.28"),
    ("2\\pi r", "2\\pi R"),
    ("x_1", "x_2"),
    ("\\theta", "\\phi"),
)
REFUSED = (
    ("2017", "2023-05-01"),
    ("10-15", "-5"),
    ("555-1234", "-679"),
    ("12/25/2020", "12/25/2020"),
    ("64", "2^3^2"),
    ("2", "1.2.3"),
    ("2", "007 - 005"),
    ("3 4", "12"),
    ("0.333...", "\\frac13"),
    ("1 000", "1000"),
    ("5", "2+3=6"),
    ("6", "2+3=6"),
    ("1/2x", "\\frac{x}{2}"),
    ("\\sqrt{3+2\\sqrt2}", "2.41421356237309504880168872420969807856967187537694"),
    ("\\begin{pmatrix} 1\\\\ 2 \\end{pmatrix}", "\\begin{vmatrix} 1\\\\ 2 \\end{vmatrix}"),
    ("2", "\\int_0^2 dx"),
    ("2", "2\\ldots"),
    ("2", ""),
    ("2", "\\frac{2}"),
    ("2", "\\frac{2}{0}"),
    ("2", "{2"),
    ("2", "2}"),
    ("2", "(2"),
    ("2", "?"),
    ("\\sqrt2", "\\sqrt2\\approx7"),
    ("7", "5\\approx7"),
    ("2", "x\\approx2"),
)


@pytest.mark.parametrize(("truth", "response"), SAME)
def test_the_same_answer_in_another_writing_is_right(truth: str, response: str) -> None:
    assert agree(truth, response)


@pytest.mark.parametrize(("truth", "response"), OTHER)
def test_another_answer_is_wrong(truth: str, response: str) -> None:
    assert not agree(truth, response)


@pytest.mark.parametrize(("truth", "response"), REFUSED)
def test_what_has_no_one_reading_is_not_read(truth: str, response: str) -> None:
    with pytest.raises(Unread):
        agree(truth, response)


SAID = {
    "1/2": {
        1: [r"so \boxed{\frac{1}{2}}", r"the probability is $\frac{1}{2}$.", r"so \frac12", "0.5", "it is 1/2.", "50% of it", "it is ½"],
        0: ["so 2", "1", "2/1", "0.5%", "1½ cups", "it is 1 1/2 cups"],
    },
    "3": {
        1: ["3 apples and", "$3$ apples", r"\(3\)", r"\[x = 3\]", "so x = 3.", "So f(2) = 3", "see (3)", "answer: 3!", "**3**"],
        0: [r"so 3 \pi", "so 3π", "so 3 π", "it is 3x", "it is 3 x.", r"so \frac12 + 3", r"\sqrt 3", "x^3", "2^3", "(1, 2, 3)"],
    },
    "25": {
        1: ["25 cm^2", "25 cm²", r"25 $\text{cm}^2$", r"$25 \text{ cm}^2$", "so a=<<5*5=25>>25 sheep", "-> 25", "90 - 65 = 25"],
        0: ["x < 25", "10:25", r"x \le 25", r"\{24, 25\}", "3 25/7", "so -25"],
    },
    "2": {0: ["25 cm^2", r"25 $\text{cm}^2$", r"25 \text{ cm}^2", "4 = 2^{2}", "x²", "½", "H2O", r"\log_{2} 8 = 3"], 1: ["2 = 2"]},
    "0": {0: ["1 000"], 1: ["so 0", "0.0"]},
    "5 m": {1: ["the length is 5 m.", "5 metres", r"\boxed{5}", r"\boxed{500 cm}"], 0: ["it is 5 cm.", r"\boxed{5 m^2}"]},
    "5 cents": {1: ["it costs 5 cents", "$0.05", "5"], 0: ["it costs $5", "5 dollars"]},
    "12": {
        1: [
            "#### 12 apples", "#### $12.00 per day", "#### Answer\n12", "#### Final answer: 12", "#### Step 3: add\nso 12",
            "A: 12", "**Answer:** 12", "<answer>12</answer>", "The answer is 12 because 3*4=12", r"\boxed 12", r"\fbox{12}",
            "Final Answer: The final answer is $12$. I hope it is correct.", r"\boxed{11} no, \boxed{12}",
            "He earns $5 and $7, so $12 in all", "The answer is 12, since 5+7=12", r"\boxed{{12}}", "A: 1\nA: 12",
            r"<think>\boxed{13}</think>12", "maybe 13</think> 12", "<think>a</think><think>13</think> it is 12",
        ],
        0: ["12,000", "-12", r"<think>12</think> \boxed{13}", "12 or 13", "#### 13", "#### 12.5"],
        None: ["<think>12", r"\boxed{12", "", "no idea", r"\boxed{12} and \boxed{", "it is 12.3...", "#### 12 of 13 or 14?"],
    },
}  # fmt: skip


@pytest.mark.parametrize("truth", SAID)
def test_the_answer_is_found_in_what_a_model_writes(truth: str) -> None:
    """Unmarked mathematics is read whole as a marked one is: `so \\frac12` was 2, `(1, 2, 3)` was 3."""
    for worth, responses in SAID[truth].items():
        for response in responses:
            found = verifier(response, {"answer": truth})
            assert found == (worth or 0) and (worth is not None or isinstance(found, NotRead)), response


def test_the_row_of_a_solution_and_of_a_number_are_read_alike(real_data: Path) -> None:
    """Grade-school solutions of four models, against whether their makers found them right."""
    count = 0
    with gzip.open(real_data / "gsm8k/model_solutions.dev.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in (next(file) for _ in range(250)):
            row = json.loads(line)
            for said in row["solutions"].values():
                assert (verifier(said["solution"], {"answer": row["ground_truth"]}) == 1.0) == said["is_correct"]
                count += 1
    assert count == 1000


ROWS = {
    r"\left(3, 4\right)": "is no number; set answer: text to compare words, or answer: math for tuples",
    "(3, 4)": "is no number",
    "3 or 4": "is no number",
    "x + 1": "is no number",
    "[0, 1)": "is no number",
    r"\infty": "is no number",
    r"\frac{1}{0}": "a division by 0",
    r"\boxed{\frac{1}{2}": "a brace that is not closed",
    "nan": "is no number",
    "between 3 and 4": "is no number",
}


@pytest.mark.parametrize("truth", ROWS)
def test_a_row_whose_answer_is_no_number_is_refused(truth: str) -> None:
    """An answer (3, 4) passed as 4. The refusal names the column, and what takes it."""
    with pytest.raises(UserError, match=ROWS[truth]) as found:
        verifier("so 4", {"answer": truth})
    assert "'answer'" in str(found.value) and "\n" not in str(found.value)


def test_what_mathematics_does_not_read_is_refused_too() -> None:
    with pytest.raises(UserError, match=r"the right answer .* cannot be read; leave the row out, or set answer: text"):
        verifier("so 4", {"answer": r"\int x"}, answer="math")
    for value in (["1", "2"], {"value": 1}):
        with pytest.raises(UserError, match=r"the row's 'solution' is .*, and has to be one answer"):
            verifier("so 1", {"solution": value}, column="solution")


def test_words_are_compared_behind_thoughts_and_in_nested_braces() -> None:
    for response in (
        "Paris",
        "The answer is Paris.",
        r"\boxed{\text{Paris}}",
        "<think>Rome</think> paris",
        r"\boxed{{Paris}}",
    ):
        assert verifier(response, {"answer": "Paris"}, answer="text") == 1.0, response
    for response in ("Rome", r"Paris \boxed{Rome}", "<think>Paris</think> Rome"):
        found = verifier(response, {"answer": "Paris"}, answer="text")
        assert found == 0.0 and not isinstance(found, NotRead)
    assert isinstance(verifier(" ", {"answer": "Paris"}, answer="text"), NotRead)
    assert verifier("so it is on a Friday: Friday", {"answer": r"\text{Friday}"}, answer="math") == 0.0
    assert verifier(r"so \boxed{Friday}", {"answer": r"\text{Friday}"}, answer="math") == 1.0


def test_an_unread_answer_is_a_number_and_is_counted_once() -> None:
    call = Call(verifier, {"wrong": -1.0})
    asked = (Message("user", "1 + 1"),)
    found = call([Response(asked, text, row={"answer": "2"}) for text in ("2", "3", r"\boxed{2", "none")])
    assert found == [Score(1.0), Score(-1.0), Score(-1.0, unread=True), Score(-1.0, unread=True)]
    assert count_notes([{"unread:verifier": 1.0}] * 2 + [{"timed_out:slow": 1.0}]) == [
        "reward 'slow' timed out on 1 responses, which got its score for a timeout",
        "reward 'verifier' could read no answer in 2 responses, which got its lowest score",
    ]
    assert number(r"\boxed{\frac{3}{4}}") == 0.75 and number(r"\boxed{\sqrt{2}}") is None


HOSTILE = (
    "9^{9^{9^9}}", "(a+b+c+d+e)^{99}", "(a+b)^{9999}", r"\sqrt{" * 300 + "2" + "}" * 300, "(" * 990 + "2" + ")" * 990,
    r"\frac{" * 200 + "1" + "}{2}" * 200, "99999!", "(4999!)!", r"\sqrt{" + "7" * 300 + "}", r"\sin(10^{99})", "e^{e^{e^{e^{9}}}}",
    "10^{-99999999}", "1e999", "5" + "!" * 400, r"\sin " * 300 + "x", r"(x+y+z+w)^{20}(x+y)^{20}", "-" * 1500 + "2", "5" * 4500,
    r"\frac{(x+1)^{90}}{(y+2)^{90}}", "0^{-1}", r"\ln 0", "1," * 900 + "1", "|" * 700 + "2", "9" * 1900,
)  # fmt: skip
LONG = (
    "\\boxed{" * 50_000, "$" * 100_001 + "1", "<think>" * 30_000, "####" * 30_000 + "1", "the answer is " * 20_000 + "1",
    "(" * 100_000 + "1", "\\(" * 50_000 + "1", "1/" * 50_000, "1" * 100_000, " " * 100_000 + "1", "#### " + "*" * 100_000,
    "<answer>" * 20_000, "1" + "." * 100_000, "a1-b2=" * 20_000,
)  # fmt: skip


def test_no_answer_takes_long_and_none_of_these_is_right() -> None:
    """All work is bounded: what a library of symbolic algebra may compute for ever is refused here. The whole lot takes
    about two seconds of one processor."""
    began = time.process_time()
    for text in (*(rf"\boxed{{{body}}}" for body in HOSTILE), *LONG):
        for truth in ("2", r"\sin 2"):
            assert verifier(text, {"answer": truth}, answer="math") == 0.0, text[:40]
    assert time.process_time() - began < 30


def test_units_are_told_apart_by_what_they_measure() -> None:
    assert unit("square feet") == unit("ft^2") != unit("feet") and unit("km per hour") == unit("km/h")
    assert unit("different ways") == unit("ways.") and unit("") is None
