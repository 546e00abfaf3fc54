"""From rewards to what is learned from: one scale, bounds, and the cost of a response's length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from truing.objectives.equal import rounding
from truing.online.history import Moments
from truing.rollout.experience import Experience
from truing.settings import Shaping


def overlong(length_B: Tensor, *, longest: int, buffer: int) -> Tensor:
    """The penalty added to the score of responses of these lengths (tokens): 0 up to longest - buffer, from there
    evenly down to -1 at `longest`, and -1 beyond (Yu et al. 2025, DAPO, eq. 13, arXiv 2503.14476).

    >>> overlong(torch.tensor([80, 90, 101]), longest=100, buffer=20).tolist()
    [0.0, -0.5, -1.0]
    """
    return ((longest - buffer - length_B.double()) / buffer).clamp(-1.0, 0.0)


def normalised(score_B: Tensor, scale: Moments | None, bound: float | None) -> Tensor:
    """Scores on mean 0 and deviation 1 of `scale` (None leaves them as they are), held within plus and minus `bound`.
    Where all of `scale` are equal there is no deviation to divide by, and they are only centred; what equals the mean
    but for rounding is 0."""
    if scale is not None:
        apart = score_B - scale.mean
        near = apart.abs() <= rounding(score_B.dtype) * score_B.abs().clamp(min=abs(scale.mean))
        score_B = torch.where(near, 0.0, apart) / (scale.deviation or 1.0)
    return score_B if bound is None else score_B.clamp(-bound, bound)


def shaped(rows: Sequence[Experience], shaping: Shaping, longest: int, penalty: float, scale: Moments | None) -> Tensor:
    """The scores of a round's responses, normalised and bounded, less the cost of their length: `penalty` where one is
    truncated, and what lies in the buffer before `longest`."""
    score = torch.tensor([r.score for r in rows], dtype=torch.float64)
    cut = torch.tensor([r.stop == "length" for r in rows]).double()
    score = normalised(score, scale, shaping.clip_score) - penalty * cut
    if shaping.overlong_buffer is None:
        return score
    lengths = torch.tensor([len(r.response_ids) for r in rows])
    return score + overlong(lengths, longest=longest, buffer=shaping.overlong_buffer)
