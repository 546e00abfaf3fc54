"""The cost of a step: CPU seconds and peak memory against tokens, answers per prompt, prompt share and vocabulary.

    make cost                     # the curves, and the table in docs/benchmarks.md

Every point is a process of its own: DPO-like work (policy log-probabilities of all responses, forward and backward, one
update) on trees of random tokens, one thread, the median of the steps after the first two.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

STEPS = 6
Point = dict[str, float]


def measure(model: Path, trees: int, prompt: int, branches: int, length: int) -> Point:
    """One point, in this process."""
    import torch

    from truing.data.batch import Batch, Branch, Tree
    from truing.policy.load import load
    from truing.settings import Training
    from truing.train.optim import Optim

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    policy = load(str(model))
    policy.verified = True
    for parameter in policy.model.parameters():
        parameter.data = parameter.data.clone()  # safetensors maps the file: else the weights would count as training's
    optim = Optim(policy.model, Training(steps=STEPS), STEPS)
    generator = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(300, 8000, (n,), generator=generator).tolist())

    def branch() -> Branch:
        return Branch("response", ids(length), (True,) * length)

    batch = Batch(tuple(Tree(ids(prompt), tuple(branch() for _ in range(branches)), i, i) for i in range(trees)))
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    seconds = []
    for step in range(1, STEPS + 1):
        start = time.process_time()
        policy.logp(batch).sum().mul(-1e-3).backward()
        optim.step(step)
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = policy.model.get_input_embeddings().weight.numel() * 4 / 2**20
    return {
        "seconds": statistics.median(seconds[2:]),
        "tokens": batch.tokens,
        "data_tokens": batch.data_tokens,
        "peak_mb": peak / 1024 - before,
        "embedding_mb": held,
    }


def point(folder: Path, model: str, **sizes: int) -> Point:
    """One point, in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--point", json.dumps({"model": model} | sizes)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    measured: Point = json.loads(done.stdout.strip().split("\n")[-1])
    return measured


def tokens(folder: Path) -> None:
    """Step time against tokens, at one tree length."""
    print("\n| tokens in a step (pairs of 200 + 60 + 60) | ms | µs a token |\n|---|---|---|")
    for trees in (4, 8, 16, 32):
        p = point(folder, "S-8k", trees=trees, prompt=200, branches=2, length=60)
        print(f"| {p['tokens']:,} | {1e3 * p['seconds']:.0f} | {1e6 * p['seconds'] / p['tokens']:.0f} |", flush=True)


def answers(folder: Path) -> None:
    """The savings of sharing the prompt, by the number of responses to it."""
    print("\n| answers of 64 to a prompt of 256 | computed / data tokens | ms | µs a data token |\n|---|---|---|---|")
    for n in (1, 2, 4, 8, 16):
        p = point(folder, "S-8k", trees=max(1, 16 // n), prompt=256, branches=n, length=64)
        counts = f"{p['tokens']:,} / {p['data_tokens']:,}"
        print(
            f"| {n} | {counts} | {1e3 * p['seconds']:.0f} | {1e6 * p['seconds'] / p['data_tokens']:.0f} |", flush=True
        )


def shares(folder: Path) -> None:
    """The savings of sharing the prompt, by its share of a pair's sequences."""
    print("\n| prompt share of a sequence of 320 | computed / data tokens | ms | µs a data token |\n|---|---|---|---|")
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        prompt = round(320 * share)
        p = point(folder, "S-8k", trees=8, prompt=prompt, branches=2, length=320 - prompt)
        counts = f"{p['tokens']:,} / {p['data_tokens']:,}"
        print(
            f"| {share:.0%} | {counts} | {1e3 * p['seconds']:.0f} | {1e6 * p['seconds'] / p['data_tokens']:.0f} |",
            flush=True,
        )


def vocabularies(folder: Path) -> None:
    """Step time and memory against the vocabulary."""
    heads = ("vocabulary", "ms", "peak MB of training beside the weights")
    heads += ("gradients and moments of the tied embedding, MB", "the rest, MB")
    print(f"\n| {' | '.join(heads)} |")
    print("|---|---|---|---|---|")
    for name in ("S-8k", "S-32k", "S-128k"):
        p = point(folder, name, trees=8, prompt=200, branches=2, length=60)
        embedding = (
            5 * p["embedding_mb"]
        )  # two gradients (as input and as head, before they are added), two moments, one sum
        memory = f"{p['peak_mb']:.0f} | {embedding:.0f} | {p['peak_mb'] - embedding:.0f}"
        print(f"| {name[2:]} | {1e3 * p['seconds']:.0f} | {memory} |", flush=True)


def main() -> None:
    """Measure one point, or print every curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--point")
    args = parser.parse_args()
    if args.point:
        sizes = json.loads(args.point)
        print(json.dumps(measure(args.models / sizes.pop("model"), **sizes)))
        return
    for curve in (tokens, answers, shares, vocabularies):
        curve(args.models)


if __name__ == "__main__":
    main()
