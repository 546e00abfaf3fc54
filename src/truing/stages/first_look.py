"""The preview of an exam: the table of its first prompts, before the rest of them is answered."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from truing.records import Messages

if TYPE_CHECKING:
    from truing.stages.exam import Exam
    from truing.stages.exam_judge import Judge


def show_preview(
    exam: Exam, readable: Sequence[Messages], speakers: Any, choosing: Any, judge: Judge, lookup: bool
) -> None:
    """Examine the first prompts of `readable` alone and show the findings. Nothing of it stays: the whole exam, in
    which every model gives them the same responses, replaces it."""
    judges = [judge, *([exam.choice.judge] if exam.choice is not None else [])]
    before = [len(each.failures) for each in judges]
    early = copy.copy(exam)
    early.findings, early.examples, early.notes, early.judged = [], [], [], []
    early.examine(readable[: exam.preview], speakers, choosing, judge, lookup)
    for each, count in zip(judges, before, strict=True):
        del each.failures[count:]
    exam.run.show.say(f"  preview, {exam.preview} of {len(readable)} prompts, so intervals are wider:")
    exam.run.show.say(early.table())
