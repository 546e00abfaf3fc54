"""The plan of a run: what each stage depends on and whether it is run, all settled, or refused, before it begins."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from truing import door, registry, seals
from truing.disk import is_part, refuse_link, refuse_links
from truing.errors import DataError, UserError, cleaned
from truing.plugins import sources
from truing.policy.files import adapter_files
from truing.recipe.references import Recipe, Ref, StageSpec
from truing.records import digest, source_digest
from truing.schema.option import Option
from truing.schema.signature import Kind, Part

Action: TypeAlias = Literal["reuse", "resume", "run"]
HARMLESS = frozenset({"tokens_per_device", "gradient_checkpointing", "checkpoint_every", "preview"})
"""Options that change no result: an interrupted stage may go on with others, on a smaller machine."""


DECIDING = ("evaluate", "gate")
"""Stages whose result depends on the model in production too."""
MODEL = Option("production", "Model", required=False)


@dataclass(frozen=True)
class Step:
    """One stage of a plan. `parts` is all that it depends on, `key` their hash; `note` is printed before it begins.
    `product` is the identity of what a stage that is reused has left, empty where that is still to be made."""

    spec: StageSpec
    gives: str
    parts: dict[str, Any]
    key: str
    action: Action = "run"
    note: str = ""
    product: str = ""

    @property
    def tie(self) -> str:
        """Hash that a checkpoint is tied to: of all but truing's own source, which may be mended under an interrupted
        stage."""
        return digest({name: part for name, part in self.parts.items() if name != "code"})


def plan(recipe: Recipe, root: Path, *, resume: bool = False, restart: bool = False) -> list[Step]:
    """Every stage with what is to be done. Raises UserError rather than lose a folder or a checkpoint unasked."""
    if resume and restart:
        raise UserError("--resume goes on from what --restart throws away: give one of them")
    keys: dict[str, str] = {}
    products: dict[str, str] = {}
    steps = []
    for spec in recipe.stages:
        part = registry.resolve(spec.do, "stage", recipe.folder)
        parts = parts_of(recipe, spec, part, keys)
        before = {name: products[name] for name in read_by(spec)}
        step = settle(Step(spec, part.gives, parts, digest(parts)), root / spec.name, resume, restart, before)
        if step.action != "reuse":  # a finished stage may be read through a link
            (refuse_links if step.action == "resume" else refuse_link)(root / spec.name)
        keys[spec.name], products[spec.name] = step.key, step.product
        steps.append(step)
    return steps


def settle(step: Step, folder: Path, resume: bool, restart: bool, before: Mapping[str, str]) -> Step:
    """Decide whether a stage is reused, resumed, or run from its beginning. `before` are the products of the stages
    that it reads, empty for those that are still to be made. UserError where what is to be reused is not what was
    left."""
    spec, parts = step.spec, step.parts
    stored = made_by_truing(folder)
    changed = changes(stored.get("parts", {}), parts) if stored else {}
    only_code = list(changed) == ["code"]
    if stored.get("state") == "done" and (not changed or (resume and only_code)):
        note = "unchanged" if not changed else f"{changed['code']}, nothing else has"
        again = replace(step, note=outdated(stored, before) or spoilt(folder, restart))
        if again.note:
            return again
        left = seals.product(stored["outputs"])
        return Step(spec, step.gives, stored["parts"], stored["key"], "reuse", f"{note}, not run again", left)
    reached = checkpoints(folder)
    if stored.get("state") == "done" and changed:
        return replace(step, note=f"{'; '.join(changed.values())}: run again")
    if stored.get("state") in (None, "done") or not reached or restart:
        return step
    problem = f"stage '{spec.name}' was interrupted and has a checkpoint ({folder}/checkpoints/{reached[-1]})"
    if not resume:
        raise UserError(f"{problem}: go on with --resume, or throw it away with --restart")
    others = [sentence for name, sentence in changed.items() if name != "code"]
    if others:
        raise UserError(
            f"{problem}, but cannot go on from it: {'; '.join(others)}.\n"
            "  Put that back, or throw the checkpoint away with --restart."
        )
    seals.check(folder / seals.STAGE, stored, "Throw the checkpoint away with --restart.")
    return Step(spec, step.gives, parts, step.key, "resume", changed.get("code", ""))


def outdated(stored: Mapping[str, Any], before: Mapping[str, str]) -> str:
    """Reason why a finished stage is run again though its options are unchanged; empty where there is none."""
    if seals.SEAL not in stored:
        return "made by an earlier truing, which kept no hashes: run again"
    other = [name for name, product in before.items() if not product or stored.get("read", {}).get(name) != product]
    return f"what stage '{other[0]}' leaves is made anew: run again" if other else ""


def spoilt(folder: Path, restart: bool) -> str:
    """Reason why a finished stage is run again where `restart` allows it: its files are not what it left; empty where
    they are. UserError where it does not."""
    try:
        seals.check_stage(folder)
    except UserError as problem:
        if not restart:
            raise
        return f"{str(problem).partition(chr(10))[0]}: run again"
    return ""


def read_by(spec: StageSpec) -> list[str]:
    """The stages whose results a stage's options name, each once."""
    return list(dict.fromkeys(ref.stage for ref in refs(list(spec.options.values()))))


def refs(value: Any) -> Iterator[Ref]:
    """The references in an option's value."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from refs(item)


def made_by_truing(folder: Path) -> dict[str, Any]:
    """The stage.json of a folder that a run made, empty where there is no folder; UserError for anyone else's."""
    stored = read_json(folder / seals.STAGE)
    parts, outputs = stored.get("parts", {}), stored.get("outputs", {})
    if stored.get("name") == folder.name and "key" in stored and isinstance(parts, dict) and seals.are_outputs(outputs):
        return stored
    if (folder / seals.STAGE).is_file():
        raise UserError(
            f"{folder / seals.STAGE}: is not what a run writes there (truncated, or that of another stage), so nothing "
            "tells what this folder holds; put the file back, or remove the folder to have the stage run again"
        )
    if folder.exists() and not (folder.is_dir() and all(is_part(p, seals.STAGE) for p in folder.iterdir())):
        raise UserError(
            f"{folder}: truing did not make this folder (it has no stage.json) and leaves it alone; "
            "give another --out, or call the stage something else"
        )
    return {}


def checkpoints(folder: Path) -> list[str]:
    """The names of a stage's checkpoints, the newest last."""
    return sorted(path.name for path in folder.glob("checkpoints/step-*"))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Differences between two sets of parts: each name, with a sentence for a person."""
    old, new = cleaned(old), cleaned(new)  # a stage.json holds no keys
    sentences = {"code": "truing's own source has changed"} if old.get("code") != new["code"] else {}
    for name in ("do", "seed"):
        if old.get(name) != new[name]:
            sentences[name] = f"{name} was {old.get(name)}, is {new[name]}"
    was, now = old.get("options", {}), new["options"]
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name):
            sentences[name] = f"{name} was {was.get(name, 'not given')}, is {now.get(name, 'not given')}"
    if old.get("chat_template_kwargs") != new.get("chat_template_kwargs"):
        sentences["chat_template_kwargs"] = "chat_template_kwargs has changed"
    was, now = old.get("inputs", {}), new["inputs"]
    for name in sorted({*was, *now} - {*sentences}):
        if was.get(name) != now.get(name):
            sentences[name] = f"what {name} names has changed"
    return sentences


def parts_of(recipe: Recipe, spec: StageSpec, part: Part, keys: Mapping[str, str]) -> dict[str, Any]:
    """All that a stage depends on: its options, the content of what they name, the seed and the code."""
    inputs = {name: list(contents(part.option(name), value, keys)) for name, value in spec.options.items()}
    stands = {"production": recipe.replaced} if spec.do in DECIDING else {}  # and what they call a model by
    inputs |= {name: list(contents(MODEL, value, keys)) for name, value in stands.items()}
    if is_plug_in(spec.do):
        inputs["do"] = [content_digest(file) for file in sources(Path(part.file))]
    template_values = {"chat_template_kwargs": dict(recipe.chat_template_kwargs)} if recipe.chat_template_kwargs else {}
    return template_values | {
        "do": spec.do,
        "seed": recipe.seed,
        "options": {n: plain(value) for n, value in ({**spec.options, **stands}).items() if n not in HARMLESS},
        "inputs": {name: hashes for name, hashes in inputs.items() if hashes},
        "code": source_digest(),
    }


def plain(value: Any) -> Any:
    """An option's value as JSON has it; a file by its name, for its content is hashed too."""
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return Path(value).name if isinstance(value, str) and os.path.exists(value) else value


def contents(option: Option | None, value: Any, keys: Mapping[str, str]) -> Iterator[str]:
    """The content hash of every stage, file, folder and plug-in that an option names."""
    if option is not None and "ObjectiveSpec" in option.words:
        terms = value if isinstance(value, list | tuple) else [value]
        names = [term if isinstance(term, str) else next(iter(term)) for term in terms]
        yield from (hashed for name in names if is_plug_in(name) for hashed in own_digests(name, "objective"))
    elif isinstance(value, Ref):
        yield keys[value.stage]
    elif isinstance(value, Mapping | list | tuple):
        if isinstance(value, Mapping) and option is not None and "RewardSpec" in option.words:
            yield from (hashed for name in value if is_plug_in(name) for hashed in own_digests(name, "reward"))
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from contents(option, item, keys)
    elif isinstance(value, str) and option is not None and is_place(option, value):
        yield adapter_digest(Path(value)) if adapter_files.is_adapter(Path(value)) else content_digest(Path(value))


def adapter_digest(folder: Path) -> str:
    """A content hash of an adapter and of its base, wherever on this disk the base lies; of a Hub name, of the name."""
    config = adapter_files.read_config(folder)
    bases = adapter_files.bases(folder, config)
    config["base_model_name_or_path"] = sorted({content_digest(Path(b)) if os.path.isdir(b) else b for b in bases})
    return digest([listed(folder, (adapter_files.CONFIG, adapter_files.BASE)), config])


def own_digests(name: str, kind: Kind) -> list[str]:
    """The content hash of a user's own part: of its file, and of the user's modules that this imports."""
    written = Path(registry.resolve(name, kind).file)  # where it is defined, which may be another module than is named
    files = dict.fromkeys([*sources(registry.plug_in(name, kind)[0]), *sources(written)])
    return [content_digest(file) for file in files]


def is_place(option: Option, value: str) -> bool:
    """True if a text is a file's name, or, where the option takes a reference, a folder's."""
    if value in option.choices:  # a choice such as 'gold'
        return False
    return os.path.isfile(value) or ((bool(option.reference) or "RewardSpec" in option.words) and os.path.isdir(value))


def is_plug_in(name: str) -> bool:
    """True if the name of a part is a user's own, not a built-in."""
    return ":" in name or "/" in name


def content_digest(path: Path) -> str:
    """A content hash of a file, or of every file in a folder that is not hidden."""
    if path.is_dir():
        return digest(listed(path))
    door.check_file(path)
    return seals.file_hash(path)


def listed(folder: Path, without: Sequence[str] = ()) -> list[list[str]]:
    """The files of a folder that are not hidden, but for these at its top, each with its content hash."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p.relative_to(folder)))
    names = [p.relative_to(folder).as_posix() for p in files]
    return [[name, content_digest(p)] for name, p in zip(names, files, strict=True) if name not in without]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an empty one where there is none or half of one."""
    try:
        return door.read_object(path, most=door.EVIDENCE_BYTES)
    except DataError:
        return {}
