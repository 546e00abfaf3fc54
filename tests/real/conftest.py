"""The real model: a clone without it skips these tests with a word, and a run that requires it fails."""

import os
from dataclasses import replace

import pytest

from real.models import FILE, smollm
from truing.data.batch import Batch
from truing.data.formats import loading
from truing.data.rendering.render import Renderer
from truing.data.trees import build_trees
from truing.policy.load import load


@pytest.fixture(scope="session")
def real_model() -> str:
    """The folder of SmolLM2-135M-Instruct in fp32."""
    folder = smollm()
    if folder is not None:
        return str(folder)
    message = f"{FILE} is not here; the set-up fetches it: make install"
    if os.environ.get("TRUING_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def real_pairs(real_model, hh) -> Batch:
    """Six of the shortest human preference pairs, as trees of the real model's tokens."""
    records = loading.load(hh, on_bad_row="drop")
    dataset = build_trees(
        records.subset(range(200), "some"), Renderer(load(real_model).tokenizer), max_length=160, shape="pairs"
    )
    shortest = sorted(dataset.trees, key=lambda tree: tree.tokens)[:6]
    return Batch(tuple(replace(tree, index=i) for i, tree in enumerate(shortest)))
