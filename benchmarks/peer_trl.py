"""One TRL trainer on the given rows, timed. Runs in a virtual environment of its own: `make bench` makes it."""

from __future__ import annotations

from typing import Any

from common import MAX_LENGTH, SETTINGS, arguments, clock, report, rows

args = arguments(__doc__ or "")

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from torch.utils.data import SequentialSampler  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

if not args.wall:
    torch.set_num_threads(1)
if args.flush:
    torch.set_flush_denormal(True)
now = clock(args)
tokenizer = AutoTokenizer.from_pretrained(args.model)
common: dict[str, Any] = {
    "output_dir": "/tmp/truing-bench-peer",
    "per_device_train_batch_size": args.batch,
    "learning_rate": SETTINGS["learning_rate"],
    "adam_beta1": SETTINGS["betas"][0],
    "adam_beta2": SETTINGS["betas"][1],
    "adam_epsilon": SETTINGS["eps"],
    "max_grad_norm": SETTINGS["clip"],
    "weight_decay": 0.0,
    "num_train_epochs": args.epochs,
    "lr_scheduler_type": "constant",
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "logging_steps": 1,
    "seed": 0,
    "max_length": MAX_LENGTH,
}
data = rows(args)


def causal() -> Any:
    return AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)


def trainer() -> Any:
    if args.task.startswith("dpo"):
        from trl import DPOConfig, DPOTrainer

        config = DPOConfig(beta=SETTINGS["beta"], precompute_ref_log_probs=args.task == "dpo-cached", **common)
        return DPOTrainer(causal(), args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
    if args.task == "reward":
        from trl import RewardConfig, RewardTrainer

        whole = [{k: r["prompt"] + r[k] for k in ("chosen", "rejected")} for r in data]
        model = AutoModelForSequenceClassification.from_pretrained(f"{args.model}-reward", dtype=torch.float32)
        return RewardTrainer(
            model, args=RewardConfig(**common), train_dataset=Dataset.from_list(whole), processing_class=tokenizer
        )
    from trl import SFTConfig, SFTTrainer

    shown = [{"prompt": r["prompt"], "completion": r["chosen"]} for r in data]
    config = SFTConfig(completion_only_loss=True, packing=args.task == "sft-packed", **common)
    return SFTTrainer(causal(), args=config, train_dataset=Dataset.from_list(shown), processing_class=tokenizer)


class Timer(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = now()
        self.tokens.append(0)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(now() - self.start)


trained, timer = trainer(), Timer()
trained._get_train_sampler = lambda *_: SequentialSampler(trained.train_dataset)
inner = trained.compute_loss


def counted(model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
    mask = inputs.get("attention_mask")
    timer.tokens[-1] += int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
    return inner(model, inputs, *more, **named)


trained.compute_loss = counted
trained.add_callback(timer)
trained.train()
losses = [entry["loss"] for entry in trained.state.log_history if "loss" in entry]
report(args, "trl", timer.seconds, timer.tokens, losses)
