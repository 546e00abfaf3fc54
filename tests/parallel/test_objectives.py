"""Every objective that learns from given data: two ranks give the weights of one process, in fp64 within its rounding."""

import functools

import pytest

from parallel import jobs
from small_trees import trainable

NAMES = trainable()
CASE = {"steps": 2, "fitting": True, "rows": 8, "rows_per_step": 5, "tokens_per_device": 60}


@functools.cache
def both() -> tuple[dict[str, jobs.Ended], dict[str, jobs.Ended]]:
    one = {name: jobs.alone(f"every-{name}", objective=name, **CASE) for name in NAMES}
    path, said, _ = jobs.two("every", [{"objective": name} | CASE for name in NAMES])
    assert path.with_name(f"{path.stem}-{len(NAMES) - 1}-0.json").exists(), said
    return one, {name: jobs.read_case(path, number) for number, name in enumerate(NAMES)}


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_give_the_weights_of_one(name) -> None:
    """Ragged trees of the objective's own kind in several parts; statistics are those of the rows of both ranks."""
    one, two = (found[name] for found in both())
    assert (one.code, two.code) == (0, 0), two.error
    assert jobs.off(one, two) <= 1
    assert "tie_logit" not in two.weights() or two.weights()["tie_logit"].abs().item() > 1e-4, "it begins at 0"
    assert [row["loss"] for row in one.metrics()] == pytest.approx([row["loss"] for row in two.metrics()], rel=1e-9)
