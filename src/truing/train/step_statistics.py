"""Statistics of a whole step, for the objectives whose rows depend on one another through it.

What an objective declares as `coupled` is made here from all rows of a step, on all ranks and in no part alone, so that
neither the memory of a device nor the number of processes changes a result. A statistic that moves from step to step
is kept here, and with every checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from truing.data.batch import Batch
from truing.train.distributed import process_group
from truing.train.objective_sum import WeightedObjectives

Look: TypeAlias = Callable[[Batch, frozenset[str]], dict[str, Tensor]]
Parts: TypeAlias = Sequence[tuple[Batch, float]]
SignalsByTerm: TypeAlias = dict[str, dict[str, Tensor]]


class Survey:
    """The statistics of one objective. `state` holds those that move, by term: what a checkpoint keeps."""

    def __init__(self, objective: WeightedObjectives) -> None:
        self.terms = {n: t for n, t in zip(objective.names, objective.terms, strict=True) if t.objective.coupled}
        self.signals = frozenset(key for t in self.terms.values() for key in t.keys(t.objective.surveyed).values())
        self.state: dict[str, dict[str, float]] = {}
        self._places: dict[int, range] = {}
        self._signals: SignalsByTerm = {}

    def take(self, step: Batch, parts: Parts, look: Look) -> None:
        """Make the statistics of a step, of which `parts` are this rank's; `look` computes signals of a part."""
        if not self.terms:
            return
        self._places, rows = {}, 0
        for tree in step.trees:
            self._places[tree.index] = range(rows, rows + tree.rows)
            rows += tree.rows
        whole = self._gathered(rows, parts, look)
        for name, term in self.terms.items():
            signals = {signal: whole[key] for signal, key in term.keys(term.objective.surveyed).items()}
            previous = {s: torch.tensor(v, dtype=torch.float64) for s, v in self.state.get(name, {}).items()}
            made = term.objective.statistics(signals, term.options, previous)
            self._signals[name] = {signal: value.double().cpu() for signal, value in made.items()}
            moving = [signal for signal, statistic in term.objective.coupled.items() if statistic.stateful]
            if moving:
                self.state[name] = {signal: self._signals[name][signal].item() for signal in moving}

    def of(self, part: Batch) -> SignalsByTerm:
        """The statistics as each term reads them for the rows of this part."""
        if not self.terms:
            return {}
        places = self._rows(part)
        return {
            name: {
                signal: value.expand(len(places)) if value.ndim == 0 else value[places]
                for signal, value in signals.items()
            }
            for name, signals in self._signals.items()
        }

    def _rows(self, part: Batch) -> list[int]:
        return [place for tree in part.trees for place in self._places[tree.index]]

    def _gathered(self, rows: int, parts: Parts, look: Look) -> Mapping[str, Tensor]:
        """Every surveyed signal of all rows of the step, in its order, on every rank."""
        names = sorted(self.signals)
        whole = torch.zeros(len(names), rows, dtype=torch.float64)
        with torch.no_grad():
            for part, weight in parts:
                signals = look(part, self.signals)
                if weight:
                    whole[:, self._rows(part)] = torch.stack([signals[n].double().cpu() for n in names])
        with process_group.reaching():
            return dict(zip(names, process_group.total(whole), strict=True))
