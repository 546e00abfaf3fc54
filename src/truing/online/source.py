"""Batches of a policy's own responses: prompts, rollouts, scores, advantages. The loop is that of every other method.

A round takes some prompts, samples a group of responses to each, scores them, and learns from them in one or more
updates. Everything random is a function of (seed, round), and a round's experience is on disk before the first update
that reads it: a run that was killed goes on to the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from truing.data.batch import Batch, Tree
from truing.errors import RunFailed, UserError
from truing.online.advantages import check_horizon, check_read
from truing.online.collector import Collector, Readings
from truing.online.generation import GenerationClient, Judged, Prompt
from truing.online.history import RoundHistory
from truing.online.kl_controller import KLController
from truing.online.monitor import Monitor, MonitorLog
from truing.online.pretraining_mix import PretrainingMix
from truing.online.schedule import PromptSchedule, RoundPlan
from truing.online.tree_builder import TreeBuilder
from truing.policy.policy import Policy
from truing.records import Engine, Sampling
from truing.rollout import account, experience
from truing.rollout.engine import InProcess
from truing.rollout.experience import Experience
from truing.rollout.mixture import Mixture
from truing.rollout.sample import check_ratio
from truing.settings import KLControl, Online, Shaping, Training
from truing.streams import derived
from truing.train.distributed import process_group
from truing.train.objective_sum import WeightedObjectives
from truing.train.record.checkpoint import room
from truing.train.record.snapshots import WeightSnapshots

__all__ = ["Judged", "OnlineOptions", "Place", "Prompt", "RolloutSource", "rollout_source"]


class RolloutSource:
    """Steps over the responses of a policy as it is when each round begins.

    `schedule` plans the rounds, `collector` samples and scores their responses, `builder` makes trees of them, `kl`
    keeps the policy near its reference; `monitor` evaluates held-out prompts during training, and the texts of `mix`
    stand beside responses. `ended` says why the run ended early, if it did.
    """

    def __init__(
        self,
        schedule: PromptSchedule,
        collector: Collector,
        builder: TreeBuilder,
        kl: KLController,
        monitor: Monitor | None = None,
        mix: PretrainingMix = PretrainingMix(),
    ) -> None:
        self.schedule, self.collector, self.builder, self.kl = schedule, collector, builder, kl
        self.monitor, self.mix, self.history = monitor, mix, collector.history
        self.training, self.policy, self.folder = schedule.training, collector.client.policy, self.history.folder
        self.corrected = schedule.online.sampler_cap is not None
        self.skipped: list[int] = []
        self.metrics: dict[str, float] = {}
        self.ended = ""

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.schedule.steps

    def fresh(self, step: int) -> bool:
        """True at an update whose policy is the one that sampled its responses."""
        return self.schedule.is_first_update(step)

    def plan(self, number: int) -> RoundPlan:
        """A round before it begins."""
        return self.schedule.plan(number, self.kl.beta(number))

    def since(self, step: int) -> Iterator[tuple[int, Batch]]:
        """(number, batch) of every update after `step`, counted from 1. A round whose responses teach nothing has none:
        its numbers are left out, and the round is among `skipped`. RunFailed where that is so of all of them, or where
        the policy has left its reference for good."""
        updates = self.schedule.updates
        last = step
        self.begin(step)
        for number in range(step // updates, self.schedule.rounds):
            if self.ended:
                break
            plan = self.plan(number)
            rows = self.experience(plan, step)
            if why := self.kl.why_stop(plan):
                self.ended = why
                break
            trees = self.trees(plan, rows)
            if not trees:
                self.skipped.append(number + 1)
                continue
            for at, group in enumerate(self.schedule.parts(trees, number), plan.version + 1):
                if step < at <= self.steps and not self.ended:
                    last = at
                    yield at, Batch(self.mix.beside(group, at, self.schedule.per_update))
        if not last and not self.ended:
            raise RunFailed(account.barren(len(self.skipped), account.of(self.folder)))
        if self.monitor is not None:
            self.monitor.end(last)

    def begin(self, step: int) -> None:
        """Go on from update `step`: remove what later ones wrote, give the reference the weights of this round, and
        evaluate the policy where that was not done."""
        updates = self.schedule.updates
        number = step // updates
        rounds_begun = number + (step % updates > 0)
        process_group.lead(lambda: remove_rounds(self.folder, rounds_begun))
        self.kl.resume(step, number, updates)
        if self.monitor is not None:
            self.monitor.begin(step)
            self.ended = self.monitor.over() if step < self.steps else ""

    def experience(self, plan: RoundPlan, step: int) -> list[Experience]:
        """A round's experience: read where the run was stopped within it, else collected now. RunFailed where its
        responses are beyond `kl_limit`."""
        path = self.history.path(plan.number)
        if step > plan.version:
            rows = experience.read(path)
        else:
            self.kl.refresh(plan, self.policy)
            rows = self.collect(plan)
            with room(path):
                process_group.lead(lambda: experience.write(path, rows))
        self.kl.check(plan, rows)
        return rows

    def collect(self, plan: RoundPlan) -> list[Experience]:
        """Responses to a round's prompts, scored and read, without a trace on disk."""
        return self.collector.collect(plan, self.schedule.replacements(plan))

    def trees(self, plan: RoundPlan, rows: Sequence[Experience]) -> list[Tree]:
        """The trees of a round, whose metrics are then those of its updates."""
        trees, metrics = self.builder.build(plan, rows)
        if metrics:
            adapts = self.kl.options.kl_target is not None
            self.metrics = metrics | ({"beta": plan.beta} if adapts else {})
        return trees

    def after(self, step: int) -> Mapping[str, float]:
        """The metrics of an update that has been done: its round's, and an evaluation's where one is due."""
        if self.monitor is None or not self.monitor.after(step, self.steps):
            return self.metrics
        self.ended = self.monitor.over() if step < self.steps else ""
        return self.metrics | self.monitor.log.figures()

    def account(self) -> list[str]:
        """Remarks on the run when it is over: why it ended early, its evaluations, and whose weights are kept."""
        lines = [self.ended] if self.ended else []
        return lines + (self.monitor.account() if self.monitor else [])


def remove_rounds(folder: Path, first: int) -> str:
    """Remove the rounds after the `first` ones: their updates will be done again."""
    for number, path in experience.rounds(folder).items():
        if number > first:
            path.unlink()
    return ""


@dataclass(frozen=True)
class OnlineOptions:
    """All options of learning from a policy's own responses, as a recipe gives them."""

    online: Online
    training: Training
    shaping: Shaping = field(default_factory=Shaping)
    kl_control: KLControl = field(default_factory=KLControl)

    def check(self, builder: TreeBuilder, reads_reference: bool, rollouts: int) -> None:
        """UserError for options that have no effect on the objective, or that exclude each other; a round has so many
        rollouts."""
        check_read(
            self.online,
            self.shaping,
            self.kl_control,
            builder.advantage,
            builder.imitates,
            builder.compares,
            reads_reference,
        )
        check_horizon(self.kl_control, rollouts)


@dataclass(frozen=True)
class Place:
    """The folder of a stage's rounds, the run's seed, and the stage's name, which keeps the draws of its responses
    apart from those of other stages."""

    folder: Path
    seed: int = 0
    stage: str = ""


def rollout_source(
    policy: Policy,
    prompts: Sequence[Prompt],
    judged: Judged,
    terms: WeightedObjectives,
    options: OnlineOptions,
    place: Place,
    *,
    reference: Policy | None = None,
    monitor_log: MonitorLog | None = None,
    mix: PretrainingMix = PretrainingMix(),
    engine: Engine | None = None,
) -> RolloutSource:
    """Put together the source of a policy's own responses to `prompts`, scored by `judged`, for the objectives `terms`.

    `reference` reads rollouts for KL control, where there is one; `monitor_log` asks for evaluations during training;
    `engine` samples (the policy in this process unless another is given). UserError for options that do not go
    together.
    """
    online, training, kl_control = options.online, options.training, options.kl_control
    schedule = PromptSchedule(prompts, online, training, place.seed, place.stage)
    check_ratio(Sampling(online.max_new_tokens, online.temperature), policy.temperature)
    if engine is not None and online.mixture:
        raise UserError("'mixture' is sampled in this process alone, and another engine is given; leave one out")
    client = GenerationClient(engine or InProcess(policy, mixture=mixture_of(online, reference)), policy)
    history = RoundHistory(place.folder)
    kl = KLController(kl_control, online.beta, history, reference)
    if monitor_log is not None and reference is None:
        raise UserError("'monitor' measures the KL to a reference, and there is none")
    builder = TreeBuilder(terms, online, options.shaping, history)
    reads_reference = online.beta > 0 or terms.needs_reference
    options.check(builder, reads_reference, schedule.per_round * online.group_size)
    reads_reference = reads_reference or kl_control.stop_at_kl is not None
    # at a round's first update ratios are 1 without a second reading of the policy
    ratios = schedule.updates > 1 or reads_reference or online.sampler_cap is not None
    read_by = reference if reads_reference else None
    readings = Readings(read_by, builder.values, ratios, training.tokens_per_device)
    collector = Collector(client, judged, online, readings, history)
    monitor = None
    if monitor_log is not None and reference is not None:
        monitor = monitor_of(monitor_log, collector, schedule, reference, kl_control.stop_at_kl)
    return RolloutSource(schedule, collector, builder, kl, monitor, mix)


def mixture_of(online: Online, reference: Policy | None) -> Mixture | None:
    """The policy that responses are sampled from beside the learner, if any: its reference."""
    if not online.mixture:
        return None
    if reference is None:
        raise UserError("'mixture' needs a reference to mix the policy with, and there is none")
    return Mixture(reference, online.mixture)


def monitor_of(
    log: MonitorLog, collector: Collector, schedule: PromptSchedule, reference: Policy, stop_at_kl: float | None
) -> Monitor:
    """The evaluations of a stage during training: at temperature 1, and of the policy alone where responses to learn
    from are sampled from a mixture."""
    online, policy, history = collector.online, collector.client.policy, collector.history

    def so_far(step: int) -> tuple[int, list[dict[str, float]]]:
        rounds_begun = -(-step // schedule.updates)
        return history.tokens(rounds_begun), collector.parts_before(step // schedule.updates)

    return Monitor(
        log,
        GenerationClient(InProcess(policy), policy) if online.mixture else collector.client,
        reference,
        collector.judged,
        WeightSnapshots(history.folder.parent / "best", history.folder.parent / "checkpoints"),
        Sampling(online.max_new_tokens, seed=derived(schedule.seed, schedule.stage, "monitor")),
        so_far,
        collector.readings.tokens,
        stop_at_kl,
    )
