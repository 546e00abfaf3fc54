"""The evaluate stage at work: load the contestants, run the exam, report the findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from truing import world
from truing.data import clock
from truing.data.formats.loading import without_tools
from truing.data.rendering.render import Renderer
from truing.data.split import unseen
from truing.data.trees import build_trees
from truing.errors import DataError, UserError
from truing.evaluate.exam import (
    UNMOVED,
    Responses,
    compare,
    drift,
    judged_rate,
    no_kl,
    pair_accuracy,
    respond,
    response_text,
    same_tokens,
    scored,
    truncated,
)
from truing.evaluate.passes import passes
from truing.evaluate.trust import Trust, concluded, uncorrected
from truing.objectives import closed_form
from truing.policy import heads
from truing.policy.load import context_length, load, load_any
from truing.policy.policy import Policy
from truing.recipe.model_labels import LOOKUP, best_of
from truing.recipe.references import Ref
from truing.records import Finding, Messages, Records, Reward
from truing.report.exam_table import table, trained
from truing.rewards import scoring
from truing.rewards.combine import Parts, count_notes
from truing.rollout.best import best_places
from truing.rollout.engine import Sampling, fits
from truing.run.lineage import judging, rewarded, verdict_prints
from truing.run.plan import read_json
from truing.run.stage_run import StageRun
from truing.stages.exam_judge import Judge
from truing.stages.first_look import show_preview
from truing.stages.judge_trial import Better, Trial, models_of
from truing.stages.leaks import not_met

EXAMPLES = 6
CHOSE = "the judge itself chose this best of several responses, and errs most on those it chose; give a trusted judge"


@dataclass(frozen=True)
class Choice:
    """The best of `of` responses to a prompt, chosen by `judge`; `named` is that reward as the recipe names it."""

    of: int
    judge: Judge
    named: Any


@dataclass
class Exam:
    """Contestants and the findings about them; `notes` is what a reader must know beside these, and `judged` before
    them: who judged, and how often that judge is right (its `trial`, before which it judges nothing; `better` judges a
    part too). Policies load once. Each gives `per_prompt` responses to a prompt, which are right if they score
    at least `passing`. With a `choice` the best responses of each are a contestant too. All are compared with each
    model of `against`; the first of these is the reference if there can be only one. `preview` prompts come first."""

    run: StageRun
    models: Sequence[Any]
    against: Sequence[Any]
    sampling: Sampling
    findings: list[Finding] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    per_prompt: int = 1
    passing: float | None = None
    choice: Choice | None = None
    preview: int | None = None
    trial: Trial | None = None
    better: Better | None = None
    trusts: dict[str, Trust] = field(default_factory=dict)
    chose: bool = False  # the judge chose the best of several responses too

    @cached_property
    def names(self) -> list[str]:
        """The names of the models in findings, and last of those they are compared with."""
        return self.run.labels([*self.models, *self.against], taken=(LOOKUP,))

    @property
    def other(self) -> str:
        """The name of the first model that they are compared with."""
        return self.names[len(self.models)]

    @cached_property
    def contestants(self) -> dict[str, Policy]:
        """The models by name, without the first that they are compared with."""
        named = dict(zip(self.names, self.models, strict=False))
        return {n: self.opened(load_any(self.run.model(m))) for n, m in named.items() if n != self.other}

    @cached_property
    def rivals(self) -> dict[str, Policy]:
        """The models they are compared with, by name; one that is a contestant too is loaded once."""
        named = dict(zip(self.names[len(self.models) :], self.against, strict=True))
        return {n: self.contestants.get(n) or self.opened(load(self.run.model(m))) for n, m in named.items()}

    @property
    def rival(self) -> Policy:
        """The first model that they are compared with."""
        return self.rivals[self.other]

    def opened(self, policy: Policy) -> Policy:
        """Note what the user of a policy just loaded has to know of its folder, and return the policy."""
        for text in policy.notes:
            self.note(text)
        return policy

    def note(self, text: str) -> None:
        """Show a note now, and keep it for the report."""
        self.notes.append(text)
        self.run.show.say(f"  {text}")

    def order(self, records: Records) -> None:
        """Measure how often each model orders held-out pairs as the raters did."""
        named = dict(zip(self.names, self.models, strict=False))
        for name, policy in self.contestants.items():
            reference = None if policy.is_reward else self.rival
            if reference is not None and not same_tokens(policy, reference):
                self.note(f"no implicit accuracy of {name} against {self.other}: their tokenizers differ")
                continue
            limit = min(context_length(p) for p in (policy, reference) if p is not None)
            held_out = unseen(records, verdict_prints(self.run, named[name]))
            dataset = build_trees(held_out, heads.renderer(policy), max_length=limit, shape="pairs", ties="half")
            dataset = replace(dataset, notes=(*held_out.notes, *dataset.notes))
            if dataset.notes:
                self.note(f"held-out pairs that {name} ordered: {dataset.text()}")
            self.findings.append(pair_accuracy(name, policy, dataset.trees, reference))

    def answer(self, records: Records, judge: Judge, samples: int, lookup: bool) -> Reward:
        """Let every language model answer the same prompts, and compare each with every rival. Return the reward that
        judged, an ensemble on the scale of the first rival's responses."""
        speakers = {name: policy for name, policy in self.contestants.items() if not policy.is_reward}
        choosing = self._choosing(speakers)
        if not speakers and not choosing and not lookup:
            raise UserError(f"stage {self.run.name}: there is no model to answer beside {self.other} itself")
        answering = self.rivals | speakers
        fresh = self._fresh(records, [*speakers, *choosing, *self.rivals])
        for policy in answering.values():
            self.run.note(clock.note(policy.tokenizer))
        readable = self._readable(distinct_prompts(fresh, samples), answering)
        if self.preview is not None and self.preview < len(readable):
            show_preview(self, readable, speakers, choosing, judge, lookup)
        reward = self.examine(readable, speakers, choosing, judge, lookup)
        self.notes += count_notes(self.failures(judge))
        return reward

    def examine(
        self,
        readable: Sequence[Messages],
        speakers: dict[str, Policy],
        choosing: dict[str, Policy],
        judge: Judge,
        lookup: bool,
    ) -> Reward:
        """Let every model answer these prompts, and compare the responses."""
        answering = self.rivals | speakers
        prompts = [prompt for prompt in readable for _ in range(self.per_prompt)]
        rollouts = respond(self.rival, readable, self.sampling, self.per_prompt)
        reward = judge.settled(prompts, [response_text(self.rival, r) for r in rollouts])
        self._try(judge, reward, [*speakers, *choosing])
        responses = {self.other: scored(self.other, self.rival, prompts, reward, rollouts)}
        for name, policy in answering.items():
            if name == self.other:
                continue
            times = f", {self.per_prompt} times each" if self.per_prompt > 1 else ""
            self.run.show.say(f"  {name} answers {len(readable)} prompts{times}")
            more = respond(policy, readable, self.sampling, self.per_prompt)
            responses[name] = scored(name, policy, prompts, reward, more)
        chosen = [self._best(name, policy, readable, prompts, reward) for name, policy in choosing.items()]
        responses |= {best.name: best for best in chosen}
        prompts, responses = self._scored_by_all(prompts, responses)
        for name in (*speakers, *(best.name for best in chosen)):
            for rival in self.rivals:
                if rival != name:
                    self.findings += self._beside(responses[name], responses[rival], prompts, judge)
            if name in speakers:
                self._drift(responses[name], speakers[name], self.other, prompts)
        if lookup:
            table = look_up(prompts, reward)
            for contestant in responses.values():
                self.findings += self._compared(contestant, table, prompts, judge.judged_by)
        self.findings = list({(f.check, f.model, f.against, f.slice): f for f in self.findings}.values())
        self.examples = side_by_side(prompts, list(responses.values()), self.per_prompt)
        return reward

    def _fresh(self, records: Records, names: Sequence[str]) -> Records:
        """The prompts that neither these models, nor a judge, nor a model that taught one of them learned from."""
        named = dict(zip(self.names, [*self.models, *self.against], strict=True))
        models = {name: named[name] for name in names}
        for called, trial in (("the judge", self.trial), ("the trusted judge", self.better and self.better.trial)):
            models |= {called: judging(trial.named)} if trial else {}
        models |= {"the judge of the best": judging(self.choice.named)} if self.choice else {}
        fresh, lines = not_met(self.run, without_tools(records), models)
        if len(fresh) < len(records):
            self.note(
                f"{len(records) - len(fresh)} of {len(records)} prompts left out: a model here was trained on them"
            )
        for line in lines:
            self.note(line)
        return fresh

    def _drift(self, ours: Responses, policy: Policy, other: str, prompts: Sequence[Messages]) -> None:
        """Measure the KL of a contestant to the rival, or note why there is none."""
        why = no_kl(policy, self.rival, self.sampling)
        if why:
            self.note(f"no KL of {ours.name} to {other}: {why}")
        else:
            self.findings.append(drift(ours, policy, self.rival, other, prompts))

    def _scored_by_all(
        self, prompts: Sequence[Messages], responses: dict[str, Responses]
    ) -> tuple[list[Messages], dict[str, Responses]]:
        """The prompts of which every response could be scored; the others are left out and counted. (A response longer
        than the judge reads has no score.)"""
        gone = {place // self.per_prompt for theirs in responses.values() for place in theirs.unscored}
        places = [i for i in range(len(prompts)) if i // self.per_prompt not in gone]
        if gone:
            why = "a response to them is longer than the judge reads"
            if not places:
                raise UserError(f"stage {self.run.name}: no prompt is left: {why}; lower max_new_tokens")
            self.note(f"{len(gone)} of {len(prompts) // self.per_prompt} prompts left out: {why}")
        return [prompts[i] for i in places], {name: theirs.at(places) for name, theirs in responses.items()}

    def _beside(self, ours: Responses, rival: Responses, prompts: Sequence[Messages], judge: Judge) -> list[Finding]:
        """Compare a contestant with the rival by their responses alone."""
        if ours.texts == rival.texts:
            self.note(f"{ours.name} gave the same responses as {rival.name} to all prompts: {UNMOVED}")
        compared = [*self._compared(ours, rival, prompts, judge.judged_by), truncated(ours, prompts)]
        judged = judge.findings(ours, rival, prompts, self.trusts)
        return [*compared, *judged, *uncorrected(self._passed(ours, rival, judge.judged_by), self.trusts[""])]

    def _compared(
        self, ours: Responses, rival: Responses, prompts: Sequence[Messages], judged_by: str
    ) -> list[Finding]:
        """Win rate and scores of a contestant beside the rival, as far as the judge is trusted."""
        findings = compare(ours, rival, prompts, judged_by)
        powered = self.better.powered(ours, rival, prompts, self.per_prompt) if self.better is not None else None
        if self.better is not None and powered is not None:
            self.findings += self.better.trial.findings
            line = f"On a part of the prompts: {powered.trust.sentence}"
            self.judged += [line] if line not in self.judged else []
        corrected = concluded(findings, judged_rate(ours, rival, prompts), self.trusts[""], powered)
        if powered is None and ours.name in self._chosen:
            return [f if f.reservation else replace(f, reservation=CHOSE) for f in corrected]
        return corrected

    @property
    def _chosen(self) -> set[str]:
        """The contestants whose best responses the judge itself has chosen."""
        return (
            {best_of(name, self.choice.of) for name in self.names} if self.chose and self.choice is not None else set()
        )

    def _try(self, judge: Judge, reward: Reward, names: Sequence[str]) -> None:
        """Try the judge on labelled pairs before it judges, and note which contestants were trained on it."""
        assert self.trial is not None
        self.trusts = self.trial.trusts(reward)
        self.findings += self.trial.findings
        self.judged.append(self.trusts[""].sentence)
        self.run.show.say(f"  {self.judged[0]}")
        if self.trial.exact:
            return
        by = set(models_of(self.trial.named))
        named = dict(zip(self.names, self.models, strict=False))
        for name in dict.fromkeys(names):
            if by & set(models_of(rewarded(self.run, named.get(name)))):
                self.judged.append(
                    f"The judge is the reward that {name} was trained on: it errs for {name} where it can"
                )
        self.chose = self.choice is not None and bool(by & set(models_of(self.choice.named)))
        if self.chose:
            self.judged.append("The judge also chose the best of several responses: it errs for what it chose")

    def _choosing(self, speakers: dict[str, Policy]) -> dict[str, Policy]:
        """The models whose best responses are contestants: all of `models` that answer, the rival too if it is one."""
        if self.choice is None:
            return {}
        policies = {self.other: self.rival} | speakers
        return {name: policies[name] for name in self.names[: len(self.models)] if name in policies}

    def _best(
        self, name: str, policy: Policy, readable: Sequence[Messages], prompts: Sequence[Messages], reward: Reward
    ) -> Responses:
        """The best of several responses of a model to every one of `prompts` (`readable`, each `per_prompt` times)."""
        assert self.choice is not None
        n, called = self.choice.of, best_of(name, self.choice.of)
        self.run.show.say(f"  {called} answers {len(readable)} prompts")
        rollouts = respond(policy, readable, self.sampling, n * self.per_prompt)
        repeated, texts = [p for p in prompts for _ in range(n)], [response_text(policy, r) for r in rollouts]
        scores = scoring.scores(self.choice.judge.settled(repeated, texts), repeated, texts, strict=False)
        chosen_by, limit = self.choice.judge.judged_by, closed_form.best_of_bound(n)
        self.note(f"{called}, by {chosen_by}: at most {limit:.2f} nats of KL from {name} as it samples")
        places = best_places([-math.inf if math.isnan(value) else value for value in scores], n)
        best = scored(called, policy, prompts, reward, [rollouts[i] for i in places])
        unread = [math.nan if math.isnan(scores[i]) else value for i, value in zip(places, best.values, strict=True)]
        return replace(best, values=tuple(unread))

    def _passed(self, ours: Responses, other: Responses, judged_by: str) -> list[Finding]:
        """Measure pass@k of both, if `passing` says which responses are right."""
        if self.passing is None:
            return []
        return passes(ours.name, ours.values, other.name, other.values, self.per_prompt, self.passing, judged_by)

    def disagree(self, records: Records | None, judge: Judge, reward: Reward, named: Any, samples: int) -> None:
        """Measure how far the members of an ensemble are apart on held-out data, if there are any: the baseline for
        their disagreement on responses."""
        if records is not None and judge.panel is not None:
            self.findings += judge.on_data(reward, unseen(records, verdict_prints(self.run, judging(named))), samples)

    def failures(self, judge: Judge) -> list[Parts]:
        """The parts that count timeouts and unread answers, one entry a response on which a reward had either."""
        return [*judge.failures, *(self.choice.judge.failures if self.choice is not None else ())]

    def _readable(self, prompts: Sequence[Messages], speakers: dict[str, Policy]) -> list[Messages]:
        """The prompts that every model can read with room for its response; those left out are noted."""
        readers = [(policy, Renderer(policy.tokenizer)) for policy in speakers.values()]
        left, refused = [], []
        for number, prompt in enumerate(prompts, start=1):
            try:
                if all(fits(policy, reader.prompt_ids(prompt), self.sampling) for policy, reader in readers):
                    left.append(prompt)
            except DataError as error:
                refused.append(f"prompt {number}, {error.place}: {error.problem}")
        most, room = min(map(context_length, speakers.values())), self.sampling.max_new_tokens
        beyond = len(prompts) - len(left) - len(refused)
        whys = [(beyond, f"with max_new_tokens {room} they are beyond the {most} tokens that a model here reads")]
        whys.append((len(refused), f"they cannot be written as a prompt ({'; '.join(refused[:3])})"))
        if not left:
            why = "; ".join(why for count, why in whys if count)
            raise UserError(f"stage {self.run.name}: no prompt is left to answer: {why}")
        for count, why in whys:
            if count:
                self.note(f"{count} of {len(prompts)} prompts left out: {why}")
        return left

    def headline(self) -> str:
        """The win rates in one sentence."""
        rates = [f for f in self.findings if f.check == "win_rate" and f.slice == "all"]
        return "; ".join(f"{f.model} over {f.against}: win rate {_percent(f)}" for f in rates)

    def summary(self) -> dict[str, Any]:
        """The exam's summary for a report and a terminal."""
        notes = list(dict.fromkeys([*self.run.accounts, *self.notes]))
        shown = self.table().split("\n")
        return {"do": "evaluate", "headline": self.headline(), "judged": self.judged, "notes": notes, "shown": shown}

    def table(self) -> str:
        """The findings, for a terminal, and how long each model of this recipe was trained."""
        seconds = {}
        for name, model in zip(self.names, self.models, strict=False):
            if isinstance(model, Ref):
                seconds[name] = trained(read_json(self.run.root / model.stage / "summary.json"))
        return table(self.findings, seconds)


def _percent(f: Finding) -> str:
    spread = f" [{100 * f.interval[0]:.0f}, {100 * f.interval[1]:.0f}]" if f.interval else ""
    doubt = f" as judged, and nothing is concluded: {f.reservation}" if f.reservation else ""
    return f"{100 * f.value:.0f} %{spread} on {f.n} prompts, ties half{doubt}"


def distinct_prompts(records: Records, samples: int) -> list[Messages]:
    """The first `samples` different prompts of a data set, in its order."""
    distinct = dict.fromkeys(r.prompt for r in records.records)
    return list(distinct)[:samples]


def look_up(prompts: Sequence[Messages], reward: Reward) -> Responses:
    """The world's template look-up as a contestant: the best response in training to prompts of this template."""
    table = world.lookup(world.cases(3000, seed=0, split="train"))
    texts = tuple(table(prompt) for prompt in prompts)
    return Responses(LOOKUP, texts, tuple(scoring.scores(reward, prompts, texts)))


def side_by_side(prompts: Sequence[Messages], sides: Sequence[Responses], per_prompt: int = 1) -> list[dict[str, Any]]:
    """A few prompts with each model's first response, for the report. Each prompt comes `per_prompt` times."""
    return [
        {
            "prompt": "\n".join(f"{m.role}: {m.content}" for m in prompt),
            "responses": {a.name: {"text": a.texts[i], "score": round(a.values[i], 3)} for a in sides},
        }
        for i, prompt in list(enumerate(prompts))[: EXAMPLES * per_prompt : per_prompt]
    ]
