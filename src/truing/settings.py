"""The groups of options that several stages share: training, learning from a policy's own responses, adapters.

Their fields are options of a recipe, as the keyword-only parameters of a stage are.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from truing.records import Cap, Count, Fraction, NonNegative, Positive


@dataclass(frozen=True, slots=True)
class Training:
    """The options that every training stage takes.

    Give `epochs` or `steps`, and `tokens_per_step` or `rows_per_step`. A row of data that compares several responses is
    one row. `precision: bf16` computes in bf16 from weights and moments kept in fp32.
    """

    EITHER: ClassVar[tuple[tuple[str, str], ...]] = (("epochs", "steps"), ("tokens_per_step", "rows_per_step"))
    """Pairs of which one is given; the other's default then has no effect."""

    epochs: Annotated[Positive, "passes over the data; more fit it closer, and then memorise it"] = 1.0
    steps: Annotated[Count | None, "updates of the weights, in place of `epochs`"] = None
    learning_rate: Annotated[
        Positive, "largest step size of AdamW; too large and the model breaks, too small and it stays as it was"
    ] = 1e-5
    schedule: Annotated[
        Literal["cosine", "linear", "constant"],
        "how the learning rate falls after the warm-up: cosine or linear to 0, or not at all",
    ] = "cosine"
    warmup: Annotated[Fraction, "share of the steps over which the learning rate rises from 0"] = 0.1
    weight_decay: Annotated[NonNegative, "share of a weight, times the learning rate, taken off every step"] = 0.0
    max_grad_norm: Annotated[
        Positive, "largest norm of a step's gradient, all weights together; longer ones are scaled down"
    ] = 1.0
    tokens_per_step: Annotated[
        Count | None, "tokens of one update at most; more give steadier gradients and fewer updates"
    ] = None
    rows_per_step: Annotated[
        Count | None,
        "rows of data (of reinforce: prompts) in one update; more give steadier gradients and fewer updates",
    ] = None
    tokens_per_device: Annotated[Count, "tokens held in memory at once; never changes the result"] = 8192
    max_length: Annotated[
        Count, "tokens of prompt and response at most; longer rows are cut or left out, and counted"
    ] = 1024
    checkpoint_every: Annotated[Count | None, "steps between checkpoints that a resume goes on from"] = None
    seed: Annotated[int, "added to the recipe's seed; another number, another order of the data"] = 0
    precision: Annotated[
        Literal["fp32", "bf16"], "dtype of the computation; weights and moments are kept in fp32 either way"
    ] = "fp32"
    gradient_checkpointing: Annotated[
        bool, "compute layers again in the backward pass: less memory, more time, the same result"
    ] = False

    def changed(self, **options: Any) -> Training:
        """These options with some changed. One of a pair puts away a stage's default for the other.

        >>> Training(tokens_per_step=8192).changed(rows_per_step=4).tokens_per_step is None
        True
        """
        defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(self)}
        chosen = {name for name, value in options.items() if value is not None}
        away = {
            b: defaults[b] for pair in self.EITHER for a, b in (pair, pair[::-1]) if a in chosen and b not in options
        }
        return dataclasses.replace(self, **(away | options))


@dataclass(frozen=True, slots=True)
class Online:
    """The options of learning from a policy's own responses.

    A round samples `group_size` responses to each of its prompts and is learned from in `minibatches` updates (of
    `rows_per_step` prompts each), `epochs_per_round` times over. With `mixture` responses are sampled from the policy
    and its reference together, at every token in proportion to pi^(1 - mixture) ref^mixture (with `ipo`: IPO-MD); it is
    for objectives that read no ratio to the sampler. Responses are sampled at `temperature`, and policy and reference
    are read at it wherever responses are learned from. With `sampler_cap`, advantages are weighted by the ratio of a
    response's probability under the policy as it is trained to that under the engine that sampled it, truncated at this
    value."""

    group_size: Annotated[
        Count, "responses to each prompt of a round, which are compared with each other; more give steadier advantages"
    ] = 8
    minibatches: Annotated[Count, "updates that a round's responses are divided into"] = 1
    epochs_per_round: Annotated[
        Count, "how often a round's responses are learned from; more drift from the sampler"
    ] = 1
    max_new_tokens: Annotated[Count, "tokens at which a response is truncated"] = 64
    temperature: Annotated[Positive, "of sampling and learning alike; larger explores more, smaller is greedier"] = 1.0
    beta: Annotated[
        NonNegative, "reward that a nat of log-ratio to the reference costs; 0 is no KL control, larger stays nearer"
    ] = 0.0
    truncated_penalty: Annotated[NonNegative, "reward taken from a truncated response"] = 0.0
    gamma: Annotated[Fraction, "discount of a reward a token later, for advantages by a value head; 1 is none"] = 1.0
    gae_lambda: Annotated[Fraction, "lambda of generalised advantages: 1 trusts rewards, 0 trusts the value head"] = (
        0.95
    )
    sample_deviation: Annotated[bool, "divide a group's deviation by n - 1, as TRL and verl do, and not by n"] = False
    passing: Annotated[
        float | None, "least score of a response that `nll` imitates; the best of each group by default"
    ] = None
    mixture: Annotated[
        Fraction, "share of the reference, in log-probability, in what samples responses; larger stays nearer to it"
    ] = 0.0
    resample: Annotated[
        Count | None, "times a round that prompts with equal scores give way to others; none by default"
    ] = None
    sampler_cap: Annotated[
        Cap | None, "largest weight of a response by policy over sampling engine, where their precision differs"
    ] = None

    def changed(self, **options: Any) -> Online:
        """These options with some changed."""
        return dataclasses.replace(self, **options)


@dataclass(frozen=True, slots=True)
class Shaping:
    """The options of shaping a score before it is learned from: put on one scale (`normalise`), then held within
    `clip_score`."""

    normalise: Annotated[
        Literal["none", "round", "running"],
        "put scores on mean 0 and deviation 1, of their round or of all rounds so far",
    ] = "none"
    clip_score: Annotated[Positive | None, "deviations within which normalised scores are held"] = None
    overlong_buffer: Annotated[
        Count | None, "last tokens before max_new_tokens, which cost up to 1 of reward, evenly"
    ] = None
    mask_truncated: Annotated[bool, "compare with truncated responses, and do not learn from them"] = False

    def changed(self, **options: Any) -> Shaping:
        """These options with some changed."""
        return dataclasses.replace(self, **options)


@dataclass(frozen=True, slots=True)
class KLControl:
    """The options of KL control; KL is in nats, of the mean over responses of the summed log-ratio.

    `kl_target` lets `beta` follow the KL: after a round of n responses it changes by at most 20 % times n /
    `kl_horizon`.
    """

    kl_limit: Annotated[Positive, "nats of KL to the reference beyond which the run has failed"] = 100.0
    stop_at_kl: Annotated[Positive | None, "nats of KL to the reference at which the stage ends well"] = None
    kl_target: Annotated[Positive | None, "nats of KL to the reference that `beta` is moved to hold"] = None
    kl_horizon: Annotated[Count, "responses over which `beta` follows the KL; more move it slower"] = 10_000
    refresh_reference: Annotated[
        Count | None, "rounds after which the reference becomes the policy as it is then; lets it go further"
    ] = None

    def changed(self, **options: Any) -> KLControl:
        """These options with some changed."""
        return dataclasses.replace(self, **options)


@dataclass(frozen=True, slots=True)
class Monitoring:
    """The options of evaluating held-out prompts during training: before the first update, after every `monitor_every`
    of them, and after the last.

    After `patience` evaluations in which the first monitored reward was no better than its best by more than a standard
    error, the stage ends. With `patience`, the weights of the best evaluation are kept.
    """

    monitor_every: Annotated[Count, "updates between evaluations on the held-out prompts"] = 10
    patience: Annotated[
        Count | None, "evaluations without a better one after which the stage ends and keeps the best weights"
    ] = None

    def changed(self, **options: Any) -> Monitoring:
        """These options with some changed."""
        return dataclasses.replace(self, **options)


@dataclass(frozen=True, slots=True)
class Lora:
    """The options of training a low-rank adapter in place of all weights; `lora_rank` asks for one.

    `lora_alpha` over the rank scales what it adds (twice the rank by default). `lora_targets` are names of linear
    layers (all but the head by default). With `lora_merge` the stage leaves a whole model and not an adapter.
    """

    NEEDS: ClassVar[tuple[str, tuple[str, ...]]] = ("lora_rank", ("lora_alpha", "lora_targets"))
    """The others have no effect without the first."""

    lora_rank: Annotated[
        Count | None, "rank of the adapter that is trained in place of all weights; more can learn more"
    ] = None
    lora_alpha: Annotated[
        Positive | None, "over the rank, what the adapter's addition is multiplied by; twice the rank by default"
    ] = None
    lora_targets: Annotated[list[str] | None, "names of the linear layers that get it; all but the head by default"] = (
        None
    )
    lora_merge: Annotated[bool, "leave a whole model, the adapter added in, and not an adapter"] = False

    def changed(self, **options: Any) -> Lora:
        """These options with some changed."""
        return dataclasses.replace(self, **options)
