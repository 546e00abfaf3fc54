"""Every random stream of a run, by name: none is shared, and each is a function of the recipe's seed alone.

A stream is drawn from by its name, the seed, and the places that tell its draws apart (an epoch, a round, a prompt).
Two streams are two keys of Philox, a generator whose keys are independent by design (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"), so a run that is resumed or divided over processes draws what the whole run would.
The world's data have names of their own (`random.Random("comparison/0/17")`), which these numbers cannot equal.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from truing.records import digest

PLACES = (1 << 36, 1 << 20)
"""Numbers of different first and second places that a stream has room for."""


class Stream(IntEnum):
    """The streams of draws, each with its places."""

    DATA_ORDER = 0
    """(0, epoch): the order of the rows of data."""
    LENT_RESPONSES = 1
    """(): which prompt's responses stand behind another prompt, for KTO's reference point."""
    PROMPT_ORDER = 2
    """(0, epoch): the order of the prompts that a policy responds to."""
    MINIBATCH_ORDER = 3
    """(round, epoch of the round): the order in which a round's responses are learned from again."""
    REPLACEMENTS = 4
    """(round): the prompts that stand in for those whose responses all scored the same."""
    PRETRAINING_ORDER = 5
    """(0, epoch): the order of the texts that are learned beside responses."""
    RESPONSE = 6
    """(prompt, response): the numbers that decide the tokens of a response. Rounds, `sample` stages and the like give
    it a `derived` seed; an exam and the command `truing sample` the seed as it is, so that one repeats the other."""
    BETTER_JUDGE = 7
    """(): the prompts about which a second, better judge is asked."""


class Weights(IntEnum):
    """The streams that weights are drawn from."""

    NEW_MODEL = 0
    """All weights of a new model."""
    MISSING = 1
    """Weights that a model's files do not have, such as a classifier's."""
    ADAPTER = 2
    """The matrices of a low-rank adapter."""
    HEAD = 3
    """The head of a reward or value model."""


BY_EPOCH = frozenset({Stream.DATA_ORDER, Stream.PROMPT_ORDER, Stream.PRETRAINING_ORDER})
"""The streams whose first place is always 0: their epochs have the room of both."""


def key(stream: Stream, *places: int) -> int:
    """The number of a stream and its places, different for each. ValueError for a place that there is no room for.

    >>> key(Stream.DATA_ORDER, 0, 1), key(Stream.LENT_RESPONSES) == key(Stream.DATA_ORDER, 0, 1)
    (1, False)
    """
    first, second = (*places, 0, 0)[:2]
    room = (1, PLACES[0] * PLACES[1]) if stream in BY_EPOCH else PLACES
    if not (0 <= first < room[0] and 0 <= second < room[1]):
        raise ValueError(f"stream {stream.name} has no place ({first}, {second})")
    return (stream << 56) + (first << 20) + second


def generator(stream: Stream, seed: int, *places: int) -> np.random.Generator:
    """The draws of a stream at its places.

    >>> generator(Stream.DATA_ORDER, 0, 0, 1).permutation(5).tolist()
    [0, 2, 4, 1, 3]
    """
    return np.random.Generator(np.random.Philox(key=[seed % 2**63, key(stream, *places)]))


def weights_seed(stream: Weights, seed: int) -> int:
    """The seed of PyTorch's generator for weights; it reads 32 bits, over which the streams are spread evenly.

    >>> weights_seed(Weights.NEW_MODEL, 7), weights_seed(Weights.HEAD, 7)
    (7, 3668339994)
    """
    return (seed + stream * 0x9E3779B1) % 2**32


def derived(seed: int, *purpose: str | int) -> int:
    """A seed for the responses of one purpose, such as a stage's name and its round.

    >>> derived(0, "exam") == derived(0, "exam"), derived(0, "exam") == derived(0, "exam", 1)
    (True, False)
    """
    return int(digest([seed, *purpose]), 16) % 2**63
