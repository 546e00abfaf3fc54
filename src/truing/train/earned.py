"""One round of answers as numbers: what they earned, and how much better each token did than was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from truing.data.kinds import shape_of
from truing.errors import UserError
from truing.objectives import advantage as adv
from truing.objectives.signals import SIGNALS
from truing.rollout.experience import Experience
from truing.settings import Online
from truing.train.terms import Sum
from truing.types import Advantage

Advantages = Callable[["Round"], Tensor]


class Round:
    """The experience of one round as tensors, rows padded to [B, T]."""

    def __init__(self, rows: Sequence[Experience], online: Online) -> None:
        self.rows, self.online = rows, online
        self.mask = padded([(1.0,) * len(r.response_ids) for r in rows])
        self.logp = padded([r.logp_T for r in rows])
        self.referred = any(r.ref_logp_T for r in rows)
        self.ref = padded([r.ref_logp_T or r.logp_T for r in rows])
        self.values = padded([r.value_T or (0.0,) * len(r.response_ids) for r in rows])
        cut = torch.tensor([r.stop == "length" for r in rows]).double()
        self.score = torch.tensor([r.score for r in rows], dtype=torch.float64) - online.unfinished_penalty * cut
        self.group = torch.tensor([r.group for r in rows])

    @property
    def leashed(self) -> Tensor:
        """The score of every answer, minus beta times its summed log-ratio to the reference."""
        return self.score - self.online.beta * ((self.logp - self.ref) * self.mask).sum(1)

    @property
    def rewards(self) -> Tensor:
        """The same spread over tokens: the log-ratio where it arises, the score at the end."""
        return adv.shaped_rewards(self.score, self.logp, self.ref, self.mask, beta=self.online.beta)

    @cached_property
    def forecast(self) -> tuple[Tensor, Tensor]:
        """Generalised advantages, and the returns that the value head is to forecast."""
        o = self.online
        return adv.gae(self.rewards, self.values, self.mask, gamma=o.gamma, smoothing=o.smoothing)

    def over_tokens(self, value_B: Tensor) -> Tensor:
        """One value a row on each of its tokens."""
        return value_B[:, None] * self.mask


ADVANTAGES: Mapping[str, Advantages] = {
    "gae": lambda r: adv.whitened(r.forecast[0], r.mask),
    "returns": lambda r: adv.whitened(adv.returns(r.rewards, r.mask, gamma=r.online.gamma), r.mask),
    "standardised": lambda r: r.over_tokens(adv.standardised(r.leashed, r.group, sample=r.online.sample_deviation)),
    "centred": lambda r: r.over_tokens(adv.centred(r.leashed, r.group)),
    "leave_one_out": lambda r: r.over_tokens(adv.leave_one_out(r.leashed, r.group)),
    "none": lambda r: r.over_tokens(r.leashed),
}
"""From a round to the advantage of each token, [B, T]; those of whole answers are the same on all of its tokens."""


def advantage_of(terms: Sum) -> Advantage | None:
    """How the advantages that the terms read are made, or None for a method of preferences. UserError where terms read
    different ones, one does not say which it reads, or one imitates answers of which others unlearn some."""
    named = {t.name: t.objective.advantage for t in terms.terms if t.objective.advantage}
    if len(set(named.values())) > 1:
        raise UserError(
            f"the terms of the objective have different advantages: {', '.join(sorted(set(named.values())))}"
        )
    for term in (t for t in terms.terms if t.objective.advantage is None):
        if any(n in SIGNALS and SIGNALS[n].origin == "rollout" for n in term.objective.signals):
            raise UserError(
                f"objective '{term.name}' learns from rollouts and does not say how its advantages are made; name "
                'it in its decorator, as in @objective(source=..., advantage="standardised"), or "none"'
            )
        if named and shape_of(term.objective.needs) == "single":
            raise UserError(
                f"objective '{term.name}' imitates whatever answer it reads, and '{next(iter(named))}' learns from "
                "good ones and bad ones; leave it out"
            )
    return next(iter(named.values()), None)


def check_read(online: Online, advantage: Advantage | None, imitates: bool) -> None:
    """UserError for an option that says nothing to this objective."""
    readers = {
        "beta": advantage not in (None, "none"),
        "gamma": advantage in ("gae", "returns"),
        "smoothing": advantage == "gae",
        "sample_deviation": advantage == "standardised",
        "passing": imitates,
    }
    for name, read in readers.items():
        if not read and getattr(online, name) != getattr(Online(), name):
            raise UserError(f"'{name}' says nothing to this objective, which does not read it; leave it out")


def told(whole: Round) -> dict[str, float]:
    """What is to be seen of a round: mean score, length, KL to the reference, answers that were cut, and groups whose
    answers all scored the same, from which a group's advantages teach nothing."""
    scores = [r.score for r in whole.rows]
    groups: dict[int, set[float]] = {}
    for row in whole.rows:
        groups.setdefault(row.group, set()).add(row.score)
    lengths = whole.mask.sum(1)
    kl = {"kl": ((whole.logp - whole.ref) * whole.mask).sum(1).mean().item()} if whole.referred else {}
    return kl | {
        "score": float(np.mean(scores)),
        "length": lengths.mean().item(),
        "cut_off": float(np.mean([r.stop == "length" for r in whole.rows])),
        "equal_groups": float(np.mean([len(found) == 1 for found in groups.values()])),
    }


def padded(rows: Sequence[Sequence[float]]) -> Tensor:
    """Rows of numbers as [B, T], zeros behind the end."""
    return pad_sequence([torch.tensor(row, dtype=torch.float64) for row in rows], batch_first=True)
