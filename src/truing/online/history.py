"""The rounds so far, as later ones need them: read from their experience on disk and never from memory alone.

A KL weight that adapts and scores that are normalised over a run depend on all rounds before. A run that was killed
finds the same numbers in the same files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from truing.errors import RunFailed
from truing.objectives.equal import alike
from truing.objectives.kl import adapted
from truing.rollout import experience
from truing.rollout.experience import Experience
from truing.settings import KLControl


@dataclass(frozen=True)
class Moments:
    """The count of some values, their mean, and the sum of their squared distances from it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def deviation(self) -> float:
        """The population's standard deviation; 0 of values that are all equal."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    @property
    def error(self) -> float | None:
        """The standard error of the mean; None where fewer than two values give none."""
        return math.sqrt(self.squares / (self.count - 1) / self.count) if self.count > 1 else None

    def joined(self, other: Moments) -> Moments:
        """Both as one (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        if not count:
            return self
        apart = 0.0 if alike([self.mean, other.mean]) else other.mean - self.mean
        squares = self.squares + other.squares + apart * apart * self.count * other.count / count
        return Moments(count, self.mean + apart * other.count / count, squares)


def moments(values: Sequence[float]) -> Moments:
    """Those of some values. Equal ones (`objectives.equal`) have no distance at all from their mean.

    >>> moments([1.0, 3.0]), moments([1.0]).error, moments([0.1, 0.1, 0.1]).deviation
    (Moments(count=2, mean=2.0, squares=2.0), None, 0.0)
    """
    if alike(values):
        return Moments(len(values), values[0] if values else 0.0)
    mean = math.fsum(values) / len(values)
    return Moments(len(values), mean, math.fsum((value - mean) ** 2 for value in values))


@dataclass(frozen=True)
class RoundSummary:
    """A round as later ones need it: its responses, their tokens, the mean over them of the summed log-ratio to the
    reference (nats; None where none was read), and the moments of the scores that there are."""

    responses: int
    tokens: int
    kl: float | None
    scores: Moments


def summary(rows: Sequence[Experience]) -> RoundSummary:
    """Sum up a round. A response that could not be scored has no score here either."""
    referred = [r for r in rows if r.ref_logp_T]
    ratios = [math.fsum(r.policy_logp_T) - math.fsum(r.ref_logp_T) for r in referred]
    kl = math.fsum(ratios) / len(ratios) if all(map(math.isfinite, ratios)) and ratios else math.nan if ratios else None
    tokens = sum(len(r.response_ids) for r in rows)
    return RoundSummary(len(rows), tokens, kl, moments([r.score for r in rows if not r.why]))


class RoundHistory:
    """The rounds of a stage that have been lived, by number from 0; each file is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._summaries = folder, dict[int, RoundSummary]()

    def path(self, number: int) -> Path:
        """The file of a round's experience."""
        return self.folder / f"round-{number + 1:05d}.parquet"

    def note(self, number: int, rows: Sequence[Experience]) -> RoundSummary:
        """Keep what a round showed that has just been lived or read."""
        self._summaries[number] = summary(rows)
        return self._summaries[number]

    def of(self, number: int) -> RoundSummary:
        """The summary of a round; RunFailed where its file cannot be read."""
        return self._summaries.get(number) or self.note(number, experience.read(self.path(number)))

    def scores(self, upto: int) -> Moments:
        """The moments of all scores up to and with round `upto`."""
        whole = Moments()
        for number in range(upto + 1):
            whole = whole.joined(self.of(number).scores)
        return whole

    def tokens(self, before: int) -> int:
        """The tokens of all responses of the rounds before round `before`."""
        return sum(self.of(number).tokens for number in range(before))

    def beta(self, number: int, begun: float, kl_control: KLControl) -> float:
        """The beta of a round: as it began, or where the KL has a target, adapted after every round since."""
        beta = begun
        for earlier in range(number if kl_control.kl_target is not None else 0):
            was = self.of(earlier)
            if was.kl is None or kl_control.kl_target is None:
                continue
            beta = adapted(beta, was.kl, target=kl_control.kl_target, rows=was.responses, horizon=kl_control.kl_horizon)
        return beta


def check_kl(step: int, round_: RoundSummary, limit: float) -> None:
    """RunFailed where a round's responses are so far from the reference that it was lost, or the distance is no number.
    `limit` in nats, of the mean over responses; `step` is the update that would have come next."""
    if round_.kl is None or (math.isfinite(round_.kl) and round_.kl <= limit):
        return
    problem = f"is {round_.kl:.1f} nats a response, beyond kl_limit ({limit:g})"
    problem = problem if math.isfinite(round_.kl) else "is not finite: a token's log-probability has overflown"
    raise RunFailed(
        f"step {step}: the KL to the reference {problem}; nothing was updated. Lower learning_rate, raise beta, or "
        "learn fewer times from a round (epochs_per_round)."
    )
