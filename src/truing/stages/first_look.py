"""The first look of an exam: the table of its first prompts, before the rest of them is answered."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from truing.types import Messages

if TYPE_CHECKING:
    from truing.stages.exam import Exam
    from truing.stages.exam_judge import Judge


def look_first(
    exam: Exam, readable: Sequence[Messages], speakers: Any, choosing: Any, judge: Judge, lookup: bool
) -> None:
    """Examine the first prompts of `readable` alone and show what is found. The whole exam, in which every model gives
    them the same answers, takes its place: nothing of this look is kept."""
    judges = [judge, *([exam.choice.judge] if exam.choice is not None else [])]
    before = [len(each.hung) for each in judges]
    early = copy.copy(exam)
    early.findings, early.examples, early.notes, early.judged = [], [], [], []
    early.examine(readable[: exam.preview], speakers, choosing, judge, lookup)
    for each, count in zip(judges, before, strict=True):
        del each.hung[count:]
    exam.run.show.say(f"  first look, {exam.preview} of {len(readable)} prompts, so intervals are wider:")
    exam.run.show.say(early.table())
