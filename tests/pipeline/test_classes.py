"""What the rows of a data set must have for an objective, said before training begins."""

from dataclasses import replace

import pytest

from small_trees import ragged
from truing.data.trees import TreeDataset
from truing.errors import DataError, UserError
from truing.stages.prepare import check_classes, compile_objective, complete, to_first_bad


def test_per_prompt_needs_a_row_with_both_classes() -> None:
    trees = ragged("labelled")
    one = tuple(tree for tree in trees if len(tree.branches) == 1)
    own, plain = compile_objective({"kldo": {"per_prompt": True}}), compile_objective("kldo")
    assert 0 < len(one) < len(trees)
    check_classes("data", TreeDataset(trees, ()), own)
    check_classes("data", TreeDataset(one, ()), plain)
    with pytest.raises(UserError, match=r"data: 'kldo' with per_prompt .* no row has both; give rows with prompt"):
        check_classes("data", TreeDataset(one, ()), own)


def test_a_row_that_lacks_what_the_objective_reads_is_named_or_left_out() -> None:
    """A score for a named head, or a column of pairs: an error before the first step, or a counted row."""
    scored, named = TreeDataset(ragged("scored", 3), ()), compile_objective([{"regression": {"head": "clarity"}}])
    with pytest.raises(DataError, match=r"data, row 1: has no score 'clarity', and the objective reads it"):
        complete("data", scored, named, "error")
    with pytest.raises(UserError, match="data: no row has every score"):
        complete("data", scored, named, "drop")
    assert complete("data", scored, compile_objective("regression"), "error") == scored
    safe, ties = TreeDataset(ragged("pairs", 4), ()), TreeDataset(ragged("compared", 2)[:1], ())
    both = TreeDataset((*safe.trees, *ties.trees), ())
    left = complete("data", both, compile_objective("cost_model"), "drop")
    assert len(left.trees) == 4 and [tree.index for tree in left.trees] == [0, 1, 2, 3]
    assert [(n.row, n.field, n.action) for n in left.notes] == [(1, "chosen_safe", "dropped")]


def test_neutral_steps_that_count_as_bad_end_what_is_learned() -> None:
    """`prm: {neutral: bad}`: nothing behind the first step that is not good; what is divided by follows."""
    tree = ragged("steps", 2)[0]
    steps = ((0, 1.0), (1, 0.0), (2, 1.0))
    dataset = TreeDataset((replace(tree, branches=(replace(tree.branches[0], steps=steps),)),), ())
    strict, plain = compile_objective({"prm": {"neutral": "bad"}}), compile_objective("prm")
    assert to_first_bad(dataset, strict).trees[0].branches[0].steps == steps[:2]
    assert to_first_bad(dataset, plain) == dataset
