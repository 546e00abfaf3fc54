"""Two processes give what one gives: weights, metrics, references and checkpoints, in fp64 within its rounding."""

import sys
from pathlib import Path

import pytest

from parallel import jobs
from parallel.driver import ragged
from truing.data.batch import Batch
from truing.policy.load import load
from truing.train.source import balanced, share


@pytest.mark.parametrize("name", [*jobs.OBJECTIVES, "lora", "brought"])
def test_two_ranks_give_the_weights_of_one(name) -> None:
    """Ragged batches in parts, an uneven last batch, clipping by the global norm; an adapter and a reward head with
    activations computed again; one of peft that trains tokens of a shared weight. Each rank holds half of the
    parameters."""
    one, two = jobs.single()[name], jobs.double()[name]
    assert (one.code, two.code) == (0, 0)
    assert jobs.off(one, two) <= 1
    assert one.facts()["held"] > 1.9 * two.facts()["held"]


@pytest.mark.parametrize("layout", jobs.LAYOUTS)
def test_models_read_in_rows_are_divided_as_one_piece(layout) -> None:
    """Their layers are called another number of times on each rank. transformers' own attention takes its softmax in
    fp32, so rows padded to another length differ by that: its rounding, over AdamW's epsilon where a gradient is small."""
    one, two = jobs.single()[layout], jobs.double()[layout]
    assert jobs.off(one, two) <= 1
    assert one.facts()["held"] > 1.9 * two.facts()["held"]


def test_the_measure_is_trained() -> None:
    """The equality above says something: an objective of its own leaves other weights, and a step moves them."""
    nll, dpo = (jobs.single()[name].weights() for name in ("nll", "dpo"))
    dpo.pop("reference")
    assert jobs.apart(nll, dpo) > 1e-4
    assert len({row["rows"] for row in jobs.single()["dpo"].metrics()}) == 2, "the last batch of an epoch is smaller"


def test_a_rank_that_gets_only_neutral_rows() -> None:
    """One pair a step: the second rank reads it again at weight 0, and nothing hangs or counts twice."""
    one, two = jobs.single()["lonely"], jobs.double()["lonely"]
    assert jobs.off(one, two) <= 1
    assert [row["rows"] for row in two.metrics()] == [1] * 5


@pytest.mark.parametrize("name", [*jobs.OBJECTIVES, "lonely"])
def test_the_record_is_that_of_the_whole_step(name) -> None:
    one, two = jobs.single()[name].metrics(), jobs.double()[name].metrics()
    assert len(one) == len(two) == 5
    for mine, theirs in zip(one, two, strict=True):
        assert list(mine) == list(theirs)
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-9)


def test_the_reference_is_read_by_shares_and_the_same() -> None:
    """Within rounding: a product of another number of rows may be summed in other blocks."""
    one, two = (found["dpo"].weights()["reference"] for found in (jobs.single(), jobs.double()))
    assert len(one) > 200 and ((one - two).abs() <= jobs.single()["dpo"].off()["reference"]).all()


def went_on(begun: jobs.Ended, resumed: jobs.Ended) -> bool:
    """Whether a run went on from the third step of another: the rows before are those, seconds and all."""
    assert [row["step"] for row in resumed.metrics()] == [1, 2, 3, 4, 5]
    return begun.metrics()[:3] == resumed.metrics()[:3] and begun.metrics()[3:] != resumed.metrics()[3:]


def test_a_checkpoint_of_one_process_is_resumed_by_two() -> None:
    two = jobs.double()["resumed"]
    assert jobs.off(jobs.single()["dpo"], two) <= 1
    assert went_on(jobs.single()["dpo"], two)
    assert two.facts()["messages"] == ["resumed with 2 processes, begun with 1: equal, but not bitwise"]


def test_a_checkpoint_of_two_is_resumed_by_one(tmp_path) -> None:
    jobs.begin_like(jobs.double()["dpo"].out, tmp_path)
    one = jobs.alone("two-to-one", objective="dpo", steps=5, out=str(tmp_path))
    assert jobs.off(jobs.single()["dpo"], one) <= 1
    assert went_on(jobs.double()["dpo"], one)


@pytest.mark.skipif(sys.platform != "linux", reason="what is mapped is read from /proc")
def test_weights_are_mapped_from_their_file() -> None:
    """So the ranks of a machine share them until the model is divided."""
    named = dict(load(jobs.model()).model.named_parameters())
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    file = str(Path(jobs.model(), "model.safetensors").resolve())
    mapped = [[int(end, 16) for end in line[0].split("-")] for line in lines if line[-1] == file]
    for name, parameter in named.items():
        assert any(first <= parameter.data_ptr() < last for first, last in mapped), name


def test_shares_are_every_tree_once_in_as_many_parts() -> None:
    trees = ragged(11)
    for world in (1, 2, 3, 16):
        found = [list(share(Batch(trees), 40, rank, world)) for rank in range(world)]
        assert len({len(parts) for parts in found}) == 1, "every rank meets as often"
        read = [tree.index for parts in found for part, weight in parts for tree in part.trees if weight]
        assert sorted(read) == list(range(11))
        assert all(part.trees for parts in found for part, _ in parts)
    assert [part.trees for part, _ in share(Batch(trees), 40, 0, 1)] == [p.trees for p in Batch(trees).split(40)]
    loads = [sum(tree.tokens for tree in own) for own in balanced(trees, 2)]
    assert max(loads) - min(loads) <= min(tree.tokens for tree in trees)
