"""A step of few rows given as plain numbers, and its loss as the loop makes it: statistics of the step first, then the
sum of terms, each over its own count. Another trainer's number for the same rows can be put beside it.

Kinds of numbers, tokens padded on the right and chosen rows before rejected ones: `pairs` (`logp`, `mask`, `ref`),
`sequences` (`logits` of prompt and response, `ids`, `mask` of responses, `there` of both), `unpaired` (`logp`, `mask`,
`ref`, `desirable`, `mismatched`, `ref_mismatched`), `unanchored` (the same, kto's baseline being 0), `rewards` (`reward`,
`margin`), `rollouts` (`logp`, `old`, `ref`, `mask`, `advantage`), `scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from truing import registry
from truing.data.batch import Batch, Branch, Tree
from truing.objectives import advantage
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.step_statistics import Survey

Numbers = Mapping[str, Any]
Signals = dict[str, Tensor]


class Step(NamedTuple):
    """Rows with all signals that can be made of them; `leaf` is what the gradient is taken with respect to."""

    leaf: Tensor
    signals: Signals
    batch: Batch


def masked(roles: Sequence[str], mask_MT: Tensor) -> Batch:
    """Trees of these roles whose learned tokens are those of the mask; the ids do not matter."""
    width = len(roles)
    trees = []
    for i in range(len(mask_MT) // width):
        own = mask_MT[i :: len(mask_MT) // width]
        branches = [Branch(role, (0,) * len(m), tuple((m > 0).tolist())) for role, m in zip(roles, own, strict=True)]
        trees.append(Tree((0,), tuple(branches), i, i))
    return Batch(tuple(trees))


def pair_signals(logp: Tensor, mask: Tensor, ref: Tensor) -> Signals:
    """The signals of pairs from those of their tokens."""
    rows = len(mask) // 2
    found = {"logp_BT": logp[:rows], "mask_BT": mask[:rows]}
    for name, value in {"logp_B": (logp * mask).sum(1), "length_B": mask.sum(1)}.items():
        found |= {f"chosen_{name}": value[:rows], f"rejected_{name}": value[rows:]}
    return found | {"ref_chosen_logp_B": ref[:rows], "ref_rejected_logp_B": ref[rows:]}


def pairs(given: Signals) -> Step:
    """Pairs, from the log-probabilities of their responses' tokens."""
    leaf, mask = given["logp"].requires_grad_(), given["mask"]
    return Step(leaf, pair_signals(leaf, mask, given["ref"]), masked(("chosen", "rejected"), mask))


def sequences(given: Signals) -> Step:
    """Pairs, from the logits of prompts and responses; the reference is uniform."""
    leaf, mask, there = given["logits"].requires_grad_(), given["mask"][:, 1:], given["there"][:, 1:]
    ids, rows = given["ids"][:, 1:, None].long(), len(given["ids"]) // 2
    logp, before = leaf[:, :-1].log_softmax(-1).gather(-1, ids)[..., 0], there - mask
    signals = pair_signals(logp, mask, torch.zeros(len(mask)))
    signals |= {"logp_B": signals["chosen_logp_B"], "length_B": signals["chosen_length_B"]}
    signals |= {"prompt_logp_B": (logp * before)[:rows].sum(1), "prompt_length_B": before[:rows].sum(1)}
    return Step(leaf, signals, masked(("chosen", "rejected"), mask))


def unpaired(given: Signals) -> Step:
    """Single responses with a label."""
    leaf, mask = given["logp"].requires_grad_(), given["mask"]
    signals = {"logp_B": (leaf * mask).sum(1), "ref_logp_B": given["ref"], "desirable_B": given["desirable"]}
    signals["mismatched_logp_B"] = (given["mismatched"] * mask).sum(1)
    signals["ref_mismatched_logp_B"] = given["ref_mismatched"]
    return Step(leaf, signals, masked(("response",), mask))


def unanchored(given: Signals) -> Step:
    """The same with mismatched responses that are as likely as under the reference: kto's baseline is 0."""
    return unpaired(given | {"ref_mismatched": (given["mismatched"] * given["mask"]).sum(1)})


def rewards(given: Signals) -> Step:
    """Pairs with a reward each."""
    leaf = given["reward"].requires_grad_()
    chosen, rejected = leaf.chunk(2)
    signals = {"chosen_reward_B": chosen, "rejected_reward_B": rejected}
    signals |= {"margin_B": given["margin"]} if "margin" in given else {}
    return Step(leaf, signals, masked(("chosen", "rejected"), torch.ones(len(leaf), 1)))


def rollouts(given: Signals) -> Step:
    """Sampled answers with an advantage each."""
    leaf, mask = given["logp"].requires_grad_(), given["mask"]
    signals = {"logp_BT": leaf, "old_logp_BT": given["old"], "ref_logp_BT": given["ref"], "mask_BT": mask}
    signals |= {"logp_B": (leaf * mask).sum(1), "old_logp_B": (given["old"] * mask).sum(1), "length_B": mask.sum(1)}
    signals |= {"advantage_B": given["advantage"], "advantage_BT": given["advantage"][:, None].expand_as(mask)}
    return Step(leaf, signals, masked(("response",), mask))


KINDS: dict[str, Callable[[Signals], Step]] = {
    kind.__name__: kind for kind in (pairs, sequences, unpaired, unanchored, rewards, rollouts)
}


def loss_of(step: Step, objective: Sequence[Numbers], longest: int) -> Tensor:
    """The loss of a step under `[{"ipo": {"tau": 0.1}}, {"nll": {}, "weight": 0.5}]`, as the loop makes it."""
    terms = []
    for spec in objective:
        name, options = next(iter(spec.items()))
        terms.append(Term(registry.load(name, "objective"), options, spec.get("weight", 1.0), longest=longest))
    total = WeightedObjectives(terms)
    survey = Survey(total)
    survey.take(step.batch, [(step.batch, 1.0)], lambda _, names: {n: step.signals[n] for n in names})
    return total.total(step.signals, total.counts(step.batch), survey.of(step.batch))[0]


def value_and_gradient(kind: str, numbers: Numbers, objective: Sequence[Numbers]) -> tuple[Tensor, Tensor]:
    """The loss of these rows and its gradient. The longest response allowed is as long as the padding."""
    step = KINDS[kind]({name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()})
    value = loss_of(step, objective, longest=step.leaf.shape[-1])
    return value.detach(), torch.autograd.grad(value, step.leaf)[0]


def advantages_of(name: str, numbers: Numbers) -> Tensor:
    """A trainer's advantages from scores of groups of four, by truing's own functions."""
    given = {key: torch.tensor(value, dtype=torch.float64) for key, value in numbers.items()}
    score, group = given["scores"].sum(1), torch.arange(len(given["scores"])) // 4
    shaped = advantage.shaped_rewards(score, given["old"], given["ref"], given["mask"], beta=0.1).sum(1)
    each = [advantage.standardised(s, group, sample=True) for s in given["scores"].T]
    left = advantage.leave_one_out(score, group)

    def whitened(x: Tensor) -> Tensor:
        return advantage.batch_scaled(x - x.mean(), x, sample=True, floor=1e-4)

    return {
        "standardised, sample": advantage.standardised(score, group, sample=True),
        "standardised, population": advantage.standardised(score, group),
        "centred": advantage.centred(score, group),
        "batch_scaled, sample": advantage.batch_scaled(advantage.centred(score, group), score, sample=True, floor=1e-4),
        "sum of standardised": whitened(torch.stack(each).sum(0)),
        "leave_one_out": left,
        "leave_one_out, whitened": whitened(left),
        "leave_one_out of shaped_rewards": advantage.leave_one_out(shaped, group),
    }[name]
