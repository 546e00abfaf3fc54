"""The data of a training stage: rows as trees, and the objective that reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from truing import registry
from truing.data import clock
from truing.data.batch import Branch, Tree
from truing.data.kinds import Shape, common_shape, shape_of, ties_of
from truing.data.rendering.render import Turns
from truing.data.thoughts import Thoughts
from truing.data.trees import TreeDataset, build_trees, with_shadows
from truing.errors import DataError, UserError
from truing.policy import heads
from truing.policy.load import context_length
from truing.policy.policy import Policy
from truing.policy.scalars import Read
from truing.recipe.objective_spec import check_heads
from truing.records import Records, RowNote
from truing.run.stage_run import StageRun
from truing.settings import Training
from truing.train.objective_sum import Term, WeightedObjectives

READ: Mapping[Shape, Read] = {"steps": "steps", "outcomes": "tokens"}
"""The position at which a reward model is trained to be read, for data of these shapes; for all others the end of a
response."""


def trees_for(
    run: StageRun,
    policy: Policy,
    records: Records,
    training: Training,
    shape: Shape,
    on_bad_row: Literal["error", "drop"] = "error",
    turns: Turns = "all",
    terms: WeightedObjectives | None = None,
    thoughts: Thoughts = "learn",
) -> TreeDataset:
    """Render a stage's data for this policy, as its objective needs it, and note what was kept, cut and dropped."""
    renderer, limit = heads.renderer(policy), training.max_length
    if limit > context_length(policy):
        raise UserError(
            f"stage {run.name}: max_length {limit} is beyond the {context_length(policy)} tokens that {policy.name} "
            f"reads; set max_length: {context_length(policy)} or less"
        )
    signals = terms.all_signals if terms else frozenset[str]()
    dataset = build_trees(
        records,
        renderer,
        max_length=limit,
        shape=shape,
        on_bad_row=on_bad_row,
        turns=turns,
        thoughts=thoughts,
        ties=ties_of(signals),
    )
    dataset = complete(records.name, to_first_bad(dataset, terms), terms, on_bad_row)
    check_singles(dataset, terms)
    check_classes(records.name, dataset, terms)
    if "mismatched_logp_B" in signals:
        dataset = replace(dataset, trees=with_shadows(dataset.trees, run.seed, limit))
    dataset = replace(dataset, notes=(*records.notes, *dataset.notes))
    run.note(f"{records.name}: {dataset.text()}")
    run.note(clock.note(policy.tokenizer))
    return dataset


def to_first_bad(dataset: TreeDataset, terms: WeightedObjectives | None) -> TreeDataset:
    """Keep labelled steps up to the first bad one, where a term counts neutral steps as bad: only these are learned,
    and counted in the mean."""
    if not any(term.options.get("neutral") == "bad" for term in (terms.terms if terms else ())):
        return dataset

    def cut(branch: Branch) -> Branch:
        first = next((i for i, (_, label) in enumerate(branch.steps) if label <= 0), len(branch.steps))
        return replace(branch, steps=branch.steps[: first + 1])

    return replace(dataset, trees=tuple(replace(t, branches=tuple(map(cut, t.branches))) for t in dataset.trees))


def complete(
    name: str, dataset: TreeDataset, terms: WeightedObjectives | None, on_bad_row: Literal["error", "drop"]
) -> TreeDataset:
    """The rows that have every score and column that the terms read; DataError for one that lacks some, or with
    `on_bad_row: drop` the row is left out."""
    read = [(s, term.head) for term in (terms.terms if terms else ()) for s in term.objective.needs]
    heads = {head for signal, head in read if signal == "target_B"}
    columns = {signal for signal, _ in read} & {"chosen_safe_B", "rejected_safe_B"}
    usable: list[Tree] = []
    notes: list[RowNote] = []
    for tree in dataset.trees:
        lacks = [
            f"score '{head}'" if head else "score"
            for head in heads
            if any(head not in b.targets for b in tree.branches)
        ]
        lacks += [c.removesuffix("_B") for c in sorted(columns) if any(c not in pair.values for pair in tree.pairs)]
        if lacks and on_bad_row == "error":
            raise DataError(
                f"{name}, row {tree.row}",
                f"has no {lacks[0]}{has(tree)}, and the objective reads it",
                "Mend the row, or set on_bad_row: drop",
            )
        notes += [RowNote(tree.row, lacks[0], "is missing, and the objective reads it", "dropped")] if lacks else []
        usable += [] if lacks else [replace(tree, index=len(usable))]
    if not usable:
        raise UserError(f"{name}: no row has every score and column that the objective reads")
    return replace(dataset, trees=tuple(usable), notes=(*dataset.notes, *notes))


def has(tree: Tree) -> str:
    """The names of the scores that a row has, for a message."""
    names = sorted({name for branch in tree.branches for name in branch.targets if name})
    return f": it has {', '.join(names)}" if names else ""


def check_singles(dataset: TreeDataset, terms: WeightedObjectives | None) -> None:
    """Raise UserError where a term reads one response of each row, and a row compares several of which none is that
    one."""
    names = [term.name for term in terms.terms if shape_of(term.objective.needs) == "single"] if terms else []
    row = next((tree.row for tree in dataset.trees if tree.comparisons), None)
    if names and row is not None:
        raise UserError(
            f"objective '{names[0]}' reads one response of each row, and data row {row} compares several; leave it "
            "out, or give pairs: prompt, chosen, rejected"
        )


def check_classes(name: str, dataset: TreeDataset, terms: WeightedObjectives | None) -> None:
    """Raise UserError where a term weighs the classes within a prompt, and no row holds a prompt with both of them: its
    losses would all be 0."""
    per_prompt = [term.name for term in terms.terms if term.options.get("per_prompt")] if terms else []
    both = {"desirable", "undesirable"}
    if per_prompt and not any(both <= {branch.role for branch in tree.branches} for tree in dataset.trees):
        raise UserError(
            f"{name}: '{per_prompt[0]}' with per_prompt compares the classes within a row's prompt, and no row "
            "has both; give rows with prompt, responses, labels, or pairs (prompt, chosen, rejected), or leave it out"
        )


def compile_objective(spec: Any) -> WeightedObjectives:
    """A recipe's objective as a sum of terms: `dpo`, `{dpo: {beta: 0.2}}` or `[dpo, {nll: {weight: 0.1}}]`."""
    terms = []
    for part in spec if isinstance(spec, list | tuple) else [spec]:
        name, options = (part, {}) if isinstance(part, str) else next(iter(part.items()))
        options = dict(options or {})
        objective = registry.load(name, "objective")
        declared = {option.name for option in objective.options}
        weight = 1.0 if "weight" in declared else float(options.pop("weight", 1.0))
        head = options.pop("head", "")
        terms.append(Term(objective, objective.bind(options).keywords, weight, head))
    return WeightedObjectives(terms)


def heads_of(terms: WeightedObjectives) -> tuple[str, ...]:
    """The heads that the terms name, in order; UserError where some name one and others do not."""
    names = tuple(dict.fromkeys(term.head for term in terms.terms))
    check_heads((term.name, term.head) for term in terms.terms)
    return names


def begin_ties(policy: Policy, dataset: TreeDataset, terms: WeightedObjectives) -> None:
    """Give a reward model the tie parameter that a term asks for. It starts where equal rewards predict the share s of
    ties in the data: ln(2 s / (1 - s)) in Rao and Kupper's model and in Davidson's. No tie at all counts as half a
    tie."""
    if "tie_logit_B" not in terms.all_signals:
        return
    tied = [pair.values.get("tie_B", 0.0) for tree in dataset.trees for pair in tree.pairs]
    share = (sum(tied) + 0.5) / (len(tied) + 1)
    policy.put_heads(replace(policy.scalars, tie_logit=math.log(2 * share / (1 - share))))


def shape_for(terms: WeightedObjectives) -> Shape:
    """The shape of data that all terms of an objective read; UserError where there is none."""
    return common_shape((term.name, term.objective.needs) for term in terms.terms)
