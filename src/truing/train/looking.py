"""The looking side of a stage: the watched prompts are answered on the way, and the best weights are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from truing.policy.policy import Policy
from truing.rollout.call import Answer
from truing.rollout.combine import Parts
from truing.train.asking import Desk, Judged, Prompt
from truing.train.record.snapshots import Aside
from truing.train.watch import Watch, ratios, summed_up
from truing.types import Rollout, Sampling

Known = Callable[[int], tuple[int, Sequence[Parts]]]
"""What is known of the rounds before a look after so many updates: the tokens that were sampled to learn from, and what
rewards said in the last of them, where costs follow from it."""


class Looking:
    """Has the prompts of `watch` answered by the policy of `desk`, with the same `sampling` at every look, and keeps
    the weights of the best look among `bests`. `held` tokens are read by the reference at once."""

    def __init__(
        self,
        watch: Watch,
        desk: Desk,
        reference: Policy,
        judged: Judged,
        bests: Aside,
        sampling: Sampling,
        known: Known,
        held: int,
        stop_at_kl: float | None = None,
    ) -> None:
        self.watch, self.desk, self.reference, self.judged, self.bests = watch, desk, reference, judged, bests
        self.sampling, self.known, self.held, self.stop_at_kl = sampling, known, held, stop_at_kl
        self.picks = watch.options.patience is not None

    def begin(self, step: int) -> None:
        """Go on from update `step`: looks at later ones will be done again. Where there is none yet, look; where the
        best was at this very update, its weights are those of now, which a kill may have kept from the disk."""
        self.bests.forget(step)
        self.watch.begin(step)
        if not self.watch.rows:
            self.look(step)
        elif self.picks and self.watch.best["step"] == step:
            self.bests.put(step, self.desk.policy.model)

    def look(self, step: int) -> None:
        """Have the watched prompts answered by the policy as it is after update `step`, and look at the answers."""
        watch, policy = self.watch, self.desk.policy
        rollouts = self.desk.ask(step, watch.prompts, 1, self.sampling)
        reference = replace(self.reference, temperature=self.sampling.temperature)  # as the answers are sampled
        texts = [self.judged.text(policy, r) for r in rollouts]
        answers = answers_of([watch.prompts[r.group] for r in rollouts], texts, rollouts)
        own = None if self.desk.exact else replace(policy, temperature=self.sampling.temperature)
        kl = ratios(rollouts, reference, self.held, own)
        tokens, before = self.known(step)
        watch.look(step, tokens, answers, kl, self.judged.rewards, before)
        if self.picks and watch.best["step"] == step:
            self.bests.put(step, policy.model)

    def after(self, step: int, steps: int) -> bool:
        """Look, where a look is due after this update of so many; whether one was."""
        if not self.watch.due(step, steps):
            return False
        self.look(step)
        return True

    def over(self) -> str:
        """Why the stage ends with the last look, or an empty string."""
        return self.watch.over(self.stop_at_kl)

    def end(self, step: int) -> None:
        """Look after the last update, where none was taken then: rounds that taught nothing came behind it, or the
        stage ended early. With `patience` the policy is, in the end, what it was at the best look."""
        if self.watch.rows[-1]["step"] < step:
            self.look(step)
        if self.picks:
            self.bests.back(self.watch.best["step"], self.desk.policy.model)

    def account(self) -> list[str]:
        """All looks in a line, and, with `patience`, whose weights are kept."""
        lines = [summed_up(self.watch)]
        if self.picks:
            lines.append(f"the weights kept are those after update {self.watch.best['step']}, the best look")
        return lines


def answers_of(asked: Sequence[Prompt], texts: Sequence[str], rollouts: Sequence[Rollout]) -> list[Answer]:
    """Answers as rewards read them."""
    said = zip(asked, texts, rollouts, strict=True)
    return [Answer(p.messages, text, r.response_ids, r.group, p.columns, whole=True) for p, text, r in said]
