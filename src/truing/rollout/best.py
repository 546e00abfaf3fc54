"""Best-of-n: of several responses to a prompt the one that a reward likes best, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from truing.errors import UserError
from truing.objectives.equal import alike
from truing.records import is_number

T = TypeVar("T")


def descending(responses: Iterable[T], score: Callable[[T], float]) -> list[T]:
    """Responses by their scores, the best first; equal ones in the order they were given."""
    return sorted(responses, key=score, reverse=True)


def steps_down(responses: Iterable[T], score: Callable[[T], float]) -> list[T]:
    """Responses from the best on, of equal ones (but for rounding) the first.

    >>> steps_down(["a3", "b1", "c3", "d2"], lambda response: float(response[1]))
    ['a3', 'd2', 'b1']
    """
    distinct: list[T] = []
    for response in descending(responses, score):
        if not distinct or not alike([score(response), score(distinct[-1])]):
            distinct.append(response)
    return distinct


def best_places(scores: Sequence[float], n: int) -> list[int]:
    """The place of the highest of every `n` scores in a row, of equal ones the first.

    >>> best_places([0.1, 0.9, 0.9, 0.2, 0.3, 0.1], 3)
    [1, 4]
    """
    if n < 1 or len(scores) % n:
        raise UserError(f"the best of every {n}: {len(scores)} scores cannot be divided so")
    return [max(range(start, start + n), key=scores.__getitem__) for start in range(0, len(scores), n)]


def expected_best(proxy: Sequence[float], gold: Sequence[float], n: int) -> float:
    """The expected `gold` score of the best of `n` responses by `proxy`, from N >= n responses to one prompt: its mean
    over all subsets of n, which is unbiased.

        sum over i = n..N of C(i - 1, n - 1) / C(N, n) * gold_(i),    gold_(i) that of the i-th lowest proxy

    Of responses that `proxy` likes equally each is as likely to be taken: they count with their mean gold. With `gold`
    the proxy itself it is the expected highest proxy. UserError where n is not within 1..N, the two differ in length,
    or a value is no finite number (Nakano et al. 2021, arXiv 2112.09332).

    >>> round(expected_best([0.1, 0.9, 0.4, 0.7, 0.3], [0.2, 0.3, 0.8, 0.6, 0.1], 2), 6)
    0.47
    """
    if len(proxy) != len(gold):
        raise UserError(f"best-of-n: {len(proxy)} proxy scores and {len(gold)} gold ones are not of the same responses")
    if not 1 <= n <= len(proxy):
        raise UserError(f"best-of-n: the best of {n} cannot be told from {len(proxy)} responses")
    if not all(map(is_number, (*proxy, *gold))):
        raise UserError("best-of-n: a response has no score; leave it out")
    equal: dict[float, list[float]] = {}
    for score, truth in sorted(zip(proxy, gold, strict=True), key=lambda pair: pair[0]):
        equal.setdefault(score, []).append(truth)
    value, below = 0.0, 0
    for truths in equal.values():
        upto = below + len(truths)
        share = (math.comb(upto, n) - math.comb(below, n)) / math.comb(len(proxy), n)
        value, below = value + share * math.fsum(truths) / len(truths), upto
    return value
