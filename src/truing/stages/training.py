"""Shared by the training stages: the reference, the loop, and the model they leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from truing.data.batch import Batch
from truing.data.trees import TreeDataset
from truing.errors import UserError
from truing.evaluate.exam import same_tokens
from truing.policy import heads
from truing.policy.files import lineage
from truing.policy.load import context_length, load
from truing.policy.policy import Policy
from truing.policy.reference import Reference, cached
from truing.run import agreement
from truing.run.lineage import of_stage
from truing.run.stage_run import StageRun
from truing.settings import Training
from truing.stages import stage_figures
from truing.stages.outputs import write_samples
from truing.stages.stage_figures import Measured
from truing.train.distributed.fsdp import sharded
from truing.train.distributed.reference_logp import compute_shared
from truing.train.fit import fit
from truing.train.objective_sum import WeightedObjectives
from truing.train.optim import Optim
from truing.train.record.checkpoint import room
from truing.train.record.metrics import Record, learned_digest
from truing.train.source import DataSource, Source


def train(
    run: StageRun,
    policy: Policy,
    dataset: TreeDataset,
    terms: WeightedObjectives,
    training: Training,
    reference: Reference | None = None,
    measure: Callable[[], Measured] = Measured,
) -> None:
    """Learn from a data set: see `learn`."""
    source = DataSource(dataset.trees, training, run.seed)
    learn(run, policy, dataset, terms, training, Batch(source.epoch(0)[0]), lambda _: source, reference, measure)


def learn(
    run: StageRun,
    policy: Policy,
    dataset: TreeDataset,
    terms: WeightedObjectives,
    training: Training,
    first: Batch,
    source_for: Callable[[Policy], Source],
    reference: Reference | None = None,
    measure: Callable[[], Measured] = Measured,
) -> None:
    """Run the loop in the stage's folder, on every process; rank 0 then writes the model, a few samples, its card and
    its summary, with what `measure` returns for the trained policy. `first` is a batch that is the same on every
    process; `source_for` takes the policy as it is trained and returns the source of the steps."""
    if policy.layout != "trees":
        run.show.say(f"  {policy.model.config.model_type} cannot attend by mask: reading rows of responses (slower)")
    agreement.check_content(run.name, policy, dataset.trees)
    run.show.begin()
    record = Record(run.folder, key=run.key, every=training.checkpoint_every, show=run.show.step)
    before = learned_digest(policy)
    with sharded(policy, first) as learner:
        source = source_for(learner)
        fit(learner, source, terms, Optim(learner.model, training, source.steps), record, reference)
    for message in (*policy.notes, *record.messages):
        run.show.say(f"  {message}")
    if not run.leads:
        return
    with room(run.folder / "model"):
        heads.save(policy, run.folder / "model")
        lineage.write(run.folder / "model", of_stage(run))
        if not policy.is_reward:
            write_samples(run, policy, dataset)
        moved = learned_digest(policy) != before
        stage_figures.tell(run, policy, dataset, training, terms, measure(), moved)


def reference_of(
    run: StageRun, policy: Policy, dataset: TreeDataset, training: Training, model: Any = None
) -> Reference:
    """The reference of a stage: the policy as it is now, or another `model`; read by every process and written by
    rank 0."""
    path, reader = (
        run.folder / "reference.safetensors",
        policy if model is None else other(run, policy, model, training),
    )
    with room(path):
        trees = (*dataset.trees, *(tree.shadow for tree in dataset.trees if tree.shadow is not None))
        logps = cached(reader, trees, path, training.tokens_per_device, compute_shared, run.leads)
    logps.left = reader is not policy and reader.weights_digest() != policy.weights_digest()
    return logps


def other(run: StageRun, policy: Policy, model: Any, training: Training) -> Policy:
    """Load another model as the reference; UserError where it cannot read what the policy reads."""
    reference = load(run.model(model), seed=run.seed)
    if not same_tokens(policy, reference):
        raise UserError(
            f"stage {run.name}: the reference {reference.name} and the model {policy.name} have different tokenizers "
            "or chat templates, so log-probabilities of the one cannot be compared with the other's; give a reference "
            "of the same family, or leave it out"
        )
    if training.max_length > context_length(reference):
        raise UserError(
            f"stage {run.name}: max_length {training.max_length} is beyond the {context_length(reference)} tokens that "
            f"the reference {reference.name} reads; set max_length: {context_length(reference)} or less"
        )
    reference.compute_in(training.precision)
    return reference
