"""Learning from own answers: two ranks sample the answers of one process and arrive at its weights, in fp32."""

from __future__ import annotations

import functools

import pyarrow.parquet as parquet
import pytest

from parallel import jobs

METHODS = ("grpo", "ppo")
STEPS = {"steps": 4}


@functools.cache
def both() -> tuple[dict[str, jobs.Ended], dict[str, jobs.Ended]]:
    one = {name: jobs.alone(f"online-one-{name}", online=name, **STEPS) for name in METHODS}
    path, said, _ = jobs.two("online-two", [{"online": name} | STEPS for name in METHODS])
    assert path.with_name(f"{path.stem}-{len(METHODS) - 1}-0.json").exists(), said
    return one, {name: jobs.read_case(path, number) for number, name in enumerate(METHODS)}


def answers(case: jobs.Ended) -> list[list[int]]:
    """The token ids of every answer of the second round, which weights that have moved gave."""
    return parquet.read_table(case.out / "rollouts" / "round-00002.parquet")["response_ids"].to_pylist()


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_learn_from_the_answers_of_one(name) -> None:
    """Two rounds of two passes; ppo with a value head, both with a leash to the reference."""
    one, two = (found[name] for found in both())
    assert (one.code, two.code) == (0, 0), two.error
    assert answers(one) == answers(two) and len(answers(one)) == 9
    assert jobs.apart(one.weights(), two.weights()) <= 1e-5
    for key in ("loss", "score", "kl"):
        assert [r[key] for r in one.metrics()] == pytest.approx([r[key] for r in two.metrics()], rel=1e-4, abs=1e-5)
    assert one.metrics()[-1]["kl"] > 0, "the second round was given by another policy than the reference"
