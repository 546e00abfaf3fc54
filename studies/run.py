"""A study: one recipe, several seeds, one table. For effects that a single run cannot show.

    make study NAME=objectives
    python studies/run.py objectives --seeds 0 2      # some of the seeds, here or on several machines

`studies/NAME.yaml` says which recipe, which seeds, what must hold of every seed (rules as a gate reads them) and which
findings stand in the table. Every seed is a run of its own in runs/studies/NAME/seed-N, and is gone on with where it
was interrupted. When all seeds are done, `studies/NAME.md` is written: one row per model, each seed by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from truing.errors import TruingError, UserError
from truing.evaluate.front import undominated
from truing.gate.decide import decide
from truing.gate.evidence import read_findings
from truing.gate.rules import Rule
from truing.recipe.check import check
from truing.recipe.references import Recipe, Ref
from truing.records import Finding, source_digest
from truing.report import words
from truing.report.exam_table import trained
from truing.run.plan import read_json
from truing.yaml_text import reading

HERE = Path(__file__).parent
HOME = HERE.parent


class Study(BaseModel):
    """One study. In every line of `change` (as on truing's command line) `{seed}` is the run's seed and `{data}` the
    folder of real data, TRUING_DATA. `against` is the model that all others are compared with; `rules` are held against
    each of them, seed by seed; `columns` are checks of the exam. Of a `front`, checks of which more is better, a column
    says which models none is better than."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    seeds: tuple[int, ...] = Field(min_length=1)
    change: tuple[str, ...] = ()
    against: str
    rules: tuple[Rule, ...] = Field(min_length=1)
    columns: tuple[str, ...] = Field(min_length=1)
    front: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spent:
    """What a stage took: seconds (of training those in its loop, else the whole stage), and the tokens of the data that
    it learned from, prompts counted once per answer; of answers that were sampled, only those that a loss has read."""

    seconds: float
    tokens: int


@dataclass(frozen=True)
class Seed:
    """What one run of a study left: findings, what each stage took, and which stages each of them reads."""

    number: int
    findings: tuple[Finding, ...]
    spent: Mapping[str, Spent]
    reads: Mapping[str, frozenset[str]]

    def of(self, model: str, against: str) -> list[Finding]:
        """The findings of a model: its own, and those of its comparison with `against`."""
        own = [f for f in self.findings if f.model == model and f.slice == "all"]
        return [f for f in own if f.against in ("", against)]

    def cost(self, model: str, against: str) -> Spent | None:
        """What it took from `against` to the model: every stage it comes from and `against` does not, so a reward model
        or answers that were sampled for it too. Of `against` itself: all it comes from. None for what no stage made."""
        if model not in self.reads:
            return None
        given = frozenset() if model == against or against not in self.reads else self.line(against)
        own = [self.spent[name] for name in self.line(model) - given]
        return Spent(sum(s.seconds for s in own), sum(s.tokens for s in own))

    def line(self, name: str) -> frozenset[str]:
        """A stage and all that it comes from."""
        return frozenset({name}).union(*(self.line(read) for read in self.reads[name]))


def read_study(path: Path) -> Study:
    """The study that a file describes; UserError says what is wrong with it."""
    try:
        return Study.model_validate(reading.read(path.read_text(encoding="utf-8"), "a study").plain)
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in HERE.glob("*.yaml")))
        raise UserError(f"{path}: cannot be read ({error.strerror}). Studies: {known}") from error
    except (reading.YamlError, ValidationError) as error:
        raise UserError(f"{path}: {error}") from error


def changes(study: Study, seed: int) -> list[str]:
    """What a seed's run changes in the recipe, as on the command line."""
    data = os.environ.get("TRUING_DATA") or str(HOME.parent / "shared" / "data")
    return [f"seed={seed}", *(c.replace("{seed}", str(seed)).replace("{data}", data) for c in study.change)]


def run_seed(study: Study, seed: int, folder: Path) -> None:
    """Run one seed to its end, from where it was interrupted; SystemExit where the run fails."""
    asked = ["truing", "run", study.recipe, *changes(study, seed), "--out", str(folder)]
    asked += ["--resume"] if folder.exists() else []
    print(" ".join(asked), flush=True)
    code = subprocess.run([sys.executable, "-m", *asked], cwd=HOME).returncode
    if code not in (0, 1, 4):  # hold, an expectation not met, cannot decide: these are answers too
        sys.exit(code)


def read_seed(study: Study, number: int, folder: Path) -> Seed | None:
    """What a run left, or None where it is not done. UserError where it was made by another recipe or other code."""
    manifest = read_json(folder / "manifest.json")
    if manifest.get("state") != "done":
        return None
    names, recipe = [stage["name"] for stage in manifest["stages"]], check(HOME / study.recipe, changes(study, number))
    code = {read_json(folder / name / "stage.json")["parts"]["code"] for name in names}
    if code != {source_digest()} or manifest["recipe"] != recipe.text:
        raise UserError(
            f"{folder}: the recipe or truing's source has changed since; remove the folder and run it again"
        )
    spent = {name: took(folder / name) for name in names}
    return Seed(number, tuple(read_findings(folder)), spent, read_by(recipe))


def read_by(recipe: Recipe) -> dict[str, frozenset[str]]:
    """The stages whose results each stage of a recipe reads."""
    return {spec.name: frozenset(ref.stage for ref in refs(dict(spec.options))) for spec in recipe.stages}


def refs(value: Any) -> Iterator[Ref]:
    """The references in an option's value."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Mapping):
        yield from refs(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from refs(item)


def took(folder: Path) -> Spent:
    """What a stage took, from what it left."""
    seconds, steps = trained(read_json(folder / "summary.json")), folder / "metrics.jsonl"
    if seconds is None or not steps.exists():
        return Spent(float(read_json(folder / "stage.json").get("seconds") or 0.0), 0)
    return Spent(seconds, sum(json.loads(line)["tokens"] for line in steps.read_text(encoding="utf-8").splitlines()))


def gather(study: Study, seeds: Sequence[Seed]) -> str:
    """The table of a study in markdown. A row for each model: what the rules are about, seed by seed with its interval;
    the other columns, of all seeds in turn; whether every rule holds in every seed. `against` stands first."""
    ruled = list(dict.fromkeys(rule.check for rule in study.rules))
    others = {f.model: None for s in seeds for f in s.findings if f.against == study.against}
    heads = [f"{words.label(check)}, seed {s.number}" for check in ruled for s in seeds]
    heads = ["model", *heads, *map(head, study.columns), "tokens learned", "time, s", "holds"]
    heads += ["on the front"] if study.front else []
    fronts = [front_of(study, s, [study.against, *others]) for s in seeds]
    lines = [row(heads), "|" + "---|" * len(heads)]
    for model in (study.against, *others):
        cells = [spread(s.of(model, study.against), check) for check in ruled for s in seeds]
        cells += [" / ".join(value(s.of(model, study.against), check) for s in seeds) for check in study.columns]
        costs = [s.cost(model, study.against) for s in seeds]
        cells += [" / ".join("-" if c is None else f"{c.tokens:,}" for c in costs)]
        cells += [" / ".join("-" if c is None else f"{c.seconds:.0f}" for c in costs)]
        cells += [held(study, seeds, model) if model in others else ""]
        cells += [" / ".join("yes" if model in front else "no" for front in fronts)] if study.front else []
        lines.append(row([model, *cells]))
    return "\n".join(lines)


def front_of(study: Study, seed: Seed, models: Sequence[str]) -> list[str]:
    """The models that no other is better than by one check of `front` without being worse by another."""
    found = {model: {f.check: f.value for f in seed.of(model, study.against)} for model in models}
    points = {model: [of[check] for check in study.front] for model, of in found.items() if {*study.front} <= {*of}}
    names = list(points)
    return [names[i] for i in undominated(list(points.values()))]


def duels(study: Study, seeds: Sequence[Seed]) -> str:
    """A table of the models that were compared with another one than `against`, or an empty string where none was."""
    known = [f for s in seeds for f in s.findings if f.check == "win_rate" and f.slice == "all"]
    pairs = dict.fromkeys((f.model, f.against) for f in known if f.against != study.against)
    shown = ("win_rate", "mean_score_delta")
    heads = [f"{words.label(check)}, seed {s.number}" for check in shown for s in seeds]
    lines = [row(["model", "over", *heads]), "|" + "---|" * (len(heads) + 2)]
    for model, over in pairs:
        beside = [[f for f in s.findings if (f.model, f.against, f.slice) == (model, over, "all")] for s in seeds]
        lines.append(row([model, over, *(spread(found, check) for check in shown for found in beside)]))
    return "\n".join(lines) if pairs else ""


def head(check: str) -> str:
    """What a check's column is called, with the unit of values that do not show it themselves."""
    unit = words.unit(check)
    return words.label(check) + (f", {unit}" if unit in ("nats", "tokens") else "")


def row(cells: Sequence[str]) -> str:
    """A row of a markdown table."""
    return f"| {' | '.join(cells)} |"


def value(findings: Sequence[Finding], check: str) -> str:
    """A check's value in its unit, or a dash where it was not measured."""
    found = next((f for f in findings if f.check == check), None)
    return words.figure(check, found.value) if found else "-"


def spread(findings: Sequence[Finding], check: str) -> str:
    """The same with its 95 % interval."""
    found = next((f for f in findings if f.check == check), None)
    return value(findings, check) + (f" ({words.interval(found)})" if found and found.interval else "")


def held(study: Study, seeds: Sequence[Seed], model: str) -> str:
    """Whether the rules hold for a model in every seed; else in which they do not."""
    missed = [s.number for s in seeds if decide(s.of(model, study.against), study.rules).verdict != "ship"]
    return "yes" if not missed else f"no ({', '.join(map(str, missed))})"


def commit() -> str:
    """The commit of this tree, and whether it was changed since."""
    changed = git("status", "--porcelain", "src", "recipes", "studies/*.yaml")
    return git("rev-parse", "--short=8", "HEAD") + (" with changes that are not committed" if changed else "")


def git(*arguments: str) -> str:
    """What git says of this tree."""
    asked = ["git", "-C", str(HOME), *arguments]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def page(name: str, study: Study, seeds: Sequence[Seed]) -> str:
    """The study's page: how it was made, by which rules it is judged, and the table."""
    rules = "; ".join(rule.text() for rule in study.rules)
    numbers = ", ".join(str(s.number) for s in seeds)
    tables = "\n\n".join(filter(None, (gather(study, seeds), duels(study, seeds))))
    return (
        f"# Study: {name}\n\n"
        f"`make study NAME={name}` at commit {commit()}, {time.strftime('%Y-%m-%d', time.gmtime())}: "
        f"`{study.recipe}`, seeds {numbers}, each model against `{study.against}`. Intervals are 95 %.\n"
        f"Holds: in every seed, {rules}.\n\n{tables}\n"
    )


def main() -> None:
    """Run the seeds that are asked for, and write the page when all are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a file of this folder, without .yaml")
    parser.add_argument("--seeds", type=int, nargs="*", help="run these seeds only (all of the study's)")
    asked = parser.parse_args()
    study = read_study(HERE / f"{asked.name}.yaml")
    folders = {seed: HOME / "runs" / "studies" / asked.name / f"seed-{seed}" for seed in study.seeds}
    for seed in study.seeds if asked.seeds is None else asked.seeds:
        run_seed(study, seed, folders[seed])
    found = [read_seed(study, seed, folder) for seed, folder in folders.items()]
    done = [seed for seed in found if seed is not None]
    if len(done) < len(folders):
        print(f"{len(done)} of {len(folders)} seeds are done; the table is written when all are")
        return
    text = page(asked.name, study, done)
    (HERE / f"{asked.name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    try:
        main()
    except TruingError as error:
        sys.exit(f"error: {error}")
