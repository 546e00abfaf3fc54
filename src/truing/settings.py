"""The groups of options that several stages share: training, learning from a policy's own answers, adapters.

Their fields are options of a recipe, as the keyword-only parameters of a stage are.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from truing.types import Cap, Count, Fraction, NonNegative, Positive


@dataclass(frozen=True, slots=True)
class Training:
    """The options that every training stage takes.

    Give `epochs` or `steps`. `tokens_per_step` bounds the tokens of one update, `rows_per_step` its rows of data
    (trees: a row that compares several responses is one): give one of them. `tokens_per_device` bounds what is held in
    memory at once and never changes the result. `seed` is counted from the recipe's. `precision: bf16` computes in bf16
    from weights and moments kept in fp32. `gradient_checkpointing` computes every layer again in the backward pass, for
    less memory and the same result.
    """

    EITHER: ClassVar[tuple[tuple[str, str], ...]] = (("epochs", "steps"), ("tokens_per_step", "rows_per_step"))
    """Of each pair one is given; the other's default then says nothing."""

    epochs: Positive = 1.0
    steps: Count | None = None
    learning_rate: Positive = 1e-5
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Fraction = 0.1
    weight_decay: NonNegative = 0.0
    clip: Positive = 1.0
    tokens_per_step: Count | None = None
    rows_per_step: Count | None = None
    tokens_per_device: Count = 8192
    max_length: Count = 1024
    checkpoint_every: Count | None = None
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False

    def changed(self, **options: Any) -> Training:
        """These options with some changed. One of a pair puts away a stage's default for the other.

        >>> Training(tokens_per_step=8192).changed(rows_per_step=4).tokens_per_step is None
        True
        """
        own: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(self)}
        given = {name for name, value in options.items() if value is not None}
        away = {b: own[b] for pair in self.EITHER for a, b in (pair, pair[::-1]) if a in given and b not in options}
        return dataclasses.replace(self, **(away | options))


@dataclass(frozen=True, slots=True)
class Online:
    """The options of learning from a policy's own answers.

    A round samples `answers` to each of its prompts and is learned from in `minibatches` updates (of `rows_per_step`
    prompts each), `passes` times over. `beta` is the leash: what a nat of log-ratio to the reference costs in reward.
    `unfinished_penalty` is taken from the score of an answer cut at `max_new_tokens`. `gamma` and `smoothing` belong to
    generalised advantages; `sample_deviation` takes a group's sample deviation (as TRL and verl do), not the formula's.
    Where answers are imitated (`nll`), those with a score of at least `passing` are, or else the best of each group.
    With `resample` the prompts whose answers all scored the same give way to others, at most so many times a round.
    With `mixture` answers are sampled from the policy and its reference together, at every token in proportion to
    pi^(1 - mixture) ref^mixture (with `ipo`: IPO-MD); it is for objectives that read no ratio to the sampler.
    Answers are sampled at `temperature`, and policy and reference are read at it wherever answers are learned from.
    With `sampler_cap`, advantages are weighed by how much likelier an answer's tokens are under the policy as it is
    trained than under the engine that sampled them, at most so many times: for engines of another precision.
    """

    answers: Count = 8
    minibatches: Count = 1
    passes: Count = 1
    max_new_tokens: Count = 64
    temperature: Positive = 1.0
    beta: NonNegative = 0.0
    unfinished_penalty: NonNegative = 0.0
    gamma: Fraction = 1.0
    smoothing: Fraction = 0.95
    sample_deviation: bool = False
    passing: float | None = None
    mixture: Fraction = 0.0
    resample: Count | None = None
    sampler_cap: Cap | None = None

    def changed(self, **options: Any) -> Online:
        """These options with some changed."""
        return dataclasses.replace(self, **options)


@dataclass(frozen=True, slots=True)
class Shaping:
    """The options of what a score becomes before it is learned from.

    `normalise` puts scores on mean 0 and deviation 1, over their `round` or over all rounds so far (`running`);
    `clip_score` then holds them within plus and minus so much. The last `overlong_buffer` tokens before
    `max_new_tokens` cost up to 1, evenly. With `mask_unfinished`, answers cut at `max_new_tokens` are compared with,
    and not learned from.
    """

    normalise: Literal["none", "round", "running"] = "none"
    clip_score: Positive | None = None
    overlong_buffer: Count | None = None
    mask_unfinished: bool = False

    def changed(self, **options: Any) -> Shaping:
        """These options with some changed."""
        return dataclasses.replace(self, **options)


@dataclass(frozen=True, slots=True)
class Leash:
    """The options of how far from its reference a policy may go; KL is in nats, of the mean over answers of the summed
    log-ratio.

    A round beyond `kl_limit` has failed; at `stop_at_kl` the stage ends well. `kl_target` lets `beta` follow the KL:
    after a round of n answers it changes by at most 20 % times n / `kl_horizon`. Every `refresh_reference` rounds the
    reference becomes the policy as it is then.
    """

    kl_limit: Positive = 100.0
    stop_at_kl: Positive | None = None
    kl_target: Positive | None = None
    kl_horizon: Count = 10_000
    refresh_reference: Count | None = None

    def changed(self, **options: Any) -> Leash:
        """These options with some changed."""
        return dataclasses.replace(self, **options)


@dataclass(frozen=True, slots=True)
class Watching:
    """The options of looks at held-out prompts: before the first update, after every `watch_every`, and after the last.

    After `patience` looks in which the first watched reward was no better than its best by more than a standard error,
    the stage ends. With `patience`, the weights of the best look are those that are kept.
    """

    watch_every: Count = 10
    patience: Count | None = None

    def changed(self, **options: Any) -> Watching:
        """These options with some changed."""
        return dataclasses.replace(self, **options)


@dataclass(frozen=True, slots=True)
class Lora:
    """The options of training a low-rank adapter in place of all weights; `lora_rank` asks for one.

    `lora_alpha` over the rank scales what it adds (twice the rank unless given). `lora_targets` are names of linear
    layers (all but the head unless given). With `lora_merge` the stage leaves a whole model and not an adapter.
    """

    NEEDS: ClassVar[tuple[str, tuple[str, ...]]] = ("lora_rank", ("lora_alpha", "lora_targets"))
    """Without the first the others say nothing."""

    lora_rank: Count | None = None
    lora_alpha: Positive | None = None
    lora_targets: list[str] | None = None
    lora_merge: bool = False

    def changed(self, **options: Any) -> Lora:
        """These options with some changed."""
        return dataclasses.replace(self, **options)
