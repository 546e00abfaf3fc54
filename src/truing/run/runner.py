"""Running a checked recipe: stage after stage, each in its own folder; unchanged stages are not run again."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from truing import __version__, registry, seals
from truing.data import clock
from truing.data.rendering import template_choice
from truing.disk import check_target, locked, remove_whole, write_json
from truing.errors import UserError, listed, redacted
from truing.gate import looks
from truing.recipe.check import Recipe
from truing.records import source_digest
from truing.report import html
from truing.run import agreement, expectations, outcome
from truing.run.console import Show
from truing.run.deciding import foreseen
from truing.run.lesson import NOTHING
from truing.run.overwrite import ALLOWED, allow
from truing.run.plan import Step, plan, read_by, read_json
from truing.run.products import check_products
from truing.run.stage_run import StageRun

LONGEST = 100
"""Most characters of a title that name its folder."""
MODELS = 5
"""Most models of a run that are named at its end."""
EXPECTED = {"missed": 1, "open": 4}
"""Exit codes for an expectation that is not met, and for one that cannot be decided."""
WORST = (0, 4, 1)


def run(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    restart: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> int:
    """Run every stage of `recipe` under `out`; returns the exit code (0 done or ship, 1 hold or an expectation not met,
    4 a gate or an expectation that cannot be decided). Raises UserError or RunFailed with what is on disk left
    resumable.

    A stage whose options, inputs and code are unchanged is not run again. One that was interrupted goes on from its
    last checkpoint with `resume`, and begins anew with `restart`. A finished one that has changed is made anew with
    `overwrite` only. Of the processes that torchrun started, rank 0
    does all; the others train with it. Started again after a failure, they resume.
    """
    from truing.train.distributed import process_group

    again = process_group.restarted()
    resume, restart = resume or again, restart and not again
    with process_group.joined():
        agreement.check(recipe)
        if process_group.rank():
            follow(recipe, out)
            return 0
        return lead(recipe, out, resume, restart, overwrite, Show(quiet))


def lead(recipe: Recipe, out: Path, resume: bool, restart: bool, overwrite: bool, show: Show) -> int:
    """Run as rank 0, which is the only process but where several were started together."""
    from truing.train.distributed import process_group

    with only_writer(out):
        if not overwrite:
            seals.check_version(out, seals.made_by(read_json(out / seals.MANIFEST)))
        steps = plan(recipe, out, resume=resume, restart=restart)
        moment, earlier = moment_of(out), read_json(out / seals.MANIFEST)
        allowed = allow(recipe, steps, out, earlier, overwrite=overwrite, restart=restart)
        planned = [[s.gives, s.parts, s.key, s.action] for s in steps]
        process_group.lead(lambda: json.dumps([moment.isoformat(), planned]))
        look_count = forget(out)
        for text in foreseen(recipe):
            show.say(f"note: {text}")
        record = manifest(recipe, steps, moment) | {"looks": look_count} | ({ALLOWED: allowed} if allowed else {})
        values = template_choice.with_values(recipe.chat_template_kwargs)
        with recorded(record, out), clock.fixed(moment), values:
            for step, row in zip(steps, record["stages"], strict=True):
                carry_out(recipe, step, row, record, out, show)
            gates = [step.spec.name for step in steps if step.gives == "decision"]
            decision = outcome.decision(out, gates) if gates else {}
            if decision:
                write_json(out / seals.DECISION, decision)
                record["decision"] = decision[seals.SEAL]
            record["looks"] = len(looks.read_looks(out / looks.LEDGER))
            troubles = expectations.unmet(recipe.expect, out)
    show.say(f"\nreport: {out / 'report.html'}   ({record['seconds']:.0f} s)")
    models = [out / step.spec.name / "model" for step in steps if step.gives in ("model", "reward")]
    if models:
        show.say(f"model{'s' if len(models) > 1 else ''}: {listed(models, MODELS)}")
    for trouble in troubles:
        show.say(f"expected, and {'not met' if trouble.state == 'missed' else 'undecided'}: {trouble.text}")
    if recipe.expect and not troubles:
        show.say(f"all {len(recipe.expect)} expectations of the recipe are met")
    if len(gates) > 1:
        show.say(f"{decision['verdict']}: the worst decision of {len(gates)} gates")
    codes: list[int] = [decision.get("exit_code", 0), *(EXPECTED[trouble.state] for trouble in troubles)]
    return max(codes, key=WORST.index)


def follow(recipe: Recipe, out: Path) -> None:
    """Run as any other rank: train with rank 0, and wait while it does the rest."""
    from truing.train.distributed import process_group

    moment, planned = json.loads(process_group.lead(str))
    values = template_choice.with_values(recipe.chat_template_kwargs)
    with clock.fixed(clock.read(moment, "rank 0")), values:
        train_along(recipe, out, [Step(spec, *rest) for spec, rest in zip(recipe.stages, planned, strict=True)])


def train_along(recipe: Recipe, out: Path, steps: Sequence[Step]) -> None:
    """Train with rank 0 in every stage that is carried out."""
    from truing.train.distributed import process_group

    for step in steps:
        if step.action == "reuse":
            continue
        process_group.meet()  # its folder is ready
        stage = registry.load(step.spec.do, "stage", recipe.folder)
        if stage.trains:
            work = StageRun(recipe, step.spec.name, step.spec.do, out, step.tie, Show(quiet=True), leads=False)
            stage(work, **step.spec.options)
        process_group.meet()  # it is done


def moment_of(root: Path) -> datetime:
    """The moment that chat templates write in this run's folder: that of its first run, whenever it goes on."""
    path = root / seals.MANIFEST
    there = read_json(path)
    if seals.SEAL in there:
        seals.check(path, there, "Put it back, or remove it: the moment of this run's chat templates is then now.")
    return clock.now() if there.get("moment") is None else clock.read(there["moment"], str(path))


def forget(root: Path) -> int:
    """Remove the decision and report of an earlier run, and return how many looks its gates have had. UserError where a
    file of its name is not a run's, or a link."""
    for name in (seals.MANIFEST, seals.DECISION, looks.LEDGER, "report.html"):
        check_target(root / name)
    there = [root / name for name in (seals.MANIFEST, seals.DECISION, "report.html") if (root / name).exists()]
    earlier = read_json(root / seals.MANIFEST)
    if there and "stages" not in earlier:
        raise UserError(
            f"{there[0]}: no run of truing wrote this file, and a run would write over it; use another --out"
        )
    look_count: int = earlier.get("looks", 0)
    looks.check_kept(root, look_count)
    for path in there[1:]:
        path.unlink()
    return look_count


@contextmanager
def recorded(record: dict[str, Any], root: Path) -> Iterator[None]:
    """Keep manifest.json true while a run works, and write it and the report however the run ends."""
    began = time.monotonic()
    write_manifest(record, root)
    try:
        yield
        record["state"] = "done"
    except BaseException as problem:
        failed = isinstance(problem, Exception)
        record["state"] = "failed" if failed else "stopped"
        record["reason"] = redacted(str(problem) or type(problem).__name__) if failed else "stopped from outside"
        for row in record["stages"]:
            if row["state"] == "running":
                row["state"] = record["state"]
        raise
    finally:
        record["seconds"] = round(time.monotonic() - began, 1)
        ended_early = record["state"] != "done"
        with (
            suppress(OSError, UserError) if ended_early else nullcontext()
        ):  # a full disk must not hide what went wrong
            write_manifest(record, root)
            html.write(root)


def write_manifest(record: dict[str, Any], root: Path) -> None:
    """Write manifest.json with its seal."""
    write_json(root / seals.MANIFEST, seals.sealed(record))


def carry_out(recipe: Recipe, step: Step, row: dict[str, Any], record: dict[str, Any], root: Path, show: Show) -> None:
    """Carry out one step of the plan, with its row of the manifest kept up to date."""
    from truing.train.distributed import process_group

    work = StageRun(recipe=recipe, name=step.spec.name, do=step.spec.do, root=root, key=step.tie, show=show)
    heading = f"{work.name} ({work.do})"
    if step.action == "reuse":
        stored = seals.check_stage(work.folder)
        show.say(f"{heading}: {step.note}")
        summary = read_json(work.folder / "summary.json")
        show.say("".join(f"{line}\n" for line in summary.get("shown", [])), end="")
        for note in summary.get("notes", []):
            if clock.MARK in str(note) or str(note).startswith(NOTHING):  # these hold for what is reused too
                show.say(f"  {note}")
        row |= {"state": "reused", "seconds": stored.get("seconds"), seals.SEAL: stored[seals.SEAL]}
        record["data"] |= stored.get("data", {})
        return
    read = products(step, root)
    facts = {"name": work.name, "do": work.do, "key": step.key, "parts": step.parts, "read": read}
    if step.action == "run":
        remove_whole(work.folder)
    else:
        check_read(work.folder, read)
    row["state"] = "running"
    write_manifest(record, root)
    work.write(seals.STAGE, seals.sealed(facts | {"state": "running"}))
    show.say(heading + (f": {step.note}" if step.note else ""))
    began = time.monotonic()
    stage = registry.load(work.do, "stage", recipe.folder)
    process_group.meet()
    with nullcontext() if stage.trains else process_group.alone():
        stage(work, **step.spec.options)
    check_products(step.gives, stage.parts, work.folder, stage.place or f"stage {work.name}")
    seconds = round(time.monotonic() - began, 1)
    shutil.rmtree(work.folder / "checkpoints", ignore_errors=True)
    ended = {"state": "done", "gives": step.gives, "seconds": seconds, "data": work.read}
    stored = seals.sealed(facts | ended | {"outputs": seals.outputs_of(work.folder)})
    work.write(seals.STAGE, stored)
    row |= {"state": "done", "seconds": seconds, seals.SEAL: stored[seals.SEAL]}
    record["data"] |= work.read
    process_group.meet()


def products(step: Step, root: Path) -> dict[str, str]:
    """The identity of what each stage that a stage reads has left; UserError where it is no longer there as it was."""
    return {name: seals.product(seals.check_stage(root / name)["outputs"]) for name in read_by(step.spec)}


def check_read(folder: Path, now: dict[str, str]) -> None:
    """UserError where an interrupted stage was begun with other results of the stages before it than those of now."""
    stored = seals.read_object(folder / seals.STAGE)
    other = [name for name, product in now.items() if stored.get("read", {}).get(name) != product]
    if other:
        raise UserError(
            f"{folder}: this stage was begun with another result of stage '{other[0]}' than the one that is there now; "
            "put that back, or throw the checkpoint away with --restart"
        )


def manifest(recipe: Recipe, steps: list[Step], moment: datetime) -> dict[str, Any]:
    """Facts of a run: recipe, versions, machine, and the `moment` that chat templates write. The environment is not
    written, so no secret can be."""
    names = ("torch", "transformers", "numpy")
    import torch

    rows = [{"name": s.spec.name, "do": s.spec.do, "key": s.key, "state": "pending", "seconds": None} for s in steps]
    return {
        "title": recipe.title,
        "recipe": recipe.text,
        "overrides": list(recipe.overrides),
        "recipe_path": str(recipe.path or ""),
        "seed": recipe.seed,
        "state": "running",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "moment": moment.isoformat(),
        "seconds": 0.0,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in names}
        | {"truing": __version__},
        "code": source_digest(),
        "data": {},
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "stages": rows,
    }


@contextmanager
def only_writer(root: Path) -> Iterator[None]:
    """Refuse a second run in the same folder; the lock goes with the process, however it ends."""
    with ExitStack() as held:
        try:
            root.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(root / ".lock", wait=False))
        except BlockingIOError as error:
            raise UserError(f"{root}: another run is writing here; wait for it, or give another --out") from error
        except OSError as error:
            raise UserError(f"{root}: cannot be the run's folder ({error.strerror}); give another --out") from error
        yield


def folder_name(title: str) -> str:
    """A title as a folder name.

    >>> folder_name("HH, harmless: DPO")
    'hh-harmless-dpo'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower())[:LONGEST].strip("-") or "run"
