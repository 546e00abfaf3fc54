"""What a training stage says of itself when it is done: its summary, its model's card, its last lines on the terminal.

All three show the same figures, made here from what is on disk, so that a stage that was resumed has those of one that
was not.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from truing import door
from truing.data.batch import trees_digest
from truing.data.formats.files import SUFFIXES
from truing.data.trees import Planted
from truing.disk import write_text
from truing.evaluate.intervals import mean_interval
from truing.policy.policy import Policy
from truing.recipe.expected import TAUGHT
from truing.report import card, figures, words
from truing.report.exam_table import LOOP_TIME
from truing.report.figures import WHOLE, Figure, Stretch
from truing.run import telling
from truing.run.lesson import NOTHING, Lesson, Rounds, lesson
from truing.run.stage_run import StageRun
from truing.settings import Training
from truing.train.objective_sum import Sum
from truing.types import Finding

CHOSEN = "the look was chosen by {}: no interval holds of it"


@dataclass(frozen=True)
class Look:
    """The look at watched prompts that tells of the weights a stage leaves: its line of watch.jsonl, the names of the
    watched rewards (looks are compared by the first), how many looks there were, and whether the weights are those of
    the best."""

    row: Mapping[str, Any]
    names: Sequence[str]
    looks: int
    picked: bool

    @property
    def step(self) -> int:
        """The update after which it was."""
        return int(self.row["step"])

    def figures(self) -> dict[str, Figure]:
        """Its means over the watched prompts by their names in the metrics, watched rewards first. The best of several
        looks is no longer held out: it was chosen by what it shows."""
        best = self.picked and self.looks > 1
        of = f"after update {self.step}" + (f", the best of {self.looks} looks" if best else "")
        kind = "watched" if best else "held-out"
        shown = {name: words.label(name) for name in self.names}
        shown |= {"proxy": "training reward (proxy)", "kl": "KL to the reference", "length": "length"}
        found = {}
        for name, title in shown.items():
            value, known = self.row.get(name), [x for x in self.row["each"].get(name, ()) if x is not None]
            if value is None:
                continue
            n = int(self.row.get(f"{name}_n", self.row["prompts"]))
            spread = None if best or not known else mean_interval(known)
            unit = {"kl": "nats", "length": "tokens"}.get(name, "")
            note = CHOSEN.format(words.label(self.names[0])) if best else ""
            found[f"watch_{name}"] = Figure(f"{kind} {title}", value, of, unit, spread, n, note)
        return found


@dataclass(frozen=True)
class Measured:
    """What a stage knows of its result beside its metrics: held-out findings, the look at the weights it leaves, counts
    over the whole stage, notes, and what is known of its rounds, if it learned from any."""

    findings: Sequence[Finding] = ()
    look: Look | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    rounds: Rounds | None = None

    def figures(self) -> dict[str, Figure]:
        """All that was held out, by name."""
        found = {f.check + (f":{f.slice}" if f.slice != "all" else ""): figures.of_finding(f) for f in self.findings}
        return found | (self.look.figures() if self.look else {})


@dataclass(frozen=True)
class StageFigures:
    """The figures of a stage: `rows` are its lines of metrics."""

    rows: Sequence[Mapping[str, float]]
    terms: Sum
    measured: Measured
    lesson: Lesson = field(default_factory=Lesson)

    @cached_property
    def stretch(self) -> Stretch | None:
        """The last tenth of the updates that led to the weights it leaves."""
        look = self.measured.look
        parts = [
            figures.Term(name, term.weight, term.counted_in)
            for name, term in zip(self.terms.names, self.terms.terms, strict=True)
        ]
        return figures.last_tenth(self.rows, parts, look.step if look and look.picked else None)

    @cached_property
    def held_out(self) -> dict[str, Figure]:
        """What was measured on rows or prompts that it did not learn from."""
        return self.measured.figures()

    def whole(self) -> dict[str, float]:
        """Sums over the whole stage, whichever weights it leaves."""
        sums = {name: sum(int(row[name]) for row in self.rows) for name in ("rows", "tokens")}
        seconds = round(math.fsum(row["seconds"] for row in self.rows), 4)
        return {"updates": len(self.rows), **sums, "seconds": seconds, **self.measured.counts}

    def kept(self) -> dict[str, Any]:
        """Of a stage that leaves the weights of its best look: after which update that was, and of how many looks."""
        look = self.measured.look
        return {"step": look.step, "looks": look.looks, "by": look.names[0]} if look and look.picked else {}

    def listed(self, planted: Planted, training: Training) -> list[Figure]:
        """All of them in the order in which they are shown: held out, what was done, means, counts."""
        whole, kept = self.whole(), self.kept()
        rounds = self.measured.rounds
        done = [Figure("objective", described(self.terms)), Figure("updates", whole["updates"])]
        done += [Figure("weights kept", f"those after update {kept['step']}, the best look")] if kept else []
        if rounds is None:
            done.append(Figure("rows of data", len(planted.trees)))
        else:
            done.append(Figure("prompts asked", rounds.account.prompts, f"of {len(planted.trees):,} in the data"))
        done += [
            Figure("rows learned from, repeats counted", whole["rows"]),
            Figure("data tokens learned from, repeats counted", whole["tokens"]),
        ]
        counts = [Figure(words.label(name), count, WHOLE) for name, count in self.measured.counts.items()]
        pace = [
            Figure("data tokens a second", round(whole["tokens"] / max(whole["seconds"], 1e-9))),
            Figure(LOOP_TIME, round(whole["seconds"], 1), unit="s"),
            Figure("learning rate, as set", training.learning_rate),
        ]
        lost = [Figure("taught", f"nothing: {self.lesson.nothing}")] if self.lesson.nothing else []
        return [*self.held_out.values(), *lost, *done, *figures.of_stretch(self.stretch), *counts, *pace]

    def headline(self) -> str:
        """The first of them, in one line."""
        if self.lesson.nothing:
            return NOTHING + self.lesson.nothing
        first = [*self.held_out.values(), *figures.of_stretch(self.stretch)][:1]
        return "".join(f"{figure.title} {figure.text()}" for figure in first) or "no update was made"

    def lines(self) -> list[str]:
        """What a terminal shows at the end of the stage."""
        return figures.lines([*self.held_out.values()], self.stretch) or ["no update was made"]

    def broken(self) -> list[str]:
        """Of each metric that has no mean because it was no number, in how many of the last tenth."""
        lost = self.stretch.broken if self.stretch else {}
        return [
            f"{name} was no number in {count} of the last {self.stretch.count} steps, and has no mean"
            for name, count in lost.items()
            if self.stretch
        ]

    def as_json(self) -> dict[str, Any]:
        """The part of the summary that programs read."""
        best = self.kept().get("looks", 1)
        held_out = {
            name: {"value": f.value, "interval": list(f.interval) if f.interval else None, "n": f.n}
            | ({"best_of": best} if best > 1 and name.startswith("watch_") else {})
            for name, f in self.held_out.items()
        }
        stretch = self.stretch.as_json() if self.stretch else None
        kept = {"kept": self.kept()} if self.kept() else {}
        return {"held_out": held_out, "last_tenth": stretch, "whole_stage": self.whole(), **kept}


def tell(
    run: StageRun, policy: Policy, planted: Planted, training: Training, terms: Sum, measured: Measured, moved: bool
) -> None:
    """Write the model's card and summary.json, and say the figures and, where `moved` and the metrics tell that the
    stage taught nothing, why."""
    rows, look = read_metrics(run.folder), measured.look
    kept = look.step if look and look.picked else None
    taught = lesson(rows, moved, training.learning_rate, measured.rounds, kept)
    made = StageFigures(rows, terms, measured, taught)
    write_card(run, policy, planted, made, training)
    notes = [*made.broken(), *measured.notes, *taught.lines()]
    for line in (*made.lines(), *notes):
        run.show.say(f"  {line}")
    shown = [figure.as_json() for figure in made.listed(planted, training)]
    body = {"do": run.do, "headline": made.headline(), **made.as_json(), "figures": shown, TAUGHT: taught.as_json()}
    body["paragraph"] = telling.paragraph(
        run.name,
        where_from(run, policy.name),
        described(terms),
        planted.name,
        len(planted.trees),
        made.whole(),
        measured.rounds,
    )
    run.write("summary.json", body | {"notes": [*run.accounts, *notes]})


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a stage's metrics; none where it made no update."""
    return [row for _, row in door.read_log(folder / "metrics.jsonl")]


def write_card(run: StageRun, policy: Policy, planted: Planted, made: StageFigures, training: Training) -> None:
    """The model's README.md: base, method, how to load it, what it was trained on, and its figures."""
    looks = made.held_out.values() if made.measured.look else ()
    done = [f for f in made.listed(planted, training) if f.name in ("updates", "weights kept")]
    shown = [*looks, *done, *figures.of_stretch(made.stretch)]
    base_model, before = card.named_on_card(Path(policy.name))
    text = card.model_card(
        title=f"{run.recipe.title}: {run.name}",
        base=where_from(run, policy.name),
        method=f"{run.do}: {described(made.terms)}",
        data={os.path.basename(name): content for name, content in run.read.items()}
        | {"token ids": trees_digest(planted.trees)},
        figures={f.title: f.text() for f in shown},
        findings=made.measured.findings,
        notes=[planted.text(), *made.lesson.lines()],
        kind="reward" if policy.is_reward else "language",
        adapter=policy.adapter is not None,
        base_model=base_model,
        datasets=[*before, *hub_names(run.read)],
    )
    write_text(run.folder / "model" / "README.md", text)


def where_from(run: StageRun, name: str) -> str:
    """What a model began with, for people elsewhere: a stage of the run, a folder's own name, or a Hub name."""
    path = Path(name)
    if path.is_relative_to(run.root):
        return f"stage {path.parent.name}"
    return path.name if path.is_absolute() else name


def hub_names(read: Iterable[str]) -> list[str]:
    """Those of the names of data sets that are the Hub's, without their split.

    >>> hub_names(["org/pairs:test", "org/pairs (train)", "data/rows.jsonl", "world:desk/pairs", "rate/data.jsonl"])
    ['org/pairs', 'org/pairs']
    """
    found = (re.fullmatch(r"([\w.-]+/[\w.-]+)(:[^ ]+)?( \(.*\))?", name) for name in read)
    return [m[1] for m in found if m and not m[1].endswith(SUFFIXES) and not Path(m[1]).exists()]


def described(terms: Sum) -> str:
    """An objective in words: `dpo + 0.1 nll`."""
    return " + ".join(t.name if t.weight == 1 else f"{t.weight} {t.name}" for t in terms.terms)
