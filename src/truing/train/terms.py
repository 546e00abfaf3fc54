"""What is optimised: a weighted sum of objectives, each divided by its own count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from truing.data.batch import Batch
from truing.registry import Objective


@dataclass(frozen=True)
class Term:
    """One objective with its options and its weight in the sum."""

    objective: Objective
    options: Mapping[str, Any]
    weight: float = 1.0

    @property
    def name(self) -> str:
        """The objective's name, under which its loss is recorded."""
        return self.objective.name

    def count(self, batch: Batch) -> int:
        """What its sum is divided by: learned tokens for a token-level objective, trees for a row-level one."""
        if self.objective.per == "token":
            return sum(sum(b.loss) for b in batch.branches if b.role != "rejected")
        return len(batch.trees)


class Sum:
    """A sum of terms: what `fit` optimises."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)

    @property
    def names(self) -> list[str]:
        """The terms' names, for the record; two terms of one objective are told apart by a number.

        >>> from truing.objectives import dpo, nll
        >>> Sum([Term(dpo, {}), Term(nll, {}), Term(dpo, {"beta": 0.5})]).names
        ['dpo', 'nll', 'dpo_2']
        """
        found = [term.name for term in self.terms]
        earlier = [found[:i].count(name) for i, name in enumerate(found)]
        return [name if not n else f"{name}_{n + 1}" for name, n in zip(found, earlier, strict=True)]

    @property
    def signals(self) -> frozenset[str]:
        """Every signal that some term asks for, optional ones included."""
        return frozenset(name for term in self.terms for name in term.objective.signals)

    @property
    def needs_reference(self) -> bool:
        """Whether some term asks for a reference."""
        return any(name.startswith("ref_") for name in self.signals)

    def counts(self, batch: Batch) -> Tensor:
        """One count per term, over the trees of this batch."""
        return torch.tensor([term.count(batch) for term in self.terms], dtype=torch.float64)

    def total(self, signals: Mapping[str, Tensor], counts: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Sum over terms of weight * sum of losses / count of the whole step, and each term's share for the record."""
        total, shares = torch.zeros((), dtype=torch.float64), {}
        for name, term, count in zip(self.names, self.terms, counts.tolist(), strict=True):
            given = {name: signals[name] for name in term.objective.signals if name in signals}
            mean = term.objective(**given, **term.options).sum() / max(count, 1.0)
            total = total.to(mean.device) + term.weight * mean
            shares[name] = mean.item()
        return total, shares
