"""Two figures of the shape that only a run shows (`make shape`): the functions between a command and a formula, and
the entries into the scope of a recipe while it is checked.

    PYTHONPATH=TREE/src python benchmarks/shape_run.py TREE

prints {"stack": [...], "entries": N} as JSON. The package that is run is the tree's, so this file takes nothing of it
but what a user types.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from truing import cli

RECIPE = """
stages:
  direct: {do: prefer, model: world:desk/tiny, data: world:comparisons?n=8, objective: dpo, steps: 1, rows_per_step: 2}
"""


def functions_on(frame: FrameType | None, package: Path) -> list[str]:
    """The functions of the package on the stack, from the outermost to this frame."""
    names = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(package) and not frame.f_code.co_name.startswith("<"):
            names.append(f"{path.relative_to(package).with_suffix('').as_posix()}.{frame.f_code.co_name}")
        frame = frame.f_back
    return names[::-1]


def stack_of_dpo(package: Path) -> list[str]:
    """The functions of the package on the stack where DPO's loss is computed, from `truing run` to its formula."""
    stack: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name == "dpo" and not stack:
            stack.extend(functions_on(frame, package))

    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "dpo.yaml"
        recipe.write_text(RECIPE, encoding="utf-8")
        typed(["run", str(recipe), "--out", f"{folder}/out", "--quiet"], watch)
    return stack


def entries_into_scope(package: Path, recipe: Path) -> int:
    """Calls from other modules into that of the recipe's scope, while `truing check` reads a recipe."""
    entries: list[str] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.endswith("scope.py"):
            callers = functions_on(frame.f_back, package)
            if callers and not callers[-1].partition(".")[0].endswith("scope"):
                entries.append(callers[-1])

    typed(["check", str(recipe)], watch)
    return len(entries)


def typed(words: list[str], watch: Any) -> None:
    """Carry out a command as if typed, with every call of a function shown to `watch`."""
    output, sys.stdout = sys.stdout, sys.stderr
    sys.setprofile(watch)
    try:
        cli.app(words, standalone_mode=False)
    finally:
        sys.setprofile(None)
        sys.stdout = output


def main(tree: Path) -> None:
    """Print both figures."""
    package = (tree / "src" / "truing").resolve()
    entries = entries_into_scope(package, tree / "recipes" / "quickstart.yaml")
    print(json.dumps({"stack": stack_of_dpo(package)[:-1], "entries": entries}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
