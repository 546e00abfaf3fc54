"""The stage that divides a data set, so that no training question is asked again in the exam."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from truing.data import split as splitting
from truing.data.formats import loading
from truing.recipe.references import Ref
from truing.records import Fraction
from truing.registry import Columns, Data, stage
from truing.run.stage_run import StageRun


@stage(gives="data", parts=("train", "eval"))
def split(
    run: StageRun,
    *,
    data: Annotated[Data, "the data set to divide: a file, a Hub name or world:NAME"],
    by: Annotated[Literal["prompt", "row"], "keep every row of a prompt on one side, or divide single rows"] = "prompt",
    eval: Annotated[Fraction, "share of the prompts (or rows) that is held out"] = 0.1,
    read: Annotated[
        Literal["any", "prompts"], "whether rows are prompts whose other columns are kept for rewards"
    ] = "any",
    on_bad_row: Annotated[Literal["error", "drop"], "stop at a row of no use, or leave it out and list it"] = "error",
    columns: Annotated[Columns | None, "which column has which role, {chosen: better}; null is not read"] = None,
    seed: Annotated[int, "added to the recipe's seed; another number draws other rows to hold out"] = 0,
) -> None:
    """Divide a data set into `train` and `eval`, with no prompt (nor first user turn) on both sides.

    `by: row` divides single rows instead. `on_bad_row: drop` leaves out rows that cannot be used, and lists them. With
    `read: prompts` rows are prompts to answer, and a file's other columns are kept for the rewards that read them.
    """
    records = run.records(data, on_bad_row, want=read, columns=columns)
    run.show.say(loading.describe(records, columns=False))
    parts = splitting.split(records, eval=eval, seed=run.seed + seed, by=by)
    source = asdict(data) if isinstance(data, Ref) else data
    stored: dict[str, Any] = {"data": source, "digest": records.digest, "on_bad_row": on_bad_row}
    stored |= {"columns": columns, "read": read}
    stored |= {name: list(part.rows) for name, part in zip(("train", "eval"), parts, strict=True)}
    run.write("split.json", stored)
    figures = [{"name": n, "value": len(p), "unit": "rows"} for n, p in zip(("train", "eval"), parts, strict=True)]
    run.write("summary.json", {"do": "split", "data": loading.summary(records), "figures": figures})
    run.show.say(f"  {len(parts[0])} rows to train on, {len(parts[1])} held out, divided by {by}")
