"""One round of responses as numbers: what they earned, and how much better each token did than was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from truing.data.kinds import shape_of
from truing.errors import UserError
from truing.objectives import advantage as adv
from truing.objectives.equal import alike
from truing.objectives.signals import SIGNALS, alone
from truing.online.history import Moments, moments
from truing.online.reward_shaping import shaped
from truing.online.unread import unread
from truing.records import Advantage
from truing.rollout.experience import Experience
from truing.settings import KLControl, Online, Shaping
from truing.train.objective_sum import WeightedObjectives

Advantages = Callable[["Round"], Tensor]


class Round:
    """The experience of one round as tensors, rows padded to [B, T]; scores on `scale`, where one is given, and with
    what `shaping` makes of them."""

    def __init__(
        self,
        rows: Sequence[Experience],
        online: Online,
        shaping: Shaping = Shaping(),
        scale: Moments | None = None,
    ) -> None:
        self.rows, self.online = rows, online
        self.mask = padded([(1.0,) * len(r.response_ids) for r in rows])
        self.logp = padded([r.policy_logp_T for r in rows])
        self.referred = any(r.ref_logp_T for r in rows)
        self.ref = padded([r.ref_logp_T or r.policy_logp_T for r in rows])
        self.values = padded([r.value_T or (0.0,) * len(r.response_ids) for r in rows])
        self.score = shaped(rows, shaping, online.max_new_tokens, online.truncated_penalty, scale)
        self.group = torch.tensor([r.group for r in rows])

    @property
    def kl_penalised(self) -> Tensor:
        """The score of every response, minus beta times its summed log-ratio to the reference."""
        return self.score - self.online.beta * ((self.logp - self.ref) * self.mask).sum(1)

    @property
    def rewards(self) -> Tensor:
        """The same spread over tokens: the log-ratio where it arises, the score at the end."""
        return adv.shaped_rewards(self.score, self.logp, self.ref, self.mask, beta=self.online.beta)

    @cached_property
    def forecast(self) -> tuple[Tensor, Tensor]:
        """Generalised advantages, and the returns that the value head is to forecast."""
        o = self.online
        return adv.gae(self.rewards, self.values, self.mask, gamma=o.gamma, gae_lambda=o.gae_lambda)

    def scaled(self, *, raw: bool) -> Tensor:
        """Each score against its group's mean, over the deviation in the whole round of these differences, or of the
        `raw` scores."""
        score_B = self.kl_penalised
        centre_B = adv.centred(score_B, self.group)
        spread_B = score_B if raw else centre_B
        return adv.batch_scaled(centre_B, spread_B, sample=self.online.sample_deviation, floor=adv.FLOOR)

    def over_tokens(self, value_B: Tensor) -> Tensor:
        """One value a row on each of its tokens."""
        return value_B[:, None] * self.mask


ADVANTAGES: Mapping[str, Advantages] = {
    "gae": lambda r: adv.whitened(r.forecast[0], r.mask),
    "returns": lambda r: adv.whitened(adv.returns(r.rewards, r.mask, gamma=r.online.gamma), r.mask),
    "standardised": lambda r: r.over_tokens(
        adv.standardised(r.kl_penalised, r.group, sample=r.online.sample_deviation)
    ),
    "centred": lambda r: r.over_tokens(adv.centred(r.kl_penalised, r.group)),
    "leave_one_out": lambda r: r.over_tokens(adv.leave_one_out(r.kl_penalised, r.group)),
    "batch_centred": lambda r: r.over_tokens(r.scaled(raw=False)),
    "batch_raw": lambda r: r.over_tokens(r.scaled(raw=True)),
    "none": lambda r: r.over_tokens(r.kl_penalised),
}
"""From a round to the advantage of each token, [B, T]; those of whole responses are the same on all of its tokens."""


def advantage_of(terms: WeightedObjectives) -> Advantage | None:
    """The kind of advantages that the terms read, or None for a method of preferences. UserError where terms read
    different ones, a term does not say which it reads, a term imitates responses of which others unlearn some, or there
    are penalties and nothing that they stand beside."""
    declared = {t.name: t.objective.advantage for t in terms.terms if t.objective.advantage}
    named = {name: advantage for name, advantage in declared.items() if advantage != "any"}
    if declared and not named:
        raise UserError(alone(next(iter(declared))))
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
                f"objective '{term.name}' imitates whatever response it reads, and '{next(iter(named))}' learns from "
                "good ones and bad ones; leave it out"
            )
    return next(iter(named.values()), None)


def check_read(
    online: Online,
    shaping: Shaping,
    limits: KLControl,
    advantage: Advantage | None,
    imitates: bool,
    compares: bool,
    referred: bool,
) -> None:
    """UserError for an option that has no effect on this objective (see `unread`), or two that exclude each other."""
    for _, why in unread(online, shaping, limits, advantage, imitates, compares, referred):
        raise UserError(why)
    if shaping.overlong_buffer is not None and shaping.overlong_buffer > online.max_new_tokens:
        raise UserError(
            f"overlong_buffer ({shaping.overlong_buffer}) is the end of max_new_tokens ({online.max_new_tokens}) and "
            "cannot be longer"
        )
    if limits.stop_at_kl is not None and limits.stop_at_kl >= limits.kl_limit:
        raise UserError(
            f"stop_at_kl ({limits.stop_at_kl:g}) is never reached: a round beyond kl_limit ({limits.kl_limit:g}) fails "
            "the run; lower the one or raise the other"
        )
    if online.mixture and advantage is not None:
        raise UserError(
            "'mixture' samples responses from the policy and its reference together, and this objective takes them for "
            "the policy's own; leave it out, or learn from preferences (ipo, dpo)"
        )


def sampler_weights(row: Experience, cap: float) -> tuple[list[float], float]:
    """Importance weights of a response: the policy's probability over the sampler's, of each token and of all of them,
    truncated at `cap`. They make an expectation over the sampler's responses one over the policy's (Ionides 2008,
    truncated importance sampling; for samplers of their own: Yao et al. 2025, "Your efficient RL framework secretly
    brings you off-policy RL training").

    >>> import math
    >>> row = Experience(1, (), "", (1,), (2, 3), (-1.0, -2.0), (), (), 0.0, "eos", 0, 0, old_logp_T=(-0.5, -2.1))
    >>> [round(w, 3) for w in sampler_weights(row, 2.0)[0]], round(sampler_weights(row, 2.0)[1], 3)
    ([1.649, 0.905], 1.492)
    """
    apart = [policy_logp - sampler for policy_logp, sampler in zip(row.policy_logp_T, row.logp_T, strict=True)]
    most = math.log(cap)
    return [math.exp(min(x, most)) for x in apart], math.exp(min(math.fsum(apart), most))


def weighed(row: Experience, advantage_T: Sequence[float], cap: float | None) -> dict[str, tuple[float, ...]]:
    """The advantages of a response by signal name, weighed for its sampler where there is a cap."""
    if cap is None:
        return {"advantage_BT": tuple(advantage_T), "advantage_B": tuple(advantage_T[:1])}
    each, together = sampler_weights(row, cap)
    tokens = tuple(a * w for a, w in zip(advantage_T, each, strict=True))
    return {"advantage_BT": tokens, "advantage_B": (advantage_T[0] * together,)}


def check_horizon(limits: KLControl, responses: int) -> None:
    """UserError where one round of so many responses could turn beta's sign: `kl_horizon` responses change beta by up
    to a fifth."""
    if limits.kl_target is not None and responses >= 5 * limits.kl_horizon:
        raise UserError(
            f"kl_horizon ({limits.kl_horizon}) is too short for rounds of {responses} responses: beta would fall to "
            f"0 or below within one; give at least {responses // 5 + 1}, better some hundred times a round's responses"
        )


def metrics_of(whole: Round) -> dict[str, float]:
    """The metrics of a round: mean and deviation of the scores, length, KL to the reference, entropy, truncated
    responses, and groups whose responses all scored the same, from which a group's advantages teach nothing; and how
    many responses and groups these are means over.

    The entropy is the sampled tokens' mean surprise (nats): what is expected of that is the entropy of the distribution
    they were drawn from, and no second reading of the responses is needed."""
    scores = [r.score for r in whole.rows]
    lengths, groups = whole.mask.sum(1), len({r.group for r in whole.rows})
    kl = {"kl": ((whole.logp - whole.ref) * whole.mask).sum(1).mean().item()} if whole.referred else {}
    surprise = -math.fsum(x for r in whole.rows for x in r.logp_T)
    return kl | {
        "score": float(np.mean(scores)),
        "score_deviation": moments(scores).deviation,
        "length": lengths.mean().item(),
        "sampled_entropy": surprise / max(1.0, lengths.sum().item()),
        "truncated": float(np.mean([r.stop == "length" for r in whole.rows])),
        "equal_groups": len(equal(whole.rows)) / groups,
        "responses": float(len(whole.rows)),
        "groups": float(groups),
    }


def equal(rows: Sequence[Experience]) -> list[int]:
    """The groups whose responses all scored the same, as far as they could be scored, in order."""
    scores: dict[int, list[float]] = {row.group: [] for row in rows}
    for row in (row for row in rows if not row.why):
        scores[row.group].append(row.score)
    return [group for group, group_scores in scores.items() if alike(group_scores)]


def padded(rows: Sequence[Sequence[float]]) -> Tensor:
    """Rows of numbers as [B, T], zeros behind the end."""
    return pad_sequence([torch.tensor(row, dtype=torch.float64) for row in rows], batch_first=True)
