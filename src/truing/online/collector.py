"""Collect a round: responses to its prompts, their scores, and what reference, value head and trainer say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from truing.online.advantages import equal
from truing.online.generation import GenerationClient, Judged, Prompt, measure_anew, read_over
from truing.online.history import RoundHistory
from truing.online.monitor import responses_of
from truing.online.schedule import RoundPlan
from truing.policy.policy import Policy
from truing.records import Rollout, Sampling
from truing.rollout import experience
from truing.rollout.experience import Experience
from truing.settings import Online
from truing.streams import derived
from truing.train.distributed import process_group

PlainScore = tuple[float, dict[str, float], str]
"""A score as rank 0 broadcasts it: its value, its parts by reward, and where there is none the reason."""


@dataclass(frozen=True)
class Readings:
    """Readings of sampled responses before they are learned from: their log-probabilities by `reference`, forecasts by
    the value head (`values`), and by the policy itself where `ratios` are formed and its sampler is not exact; `tokens`
    are read at once."""

    reference: Policy | None
    values: bool
    ratios: bool
    tokens: int


class Collector:
    """Samples and scores the responses of rounds. `client` samples, `judged` scores, `history` holds earlier rounds."""

    def __init__(
        self, client: GenerationClient, judged: Judged, online: Online, readings: Readings, history: RoundHistory
    ) -> None:
        self.client, self.judged, self.online, self.readings = client, judged, online, readings
        self.history = history

    def collect(self, plan: RoundPlan, replacements: Iterator[Prompt]) -> list[Experience]:
        """The responses of a round, scored and read. Prompts whose responses all scored the same give way to
        `replacements` where `resample` asks for it."""
        policy, readings = self.client.policy, self.readings
        rows = self.resample(plan, self.sample(plan, dict(enumerate(plan.prompts))), replacements)
        measure_anew(rows, policy)
        by_policy = readings.ratios and (self.online.mixture > 0 or not self.client.exact)
        return read_over(rows, policy, readings.reference, readings.values, readings.tokens, by_policy)

    def resample(self, plan: RoundPlan, rows: list[Experience], replacements: Iterator[Prompt]) -> list[Experience]:
        """The round with the prompts whose responses all scored the same replaced, as long as there are others and for
        at most `resample` draws."""
        for draw in range(1, (self.online.resample or 0) + 1):
            prompts = dict(zip(equal(rows), replacements, strict=False))
            if not prompts:
                break
            others = [row for row in rows if row.group not in prompts]
            rows = sorted(others + self.sample(plan, prompts, draw), key=lambda row: row.group)
        return rows

    def sample(self, plan: RoundPlan, prompts: Mapping[int, Prompt], draw: int = 0) -> list[Experience]:
        """Responses to these prompts, by their group, with their scores; `draw` counts prompts that replaced others."""
        groups = list(prompts)
        seed = derived(plan.seed, draw) if draw else plan.seed
        sampling = Sampling(self.online.max_new_tokens, self.online.temperature, seed)
        rollouts = self.client.ask(plan.version, list(prompts.values()), self.online.group_size, sampling)
        rollouts = [replace(r, group=groups[r.group]) for r in rollouts]
        repeated = [prompts[r.group] for r in rollouts]
        texts = [self.judged.text(self.client.policy, r) for r in rollouts]
        scores = self.score(plan, repeated, texts, rollouts)
        columns = zip(repeated, texts, rollouts, scores, strict=True)
        return [scored(prompt, text, rollout, score) for prompt, text, rollout, score in columns]

    def score(
        self, plan: RoundPlan, prompts: Sequence[Prompt], texts: Sequence[str], rollouts: Sequence[Rollout]
    ) -> list[PlainScore]:
        """Score every response on rank 0 and broadcast the scores."""
        responses = responses_of(prompts, texts, rollouts)

        def work() -> str:
            scores = self.judged.rewards(responses, self.parts_before(plan.number))
            return json.dumps([(s.value, dict(s.parts), s.why if s.failed else "") for s in scores])

        broadcast: list[PlainScore] = json.loads(process_group.lead(work))
        return broadcast

    def parts_before(self, number: int) -> list[dict[str, float]]:
        """Each reward's part of the scores of the round before, where costs follow from them. RunFailed where its file
        is gone."""
        if number == 0 or not self.judged.rewards.remembers:
            return []
        return [dict(row.parts) for row in experience.read(self.history.path(number - 1))]


def scored(prompt: Prompt, text: str, rollout: Rollout, score: PlainScore) -> Experience:
    """A rollout and its score as one row of experience, which nobody has read over yet."""
    value, parts, why = score
    return Experience(
        row=prompt.row,
        prompt=prompt.messages,
        response=text,
        prompt_ids=prompt.ids,
        response_ids=rollout.response_ids,
        logp_T=rollout.logp_T,
        ref_logp_T=(),
        value_T=(),
        score=value,
        stop=rollout.stop,
        group=rollout.group,
        policy_version=rollout.policy_version,
        parts=tuple(parts.items()),
        why=why,
    )
