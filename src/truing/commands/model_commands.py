"""The work of `truing sample`, `truing score` and `truing export`: JSON objects per response or per row, and
folders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from truing import terminal
from truing.data import clock
from truing.data.batch import Tree
from truing.data.kinds import Shape
from truing.data.rendering.render import Renderer
from truing.data.trees import THOUGHT_OUT, TreeDataset, build_trees
from truing.disk import as_json, check_target, made_beside, refuse_link, write_exact
from truing.errors import DataError, UserError, unknown
from truing.evaluate.exam import head_rewards, response_text, sums
from truing.policy import heads, llama_cpp
from truing.policy.files import lineage
from truing.policy.load import context_length, load, load_any
from truing.policy.policy import Policy
from truing.records import Judgement, Messages, Records, Verdict, messages_json
from truing.rewards import scoring
from truing.rollout.best import best_places
from truing.rollout.engine import Sampling, generate
from truing.run import base_models
from truing.run.console import Show
from truing.run.inputs import OnBadRow, Reading


def sample(
    model: str,
    prompts: str,
    n: int,
    out: Path,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    best_of: int | None = None,
    reward: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    reading: Reading = Reading(),
) -> int:
    """Write `n` responses to every prompt: `prompt, response, logp, length, stop`. Returns how many.

    `prompts` is a text file (one prompt a line, .txt), a data set of any accepted form, or one of the world's.
    `logp` is summed over the response's tokens, nats, under the distribution it was sampled from. With `best_of` each
    is the best of so many by the reward model `reward`, and carries its score (`reward`); its `logp` is still that of
    one draw; one that is longer than the reward model reads ranks last, and its `reward` is null. UserError for one of
    the two without the other. `say` receives notes on the chat templates, or an empty text. `reading` has the options
    for reading the prompts; with its `on_bad_row: drop` a prompt that the template cannot write is left
    out, and counted.
    """
    check_target(out)
    if (best_of is None) != (reward is None):
        raise UserError("--best-of N and --reward MODEL, by which the best is chosen, go together")
    messages = reading.prompts(prompts)
    policy = opened(load(base_models.named(model, Show(quiet=True))))
    renderer = Renderer(policy.tokenizer)
    say(clock.note(policy.tokenizer))
    sampling = Sampling(max_new_tokens, temperature, seed)
    messages, ids = writable(renderer, messages, prompts, reading.on_bad_row, say)
    rows = []
    for r in generate(policy, ids, sampling, n * (best_of or 1)):
        row: dict[str, Any] = {"prompt": messages_json(messages[r.group]), "response": response_text(policy, r)}
        rows.append(row | {"logp": sum(r.logp_T), "length": len(r.response_ids), "stop": r.stop})
    if best_of is not None and reward is not None:
        judge = opened(load(base_models.named(reward, Show(quiet=True)), "reward"))
        if dated := clock.note(judge.tokenizer):
            say(f"{reward}: {dated}")
        liked = scoring.RewardModel(judge)
        reward_scores = scoring.scores(
            liked, [p for p in messages for _ in range(n * best_of)], [r["response"] for r in rows], strict=False
        )
        places = best_places([-math.inf if math.isnan(value) else value for value in reward_scores], best_of)
        rows = [rows[i] | {"reward": None if math.isnan(reward_scores[i]) else reward_scores[i]} for i in places]
    write_lines(out, rows)
    return len(rows)


def opened(policy: Policy) -> Policy:
    """Return the policy, with the notes on its folder printed on stderr."""
    for note in policy.notes:
        terminal.say(f"truing: {note}", err=True)
    return policy


def writable(
    renderer: Renderer, messages: list[Messages], source: str, on_bad_row: OnBadRow, say: Callable[[str], None]
) -> tuple[list[Messages], list[list[int]]]:
    """The prompts that the template can write, with their token ids; the first of the others is an error, or with
    `on_bad_row: drop` they are left out and `say` reports it. DataError where none is left."""
    writable_messages, ids, problems = [], [], []
    for i, prompt in enumerate(messages):
        try:
            ids.append(prompt_ids(renderer, prompt, f"{source}, prompt {i + 1}"))
            writable_messages.append(prompt)
        except DataError as error:
            if on_bad_row == "error":
                raise
            problems.append(error)
    if not writable_messages:
        raise problems[0]
    if problems:
        say(
            f"dropped {len(problems)} of {len(messages)} prompts; the first: {problems[0].place}: {problems[0].problem}"
        )
    return writable_messages, ids


def prompt_ids(renderer: Renderer, prompt: Messages, place: str) -> list[int]:
    """A prompt's token ids; a DataError that begins with `place` where its template cannot write it."""
    try:
        return renderer.prompt_ids(prompt)
    except DataError as error:
        raise DataError(f"{place}, {error.place}", error.problem, error.way_out) from error


def score(
    model: str,
    data: str,
    out: Path,
    say: Callable[[str], None] = lambda _: None,
    reading: Reading = Reading(),
) -> int:
    """Write the scores of every row under a model, in order; returns how many rows.

    A language model: `chosen_logp, rejected_logp, chosen_length, rejected_length` for pairs (sums in nats and tokens
    over the response), `logp, length` for single responses, lists `logps, lengths` for several. A reward model:
    `chosen_reward, rejected_reward`, `reward`, or `rewards`, and of several heads the reward of each beside it, by
    name: `chosen_heads, rejected_heads`, `heads`. Ratings of several responses play no part. Nothing is truncated: a
    row longer than the model's context is an error. Nor is anything left out: responses that read alike are scored
    alike, and marks of what is to be learned (`weight: 0`) play no part. `say` receives notes on the chat template, or
    an empty text. `reading` has the options for reading the data; with its `on_bad_row: drop` rows that cannot be read,
    written or scored whole are left out, `say` reports it, and each object has the number of its `row`.
    """
    check_target(out)
    policy = opened(load_any(base_models.named(model, Show(quiet=True))))
    records, shape = scorable(reading.reported(data, unmarked=True))
    most = context_length(policy)
    dropping = reading.on_bad_row == "drop"
    dataset = build_trees(
        records, heads.renderer(policy), max_length=most, shape=shape, alike="kept", on_bad_row=reading.on_bad_row
    )
    for note in (clock.note(policy.tokenizer), unread(dataset)):
        say(note)
    unfit = {note.row for note in dataset.notes if note.problem != THOUGHT_OUT}
    trees = [tree for tree in dataset.trees if tree.row not in unfit]
    if unfit and (not dropping or not trees):
        raise UserError(f"{data}: {model} reads {most} tokens, so not every row can be scored whole: {dataset.text()}")
    say(f"left out: {dataset.text()}" if unfit else "")
    at, rows = iter(read_branches(policy, trees)), []
    for tree in trees:
        facts = _facts([next(at) for _ in tree.branches], shape)
        rows.append({"row": tree.row, **facts} if dropping else facts)
    write_lines(out, rows)
    return len(rows)


def _facts(branch_facts: Sequence[dict[str, Any]], shape: Shape) -> dict[str, Any]:
    """Join the scores of a row's responses into one object."""
    if shape == "single":
        return branch_facts[0]
    if shape == "pairs":
        sides = zip(("chosen", "rejected"), branch_facts, strict=True)
        return {f"{side}_{name}": value for side, facts in sides for name, value in facts.items()}
    return {name if name == "heads" else f"{name}s": [f[name] for f in branch_facts] for name in branch_facts[0]}


def export(model: str, out: Path | None, gguf: Path | None, dtype: str | None = None) -> list[Path]:
    """Write a whole model, an adapter merged into its base, as a folder in Hugging Face layout (`out`), as one GGUF
    file with weights of `dtype` (f16), or both; returns what was written.

    UserError where neither is named, for a `dtype` without GGUF, for a folder that holds something, and where the model
    has no GGUF.
    """
    if out is None and gguf is None:
        raise UserError("name what to write: --out FOLDER for transformers and vLLM, --gguf FILE for llama.cpp, Ollama")
    if dtype is not None and gguf is None:
        raise UserError("--dtype has no effect without --gguf: a folder keeps the weights in fp32")
    dtype = dtype or "f16"
    stored = next((file_type for file_type in llama_cpp.FILE_TYPES if file_type == dtype), None)
    if stored is None:
        raise UserError(unknown("dtype", dtype, llama_cpp.FILE_TYPES))
    if out is not None:
        refuse_link(out)
    if gguf is not None:
        check_target(gguf)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: there is something already; name a new folder")
    place = base_models.named(model, Show(quiet=True))
    policy, learned = load_any(place), lineage.read(place)
    if gguf is not None:
        llama_cpp.write(policy, gguf, stored)
    if out is not None:
        policy.merge = policy.adapter is not None
        with made_beside(out) as part:
            heads.save(policy, part)
            lineage.write(part, learned.rewritten())
    return [path for path in (gguf, out) if path is not None]


def unread(dataset: TreeDataset) -> str:
    """Report how many rows lost a thought to the chat template; empty where none did."""
    count = sum(note.problem == THOUGHT_OUT for note in dataset.notes)
    return f"{count} of {len(dataset.trees)} rows: {THOUGHT_OUT}" if count else ""


def scorable(records: Records) -> tuple[Records, Shape]:
    """Records as they are scored, all in one shape: pairs where every row is a choice between two, else each with its
    responses in the file's order, whatever their ratings."""
    rows = records.records
    if all(isinstance(r, Judgement) and r.verdict.kind == "choice" and len(r.responses) == 2 for r in rows):
        return records, "pairs"
    shape: Shape = "ranked" if any(isinstance(r, Judgement) and len(r.responses) > 1 for r in rows) else "single"
    return replace(records, records=tuple(unjudged(r) if isinstance(r, Judgement) else r for r in rows)), shape


def unjudged(record: Judgement) -> Judgement:
    """A record with its responses ranked as they stand, so that all of them are read."""
    return replace(record, verdict=Verdict("ranking", list(range(len(record.responses)))))


def read_branches(policy: Policy, trees: Sequence[Tree]) -> list[dict[str, Any]]:
    """Score every branch with a model: `reward` (of several heads `heads` too), or `logp` and `length`."""
    if not policy.is_reward:
        lengths = [sum(b.loss) for tree in trees for b in tree.branches]
        return [{"logp": v, "length": n} for v, n in zip(sums(policy, trees), lengths, strict=True)]
    shares, by_head = policy.scalars.shares, head_rewards(policy, trees)
    totals = [sum(w * each for w, each in zip(shares, heads.values(), strict=True)) for heads in by_head]
    if policy.heads == ("",):
        return [{"reward": total} for total in totals]
    return [{"reward": total, "heads": heads} for total, heads in zip(totals, by_head, strict=True)]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSONL, whole or not at all."""
    write_exact(path, "".join(as_json(row, f"{path.name}, row {i}") + "\n" for i, row in enumerate(rows, start=1)))
