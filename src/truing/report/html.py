"""One page for a run: what came out, how sure we are, how it was made. One file, no scripts, no outside links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from truing.disk import write_text
from truing.errors import redacted, visible
from truing.records import Finding
from truing.report import brief, curves, figures, rounds, words
from truing.report.distance import COLUMNS
from truing.report.folder import RunPieces, StagePieces, as_number, read_run

_EXAMPLES, _LETTERS, _ROWS = 6, 1500, 20  # shown at most: examples, characters of a response, odd rows of a problem
_SPREAD = {"score": "score_deviation"}  # what is drawn around a curve
_BANNERS = {
    "ship": ("Ship", "Every condition of the gate is met."),
    "hold": ("Hold", "At least one condition of the gate is not met."),
    "undecided": ("Undecided", "The evidence is missing or too little to decide."),
}


def write(run_folder: Path, *, out: Path | None = None) -> Path:
    """Write the report of `run_folder` as one HTML file (`report.html` inside it unless `out` is given)."""
    path = out or run_folder / "report.html"
    text = render(read_run(run_folder))
    return write_text(path, text)


def render(run: RunPieces) -> str:
    """The page as text. Whatever came from the run is escaped, and hidden characters are made visible."""
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"seconds": words.seconds, "number": _number}
    rates = [f for f in run.findings if f.check.endswith("win_rate") and f.check != "judged_win_rate"]
    overall = [f for f in rates if f.slice == "all"] or rates
    return page.get_template("page.html.j2").render(
        title=str(run.manifest.get("title") or run.name),
        manifest=run.manifest,
        brief=brief.lines(run),
        banner=_banner(run),
        judged=[line for stage in run.stages for line in _lines(stage.summary.get("judged"))],
        summary=words.summary(run.findings),
        tables=_tables(run.findings),
        plot=Markup(curves.intervals(overall)),
        stages=run.stages,
        diagnosed=[_diagnosed(stage) for stage in run.stages if stage.ways],
        trained=[_training(stage) for stage in run.stages if stage.metrics or stage.summary.get("paragraph")],
        learned=[shown for stage in run.stages if (shown := rounds.responses(stage))],
        data=[(stage.name, _data(stage.summary["data"])) for stage in run.stages if _is(stage.summary.get("data"))],
        extras=[_extras(stage) for stage in run.stages if _has_more(stage)],
        examples=[_example(row) for stage in run.stages for row in stage.examples][:_EXAMPLES],
        results=_listed(run.decision.get("results")),
        provenance=_provenance(run),
        damaged=run.damaged,
        empty=not run.stages and not run.decision,
    )


def _shown(x: Any) -> Any:
    if x is None:
        return ""
    return x if hasattr(x, "__html__") else visible(redacted(str(x)))


def _number(x: Any) -> str:
    value = as_number(x)
    return words.number(value) if value is not None else str(x)


def _is(x: Any) -> bool:
    return isinstance(x, Mapping) and bool(x)


def _listed(x: Any) -> list[Mapping[str, Any]]:
    return [row for row in x if isinstance(row, Mapping)] if isinstance(x, list) else []


def _lines(x: Any) -> list[str]:
    return [str(line) for line in x] if isinstance(x, list) else []


def _banner(run: RunPieces) -> dict[str, str]:
    decision, state = run.decision, run.manifest.get("state")
    if state in ("failed", "stopped"):
        text = f"This run did not come to its end: {run.manifest.get('reason') or 'it does not say why'}"
        return {"kind": "undecided", "word": str(state).capitalize(), "text": text}
    verdict = str(decision.get("verdict", ""))
    if verdict not in _BANNERS:
        return {"kind": "none", "word": "No gate", "text": "This run was not held against a gate's rules."}
    word, text = _BANNERS[verdict]
    results = _listed(decision.get("results"))
    met = sum(r.get("state") == "passed" for r in results)
    count = f" {met} of {len(results)} met." if results and verdict != "ship" else ""
    return {"kind": verdict, "word": word, "text": text + count}


def _tables(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """One table per slice: a row per check (and what it was held against), a column per model."""
    tables = []
    for slice_ in dict.fromkeys(f.slice for f in findings):
        here = [f for f in findings if f.slice == slice_]
        models = list(dict.fromkeys(f.model for f in here))
        rows = []
        for check, against in dict.fromkeys((f.check, f.against) for f in here):
            cells = [[_cell(f) for f in here if (f.check, f.against, f.model) == (check, against, m)] for m in models]
            unit = {"%": "", "points": "percentage points"}.get(words.unit(check), words.unit(check))
            rows.append({"check": words.label(check), "against": against, "unit": unit, "cells": cells})
        tables.append({"slice": slice_, "models": models, "rows": rows})
    return sorted(tables, key=lambda t: t["slice"] != "all")


def _cell(f: Finding) -> dict[str, Any]:
    tone = {"better": "good", "passed": "good", "worse": "bad", "failed": "bad"}.get(f.verdict, "")
    tone = "warn" if f.reservation else tone
    return {
        "value": words.figure(f.check, f.value),
        "interval": words.interval(f),
        "n": f"{f.n:,}" if f.n else "",
        "verdict": f.verdict,
        "tone": tone,
        "evidence": f.evidence,
        "reservation": f.reservation,
    }


def _diagnosed(stage: StagePieces) -> dict[str, Any]:
    drawn = Markup(curves.over_distance(stage.ways, stage.truth))
    return {"name": stage.name, "plot": drawn, "columns": COLUMNS, "rows": [way.cells() for way in stage.ways]}


def _training(stage: StagePieces) -> dict[str, Any]:
    rows = stage.metrics
    seconds, tokens = sum(r.get("seconds", 0.0) for r in rows), sum(r.get("tokens", 0.0) for r in rows)
    facts = [f"{len(rows):,} steps"]
    if tokens:
        facts.append(f"{tokens:,.0f} tokens")
    if tokens and seconds:
        facts.append(f"{tokens / seconds:,.0f} tokens/s")
    chosen = stage.summary.get("best_checkpoint")
    if isinstance(chosen, Mapping):
        facts.append(f"its weights are those after update {chosen.get('step')}: numbers at the right are of them")
    means = figures.stored_means(stage.summary)
    if "last_tenth" not in stage.summary and (stretch := figures.last_tenth(rows)):  # it did not come to its end
        means = dict(stretch.means)
    drawn, online = [], rounds.learns_from_rounds(rows)
    for name in rounds.curves_of(rows) if online else curves.choose(rows):
        values = [v for r in rows if (v := as_number(r.get(name))) is not None]
        lost = sum(name in r for r in rows) - len(values)
        end, monitored = means.get(name), _monitored(stage.summary, name)
        shown = (
            f"{_short(end)}" if end is not None else f"{_short(monitored)} (held out)" if monitored is not None else "–"
        )
        drawn.append(
            {
                "name": rounds.title(name) if online else words.label(name),
                "unit": rounds.unit(name) if online else words.unit(name).replace("%", ""),
                "first": _short(values[0]) if values else "",
                "last": shown,
                "svg": Markup(curves.curve(rows, name, end if end is not None else monitored, _SPREAD.get(name, ""))),
                "lost": f"{lost} of its values are not numbers" if lost else "",
            }
        )
    paragraph, taught = stage.summary.get("paragraph"), stage.summary.get("taught")
    return {
        "name": stage.name,
        "do": stage.do,
        "facts": " · ".join(facts),
        "curves": drawn,
        "paragraph": paragraph if isinstance(paragraph, str) else "",
        "nothing": taught.get("nothing", "") if isinstance(taught, Mapping) else "",
        "online": online,
        "band": online and any("score_deviation" in row for row in rows),
    }


def _monitored(summary: Mapping[str, Any], name: str) -> float | None:
    """The monitored value of a metric for the weights that the stage leaves; None if it was not monitored."""
    held_out = summary.get("held_out")
    figure = held_out.get(name) if isinstance(held_out, Mapping) else None
    return as_number(figure.get("value")) if isinstance(figure, Mapping) else None


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _data(raw: Mapping[str, Any]) -> dict[str, Any]:
    notes = []
    for note in _listed(raw.get("notes")):
        listed = note.get("rows")
        rows: list[Any] = listed if isinstance(listed, list) else []
        more = f" and {len(rows) - _ROWS:,} more" if len(rows) > _ROWS else ""
        text = ", ".join(str(x) for x in rows[:_ROWS]) + more
        row = {**dict.fromkeys(("problem", "action", "count"), ""), **note, "rows": text}
        notes.append(row | {"problem": f"{note.get('field', '')} {row['problem']}".strip()})
    columns = raw.get("columns")
    beside = [str(line) for line in columns] if isinstance(columns, list) else []
    return {**dict.fromkeys(("file", "read", "usable")), **raw, "notes": notes, "columns": beside}


def _has_more(stage: StagePieces) -> bool:
    return any(stage.summary.get(name) for name in ("figures", "tables", "notes"))


def _extras(stage: StagePieces) -> dict[str, Any]:
    """A stage's own figures, tables and notes, in whatever shape they were written."""
    figures = [
        {
            "name": words.label(str(x.get("name", ""))),
            "value": x.get("value"),
            "unit": x.get("unit"),
            "note": x.get("note"),
        }
        for x in _listed(stage.summary.get("figures"))
    ]
    tables = [
        {
            "title": x.get("title"),
            "columns": x["columns"] if isinstance(x.get("columns"), list) else [],
            "rows": [row for row in x["rows"] if isinstance(row, list)] if isinstance(x.get("rows"), list) else [],
        }
        for x in _listed(stage.summary.get("tables"))
    ]
    notes = stage.summary.get("notes")
    return {
        "name": stage.name,
        "headline": stage.summary.get("headline"),
        "figures": figures,
        "tables": tables,
        "notes": notes if isinstance(notes, list) else [],
    }


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    by_model = row.get("responses")
    responses = []
    for model, response in by_model.items() if isinstance(by_model, Mapping) else ():
        text = response.get("text", "") if isinstance(response, Mapping) else response
        score = as_number(response.get("score")) if isinstance(response, Mapping) else None
        responses.append({"model": model, "text": _cut(str(text)), "score": score})
    best = max((a["score"] for a in responses if a["score"] is not None), default=None)
    for a in responses:
        a["best"] = a["score"] is not None and a["score"] == best and len(responses) > 1
        a["score"] = "" if a["score"] is None else f"{a['score']:.2f}".replace("-", "−")
    return {"prompt": _turns(row.get("prompt", "")), "responses": responses}


def _turns(prompt: Any) -> list[dict[str, str]]:
    if isinstance(prompt, list):
        return [{"role": str(m.get("role", "")), "text": _cut(str(m.get("content", "")))} for m in _listed(prompt)]
    return [{"role": "", "text": _cut(str(prompt))}]


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}… ({len(text) - _LETTERS:,} more characters)"


def _provenance(run: RunPieces) -> list[tuple[str, str]]:
    """Seed, machine, versions and hashes: whatever is needed to repeat the run."""
    manifest = run.manifest
    rows: list[tuple[str, str]] = []
    first = ("recipe_path", "seed", "started", "seconds", "threads", "instructions", "machine")
    for name in first:
        if manifest.get(name) is not None:
            seconds = as_number(manifest[name]) if name == "seconds" else None
            rows.append((words.label(name), words.seconds(seconds) if seconds is not None else _flat(manifest[name])))
    placed = {"title", "recipe", "stages", *first}
    for name, value in manifest.items():
        if name not in placed and value not in (None, "", [], {}):
            rows.append((words.label(name), _flat(value)))
    if run.decision.get("evidence_hash"):
        rows.append(("evidence hash", str(run.decision["evidence_hash"])))
    return rows


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return " · ".join(f"{k} {_flat(v)}" for k, v in value.items() if v is not None)
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)
