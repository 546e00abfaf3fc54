"""A model's card: what it is, what it was made from, and what was measured of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from truing import door
from truing.errors import DataError, redacted, visible
from truing.records import Finding
from truing.report.usage import PIPELINE, Kind, usage
from truing.report.words import figure, interval, label, unit
from truing.yaml_text import reading, writing
from truing.yaml_text.reading import YamlError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def model_card(
    *,
    title: str,
    base: str,
    method: str,
    data: Mapping[str, str] | None = None,
    figures: Mapping[str, float | str] | None = None,
    findings: Sequence[Finding] = (),
    licence: str = "",
    notes: Sequence[str] = (),
    kind: Kind = "language",
    adapter: bool = False,
    base_model: str = "",
    datasets: Sequence[str] = (),
) -> str:
    """The card of a trained model as Markdown, with the front matter that the Hugging Face Hub reads.

    `data` maps the name of each data set to the hash of its content, `figures` names training figures. `base_model`
    is the model of the Hub that it all began with, or `base` if that is one; of `datasets` those of the Hub are named.
    No text of a caller can add a key to the front matter, a tag or a table column.

    >>> print(model_card(title="direct", base="world:desk/small", method="dpo").splitlines()[-1])
    Licence: unknown. The licence of the base model and of the data may bind this model; check them before sharing it.
    """
    lines = [f"# {_plain(title)}", ""]
    lines.append(f"Trained with truing: {_plain(method)}, starting from {_plain(base)}.")
    lines += ["", "## Use", "", *usage(kind, adapter)]
    if findings:
        lines += ["", "## Measured", "", "| check | model | against | slice | value | 95 % interval | n |"]
        lines += ["|---|---|---|---|---:|---:|---:|", *map(_row, findings)]
        shown = dict.fromkeys(f"{label(f.check)}: {f.evidence}" for f in findings if f.evidence)
        shown |= dict.fromkeys(f"{label(f.check)} decides nothing: {f.reservation}" for f in findings if f.reservation)
        lines += ["", *(f"- {_plain(text)}" for text in shown)]
    if figures:
        lines += ["", "## Training", "", "| figure | value |", "|---|---:|"]
        lines += [
            f"| {_plain(label(k))} | {_plain(f'{v:.6g}' if isinstance(v, float) else str(v))} |"
            for k, v in figures.items()
        ]
    if data:
        lines += ["", "## Data", "", "| data | content hash |", "|---|---|"]
        lines += [f"| {_plain(name)} | {_plain(content)} |" for name, content in data.items()]
    if notes:
        lines += ["", "## Notes", "", *(f"- {_plain(note)}" for note in notes)]
    lines += ["", "## Licence", "", _licence(licence)]
    facts: dict[str, object] = {
        "library_name": "peft" if adapter else "transformers",
        "license": licence or "unknown",
        "pipeline_tag": PIPELINE[kind],
        "tags": ["truing", method],
    }
    # The Hub follows these as links, so only names of its own form may stand there.
    named = next((name for name in (base_model, base) if HUB_NAME.fullmatch(name)), "")
    facts |= {"base_model": named} if named else {}
    on_hub = sorted({name for name in datasets if HUB_NAME.fullmatch(name)})
    facts |= {"datasets": on_hub} if on_hub else {}
    return _front(facts) + "\n".join(lines) + "\n"


def named_on_card(folder: Path) -> tuple[str, list[str]]:
    """The base model and the data sets of the Hub that the card in a model's folder names, where truing wrote it.

    Nothing for any other card: what such a folder was made from is not what it is itself.
    Text of a card is somebody's: what is not of the form of a name of the Hub is not passed on.
    """
    try:
        text = door.read_text(folder / "README.md").split("---\n")[1]
        front = reading.read(text, "a card").plain
        if not isinstance(front, dict) or "truing" not in front.get("tags", []):
            return "", []
        base, data = front.get("base_model", ""), front.get("datasets", [])
    except (DataError, IndexError, TypeError, YamlError):
        return "", []
    names = [name for name in data if isinstance(name, str)] if isinstance(data, list) else []
    return base if isinstance(base, str) else "", names


def _front(facts: Mapping[str, object]) -> str:
    clean = writing.write({k: _visible(v) for k, v in facts.items()}, ascii_only=True)
    return f"---\n{clean}---\n\n"


def _visible(x: object) -> object:
    return [visible(redacted(str(y))) for y in x] if isinstance(x, list) else visible(redacted(str(x)))


def _row(f: Finding) -> str:
    kind = {"points": " points", "tokens": " tokens", "nats": " nats"}.get(unit(f.check), "")
    n = f"{f.n:,}" if f.n else ""
    cells = [label(f.check), f.model, f.against, f.slice, figure(f.check, f.value) + kind, interval(f), n]
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _licence(licence: str) -> str:
    stated = f"Licence: {_plain(licence)}." if licence else "Licence: unknown."
    return f"{stated} The licence of the base model and of the data may bind this model; check them before sharing it."


def _plain(text: str) -> str:
    """One line of Markdown that means only its own letters."""
    line = re.sub(r"\s+", " ", visible(redacted(text))).strip()
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|!#$~])", r"\\\1", line)
