"""The judges that score the responses of an exam: the world's truth, a reward model, an ensemble of several or of its
heads, or any other reward, such as a verifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from truing.errors import UserError
from truing.evaluate import behaviour
from truing.evaluate.exam import Responses, by_head, by_part, judged_rate
from truing.evaluate.trust import Trust, concluded
from truing.records import Finding, Judgement, Messages, Records, Reward, Score, prompt_id
from truing.report.exam_table import PARTS
from truing.rewards import scoring
from truing.rewards.call import Response
from truing.rewards.combine import Parts, counted
from truing.rewards.scoring import DISAGREEMENT, How, Panel
from truing.run.stage_run import StageRun
from truing.stages.loaded_rewards import check_columns, check_rows, columns_of, reward_model, term_of

COEFFICIENT = 0.5
"""The share of the variance that `aggregate: uncertainty` subtracts by default."""
SECONDS = 60.0
"""The timeout of one call of a user's own reward."""
COUNTED = frozenset({"tokens", "completion_ids"})
"""The arguments by which a reward reads a policy's tokens, which a judge does not have."""
WORDS: dict[How, str] = {"mean": "the mean", "worst": "the lowest", "uncertainty": "the mean less the variance"}


@dataclass(frozen=True)
class Judge:
    """A reward that scores responses, and its name in findings. `heads` are those of one reward model that has several,
    `parts` the parts of a score that findings are made of; an ensemble has a `panel` of members, and is made when there
    are responses to put them on one scale by."""

    name: str
    judged_by: str
    reward: Reward | None = None
    heads: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    panel: Panel | None = None
    how: How = "mean"
    coefficient: float = COEFFICIENT
    failures: list[Parts] = field(default_factory=list)
    """The parts that count timeouts and unread answers, one entry a response on which it had either."""

    def settled(self, prompts: Sequence[Messages], texts: Sequence[str]) -> Reward:
        """The reward itself. `texts` are the responses of the model that others are compared with: an ensemble's
        members are put on one scale by their scores of these."""
        if self.panel is not None:
            return scoring.ensemble(self.panel, prompts, texts, self.how, self.coefficient)
        assert self.reward is not None
        return self.reward

    def findings(
        self, contestant: Responses, rival: Responses, prompts: Sequence[Messages], trusts: Mapping[str, Trust]
    ) -> list[Finding]:
        """The judge's findings on one model's responses beside their score: head by head, as far as each is trusted,
        part by part, or how far its members are apart."""
        if self.panel is None:
            findings = [f for part in self.parts for f in by_part(part, contestant, rival, prompts, self.judged_by)]
            for head in self.heads:
                head_findings = by_head(head, contestant, rival, prompts, self.judged_by)
                findings += concluded(head_findings, judged_rate(contestant, rival, prompts, head), trusts[head])
            return findings
        ids, apart = [prompt_id(p) for p in prompts], [[p[DISAGREEMENT] for p in a.parts] for a in (contestant, rival)]
        return [
            behaviour.disagreement(contestant.name, apart[0], ids),
            behaviour.disagreement(rival.name, apart[1], ids),
            behaviour.disagreement_delta(contestant.name, apart[0], rival.name, apart[1], ids),
        ]

    def on_data(self, reward: Reward, records: Records, most: int) -> list[Finding]:
        """Measure how far an ensemble's members are apart on the responses of held-out data, on at most `most` rows."""
        rows = [record for record in records.records[:most] if isinstance(record, Judgement)]
        pairs = [(r.prompt, response[0].content) for r in rows for response in r.responses if len(response) == 1]
        if not pairs:
            return []
        prompts, texts = zip(*pairs, strict=True)
        read = [
            (p, s)
            for p, s in zip(prompts, scoring.judged(reward, prompts, texts, strict=False), strict=True)
            if not s.failed
        ]
        apart = [score.parts[DISAGREEMENT] for _, score in read]
        return [behaviour.disagreement(self.name, apart, [prompt_id(p) for p, _ in read], slice="held-out data")]


def appoint(run: StageRun, judge: Any, aggregate: How | None, coefficient: float | None, records: Records) -> Judge:
    """Return the judge that an evaluate stage names, for responses to the prompts of `records`. UserError for an
    ensemble of one, and for a reward that reads what is not there."""
    if judge == "gold":
        return Judge("gold", "gold", scoring.gold, parts=PARTS)
    if isinstance(judge, Mapping):
        return by_reward(run, judge, records)
    named = judge if isinstance(judge, list) else [judge]
    names = run.labels(named)
    models = {name: reward_model(run, model) for name, model in zip(names, named, strict=True)}
    for label, model in models.items():
        if model.policy.scalars.is_cost:
            raise UserError(
                f"stage {run.name}: '{label}' was fitted to score a cost, lower for the better response, and a judge "
                "scores the better one higher; judge by a reward model"
            )
    first, name = models[names[0]], "+".join(names)
    if len(models) == 1 and aggregate is None:
        heads = first.policy.heads if len(first.policy.heads) > 1 else ()
        return Judge(name, f"reward model {name}", first, heads)
    if len(models) == 1 and len(first.policy.heads) == 1:
        raise UserError(
            f"stage {run.name}: aggregate takes several reward models, or several heads, and {name} has one"
        )
    how = aggregate or "mean"
    whose = f"the heads of reward model {name}" if len(models) == 1 else f"reward models {', '.join(names)}"
    panel = scoring.of_heads(first) if len(models) == 1 else scoring.of_models(models)
    share = COEFFICIENT if coefficient is None else coefficient
    judged_by = f"{WORDS[how]} of {whose}" + (f" (coefficient {share:g})" if how == "uncertainty" else "")
    return Judge(name, judged_by, panel=panel, how=how, coefficient=share)


def by_reward(run: StageRun, judge: Mapping[str, Any], records: Records) -> Judge:
    """Return any reward as the judge: {name: options}. It reads the columns of a prompt's (first) row, and of responses
    the text alone. UserError where it counts their tokens, or a column is missing."""

    def first() -> tuple[Sequence[Messages], Sequence[str]]:
        raise UserError(f"stage {run.name}: several reward models judge as judge: [$one, $two], with aggregate")

    term = term_of(run, dict(judge), first, SECONDS, ())
    for column in COUNTED & set(term.call.function.reads):
        raise UserError(
            f"stage {run.name}: reward '{term.name}' reads {column}, and a judge reads text; give another judge"
        )
    numbered = [(row, columns_of(r)) for row, r in zip(records.rows, records.records, strict=True)]
    check_columns(run, term, numbered)
    check_rows(run, term, numbered)
    rows: dict[Messages, Mapping[str, Any]] = {}
    for record in records.records:
        rows.setdefault(record.prompt, columns_of(record))

    def read(prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]:
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        pairs = zip(prompts, responses, strict=True)
        scores = term.scores(
            [Response(prompt, text, group=places[prompt], row=rows[prompt], whole=True) for prompt, text in pairs]
        )
        failures.extend(filter(None, (counted({term.name: score}) for score in scores)))
        return scores

    failures: list[Parts] = []
    return Judge(term.name, f"reward {term.name}", read, failures=failures)
