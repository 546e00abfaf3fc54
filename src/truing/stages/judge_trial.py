"""The trial of an exam's judge: its accuracy on labelled pairs that it did not learn from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from truing.data.shapes import Shaped, shaped
from truing.data.split import unseen
from truing.errors import DataError, UserError
from truing.evaluate import reward_model
from truing.evaluate.corrected import mean_of, points_of, powered_rate
from truing.evaluate.exam import Responses
from truing.evaluate.trust import LEAST, WORDS, Origin, Powered, Tried, Trust
from truing.recipe.references import Ref
from truing.recipe.reward_spec import GOLD
from truing.records import Finding, Messages, Records, Reward, Score, prompt_id
from truing.rewards.scoring import judged
from truing.run.lineage import judging, verdict_prints, verdicts
from truing.run.stage_run import StageRun
from truing.stages.exam_judge import Judge, appoint, by_reward
from truing.streams import Stream, generator

PAIRS = 2000
"""The most labelled pairs of one source on which a judge is tried."""
EXACT = frozenset({"verifier", "program"})
"""Rewards that compare an answer with its row's right one, and are taken to make no errors."""
CHECK = "judge_accuracy"
NOTHING_LABELLED = "give labelled: (pairs that it did not learn from), or exact: true where it cannot err"


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt, the better first, as raters labelled them; or a tie."""

    prompt: Messages
    better: str
    worse: str
    tie: bool


@dataclass(frozen=True)
class Source:
    """Labelled data, and whether it is of the judge's own training source. `reading` is the judge as it reads the
    columns of these rows, if it is a reward that reads columns; else the judge of the responses reads them too."""

    records: Records
    origin: Origin
    reading: Reward | None = None


@dataclass
class Trial:
    """The labelled pairs, by source, on which a judge is tried; it learned from none of their prompts. `named` is the
    judge as the recipe names it."""

    run: StageRun
    judge: Judge
    named: Any
    sources: Sequence[Source] = ()
    least: float = LEAST
    exact: bool = False
    why: str = NOTHING_LABELLED
    findings: list[Finding] = field(default_factory=list)

    def trusts(self, reward: Reward) -> dict[str, Trust]:
        """Return the trust in the judge, under an empty name, and in each of its heads; its accuracies go into
        `findings`. `reward` is the judge as it scores the responses."""
        tried: dict[str, list[Tried]] = {head: [] for head in ("", *self.judge.heads)}
        for source in self.sources:
            for head, outcome in self._tried(source.reading or reward, source.records, source.origin).items():
                tried[head].append(outcome)
                self.findings.append(outcome.finding)
        whose = {head: f"{self.judge.judged_by}{f', head {head}' if head else ''}" for head in tried}
        return {
            head: Trust(whose[head], tuple(outcomes), self.least, self.exact, self.why)
            for head, outcomes in tried.items()
        }

    def _tried(self, reward: Reward, records: Records, origin: Origin) -> dict[str, Tried]:
        """The accuracy of the judge and of its heads on one source."""
        pairs, left_out = pairs_of(records)
        decided = [pair for pair in pairs if not pair.tie][:PAIRS]
        if not decided:
            raise DataError(records.name, "holds no pair that a judge could be tried on: nothing but ties", "")
        prompts = [pair.prompt for pair in decided for _ in range(2)]
        texts = [text for pair in decided for text in (pair.better, pair.worse)]
        scores = judged(reward, prompts, texts, strict=False)
        rows = [(decided[i], scores[2 * i], scores[2 * i + 1]) for i in range(len(decided))]
        read = [row for row in rows if not (row[1].failed or row[2].failed)]
        if not read:
            raise DataError(records.name, "the judge can read no pair of it: all are longer than it reads", "")
        left_out |= {"longer than the judge reads": len(rows) - len(read)}
        source, within = source_of(records.name), getattr(reward, "tie_tolerance", 0.0)
        ties = sum(pair.tie for pair in pairs)
        self._account(source, len(pairs) - ties - len(decided), left_out)
        return {head: self._accuracy(head, read, source, origin, ties, within) for head in ("", *self.judge.heads)}

    def _accuracy(
        self,
        head: str,
        rows: Sequence[tuple[Pair, Score, Score]],
        source: str,
        origin: Origin,
        ties: int,
        within: float,
    ) -> Tried:
        better, worse = (
            [s.parts[head] if head else s.value for s in side] for side in list(zip(*rows, strict=True))[1:]
        )
        prompts = [prompt_id(pair.prompt) for pair, _, _ in rows]
        several = [source] if len(self.sources) > 1 else []
        slice_ = ", ".join([*([head] if head else []), *several]) or "all"
        finding = reward_model.accuracy(
            self.judge.name, better, worse, prompts, CHECK, slice=slice_, ties_left_out=ties, within=within
        )
        finding = replace(finding, evidence=f"{finding.evidence}; {source}, {WORDS[origin]}")
        return Tried(source, origin, finding, mean_of(points_of(better, worse, within), prompts))

    def _account(self, source: str, beyond: int, left_out: Mapping[str, int]) -> None:
        """Note the labelled pairs on which the judge was not tried."""
        if beyond:
            self.run.note(
                f"the judge was tried on the first {PAIRS:,} labelled pairs of {source}; {beyond:,} more are there"
            )
        for why, count in left_out.items():
            if count:
                self.run.note(
                    f"{count} labelled pair{'s' * (count > 1)} of {source} left out of the judge's trial: {why}"
                )


@dataclass(frozen=True)
class Trying:
    """The options of an exam about its judges: `labelled` pairs and its own `data` to try them on, the least accuracy,
    `exact` for a judge without errors, and a better judge (`trusted`) of `samples` prompts."""

    labelled: Any
    data: Records | None
    least: float
    exact: bool
    trusted: Any
    samples: int

    def of(self, run: StageRun, judge: Judge, named: Any, records: Records) -> tuple[Trial, Better | None]:
        """The trial of the judge, and the better judge of a part of the prompts of `records`, if there is one."""
        labelled = run.records(self.labelled) if self.labelled is not None else None
        first = prepare(run, judge, named, labelled, self.data, self.least, self.exact)
        if self.trusted is None:
            return first, None
        second = appoint(run, self.trusted, None, None, records)
        return first, Better(prepare(run, second, self.trusted, labelled, self.data, self.least), self.samples)


def prepare(
    run: StageRun,
    judge: Judge,
    named: Any,
    labelled: Records | None,
    data: Records | None,
    least: float,
    exact: bool = False,
) -> Trial:
    """Return the trial of a judge: on `labelled` pairs and on the stage's own `data`, less the rows that begin as one
    that the judge learned from. UserError where `labelled` cannot be used, or nothing of it is left; if `data` cannot
    be used, the trial holds the reason."""
    if exact and models_of(named):
        raise UserError(
            f"stage {run.name}: exact: true says that the judge makes no errors, and a reward model makes some; give "
            "labelled: (pairs that it did not learn from) instead"
        )
    if exact or named == GOLD or (isinstance(named, Mapping) and next(iter(named)) in EXACT):
        return Trial(run, judge, named, exact=True)
    taught, sources, why = verdicts(run, models_of(named)), [], NOTHING_LABELLED
    training_sources, learned = {source_of(r.name) for r in taught}, verdict_prints(run, judging(named))
    traceable = all(isinstance(model, Ref) for model in models_of(named)) and training_sources
    for records in {r.digest: r for r in (data, labelled) if r is not None}.values():
        try:
            fresh = unseen(records, learned)
            reading = by_reward(run, named, fresh).reward if isinstance(named, Mapping) else None
        except UserError as problem:
            if labelled is not None and records.digest == labelled.digest:
                raise UserError(f"stage {run.name}: the judge cannot be tried on 'labelled': {problem}") from problem
            why = f"{str(problem).splitlines()[0]}; {NOTHING_LABELLED}"
            continue
        if gone := len(records) - len(fresh):
            run.note(f"{gone} of {len(records)} labelled rows of {records.name} left out: the judge learned from them")
        same_source = source_of(records.name) in training_sources
        origin: Origin = "unknown" if not traceable else "own" if same_source else "other"
        sources.append(Source(fresh, origin, reading))
    return Trial(run, judge, named, sources, least, why=why)


@dataclass
class Better:
    """A second, better judge of a part of the prompts: `samples` of them, drawn at random."""

    trial: Trial
    samples: int
    _met: dict[str, tuple[Reward, Trust, list[float]]] = field(default_factory=dict, repr=False)

    def powered(self, contestant: Responses, rival: Responses, prompts: Sequence[Messages], per_prompt: int) -> Powered:
        """The win rate of a contestant by both judges; every prompt is repeated `per_prompt` times in a row."""
        count = len(prompts) // per_prompt
        draws = generator(Stream.BETTER_JUDGE, self.trial.run.seed)
        part = sorted(draws.permutation(count)[: self.samples].tolist())
        places = [i for prompt in part for i in range(prompt * per_prompt, (prompt + 1) * per_prompt)]
        chosen = [prompts[i] for i in places]
        reward, trust, theirs = self._of_rival(rival.at(places), chosen)
        ours = values_of(reward, chosen, contestant.at(places).texts)
        lost = {i // per_prompt for i, pair in enumerate(zip(ours, theirs, strict=True)) if any(map(math.isnan, pair))}
        read = [i for i in range(len(part)) if i not in lost]
        judge = self.trial.judge.judged_by
        if lost:
            self.trial.run.note(
                f"responses to {len(lost)} prompts are longer than {judge} reads, and left out of its part"
            )
        if len(read) < 2:
            raise UserError(f"{judge} can read the responses to {len(read)} prompts; give more trusted_samples")
        within = getattr(reward, "tie_tolerance", 0.0)
        ours, theirs = ([v for i, v in enumerate(side) if i // per_prompt not in lost] for side in (ours, theirs))
        truth = by_prompt(points_of(ours, theirs, within), per_prompt, range(len(read)))
        points = points_of(contestant.values, rival.values, max(contestant.within, rival.within))
        judged_part = by_prompt(points, per_prompt, [part[i] for i in read])
        rest = by_prompt(points, per_prompt, sorted(set(range(count)) - set(part)))
        rate, weight = powered_rate(truth, judged_part, rest) if len(rest) > 1 else (mean_of(truth), 0.0)
        return Powered(rate, weight, trust)

    def _of_rival(self, rival: Responses, prompts: Sequence[Messages]) -> tuple[Reward, Trust, list[float]]:
        """The judge's reward, the trust in it, and its scores of the rival's responses; computed once."""
        if rival.name not in self._met:
            reward = self.trial.judge.settled(prompts, rival.texts)
            earlier = next((trust for _, trust, _ in self._met.values()), None)
            trust = self.trial.trusts(reward)[""] if earlier is None else earlier
            self._met[rival.name] = reward, trust, values_of(reward, prompts, rival.texts)
        return self._met[rival.name]


def values_of(reward: Reward, prompts: Sequence[Messages], texts: Sequence[str]) -> list[float]:
    """The scores of responses; NaN where one is longer than can be read."""
    return [math.nan if s.failed else s.value for s in judged(reward, prompts, texts, strict=False)]


def per(values: Sequence[float], prompt: int, per_prompt: int) -> Sequence[float]:
    """The values of one prompt's responses."""
    return values[prompt * per_prompt : (prompt + 1) * per_prompt]


def by_prompt(points: Sequence[float], per_prompt: int, prompts: Sequence[int]) -> list[float]:
    """The mean point of each of these prompts."""
    return [math.fsum(per(points, prompt, per_prompt)) / per_prompt for prompt in prompts]


def pairs_of(records: Records) -> tuple[list[Pair], dict[str, int]]:
    """Return every two responses of which a data set calls one better, or both level; and how many could not be used,
    by reason. DataError, with the row, where rows hold nothing to compare."""
    pairs, several = [], 0
    for row, record in zip(records.rows, records.records, strict=True):
        try:
            form = shaped(record, "pairs", "half")
        except DataError as error:
            place = f"{records.name}, row {row}"
            raise DataError(place, f"a judge is tried on pairs: {error.problem}", error.way_out) from error
        for better, worse, tie in compared(form):
            if len(better) == 1 == len(worse):
                pairs.append(Pair(record.prompt, better[0].content, worse[0].content, tie))
            else:
                several += 1
    return pairs, {"a response of several turns": several}


def compared(form: Shaped) -> Iterator[tuple[Messages, Messages, bool]]:
    """The pairs of a record in the shape of pairs: the better, the worse, and True if they are level."""
    if not form.comparisons:
        yield form.sides[0].response, form.sides[1].response, form.values.get("preference_B") == 0.5
    for pair in form.comparisons:
        yield form.sides[pair.better].response, form.sides[pair.worse].response, pair.values.get("preference_B") == 0.5


def models_of(named: Any) -> list[Any]:
    """The models in what a recipe calls a judge or a reward, however deep: stages, folders and Hub names."""
    if isinstance(named, Ref):
        return [named]
    if isinstance(named, Mapping):
        under = [value for key, value in named.items() if key in ("model", "models")]
        return [m for value in under for m in models_of(value)] + [
            m
            for key, value in named.items()
            if key not in ("model", "models") and not isinstance(value, str)
            for m in models_of(value)
        ]
    if isinstance(named, list | tuple):
        return [m for value in named for m in models_of(value)]
    return [named] if isinstance(named, str) else []


def source_of(name: str) -> str:
    """The source that a data set is of: a file, or the world's data of one kind, whichever part of it.

    >>> source_of("pairs.jsonl (train)"), source_of("world:comparisons?n=400&split=eval")
    ('pairs.jsonl', 'world:comparisons')
    """
    return re.sub(r" \((?:train|eval)\)$", "", name).partition("?")[0]
