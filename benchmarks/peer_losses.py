"""TRL's own loss code on given numbers. Runs in the peer's environment: `make differential` calls it with two files.

Each trainer is made without its constructor and given what its method reads: the fields of its own configuration and
the few names that its constructor makes of them. The model is a function that returns the prepared numbers. What is
measured is TRL's arithmetic, from log-probabilities, logits or rewards to one loss and its gradient.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1", OMP_NUM_THREADS="1")

import torch
from accelerate import Accelerator
from torch import Tensor
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

Inputs = dict[str, Tensor]
FOLDER = tempfile.mkdtemp()
TRAINING = SimpleNamespace(training=True, is_gradient_checkpointing=False)


def bare(trainer: type, config: Any, **more: Any) -> Any:
    """A trainer without model, data and loop."""
    made = object.__new__(trainer)
    ours = {"accelerator": Accelerator(cpu=True), "args": config, "model": TRAINING, "aux_loss_enabled": False}
    ours |= {"_metrics": {"train": defaultdict(list)}, "_total_train_tokens": 0, "_tp_size": 1}
    vars(made).update({**vars(config), **ours, **more})
    return made


def settings(kind: type, options: dict[str, Any]) -> Any:
    """A configuration of TRL's."""
    return kind(output_dir=FOLDER, use_cpu=True, bf16=False, report_to=[], **options)


def outputs(log_probs: Tensor) -> SimpleNamespace:
    """The output of a model with TRL's head; entropy and the like only enter its record."""
    zeros = torch.zeros_like(log_probs).detach()
    return SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros > 1)


def prompted(mask: Tensor) -> Tensor:
    """A mask of whole sequences: one token of prompt before each response."""
    return torch.cat([torch.zeros_like(mask[:, :1]), mask], 1)


def dpo(options: dict[str, Any], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """DPOTrainer._compute_loss on log-probabilities of response tokens, chosen rows before rejected ones."""
    config = settings(DPOConfig, options)
    weights = config.loss_weights or [1.0] * len(config.loss_type)
    made = bare(DPOTrainer, config, loss_types=config.loss_type, loss_weights=weights, precompute_ref_logps=True)
    leaf, mask = inputs["logp"].requires_grad_(), prompted(inputs["mask"])
    chosen, rejected = inputs["ref"].chunk(2)
    batch = {"input_ids": torch.zeros_like(mask).long(), "completion_mask": mask.long(), "attention_mask": mask * 0 + 1}
    batch |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    return made._compute_loss(lambda **_: outputs(leaf * inputs["mask"]), batch, False), leaf


def kto(options: dict[str, Any], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """KTOTrainer._compute_loss; the mismatched responses are read first."""
    config = settings(KTOConfig, options)
    baseline = config.loss_type != "apo_zero_unpaired"
    made = bare(KTOTrainer, config, precompute_ref_logps=True, calculate_KL=baseline)
    leaf, mask = inputs["logp"].requires_grad_(), prompted(inputs["mask"]).long()
    reads = iter([inputs["mismatched"], leaf] if baseline else [leaf])
    batch = {"label": inputs["desirable"].bool(), "ref_logps": inputs["ref"], "ref_KL_logps": inputs["ref_mismatched"]}
    for name in ("", "KL_"):
        batch |= {f"{name}input_ids": torch.zeros_like(mask), f"{name}completion_mask": mask}
        batch |= {f"{name}attention_mask": torch.ones_like(mask)}
    return made._compute_loss(lambda **_: outputs(next(reads) * inputs["mask"]), batch, False), leaf


def from_logits(trainer: type, config: Any, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """get_batch_loss_metrics of the trainers that make log-probabilities themselves."""
    made = bare(trainer, config, is_encoder_decoder=False, pad_token_id=0, padding_value=0, aux_loss_coef=0.0)
    leaf, ids, there = inputs["logits"].requires_grad_(), inputs["ids"].long(), inputs["there"].long()
    labels = ids.masked_fill(inputs["mask"] == 0, -100)
    batch = {}
    for side, rows in (("chosen", slice(None, len(ids) // 2)), ("rejected", slice(len(ids) // 2, None))):
        batch |= {f"{side}_input_ids": ids[rows], f"{side}_labels": labels[rows]}
        batch |= {f"{side}_attention_mask": there[rows]}
    loss, _ = made.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=leaf), batch)
    return loss, leaf


def cpo(options: dict[str, Any], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """CPOTrainer, from logits of prompt and response."""
    return from_logits(CPOTrainer, settings(CPOConfig, options), inputs)


def orpo(options: dict[str, Any], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """ORPOTrainer, from logits of prompt and response."""
    return from_logits(ORPOTrainer, settings(ORPOConfig, options), inputs)


def reward(options: dict[str, Any], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """RewardTrainer.compute_loss on rewards, chosen rows before rejected ones."""
    leaf = inputs["reward"].requires_grad_()
    batch = {"attention_mask": torch.ones(len(leaf), 1)} | ({"margin": inputs["margin"]} if "margin" in inputs else {})
    made = bare(RewardTrainer, settings(RewardConfig, options))
    return made.compute_loss(lambda **_: SimpleNamespace(logits=leaf[:, None]), batch), leaf


def rollouts(kind: type, config: Any) -> Any:
    """A trainer of sampled answers; nothing is accumulated, and all answers of a step are one batch."""
    more = {"epsilon_low": config.epsilon, "epsilon_high": config.epsilon_high or config.epsilon, "use_vllm": False}
    more |= {"current_gradient_accumulation_steps": 1, "_entropy_bonus_enabled": False}
    return bare(kind, config, **more)


def policy_step(kind: type, config: Any, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """_compute_loss on log-probabilities of sampled tokens."""
    made, leaf, mask = rollouts(kind, config), inputs["logp"].requires_grad_(), inputs["mask"]
    made._get_per_token_logps_and_entropies = lambda *_, **__: (leaf * mask, torch.zeros_like(mask), None)
    unit = torch.ones(len(mask), 1)
    batch = {"prompt_ids": unit, "prompt_mask": unit, "completion_ids": mask, "completion_mask": mask}
    batch |= {"old_per_token_logps": inputs["old"] * mask, "ref_per_token_logps": inputs["ref"] * mask}
    batch |= {"old_logps": (inputs["old"] * mask).sum(1), "advantages": inputs["advantage"]}
    return made._compute_loss(TRAINING, batch | {"num_items_in_batch": mask.sum()}), leaf


def grpo(options: dict[str, Any], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """GRPOTrainer._compute_loss."""
    return policy_step(GRPOTrainer, settings(GRPOConfig, sampled(options, inputs["logp"])), inputs)


def rloo(options: dict[str, Any], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """RLOOTrainer._compute_loss."""
    return policy_step(RLOOTrainer, settings(RLOOConfig, sampled(options, inputs["logp"])), inputs)


def sampled(options: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Options of a trainer that samples: one batch a step, groups of four."""
    sizes = {"per_device_train_batch_size": len(rows), "num_generations": 4, "max_completion_length": rows.shape[1]}
    return sizes | {"gradient_accumulation_steps": 1, "steps_per_generation": 1} | options


def advantages(kind: type, config: Any, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """_generate_and_score_completions on given scores: what it makes of them before the loss."""
    scores, mask = inputs["scores"], inputs["mask"]
    rows, names = len(scores), [f"score {i}" for i in range(scores.shape[1])]
    tokens, read = [[1] * int(n) for n in mask.sum(1)], iter([inputs["old"] * mask, inputs["ref"] * mask])
    short = ([[1]] * rows, tokens, [""] * rows)
    spoken = short if kind is RLOOTrainer else (*short[:2], None, short[2], None, {}, None, None)
    logs = defaultdict(lambda: deque(), rewards=defaultdict(list), extra=defaultdict(list))
    made = rollouts(kind, config)
    nothing = dict.fromkeys(("environment_factories", "environments", "tools", "images"), None)
    logs = {"_logs": logs, "_pending_extra_logs": {}, "_pending_metrics": {}}
    vars(made).update(nothing, **logs, reward_weights=torch.ones(len(names)), reward_funcs=names, ref_model=TRAINING)
    made.reward_func_names, made._is_vlm, made._tokenizer = names, False, SimpleNamespace(pad_token_id=0)
    made._calculate_rewards, made._generate = lambda *_: scores, lambda *_: spoken
    made._get_per_token_logps_and_entropies = lambda *_, **__: (next(read), None, None)
    values = made._generate_and_score_completions([{"prompt": str(i)} for i in range(rows)])["advantages"]
    return values, scores


def grpo_advantages(options: dict[str, Any], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """GRPOTrainer's advantages."""
    return advantages(GRPOTrainer, settings(GRPOConfig, sampled(options, inputs["scores"])), inputs)


def rloo_advantages(options: dict[str, Any], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """RLOOTrainer's advantages."""
    return advantages(RLOOTrainer, settings(RLOOConfig, sampled(options, inputs["scores"])), inputs)


CALLS: dict[str, Callable[[dict[str, Any], Inputs], tuple[Tensor, Tensor]]] = {
    f.__name__: f for f in (dpo, kto, cpo, orpo, reward, grpo, rloo, grpo_advantages, rloo_advantages)
}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """TRL's value (one number, or one a row) and its gradient for the numbers of one case."""
    dtype = getattr(torch, question["dtype"])
    torch.set_default_dtype(dtype)
    inputs = {name: torch.tensor(value, dtype=dtype) for name, value in question["inputs"].items()}
    value, leaf = CALLS[question["trainer"]](question["options"], inputs)
    if not value.requires_grad:
        return {"value": value.tolist(), "gradient": []}
    return {"value": value.item(), "gradient": torch.autograd.grad(value, leaf)[0].tolist()}


if __name__ == "__main__":
    request, reply = Path(sys.argv[1]), Path(sys.argv[2])
    reply.write_text(json.dumps([answer(question) for question in json.loads(request.read_text())]))
