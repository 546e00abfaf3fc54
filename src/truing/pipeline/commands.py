"""What `truing sample` and `truing score` do: one JSON object per answer or per row, in the order of the input."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from truing import world
from truing.data import formats
from truing.data.conventions import Want
from truing.data.kinds import Shape
from truing.data.render import Renderer
from truing.data.trees import plant
from truing.disk import write_text
from truing.errors import DataError, UserError
from truing.evaluate.exam import response_text, rewards, sums
from truing.pipeline import base
from truing.pipeline.show import Show
from truing.policy.load import context_length, load, load_any
from truing.rollout.engine import Sampling, generate
from truing.types import Judgement, Message, Messages, Records, messages_json


def sample(
    model: str, prompts: str, n: int, out: Path, max_new_tokens: int = 64, temperature: float = 1.0, seed: int = 0
) -> int:
    """Write `n` answers to every prompt: `prompt, response, logp, length, stop`. Returns how many.

    `prompts` is a text file (one prompt a line, .txt), a data set of any accepted form, or one of the world's.
    `logp` is summed over the answer's tokens, nats, under the distribution it was drawn from.
    """
    asked = read_prompts(prompts)
    policy = load(base.named(model, Show(quiet=True)))
    renderer = Renderer(policy.tokenizer)
    sampling = Sampling(max_new_tokens, temperature, seed)
    rollouts = generate(
        policy, [prompt_ids(renderer, p, f"{prompts}, prompt {i + 1}") for i, p in enumerate(asked)], sampling, n
    )
    rows = []
    for r in rollouts:
        row: dict[str, Any] = {"prompt": messages_json(asked[r.group]), "response": response_text(policy, r)}
        rows.append(row | {"logp": sum(r.logp_T), "length": len(r.response_ids), "stop": r.stop})
    write_lines(out, rows)
    return len(rows)


def prompt_ids(renderer: Renderer, prompt: Messages, place: str) -> list[int]:
    """A prompt's token ids; a DataError that begins with `place` where its template cannot write it."""
    try:
        return renderer.prompt_ids(prompt)
    except DataError as error:
        raise DataError(f"{place}, {error.place}", error.problem, error.way_out) from error


def read_prompts(name: str) -> list[Messages]:
    """Prompts from a text file with one a line, from a data set, or from the world; each different prompt once."""
    if name.endswith(".txt"):
        return list(dict.fromkeys((Message("user", line),) for line in read_lines(name)))
    return list(dict.fromkeys(record.prompt for record in read_records(name, "prompts").records))


def read_lines(name: str) -> list[str]:
    """The lines of a text file that say something."""
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(name, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(name, f"not UTF-8 ({error.reason})", "Save the file as UTF-8.") from error
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(name, "the file is empty: there is no prompt in it", "Write one prompt a line.")
    return lines


def read_records(name: str, want: Want = "any") -> Records:
    """A data set by file, Hub name or world name; a row that cannot be used is an error."""
    return world.records(name) if name.startswith("world:") else formats.load(name, want=want)


def score(model: str, data: str, out: Path) -> int:
    """Write what a model makes of every row, in order; returns how many rows.

    A language model: `chosen_logp, rejected_logp, chosen_length, rejected_length` for pairs (sums in nats and tokens
    over the response), `logp, length` for single responses. A reward model: `chosen_reward, rejected_reward`, or
    `reward`. Nothing is cut: a row longer than the model's context is an error.
    """
    policy = load_any(base.named(model, Show(quiet=True)))
    records = read_records(data)
    first = records.records[0]
    shape: Shape = "pairs" if isinstance(first, Judgement) and len(first.responses) == 2 else "single"
    planted = plant(records, Renderer(policy.tokenizer), max_length=context_length(policy), shape=shape)
    if planted.notes:
        most = context_length(policy)
        raise UserError(f"{data}: {model} reads {most} tokens, so not every row can be scored whole: {planted.text()}")
    values = rewards(policy, planted.trees) if policy.is_reward else sums(policy, planted.trees)
    names = ("chosen_", "rejected_") if shape == "pairs" else ("",)
    rows, at = [], iter(values)
    for tree in planted.trees:
        found = {name: (next(at), sum(b.loss)) for name, b in zip(names, tree.branches, strict=True)}
        if policy.is_reward:
            rows.append({f"{name}reward": value for name, (value, _) in found.items()})
        else:
            logps = {f"{name}logp": value for name, (value, _) in found.items()}
            rows.append(logps | {f"{name}length": length for name, (_, length) in found.items()})
    write_lines(out, rows)
    return len(rows)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSONL, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
