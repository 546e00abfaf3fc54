"""The contract every objective keeps, built in or a user's own: one public list of clauses, each a small experiment.

`violations(objective)` runs all clauses and names those that are broken; `verify("mine.py")` does so for every
objective of a user's file or module. An objective that cannot keep a clause declares it, with the reason, in its
decorator: `@objective(source=..., exempt={"batch order": "..."})`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from truing import registry
from truing.contract.clauses import CLAUSES
from truing.contract.example import example
from truing.errors import UserError, unknown
from truing.registry import Objective

__all__ = ["CLAUSES", "Verified", "broken", "example", "verify", "violations"]

FIRST = ("known signals", "defaults", "one loss per row")
"""Clauses without which the others cannot be tried."""


def broken(objective: Objective) -> dict[str, str]:
    """The clauses that `objective` breaks without having declared it, each with its problem."""
    strange = [name for name in objective.exempt if name not in CLAUSES]
    out = {"exempt": unknown("clause", strange[0], CLAUSES)} if strange else {}
    for name, clause in CLAUSES.items():
        if name in objective.exempt:
            continue
        try:
            problem = clause(objective)
        except Exception as error:
            problem = f"raised {type(error).__name__}: {error}"
        if problem:
            out[name] = problem
            if name in FIRST:
                break
    return out


def violations(objective: Objective) -> list[str]:
    """The same, one line each."""
    return [f"{objective.name}: {clause}: {problem}" for clause, problem in broken(objective).items()]


@dataclass(frozen=True)
class Verified:
    """Result of the contract for one objective, by the name a recipe gives it."""

    name: str
    broken: Mapping[str, str]
    exempt: Mapping[str, str]

    @property
    def text(self) -> str:
        """One line for a person."""
        problems = "; ".join(f"{clause}: {problem}" for clause, problem in self.broken.items())
        reasons = "; ".join(f"{clause} ({reason})" for clause, reason in self.exempt.items())
        clauses = f"keeps all {len(CLAUSES)} clauses" if not reasons else f"keeps the others, exempt from {reasons}"
        return " ".join(f"{self.name}: {f'BREAKS {problems}' if problems else clauses}".split())


def verify(where: str) -> list[Verified]:
    """Every objective of a file (`mine.py`) or module (`pkg.mod`) held to the contract; UserError without any."""
    objectives = registry.load_own(where, "objective")
    if not objectives:
        raise UserError(f"{where}: no function in it is decorated with @objective")
    return [Verified(name, broken(part), part.exempt) for name, part in objectives.items()]
