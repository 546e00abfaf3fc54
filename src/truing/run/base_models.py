"""Base models: a name as it is, one of the world's (pretrained once and cached), or a new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from truing import caches, world
from truing.data.likeness import fingerprint
from truing.data.rendering.render import Renderer
from truing.data.trees import build_trees
from truing.policy import fresh, heads
from truing.policy.files import lineage
from truing.policy.gguf import dequantised
from truing.policy.load import load
from truing.records import Records, digest, source_digest
from truing.run.console import Show
from truing.train.fit import fit
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.optim import Optim
from truing.train.record.metrics import Record
from truing.train.source import DataSource
from truing.world import tiny


def resolve(value: Any, *, root: Path, seed: int, records: Callable[..., Records], show: Show) -> str:
    """The folder or Hub name behind the value of `base` or `model` in a recipe. A new model is made in the run's `root`
    from its `seed`, and `records` reads the text that its tokenizer is trained on."""
    if isinstance(value, dict):
        return str(new_model(value, root, seed, records, show))
    return named(value, show)


def named(name: str, show: Show) -> str:
    """The folder or Hub name behind a model's name; a world model is pretrained on first use, and a GGUF file
    dequantised."""
    if name.startswith("world:"):
        return str(world_model(tiny.size(name), show))
    if name.endswith(".gguf"):
        return str(dequantised(Path(name), caches.cache_folder(), say=show.say))
    return name


def new_model(spec: dict[str, Any], root: Path, seed: int, records: Callable[..., Records], show: Show) -> Path:
    """A fresh model with a tokenizer trained on the text that `spec` names, made once for the run."""
    text = records(spec["text"], on_bad_row="drop", columns=spec.get("columns"))
    size = {k: v for k, v in spec.items() if k not in ("text", "columns")}
    folder = root / f"base-{digest([size, text.digest, seed, source_digest('policy', 'streams.py')])}"

    def make(part: Path) -> None:
        fresh.make(size, text.texts(), part, seed=seed)
        lineage.write(part, lineage.Lineage())  # its weights are random: they learned nothing yet
        show.say(f"  made a new model from the text of {text.name}")

    return caches.cached(folder, make, show.say)


def world_model(size: str, show: Show) -> Path:
    """The world's base model of this size, pretrained on the world's text with the one loop and cached by content."""
    folder = caches.cache_folder() / f"desk-{size}-{tiny.cache_key(size)}"

    def make(part: Path) -> None:
        show.say(f"  pretraining world:desk/{size} on the world's text (once; cached in {folder.parent})")
        pretrain(size, part, show)

    return caches.cached(folder, make, show.say)


def pretrain(size: str, folder: Path, show: Show) -> None:
    """Make a model of this size and teach it the world's text."""
    records = world.records(tiny.text_name(size))
    fresh.make(tiny.SIZES[size], records.texts(), folder, positions=tiny.POSITIONS)
    policy = load(str(folder))
    dataset = build_trees(records, Renderer(policy.tokenizer), max_length=tiny.TRAINING.max_length, shape="single")
    from truing.objectives import nll

    source = DataSource(dataset.trees, tiny.TRAINING)
    show.begin()
    record = Record(folder / "training", show=show.step)
    fit(policy, source, WeightedObjectives([Term(nll, {})]), Optim(policy.model, tiny.TRAINING, source.steps), record)
    heads.save(policy, folder)
    text = lineage.Learned("", "world", f"desk/{size}", records.name, False, fingerprint(records))
    lineage.write(folder, lineage.Lineage((text,)))
