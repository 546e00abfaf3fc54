"""Options that several commands have, each with its sentence in one place and the name that recipes give it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

OnBadRow = Annotated[
    Literal["error", "drop"],
    typer.Option("--on-bad-row", help="Rows that cannot be used: an error, or left out (drop) and listed."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="ROLE=COLUMN",
        help="A column that plays a role under another name, such as prompt=question; COLUMN=null leaves one out. "
        "May be repeated.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[a.b=c ...]",
        help="Changes to the recipe: data=my.jsonl, seed=1, direct.learning_rate=3e-5",
        show_default=False,
    ),
]
RECIPE = "A recipe file (YAML), or the name of one that comes with truing."
RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE, show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Throw away what is finished under that name.")]
