"""Prompts to answer, how responses become text and scores, and what the reference and the value head say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from truing.data.batch import Batch, Branch, Tree, pack
from truing.errors import RunFailed
from truing.policy.divided import forward
from truing.policy.policy import Beside, Policy
from truing.policy.precision import unit
from truing.records import Engine, Messages, Rollout, Sampling
from truing.rewards.combine import Rewards
from truing.rollout.engine import InProcess
from truing.rollout.experience import Experience


@dataclass(frozen=True)
class Prompt:
    """A prompt to answer, as messages and as tokens, with its row in the data file and what else stands there."""

    row: int
    messages: Messages
    ids: tuple[int, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """The text of a response and its scores."""

    text: Callable[[Policy, Rollout], str]
    rewards: Rewards


class GenerationClient:
    """A client of the engine that samples, which it tells when the weights have moved.

    RunFailed where responses come back that other weights gave, or too few, too many, or to another prompt.
    """

    def __init__(self, engine: Engine, policy: Policy) -> None:
        self.engine, self.policy, self.version = engine, policy, -1

    @property
    def exact(self) -> bool:
        """True if the sampler's log-probabilities are the trainer's but for rounding in fp32: those of this policy in
        this process, in fp32 or more. Else the trainer reads for itself wherever a number follows from them."""
        return isinstance(self.engine, InProcess) and unit(self.policy.dtype) <= unit(torch.float32)

    def ask(self, version: int, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[Rollout]:
        """`n` responses to each prompt, in the order of the prompts, by the policy as it is after `version` updates."""
        if version != self.version:
            self.engine.sync(self.policy, version)
            self.version = version
        rollouts = self.engine.generate([p.ids for p in prompts], n, sampling)
        strange = next((r.policy_version for r in rollouts if r.policy_version != version), None)
        if strange is not None:
            raise RunFailed(
                f"the engine answered with the weights of update {strange}, and was to answer with those of update "
                f"{version}; its `sync` did not do what it said"
            )
        counts = Counter(r.group for r in rollouts)
        if any(counts[i] != n for i in range(len(prompts))) or len(counts) != len(prompts):
            raise RunFailed(
                f"the engine gave {len(rollouts)} responses to {len(prompts)} prompts, and each was to have {n}; a "
                "rollout's `group` is the place of its prompt, from 0"
            )
        if any(tuple(r.prompt_ids) != prompts[r.group].ids for r in rollouts):
            raise RunFailed(
                "the engine gave responses to other prompts than it was asked; see the `group` of its rollouts"
            )
        return sorted(rollouts, key=lambda r: r.group)


def grouped(rows: Sequence[Experience], facts: Callable[[int], Mapping[str, tuple[float, ...]]]) -> list[Tree]:
    """Rows of one group as one tree: the prompt once. `facts` are those of a row, by its place."""
    groups: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.group, []).append(place)
    trees: list[Tree] = []
    for places in groups.values():
        responses = [(rows[place].response_ids, facts(place)) for place in places]
        branches = tuple(Branch("response", ids, (True,) * len(ids), facts=signals) for ids, signals in responses)
        trees.append(Tree(rows[places[0]].prompt_ids, branches, len(trees), rows[places[0]].row))
    return trees


def read_over(
    rows: list[Experience], policy: Policy, reference: Policy | None, valued: bool, held: int, by_policy: bool = False
) -> list[Experience]:
    """The rows, in the order of their groups, with what the reference (if any) and, where they are `valued`, the value
    head say of their tokens, and with `by_policy` the policy itself; `held` tokens are read at once.

    Policy and reference read the same batches, so that two equal ones give equal numbers, in every precision.
    """
    refs: list[tuple[float, ...]] = []
    values: list[tuple[float, ...]] = []
    olds: list[tuple[float, ...]] = []
    if reference is None and not valued and not by_policy:
        return rows
    beside: tuple[Beside, ...] = ("value",) if valued else ()
    read = forward(policy.model, policy.read)
    with torch.no_grad():  # a divided model's weights must not become inference tensors
        for batch in map(Batch, pack(grouped(rows, lambda _: {}), held)):
            if reference is not None:
                refs += apart(batch, reference.logp(batch))
            if valued or by_policy:
                figures = read(batch, *beside)
                values += apart(batch, figures["value"]) if valued else ()
                olds += apart(batch, figures["logp"]) if by_policy else ()
    rows = [replace(row, ref_logp_T=ref) for row, ref in zip(rows, refs, strict=True)] if refs else rows
    rows = [replace(row, old_logp_T=old) for row, old in zip(rows, olds, strict=True)] if olds else rows
    return [replace(row, value_T=v) for row, v in zip(rows, values, strict=True)] if values else rows


def measure_anew(rows: Sequence[Experience], policy: Policy) -> None:
    """Measure the rounding of a policy that has been trained since, on its newest responses, where it is measured: in
    low precision, in which it grows with the logits."""
    if rows and unit(policy.dtype) > unit(torch.float32):
        first = [row for row in rows if row.group in {rows[0].group, rows[-1].group}]
        forward(policy.model, policy.measure)(Batch(tuple(grouped(first, lambda _: {}))))


def apart(batch: Batch, figure_R: torch.Tensor) -> Iterator[tuple[float, ...]]:
    """Divide what was read of a batch by response."""
    for part in figure_R.double().cpu().split([len(b.ids) for b in batch.branches]):
        yield tuple(part.tolist())
