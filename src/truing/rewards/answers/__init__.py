"""Answers to problems as exact mathematics: extract the answer of a response, parse it, compare two.

    final      the part of a text that is its answer
    prose      a number without a mark, with its sign, unit and currency
    tokens     that part as numbers, letters, commands and words
    grammar    one expression: an exact value, and the unit behind it
    forms      the forms of an answer: numbers, tuples, intervals, sets, matrices, equations, words
    structure  a whole answer, parsed into one of them
    equality   the comparison of two that have been parsed
    exact      sums of products with rational factors, in a form that is one for each value
    numeric    values to sixty digits, for identities that no normal form shows
    units      the units behind a number
    compare    the comparison of two answers as text

No library of symbolic algebra runs here. Those that read LaTeX drop what they do not support (units, the base of a
number, `:1` of a ratio), call a tuple a set, and compute without a bound; what is not read here is refused and counted.
"""


class Unread(Exception):
    """Raised for a text that cannot be read as an answer, with the reason; it is never a value."""
