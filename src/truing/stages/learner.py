"""The policy that a stage trains: whole, or with an adapter."""

from __future__ import annotations

from truing.errors import UserError
from truing.policy import adapters
from truing.policy.policy import Policy
from truing.policy.recompute import recompute_layers
from truing.run.stage_run import StageRun
from truing.settings import Lora, Training


def learner(run: StageRun, policy: Policy, training: Training, lora: Lora = Lora()) -> Policy:
    """The policy as a stage trains it: with its adapter, in its precision, with activation checkpointing or without."""
    if lora.lora_rank is not None:
        adapters.put_on(policy, lora, seed=run.seed + training.seed)
    if lora.lora_merge and policy.adapter is None:
        raise UserError(
            f"stage {run.name}: lora_merge, and {policy.name} is no adapter; give lora_rank, or leave it out"
        )
    policy.merge = lora.lora_merge
    if policy.merge:
        adapters.check_merge(policy)
    if policy.adapter is not None:
        run.show.say(f"  an adapter is trained: {adapters.size(policy)}")
        dropout = policy.adapter.peft_config["default"].lora_dropout
        if dropout:
            run.show.say(f"  lora_dropout {dropout:g} of this adapter is off: truing trains without dropout")
    policy.compute_in(training.precision)
    if policy.precision == "bf16" and policy.device.type == "cpu":
        run.show.say("  precision bf16 on a CPU: correct, and often slower than fp32")
    if training.gradient_checkpointing:
        recompute_layers(policy.model)
    return policy
