"""Generated arithmetic: its results are right, its kinds are those of the real file, its halves have nothing in common."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from truing import world
from truing.errors import UserError
from truing.rewards.builtin_verifier import verifier
from truing.world.arithmetic import held_out


def rows(options: str) -> list[tuple[str, str]]:
    records = world.records(f"world:arithmetic?{options}").records
    return [("".join(m.content for m in r.prompt), r.response[0].content) for r in records]  # type: ignore[union-attr]


@pytest.mark.parametrize("shown", ["answer", "steps", "columns", "either"])
def test_every_result_is_right_and_the_verifier_reads_it(shown: str) -> None:
    for asked, said in rows(f"n=400&shown={shown}"):
        want = eval(asked.removesuffix("=").strip())
        assert verifier(said, {"answer": str(want)}) == 1.0 and verifier(said, {"answer": str(want + 1)}) == 0.0
        numbers = re.findall(r"\d+", asked)
        steps = [
            eval(op.join(numbers[:k])) for op in re.findall(r"[-+*]", asked)[:1] for k in range(2, len(numbers) + 1)
        ]
        if shown == "either" and " " not in said:
            assert said == str(want)
            continue
        if shown in ("answer", "steps") or "*" in asked:
            assert said == (str(want) if shown == "answer" else " ".join(map(str, steps)))
            continue
        *paper, last = said.split(" ")
        assert last == str(want) and len(paper) == len(steps)
        for one, before, added in zip(paper, [int(numbers[0]), *steps], numbers[1:], strict=False):
            read = ["".join(column)[::-1].lstrip("0") or "0" for column in zip(*one[:-1].split(","), strict=True)]
            assert read[:2] == [str(abs(before)), added]
        assert [one[-1] for one in paper] == ["-" if step < 0 else "+" for step in steps]


def test_either_is_half_on_paper_and_half_at_once() -> None:
    said = [answer for asked, answer in rows("n=600&shown=either") if "*" not in asked]
    assert sum("," in answer for answer in said) / len(said) == pytest.approx(0.5, abs=0.06)
    assert all("," in answer or re.fullmatch(r"-?\d+", answer) for answer in said)


def test_its_kinds_are_those_of_the_real_file(real_data: Path) -> None:
    def kind(asked: str) -> tuple[bool, str, int]:
        signs = re.findall(r"[-+*]", asked)
        return " " in asked, signs[0], len(signs)

    with gzip.open(real_data / "simple_arithmetic/problems.dev.jsonl.gz") as file:
        real = [json.loads(line)["prompt_text"] for line in file]
    made = [asked for asked, _ in rows("n=600")]
    assert {kind(asked) for asked in made} == {kind(asked) for asked in real}
    assert max(int(n) for asked in made for n in re.findall(r"\d+", asked)) <= 1000


def test_what_is_held_out_is_met_nowhere_in_training() -> None:
    plain = [{re.sub(r"\s", "", a) for a, _ in rows(f"n=1500&terms=2&digits=2&split={s}")} for s in ("train", "eval")]
    assert not plain[0] & plain[1] and len(plain[1]) > 300
    assert sum(held_out("sum", [a, b]) for a in range(60) for b in range(60)) / 3600 == pytest.approx(0.2, abs=0.03)


def test_a_text_of_lines_says_what_conversations_say() -> None:
    [record] = world.records("world:arithmetic?n=1&lines=30&shown=steps").records
    assert record.meta["plain"] and not record.prompt
    lines = record.response[0].content.split("\n")  # type: ignore[union-attr]
    assert len(lines) == 30
    for line in lines:
        asked, _, said = line.partition("=")
        assert said.split()[-1] == str(eval(asked))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("n=0", "n=0: ask for at least one row"),
        ("digits=1", "digits=1: numbers have from 2 to 9 digits"),
        ("terms=1", "terms=1: a problem has from 2 to 9 numbers"),
        ("lines=-1", "lines=-1: a text has at least one line"),
        ("split=test", "unknown split 'test'"),
        ("shown=step", "unknown value of shown 'step'. Did you mean 'steps'?"),
    ],
)
def test_what_makes_no_problem_is_refused(option: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        world.check(f"world:arithmetic?{option}") if option != "n=0" else world.records("world:arithmetic?n=0")
