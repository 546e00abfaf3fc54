"""A step of learning from one's own answers, beside TRL's GRPOTrainer: one model, same prompts and settings, in turn.

    make online                                   # the table in docs/benchmarks.md

8 real prompts with 8 answers of 64 tokens a step. `update`: the answers and their rewards are given, the same on both
sides, and gradients must agree to 1e-3 of their norm before speeds are compared; with a reference (`kl`) or without.
`step`: answers are sampled too. TRL has no PPO any more; ours stands beside our GRPO. Speeds are answers a second of
CPU time on one thread, the first step left out; memory is the process's peak. TRL's side is tuned: one batch holds the
whole step, nothing is logged but the loss, saved or checkpointed, and its own loss_type is that of the source.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

PROMPTS, ANSWERS, TOKENS, STEPS, BETA, RATE = 8, 8, 64, 4, 0.04, 1e-5
TASKS = {"update": "grpo", "update-kl": "grpo", "step": "grpo", "update-ppo": "ppo", "step-ppo": "ppo"}
Line = dict[str, Any]


def prompts(data: Path) -> list[list[dict[str, str]]]:
    """Conversations of the data that ask for an answer, in a fixed shuffled order: as many as all steps take."""
    opened = gzip.open if data.suffix == ".gz" else open
    with opened(data, "rt", encoding="utf-8") as file:
        usable = [json.loads(line)["prompt"] for line in file.read().split("\n") if line]
    usable = [p for p in usable if p[-1]["role"] == "user" and sum(len(m["content"]) for m in p) < 4000]
    random.Random(1).shuffle(usable)
    return usable[: PROMPTS * STEPS]


def answer(prompt: int, number: int) -> list[int]:
    """The tokens of a fixed response."""
    draws = random.Random(prompt * ANSWERS + number)
    return [draws.randrange(300, 8000) for _ in range(TOKENS)]


def reward(ids: Sequence[int]) -> float:
    """Reward of a response: the share of its tokens that are even."""
    return sum(i % 2 == 0 for i in ids) / len(ids)


def truing(args: argparse.Namespace) -> Line:
    """Our side: the source of rollouts and the loop that the stage `reinforce` runs, with their record."""
    import torch

    from truing import registry
    from truing.data.rendering.render import Renderer
    from truing.online.schedule import PromptSchedule
    from truing.online.source import Judged, OnlineOptions, Place, Prompt, rollout_source
    from truing.policy.load import load
    from truing.records import Message, Rollout, Sampling
    from truing.registry import RewardFunction
    from truing.rewards.call import Call
    from truing.rewards.combine import Rewards
    from truing.rewards.combine import Term as Scored
    from truing.rollout.engine import InProcess
    from truing.settings import Online, Training
    from truing.train.fit import fit
    from truing.train.objective_sum import Term, WeightedObjectives
    from truing.train.optim import Optim
    from truing.train.record.metrics import Record

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    policy, name = load(str(args.model)), TASKS[args.task]
    conversations = [[Message(m["role"], m["content"]) for m in p] for p in prompts(args.data)]
    renderer = Renderer(policy.tokenizer)
    rounds_prompts = [
        Prompt(i + 1, tuple(p), tuple(renderer.prompt_ids(tuple(p)))) for i, p in enumerate(conversations)
    ]
    penalised = args.task == "update-kl"
    options = {"beta": BETA if penalised else 0.0, "corrected": False} if name == "grpo" else {}
    if name == "grpo" and not penalised:
        name, options = "grpo_free", {}
    terms = [Term(made(name), options)]
    if args.task.endswith("ppo"):
        terms.append(Term(registry.load("value_clipped", "objective"), {"clip": 0.2}, 0.1))
        policy.put_value_head()
    marks, away, written = [], [0.0], args.task.startswith("update")
    places = {prompt.ids: prompt.row - 1 for prompt in rounds_prompts}

    class InOrder(PromptSchedule):
        """Prompts in the order of the file."""

        def prompts_of(self, number: int) -> tuple[Prompt, ...]:
            return self.prompts[number * PROMPTS : (number + 1) * PROMPTS]

    class Written(InProcess):
        """Fixed responses. Their log-probabilities are not timed: a sampler has them already."""

        def generate(self, prompts: Sequence[tuple[int, ...]], n: int, sampling: Sampling) -> list[Rollout]:
            begun = time.process_time()
            rows = [places[tuple(ids)] for ids in prompts]
            groups = [(ids, [answer(row, k) for k in range(n)]) for ids, row in zip(prompts, rows, strict=True)]
            rollouts = as_rollouts(policy, groups)
            away[0] += time.process_time() - begun
            return [replace(r, policy_version=self.version) for r in rollouts]

    def even(responses: Sequence[str]) -> list[float]:
        return [reward(json.loads(text)) for text in responses]

    judged = Judged(
        lambda policy, rollout: json.dumps(rollout.response_ids),
        Rewards((Scored("even", Call(RewardFunction(even, "response"), {})),)),
    )
    online = Online(group_size=ANSWERS, max_new_tokens=TOKENS, sample_deviation=name.startswith("grpo"))
    training = Training(
        steps=STEPS, rows_per_step=PROMPTS, learning_rate=RATE, schedule="constant", warmup=0.0, tokens_per_device=10**9
    )
    folder, total = Path(tempfile.mkdtemp()), WeightedObjectives(terms)
    reference = load(str(args.model)) if penalised else None
    engine = Written(policy) if written else None
    every, place = OnlineOptions(online, training), Place(folder / "rollouts")
    source = rollout_source(policy, rounds_prompts, judged, total, every, place, reference=reference, engine=engine)
    source.schedule = InOrder(rounds_prompts, online, training)
    rows: list[Line] = []

    def show(row: Any, _: int) -> None:
        marks.append(time.process_time() - away[0])
        rows.append(dict(row))

    start = time.process_time()
    fit(policy, source, total, Optim(policy.model, training, source.steps), Record(folder, show=show))
    seconds = [b - a for a, b in zip([start, *marks], marks, strict=False)]
    return {"seconds": seconds, "norms": [r["grad_norm"] for r in rows], "tokens": [r["length"] for r in rows]}


def made(name: str) -> Any:
    """An objective by its name; `grpo_free` is GRPO without a reference, as TRL's with beta 0."""
    from truing import registry
    from truing.objectives.policy import clipped
    from truing.objectives.ratio import bounded_ratio

    if name != "grpo_free":
        return registry.load(name, "objective")

    def grpo_free(logp_BT: Any, old_logp_BT: Any, advantage_BT: Any, mask_BT: Any) -> Any:
        """GRPO's loss without its KL term."""
        return mask_BT * clipped(bounded_ratio(logp_BT, old_logp_BT), advantage_BT, 0.2, 0.2)

    return registry.objective(source="Shao et al. 2024", mean="response", advantage="standardised")(grpo_free)


def as_rollouts(policy: Any, groups: Sequence[tuple[tuple[int, ...], list[list[int]]]]) -> list[Any]:
    """Fixed responses as rollouts of this policy."""
    import torch

    from truing.data.batch import Batch, Branch, Tree
    from truing.records import Rollout

    trees = [
        Tree(ids, tuple(Branch("response", tuple(a), (True,) * len(a)) for a in answers), i, i)
        for i, (ids, answers) in enumerate(groups)
    ]
    with torch.no_grad():
        logp = policy.logp(Batch(tuple(trees))).split([len(a) for _, answers in groups for a in answers])
    pairs = [(g, ids, tuple(a)) for g, (ids, answers) in enumerate(groups) for a in answers]
    return [Rollout(ids, a, tuple(x.tolist()), "length", group=g) for (g, ids, a), x in zip(pairs, logp, strict=True)]


def trl(args: argparse.Namespace) -> Line:
    """The peer's side: its GRPOTrainer as it is; for given answers the one call that samples is replaced."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=PROMPTS * ANSWERS,
        num_generations=ANSWERS,
        max_completion_length=TOKENS,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        max_grad_norm=1.0,
        weight_decay=0.0,
        loss_type="grpo",
        scale_rewards="group",
        beta=BETA if args.task == "update-kl" else 0.0,
        use_bias_correction_kl=False,
        temperature=1.0,
        top_k=0,
        shuffle_dataset=False,
        disable_dropout=True,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        log_completions=False,
        seed=0,
    )

    def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [reward(ids) for ids in completion_ids]

    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.process_time())

    trained = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
        even,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": p} for p in prompts(args.data)]),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        callbacks=[Clock()],
    )
    if args.task.startswith("update"):

        def say(prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
            first = len(marks) * PROMPTS
            return [answer(first + i // ANSWERS, i % ANSWERS) for i in range(len(prompt_ids))], None

        trained._generate_single_turn = say
    start = time.process_time()
    trained.train()
    log = [entry for entry in trained.state.log_history if "grad_norm" in entry]
    seconds = [b - a for a, b in zip([start, *marks], marks, strict=False)]
    return {
        "seconds": seconds,
        "norms": [float(e["grad_norm"]) for e in log],
        "tokens": [e["completions/mean_length"] for e in log],
    }


def measure(args: argparse.Namespace) -> Line:
    """One side, in this process."""
    line = {"truing": truing, "trl": trl}[args.side](args)
    line["rows_per_s"] = PROMPTS * ANSWERS / statistics.median(line["seconds"][1:])
    return line | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def run(side: str, task: str, model: Path, args: argparse.Namespace) -> Line:
    """One side, in a process of its own."""
    command = [args.peer if side == "trl" else sys.executable, __file__, str(args.data), str(model.parent)]
    command += ["--side", side, "--model", str(model), "--task", task]
    offline = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | offline)
    lines = [line for line in done.stdout.split("\n") if line.startswith('{"seconds"')]
    if not lines:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    record: Line = json.loads(lines[-1])
    return record


def compare(task: str, model: Path, args: argparse.Namespace) -> str:
    """A row of the table. SystemExit where the two sides do not compute the same update."""
    other = task.replace("-ppo", "") if task.endswith("ppo") else ""
    ours, peer = [], []
    for _ in range(args.rounds):
        ours.append(run("truing", task, model, args))
        peer.append(run("truing", other, model, args) if other else run("trl", task, model, args))
    off = max(abs(a / b - 1) for a, b in zip(ours[0]["norms"], peer[0]["norms"], strict=True))
    if task.startswith("update") and not other and off > 1e-3:
        sys.exit(f"{task}: gradient norms differ by {off:.1e}: {ours[0]['norms']} and {peer[0]['norms']}")
    ratios = [a["rows_per_s"] / b["rows_per_s"] for a, b in zip(ours, peer, strict=True)]
    memory = [max(x["peak_mb"] for x in side) / 1024 for side in (peer, ours)]
    same = f"{off:.0e}" if task.startswith("update") and not other else "-"
    lengths = f"{statistics.mean(peer[0]['tokens']):.0f} / {statistics.mean(ours[0]['tokens']):.0f}"
    cells = [task, model.name, "Truing's GRPO" if other else "TRL", lengths]
    cells += [spread([x["rows_per_s"] for x in side]) for side in (peer, ours)]
    cells += [f"**{spread(ratios)}**", f"{memory[0]:.1f} / {memory[1]:.1f} ({memory[1] / memory[0]:.2f})", same]
    return "| " + " | ".join(cells) + " |"


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Compare and print the table; with --side measure one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, help="folder of models made by models.py")
    parser.add_argument("--names", nargs="+", default=["S-8k"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", default=".venv-peer/bin/python")
    parser.add_argument("--side", choices=["truing", "trl"])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--task", choices=list(TASKS))
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)), flush=True)
        return
    heads = ["task", "model", "beside", "tokens an answer, both", "other, answers/s", "Truing, answers/s", "ratio"]
    heads += ["peak GB, other / Truing", "gradient norms apart"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for name in args.names:
        for task in args.tasks:
            print(compare(task, args.models / name, args), flush=True)


if __name__ == "__main__":
    main()
