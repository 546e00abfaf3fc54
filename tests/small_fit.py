"""A run of the loop as tests see it: killed after some update or not, its metrics, and what became of the weights."""

from __future__ import annotations

import json

from truing.train.fit import fit
from truing.train.optim import Optim
from truing.train.record.metrics import Record


def fitted(policy, source, terms, out, stop_after=None, reference=None, optim=None):
    """The metrics of a run; after `stop_after` updates the process dies."""
    optim = optim or Optim(policy.model, source.training, source.steps)
    if stop_after is not None:
        step = optim.step
        optim.step = lambda number: step(number) if number <= stop_after else exit(9)
    record = Record(out, key="k", every=source.training.checkpoint_every)
    try:
        fit(policy, source, terms, optim, record, reference)
    except SystemExit:
        assert stop_after is not None
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(policy):
    """The weights of a policy as they are now."""
    return {n: p.detach().clone() for n, p in policy.model.named_parameters()}


def apart(one, two):
    """The largest difference of two sets of weights."""
    return max((one[name] - two[name]).abs().max().item() for name in one)
