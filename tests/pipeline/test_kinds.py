"""Kinds of data that fit one term of an objective and not another."""

import pytest

from truing import world
from truing.data.rendering.render import Renderer
from truing.data.trees import build_trees
from truing.errors import UserError
from truing.policy.fresh import tokenizer_from
from truing.stages.prepare import check_singles, compile_objective


@pytest.mark.parametrize(
    ("data", "refused"), [("rankings?n=3", True), ("rankings?n=3&k=2", False), ("comparisons?n=3", False)]
)
def test_a_term_that_reads_one_response_needs_to_know_which(data, refused) -> None:
    renderer = Renderer(tokenizer_from(["the desk"] * 5, 300))
    dataset = build_trees(world.records(f"world:{data}"), renderer, max_length=10**4, shape="pairs")
    check_singles(dataset, compile_objective("dpo"))
    check_singles(dataset, None)
    if not refused:
        check_singles(dataset, compile_objective(["dpo", "nll"]))
        return
    with pytest.raises(
        UserError, match="objective 'nll' reads one response of each row, and data row 1 compares sever"
    ):
        check_singles(dataset, compile_objective(["dpo", {"nll": {"weight": 0.1}}]))
