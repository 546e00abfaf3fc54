"""Learning from own answers: two ranks sample the answers of one process and arrive at its weights, in fp32."""

from __future__ import annotations

import functools
import json

import pyarrow.parquet as parquet
import pytest

from parallel import jobs

METHODS = ("grpo", "ppo", "ppo_model", "watched", "ptx", "elsewhere")
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
    """Two rounds of two passes; ppo with a value head, or a value model of its own, all with KL control to the reference."""
    one, two = (found[name] for found in both())
    assert (one.code, two.code) == (0, 0), two.error
    assert answers(one) == answers(two) and len(answers(one)) == 9
    assert jobs.off(one, two) <= 1
    for key in ("loss", "score", "kl"):
        assert [r[key] for r in one.metrics()] == pytest.approx([r[key] for r in two.metrics()], rel=1e-4, abs=1e-5)
    if name != "watched":
        assert one.metrics()[-1]["kl"] > 0, "the second round was given by another policy than the reference"


def test_two_ranks_look_as_one_and_keep_the_best() -> None:
    """The first rank scores; KL control, the scale of the scores and the refreshed reference are those of one process."""
    one, two = (found["watched"] for found in both())
    looks = [
        [json.loads(line) for line in (case.out / "monitor.jsonl").read_text().splitlines()] for case in (one, two)
    ]
    assert [look["step"] for look in looks[0]] == [0, 2, 4] and looks[0][1]["kl"] > 0
    for before, after in zip(*looks, strict=True):
        of_prompts = [look.pop("each") for look in (before, after)]
        assert of_prompts[0].keys() == of_prompts[1].keys()
        for name, values in of_prompts[0].items():
            assert values == pytest.approx(of_prompts[1][name], rel=1e-4, abs=1e-4)
        assert before == pytest.approx(after, rel=1e-4, abs=1e-4)
    assert [r["beta"] for r in one.metrics()] == pytest.approx([r["beta"] for r in two.metrics()])
    assert {p.name for p in (one.out / "references").iterdir()} == {p.name for p in (two.out / "references").iterdir()}
