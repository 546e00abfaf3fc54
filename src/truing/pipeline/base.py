"""Where a base model comes from: a name as it is, one of the world's (pretrained once and cached), or a new one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from truing import world
from truing.data.render import Renderer
from truing.data.trees import plant
from truing.errors import UserError, unknown
from truing.pipeline.context import StageRun, cache_folder
from truing.pipeline.show import Show
from truing.policy import fresh, heads
from truing.policy.load import load
from truing.train.fit import fit
from truing.train.optim import Optim
from truing.train.record import Record
from truing.train.source import DataSource
from truing.train.terms import Sum, Term
from truing.types import digest
from truing.world import tiny

MODEL_PREFIX = "world:desk/"


def resolve(value: Any, run: StageRun) -> str:
    """The folder or Hub name behind what a recipe says under `base` or `model`."""
    if isinstance(value, dict):
        return str(new_model(value, run))
    return named(value, run.show)


def named(name: str, show: Show) -> str:
    """The folder or Hub name behind a model's name; a world model is pretrained on first use."""
    if name.startswith("world:"):
        return str(world_model(name.removeprefix(MODEL_PREFIX), show))
    return name


def new_model(spec: dict[str, Any], run: StageRun) -> Path:
    """A fresh model with a tokenizer trained on the text that `spec` names, made once for the run."""
    records = run.records(spec["text"], on_bad_row="drop")
    folder = run.root / f"base-{digest([spec, records.digest, run.seed])}"
    if not (folder / "config.json").exists():
        part = folder.with_name("." + folder.name)
        shutil.rmtree(part, ignore_errors=True)
        fresh.make({k: v for k, v in spec.items() if k != "text"}, records.texts(), part, seed=run.seed)
        part.rename(folder)
        run.show.say(f"  made a new model from the text of {records.name}")
    return folder


def world_model(size: str, show: Show) -> Path:
    """The world's base model of this size, pretrained on the world's text with the one loop and cached by content."""
    if size not in tiny.SIZES:
        raise UserError(unknown("world model", size, [*tiny.SIZES]))
    folder = cache_folder() / f"desk-{size}-{tiny.cache_key(size)}"
    if (folder / "config.json").exists():
        return folder
    part = folder.with_name("." + folder.name)
    shutil.rmtree(part, ignore_errors=True)
    records = world.records(tiny.text_name(size))
    show.say(f"  pretraining world:desk/{size} on the world's text (once; cached in {folder.parent})")
    fresh.make(tiny.SIZES[size], records.texts(), part, positions=1024)
    policy = load(str(part))
    planted = plant(records, Renderer(policy.tokenizer), max_length=tiny.TRAINING.max_length, shape="single")
    from truing.objectives import nll

    source = DataSource(planted.trees, tiny.TRAINING)
    show.begin()
    record = Record(part / "training", show=show.step)
    fit(policy, source, Sum([Term(nll, {})]), Optim(policy.model, tiny.TRAINING, source.steps), record)
    heads.save(policy, part)
    part.rename(folder)
    return folder
