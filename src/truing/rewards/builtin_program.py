"""A reward of what a response's program does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from truing.data.thoughts import answer_of
from truing.errors import UserError
from truing.records import Count, Positive, Score
from truing.registry import reward

FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


@reward(scope="response")
def program(
    response: str,
    row: Mapping[str, Any],
    *,
    column: Annotated[str, "the column of the prompt's row that holds [[input, output], ...]"] = "tests",
    seconds: Annotated[Positive, "seconds that a test may run before its program counts as wrong"] = 5.0,
    megabytes: Annotated[Count, "MB that the program's processes may hold before they are ended as wrong"] = 512,
    isolate: Annotated[
        bool, "run it without network, files or rights; false trusts every response with this machine"
    ] = True,
    right: Annotated[float, "reward where every test passes"] = 1.0,
    wrong: Annotated[float, "reward where one fails, times out or crashes"] = 0.0,
) -> float | Score:
    """`right` where the answer's Python program turns every input of the prompt's row into its output, else `wrong`.

    A thought (`<think>...</think>`) before the answer is ignored. The row's column holds a list of [input, output]; the
    program is the last ``` block of the answer, or all of it. It runs apart, once a test, and never sees the expected
    output: what it prints is compared here, white space at the ends of lines aside. `seconds` and `megabytes` bound all
    its processes together. A program that times out, crashes or writes without end is wrong; those that had to be
    killed are counted (`timed_out_program`). A machine that cannot run it is a failure of the reward. See SECURITY.md.
    """
    from truing.rewards.sandbox import run

    response = answer_of(response)
    blocks = FENCED.findall(response)
    code = blocks[-1] if blocks else response
    for stdin, wanted in tests(row.get(column), column):
        ended = run(code, stdin, seconds=seconds, megabytes=megabytes, apart=isolate)
        if not ended.well or lines(ended.output) != lines(wanted):
            return Score(wrong, timed_out=ended.timed_out)
    return right


def tests(cases: Any, column: str) -> Sequence[tuple[str, str]]:
    """The tests of a row; UserError where there are none."""
    if not isinstance(cases, list | tuple) or not cases:
        raise UserError(f"reward 'program': a prompt's row has no '{column}', a list of [input, output]; got {cases!r}")
    for pair in cases:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise UserError(f"reward 'program': '{column}' is a list of [input, output], two texts each; got {pair!r}")
    return [(stdin, wanted) for stdin, wanted in cases]


def lines(text: str) -> list[str]:
    """The lines of an output without white space at their ends, and without empty ones at the end."""
    return [line.rstrip() for line in text.rstrip().split("\n")]
