"""A recipe run by two processes, as `torchrun ... -m truing run` starts them."""

import json
import subprocess
from pathlib import Path

import pytest

from parallel import jobs
from truing.errors import RunFailed, UserError
from truing.recipe.check import check
from truing.run import runner as running
from truing.train.distributed import process_group


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The recipe and its data, and the working folder."""
    jobs.write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def listed(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_two_processes_leave_what_one_leaves(folder) -> None:
    """Every file, the same metrics and findings, and the gate's own exit code; what the first one says is said once. Run
    again, nothing is run."""
    folder.joinpath("rules.yaml").write_text("rules: [{check: held_out_accuracy, min: 1.1}]\n")
    assert running.run(check("r.yaml", []), Path("one"), quiet=True) == 1
    command = [*jobs.LAUNCH, "-m", "truing", "run", "r.yaml", "--out", "two"]
    done = subprocess.run(command, capture_output=True, text=True, env=jobs.PLAIN, timeout=240, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("direct (prefer)") == 1 and done.stdout.count("hold: 0 of 1") == 1
    assert listed(Path("one")) == listed(Path("two"))
    for stage in ("warm", "rm", "direct"):
        for mine, theirs in zip(
            lines(Path("one", stage, "metrics.jsonl")), lines(Path("two", stage, "metrics.jsonl")), strict=True
        ):
            assert {**mine, "seconds": 0} == pytest.approx({**theirs, "seconds": 0}, rel=2e-3, abs=1e-4)
    one, two = (json.loads(Path(x, "exam", "findings.json").read_text())["findings"] for x in ("one", "two"))
    assert [(f["check"], f["model"], f["value"]) for f in one] == [(f["check"], f["model"], f["value"]) for f in two]
    before = Path("two", "direct", "model", "model.safetensors").stat().st_mtime_ns
    assert running.run(check("r.yaml", []), Path("two"), quiet=True) == 1
    assert Path("two", "direct", "model", "model.safetensors").stat().st_mtime_ns == before, "unchanged, not run again"


def test_options_that_change_no_result_may_change(folder) -> None:
    """Another tokens_per_device, more checkpoints: the stage is not run again."""
    assert running.run(check("r.yaml", []), Path("one"), quiet=True) == 0
    before = Path("one", "warm", "model", "model.safetensors").stat().st_mtime_ns
    other = ["warm.tokens_per_device=50", "warm.checkpoint_every=2", "warm.gradient_checkpointing=true"]
    assert running.run(check("r.yaml", other), Path("one"), quiet=True) == 0
    assert Path("one", "warm", "model", "model.safetensors").stat().st_mtime_ns == before
    assert running.run(check("r.yaml", ["warm.learning_rate=1e-4"]), Path("one"), overwrite=True, quiet=True) == 0
    assert Path("one", "warm", "model", "model.safetensors").stat().st_mtime_ns != before


@pytest.mark.parametrize("given", ["soon", "0", "nan"])
def test_a_timeout_that_is_none(monkeypatch, given) -> None:
    monkeypatch.setenv("TRUING_TIMEOUT", given)
    with pytest.raises(UserError, match=r"TRUING_TIMEOUT is .* give the seconds"):
        process_group.time_limit()


def test_another_rank_that_is_gone_is_told_from_a_fault_of_ours() -> None:
    with pytest.raises(RunFailed, match="another rank has ended"), process_group.reaching():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), process_group.reaching():
        raise RuntimeError("shapes differ")
