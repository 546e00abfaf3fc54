"""Every objective that a stage trains finds in the world's data all that it reads of data."""

import pytest

from small_models import build
from small_trees import trainable
from truing import registry, world
from truing.data.batch import Batch
from truing.data.kinds import shape_of, ties_of
from truing.data.rendering.render import Renderer
from truing.data.trees import build_trees, with_shadows
from truing.objectives.signals import SIGNALS, of_head
from truing.policy.load import load
from truing.signals.observe import observe

SETS = {
    "single": "demonstrations",
    "pairs": "comparisons",
    "ranked": "rankings",
    "labelled": "labels",
    "outcomes": "steps",
    "scored": "ratings",
    "steps": "steps",
}
OWN = {"cost_model": "harms", "rao_kupper": "comparisons&ties=0.2", "davidson": "comparisons&ties=0.2"}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return load(str(build("llama", ["the desk grants a refund"] * 8, tmp_path_factory.mktemp("world"), vocab=300)))


@pytest.mark.parametrize("name", trainable())
def test_the_world_has_what_every_objective_reads(name, policy) -> None:
    needs = registry.parts("objective")[name].needs
    shape, ties = shape_of(needs), ties_of(needs)
    maker, _, more = OWN.get(name, SETS[shape]).partition("&")
    records = world.records(f"world:{maker}?n=10&{more}".rstrip("&"))
    dataset = build_trees(records, Renderer(policy.tokenizer), max_length=10**4, shape=shape, ties=ties)
    assert len(dataset.trees) == 10 and not dataset.notes
    batch = Batch(with_shadows(dataset.trees, 0, 10**4))
    head = "helpful" if shape == "scored" else ""
    wanted = {of_head(signal, head) for signal in needs if SIGNALS[signal].origin == "data"}
    found = observe(policy, batch, frozenset(wanted))
    assert found.keys() == wanted and all(len(value) in (batch.rows, len(batch.trees)) for value in found.values())
    assert name not in ("rao_kupper", "davidson") or 0 < found["tie_B"].sum() < 10
