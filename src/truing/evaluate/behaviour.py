"""Changes of a model's responses apart from their score: length, KL to the reference, share truncated."""

from __future__ import annotations

from collections.abc import Sequence

from truing.evaluate.intervals import (
    Interval,
    finite,
    independent,
    mean_interval,
    not_below,
    same_length,
    share_interval,
)
from truing.records import Finding


def length_delta(
    model: str,
    lengths: Sequence[float],
    against: str,
    lengths_against: Sequence[float],
    prompt_ids: Sequence[str] | None = None,
    slice: str = "all",
    check: str = "mean_length_delta_tokens",
    *,
    counted_by: str = "",
) -> Finding:
    """The mean difference in tokens between the responses of `model` and of `against` to the same prompts.

    `counted_by` names the model whose tokenizer counted both, if they do not share one.

    >>> length_delta("direct", [10, 14, 12], "warm", [8, 10, 9]).value
    3.0
    """
    same_length(lengths=lengths, lengths_against=lengths_against, prompt_ids=prompt_ids)
    ours, theirs = finite(lengths, f"length of {model}"), finite(lengths_against, f"length of {against}")
    interval = mean_interval((ours - theirs).tolist(), prompt_ids)
    whose = f", counted by {counted_by}'s tokenizer" if counted_by else ""
    return Finding(
        check,
        model,
        float((ours - theirs).mean()),
        against,
        slice,
        interval,
        independent(ours.tolist(), prompt_ids),
        bound=0.0,
        verdict=_side(interval, "longer", "shorter"),
        evidence=f"{len(ours)} pairs of responses: {ours.mean():.1f} against {theirs.mean():.1f} tokens on average"
        + whose,
    )


def kl(
    model: str,
    logp: Sequence[float],
    ref_logp: Sequence[float],
    prompt_ids: Sequence[str] | None = None,
    slice: str = "all",
    check: str = "kl_to_reference",
    *,
    against: str = "reference",
) -> Finding:
    """KL(model || reference) in nats per response: the mean of logp - ref_logp.

    Both are summed over the tokens of responses that `model` itself has just given, at temperature 1; on other
    responses the mean is no KL. An estimate may fall below 0 by chance.

    >>> kl("direct", [-10.0, -8.0], [-11.0, -10.0]).value
    1.5
    """
    same_length(logp=logp, ref_logp=ref_logp, prompt_ids=prompt_ids)
    ratio = finite(logp, "logp") - finite(ref_logp, "ref_logp")
    interval = mean_interval(ratio.tolist(), prompt_ids)
    return Finding(
        check,
        model,
        float(ratio.mean()),
        against,
        slice,
        interval,
        independent(ratio.tolist(), prompt_ids),
        bound=0.0,
        verdict=_side(interval, "moved", "unclear"),
        evidence=f"mean log-ratio in nats of {len(ratio)} fresh responses of {model}",
    )


def truncated_share(
    model: str,
    truncated: Sequence[bool],
    prompt_ids: Sequence[str] | None = None,
    slice: str = "all",
    check: str = "truncated_share",
) -> Finding:
    """The share of truncated responses: those that ran into the length limit instead of ending by themselves.

    >>> truncated_share("direct", [True, False, False, False]).value
    0.25
    """
    same_length(truncated=truncated, prompt_ids=prompt_ids)
    cut = finite([float(x) for x in truncated], "stop reason")
    return Finding(
        check,
        model,
        float(cut.mean()),
        slice=slice,
        interval=share_interval(cut.tolist(), prompt_ids),
        n=independent(cut.tolist(), prompt_ids),
        verdict="measured",
        evidence=f"{int(cut.sum())} of {len(cut)} responses ran into the length limit",
    )


def disagreement(
    model: str,
    apart: Sequence[float],
    prompt_ids: Sequence[str] | None = None,
    slice: str = "all",
    check: str = "disagreement",
) -> Finding:
    """The disagreement of a judging ensemble's members on the responses of `model`: the mean of their standard
    deviation. It rises on responses unlike those that they were fitted on.

    >>> disagreement("direct", [0.5, 1.5]).value
    1.0
    """
    same_length(disagreement=apart, prompt_ids=prompt_ids)
    spread = finite(apart, f"disagreement on {model}")
    return Finding(
        check,
        model,
        float(spread.mean()),
        slice=slice,
        interval=not_below(0.0, mean_interval(spread.tolist(), prompt_ids)),
        n=independent(spread.tolist(), prompt_ids),
        verdict="measured",
        evidence=f"mean deviation over the judging members, in units of their common scale, on {len(spread)} responses",
    )


def disagreement_delta(
    model: str,
    apart: Sequence[float],
    against: str,
    apart_against: Sequence[float],
    prompt_ids: Sequence[str] | None = None,
    check: str = "disagreement_delta",
) -> Finding:
    """The difference of a judging ensemble's disagreement on one model's responses and on another's to the same
    prompts.

    >>> disagreement_delta("direct", [0.5, 1.5], "warm", [0.5, 0.5]).value
    0.5
    """
    same_length(disagreement=apart, against=apart_against, prompt_ids=prompt_ids)
    ours, theirs = finite(apart, f"disagreement on {model}"), finite(apart_against, f"disagreement on {against}")
    interval = mean_interval((ours - theirs).tolist(), prompt_ids)
    return Finding(
        check,
        model,
        float((ours - theirs).mean()),
        against,
        interval=interval,
        n=independent(ours.tolist(), prompt_ids),
        bound=0.0,
        verdict=_side(interval, "more", "less"),
        evidence=f"{len(ours)} pairs of responses: {ours.mean():.3f} against {theirs.mean():.3f} on average",
    )


def _side(interval: Interval | None, above: str, below: str) -> str:
    if interval is None:
        return "unclear"
    return above if interval[0] > 0 else below if interval[1] < 0 else "unclear"
