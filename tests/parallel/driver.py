"""Small training runs in fp64, by one process or by the ranks that torchrun starts: what the tests here spawn.

    torchrun ... driver.py JOB.json     every case of a job, one after the other
    python driver.py                    reads jobs from stdin, `RANKS PATH` a line; each rank is a forked child

A job: the `folder` of a model, and `cases`, each with an `objective`, `out`, and options of `Training`; a case may name
another model, `base`; or, in place of an objective, a method that learns from own answers, `online`. A case may end
badly at a chosen point: its `kill`, or TRUING_TEST_KILL, is `POINT:NUMBER[:RANK]`, read here and nowhere in the product.
What became of a case is in `out/ended-RANK.json`, its weights in `out/weights.safetensors`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import bounds
from small_models import exact
from small_trees import fitting as trees_of
from truing import objectives, registry
from truing.data.batch import Batch, Branch, Tree
from truing.errors import TruingError
from truing.online.monitor import MonitorLog
from truing.online.pretraining_mix import PretrainingMix
from truing.online.source import Judged, OnlineOptions, Place, Prompt, rollout_source
from truing.policy import adapters, heads
from truing.policy.load import load
from truing.policy.recompute import recompute_layers
from truing.policy.value import put_on
from truing.records import Message
from truing.rewards.call import Call
from truing.rewards.combine import Rewards
from truing.rewards.combine import Term as Scored
from truing.rollout.engine import InProcess
from truing.settings import KLControl, Lora, Monitoring, Online, Shaping, Training
from truing.train import fit as fitting
from truing.train.distributed import process_group
from truing.train.distributed.fsdp import sharded
from truing.train.distributed.reference_logp import compute_shared
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.optim import Optim
from truing.train.record import checkpoint
from truing.train.record.metrics import Record
from truing.train.source import DataSource


def ragged(count: int, seed: int = 5) -> tuple[Tree, ...]:
    """Pairs with prompts of 3 to 12 tokens and responses of 1 to 14."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        n = int(torch.randint(low, high, (), generator=generator))
        return tuple(torch.randint(10, 250, (n,), generator=generator).tolist())

    def branch(role: str) -> Branch:
        words = ids(1, 15)
        return Branch(role, words, (True,) * len(words))

    return tuple(Tree(ids(3, 13), (branch("chosen"), branch("rejected")), i, i + 1) for i in range(count))


class Fate:
    """Where this process is to be struck, and how often the place has still to be passed."""

    point, left, out = "none", 0, Path()

    @classmethod
    def set(cls, told: str, out: Path) -> None:
        cls.point, number, rank = [*told.split(":"), "", ""][:3]
        cls.left, cls.out = int(number or 0), out
        again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        if again or rank not in ("", os.environ.get("RANK", "0")):
            cls.point = "none"

    @classmethod
    def struck(cls, point: str) -> bool:
        cls.left -= point == cls.point
        return point == cls.point and cls.left == 0


def strike(owner, name: str, point: str, act, *, after: bool = False) -> None:
    """Let `act` happen before, or after, a call of the product's own `owner.name`."""
    real = getattr(owner, name)

    def passing(*given, **named):
        struck = Fate.struck(point)
        if struck and not after:
            act()
        out = real(*given, **named)
        return (act(out) if struck and after else None) or out

    setattr(owner, name, passing)


def kill(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(16)
    os._exit(9)


def fill() -> None:
    """Leave no room on the disk of this case."""
    with (Fate.out / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def scaled(by: float):
    """Every signal times this: not a number, or off by a chosen part."""
    return lambda signals: {name: value * by for name, value in signals.items()}


def arrange() -> None:
    """Make the points be met in the product's own code."""
    strike(fitting, "observe", "part", kill)
    strike(Optim, "step", "update", kill)
    strike(checkpoint, "_write", "mid-save", kill, after=True)
    strike(checkpoint, "_finish", "before-rename", kill)
    strike(Path, "rename", "after-rename", kill, after=True)
    strike(DataSource, "epoch", "epoch", kill)
    strike(fitting, "observe", "hang", hang)
    strike(fitting, "observe", "nan", scaled(float("nan")), after=True)
    strike(fitting, "observe", "bent", scaled(1 + 2**-33), after=True)  # a 500th of what fp32 would round
    strike(fitting, "observe", "bent more", scaled(1 + 2**-8), after=True)
    strike(checkpoint, "_write", "full", fill)
    strike(Record, "_append", "full-metrics", fill)
    for name, number in (("sigterm", signal.SIGTERM), ("sigint", signal.SIGINT)):
        strike(fitting, "observe", name, lambda number=number: os.kill(os.getpid(), number))
        strike(Optim, "step", f"{name}-update", lambda number=number: os.kill(os.getpid(), number))
        strike(checkpoint, "_finish", f"{name}-save", lambda number=number: os.kill(os.getpid(), number))


def small_disk(folder: Path, size: str) -> None:
    """A disk of this size under `folder`, for this process alone; it goes with it. Ends with 77 where that is denied."""
    libc, user = ctypes.CDLL(None), os.geteuid()
    folder.mkdir(parents=True, exist_ok=True)
    new_mounts, new_user, private = 0x00020000, 0x10000000, 0x4000 | 0x40000  # CLONE_NEWNS, CLONE_NEWUSER, MS_REC...
    if libc.unshare(new_mounts | (new_user if user else 0)):
        os._exit(77)
    if user:
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    if libc.mount(b"none", b"/", None, private, None) or libc.mount(
        b"none", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode()
    ):
        os._exit(77)


def case(folder: str, spec: dict) -> None:
    """One training run."""
    objective, out, told = getattr(objectives, spec.pop("objective")), Path(spec.pop("out")), spec.pop("kill", None)
    disk, count, lora, key = spec.pop("disk", None), spec.pop("rows", 20), spec.pop("lora", None), spec.pop("key", "k")
    layout, folder = spec.pop("layout", "trees"), spec.pop("base", folder)
    Fate.set(told or os.environ.get("TRUING_TEST_KILL", "none"), out)
    if disk:
        small_disk(out, disk)
    trees = trees_of(objective.name, count) if spec.pop("fitting", False) else ragged(count)
    training = Training(**({"epochs": 2, "rows_per_step": 6, "learning_rate": 1e-3, "tokens_per_device": 40} | spec))
    teaches = any("reward" in name or "_logit_" in name for name in objective.needs)
    make = heads.fresh_reward if teaches else load
    policy = make(folder, seed=3)
    policy.layout = layout
    policy.verified = True  # transformers' own attention, the measure, takes its softmax in fp32
    if lora:
        adapters.put_on(policy, Lora(lora_rank=lora), seed=1)
    if "tie_logit_B" in objective.needs:
        policy.model.register_parameter("tie_logit", torch.nn.Parameter(torch.zeros(1)))
    exact(policy.model)
    if training.gradient_checkpointing:
        recompute_layers(policy.model)
    terms = WeightedObjectives([Term(objective, {})])
    read = (*trees, *(tree.shadow for tree in trees if tree.shadow is not None))
    reference = compute_shared(policy, read, 40) if terms.needs_reference else None
    source = DataSource(trees, training)
    record = Record(out, key=key, every=training.checkpoint_every)
    with sharded(policy, Batch(source.epoch(0)[0])) as learner:
        held = sum(getattr(p, "_local_tensor", p).numel() for p in learner.model.parameters())
        optim = Optim(learner.model, training, source.steps)
        drift = watched(learner, optim, exactly(learner, trees, layout))
        fitting.fit(learner, source, terms, optim, record, reference)
    assert process_group.rank() == 0 or not any(p.numel() for p in policy.model.parameters()), (
        "whole on the first rank only"
    )
    leave(policy, out, drift, reference, record, held)


def exactly(learner, trees, layout: str) -> float:
    """How far apart gradients in fp64 may be. Padded rows are read with transformers' own attention, whose softmax, over a
    row in each layer, is fp32's."""
    off = bounds.relative(learner.model, sum(tree.tokens for tree in trees), torch.float64)
    longest = max(len(tree.prompt) + len(branch.ids) for tree in trees for branch in tree.branches)
    layers = learner.model.config.num_hidden_layers
    return max(off, bounds.summed(torch.float32, layers * longest, 1.0)) if layout == "padded" else off


def watched(learner, optim: Optim, off: float) -> bounds.Drift | None:
    """How far rounding may move each weight of a run by one process, the measure of others."""
    return bounds.Drift(learner.model, optim.adamw, off) if process_group.world() == 1 else None


def leave(policy, out: Path, drift=None, reference=None, record=None, held: int = 0) -> None:
    """Write a run's weights and facts, where this is the first rank, and how far rounding may move the weights."""
    if process_group.rank() == 0:
        weights = {n: p.detach().contiguous() for n, p in policy.model.named_parameters()}
        weights |= {"reference": reference.logp} if reference is not None else {}
        save_file(weights, out / "weights.safetensors")
        if drift is not None:
            logp = {} if reference is None else {"reference": drift.relative * reference.logp.abs().clamp(min=1)}
            save_file(drift.off | logp, out / "off.safetensors")
        facts = {
            "messages": record.messages if record else [],
            "held": held,
            "whole": sum(w.numel() for w in weights.values()),
        }
        (out / "facts.json").write_text(json.dumps(facts))


def below(responses):
    """The share of an answer's tokens that are below 150."""
    rows = [json.loads(answer) for answer in responses]
    return [sum(i < 150 for i in row) / len(row) for row in rows]


class Elsewhere:
    """An engine with weights of its own, which stay what they were: what it answers has to be weighed."""

    def __init__(self, folder: str) -> None:
        self.inner = InProcess(load(folder, seed=3))
        self.inner.policy.verified = True

    def generate(self, prompts, n, sampling):
        return self.inner.generate(prompts, n, sampling)

    def sync(self, policy, version):
        self.inner.version = version


def online(folder: str, spec: dict) -> None:
    """One run of learning from own answers, with KL control; of `ppo` with a value head, of `ppo_model` with a value model
    of its own; `elsewhere` with an engine of its own; `watched` with looks, KL control that adapts and a reference that is refreshed; `ptx` with texts beside,
    KL control in the loss and entropy. In fp32, as answers are
    sampled; its weights are left in fp64."""
    method, out = spec.pop("online"), Path(spec.pop("out"))
    names = {
        "ppo": ["ppo", "value_clipped"],
        "ppo_model": ["ppo", "value_clipped"],
        "watched": ["rloo"],
        "elsewhere": ["grpo"],
    }
    names = (names | {"ptx": ["dapo", "kl_k2", "entropy", "ptx"]}).get(method, [method])
    terms = WeightedObjectives([Term(registry.load(name, "objective"), {}, longest=8) for name in names])
    training = Training(rows_per_step=3, learning_rate=1e-3, tokens_per_device=60, **spec)
    options = Online(group_size=3, max_new_tokens=8, beta=0.05, epochs_per_round=2)
    policy, reference = load(folder, seed=3), load(folder, seed=3)
    for each in (policy, reference):
        each.verified = True
    if method == "ppo":
        policy.put_value_head()
    asked = [Prompt(i + 1, (Message("user", str(i)),), tuple(range(20 + i, 24 + 2 * i))) for i in range(6)]
    rewards = Rewards((Scored("below", Call(registry.RewardFunction(below, "response"), {}, 60.0)),))
    judged = Judged(lambda _, rollout: json.dumps(rollout.response_ids), rewards)
    first = Tree(asked[0].ids, (Branch("response", asked[0].ids[-1:], (True,)),), 0, 1)
    more: dict[str, Any] = {}
    if method == "watched":
        more = {
            "shaping": Shaping("running"),
            "kl_control": KLControl(kl_target=0.1, kl_horizon=10, refresh_reference=1),
        }
        more["monitor_log"] = MonitorLog(out / "monitor.jsonl", asked[:3], rewards, Monitoring(2, 9))
    if method == "elsewhere":
        more, options = {"engine": Elsewhere(folder)}, options.changed(sampler_cap=2.0)
    if method == "ptx":
        more = {"mix": PretrainingMix(trees_of("nll", 4), seed=3)}
    if method == "ppo_model":
        put_on(policy, heads.fresh_reward(folder, seed=3), Batch((first,)))
    with sharded(policy, Batch((first,))) as learner:
        limits = {name: more.pop(name) for name in ("shaping", "kl_control") if name in more}
        place, every = Place(out / "rollouts", 9), OnlineOptions(options, training, **limits)
        source = rollout_source(learner, asked, judged, terms, every, place, reference=reference, **more)
        optim = Optim(learner.model, training, source.steps)
        drift = watched(learner, optim, bounds.relative(learner.model, 60 * 9, torch.float32))
        fitting.fit(learner, source, terms, optim, Record(out, key="k"))
    if process_group.rank() == 0:
        policy.model.double()
    leave(policy, out, drift)


def ended(folder: str, spec: dict, report: Path) -> int:
    """Run a case, and write what became of it; its exit code."""
    code, text = 0, ""
    try:
        (online if "online" in spec else case)(folder, dict(spec))
    except TruingError as problem:
        code, text = problem.exit_code, str(problem)
    except (SystemExit, KeyboardInterrupt) as stopped:
        code = stopped.code if isinstance(stopped, SystemExit) else 130
    out = Path(spec["out"])
    files = {p.relative_to(out).as_posix(): p.stat().st_size for p in out.rglob("*") if p.is_file()}
    lines = (out / "metrics.jsonl").read_text().splitlines() if "metrics.jsonl" in files else []
    facts = {"code": code, "error": text, "files": files, "lines": lines}
    report.write_text(json.dumps(facts))
    return int(code or 0)


def main(path: Path) -> int:
    """Every case of a job; the last exit code."""
    job, code = json.loads(path.read_text()), 0
    with process_group.joined():
        for number, spec in enumerate(job["cases"]):
            code = ended(
                job["folder"], spec, path.with_name(f"{path.stem}-{number}-{os.environ.get('RANK', '0')}.json")
            )
    return code


def serve() -> None:
    """Every job of stdin in children that have all imports done, one a rank; prints how each of them ended.

    Nobody ends a rank whose peer is gone: it has to notice by itself.
    """
    for line in sys.stdin:
        count, _, path = line.strip().partition(" ")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = [begin(Path(path), rank, int(count), port) for rank in range(int(count))]
        print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)


def begin(path: Path, rank: int, count: int, port: int) -> int:
    """Fork one rank of a job, which meets the others at this port; gives its process."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    code = 1
    try:
        code = main(path)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # under nohup it comes ignored
    arrange()
    if len(sys.argv) == 1:
        serve()
    else:
        sys.exit(main(Path(sys.argv[1])))
