"""Runs a checked recipe: stage after stage, each in its own folder; unchanged stages are not run again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import truing
from truing import registry
from truing.errors import UserError
from truing.pipeline.context import StageRun, write_json
from truing.pipeline.recipe import Recipe, Ref, StageSpec
from truing.pipeline.show import Show
from truing.report import html
from truing.types import digest


def run(recipe: Recipe, out: Path, *, resume: bool = False, quiet: bool = False) -> int:
    """Run every stage of `recipe` under `out`; returns the exit code (0 done or ship, 1 hold or an expectation not met,
    4 a gate that cannot decide). Raises UserError or RunFailed with what is on disk left resumable.

    A stage whose options, inputs and code are unchanged is not run again. One that was interrupted goes on from its
    last checkpoint with `resume`, and begins anew without.
    """
    show = Show(quiet)
    root = out
    root.mkdir(parents=True, exist_ok=True)
    with only_writer(root):
        started = time.time()
        record: dict[str, Any] = manifest(recipe)
        keys: dict[str, str] = {}
        for spec in recipe.stages:
            record["stages"].append(_stage(recipe, spec, root, keys, resume, show))
            record["seconds"] = round(time.time() - started, 1)
            write_json(root / "manifest.json", record)
        code = gate_code(root, recipe)
        missed = unmet(recipe, root)
        path = html.write(root)
    show.say(f"\nreport: {path}   ({record['seconds']:.0f} s)")
    for line in missed:
        show.say(f"expected, and not met: {line}")
    if recipe.expect and not missed:
        show.say(f"all {len(recipe.expect)} expectations of the recipe are met")
    return code or (1 if missed else 0)


def _stage(
    recipe: Recipe, spec: StageSpec, root: Path, keys: dict[str, str], resume: bool, show: Show
) -> dict[str, Any]:
    part = registry.resolve(spec.do, "stage", work_folder(recipe))
    key = keys[spec.name] = stage_key(recipe, spec, keys)
    work = StageRun(recipe=recipe, name=spec.name, do=spec.do, root=root, key=key, show=show)
    done = read_json(work.folder / "stage.json")
    row = {"name": spec.name, "do": spec.do, "key": key}
    if done.get("key") == key and done.get("state") == "done":
        show.say(f"{spec.name} ({spec.do}): unchanged, not run again")
        return row | {"state": "reused", "seconds": done["seconds"]}
    if work.folder.exists() and not (resume and done.get("key") == key):
        shutil.rmtree(work.folder)
    work.folder.mkdir(exist_ok=True)
    work.write("stage.json", row | {"state": "running"})
    show.say(f"{spec.name} ({spec.do})")
    began = time.monotonic()
    registry.load(spec.do, "stage", work_folder(recipe))(work, **spec.options)
    seconds = round(time.monotonic() - began, 1)
    shutil.rmtree(work.folder / "checkpoints", ignore_errors=True)
    work.write("stage.json", row | {"state": "done", "gives": part.gives, "seconds": seconds})
    return row | {"state": "done", "seconds": seconds}


def work_folder(recipe: Recipe) -> Path | None:
    """Where a recipe's own files (plug-ins) are looked for first: beside it."""
    return Path(recipe.path).parent if recipe.path else None


def stage_key(recipe: Recipe, spec: StageSpec, keys: dict[str, str]) -> str:
    """A content hash of all that a stage depends on: its options, what it reads, the seed and the code."""
    return digest([spec.do, recipe.seed, code_digest(), _content(spec.options, keys)])


def _content(value: Any, keys: dict[str, str]) -> Any:
    if isinstance(value, Ref):
        return [keys[value.stage], value.part]
    if isinstance(value, dict):
        return {k: _content(v, keys) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_content(v, keys) for v in value]
    if isinstance(value, str) and Path(value).is_file():
        return [value, hashlib.sha256(Path(value).read_bytes()).hexdigest()]
    return value


def code_digest() -> str:
    """A content hash of the package's own source, so that a changed stage is run again."""
    folder = Path(truing.__file__).parent
    out = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        out.update(path.read_bytes())
    return out.hexdigest()[:16]


def gate_code(root: Path, recipe: Recipe) -> int:
    """The exit code of the recipe's gate, or 0 where it has none."""
    if not any(spec.do == "gate" for spec in recipe.stages):
        return 0
    return {"ship": 0, "hold": 1, "undecided": 4}[read_json(root / "decision.json")["verdict"]]


def unmet(recipe: Recipe, root: Path) -> list[str]:
    """The lines of the recipe's `expect` block that did not come true: `stage.model.check: [low, high]`."""
    missed = []
    for path, (low, high) in recipe.expect.items():
        stage, model, check = path.split(".")
        found = [
            f
            for f in read_json(root / stage / "findings.json")["findings"]
            if (f["model"], f["check"]) == (model, check)
        ]
        if not found:
            missed.append(f"{path} was not measured")
        elif not low <= found[0]["value"] <= high:
            missed.append(f"{path} is {found[0]['value']:.3f}, not within [{low}, {high}]")
    return missed


def manifest(recipe: Recipe) -> dict[str, Any]:
    """What a run was: recipe, versions, machine. The environment is not written, so no secret can be."""
    names = ("truing", "torch", "transformers", "numpy")
    import torch

    return {
        "title": recipe.title,
        "recipe": recipe.text,
        "recipe_path": str(recipe.path or ""),
        "seed": recipe.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": 0.0,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
        "code": code_digest(),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "stages": [],
    }


@contextmanager
def only_writer(root: Path) -> Iterator[None]:
    """Refuse a second run in the same folder; the lock goes with the process, however it ends."""
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{root}: another run is writing here; wait for it, or give another --out") from error
        yield


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an empty one where there is none or half of one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def folder_name(title: str) -> str:
    """A title as a folder name.

    >>> folder_name("HH, harmless: DPO")
    'hh-harmless-dpo'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "run"
