"""The report of a training stage when it is done: its summary, its model's card, its last lines on the terminal.

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
from truing.data.trees import TreeDataset
from truing.disk import write_text
from truing.evaluate.intervals import mean_interval
from truing.policy.policy import Policy
from truing.recipe.expected import TAUGHT
from truing.records import Finding
from truing.report import card, figures, words
from truing.report.exam_table import LOOP_TIME
from truing.report.figures import WHOLE, Figure, Stretch
from truing.run import telling
from truing.run.lesson import NOTHING, Lesson, Rounds, lesson
from truing.run.stage_run import StageRun
from truing.settings import Training
from truing.train.objective_sum import WeightedObjectives

CHOSEN = "the evaluation was chosen by {}, so it has no interval"


@dataclass(frozen=True)
class Evaluation:
    """The evaluation, on monitored prompts, of the weights that a stage leaves: its line of monitor.jsonl, the names of
    the monitored rewards (evaluations are compared by the first), how many evaluations there were, and whether the
    weights are those of the best."""

    row: Mapping[str, Any]
    names: Sequence[str]
    evaluations: int
    picked: bool

    @property
    def step(self) -> int:
        """The update after which it was made."""
        return int(self.row["step"])

    def figures(self) -> dict[str, Figure]:
        """Its means over the monitored prompts by their names in the metrics, monitored rewards first. The best of
        several evaluations is no longer held out: it was chosen by what it shows."""
        best = self.picked and self.evaluations > 1
        of = f"after update {self.step}" + (f", the best of {self.evaluations} evaluations" if best else "")
        kind = "monitored" if best else "held-out"
        shown = {name: words.label(name) for name in self.names}
        shown |= {"proxy": "training reward (proxy)", "kl": "KL to the reference", "length": "length"}
        by_name = {}
        for name, title in shown.items():
            value, values = self.row.get(name), [x for x in self.row["each"].get(name, ()) if x is not None]
            if value is None:
                continue
            n = int(self.row.get(f"{name}_n", self.row["prompts"]))
            spread = None if best or not values else mean_interval(values)
            unit = {"kl": "nats", "length": "tokens"}.get(name, "")
            note = CHOSEN.format(words.label(self.names[0])) if best else ""
            by_name[f"monitor_{name}"] = Figure(f"{kind} {title}", value, of, unit, spread, n, note)
        return by_name


@dataclass(frozen=True)
class Measured:
    """The results of a stage beside its metrics: held-out findings, the evaluation of the weights it leaves, counts
    over the whole stage, notes, and its rounds, if it learned from any."""

    findings: Sequence[Finding] = ()
    evaluation: Evaluation | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    rounds: Rounds | None = None

    def figures(self) -> dict[str, Figure]:
        """All that was held out, by name."""
        by_name = {f.check + (f":{f.slice}" if f.slice != "all" else ""): figures.of_finding(f) for f in self.findings}
        return by_name | (self.evaluation.figures() if self.evaluation else {})


@dataclass(frozen=True)
class StageFigures:
    """The figures of a stage: `rows` are its lines of metrics."""

    rows: Sequence[Mapping[str, float]]
    terms: WeightedObjectives
    measured: Measured
    lesson: Lesson = field(default_factory=Lesson)

    @cached_property
    def stretch(self) -> Stretch | None:
        """The last tenth of the updates that led to the weights it leaves."""
        evaluation = self.measured.evaluation
        parts = [
            figures.Term(name, term.weight, term.counted_in)
            for name, term in zip(self.terms.names, self.terms.terms, strict=True)
        ]
        return figures.last_tenth(self.rows, parts, evaluation.step if evaluation and evaluation.picked else None)

    @cached_property
    def held_out(self) -> dict[str, Figure]:
        """The measurements on rows or prompts that it did not learn from."""
        return self.measured.figures()

    def whole(self) -> dict[str, float]:
        """Sums over the whole stage, whichever weights it leaves."""
        sums = {name: sum(int(row[name]) for row in self.rows) for name in ("rows", "tokens")}
        seconds = round(math.fsum(row["seconds"] for row in self.rows), 4)
        return {"updates": len(self.rows), **sums, "seconds": seconds, **self.measured.counts}

    def best(self) -> dict[str, Any]:
        """The best evaluation, if the stage leaves its weights: the update before it, and of how many evaluations."""
        best = self.measured.evaluation
        if best is None or not best.picked:
            return {}
        return {"step": best.step, "evaluations": best.evaluations, "metric": best.names[0]}

    def listed(self, dataset: TreeDataset, training: Training) -> list[Figure]:
        """All of them in the order in which they are shown: held out, what was done, means, counts."""
        whole, best = self.whole(), self.best()
        rounds = self.measured.rounds
        done = [Figure("objective", described(self.terms)), Figure("updates", whole["updates"])]
        done += [Figure("weights", f"those after update {best['step']}, the best evaluation")] if best else []
        if rounds is None:
            done.append(Figure("rows of data", len(dataset.trees)))
        else:
            done.append(Figure("prompts", rounds.account.prompts, f"of {len(dataset.trees):,} in the data"))
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
        """The lines that a terminal shows at the end of the stage."""
        return figures.lines([*self.held_out.values()], self.stretch) or ["no update was made"]

    def broken(self) -> list[str]:
        """Notes on the metrics that have no mean because they were no number in some of the last tenth of the steps."""
        lost = self.stretch.broken if self.stretch else {}
        return [
            f"{name} was no number in {count} of the last {self.stretch.count} steps, and has no mean"
            for name, count in lost.items()
            if self.stretch
        ]

    def as_json(self) -> dict[str, Any]:
        """The part of the summary that programs read."""
        best = self.best().get("evaluations", 1)
        held_out = {
            name: {"value": f.value, "interval": list(f.interval) if f.interval else None, "n": f.n}
            | ({"best_of": best} if best > 1 and name.startswith("monitor_") else {})
            for name, f in self.held_out.items()
        }
        stretch = self.stretch.as_json() if self.stretch else None
        weights = {"best_checkpoint": self.best()} if self.best() else {}
        return {"held_out": held_out, "last_tenth": stretch, "whole_stage": self.whole(), **weights}


def tell(
    run: StageRun,
    policy: Policy,
    dataset: TreeDataset,
    training: Training,
    terms: WeightedObjectives,
    measured: Measured,
    moved: bool,
) -> None:
    """Write the model's card and summary.json, and show the figures and, if by `moved` and the metrics the stage taught
    nothing, the reason."""
    rows, evaluation = read_metrics(run.folder), measured.evaluation
    best_step = evaluation.step if evaluation and evaluation.picked else None
    taught = lesson(rows, moved, training.learning_rate, measured.rounds, best_step)
    made = StageFigures(rows, terms, measured, taught)
    write_card(run, policy, dataset, made, training)
    notes = [*made.broken(), *measured.notes, *taught.lines()]
    for line in (*made.lines(), *notes):
        run.show.say(f"  {line}")
    shown = [figure.as_json() for figure in made.listed(dataset, training)]
    body = {"do": run.do, "headline": made.headline(), **made.as_json(), "figures": shown, TAUGHT: taught.as_json()}
    body["paragraph"] = telling.paragraph(
        run.name,
        where_from(run, policy.name),
        described(terms),
        dataset.name,
        len(dataset.trees),
        made.whole(),
        measured.rounds,
    )
    run.write("summary.json", body | {"notes": [*run.accounts, *notes]})


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a stage's metrics; none where it made no update."""
    return [row for _, row in door.read_log(folder / "metrics.jsonl")]


def write_card(run: StageRun, policy: Policy, dataset: TreeDataset, made: StageFigures, training: Training) -> None:
    """The model's README.md: base, method, how to load it, what it was trained on, and its figures."""
    monitored = made.held_out.values() if made.measured.evaluation else ()
    done = [f for f in made.listed(dataset, training) if f.name in ("updates", "weights")]
    shown = [*monitored, *done, *figures.of_stretch(made.stretch)]
    base_model, before = card.named_on_card(Path(policy.name))
    text = card.model_card(
        title=f"{run.recipe.title}: {run.name}",
        base=where_from(run, policy.name),
        method=f"{run.do}: {described(made.terms)}",
        data={os.path.basename(name): content for name, content in run.read.items()}
        | {"token ids": trees_digest(dataset.trees)},
        figures={f.title: f.text() for f in shown},
        findings=made.measured.findings,
        notes=[dataset.text(), *made.lesson.lines()],
        kind="reward" if policy.is_reward else "language",
        adapter=policy.adapter is not None,
        base_model=base_model,
        datasets=[*before, *hub_names(run.read)],
    )
    write_text(run.folder / "model" / "README.md", text)


def where_from(run: StageRun, name: str) -> str:
    """Name the model that training began with, for readers elsewhere: a stage of the run, a folder's own name, or a Hub
    name."""
    path = Path(name)
    if path.is_relative_to(run.root):
        return f"stage {path.parent.name}"
    return path.name if path.is_absolute() else name


def hub_names(read: Iterable[str]) -> list[str]:
    """The names of data sets that are the Hub's, without their split.

    >>> hub_names(["org/pairs:test", "org/pairs (train)", "data/rows.jsonl", "world:desk/pairs", "rate/data.jsonl"])
    ['org/pairs', 'org/pairs']
    """
    matches = (re.fullmatch(r"([\w.-]+/[\w.-]+)(:[^ ]+)?( \(.*\))?", name) for name in read)
    return [m[1] for m in matches if m and not m[1].endswith(SUFFIXES) and not Path(m[1]).exists()]


def described(terms: WeightedObjectives) -> str:
    """An objective in words: `dpo + 0.1 nll`."""
    return " + ".join(t.name if t.weight == 1 else f"{t.weight} {t.name}" for t in terms.terms)
