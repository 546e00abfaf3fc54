"""Spawning the driver: a server of forked jobs, jobs under torchrun, and the jobs that several tests look at."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import bounds
from small_models import build
from threads import THREADS

DRIVER = Path(__file__).with_name("driver.py")
TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8
PLAIN = dict(
    os.environ,
    PYTHONPATH=str(Path(__file__).parents[1]),
    OMP_NUM_THREADS=str(THREADS),
    HF_HUB_OFFLINE="1",
    PYTHONUNBUFFERED="1",
)
RECIPE = """\
title: small
base: {new: llama, hidden: 64, layers: 2, vocab: 300, text: $inputs.data}
inputs: {data: pairs.jsonl}
stages:
  data: {do: split, data: $inputs.data, eval: 0.2}
  warm: {do: sft, model: $base, data: $data.train, steps: 3, rows_per_step: 3, checkpoint_every: 1}
  rm: {do: fit_reward, model: $warm, data: $data.train, eval: $data.eval, steps: 2, rows_per_step: 1}
  direct: {do: prefer, model: $warm, data: $data.train, steps: 3, rows_per_step: 5}
  exam: {do: evaluate, models: [$rm, $direct], against: $warm, data: $data.eval}
  release: {do: gate, evidence: $exam, rules: rules.yaml}
"""
TWO = ["--standalone", "--nproc-per-node", "2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", *TWO]
LAUNCH = [sys.executable, "-m", "truing.launch", *TWO]
OBJECTIVES = ("nll", "bradley_terry", "dpo")
LAYOUTS = ("padded", "rows")
LORA = {"lora": 4, "gradient_checkpointing": True}


@functools.cache
def place() -> Path:
    """A folder for all jobs of this session."""
    folder = Path(tempfile.mkdtemp(prefix="truing-jobs-"))
    weakref.finalize(place, shutil.rmtree, folder, True)
    return folder


@functools.cache
def model(other: bool = False) -> str:
    """A small random model; and one that differs from it in a single frozen weight."""
    if not other:
        return str(build("llama", TEXT, place() / "model", vocab=300))
    folder = Path(shutil.copytree(model(), place() / "other"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][7, 7] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def write_recipe(folder: Path) -> None:
    """A recipe `r.yaml` with every kind of stage, and its data."""
    rows = [{"prompt": f"question {i}", "chosen": f"good {i}" * (i % 3 + 1), "rejected": f"bad {i}"} for i in range(60)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rules.yaml").write_text("rules: [{check: held_out_accuracy, min: 0.0}]\n")
    (folder / "r.yaml").write_text(RECIPE)


@dataclass(frozen=True)
class Ended:
    """What became of one case: `code` is that of the process or of the case, `error` what was said."""

    out: Path
    code: int
    error: str
    files: dict[str, int]
    lines: list[str]

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.out / "weights.safetensors")

    def off(self) -> dict[str, torch.Tensor]:
        """How far rounding may move each weight; of a run by one process."""
        return load_file(self.out / "off.safetensors")

    def facts(self) -> dict[str, Any]:
        return json.loads((self.out / "facts.json").read_text())

    def metrics(self) -> list[dict[str, float]]:
        rows = [json.loads(line) for line in self.lines]
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def write_job(name: str, cases: Sequence[dict[str, Any]]) -> Path:
    """A job's file; each case is given a folder."""
    path = place() / f"{name}.json"
    for number, case in enumerate(cases):
        case.setdefault("out", str(place() / f"{name}-{number}"))
    path.write_text(json.dumps({"folder": model(), "cases": list(cases)}))
    return path


def read_case(path: Path, number: int, rank: int = 0) -> Ended:
    """What became of a case, as that rank saw it."""
    out = Path(json.loads(path.read_text())["cases"][number]["out"])
    report = path.with_name(f"{path.stem}-{number}-{rank}.json")
    return Ended(out, **json.loads(report.read_text()))


@functools.cache
def server() -> subprocess.Popen[str]:
    """A process with all imports done that forks a child for each rank of a job."""
    process = subprocess.Popen(
        [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=PLAIN
    )
    weakref.finalize(server, process.kill)
    return process


def alone(name: str, **case: Any) -> Ended:
    """One case in one process; where it was killed, there is but its folder and the signal as a negative code."""
    path, (code,) = forked(name, 1, case)
    if code in (-signal.SIGKILL, 77):
        return Ended(Path(case["out"]), code, "", {}, [])
    return read_case(path, 0)


def forked(name: str, count: int, case: dict[str, Any]) -> tuple[Path, list[int]]:
    """One case by so many ranks without a launcher: its file, and how each rank ended."""
    path, process = write_job(name, [case]), server()
    assert process.stdin and process.stdout
    process.stdin.write(f"{count} {path}\n")
    process.stdin.flush()
    return path, [int(code) for code in process.stdout.readline().split()]


def two(name: str, cases: Sequence[dict[str, Any]], *flags: str, **env: str) -> tuple[Path, str, int]:
    """A job by two ranks under torchrun: its file, what was printed, the exit code."""
    path = write_job(name, cases)
    done = subprocess.run(
        [*TORCHRUN, *flags, str(DRIVER), str(path)],
        capture_output=True,
        text=True,
        env=PLAIN | env,
        timeout=240,
        check=False,
    )
    return path, done.stdout + done.stderr, done.returncode


@functools.cache
def brought() -> str:
    """An adapter of peft on a tied base: single tokens are trained in the embedding and in the head that shares its
    weight, and a norm is saved whole."""
    build("llama-tied", TEXT, place() / "tied", vocab=300)
    torch.manual_seed(2)
    options: dict[str, Any] = {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}
    config = LoraConfig(r=2, task_type="CAUSAL_LM", trainable_token_indices=list(range(0, 300, 7)), **options)
    get_peft_model(AutoModelForCausalLM.from_pretrained(place() / "tied"), config).save_pretrained(place() / "brought")
    AutoTokenizer.from_pretrained(place() / "tied").save_pretrained(place() / "brought")
    return str(place() / "brought")


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference between two sets of weights."""
    assert one.keys() == other.keys() and all(w.dtype == torch.float64 for w in one.values())
    return max((one[name] - other[name]).abs().max().item() for name in one)


def off(measure: Ended, other: Ended) -> float:
    """The largest difference of a run's weights from those of a run by one process, in units of what rounding may do to
    each: equal weights are at most 1."""
    return bounds.worst(measure.weights(), other.weights(), measure.off())


@functools.cache
def single() -> dict[str, Ended]:
    """The measure: five steps of every kind in one process."""
    found = {name: alone(f"single-{name}", objective=name, steps=5, checkpoint_every=3) for name in OBJECTIVES}
    found["lonely"] = alone("single-lonely", objective="dpo", steps=5, rows_per_step=1)
    for layout in LAYOUTS:
        found[layout] = alone(f"single-{layout}", objective="nll", steps=5, layout=layout)
    found["lora"] = alone("single-lora", objective="bradley_terry", steps=5, **LORA)
    found["brought"] = alone("single-brought", objective="nll", steps=5, base=brought())
    return found


def begin_like(out: Path, folder: Path) -> None:
    """Put into a folder what a run needs that goes on from the checkpoints of another: them, and what they believe."""
    shutil.copytree(out / "checkpoints", folder / "checkpoints")
    shutil.copy(out / "metrics.jsonl", folder / "metrics.jsonl")


@functools.cache
def double() -> dict[str, Ended]:
    """The same by two ranks, all in one job, and what befalls ranks: see the keys."""
    begun = place() / "one-to-two"
    begin_like(single()["dpo"].out, begun)
    cases: dict[str, dict[str, Any]] = {
        name: {"objective": name, "steps": 5, "checkpoint_every": 3} for name in OBJECTIVES
    }
    cases["lonely"] = {"objective": "dpo", "steps": 5, "rows_per_step": 1}
    cases["lora"] = {"objective": "bradley_terry", "steps": 5} | LORA
    cases["brought"] = {"objective": "nll", "steps": 5, "base": brought()}
    cases |= {layout: {"objective": "nll", "steps": 5, "layout": layout} for layout in LAYOUTS}
    cases["resumed"] = {"objective": "dpo", "steps": 5, "out": str(begun)}
    cases["nan"] = {"objective": "nll", "steps": 5, "kill": "nan:7:1"}
    cases["sigterm"] = {"objective": "dpo", "steps": 5, "kill": "sigterm:5:1"}
    cases["hang"] = {"objective": "nll", "steps": 5, "kill": "hang:3:1"}
    limit = "12"  # seconds; the ranks of a busy machine need some to meet
    path, said, _ = two("double", list(cases.values()), TRUING_TIMEOUT=limit)
    assert path.with_name(f"{path.stem}-{len(cases) - 1}-0.json").exists(), said
    return {name: read_case(path, number) for number, name in enumerate(cases)}
