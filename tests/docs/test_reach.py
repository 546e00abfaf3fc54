"""What the docs say a recipe can do, it can: methods, their terms and their advantages are reached from `reinforce`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import truing.objectives as objectives
from truing import registry
from truing.errors import RecipeError
from truing.objectives import advantage
from truing.online.advantages import ADVANTAGES, Round
from truing.recipe import catalogue
from truing.recipe.check import check

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
ONLINE = (DOCS / "online.md").read_text(encoding="utf-8")
HEAD = "base: world:desk/tiny\nstages:\n  warm: {do: sft, model: $base, data: world:demonstrations}\n"
LEARN = HEAD + "  policy: {do: reinforce, model: $warm, prompts: world:prompts, rewards: gold, objective: %s%s}\n"
PARTS = registry.parts("objective")


def first_column() -> list[str]:
    """The methods of the table that says which advantages each has."""
    table = ONLINE[ONLINE.index("| objective | advantages |") :].partition("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    return [method for cell in cells for method in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("method", first_column())
def test_every_method_of_the_table_is_trained_by_the_stage(method: str) -> None:
    check(LEARN % (method, ""))


def test_every_method_that_the_stage_trains_is_on_the_page() -> None:
    trained = {row["name"] for row in catalogue.rows("objective") if "reinforce" in row["stages"] and row["sampling"]}
    assert {name for name in trained if not re.search(rf"(`|\[|\{{){name}\b", ONLINE)} == set()


def test_every_kind_of_advantage_has_a_method_and_every_method_a_kind() -> None:
    declared = {part.advantage for part in PARTS.values() if part.advantage} - {"any"}
    assert declared == set(ADVANTAGES)


def objectives_written() -> list[tuple[str, str]]:
    """Every objective that a docstring of the objectives or a page writes as a recipe does, in brackets or braces."""
    texts = {f.name: f.read_text(encoding="utf-8") for f in (*DOCS.glob("*.md"), ROOT / "README.md")}
    texts |= {f"{name}": part.doc for name, part in PARTS.items()}
    found = []
    for where, text in texts.items():
        for code in re.findall(
            r"`(\[?\{?\w+[:,] [^`]*)`|objective: (\[[^\n]*\]|\{[^\n]*\})", " ".join(text.split(" "))
        ):
            try:
                value = yaml.safe_load(code[0] or code[1].partition("   #")[0])
            except yaml.YAMLError:
                continue
            terms = value if isinstance(value, list) else [value]
            names = [next(iter(t)) if isinstance(t, dict) else t for t in terms]
            if all(isinstance(n, str) and n in PARTS for n in names) and not (len(names) == 1 and value == names[0]):
                found.append((where, yaml.safe_dump(value, default_flow_style=True).strip()))
    return sorted(set(found))


@pytest.mark.parametrize(("where", "objective"), objectives_written())
def test_an_objective_that_is_written_out_is_taken_by_a_stage(where: str, objective: str) -> None:
    """Under the stage that trains its terms, a penalty beside a method; an option left open (`...`) is not looked at."""
    if "..." in objective:
        return
    read = yaml.safe_load(objective)
    terms = read if isinstance(read, list) else [read]
    names = [next(iter(t)) if isinstance(t, dict) else t for t in terms]
    if {PARTS[name].advantage for name in names} == {"any"}:
        objective = yaml.safe_dump(["dapo", *terms], default_flow_style=True).strip()
    stages = {
        "reinforce": LEARN % (objective, ", pretrain: world:demonstrations" if "ptx" in names else ""),
        "prefer": HEAD + f"  next: {{do: prefer, model: $warm, data: world:comparisons, objective: {objective}}}\n",
        "sft": HEAD + f"  next: {{do: sft, model: $warm, data: world:demonstrations, objective: {objective}}}\n",
        "fit_reward": HEAD
        + f"  next: {{do: fit_reward, model: $warm, data: world:comparisons, objective: {objective}}}\n",
    }
    mistakes = []
    for text in stages.values():
        try:
            check(text)
            return
        except RecipeError as problem:
            mistakes.append(str(problem))
    raise AssertionError(f"{where}: no stage takes {objective}: {mistakes}")


def test_a_function_of_advantages_that_no_recipe_reaches_says_so() -> None:
    """`process` needs rewards of single steps; all others are read by some kind of advantage."""
    source = Path(Round.__module__.replace(".", "/")).name
    reached = (ROOT / "src" / "truing" / "online" / f"{source}.py").read_text(encoding="utf-8")
    reached += (ROOT / "src" / "truing" / "rewards" / "combine.py").read_text(encoding="utf-8")
    own = [n for n, f in vars(advantage).items() if getattr(f, "__module__", "") == advantage.__name__ and n[0] != "_"]
    idle = [name for name in own if not re.search(rf"\b{name}\(", reached)]
    assert idle == ["process"] and "A function for Python" in " ".join(advantage.process.__doc__.split())
    assert "`advantage.process`, a Python function" in ONLINE


def test_what_is_said_to_be_missing_is_not_there() -> None:
    """The names of the list of what only TRL has."""
    page = (DOCS / "differential.md").read_text(encoding="utf-8")
    missing = page[page.index("- In TRL 1.16 and not here:") : page.index("- Here, and not in TRL 1.16:")]
    named = set(re.findall(r"`(\w+)`", missing.partition("Its other")[0]))
    assert named and not named & set(objectives.__all__)
    for term in ("entropy bonus", "REINFORCE++", "Lite-PPO", "and no KL"):
        assert term not in missing, f"{term} is here: see docs/online.md"
    here = page[page.index("- Here, and not in TRL 1.16:") :]
    assert not [n for n in re.findall(r"`(\w+)`", here.partition("- Read and")[0]) if n not in objectives.__all__]
