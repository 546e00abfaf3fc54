"""Sampling beside transformers' own `generate`: the same model, prompts and settings, run in turn (A B A B).

    make generate                                 # the table in docs/benchmarks.md

Groups of 8 answers of at most 64 tokens to real prompts, at temperature 1, once to the limit (`fixed`), once with end
tokens that a trained model's would resemble: one token in 32 is one (`stopping`). Every run is a process of its own. It
first answers greedily, and the two sides must say the same; then it samples a few times, the first left out.
Speeds are answers a second of CPU time on one thread; memory is the process's peak. Truing keeps log-probabilities,
transformers is not asked for them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ANSWERS, TOKENS, GREEDY, ROUNDS_EACH = 8, 64, 8, 3
Line = dict[str, Any]
Answer = Callable[[Sequence[Sequence[int]], bool, int], list[list[int]]]


def prompts(data: Path, number: int) -> list[list[dict[str, str]]]:
    """So many conversations of the data that ask for an answer, in a fixed shuffled order."""
    opened = gzip.open if data.suffix == ".gz" else open
    with opened(data, "rt", encoding="utf-8") as file:
        usable = [json.loads(line)["prompt"] for line in file.read().split("\n") if line]
    usable = [p for p in usable if p[-1]["role"] == "user" and sum(len(m["content"]) for m in p) < 4000]
    random.Random(1).shuffle(usable)
    return usable[:number]


def truing(model: Path, ends: list[int]) -> tuple[Any, Answer]:
    """The tokenizer, and how Truing answers."""
    from truing.policy.load import load
    from truing.rollout.engine import Sampling, generate

    policy = load(str(model))

    def answer(ids: Sequence[Sequence[int]], greedy: bool, seed: int) -> list[list[int]]:
        tokens, temperature = (GREEDY, 0.0) if greedy else (TOKENS, 1.0)
        sampling = Sampling(tokens, temperature, seed, stop_tokens=tuple(ends))
        return [list(r.response_ids) for r in generate(policy, ids, sampling, 1 if greedy else ANSWERS)]

    return policy.tokenizer, answer


def transformers(model: Path, ends: list[int]) -> tuple[Any, Answer]:
    """The tokenizer, and how transformers answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    ends = sorted({*ends, policy.generation_config.eos_token_id})

    @torch.inference_mode()
    def answer(ids: Sequence[Sequence[int]], greedy: bool, seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        batch = tokenizer.pad({"input_ids": list(ids)}, return_tensors="pt")
        how: Line = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": ANSWERS}
        how = {"do_sample": False, "max_new_tokens": GREEDY} if greedy else how | {"max_new_tokens": TOKENS}
        out = policy.generate(**batch, **how, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
        return [cut(row, ends) for row in out[:, batch.input_ids.shape[1] :].tolist()]

    return tokenizer, answer


def cut(ids: list[int], ends: list[int]) -> list[int]:
    """An answer up to its end token."""
    at = next((t for t, i in enumerate(ids) if i in ends), len(ids) - 1)
    return ids[: at + 1]


def measure(args: argparse.Namespace) -> Line:
    """One side, in this process."""
    import torch

    torch.set_num_threads(1)
    ends = list(range(300, 300 + 8192 // 32)) if args.stopping else []
    tokenizer, answer = {"truing": truing, "transformers": transformers}[args.side](args.model, ends)
    chosen = prompts(args.data, args.rows // ANSWERS)
    ids = [tokenizer.apply_chat_template(p, add_generation_prompt=True, return_dict=False) for p in chosen]
    greedy = answer(ids, True, 0)
    seconds, tokens = [], 0
    for seed in range(ROUNDS_EACH + 1):
        start = time.process_time()
        answers = answer(ids, False, seed)
        seconds.append(time.process_time() - start)
        tokens += sum(map(len, answers)) if seed else 0
    return {
        "greedy": greedy,
        "rows_per_s": ROUNDS_EACH * len(answers) / sum(seconds[1:]),
        "tokens": tokens / ROUNDS_EACH / len(answers),
        "prompt": sum(map(len, ids)) / len(ids),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run(side: str, model: Path, rows: int, stopping: bool, data: Path) -> Line:
    """One side, in a process of its own."""
    command = [sys.executable, __file__, str(data), str(model.parent), "--side", side, "--model", str(model)]
    command += ["--rows", str(rows)] + ["--stopping"] * stopping
    offline = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=offline)
    lines = [line for line in done.stdout.split("\n") if line.startswith('{"greedy"')]
    if not lines:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    record: Line = json.loads(lines[-1])
    return record


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def compare(model: Path, rows: int, stopping: bool, args: argparse.Namespace) -> str:
    """A row of the table."""
    ours, peer = [], []
    for _ in range(args.rounds):
        ours.append(run("truing", model, rows, stopping, args.data))
        peer.append(run("transformers", model, rows, stopping, args.data))
    if any(a["greedy"] != b["greedy"] for a, b in zip(ours, peer, strict=True)):
        sys.exit(f"{model.name}: the two sides do not give the same greedy answers")
    ratios = [a["rows_per_s"] / b["rows_per_s"] for a, b in zip(ours, peer, strict=True)]
    memory = [max(x["peak_mb"] for x in side) / 1024 for side in (peer, ours)]
    lengths = f"{ours[0]['prompt']:.0f} + {peer[0]['tokens']:.0f} / {ours[0]['tokens']:.0f}"
    speeds = [spread([x["rows_per_s"] for x in side]) for side in (peer, ours)]
    return (
        f"| {'stopping' if stopping else 'fixed'} | {model.name} | {rows} | {lengths} | {speeds[0]} | {speeds[1]} | "
        f"**{spread(ratios)}** | {memory[0]:.2f} / {memory[1]:.2f} ({memory[1] / memory[0]:.2f}) |"
    )


def main() -> None:
    """Compare and print the table; with --side measure one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, help="folder of models made by models.py")
    parser.add_argument("--points", nargs="+", default=["S-8k:64", "S-8k:128", "M-8k:64"], help="model:rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["truing", "transformers"])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--stopping", action="store_true")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)), flush=True)
        return
    columns = [
        "answers",
        "model",
        "rows",
        "tokens: prompt + answer, both",
        "transformers, answers/s",
        "Truing, answers/s",
    ]
    print("| " + " | ".join([*columns, "ratio", "peak GB, transformers / Truing"]) + " |")
    print("|---|---|---|---|---|---|---|---|")
    for point in args.points:
        name, rows = point.split(":")
        for stopping in (False, True):
            print(compare(args.models / name, int(rows), stopping, args), flush=True)


if __name__ == "__main__":
    main()
