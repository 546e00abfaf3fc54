"""Common code of both sides of a comparison: rows, arguments, clock, report. It imports neither side."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TASKS = ("sft", "sft-packed", "reward", "dpo", "dpo-cached")
MAX_LENGTH = 1024
SETTINGS = {"learning_rate": 1e-5, "clip": 1.0, "betas": (0.9, 0.95), "eps": 1e-8, "beta": 0.1}


def arguments(doc: str) -> argparse.Namespace:
    """The command line of one measurement."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--flush", action="store_true", help="flush denormal numbers on the peer's side too")
    parser.add_argument("--sort", action="store_true", help="rows in order of length: hardly any padding")
    parser.add_argument("--wall", action="store_true", help="wall time and all threads; else CPU time on one thread")
    args = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ.update(WANDB_DISABLED="true")
    if not args.wall:
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    return args


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The first rows, in a fixed shuffled order, whose responses are one message that says something."""
    opened = gzip.open if args.data.suffix == ".gz" else open
    with opened(args.data, "rt", encoding="utf-8") as file:
        usable = [json.loads(line) for line in file.read().split("\n") if line]
    usable = [r for r in usable if all(plain(r[side]) for side in ("chosen", "rejected")) and alternates(r["prompt"])]
    random.Random(1).shuffle(usable)
    usable = usable[: args.rows]
    if args.sort:
        usable.sort(key=lambda r: sum(len(m["content"]) for part in ("prompt", "chosen", "rejected") for m in r[part]))
    return [{k: r[k] for k in ("prompt", "chosen", "rejected")} for r in usable]


def plain(side: list[dict[str, str]]) -> bool:
    """True if a response is one message with text, without blanks around it."""
    return len(side) == 1 and bool(side[0]["content"]) and side[0]["content"] == side[0]["content"].strip()


def alternates(prompt: list[dict[str, str]]) -> bool:
    """True if roles alternate from the user on, without blanks around the texts."""
    roles = [m["role"] for m in prompt]
    return roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] and all(
        m["content"] and m["content"] == m["content"].strip() for m in prompt
    )


def clock(args: argparse.Namespace) -> Callable[[], float]:
    """CPU time of this process, or wall time."""
    return time.perf_counter if args.wall else time.process_time


def report(
    args: argparse.Namespace, side: str, seconds: list[float], tokens: list[int], losses: list[float], **more: Any
) -> None:
    """One JSON line. The first epoch is left out of the speed: a first step maps memory."""
    skip = len(seconds) // args.epochs if args.epochs > 1 else 1
    timed = seconds[skip:]
    line = {
        "side": side,
        "task": args.task,
        "model": args.model.name,
        "rows_per_s": args.batch * len(timed) / sum(timed),
        "tokens_per_s": sum(tokens[skip:]) / sum(timed),
        "step_s": statistics.median(timed),
        "tokens": tokens,
        "losses": losses,
        **more,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(line), file=sys.stdout, flush=True)
