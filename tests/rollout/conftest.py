"""A small model to sample from."""

from pathlib import Path

import pytest

from small_models import build
from truing.policy.load import load
from truing.policy.policy import Policy

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A Llama-like model of 300 tokens."""
    return build("llama", TEXT, tmp_path_factory.mktemp("sampled") / "model", vocab=300)


@pytest.fixture()
def policy(folder) -> Policy:
    """The same, loaded afresh."""
    return load(str(folder))
