"""Answers to problems as exact mathematics: which part of a response is the answer, what it says, when two agree.

    final      which part of a text is its answer
    prose      a number without a mark, with what belongs to it
    tokens     that part as numbers, letters, commands and words
    grammar    one expression: an exact value, and the unit behind it
    forms      what an answer may be: numbers, tuples, intervals, sets, matrices, equations, words
    structure  a whole answer, read into one of them
    equality   whether two that have been read are the same
    exact      sums of products with rational factors, in a form that is one for each value
    numeric    values to sixty digits, for identities that no normal form shows
    units      what is written behind a number
    compare    whether two answers are the same

No library of symbolic algebra runs here. Those that read LaTeX drop what they do not know (units, the base of a number,
`:1` of a ratio), call a tuple a set, and compute without a bound; what is not read here is refused and counted.
"""


class Unread(Exception):
    """A text that cannot be read as an answer, and why; never a value."""
