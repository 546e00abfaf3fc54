"""The loss that is optimised: a weighted sum of objectives, each divided by its own count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from truing.data.batch import Batch
from truing.objectives.signals import of_head
from truing.registry import Objective

NONE: Mapping[str, Mapping[str, Tensor]] = MappingProxyType({})


@dataclass(frozen=True)
class Term:
    """One objective with its options and its weight in the sum. `head` names the head it reads and teaches, of a model
    that has several; `longest` is the longest response allowed, where the objective divides by it."""

    objective: Objective
    options: Mapping[str, Any]
    weight: float = 1.0
    head: str = ""
    longest: int = 0

    @property
    def name(self) -> str:
        """The objective's name, under which its loss is recorded."""
        return f"{self.objective.name}_{self.head}" if self.head else self.objective.name

    def keys(self, signals: Iterable[str]) -> dict[str, str]:
        """Under which name each of these signals is observed for this term: `reward_B:clarity` is that of a head."""
        return {signal: of_head(signal, self.head) for signal in signals}

    def count(self, batch: Batch) -> int:
        """The count that its sum of losses is divided by, over these trees: see `records.Mean`."""
        if "given_logp_B" in self.objective.signals:
            return len(batch.shadows().trees)
        if self.objective.mean == "token":
            return sum(batch.taught)
        if self.objective.mean == "step":
            return sum(len(branch.steps) for branch in batch.branches)
        return batch.rows * (self.longest if self.objective.mean == "constant" else 1)

    @property
    def counted_in(self) -> str:
        """The column of a step's metrics that has this count, or one in proportion to it."""
        if "given_logp_B" in self.objective.signals:
            return "texts"
        return {"token": "learned_tokens", "step": "labelled_steps"}.get(self.objective.mean, "rows")

    def losses(self, signals: Mapping[str, Tensor], coupled: Mapping[str, Tensor]) -> Tensor:
        """Its losses on the rows of a part; each response's own mean where that is what is counted."""
        keys = self.keys(self.objective.observed)
        inputs = {signal: signals[key] for signal, key in keys.items() if key in signals}
        inputs |= {name: value.to(next(iter(inputs.values())).device) for name, value in coupled.items()}
        losses = self.objective(**inputs, **self.options)
        if self.objective.mean == "response":
            return losses.sum(1) / inputs["mask_BT"].sum(1).clamp(min=1)
        return losses


class WeightedObjectives:
    """A sum of terms: what `fit` optimises."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)

    @property
    def names(self) -> list[str]:
        """The terms' names, for the record; two terms of one objective are told apart by a number.

        >>> from truing.objectives import dpo, nll
        >>> WeightedObjectives([Term(dpo, {}), Term(nll, {}), Term(dpo, {"beta": 0.5})]).names
        ['dpo', 'nll', 'dpo_2']
        """
        names = [term.name for term in self.terms]
        earlier = [names[:i].count(name) for i, name in enumerate(names)]
        return [name if not n else f"{name}_{n + 1}" for name, n in zip(names, earlier, strict=True)]

    @property
    def signals(self) -> frozenset[str]:
        """The signals that are observed for the rows of a part, optional ones included."""
        return frozenset(key for term in self.terms for key in term.keys(term.objective.observed).values())

    @property
    def all_signals(self) -> frozenset[str]:
        """The same, and what statistics of whole steps read."""
        return self.signals | {key for term in self.terms for key in term.keys(term.objective.surveyed).values()}

    @property
    def needs_reference(self) -> bool:
        """True if some term asks for a reference."""
        return any(name.startswith("ref_") for name in self.all_signals)

    @property
    def lower_is_better(self) -> bool:
        """True if the reward model that is taught says a cost."""
        return any(term.objective.lower_is_better for term in self.terms)

    def counts(self, batch: Batch) -> Tensor:
        """One count per term, over the trees of this batch."""
        return torch.tensor([term.count(batch) for term in self.terms], dtype=torch.float64)

    def counted(self, batch: Batch) -> dict[str, float]:
        """The counts of a step for its line of metrics, which has its `rows` anyway."""
        return {t.counted_in: float(t.count(batch)) for t in self.terms if t.counted_in != "rows"}

    def total(
        self, signals: Mapping[str, Tensor], counts: Tensor, coupled: Mapping[str, Mapping[str, Tensor]] = NONE
    ) -> tuple[Tensor, dict[str, float]]:
        """Sum over terms of weight * sum of losses / count of the whole step, and each term's share for the record.

        `coupled` holds each term's statistics of the whole step, for the rows of this part.
        """
        total, shares = torch.zeros((), dtype=torch.float64), {}
        for name, term, count in zip(self.names, self.terms, counts.tolist(), strict=True):
            mean = term.losses(signals, coupled.get(name, {})).sum() / max(count, 1.0)
            total = total.to(mean.device) + term.weight * mean
            shares[name] = mean.item()
        return total, shares
