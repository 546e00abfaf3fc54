"""Batches of a policy's own answers: prompts, rollouts, scores, advantages. The loop is that of every other method.

A round takes some prompts, samples a group of answers to each, scores them, and learns from them in one or more
updates. Everything random is a function of (seed, round), and a round's experience is on disk before the first update
that reads it: a run that was killed goes on to the same weights.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from truing.data.batch import Batch, Tree
from truing.data.kinds import WORDS, common_shape
from truing.errors import RunFailed, UserError
from truing.online.advantages import ADVANTAGES, Round, advantage_of, check_horizon, check_read, equal, told, weighed
from truing.online.generation import Desk, Judged, Prompt, grouped, measure_anew, read_over
from truing.online.history import Past, check_kl
from truing.online.monitor import Looking, Watch, answers_of, stopped
from truing.online.preferences import SORTED, kept
from truing.online.pretraining_mix import Given
from truing.policy.policy import Policy
from truing.rewards import combine
from truing.rollout import account, experience
from truing.rollout.engine import InProcess
from truing.rollout.experience import Experience
from truing.rollout.mixture import Mixture
from truing.rollout.sample import check_ratio
from truing.settings import Leash, Online, Shaping, Training
from truing.train.distributed import process_group
from truing.train.objective_sum import Sum
from truing.train.record.checkpoint import room
from truing.train.record.snapshots import Aside
from truing.types import Engine, Rollout, Sampling, digest

__all__ = ["Judged", "Prompt", "RolloutSource"]


class RolloutSource:
    """Steps over what `policy` answers as it is when each round begins.

    `rows_per_step` is the prompts of one update; a round has `minibatches` times as many, learned from `passes` times.
    `reference` reads rollouts for the leash, where there is one; `stage` is a name that keeps the draws of several
    stages apart. `engine` samples (the policy in this process unless another is given), `watch` looks at held-out
    prompts on the way, and the texts of `given` stand beside answers. `ended` says why the run ended early, if it did.
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
        *,
        shaping: Shaping = Shaping(),
        leash: Leash = Leash(),
        watch: Watch | None = None,
        given: Given = Given(),
        engine: Engine | None = None,
    ) -> None:
        if not prompts:
            raise UserError("there is no prompt left to answer")
        check_ratio(Sampling(online.max_new_tokens, online.temperature), policy.temperature)
        self.policy, self.prompts, self.judged, self.terms = policy, tuple(prompts), judged, terms
        self.online, self.training, self.folder = online, training, folder
        self.seed, self.reference, self.stage = seed + training.seed, reference, stage
        self.shaping, self.leash, self.given, self.past = shaping, leash, given, Past(folder)
        if engine is not None and online.mixture:
            raise UserError("'mixture' is sampled in this process alone, and another engine is given; leave one out")
        self.desk = Desk(engine or InProcess(policy, mixture=self.mixture), policy)
        self.references = Aside(folder.parent / "references", folder.parent / "checkpoints")
        self.looking = None if watch is None else self.looks_of(watch)
        self.told: dict[str, float] = {}
        self.ended = ""
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
        self.imitates = self.shape == "single" and self.advantage is None
        self.compares = not self.imitates and self.advantage not in ("gae", "returns", "none") and online.answers > 1
        self.leashed = online.beta > 0 or terms.needs_reference
        check_read(online, shaping, leash, self.advantage, self.imitates, self.compares, self.leashed)
        check_horizon(leash, self.per_round * online.answers)
        self.sort = functools.partial(kept, passing=online.passing) if self.imitates else SORTED[self.shape]
        self.valued = "value_BT" in terms.all_signals
        self.corrected = online.sampler_cap is not None

    @cached_property
    def steps(self) -> int:
        """Updates of the whole run; an epoch is every prompt once."""
        if self.training.steps is not None:
            return self.training.steps
        return math.ceil(self.training.epochs * len(self.prompts) / self.per_round) * self.updates

    @property
    def mixture(self) -> Mixture | None:
        """What answers are sampled from beside the policy itself, if anything: its reference."""
        if not self.online.mixture:
            return None
        if self.reference is None:
            raise UserError("'mixture' needs a reference to mix the policy with, and there is none")
        return Mixture(self.reference, self.online.mixture)

    def fresh(self, step: int) -> bool:
        """Whether the policy of this update is the one that gave its answers."""
        return (step - 1) % self.updates == 0

    def since(self, step: int) -> Iterator[tuple[int, Batch]]:
        """(number, batch) of every update after `step`, counted from 1. A round whose answers teach nothing has none:
        its numbers are left out, and the round is among `skipped`. RunFailed where that is so of all of them, or where
        the policy has left its reference for good."""
        first, last = step // self.updates, step
        self.begin(step, first)
        for number in range(first, math.ceil(self.steps / self.updates)):
            rows = [] if self.ended else self.experience(number, step)
            if self.ended or self.far(number):
                break
            trees = self.trees(rows)
            if not trees:
                self.skipped.append(number + 1)
                continue
            for at, group in enumerate(self.parts(trees, number), number * self.updates + 1):
                if step < at <= self.steps and not self.ended:
                    last = at
                    yield at, Batch(self.given.beside(group, at, self.per_update))
        if not last and not self.ended:
            raise RunFailed(account.barren(len(self.skipped), account.of(self.folder)))
        if self.looking is not None:
            self.looking.end(last)

    def begin(self, step: int, round_: int) -> None:
        """Go on from update `step`, in round `round_`: what was written of later ones is removed, the reference is that
        of the round, and where it has not been looked at, the policy is."""
        known = round_ + (step % self.updates > 0)
        process_group.lead(lambda: self._forget(known))
        self.references.forget(step)
        renewed = round_ - round_ % (self.leash.refresh_reference or round_ + 1)
        if self.reference is not None and renewed > 0 and renewed * self.updates < step:
            self.references.back(renewed * self.updates, self.reference.model)
        if self.looking is not None:
            self.looking.begin(step)
            self.ended = self.looking.over() if step < self.steps else ""

    def after(self, step: int) -> Mapping[str, float]:
        """What is to be seen of an update that has been done: its round, and a look where one is due."""
        if self.looking is None or not self.looking.after(step, self.steps):
            return self.told
        self.ended = self.looking.over() if step < self.steps else ""
        return self.told | self.looking.watch.figures()

    def looks_of(self, watch: Watch) -> Looking:
        """The looks of this stage: at temperature 1, and at the policy alone where a mixture gives the answers to learn
        from. UserError where there is no reference to measure the distance from."""
        if self.reference is None:
            raise UserError("looks ('watch') measure the KL to a reference, and there is none")
        drawn = int(digest([self.seed, self.stage, "watch"]), 16) % 2**63

        def known(step: int) -> tuple[int, list[dict[str, float]]]:
            return self.past.tokens(math.ceil(step / self.updates)), self.before(step // self.updates)

        return Looking(
            watch,
            Desk(InProcess(self.policy), self.policy) if self.online.mixture else self.desk,
            self.reference,
            self.judged,
            Aside(self.folder.parent / "best", self.folder.parent / "checkpoints"),
            Sampling(self.online.max_new_tokens, seed=drawn),
            known,
            self.training.tokens_per_device,
            self.leash.stop_at_kl,
        )

    def far(self, number: int) -> bool:
        """Whether the policy of this round is as far from its reference as it may go, which ends the run well."""
        kl, limit = self.past.of(number).kl, self.leash.stop_at_kl
        if number == 0 or limit is None or kl is None or kl < limit:
            return False
        self.ended = stopped(number * self.updates, f"the KL of a round is {kl:.2f} nats (stop_at_kl {limit:g})")
        return True

    def account(self) -> list[str]:
        """What is to be said of the run when it is over: why it ended early, its looks, and whose weights are kept."""
        lines = [self.ended] if self.ended else []
        return lines + (self.looking.account() if self.looking else [])

    def _forget(self, known: int) -> str:
        """Remove the rounds after the first `known`: their updates will be done again."""
        for number, path in experience.rounds(self.folder).items():
            if number > known:
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
        """A round: read where the run was stopped within it, else lived through now. RunFailed where its answers are
        beyond `kl_limit`."""
        path = self.past.path(number)
        if step > number * self.updates:
            rows = experience.read(path)
        else:
            self.renew(number)
            rows = self.live(number)
            with room(path):
                process_group.lead(lambda: experience.write(path, rows))
        check_kl(number * self.updates + 1, self.past.note(number, rows), self.leash.kl_limit)
        return rows

    def renew(self, number: int) -> None:
        """Where the reference is to be refreshed before this round, it becomes the policy as it is."""
        every = self.leash.refresh_reference
        if every is None or self.reference is None or not number or number % every:
            return
        self.references.put(number * self.updates, self.policy.model)
        self.references.back(number * self.updates, self.reference.model)

    def live(self, number: int) -> list[Experience]:
        """Answers to this round's prompts, scored, and read by the reference and the value head where one asks."""
        rows = self.sampled(number, dict(enumerate(self.choose(number))))
        rows = self.resampled(number, rows)
        measure_anew(rows, self.policy)
        reads = self.leashed or self.leash.stop_at_kl is not None
        asked = self.updates > 1 or reads or self.corrected  # at a round's first update ratios are 1 without
        held, own = self.training.tokens_per_device, asked and (self.online.mixture > 0 or not self.desk.exact)
        return read_over(rows, self.policy, self.reference if reads else None, self.valued, held, own)

    def resampled(self, number: int, rows: list[Experience]) -> list[Experience]:
        """The round with the prompts whose answers all scored the same replaced by others, drawn for this round, as
        long as there are any and for at most `resample` draws."""
        taken = {prompt.row for prompt in self.choose(number)}
        order = self._draws(number, 1 << 19).permutation(len(self.prompts))
        spare = [self.prompts[i] for i in order if self.prompts[i].row not in taken]
        for draw in range(1, (self.online.resample or 0) + 1):
            asked = dict(zip(equal(rows), spare, strict=False))
            if not asked:
                break
            spare = spare[len(asked) :]
            left = [row for row in rows if row.group not in asked]
            rows = sorted(left + self.sampled(number, asked, draw), key=lambda row: row.group)
        return rows

    def sampled(self, number: int, asked: Mapping[int, Prompt], draw: int = 0) -> list[Experience]:
        """Answers to these prompts, by their group, with their scores."""
        groups, chosen = list(asked), list(asked.values())
        rollouts = [replace(r, group=groups[r.group]) for r in self.answered(number, chosen, draw)]
        said = [asked[r.group] for r in rollouts]
        texts = [self.judged.text(self.policy, r) for r in rollouts]
        scores = self.scores(number, said, texts, rollouts)
        return [
            Experience(
                p.row,
                p.messages,
                text,
                p.ids,
                r.response_ids,
                r.logp_T,
                (),
                (),
                score,
                r.stop,
                r.group,
                r.policy_version,
                tuple(parts.items()),
                why,
            )
            for p, text, r, (score, parts, why) in zip(said, texts, rollouts, scores, strict=True)
        ]

    def answered(self, number: int, chosen: Sequence[Prompt], draw: int = 0) -> list[Rollout]:
        """What the policy answers these prompts in this round; `draw` counts those that replaced others."""
        drawn = int(digest([self.seed, self.stage, number, *([draw] if draw else [])]), 16) % 2**63
        sampling = Sampling(self.online.max_new_tokens, self.online.temperature, drawn)
        return self.desk.ask(number * self.updates, chosen, self.online.answers, sampling)

    def scores(
        self, number: int, asked: Sequence[Prompt], texts: Sequence[str], rollouts: Sequence[Rollout]
    ) -> list[tuple[float, dict[str, float], str]]:
        """The score of every answer with its parts, and of one that has none, why; the first rank asks for all."""
        answers = answers_of(asked, texts, rollouts)

        def work() -> str:
            found = self.judged.rewards(answers, self.before(number))
            return json.dumps([(s.value, dict(s.parts), s.why if s.failed else "") for s in found])

        given: list[tuple[float, dict[str, float], str]] = json.loads(process_group.lead(work))
        return given

    def before(self, number: int) -> list[dict[str, float]]:
        """What the rewards said in the round before, where costs follow from it. RunFailed where it is gone."""
        if number == 0 or not self.judged.rewards.remembers:
            return []
        return [dict(row.parts) for row in experience.read(self.past.path(number - 1))]

    def choose(self, number: int) -> Iterator[Prompt]:
        """A round's prompts: every prompt once before any comes again."""
        orders: dict[int, Any] = {}
        for place in range(number * self.per_round, (number + 1) * self.per_round):
            epoch, at = divmod(place, len(self.prompts))
            if epoch not in orders:
                key = np.random.Philox(key=[self.seed % 2**63, (1 << 40) + epoch])
                orders[epoch] = np.random.Generator(key).permutation(len(self.prompts))
            yield self.prompts[orders[epoch][at]]

    def trees(self, rows: list[Experience]) -> list[Tree]:
        """One tree a prompt, its answers with all that the objectives read of them; of a method that learns from
        preferences, the answers sorted by their scores. Answers that could not be scored are left out, and, where
        answers are compared, one without siblings. Empty where nothing is left, or none is better than another."""
        figures = combine.round_metrics([(dict(row.parts), row.why) for row in rows])
        figures |= self.told_of(rows)
        rows, alone = experience.usable(rows, fewest=2 if self.compares else 1)
        if not rows:
            return []
        whole = self.round(rows)
        self.told = told(whole) | figures | {"alone": float(alone)}
        facts = self.facts_of(rows, whole)
        read = [i for i, row in enumerate(rows) if row.stop != "length" or not self.shaping.mask_unfinished]
        trees = grouped([rows[i] for i in read], lambda place: facts[read[place]])
        left = [tree for tree in map(self.sort, trees) if tree is not None]
        return [replace(tree, index=i) for i, tree in enumerate(left)]

    def told_of(self, rows: Sequence[Experience]) -> dict[str, float]:
        """What is to be seen of a round where its options ask for it: its leash, and how many prompts were replaced."""
        number = rows[0].policy_version // self.updates
        beta = self.past.beta(number, self.online.beta, self.leash)
        known = {} if self.leash.kl_target is None else {"beta": beta}
        if self.online.resample is None:
            return known
        first = dict(enumerate(self.choose(number)))
        there = {row.group: row.row for row in rows}
        return known | {"resampled": float(sum(first[group].row != row for group, row in there.items()))}

    def round(self, rows: list[Experience]) -> Round:
        """A round's rows as numbers, under the leash and on the scale of their time."""
        number = rows[0].policy_version // self.updates
        online = self.online.changed(beta=self.past.beta(number, self.online.beta, self.leash))
        if self.shaping.normalise == "none":
            return Round(rows, online, self.shaping)
        scale = self.past.scores(number) if self.shaping.normalise == "running" else self.past.of(number).scores
        return Round(rows, online, self.shaping, scale)

    def facts_of(self, rows: list[Experience], whole: Round) -> list[dict[str, tuple[float, ...]]]:
        """What is known of each answer, by signal name."""
        advantage = ADVANTAGES[self.advantage](whole) if self.advantage else None
        returns = whole.forecast[1] if self.valued else None
        out = []
        for i, row in enumerate(rows):
            n = len(row.response_ids)
            found = {"old_logp_BT": row.policy_logp_T, "sampler_logp_BT": row.logp_T}
            found["score_B"] = (float(whole.score[i]),)
            if advantage is not None:
                found |= weighed(row, advantage[i, :n].tolist(), self.online.sampler_cap)
            if row.ref_logp_T:
                found["ref_logp_BT"] = row.ref_logp_T
            if returns is not None:
                found |= {"old_value_BT": row.value_T, "return_BT": tuple(returns[i, :n].tolist())}
            out.append(found)
        return out
