"""Ragged pairs of random tokens, and a few updates on them: what tests of training begin with."""

import torch

from truing.data.batch import Branch, Tree
from truing.policy.reference import compute
from truing.settings import Training
from truing.train.fit import fit
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.optim import Optim
from truing.train.record.metrics import Record
from truing.train.source import DataSource

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5


def ragged(n: int = 8, vocabulary: int = 290, longest: int = 15) -> tuple[Tree, ...]:
    """Pairs with prompts of 3 to 12 tokens and responses of 1 to `longest` - 1."""
    generator = torch.Generator().manual_seed(5)

    def ids(low: int, high: int) -> tuple[int, ...]:
        count = int(torch.randint(low, high, (), generator=generator))
        return tuple(torch.randint(10, vocabulary, (count,), generator=generator).tolist())

    def branch(role: str) -> Branch:
        words = ids(1, longest)
        return Branch(role, words, (True,) * len(words))

    return tuple(Tree(ids(3, 13), (branch("chosen"), branch("rejected")), i, i + 1) for i in range(n))


def updated(policy, trees, out, objective, **options):
    """Train `policy` in place for a few steps, with a reference where the objective asks for one; gives that."""
    training = Training(**({"steps": 4, "rows_per_step": 4, "learning_rate": 1e-2} | options))
    source, terms = DataSource(trees, training), WeightedObjectives([Term(objective, {})])
    reference = compute(policy, trees, training.tokens_per_device) if terms.needs_reference else None
    record = Record(out, key="k", every=training.checkpoint_every)
    fit(policy, source, terms, Optim(policy.model, training, source.steps), record, reference)
    return reference
