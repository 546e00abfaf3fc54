"""Random streams: named in one place, and none is another."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest

from truing import streams
from truing.data.batch import Branch, Tree
from truing.data.trees import with_shadows
from truing.settings import Training
from truing.streams import BY_EPOCH, Stream, Weights, derived, generator, key, weights_seed
from truing.train.source import DataSource

SOURCE = Path(streams.__file__).parent
PLACES = [(a, b) for a in (0, 1, 2, 7, 2**36 - 1) for b in (0, 1, 2, 7, 2**20 - 1)]


def test_no_two_streams_share_a_key() -> None:
    keys = [key(stream, *place) for stream in Stream if stream not in BY_EPOCH for place in PLACES]
    epochs = [key(stream, 0, epoch) for stream in BY_EPOCH for epoch in (0, 1, 2, 2**20 - 1, 2**20, 2**56 - 1)]
    keys += epochs  # of a set of one row an epoch is an update, and there may be any number of these
    assert len(set(keys)) == len(keys) == (len(Stream) - 3) * len(PLACES) + 18
    assert all(0 <= number < 2**63 for number in keys)


def test_streams_of_one_seed_are_unlike_each_other() -> None:
    """A permutation of 50 agrees with another in about one place; one of the same stream in all."""
    orders = {stream: generator(stream, 3).permutation(50) for stream in Stream}
    for one, other in itertools.combinations(Stream, 2):
        assert (orders[one] == orders[other]).sum() < 10, (one, other)
    assert (orders[Stream.DATA_ORDER] == generator(Stream.DATA_ORDER, 3).permutation(50)).all()


def test_lent_responses_are_not_drawn_as_the_second_epoch_is() -> None:
    """The instance by which this was noticed: both were Philox with the key (seed, 1)."""
    trees = [Tree((i,), (Branch("desirable", (100 + i,), (True,)),), i, i) for i in range(40)]
    second = [tree.row for (tree,) in DataSource(trees, Training(rows_per_step=1), seed=5).epoch(1)]
    following = dict(zip(second, second[1:] + second[:1], strict=True))
    lent = {tree.row: tree.shadow.row for tree in with_shadows(trees, 5, 100)}
    assert sum(lent[row] == following[row] for row in lent) < 10


def test_a_place_beyond_the_room_of_a_stream_is_refused() -> None:
    for place in ((-1,), (0, 2**20), (2**36,)):
        with pytest.raises(ValueError, match="stream RESPONSE has no place"):
            generator(Stream.RESPONSE, 0, *place)
    with pytest.raises(ValueError, match="stream DATA_ORDER has no place"):
        generator(Stream.DATA_ORDER, 0, 1, 0)


def test_weights_of_one_seed_are_drawn_from_different_streams() -> None:
    seeds = [weights_seed(stream, seed) for stream in Weights for seed in range(1000)]
    assert len(set(seeds)) == len(seeds) and weights_seed(Weights.NEW_MODEL, 17) == 17


def test_purposes_are_told_apart() -> None:
    purposes = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", "first"), (0, "a", "1")]
    assert len({derived(*purpose) for purpose in purposes}) == len(purposes)


DRAWS = {"Philox", "default_rng", "manual_seed", "SeedSequence", "RandomState"}
ELSEWHERE = {
    "contract/clauses.py": "made-up batches that an objective is tried on",
    "contract/example.py": "made-up batches that an objective is tried on",
    "policy/fresh.py": "PyTorch's own generator, seeded by a stream",
    "policy/adapters.py": "PyTorch's own generator, seeded by a stream",
    "policy/load.py": "PyTorch's own generator, seeded by a stream",
    "policy/heads.py": "PyTorch's own generator, seeded by a stream",
    "evaluate/intervals.py": "groups of clusters, the same in every run",
}


def test_random_numbers_are_drawn_from_streams_alone() -> None:
    makers = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute | ast.Name) and getattr(node, "attr", getattr(node, "id", "")) in DRAWS:
                makers.add(path.relative_to(SOURCE).as_posix())
    assert makers - {"streams.py"} == set(ELSEWHERE)
    assert np.random.Philox is not None
