"""Batches of a policy's own answers: prompts, rollouts, scores, advantages. The loop is that of every other method.

A round takes some prompts, samples a group of answers to each, scores them, and learns from them in one or more
updates. Everything random is a function of (seed, round), and a round's experience is on disk before the first update
that reads it: a run that was killed goes on to the same weights.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from truing.data.batch import Batch, Branch, Tree, pack
from truing.data.kinds import WORDS, common_shape
from truing.errors import RunFailed, UserError
from truing.policy.policy import Policy
from truing.rollout import combine, experience
from truing.rollout.call import Answer
from truing.rollout.combine import Rewards
from truing.rollout.engine import Sampling, generate
from truing.rollout.experience import Experience
from truing.settings import Online, Training
from truing.train import parallel
from truing.train.earned import ADVANTAGES, Round, advantage_of, check_read, told
from truing.train.sorting import SORTED, kept
from truing.train.terms import Sum
from truing.types import Messages, Rollout, digest


@dataclass(frozen=True)
class Prompt:
    """A prompt to answer, as messages and as tokens, with its row in the data file and what else stands there."""

    row: int
    messages: Messages
    ids: tuple[int, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """How answers are turned into text and scored."""

    text: Callable[[Policy, Rollout], str]
    rewards: Rewards


class RolloutSource:
    """Steps over what `policy` answers as it is when each round begins.

    `rows_per_step` is the prompts of one update; a round has `minibatches` times as many, learned from `passes` times.
    `reference` reads rollouts for the leash, where there is one; `stage` is a name that keeps the draws of several
    stages apart.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        judged: Judged,
        terms: Sum,
        online: Online,
        training: Training,
        folder: Path,
        seed: int = 0,
        reference: Policy | None = None,
        stage: str = "",
    ) -> None:
        if not prompts:
            raise UserError("there is no prompt left to answer")
        self.policy, self.prompts, self.judged, self.terms = policy, tuple(prompts), judged, terms
        self.online, self.training, self.folder = online, training, folder
        self.seed, self.reference, self.stage = seed + training.seed, reference, stage
        self.told: dict[str, float] = {}
        self.per_update = training.rows_per_step or 16
        self.per_round = self.per_update * online.minibatches
        self.updates = online.minibatches * online.passes
        self.advantage = advantage_of(terms)
        self.shape = common_shape((term.name, term.objective.needs) for term in terms.terms)
        if "mismatched_logp_B" in terms.all_signals:
            raise UserError("an objective that holds answers against other prompts learns from given data only")
        self.skipped: list[int] = []
        if self.shape not in SORTED:
            raise UserError(f"an objective that learns from {WORDS[self.shape]} cannot learn from scored answers")
        imitates = self.shape == "single" and self.advantage is None
        check_read(online, self.advantage, imitates)
        self.compares = not imitates and self.advantage not in ("gae", "returns", "none") and online.answers > 1
        self.sort = functools.partial(kept, passing=online.passing) if imitates else SORTED[self.shape]
        self.valued = "value_BT" in terms.all_signals

    @cached_property
    def steps(self) -> int:
        """Updates of the whole run; an epoch is every prompt once."""
        if self.training.steps is not None:
            return self.training.steps
        return math.ceil(self.training.epochs * len(self.prompts) / self.per_round) * self.updates

    def fresh(self, step: int) -> bool:
        """Whether the policy of this update is the one that gave its answers."""
        return (step - 1) % self.updates == 0

    def since(self, step: int) -> Iterator[tuple[int, Batch]]:
        """(number, batch) of every update after `step`, counted from 1. A round whose answers teach nothing has none:
        its numbers are left out, and the round is among `skipped`. RunFailed where that is so of all of them."""
        first, taught = step // self.updates, step > 0
        parallel.lead(lambda: self._forget(first + (step % self.updates > 0)))
        for number in range(first, math.ceil(self.steps / self.updates)):
            trees = self.trees(self.experience(number, step))
            if not trees:
                self.skipped.append(number + 1)
                continue
            for at, group in enumerate(self.parts(trees, number), number * self.updates + 1):
                if step < at <= self.steps:
                    taught = True
                    yield at, Batch(group)
        if not taught:
            raise RunFailed(
                f"no answer of {len(self.skipped)} rounds teaches the objective anything: all of a prompt scored the "
                "same, or none passed; give more answers or prompts to a round, or a finer reward"
            )

    def _forget(self, known: int) -> str:
        """Remove the rounds after the first `known`: their updates will be done again."""
        for path in self.folder.glob("round-*.parquet"):
            if int(path.stem[6:]) > known:
                path.unlink()
        return ""

    def parts(self, trees: Sequence[Tree], number: int) -> Iterator[tuple[Tree, ...]]:
        """A round's trees by update: in order at the first pass, then shuffled. Where fewer trees than updates are
        left, some are read twice."""
        for again in range(self.online.passes):
            order = self._draws(number, again).permutation(len(trees)) if again else np.arange(len(trees))
            for own in np.array_split(order, self.online.minibatches):
                yield tuple(trees[i] for i in (own if len(own) else order[:1]))

    def _draws(self, number: int, again: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed % 2**63, (number << 20) + again]))

    def experience(self, number: int, step: int) -> list[Experience]:
        """A round: read where the run was stopped within it, else lived through now."""
        path = self.folder / f"round-{number + 1:05d}.parquet"
        if step > number * self.updates:
            return experience.read(path)
        rows = self.live(number)
        parallel.lead(lambda: experience.write(path, rows))
        return rows

    def live(self, number: int) -> list[Experience]:
        """Answers to this round's prompts, scored, and read by the reference and the value head where one asks."""
        chosen = list(self.choose(number))
        drawn = int(digest([self.seed, self.stage, number]), 16) % 2**63
        sampling = Sampling(self.online.max_new_tokens, seed=drawn)
        rollouts = generate(self.policy, [p.ids for p in chosen], sampling, self.online.answers)
        asked = [chosen[r.group] for r in rollouts]
        texts = [self.judged.text(self.policy, r) for r in rollouts]
        scores = self.scores(number, asked, texts, rollouts)
        bare = [
            Experience(
                p.row,
                p.messages[-1].content,
                text,
                p.ids,
                r.response_ids,
                r.logp_T,
                (),
                (),
                score,
                r.stop,
                r.group,
                number,
                tuple(parts.items()),
                why,
            )
            for p, text, r, (score, parts, why) in zip(asked, texts, rollouts, scores, strict=True)
        ]
        return self.read_over(bare)

    def scores(
        self, number: int, asked: Sequence[Prompt], texts: Sequence[str], rollouts: Sequence[Rollout]
    ) -> list[tuple[float, dict[str, float], str]]:
        """The score of every answer with its parts, and of one that has none, why; the first rank asks for all."""
        said = zip(asked, texts, rollouts, strict=True)
        answers = [Answer(p.messages, text, r.response_ids, r.group, p.columns) for p, text, r in said]

        def work() -> str:
            found = self.judged.rewards(answers, self.before(number))
            return json.dumps([(s.value, dict(s.parts), s.why if s.failed else "") for s in found])

        given: list[tuple[float, dict[str, float], str]] = json.loads(parallel.lead(work))
        return given

    def before(self, number: int) -> list[dict[str, float]]:
        """What the rewards said in the round before, where costs follow from it. RunFailed where it is gone."""
        if number == 0 or not self.judged.rewards.remembers:
            return []
        return [dict(row.parts) for row in experience.read(self.folder / f"round-{number:05d}.parquet")]

    def choose(self, number: int) -> Iterator[Prompt]:
        """A round's prompts: every prompt once before any comes again."""
        orders: dict[int, Any] = {}
        for place in range(number * self.per_round, (number + 1) * self.per_round):
            epoch, at = divmod(place, len(self.prompts))
            if epoch not in orders:
                key = np.random.Philox(key=[self.seed % 2**63, (1 << 40) + epoch])
                orders[epoch] = np.random.Generator(key).permutation(len(self.prompts))
            yield self.prompts[orders[epoch][at]]

    def read_over(self, rows: list[Experience]) -> list[Experience]:
        """The rows with what the reference and the value head say of their tokens, where a term or the leash asks."""
        trees = grouped(rows, lambda _: {})
        refs, values = [], []
        leash = self.online.beta > 0 or self.terms.needs_reference
        with torch.no_grad():  # a divided model's weights must not become inference tensors
            for group in pack(trees, self.training.tokens_per_device):
                batch = Batch(group)
                lengths = [len(b.ids) for b in batch.branches]
                if leash and self.reference is not None:
                    refs += [tuple(x.tolist()) for x in self.reference.logp(batch).double().cpu().split(lengths)]
                if self.valued:
                    values += [
                        tuple(x.tolist()) for x in self.policy.logp_and_values(batch)[1].double().cpu().split(lengths)
                    ]
        rows = [replace(row, ref_logp_T=ref) for row, ref in zip(rows, refs, strict=True)] if refs else rows
        return [replace(row, value_T=v) for row, v in zip(rows, values, strict=True)] if values else rows

    def trees(self, rows: list[Experience]) -> list[Tree]:
        """One tree a prompt, its answers with all that the objectives read of them; of a method that learns from
        preferences, the answers sorted by their scores. Answers that could not be scored are left out, and, where
        answers are compared, one without siblings. Empty where nothing is left, or none is better than another."""
        figures = combine.told([(dict(row.parts), row.why) for row in rows])
        rows, alone = experience.usable(rows, fewest=2 if self.compares else 1)
        if not rows:
            return []
        whole = Round(rows, self.online)
        self.told = told(whole) | figures | {"alone": float(alone)}
        trees = grouped(rows, self.facts_of(rows, whole).__getitem__)
        left = [tree for tree in map(self.sort, trees) if tree is not None]
        return [replace(tree, index=i) for i, tree in enumerate(left)]

    def facts_of(self, rows: list[Experience], whole: Round) -> list[dict[str, tuple[float, ...]]]:
        """What is known of each answer, by signal name."""
        advantage = ADVANTAGES[self.advantage](whole) if self.advantage else None
        returns = whole.forecast[1] if self.valued else None
        out = []
        for i, row in enumerate(rows):
            n = len(row.response_ids)
            found = {"old_logp_BT": row.logp_T, "sampler_logp_BT": row.logp_T, "score_B": (float(whole.score[i]),)}
            if advantage is not None:
                own = tuple(advantage[i, :n].tolist())
                found |= {"advantage_BT": own, "advantage_B": own[:1]}
            if row.ref_logp_T:
                found["ref_logp_BT"] = row.ref_logp_T
            if returns is not None:
                found |= {"old_value_BT": row.value_T, "return_BT": tuple(returns[i, :n].tolist())}
            out.append(found)
        return out


def grouped(rows: Sequence[Experience], facts: Callable[[int], Mapping[str, tuple[float, ...]]]) -> list[Tree]:
    """Rows of one group as one tree: the prompt once. `facts` are those of a row, by its place."""
    groups: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.group, []).append(place)
    trees: list[Tree] = []
    for own in groups.values():
        said = [(rows[place].response_ids, facts(place)) for place in own]
        branches = tuple(Branch("response", ids, (True,) * len(ids), facts=known) for ids, known in said)
        trees.append(Tree(rows[own[0]].prompt_ids, branches, len(trees), rows[own[0]].row))
    return trees
