"""Finished results that a run would throw away, reported before it does; only `--overwrite` allows it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truing import seals
from truing.errors import UserError, one_line
from truing.recipe.references import Recipe
from truing.run.plan import Step, changes, read_json

KEPT = ("model", "reward", "data")
"""Outputs that are not thrown away unasked: models, and responses. Findings and decisions follow from what they read,
and a gate's looks are kept beside the run; so does a split, which takes a moment."""
ALLOWED = "overwritten"
"""The manifest's list of losses that `--overwrite` has allowed: a run that was interrupted needs it once."""


@dataclass(frozen=True)
class Loss:
    """A finished stage that a run would make anew: what it left, when it was finished, why it does not stay as it is,
    and whether that is nothing but truing's own source (`mended`)."""

    step: Step
    left: str
    finished: str
    why: str
    mended: bool

    @property
    def permit(self) -> str:
        """Permission to lose it: this output for that one, and for nothing that is made later."""
        return f"{self.left} for {self.step.key}"

    @property
    def line(self) -> str:
        """The loss as a line for a person."""
        return f"{self.step.spec.name} ({self.step.spec.do}), finished {self.finished}: {one_line(self.why)}"


def losses(steps: Sequence[Step], root: Path, restart: bool) -> list[Loss]:
    """The finished stages that a plan makes anew. With `restart` those are none whose options and inputs are what they
    were: the same is made again."""
    lost = []
    for step in steps:
        record = root / step.spec.name / seals.STAGE
        stored = read_json(record)
        if step.action != "run" or step.gives not in KEPT or step.spec.do == "split" or stored.get("state") != "done":
            continue
        changed = changes(stored["parts"], step.parts)
        if changed or not restart:
            named = [text for name, text in changed.items() if name != "code"] or list(changed.values())
            left = str(stored.get(seals.SEAL) or stored["key"])
            lost.append(Loss(step, left, finished(record), "; ".join(named) or step.note, list(changed) == ["code"]))
    return lost


def finished(record: Path) -> str:
    """Time at which a stage ended, in the time of this machine."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(record.stat().st_mtime))


def another(recipe: Recipe, earlier: Mapping[str, Any], root: Path) -> str:
    """Name the run in a folder, where it is another recipe's and has finished stages that `recipe` does not name;
    empty where it is this recipe's, edited or not."""
    if earlier.get("recipe") == recipe.text or earlier.get("recipe_path") == str(recipe.path or ""):
        return ""
    rows = earlier.get("stages")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = [str(row.get("name")) for row in rows if row.get("state") in ("done", "reused")]
    foreign = [name for name in names if name not in {spec.name for spec in recipe.stages}]
    if not foreign:
        return ""
    whose = earlier.get("recipe_path") or earlier.get("title")
    return f"the report and the manifest of the run of {one_line(str(whose))} (its stages: {', '.join(names)})"


def allow(
    recipe: Recipe, steps: Sequence[Step], root: Path, earlier: Mapping[str, Any], *, overwrite: bool, restart: bool
) -> list[str]:
    """Return the permissions to throw away finished stages, each with what replaces it; UserError, which lists each
    with its reason, where that was not asked for. `earlier` is the manifest of the run before, whose own permission
    holds until it is done."""
    lost, foreign = losses(steps, root, restart), another(recipe, earlier, root)
    permits = [loss.permit for loss in lost]
    before = earlier.get(ALLOWED, []) if earlier.get("state") != "done" else []
    refused = [loss for loss in lost if loss.permit not in before]
    if overwrite or not (refused or foreign):
        return list(dict.fromkeys([*before, *permits]))
    lines = [foreign] * bool(foreign) + [loss.line for loss in refused]
    way_out = "  Keep what an earlier truing made with --resume.\n" if any(loss.mended for loss in refused) else ""
    raise UserError(
        f"{root}: this run would throw away what is finished there:\n    " + "\n    ".join(lines) + f"\n{way_out}"
        "  Keep it and write elsewhere with --out FOLDER, or throw it away with --overwrite."
    )
