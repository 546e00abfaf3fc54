"""The command line. Every heavy import stands inside the command that needs it, so that help answers at once."""

from __future__ import annotations

import re
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from truing import __version__, caches, disk
from truing.commands.arguments import Columns, OnBadRow, Overrides, Overwrite, RecipePath
from truing.commands.welcome import HELP
from truing.disk import check_free, check_target, users_files
from truing.errors import TruingError, UserError, one_line, unknown
from truing.terminal import guard, say

if TYPE_CHECKING:
    from truing.schema.signature import Kind

KINDS = {
    "objectives": "objective", "stages": "stage", "rewards": "reward", "data": "data", "models": "model",
    "recipes": "recipe",
}  # fmt: skip
PARTS: dict[str, Kind] = {"objectives": "objective", "stages": "stage", "rewards": "reward"}
TRAIN_PACKAGES = frozenset(
    {"torch", "transformers", "datasets", "tokenizers", "safetensors", "huggingface_hub", "pyarrow"}
)

app = typer.Typer(
    help=HELP,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(requested: bool) -> None:
    """Print the version and end."""
    if requested:
        say(f"truing {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options before a command; without a command, show what to do first."""
    if context.invoked_subcommand is None:
        say(context.get_help())


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/TITLE")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted stage from its checkpoint.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew an interrupted stage, and one whose files were changed.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Run a recipe. Stages that are done and unchanged are not run again."""
    from truing.run.outlook import look

    checked = look(recipe, overrides or []).recipe
    from truing.run import runner as running

    folder = out or Path("runs") / running.folder_name(checked.title)
    try:
        code = running.run(checked, out=folder, resume=resume, restart=restart, overwrite=overwrite, quiet=quiet)
    except KeyboardInterrupt:
        stop("stopped; go on with --resume", 130)
    raise typer.Exit(code)


@app.command("check")
def check_recipe(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Check a recipe and run nothing: its words, and the data and models it names. Every mistake is said at once."""
    from truing.run.outlook import look

    outlook = look(recipe, overrides or [])
    checked = outlook.recipe
    stages = ", ".join(f"{spec.name} ({spec.do})" for spec in checked.stages)
    count = len(checked.stages)
    say(f"{one_line(recipe)}: no mistakes. {count} stage{'s' if count != 1 else ''}: {stages}")
    say("".join(f"note: {text}\n" for text in outlook.notes), end="")
    say(outlook.text())


@app.command("list")
def list_parts(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help=f"{', '.join(KINDS)}.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="Your own file or module, listed too.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array of {name, source, needs, options, doc, ...}.")
    ] = False,
) -> None:
    """List what a recipe can name. Objectives, stages, rewards, the world's data sets and models; and the recipes."""
    from truing.recipe import catalogue

    if kind is not None and kind.removesuffix("s") not in {k.removesuffix("s") for k in KINDS}:
        raise UserError(unknown("kind", kind, KINDS))
    kinds = [k for k in KINDS if kind is None or k.removesuffix("s") == kind.removesuffix("s")]
    if source is not None and kind is not None and kinds[0] not in PARTS:
        raise UserError(f"--from lists {', '.join(PARTS)}, and {kind} are none of them")
    rows = {k: described(k, source) for k in kinds}
    if as_json:
        say(disk.as_json([row for k in kinds for row in rows[k]], "list", indent=1))
        return
    for k in kinds:
        width = max((len(row["name"]) for row in rows[k]), default=0)
        say(f"{k}")
        for row in rows[k]:
            say(f"  {row['name']:{width}}  {first_sentence(row['doc'])}")
            if kind is not None and k == "objectives":
                more = [*catalogue.lines(row), f"source: {row['source']}"]
                say("".join(f"  {'':{width}}  {line}\n" for line in more))


def described(kind: str, source: str | None = None) -> list[dict[str, Any]]:
    """Everything of a kind in the stable form of `list --json`, with what the user's `source` file or module has."""
    from truing.recipe import catalogue, shipped, sources

    if kind in PARTS:
        return catalogue.rows(PARTS[kind], source)
    return {"data": sources.datasets, "models": sources.models, "recipes": shipped.rows}[kind]()


def first_sentence(doc: str) -> str:
    """The first sentence of a docstring, on one line.

    >>> first_sentence("Best of 1, 2, ... n answers. And more.")
    'Best of 1, 2, ... n answers'
    """
    return re.split(r"(?<!\.)\. ", " ".join(doc.split("\n\n")[0].split()))[0].rstrip(".")


@app.command()
def show(
    kind: Annotated[
        str,
        typer.Argument(metavar="[KIND]", help=f"{', '.join(KINDS.values())} or option.", show_default=False),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Its name, or file.py:name for your own.", show_default=False),
    ] = None,
) -> None:
    """Show one part in full, or an option. What it does, its formula and source, what it needs, and its options."""
    from truing.recipe import catalogue, hints, lookup, shipped

    if name is None:
        kind, name = lookup.kind_of(kind), kind
    if kind == lookup.OPTION:
        say(lookup.option(name))
        return
    plural = next((k for k in KINDS if kind.removesuffix("s") == k.removesuffix("s")), None)
    if plural is None:
        raise UserError(unknown("kind", kind, KINDS.values()))
    if plural == "recipes":
        say(shipped.text(name))
        return
    if plural in PARTS:
        part = hints.resolve(name, PARTS[plural])
        row, place = catalogue.row(part), f"{part.file}:{part.line}"
    else:
        rows = {entry["name"]: entry for entry in described(plural)}
        if name not in rows:
            raise UserError(unknown(kind, name, rows))
        row, place = rows[name], ""
    say("\n".join(catalogue.portrait(row, place, catalogue.lines(row) if plural == "objectives" else [])))


@app.command()
def verify(
    where: Annotated[
        list[str],
        typer.Argument(metavar="FILE_OR_MODULE...", help="Files (mine.py) or modules (pkg.mod).", show_default=False),
    ],
) -> None:
    """Hold your own objectives to the contract. Runs them on random signals; exit code 1 where one breaks a clause."""
    from truing import contract

    outcomes = [outcome for place in where for outcome in contract.verify(place)]
    for outcome in outcomes:
        say(outcome.text)
    raise typer.Exit(1 if any(outcome.broken for outcome in outcomes) else 0)


@app.command()
def split(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, a Hub name or world:...", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder for train.jsonl and eval.jsonl.")],
    share: Annotated[float, typer.Option("--eval", help="The share that is held out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Another seed, another division.")] = 0,
    on_bad_row: OnBadRow = "error",
    columns: Columns = None,
) -> None:
    """Divide data to train on from data held out. No prompt stands on both sides; writes train.jsonl and eval.jsonl."""
    from truing.data import split as splitting
    from truing.data.formats import loading
    from truing.run.inputs import Reading

    for name in ("train", "eval"):
        check_target(out / f"{name}.jsonl")
    records = Reading.of(on_bad_row, columns).records(data)
    say(loading.describe(records))
    train, held_out = splitting.split(records, eval=share, seed=seed)
    for name, part in (("train", train), ("eval", held_out)):
        with users_files():
            path = splitting.write(part, out / f"{name}.jsonl")
        say(f"{one_line(str(path))}: {len(part)} rows")


def remark(text: str) -> None:
    """Say something beside the result of a command, where there is something to say."""
    if text:
        say(text, err=True)


@app.command()
def sample(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder, a Hub name or world:desk/...", show_default=False)
    ],
    prompts: Annotated[
        str, typer.Argument(metavar="PROMPTS", help="A data set; its prompts are read.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(help="A JSONL file: prompt, response, logp, length, stop; with --best-of also reward.")
    ],
    n: Annotated[int, typer.Option("--n", min=1, help="Responses to each prompt.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest response, in tokens.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed, other responses.")] = 0,
    best_of: Annotated[
        int | None, typer.Option(min=1, help="Give the best of so many, by --reward.", show_default=False)
    ] = None,
    reward: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A reward model's folder.", show_default=False)
    ] = None,
    on_bad_row: OnBadRow = "error",
    columns: Columns = None,
) -> None:
    """Let a model answer prompts. With --best-of the best of several answers, as a reward model likes them."""
    from truing.commands import model_commands
    from truing.run.inputs import Reading

    how, limits = Reading.of(on_bad_row, columns), (max_new_tokens, temperature, seed)
    with users_files():
        count = model_commands.sample(model, prompts, n, out, *limits, best_of, reward, remark, how)
    say(f"{one_line(str(out))}: {count} responses")


@app.command()
def score(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A language or reward model.", show_default=False)],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Pairs or demonstrations.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A JSONL file: one object per row, in order.")],
    on_bad_row: OnBadRow = "error",
    columns: Columns = None,
) -> None:
    """Score the responses of a data set. Log-probabilities (nats, summed over response tokens), or rewards."""
    from truing.commands import model_commands
    from truing.run.inputs import Reading

    with users_files():
        count = model_commands.score(model, data, out, remark, Reading.of(on_bad_row, columns))
    say(f"{one_line(str(out))}: {count} rows")


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model or an adapter.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For transformers and vLLM.", show_default=False)
    ] = None,
    gguf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For llama.cpp and Ollama.", show_default=False)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Weights of the GGUF: f32, f16, bf16 or q8_0.", show_default="f16")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model for other programs. A whole one: an adapter is merged into its base."""
    from truing.commands import model_commands

    if gguf is not None:
        check_free(gguf, overwrite)
    with users_files():
        for path in model_commands.export(model, out, gguf, dtype):
            say(path)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.", show_default=False)],
) -> None:
    """Write a run's report.html again. It is made from what lies in the run's folder."""
    from truing.report import html

    with users_files():
        say(html.write(folder))


@app.command()
def gate(
    evidence: Annotated[
        Path, typer.Argument(metavar="RUN_OR_JSON", help="A run's folder or findings.", show_default=False)
    ],
    rules: Annotated[Path, typer.Option(help="The rules file.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the decision as JSON.", show_default=False)] = None,
) -> None:
    """Decide whether a model may ship. Holds findings against a rules file; exit code 0 ship, 1 hold, 4 undecided."""
    from truing.gate.decide import check_place, write_decision
    from truing.run.deciding import decide_by_hand

    if out is not None:
        check_place(out)
    decision, weights = decide_by_hand(evidence, rules)
    say(decision.text())
    if out is not None:
        with users_files():
            write_decision(decision, out, weights)
    raise typer.Exit(decision.exit_code)


def main() -> None:
    """The entry point: runs a command and turns every outcome into a message and an exit code. Nothing that is printed
    on the way, by whomever, holds a key."""
    signal.signal(signal.SIGTERM, lambda *_: stop("stopped", 143))
    guard()
    caches.keep_torch_here()
    carry_out()


def carry_out() -> None:
    """Run the command and end with its exit code."""
    try:
        typer.main.get_command(app)(prog_name="truing")
    except TruingError as problem:
        stop(str(problem), problem.exit_code)
    except KeyboardInterrupt:
        stop("stopped", 130)
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in TRAIN_PACKAGES:
            fault()
        stop(f"this needs the package {problem.name}: pip install 'truing[train]'", 2)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            raise
        stop(str(ended.code), 3)  # Python would end with 1, which is the word for a model that may not ship
    except BaseException as problem:
        if type(problem).__module__ == "pyo3_runtime":  # a panic in Rust is no Exception
            stop(f"a file could not be read: the library that reads it gave up ({problem}); look at the tokenizer", 3)
        fault()


def fault() -> NoReturn:
    """Show the traceback of what should not have happened, and end."""
    say(traceback.format_exc(), err=True, end="")
    stop("this is a fault of truing, not of yours; what is on disk can be resumed", 3)


def stop(message: str, code: int) -> NoReturn:
    """Say why on stderr and end with an exit code."""
    sys.stdout.flush()
    say(f"truing: {message}", err=True)
    sys.exit(code)
