"""Spoil files by the hundred thousand: `make fuzz`.

    .venv/bin/python tests/fuzz/run.py --count 100000 --command 300 --workers 2

Each mutation follows from its number and its target alone. What a command did that it must not do is printed once per
kind, with a mutation that shows it: put that into tests/fuzz/kept.jsonl when it is mended.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def targets_in(count: int) -> list[str]:
    """A thousand names, each as often as its share, in an order that mixes them; repeated to `count`."""
    from targets import TARGETS

    names = [target.name for target in TARGETS for _ in range(target.share)]
    random.Random(0).shuffle(names)
    return [names[i % 1000] for i in range(count)]


def work(numbers: list[int], names: dict[int, str], template: str, log: str, by_command: bool) -> None:
    """Judge these mutations, one line of the log for each that is begun and for each that is judged."""
    import torch
    from mutations import apply, draw
    from targets import BY_NAME, as_command, files_of, in_process, judge

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as own, open(log, "a", buffering=1) as out:
        for number in numbers:
            target = BY_NAME[names[number]]
            files = files_of(target, Path(template))
            edits = draw(Path(template) / target.within, files, random.Random(f"{number} {target.name}"))
            line: dict[str, Any] = {"number": number, "target": target.name, "edits": edits}
            out.write(json.dumps(line) + "\n")
            begun = time.perf_counter()
            way = as_command if by_command else in_process
            code, wrong = judge(target, Path(template), Path(own), lambda place, e=edits: apply(place, e), way)
            taken = time.perf_counter() - begun
            out.write(json.dumps({"number": number, "code": code, "wrong": wrong, "seconds": round(taken, 3)}) + "\n")


def rounds(numbers: list[int], names: dict[int, str], template: str, log: str, by_command: bool) -> None:
    """Let a process judge these mutations, another one what is left where it has died, until all are done."""
    while numbers:
        process = multiprocessing.get_context("spawn").Process(
            target=work, args=(numbers, names, template, log, by_command)
        )
        process.start()
        process.join()
        lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
        begun = {line["number"] for line in lines if "target" in line}
        done = {line["number"] for line in lines if "code" in line}
        with open(log, "a") as out:
            for number in begun - done:
                out.write(json.dumps({"number": number, "code": -1, "wrong": "the process died", "seconds": 0}) + "\n")
        numbers = [number for number in numbers if number not in begun]


def kind_of(wrong: str) -> str:
    """A problem without what differs between two of its kind."""
    return re.sub(r"\d+(\.\d+)?|'[^']*'|0x\w+", "#", wrong)[:160]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--command", type=int, default=300, help="so many more through the command itself")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--first", type=int, default=0, help="the first mutation's number")
    parser.add_argument("--only", nargs="*", help="of these targets alone")
    parser.add_argument("--log", type=Path, help="where the lines are kept")
    options = parser.parse_args()
    from targets import build

    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template"
        template.mkdir()
        build(template)
        log = str(options.log or Path(folder) / "log")
        Path(log).write_text("")
        begun = time.perf_counter()
        for count, by_command in ((options.count, False), (options.command, True)):
            order = dict(enumerate(targets_in(count), start=options.first + 10_000_000 * by_command))
            numbers = [n for n, name in order.items() if not options.only or name in options.only]
            share = [numbers[i :: options.workers] for i in range(options.workers)]
            logs = [f"{log}.{by_command:d}.{i}" for i in range(options.workers)]
            for path in logs:
                Path(path).write_text("")
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(options.workers) as pool:
                list(pool.map(lambda n, p, b=by_command, o=order: rounds(n, o, str(template), p, b), share, logs))
            with open(log, "a") as out:
                for path in logs:
                    out.write(Path(path).read_text())
                    Path(path).unlink()
        return report(Path(log), time.perf_counter() - begun)


def report(log: Path, seconds: float) -> int:
    """Print what was found: kinds of problems with an instance each, exit codes by target, the slowest."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    edits = {line["number"]: line for line in lines if "target" in line}
    done = [line for line in lines if "code" in line]
    codes = collections.Counter((edits[line["number"]]["target"], line["code"]) for line in done)
    print(f"{len(done):,} mutations in {seconds:,.0f} s")
    for name in sorted({name for name, _ in codes}):
        print(f"  {name:10}", ", ".join(f"{code}: {n:,}" for (t, code), n in sorted(codes.items()) if t == name))
    kinds = collections.defaultdict(list)
    for line in done:
        if line["wrong"]:
            kinds[edits[line["number"]]["target"], kind_of(line["wrong"])].append(line)
    for (target, _), group in sorted(kinds.items(), key=lambda item: -len(item[1])):
        shortest = min(group, key=lambda line: len(json.dumps(edits[line["number"]]["edits"])))
        print(f"\n{len(group):,} x {target}: {shortest['wrong']}")
        print("  " + json.dumps({"target": target, "edits": edits[shortest["number"]]["edits"]}))
    slow = sorted(done, key=lambda line: -line["seconds"])[:5]
    print("\nslowest:", [(edits[line["number"]]["target"], line["seconds"], line["number"]) for line in slow])
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
