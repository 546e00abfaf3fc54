"""KL control: how much a nat of distance to the reference costs, when it ends a run, when the reference moves along."""

from __future__ import annotations

from truing.online.history import RoundHistory, check_kl
from truing.online.monitor import stopped
from truing.online.schedule import RoundPlan
from truing.policy.policy import Policy
from truing.rollout.experience import Experience
from truing.settings import KLControl
from truing.train.record.snapshots import WeightSnapshots


class KLController:
    """Keeps a policy within reach of its `reference`, as `options` ask: beta adapts to a target, a run ends well at
    `stop_at_kl` and fails beyond `kl_limit`, and the reference is renewed every `refresh_reference` rounds.

    `beta` is its weight at the first round. Weights of renewed references are kept beside the rounds of `history`,
    where a resumed run finds them.
    """

    def __init__(self, options: KLControl, beta: float, history: RoundHistory, reference: Policy | None) -> None:
        self.options, self.first_beta, self.history, self.reference = options, beta, history, reference
        stage = history.folder.parent
        self.references = WeightSnapshots(stage / "references", stage / "checkpoints")

    def beta(self, number: int) -> float:
        """The weight of the KL in a round, which follows from the KL of all rounds before."""
        return self.history.beta(number, self.first_beta, self.options)

    def resume(self, step: int, number: int, updates: int) -> None:
        """Give the reference the weights it had in round `number`, of so many updates each, where update `step` was the
        last."""
        self.references.forget(step)
        every = self.options.refresh_reference
        renewed = number - number % every if every else 0
        if self.reference is not None and renewed > 0 and renewed * updates < step:
            self.references.back(renewed * updates, self.reference.model)

    def refresh(self, plan: RoundPlan, policy: Policy) -> None:
        """Give the reference the policy's weights, where it is to be renewed before this round."""
        every = self.options.refresh_reference
        if every is None or self.reference is None or not plan.number or plan.number % every:
            return
        self.references.put(plan.version, policy.model)
        self.references.back(plan.version, self.reference.model)

    def check(self, plan: RoundPlan, rows: list[Experience]) -> None:
        """Note what a round showed. RunFailed where its responses are beyond `kl_limit`."""
        check_kl(plan.version + 1, self.history.note(plan.number, rows), self.options.kl_limit)

    def why_stop(self, plan: RoundPlan) -> str:
        """The reason why the run ends well before this round is learned from; empty where it goes on."""
        kl, limit = self.history.of(plan.number).kl, self.options.stop_at_kl
        if plan.number == 0 or limit is None or kl is None or kl < limit:
            return ""
        return stopped(plan.version, f"the KL of a round is {kl:.2f} nats (stop_at_kl {limit:g})")
