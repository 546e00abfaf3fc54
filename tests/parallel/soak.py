"""Random kills, one process and two in turn, until each chain of runs is through: its weights are those of a quiet run.

make soak [KILLS=20] [SEED=0]
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path

from parallel import jobs

CASE = {"objective": "dpo", "checkpoint_every": 2}
POINTS = {"part": 29, "update": 8, "mid-save": 6, "before-rename": 3, "after-rename": 3, "epoch": 5}
FIRST_RANK_ONLY = ("before-rename", "after-rename")


def killed(processes: int, name: str, out: Path, kill: str) -> bool:
    """One run of a chain: whether it was killed, or came through."""
    _, codes = jobs.forked(name, processes, CASE | {"out": str(out), "kill": kill})
    assert -signal.SIGKILL in codes or not any(codes), f"{name} ended by itself: {codes}"
    return any(codes)


def left(out: Path) -> str:
    """The checkpoint that a killed run left."""
    return max((path.name for path in out.glob("checkpoints/step-*")), default="no checkpoint")


def off(out: Path) -> float:
    """How far a finished chain is from the quiet run, in units of what rounding may do."""
    quiet, found = (jobs.Ended(folder, 0, "", {}, []) for folder in (jobs.place() / "quiet-0", out))
    return jobs.off(quiet, found)


def main() -> int:
    """The soak; 1 where some chain ended elsewhere than the quiet run."""
    given = argparse.ArgumentParser()
    given.add_argument("--kills", type=int, default=20)
    given.add_argument("--seed", type=int, default=0)
    options = given.parse_args()
    draw, worst, chains = random.Random(options.seed), {1: 0.0, 2: 0.0}, {1: 0, 2: 0}
    assert jobs.alone("quiet", **CASE).code == 0
    kills = 0
    while kills < options.kills:
        processes = 1 + kills % 2
        out = jobs.place() / f"chain-{processes}-{chains[processes]}"
        point = draw.choice(list(POINTS))
        rank = 0 if processes == 1 or point in FIRST_RANK_ONLY else draw.randrange(2)
        kill, began = f"{point}:{draw.randint(1, POINTS[point])}:{rank}", time.monotonic()
        struck = killed(processes, f"soak-{kills}", out, kill)
        told = f"kill {kills + 1:3}: {processes} process{'es' if processes > 1 else ''}, {kill:20} "
        if struck:
            kills += 1
            print(f"{told} left {left(out)}  ({time.monotonic() - began:.0f} s)", flush=True)
            continue
        worst[processes] = max(worst[processes], off(out))
        chains[processes] += 1
        print(f"{told} not met any more: through, off by {off(out):.1e} of rounding", flush=True)
    for processes in (1, 2):
        out = jobs.place() / f"chain-{processes}-{chains[processes]}"
        assert not killed(processes, f"last-{processes}", out, "none")
        worst[processes] = max(worst[processes], off(out))
    print(
        f"{options.kills} kills, seed {options.seed}: one process off by {worst[1]:.1e} of rounding, two by {worst[2]:.1e}"
    )
    return int(worst[1] > 0 or worst[2] > 1)


if __name__ == "__main__":
    sys.exit(main())
