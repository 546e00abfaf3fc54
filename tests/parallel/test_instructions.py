"""Another instruction set rounds in other places: a resume under it says so, and differs by rounding alone."""

import json
import signal
import subprocess
import sys

import pytest
import torch

from parallel import jobs

CASE = {"objective": "dpo", "checkpoint_every": 3, "steps": 5}
PLAINEST = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}


def test_resumed_under_another_instruction_set(tmp_path) -> None:
    own = torch.backends.cpu.get_cpu_capability()
    if own in ("DEFAULT", "NO AVX"):
        pytest.skip(f"this processor computes with {own} alone")
    assert jobs.alone("own", **CASE, out=str(tmp_path), kill="update:5").code == -signal.SIGKILL
    manifest = json.loads((tmp_path / "checkpoints" / "step-00000003" / "manifest.json").read_text())
    assert manifest["facts"]["instructions"] == own
    path = jobs.write_job("plainest", [CASE | {"out": str(tmp_path)}])
    command = [sys.executable, str(jobs.DRIVER), str(path)]
    done = subprocess.run(command, env=jobs.PLAIN | PLAINEST, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    again = jobs.read_case(path, 0)
    assert [row["step"] for row in again.metrics()] == [1, 2, 3, 4, 5]
    assert again.facts()["messages"] == [f"resumed with DEFAULT instructions, begun with {own}: equal, but not bitwise"]
    assert jobs.off(jobs.alone("own-whole", **CASE), again) <= 1
