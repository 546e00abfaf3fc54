"""The vocabulary of signals: what an objective may ask for, and in which shape.

Shapes, by suffix: B rows (pairs, examples, rollouts), T response tokens (padded; `mask_BT` says which are real),
K ranked answers, S steps. A `logp` is a sum over response tokens in nats, unless its name ends in `_BT`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Origin = Literal["policy", "reference", "reward", "data", "rollout"]


class Signal(NamedTuple):
    """One quantity of the vocabulary: where it comes from, and what it means."""

    origin: Origin
    meaning: str


SIGNALS: dict[str, Signal] = {
    "logp_BT": Signal("policy", "log-probability of each response token, nats"),
    "mask_BT": Signal("data", "1 where a response token is learned from, 0 elsewhere"),
    "logp_B": Signal("policy", "log-probability of the response, summed over its tokens, nats"),
    "length_B": Signal("data", "tokens of the response"),
    "chosen_logp_B": Signal("policy", "log-probability of the chosen response, nats"),
    "rejected_logp_B": Signal("policy", "log-probability of the rejected response, nats"),
    "chosen_length_B": Signal("data", "tokens of the chosen response"),
    "rejected_length_B": Signal("data", "tokens of the rejected response"),
    "ref_logp_B": Signal("reference", "the reference's log-probability of the response, nats"),
    "ref_chosen_logp_B": Signal("reference", "the reference's log-probability of the chosen response, nats"),
    "ref_rejected_logp_B": Signal("reference", "the reference's log-probability of the rejected response, nats"),
    "reward_B": Signal("reward", "scalar reward of the response"),
    "chosen_reward_B": Signal("reward", "scalar reward of the chosen response"),
    "rejected_reward_B": Signal("reward", "scalar reward of the rejected response"),
    "margin_B": Signal("data", "how strongly the chosen response was preferred, in units of reward"),
    "preference_B": Signal("data", "soft label: probability that the chosen response is the better one"),
}
