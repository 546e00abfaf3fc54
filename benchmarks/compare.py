"""Truing beside its peers: the same rows, model and precision, run in turn (A B A B), medians and spreads in one table.

    make bench                                    # everything, about half an hour
    make bench TASKS="dpo" MODELS="S-8k" ROUNDS=2

Every pair of runs is first checked to compute the same: equal token counts, and losses within 1e-4 over the first five
steps. Speeds are rows a second of CPU time on one thread, the first epoch left out; memory is the process's peak.
Packed SFT has other batches on the two sides, so there data tokens a second are compared, and no losses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STEPS = 5
TOLERANCE = 1e-4
Line = dict[str, Any]


def measure(python: str, script: str, task: str, model: Path, args: argparse.Namespace, *more: str) -> Line:
    """One run of one side in a process of its own."""
    command = [python, str(HERE / script), task, str(model), str(args.data)]
    command += ["--rows", str(args.rows), "--epochs", str(args.epochs), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.split("\n") if line.startswith('{"side"')]
    if not lines:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    record: Line = json.loads(lines[-1])
    return record


def check(ours: Line, peer: Line) -> float:
    """Refuse to compare speeds of runs that do not compute the same; returns the largest difference of losses."""
    if ours["tokens"][:STEPS] != peer["tokens"][:STEPS]:
        sys.exit(f"token counts differ: {ours['tokens'][:STEPS]} and {peer['tokens'][:STEPS]}")
    off = max(abs(a - b) for a, b in zip(ours["losses"][:STEPS], peer["losses"][:STEPS], strict=True))
    if off > TOLERANCE:
        sys.exit(f"losses differ by {off:.1e}: {ours['losses'][:STEPS]} and {peer['losses'][:STEPS]}")
    return off


def matmul_rate(threads: int = 1) -> float:
    """The machine's matrix-product rate in floating-point operations a second of CPU time, at the models' shapes."""
    import time

    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(2048, 512), torch.randn(512, 1536)
    for _ in range(5):
        a @ b
    rates = []
    for _ in range(20):
        start = time.process_time()
        for _ in range(4):
            a @ b
        rates.append(4 * 2 * 2048 * 512 * 1536 / (time.process_time() - start))
    return statistics.median(rates)


def spread(values: list[float]) -> str:
    """Median and range, as in `7.1 (6.9 to 7.3)`."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def compare_tokens(task: str, model: Path, args: argparse.Namespace) -> str:
    """A row of the table for a task whose batches differ: data tokens a second."""
    ours, peer = [], []
    for _ in range(args.rounds):
        ours.append(measure(sys.executable, "ours.py", "sft", model, args))
        peer.append(measure(args.peer, "peer_trl.py", task, model, args))
    return table_row(f"{task}, tokens", model, ours, peer, "tokens_per_s", "other batches")


def table_row(task: str, model: Path, ours: list[Line], peer: list[Line], unit: str, apart: str) -> str:
    """Speeds, their ratio run by run, memory and the share of the machine's matrix-product rate."""
    ratios = [a[unit] / b[unit] for a, b in zip(ours, peer, strict=True)]
    share = statistics.median(x["rate"] for x in ours) / matmul_rate()
    memory = [max(x["peak_mb"] for x in side) / 1024 for side in (peer, ours)]
    speeds = [spread([x[unit] for x in side]) for side in (peer, ours)]
    return (
        f"| {task} | {model.name} | {speeds[0]} | {speeds[1]} | **{spread(ratios)}** | "
        f"{memory[0]:.1f} / {memory[1]:.1f} ({memory[1] / memory[0]:.2f}) | {share:.0%} | {apart} |"
    )


def compare(task: str, model: Path, args: argparse.Namespace) -> str:
    """A row of the table."""
    if task == "sft-packed":
        return compare_tokens(task, model, args)
    more = ["--sort"] if args.sort else []
    flush = ["--flush"] if args.flush else []
    ours, peer = [], []
    for _ in range(args.rounds):
        ours.append(measure(sys.executable, "ours.py", task, model, args, *more))
        peer.append(measure(args.peer, "peer_trl.py", task, model, args, *more, *flush))
    off = max(check(a, b) for a, b in zip(ours, peer, strict=True))
    return table_row(task, model, ours, peer, "rows_per_s", f"{off:.0e}")


def main() -> None:
    """Compare and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, help="folder of models made by models.py")
    parser.add_argument("--peer", default=".venv-peer/bin/python")
    parser.add_argument("--tasks", nargs="+", default=["sft", "reward", "dpo", "dpo-cached"])
    parser.add_argument("--names", nargs="+", default=["S-8k"])
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flush", action="store_true", help="the peer flushes denormal numbers too")
    parser.add_argument("--sort", action="store_true", help="rows in order of length: hardly any padding")
    args = parser.parse_args()
    columns = ["task", "model", "TRL 1.16, rows/s", "Truing, rows/s", "ratio", "peak GB, TRL / Truing", "matrix rate"]
    print("| " + " | ".join([*columns, "losses apart"]) + " |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.names:
        for task in args.tasks:
            print(compare(task, args.models / name, args), flush=True)


if __name__ == "__main__":
    main()
