"""Every option has one sentence, where its default stands, and it is the same wherever it is shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from truing import registry
from truing.recipe import catalogue, check, objective_spec, reward_spec, sources
from truing.recipe.loops import REPEAT
from truing.schema.option import Option
from truing.schema.signature import TRL_OPTIONS

SHARED = [
    *check.NEW_MODEL.values(), *TRL_OPTIONS, *reward_spec.BUDGET, REPEAT, objective_spec.WEIGHT, objective_spec.HEAD,
    reward_spec.WEIGHT, reward_spec.TIE_TOLERANCE, reward_spec.TIMEOUT_SCORE,
]  # fmt: skip
PARTS = {
    f"{kind} {name}": part for kind in ("objective", "stage", "reward") for name, part in registry.parts(kind).items()
}
OPTIONS = {f"{owner} {option.name}": option for owner, part in PARTS.items() for option in part.options}
OPTIONS |= {f"shared {i} {option.name}": option for i, option in enumerate(SHARED)}
OPTIONS |= {f"{row['name']} {o['name']}": Option(**o) for row in sources.datasets() for o in row["options"]}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))
def test_every_option_has_its_sentence(option: Option) -> None:
    words = re.findall(r"[a-z_]+", option.doc.lower())
    assert len(words) >= 3, f"{option.name}: {option.doc!r}"
    assert len(option.doc) <= 120 and "\n" not in option.doc and not option.doc.endswith(".")
    assert set(words) - {*option.name.split("_"), "the", "a", "of", "and"}, "it says the name again"


def test_show_list_and_error_say_the_same_sentence() -> None:
    for owner, part in PARTS.items():
        row = catalogue.row(part)
        shown = "\n".join(catalogue.portrait(row, "", []))
        for option, listed in zip(part.options, row["options"], strict=True):
            assert listed["doc"] == option.doc and f"  {option.doc}\n" in shown + "\n", owner
            problem = refusal(option)
            assert problem is None or problem.endswith(f" ({option.name}: {option.doc})"), owner


def refusal(option: Option) -> str | None:
    """What an option says of the first value that it does not take; None where it takes them all."""
    for value in (None, [], True, -1, "?", {}):
        try:
            option.check(value)
        except ValueError as problem:
            return str(problem)
    return None


def test_the_command_line_lists_sentences_of_parts_and_of_the_worlds_data() -> None:
    def rows(kind: str) -> dict[str, dict[str, str]]:
        done = [sys.executable, "-m", "truing", "list", kind, "--json"]
        listed = json.loads(subprocess.run(done, capture_output=True, text=True, check=True).stdout)
        return {row["name"]: {o["name"]: o["doc"] for o in row["options"]} for row in listed}

    assert rows("stages")["prefer"]["warmup"] == "share of the steps over which the learning rate rises from 0"
    assert rows("data")["world:rankings"]["k"] == "answers to each prompt"


PLAIN = """
from typing import Annotated
from truing.registry import objective, reward, Model
from truing.records import Positive, Count

@objective(source="ours")
def mine(logp_B, *, a: Annotated[Positive, "nats of it"] = 1.0, b: Annotated[Count | None, "rows"] = None,
         c: Positive = 2.0, d: "Annotated[float, 'share']" = 0.5):
    return a * logp_B * (b or 1) * c * d
"""


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_a_users_sentence_is_read_from_the_source_and_at_run_time_alike(tmp_path, future) -> None:
    (tmp_path / "mine.py").write_text(future + PLAIN)
    name = f"{tmp_path}/mine.py:mine"
    wanted = (
        Option("a", "Positive", 1.0, doc="nats of it"),
        Option("b", "Count | None", None, doc="rows"),
        Option("c", "Positive", 2.0),
        Option("d", "float", 0.5, doc="share"),
    )
    assert registry.resolve(name, "objective").options == wanted == registry.load(name, "objective").options
