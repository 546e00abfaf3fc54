"""Signals: from a batch and a policy to exactly what an objective asks for by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from truing.data.batch import Batch
from truing.errors import UserError
from truing.policy.policy import Beside, Policy
from truing.policy.reference import Reference


class View:
    """One batch seen by one policy; every quantity is computed when it is first asked for, and once."""

    def __init__(
        self, policy: Policy, batch: Batch, reference: Reference | None, beside: Sequence[Beside] = ()
    ) -> None:
        self.policy, self.batch, self.reference, self.beside = policy, batch, reference, beside
        self._cache: dict[str, Tensor] = {}

    def once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """The quantity of this name, computed the first time."""
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

    def logp_R(self) -> Tensor:
        """Log-probability of every response token under the policy."""
        return self.read["logp"]

    @cached_property
    def read(self) -> dict[str, Tensor]:
        """Read `logp` of every response token by the policy, and what is to be read `beside` it."""
        return self.policy.read(self.batch, *self.beside)

    def ref_R(self) -> Tensor:
        """The same under the reference, which has no gradient."""
        return self.once("ref", lambda: self._stored(self.batch))

    def _stored(self, batch: Batch) -> Tensor:
        if self.reference is None and all("ref_logp_BT" in b.facts for b in batch.branches):
            return self.facts_R("ref_logp_BT", batch)
        if self.reference is None:
            raise UserError("this objective needs a reference, and the stage has none")
        return self.reference.tokens(batch).to(self.policy.device)

    def logp_M(self) -> Tensor:
        """Log-probability of the learned tokens of every branch, summed in fp64."""
        return self.once("logp sums", lambda: self.batch.sums(self.logp_R()))

    def ref_M(self) -> Tensor:
        """The same under the reference."""
        return self.once("ref sums", lambda: self.batch.sums(self.ref_R()))

    def mismatched(self) -> Tensor:
        """The policy's log-probability of another prompt's responses, without gradient."""
        with torch.no_grad():
            shadows = self.batch.shadows()
            return shadows.sums(self.policy.logp(shadows))

    def texts(self) -> Batch:
        """The texts that stand beside responses; UserError where there are none."""
        shadows = self.batch.shadows()
        if not shadows.trees:
            raise UserError("this objective learns from given texts (pretrain), and the stage has none")
        return shadows

    def given_M(self) -> Tensor:
        """The policy's log-probability of every given text, summed in fp64, at temperature 1 whatever that of
        responses: a look of its own."""
        return self.texts().sums(replace(self.policy, temperature=1.0).logp(self.texts()))

    def ref_mismatched(self) -> Tensor:
        """The same under the reference."""
        shadows = self.batch.shadows()
        return shadows.sums(self._stored(shadows))

    def prompt_M(self) -> Tensor:
        """The policy's log-probability of every branch's prompt after its first token, summed in fp64: a look of its
        own, in which a prompt's tokens are responses."""
        prompts, trees = self.batch.prompts(), self.batch.trees
        whole = torch.zeros(len(trees), dtype=torch.float64, device=self.policy.device)
        if prompts.trees:
            longer = [i for i, tree in enumerate(trees) if len(tree.prompt) > 1]
            at = torch.tensor(longer, device=self.policy.device)
            whole = whole.index_add(0, at, prompts.sums(self.policy.logp(prompts)))
        return whole.repeat_interleave(self.tensor([len(tree.branches) for tree in trees]).long())

    def prompt_lengths(self) -> Tensor:
        """Tokens after the first of every single response's prompt."""
        lengths = [len(tree.prompt) - 1 for tree in self.batch.trees for _ in tree.branches]
        return self.tensor([lengths[m] for m in self.batch.singles])

    def reward_M(self, head: str) -> Tensor:
        """A scalar head at the end of every branch."""
        return self._head(head, self.once("rewards", lambda: self.policy.head_rewards(self.batch)))

    def step_logit_P(self, head: str) -> Tensor:
        """A scalar head at the end of every labelled step, all branches one after the other."""
        return self._head(head, self.once("steps", lambda: self.policy.head_rewards_at(self.batch, self.steps_at())))

    def _head(self, head: str, score: Tensor) -> Tensor:
        if head not in self.policy.heads:
            there = ", ".join(filter(None, self.policy.heads)) or "one head without a name"
            raise UserError(f"an objective reads the head {head!r}, and {self.policy.name} has {there}")
        return score[:, self.policy.heads.index(head)]

    def steps_at(self) -> Tensor:
        """Places in the packed row at which labelled steps end."""
        ends = self.batch.ends_M.tolist()
        branches = zip(self.batch.branches, ends, strict=True)
        return torch.tensor([end - len(b.ids) + 1 + token for b, end in branches for token, _ in b.steps])

    def stepwise(self, value_P: Tensor) -> Tensor:
        """One value a step, padded with zeros to [B, S]."""
        counts = [len(b.steps) for b in self.batch.branches]
        pieces = value_P.split(counts)
        return pad_sequence([pieces[m] for m in self.batch.singles], batch_first=True)

    def labels(self) -> Tensor:
        """The label of every step, [B, S]."""
        return self.stepwise(self.tensor([label for b in self.batch.branches for _, label in b.steps]))

    def padded(self, value_R: Tensor) -> Tensor:
        """Response tokens of single responses, padded with zeros to [B, T]."""
        pieces = value_R.split([len(b.ids) for b in self.batch.branches])
        return pad_sequence([pieces[m] for m in self.batch.singles], batch_first=True)

    def ranked(self, value_M: Tensor) -> Tensor:
        """One value a branch, padded with zeros to [B, K]: the responses of each tree, best first."""
        return pad_sequence(value_M.split([len(tree.branches) for tree in self.batch.trees]), batch_first=True)

    def better(self, value_M: Tensor) -> Tensor:
        """The better branch's value of every pair."""
        return value_M[[pair.better for pair in self.batch.pairs]]

    def worse(self, value_M: Tensor) -> Tensor:
        """The worse branch's value of every pair."""
        return value_M[[pair.worse for pair in self.batch.pairs]]

    def facts_R(self, name: str, batch: Batch | None = None) -> Tensor:
        """A number recorded for every token of rollouts."""
        return self.tensor([x for b in (batch or self.batch).branches for x in b.facts[name]])

    def facts_B(self, name: str) -> Tensor:
        """A number recorded for every rollout."""
        return self.tensor([self.batch.branches[m].facts[name][0] for m in self.batch.singles])

    def sampler_gap(self) -> Tensor:
        """The distance of the sampler's log-probabilities from the policy's, nats: the mean over each response's
        tokens."""
        off = self.padded((self.logp_R().detach() - self.facts_R("sampler_logp_BT")).abs()).sum(1)
        return off / self.padded(torch.ones_like(self.logp_R())).sum(1)

    def tie_tolerance(self) -> Tensor:
        """The margin of every pair that rounding alone explains: two scores of a reward model, or the tokens
        of both responses under policy and reference."""
        return self.noise_M(self.better) if self.policy.is_reward else self.noise_of(self.better, self.worse)

    def lead_tolerance(self) -> Tensor:
        """The same for the lead of every ranking's best over its longest rival."""

        def best(value_M: Tensor) -> Tensor:
            return self.ranked(value_M)[:, 0]

        def rival(value_M: Tensor) -> Tensor:
            return self.ranked(value_M)[:, 1:].amax(1)

        return self.noise_M(best) if self.policy.is_reward else self.noise_of(best, rival)

    def noise_M(self, side: Callable[[Tensor], Tensor]) -> Tensor:
        """The rounding of a difference of two scores, for every row; it has grown with the scores since it was
        measured."""
        noise = self.policy.noise(self.batch)
        scores = self.once("rewards", lambda: self.policy.head_rewards(self.batch))
        then = self.policy.rounding.size if self.policy.rounding is not None else 0.0
        now = scores.detach().square().mean().sqrt().item()
        grown = max(1.0, now / then) if then > 0 else 1.0
        return torch.full_like(side(self.lengths_M()), 2**0.5 * noise * grown)

    def noise_of(self, branch: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> Tensor:
        """The rounding of a difference of two log-ratios, for every row."""
        tokens = self.lengths_M()
        return self.policy.noise(self.batch) * (2 * (branch(tokens) + other(tokens))).sqrt()

    def lengths_M(self) -> Tensor:
        """Learned tokens of every branch."""
        return self.tensor([sum(b.loss) for b in self.batch.branches])

    def roles(self) -> Tensor:
        """1 for a desirable response, 0 for an undesirable one."""
        return self.tensor([self.batch.branches[m].role == "desirable" for m in self.batch.singles])

    def prompts(self) -> Tensor:
        """A number for every single response's prompt, the same on every rank."""
        numbers = [prompt_number(tree.prompt) for tree in self.batch.trees for _ in tree.branches]
        return self.tensor([numbers[m] for m in self.batch.singles])

    def targets(self, head: str) -> Tensor:
        """The score that raters gave every single response, for one head."""
        missing = [m for m in self.batch.singles if head not in self.batch.branches[m].targets]
        if missing:
            rows = [tree.row for tree in self.batch.trees for _ in tree.branches]
            there = ", ".join(filter(None, self.batch.branches[missing[0]].targets)) or "one score without a name"
            raise UserError(f"data row {rows[missing[0]]} has no score {head!r}: it has {there}")
        return self.tensor([self.batch.branches[m].targets[head] for m in self.batch.singles])

    def values(self, name: str) -> Tensor | None:
        """A column of the pairs' data. An optional one is None where no pair of the part has it, and neutral where a
        pair lacks it; UserError where a pair lacks another."""
        column = [pair.values.get(name) for pair in self.batch.pairs]
        if name in NEUTRAL:
            if all(value is None for value in column):
                return None
            return self.tensor([NEUTRAL[name] if v is None else v for v in column])
        if None in column:
            row = next(t.row for t in self.batch.trees if any(name not in pair.values for pair in t.pairs))
            raise UserError(f"data row {row} has no column '{name.removesuffix('_B')}', which the objective needs")
        return self.tensor(column)

    def ties(self) -> Tensor:
        """1 where a pair is a tie."""
        return self.tensor([pair.values.get("tie_B", 0.0) for pair in self.batch.pairs])

    def tie_logit(self) -> Tensor:
        """The reward model's tie parameter, for every pair."""
        parameter: Tensor = self.policy.model.tie_logit
        return parameter.double().expand(len(self.batch.pairs))

    def tensor(self, values: Any) -> Tensor:
        """Numbers of the data where the policy is."""
        return torch.tensor(values, dtype=torch.float64, device=self.policy.device)


def prompt_number(ids: tuple[int, ...]) -> float:
    """A number that stands for a prompt: 52 bits of its hash, which fp64 holds exactly."""
    return float(int(hashlib.sha256(str(ids).encode()).hexdigest()[:13], 16))


NEUTRAL: Mapping[str, float] = {"margin_B": 0.0, "preference_B": 1.0}
"""Columns that data may lack, each with what it means where a pair lacks it."""

SOURCES: dict[str, Callable[[View], Tensor | None]] = {
    "logp_BT": lambda v: v.padded(v.logp_R()),
    "ref_logp_BT": lambda v: v.padded(v.ref_R()),
    "mask_BT": lambda v: v.padded(torch.tensor(v.batch.taught, device=v.policy.device).float()),
    "logp_B": lambda v: v.logp_M()[v.batch.singles],
    "ref_logp_B": lambda v: v.ref_M()[v.batch.singles],
    "length_B": lambda v: v.lengths_M()[v.batch.singles],
    "prompt_logp_B": lambda v: v.prompt_M()[v.batch.singles],
    "prompt_length_B": lambda v: v.prompt_lengths(),
    "old_logp_BT": lambda v: v.padded(v.facts_R("old_logp_BT")),
    "sampler_logp_BT": lambda v: v.padded(v.facts_R("sampler_logp_BT")),
    "advantage_BT": lambda v: v.padded(v.facts_R("advantage_BT")),
    "old_value_BT": lambda v: v.padded(v.facts_R("old_value_BT")),
    "return_BT": lambda v: v.padded(v.facts_R("return_BT")),
    "value_BT": lambda v: v.padded(v.read["value"]),
    "entropy_BT": lambda v: v.padded(v.read["entropy"]),
    "old_logp_B": lambda v: v.batch.sums(v.facts_R("old_logp_BT"))[v.batch.singles],
    "advantage_B": lambda v: v.facts_B("advantage_B"),
    "score_B": lambda v: v.facts_B("score_B"),
    "desirable_B": lambda v: v.roles(),
    "prompt_B": lambda v: v.prompts(),
    "given_logp_B": lambda v: v.given_M(),
    "given_length_B": lambda v: v.tensor([sum(b.loss) for b in v.texts().branches]),
    "mismatched_logp_B": lambda v: v.mismatched(),
    "ref_mismatched_logp_B": lambda v: v.ref_mismatched(),
    "chosen_logp_B": lambda v: v.better(v.logp_M()),
    "rejected_logp_B": lambda v: v.worse(v.logp_M()),
    "ref_chosen_logp_B": lambda v: v.better(v.ref_M()),
    "ref_rejected_logp_B": lambda v: v.worse(v.ref_M()),
    "chosen_length_B": lambda v: v.better(v.lengths_M()),
    "rejected_length_B": lambda v: v.worse(v.lengths_M()),
    "logp_BK": lambda v: v.ranked(v.logp_M()),
    "ref_logp_BK": lambda v: v.ranked(v.ref_M()),
    "rank_mask_BK": lambda v: v.ranked(torch.ones_like(v.lengths_M())),
    "margin_B": lambda v: v.values("margin_B"),
    "preference_B": lambda v: v.values("preference_B"),
    "chosen_safe_B": lambda v: v.values("chosen_safe_B"),
    "rejected_safe_B": lambda v: v.values("rejected_safe_B"),
    "tie_B": lambda v: v.ties(),
    "tie_logit_B": lambda v: v.tie_logit(),
    "step_label_BS": lambda v: v.labels(),
    "step_mask_BS": lambda v: v.stepwise(torch.ones(len(v.steps_at()), dtype=torch.float64, device=v.policy.device)),
}
"""Signals by name. Those of a head follow."""

BESIDE: dict[str, Callable[[View], Tensor]] = {
    "own_R": lambda v: v.logp_R().detach(),
    "reference_R": lambda v: v.ref_R(),
    "sampler_R": lambda v: v.facts_R("sampler_logp_BT"),
    "sampler_gap_B": lambda v: v.sampler_gap(),
    "tie_tolerance_B": lambda v: v.tie_tolerance(),
    "lead_tolerance_B": lambda v: v.lead_tolerance(),
}
"""Signals that checks and metrics read and no objective does; R counts every response token of a part."""

HEADS: dict[str, Callable[[View, str], Tensor]] = {
    "reward_B": lambda v, head: v.reward_M(head)[v.batch.singles],
    "chosen_reward_B": lambda v, head: v.better(v.reward_M(head)),
    "rejected_reward_B": lambda v, head: v.worse(v.reward_M(head)),
    "reward_BK": lambda v, head: v.ranked(v.reward_M(head)),
    "step_logit_BS": lambda v, head: v.stepwise(v.step_logit_P(head)),
    "target_B": lambda v, head: v.targets(head),
}
"""Signals of one head of a reward model (`reward_B:clarity`, or without a name the only one), and of its data."""


def observe(
    policy: Policy, batch: Batch, signals: frozenset[str], reference: Reference | None = None
) -> dict[str, Tensor]:
    """The named signals of this batch. Optional data signals that the data does not have are left out."""
    view = View(policy, batch, reference, [name for name in get_args(Beside) if f"{name}_BT" in signals])
    values = {key: signal(view, key) for key in sorted(signals)}
    return {name: value for name, value in values.items() if value is not None}


def signal(view: View, key: str) -> Tensor | None:
    """One signal of a batch, by its name or by its name and its head's."""
    name, _, head = key.partition(":")
    return HEADS[name](view, head) if name in HEADS else (BESIDE.get(name) or SOURCES[name])(view)
