"""The vocabulary of signals: the quantities an objective may ask for, and their shapes.

Shapes, by suffix: B rows (pairs, examples, rollouts), T response tokens (padded; `mask_BT` says which are real), K
ranked responses (best first, padded; `rank_mask_BK`), S steps (padded; `step_mask_BS`). A `logp` is a sum over response
tokens in nats, unless its name ends in `_BT`. Signals of origin "step" are statistics of a whole step, made by the
objective that asks for them (`coupled`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Origin = Literal["policy", "reference", "reward", "data", "rollout", "step"]


class Signal(NamedTuple):
    """One quantity of the vocabulary: its origin and its meaning."""

    origin: Origin
    meaning: str


SIGNALS: dict[str, Signal] = {
    # single responses
    "logp_BT": Signal("policy", "log-probability of each response token, nats"),
    "mask_BT": Signal("data", "1 where a response token is learned from, 0 elsewhere"),
    "logp_B": Signal("policy", "log-probability of the response, summed over its tokens, nats"),
    "length_B": Signal("data", "tokens of the response"),
    "ref_logp_B": Signal("reference", "the reference's log-probability of the response, nats"),
    "ref_logp_BT": Signal("reference", "the reference's log-probability of each response token, nats"),
    "prompt_logp_B": Signal("policy", "log-probability of the prompt after its first token, summed, nats"),
    "prompt_length_B": Signal("data", "tokens of the prompt after its first"),
    "desirable_B": Signal("data", "1 where the response is desirable, 0 where it is undesirable"),
    "prompt_B": Signal("data", "a number that says which prompt the row belongs to"),
    "mismatched_logp_B": Signal("policy", "log-probability of another prompt's response after this prompt, nats"),
    "ref_mismatched_logp_B": Signal("reference", "the same under the reference, nats"),
    # pairs
    "chosen_logp_B": Signal("policy", "log-probability of the chosen response, nats"),
    "rejected_logp_B": Signal("policy", "log-probability of the rejected response, nats"),
    "chosen_length_B": Signal("data", "tokens of the chosen response"),
    "rejected_length_B": Signal("data", "tokens of the rejected response"),
    "ref_chosen_logp_B": Signal("reference", "the reference's log-probability of the chosen response, nats"),
    "ref_rejected_logp_B": Signal("reference", "the reference's log-probability of the rejected response, nats"),
    # rankings
    "logp_BK": Signal("policy", "log-probability of each ranked response, best first, nats"),
    "ref_logp_BK": Signal("reference", "the reference's log-probability of each ranked response, nats"),
    "reward_BK": Signal("reward", "scalar reward of each ranked response, best first"),
    "rank_mask_BK": Signal("data", "1 where there is a ranked response, 0 behind the last"),
    # reward models
    "reward_B": Signal("reward", "scalar reward of the response"),
    "target_B": Signal("data", "target of the reward: a score, or a probability"),
    "chosen_reward_B": Signal("reward", "scalar reward of the chosen response"),
    "rejected_reward_B": Signal("reward", "scalar reward of the rejected response"),
    "margin_B": Signal("data", "how strongly the chosen response was preferred, in units of reward"),
    "preference_B": Signal("data", "soft label: probability that the chosen response is the better one"),
    "tie_B": Signal("data", "1 where the rater called it a tie, 0 where the chosen response won"),
    "tie_logit_B": Signal("reward", "the model's one learned tie parameter, repeated; any number"),
    "chosen_safe_B": Signal("data", "1 where the chosen (less harmful) response is harmless, 0 where it is harmful"),
    "rejected_safe_B": Signal("data", "1 where the rejected (more harmful) response is harmless, 0 where harmful"),
    "step_logit_BS": Signal("reward", "log-odds that the solution is right up to and including this step"),
    "step_label_BS": Signal("data", "a rater's label of the step: 1 good, 0 neutral, -1 bad"),
    "step_mask_BS": Signal("data", "1 where there is a labelled step, 0 elsewhere"),
    # rollouts
    "old_logp_BT": Signal("rollout", "log-probability of each token when the rollouts were taken, nats"),
    "old_logp_B": Signal("rollout", "the same, summed over the response's tokens"),
    "sampler_logp_BT": Signal("rollout", "log-probability of each token as the sampler's own engine gave it, nats"),
    "advantage_BT": Signal("rollout", "how much better each token did than was expected"),
    "advantage_B": Signal("rollout", "how much better the response did than was expected"),
    "score_B": Signal("rollout", "the rewards' score of the rollout"),
    "entropy_BT": Signal("policy", "entropy of the policy where each token was drawn, nats"),
    "value_BT": Signal("policy", "the value head's forecast of the return from each token on"),
    "given_logp_B": Signal("policy", "log-probability of each text given beside the rollouts, nats"),
    "given_length_B": Signal("data", "tokens of that text"),
    "old_value_BT": Signal("rollout", "the same, when the rollouts were taken"),
    "return_BT": Signal("rollout", "the return the value should forecast"),
    # statistics of a whole step
    "row_tokens_B": Signal("step", "mean tokens of a row, prompt and response"),
    "kl_baseline_B": Signal("step", "mean log-ratio of mismatched responses, 0 or more, nats"),
    "shift_B": Signal("step", "moving mean of the implicit rewards of both classes"),
    "class_weight_B": Signal("step", "rows of the step over those of the row's own class"),
    "log_mean_exp_B": Signal("step", "log of the mean of exp(implicit reward) over undesirable responses"),
    "moving_log_mean_exp_B": Signal("step", "log of the moving average of that mean"),
    "log_partition_B": Signal("step", "log of the mean importance weight"),
    "threshold_B": Signal("step", "the probability that half of the step's rows exceed"),
}


def alone(name: str) -> str:
    """The refusal of a term that goes with any advantages, where there are none."""
    return (
        f"objective '{name}' goes with a method that has advantages, and there is none; put it beside one, as in "
        f"[dapo, {{{name}: {{weight: 0.01}}}}]"
    )


def of_head(signal: str, head: str) -> str:
    """The name of a signal as one of several heads gives it, or the data for that head: `reward_B:clarity`.

    >>> of_head("reward_B", "clarity"), of_head("logp_B", "clarity"), of_head("reward_B", "")
    ('reward_B:clarity', 'logp_B', 'reward_B')
    """
    definition = SIGNALS.get(signal)
    per_head = signal == "target_B" or (
        definition is not None and definition.origin == "reward" and signal != "tie_logit_B"
    )
    return f"{signal}:{head}" if head and per_head else signal
