"""The prompts of an exam that one of its models has met: a model measured, one it is compared with, or a judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from truing.data.likeness import KINDS, Kind, Questions
from truing.data.split import left_of, merged, met
from truing.policy.files.lineage import Learned
from truing.records import Records
from truing.run.lineage import lineages
from truing.run.stage_run import StageRun


def not_met(run: StageRun, records: Records, models: Mapping[str, Any]) -> tuple[Records, list[str]]:
    """Return the rows of `records` that ask nothing that one of `models` (by name) learned from, itself or through the
    models that taught it; and lines that say which model met how many of them where, and of which models the training
    data are unknown. DataError where no row is left."""
    sources: dict[tuple[str, ...], tuple[Learned, list[str]]] = {}
    unknown: dict[str, None] = {}
    for called, model in models.items():
        for lineage in lineages(run, model):
            unknown |= dict.fromkeys(lineage.unknown)
            for learned in lineage.learned:
                key = learned.weights, learned.run, learned.stage, learned.data
                names = sources.setdefault(key, (learned, []))[1]
                names += [] if called in names else [called]
    questions, kinds, lines = Questions(records), dict[int, Kind](), []
    for learned, names in sources.values():
        here = met(questions, [learned.prints])
        kinds = merged(kinds, here)
        if here:
            lines.append(f"{', '.join(names)}: {learned.text}, and so met {len(here)} of the prompts ({counted(here)})")
    if unknown:
        lines.append(
            f"the training data of these are unknown, so that no leak through them is seen: {'; '.join(unknown)}"
        )
    return left_of(records, kinds, "; ".join(lines)), lines


def counted(kinds: Mapping[int, Kind]) -> str:
    """Count the rows that are met in each way, exact ones first.

    >>> counted({1: "contained", 2: "exact", 3: "exact"})
    '2 exact, 1 contained'
    """
    counts = Counter(kinds.values())
    return ", ".join(f"{counts[kind]} {kind}" for kind in reversed(KINDS) if counts[kind])
