"""Ways to spoil the evidence of a run: each a function of the run's folder and of another run's, with what is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from truing import seals

Spoil = Callable[[Path, Path], None]
Case = tuple[str, Spoil, str]
CHANGED, GONE, ADDED = "was changed after it was written", "is missing", "was added after the folder was finished"
MODELS = ("warm", "rm", "direct")


def edit(name: str, change: Callable[[Any], None], reseal: bool = False) -> Spoil:
    """Change a JSON file of the run; with `reseal` its own seal is made anew."""

    def spoil(run: Path, _: Path) -> None:
        body = json.loads((run / name).read_text(encoding="utf-8"))
        change(body)
        (run / name).write_text(json.dumps(seals.sealed(body) if reseal else body), encoding="utf-8")

    return spoil


def text(name: str, change: Callable[[str], str]) -> Spoil:
    """Change a file of the run as text."""

    def spoil(run: Path, _: Path) -> None:
        before = (run / name).read_text(encoding="utf-8")
        after = change(before)
        assert after != before
        (run / name).write_text(after, encoding="utf-8")

    return spoil


def flip(name: str) -> Spoil:
    """Turn the last bit of a file; its size and its times stay."""

    def spoil(run: Path, _: Path) -> None:
        import os

        times, raw = (run / name).stat(), bytearray((run / name).read_bytes())
        raw[-1] ^= 1
        (run / name).write_bytes(raw)
        os.utime(run / name, ns=(times.st_atime_ns, times.st_mtime_ns))

    return spoil


def cut(name: str) -> Spoil:
    """Leave out the end of a file."""

    def spoil(run: Path, _: Path) -> None:
        (run / name).write_bytes((run / name).read_bytes()[:-20])

    return spoil


def remove(name: str) -> Spoil:
    """Remove a file or a folder."""
    return lambda run, _: shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()


def add(name: str) -> Spoil:
    """Add a file."""
    return lambda run, _: (run / name).write_text("{}") and None


def copy(name: str, to: str) -> Spoil:
    """Put a file of this run in the place of another."""
    return lambda run, _: shutil.copyfile(run / name, run / to) and None


def replay(name: str) -> Spoil:
    """Put another run's file or folder in the place of this run's."""

    def spoil(run: Path, other: Path) -> None:
        if (other / name).is_dir():
            shutil.rmtree(run / name)
            shutil.copytree(other / name, run / name)
        else:
            shutil.copyfile(other / name, run / name)

    return spoil


def both(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(run: Path, other: Path) -> None:
        for each in spoils:
            each(run, other)

    return spoil


def first(**fields: Any) -> Callable[[Any], None]:
    """Other values of the first finding."""
    return lambda body: body["findings"][0].update(fields)


EDITS: dict[str, Callable[[Any], None]] = {
    "value": first(value=0.99),
    "interval": first(interval=[0.98, 1.0]),
    "no interval": first(interval=None),
    "n": first(n=5000),
    "check": first(check="win_rate"),
    "model": first(model="other"),
    "against": first(against="base"),
    "slice": first(slice="hard"),
    "verdict": first(verdict="better"),
    "bound": first(bound=-1.0),
    "evidence": first(evidence="judged by people"),
    "reservation": first(reservation="the judge is weak"),
    "unknown key": first(colour="green"),
    "removed": lambda body: body["findings"].pop(),
    "emptied": lambda body: body["findings"].clear(),
    "doubled": lambda body: body["findings"].append(body["findings"][0]),
    "about models": lambda body: body["about"]["models"].update({"rm/model": "0" * 64}),
    "about judge": lambda body: body["about"].update(judge={"judge": "gold"}),
    "about recipe": lambda body: body["about"].update(recipe="another"),
    "about nothing": lambda body: body.pop("about"),
    "seal": lambda body: body.update(seal="0" * 64),
    "no seal": lambda body: body.pop("seal"),
}


def of_findings() -> Iterator[Case]:
    """Findings edited, swapped and replayed."""
    for name, change in EDITS.items():
        yield f"exam, {name}", edit("exam/findings.json", change), CHANGED
    for name in ("value", "model", "removed", "no seal"):
        yield f"rm, {name}", edit("rm/findings.json", EDITS[name]), CHANGED
    twice = text("exam/findings.json", lambda t: t.rstrip()[:-1] + ', "findings": []}')
    yield "findings twice", twice, CHANGED
    yield "NaN", edit("exam/findings.json", first(value=float("nan"))), CHANGED
    yield "spaces", text("exam/findings.json", lambda t: t + " "), CHANGED
    yield "swapped stages", copy("rm/findings.json", "exam/findings.json"), CHANGED
    yield "findings of another run", replay("exam/findings.json"), CHANGED
    yield "no findings", remove("exam/findings.json"), GONE
    yield "cut", cut("exam/findings.json"), CHANGED
    yield "examples", edit("exam/examples.json", lambda body: body.pop()), CHANGED


def of_hashes() -> Iterator[Case]:
    """Hashes of which some were made anew, and some were not."""
    loud = edit("exam/findings.json", EDITS["value"], reseal=True)
    yield "findings resealed", loud, CHANGED
    renewed = edit("exam/stage.json", lambda body: body["outputs"].update({"findings.json": [1, "0" * 64]}))
    yield "its hash edited", renewed, "exam/stage.json: was changed"
    yield "its hash removed", edit("exam/stage.json", lambda body: body["outputs"].clear()), "exam/stage.json: was"

    def listed(run: Path, _: Path) -> None:
        path = run / "exam" / seals.STAGE
        body = json.loads(path.read_text(encoding="utf-8")) | {"outputs": seals.outputs_of(path.parent)}
        path.write_text(json.dumps(seals.sealed(body)), encoding="utf-8")

    yield "stage resealed too", both(loud, listed), "is not the one that this run left"


def of_weights() -> Iterator[Case]:
    """Models spoilt, swapped and replayed."""
    for stage in MODELS:
        weights = f"{stage}/model/model.safetensors"
        yield f"{stage}, a bit", flip(weights), CHANGED
        yield f"{stage}, cut", cut(weights), CHANGED
        yield f"{stage}, no weights", remove(weights), GONE
        yield f"{stage}, no model", remove(f"{stage}/model"), GONE
        yield f"{stage}, of another run", replay(weights), CHANGED
        yield f"{stage}, model of another run", replay(f"{stage}/model"), CHANGED
        yield f"{stage}, config", edit(f"{stage}/model/config.json", lambda c: c.update(rms_norm_eps=0.1)), CHANGED
        yield f"{stage}, tokenizer", flip(f"{stage}/model/tokenizer.json"), CHANGED
        yield f"{stage}, template", text(f"{stage}/model/chat_template.jinja", lambda t: t + "Say yes."), CHANGED
        yield f"{stage}, another file", add(f"{stage}/model/adapter_config.json"), ADDED
    yield "another model", copy("warm/model/model.safetensors", "direct/model/model.safetensors"), CHANGED

    def base(run: Path, _: Path) -> None:
        (folder,) = run.glob("base-*")
        flip("model.safetensors")(folder, folder)

    yield "the base's weights", base, "was measured on other weights"


def of_stages() -> Iterator[Case]:
    """What a stage says of itself."""
    path = "exam/stage.json"
    yield "key", edit(path, lambda body: body.update(key="0" * 16)), "exam/stage.json: was changed"
    yield "options", edit(path, lambda body: body["parts"]["options"].update(samples=9)), "exam/stage.json: was changed"
    yield "read", edit(path, lambda body: body["read"].update(direct="0" * 64)), "exam/stage.json: was changed"
    yield "stage, no seal", edit(path, lambda body: body.pop("seal")), "exam/stage.json: has no seal"
    yield "no stage.json", remove(path), "exam/stage.json: cannot be read"
    yield "half a stage.json", cut(path), "exam/stage.json: cannot be read"
    yield "another stage's", copy("rm/stage.json", path), "is that of another stage, 'rm'"
    yield "not finished", edit(path, lambda body: body.update(state="running"), reseal=True), "was not finished"
    yield "stage of another run", replay("exam"), "comes from another run"
    yield "gate of another run", replay("release"), "comes from another run"
    yield "split", edit("data/split.json", lambda body: body["eval"].append(1)), CHANGED
    yield "decision of the gate", text("release/decision.json", lambda t: t.replace('"ship"', '"hold"')), CHANGED
    yield "metrics", text("direct/metrics.jsonl", lambda t: t.replace('"loss": ', '"loss": -')), CHANGED
    yield "a rival stage", copy("rm/findings.json", "direct/findings.json"), ADDED


def row(name: str, **fields: Any) -> Callable[[Any], None]:
    """Other values in a stage's row of the manifest."""
    return lambda body: next(r for r in body["stages"] if r["name"] == name).update(fields)


def of_runs() -> Iterator[Case]:
    """What a run says of itself, and runs that are not done."""
    path = "manifest.json"
    for state in ("failed", "stopped", "running"):
        yield f"run {state}", edit(path, lambda b, s=state: b.update(state=s), reseal=True), f"it is '{state}'"
        spoil = edit(path, row("exam", state=state), reseal=True)
        yield f"exam {state}", spoil, f"stage 'exam' of this run is not done, it is '{state}'"
    pending = edit(path, row("exam", state="pending"), reseal=True)
    yield "exam pending", pending, "stage 'exam' of this run is not done, it is 'pending'"
    unsaid = edit(path, lambda b: b["stages"].remove(next(r for r in b["stages"] if r["name"] == "exam")))
    yield "exam left out", unsaid, "manifest.json: was changed"
    yield "state", edit(path, lambda b: b.update(state="done", reason="")), "manifest.json: was changed"
    yield "seed", edit(path, lambda b: b.update(seed=7)), "manifest.json: was changed"
    yield "recipe", edit(path, lambda b: b.update(recipe="title: other")), "manifest.json: was changed"
    yield "row's seal", edit(path, row("exam", seal="0" * 64)), "manifest.json: was changed"
    yield "manifest, no seal", edit(path, lambda b: b.pop("seal")), "manifest.json: has no seal"
    yield "no manifest", remove(path), "manifest.json: cannot be read"
    yield "half a manifest", cut(path), "manifest.json: is not JSON"
    yield "manifest of another run", replay(path), "comes from another run"
    yield "decision", edit("decision.json", lambda b: b.update(verdict="ship", colour=1)), "decision.json: was changed"
    yield "decision, rules", edit("decision.json", lambda b: b["rules"].clear()), "decision.json: was changed"
    yield "decision, resealed", edit("decision.json", lambda b: b["rules"].clear(), reseal=True), "not the decision"
    yield "decision of another run", replay("decision.json"), "is not the decision that this run came to"
    yield "no decision", remove("decision.json"), "decision.json: cannot be read"


CASES = [*of_findings(), *of_hashes(), *of_weights(), *of_stages(), *of_runs()]

FINDING = {"check": "kl_to_reference", "model": "direct", "value": 0.5, "interval": [0.4, 0.6], "n": 20}
LOOSE: list[tuple[str, str, str]] = [
    ("findings twice", '{"findings": [], "findings": []}', "the key 'findings' stands twice"),
    ("a key twice", '{"findings": [{"check": "a", "model": "m", "value": 1, "value": 2}]}', "'value' stands twice"),
    ("cut", json.dumps({"findings": [FINDING]})[:-4], "is not JSON"),
    ("a list", json.dumps([FINDING]), "no list under 'findings'"),
    ("no findings", json.dumps({"results": [FINDING]}), "no list under 'findings'"),
    ("a key", json.dumps({"findings": [FINDING], "passed": True}), "unknown key 'passed'"),
    ("a seal", json.dumps({"findings": [FINDING], "seal": "0" * 64}), "was changed after it was written"),
    ("an empty seal", json.dumps({"findings": [FINDING], "seal": None}), "was changed after it was written"),
    ("about without a seal", json.dumps({"findings": [FINDING], "about": {"models": {}}}), "has no seal"),
    ("a decision without a seal", json.dumps({"findings": [FINDING], "verdict": "ship"}), "has no seal"),
    (
        "two things",
        json.dumps({"findings": [FINDING, FINDING | {"value": 0.55}]}),
        "has two values for kl_to_reference",
    ),
]
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": ""}, "names no model"),
    "null model": ({"model": None}, "names no model"),
    "model a number": ({"model": 3}, "model must be text"),
    "against a number": ({"against": 0}, "against must be text"),
    "slice a list": ({"slice": []}, "slice must be text"),
    "evidence false": ({"evidence": False}, "evidence must be text"),
    "misspelt key": ({"intervall": [0.4, 0.6]}, "unknown key 'intervall'. Did you mean 'interval'?"),
    "NaN": ({"value": float("nan")}, "NaN is not a number"),
    "infinity": ({"interval": [0.4, float("inf")]}, "Infinity is not a number"),
    "value true": ({"value": True}, "value must be a number"),
    "value text": ({"value": "0.5"}, "value must be a number"),
    "n a fraction": ({"n": 20.0}, "n must be a whole number"),
    "n negative": ({"n": -20}, "n must be a whole number"),
    "n true": ({"n": True}, "n must be a whole number"),
    "n empty": ({"n": ""}, "n must be a whole number"),
    "n null": ({"n": None}, "n must be a whole number"),
    "bound text": ({"bound": "0"}, "bound must be a number"),
    "interval turned": ({"interval": [0.6, 0.4]}, "the wrong way round"),
    "interval of three": ({"interval": [0.4, 0.5, 0.6]}, "interval must be"),
}
LOOSE += [(name, json.dumps({"findings": [FINDING | fields]}), reason) for name, (fields, reason) in ROWS.items()]
