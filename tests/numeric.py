"""The tests that compare numbers tightly, run again under another instruction set or with another number of threads.

    python tests/numeric.py [--workers N] SETTING ...

A setting is INSTRUCTIONS:THREADS. Instructions are `own` (the best the processor has), `avx2`, `plain` (SSE), or `lower`: the
next below its own. One that the processor has not is left out, with a word. `make numeric` runs it, and so does `make test`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).parent
PARTS = [
    "parallel/test_bounds.py",
    "parallel/test_objectives.py",
    "parallel/test_ranks.py",
    "parallel/test_online.py",
    "invariance",
    "objectives",
    "golden",
    "policy/test_attention.py",
    "policy/test_entropy.py",
    "policy/test_heads.py",
    "policy/test_load.py",
    "policy/test_rows.py",
    "policy/test_value.py",
    "policy/test_precision.py",
    "evaluate/test_ties_of_rounding.py",
    "train/test_sampler.py",
    "train/test_fit.py",
    "train/test_survey.py",
]

LIMITS = {
    "AVX512": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
"""torch's name of an instruction set, the best first, and what keeps torch, oneDNN and MKL to it."""

NAMES = {"avx2": "AVX2", "plain": "DEFAULT"}


def reported(environment: dict[str, str]) -> str:
    """The instruction set that torch says it computes with, under this environment."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def limits(name: str, own: str) -> dict[str, str] | str:
    """The environment that keeps to these instructions on a processor whose own are `own`, or why there is none."""
    if name == "own":
        return {}
    if own not in LIMITS:
        return f"torch knows one instruction set on this processor, {own}"
    below = list(LIMITS)[list(LIMITS).index(own) + 1 :]
    if not below:
        return f"this processor has nothing below {own}"
    wanted = below[0] if name == "lower" else NAMES[name]
    return LIMITS[wanted] if wanted in below else f"{wanted} is not below this processor's own, {own}"


def run(setting: str, workers: int, own: str, more: Iterable[str]) -> int:
    """The exit code of the numeric tests under one setting; 0 where the processor does not have it."""
    name, _, threads = setting.partition(":")
    found = limits(name, own)
    if isinstance(found, str):
        print(f"numeric: {setting} is skipped: {found}", flush=True)
        return 0
    environment = os.environ | found | {"TRUING_TEST_THREADS": threads, "OMP_NUM_THREADS": threads}
    environment["OMP_WAIT_POLICY"] = "passive"  # workers of several threads are more than the cores, and would spin
    print(f"numeric: {reported(environment)} instructions, threads: {threads}", flush=True)
    each = ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    command = [sys.executable, "-m", "pytest", *each, *more, *(str(TESTS / part) for part in PARTS)]
    return subprocess.run(command, env=environment, cwd=TESTS.parent, check=False).returncode


def setting(text: str) -> str:
    """Check a setting that was typed."""
    name, colon, threads = text.partition(":")
    if name not in ("own", "lower", *NAMES) or not colon or not threads.isdigit() or int(threads) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no INSTRUCTIONS:THREADS of own, lower, {', '.join(NAMES)}")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Every setting in turn; the first exit code that is not 0."""
    typed = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    typed.add_argument("--workers", type=int, default=1)
    typed.add_argument("settings", nargs="+", type=setting, metavar="SETTING")
    options, more = typed.parse_known_args(arguments)
    own = reported(dict(os.environ))
    codes = [run(each, options.workers, own, more) for each in options.settings]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
