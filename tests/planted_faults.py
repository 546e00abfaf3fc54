"""Faults of reading that are planted to see them caught: a wrong mask, a wrong position, a head with its rows swapped."""

import torch

from truing.policy.policy import Policy


def everything_seen(segment, window):
    """All of a tree's tokens see all earlier ones: siblings leak into each other."""
    row = slice(segment.start, segment.start + segment.tokens)
    yield row, (row,), None


def counted_on(batch):
    """Positions that go on from one branch to the next."""
    return torch.cat([torch.arange(tree.tokens) for tree in batch.trees])


def turned(policy, temperature):
    """The head with its rows one place off."""
    weight, bias, logits = STRAIGHT(policy, temperature)
    return weight.roll(1, 0), bias, logits


STRAIGHT = Policy._head
FAULTS = {
    "mask": ("truing.policy.trees.Segment.calls", everything_seen),
    "position": ("truing.data.batch.Batch.positions_N", property(counted_on)),
}
