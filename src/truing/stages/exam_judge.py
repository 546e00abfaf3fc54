"""Who scores the answers of an exam: the world's truth, a reward model, an ensemble of several or of its heads, or any
other reward, such as a verifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from truing.errors import UserError
from truing.evaluate import behaviour
from truing.evaluate.exam import Answers, by_head, by_part, judged_rate
from truing.evaluate.trust import Trust, concluded
from truing.report.exam_table import PARTS
from truing.rewards import scoring
from truing.rewards.call import Answer
from truing.rewards.combine import Parts, counted
from truing.rewards.scoring import DISAGREEMENT, How, Panel
from truing.run.stage_run import StageRun
from truing.stages.loaded_rewards import check_columns, check_rows, columns_of, reward_model, term_of
from truing.types import Finding, Judgement, Messages, Records, Reward, Score, prompt_id

COEFFICIENT = 0.5
"""How much of the variance `aggregate: uncertainty` takes off, unless told otherwise."""
SECONDS = 60.0
"""What one call of a user's own reward may take."""
COUNTED = frozenset({"tokens", "completion_ids"})
"""What a reward may read of a policy's tokens, and a judge does not know."""
WORDS: dict[How, str] = {"mean": "the mean", "worst": "the lowest", "uncertainty": "the mean less the variance"}


@dataclass(frozen=True)
class Judge:
    """What scores answers, and what it is called in findings. `heads` are those of one reward model that has several,
    `told` the parts of a score that findings are made of; an ensemble has a `panel` of members, and is made when there
    are answers to put them on one scale by."""

    name: str
    judged_by: str
    reward: Reward | None = None
    heads: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    panel: Panel | None = None
    how: How = "mean"
    coefficient: float = COEFFICIENT
    hung: list[Parts] = field(default_factory=list)
    """Of each answer that hung it, or that it could not read, the part that says so."""

    def settled(self, prompts: Sequence[Messages], texts: Sequence[str]) -> Reward:
        """The reward itself. `texts` are the answers of the model that others are held against: an ensemble's members
        are put on one scale by what they say of these."""
        if self.panel is not None:
            return scoring.ensemble(self.panel, prompts, texts, self.how, self.coefficient)
        assert self.reward is not None
        return self.reward

    def findings(
        self, one: Answers, rival: Answers, prompts: Sequence[Messages], trusts: Mapping[str, Trust]
    ) -> list[Finding]:
        """What it says of one model's answers beside their score: head by head, as far as each is trusted, part by
        part, or how far its members are apart."""
        if self.panel is None:
            found = [f for part in self.told for f in by_part(part, one, rival, prompts, self.judged_by)]
            for head in self.heads:
                said = by_head(head, one, rival, prompts, self.judged_by)
                found += concluded(said, judged_rate(one, rival, prompts, head), trusts[head])
            return found
        ids, apart = [prompt_id(p) for p in prompts], [[p[DISAGREEMENT] for p in a.parts] for a in (one, rival)]
        return [
            behaviour.disagreement(one.name, apart[0], ids),
            behaviour.disagreement(rival.name, apart[1], ids),
            behaviour.disagreement_delta(one.name, apart[0], rival.name, apart[1], ids),
        ]

    def on_data(self, reward: Reward, records: Records, most: int) -> list[Finding]:
        """How far an ensemble's members are apart on the responses of held-out data, of at most so many rows."""
        rows = [record for record in records.records[:most] if isinstance(record, Judgement)]
        said = [(r.prompt, response[0].content) for r in rows for response in r.responses if len(response) == 1]
        if not said:
            return []
        prompts, texts = zip(*said, strict=True)
        read = [
            (p, s)
            for p, s in zip(prompts, scoring.judged(reward, prompts, texts, strict=False), strict=True)
            if not s.failed
        ]
        apart = [score.parts[DISAGREEMENT] for _, score in read]
        return [behaviour.disagreement(self.name, apart, [prompt_id(p) for p, _ in read], slice="held-out data")]


def appoint(run: StageRun, judge: Any, aggregate: How | None, coefficient: float | None, asked: Records) -> Judge:
    """The judge that an evaluate stage names, of answers to the prompts `asked`. UserError for an ensemble of one, and
    for a reward that reads what is not there."""
    if judge == "gold":
        return Judge("gold", "gold", scoring.gold, told=PARTS)
    if isinstance(judge, Mapping):
        return by_reward(run, judge, asked)
    named = judge if isinstance(judge, list) else [judge]
    names = run.labels(named)
    models = {name: reward_model(run, model) for name, model in zip(names, named, strict=True)}
    for label, model in models.items():
        if model.policy.scalars.is_cost:
            raise UserError(
                f"stage {run.name}: '{label}' was fitted to say a cost, lower for the better response, and a judge "
                "says more of the better one; judge by a reward model"
            )
    one, name = models[names[0]], "+".join(names)
    if len(models) == 1 and aggregate is None:
        heads = one.policy.heads if len(one.policy.heads) > 1 else ()
        return Judge(name, f"reward model {name}", one, heads)
    if len(models) == 1 and len(one.policy.heads) == 1:
        raise UserError(
            f"stage {run.name}: aggregate takes several reward models, or several heads, and {name} has one"
        )
    how = aggregate or "mean"
    whose = f"the heads of reward model {name}" if len(models) == 1 else f"reward models {', '.join(names)}"
    panel = scoring.of_heads(one) if len(models) == 1 else scoring.of_models(models)
    given = COEFFICIENT if coefficient is None else coefficient
    told = f"{WORDS[how]} of {whose}" + (f" (coefficient {given:g})" if how == "uncertainty" else "")
    return Judge(name, told, panel=panel, how=how, coefficient=given)


def by_reward(run: StageRun, judge: Mapping[str, Any], asked: Records) -> Judge:
    """Any reward as the judge: {name: options}. It reads the columns of a prompt's (first) row, and of answers the text
    alone. UserError where it counts their tokens, or a column is missing."""

    def first() -> tuple[Sequence[Messages], Sequence[str]]:
        raise UserError(f"stage {run.name}: several reward models judge as judge: [$one, $two], with aggregate")

    term = term_of(run, dict(judge), first, SECONDS, ())
    for column in COUNTED & set(term.call.function.reads):
        raise UserError(
            f"stage {run.name}: reward '{term.name}' reads {column}, and a judge reads text; give another judge"
        )
    numbered = [(row, columns_of(r)) for row, r in zip(asked.rows, asked.records, strict=True)]
    check_columns(run, term, numbered)
    check_rows(run, term, numbered)
    rows: dict[Messages, Mapping[str, Any]] = {}
    for record in asked.records:
        rows.setdefault(record.prompt, columns_of(record))

    def read(prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]:
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        said = zip(prompts, responses, strict=True)
        found = term.scores(
            [Answer(prompt, text, group=places[prompt], row=rows[prompt], whole=True) for prompt, text in said]
        )
        hung.extend(filter(None, (counted({term.name: score}) for score in found)))
        return found

    hung: list[Parts] = []
    return Judge(term.name, f"reward {term.name}", read, hung=hung)
