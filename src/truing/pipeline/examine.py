"""The evaluate stage at work: loads the contestants, sets the exam, and tells what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from truing import world
from truing.data.render import Renderer
from truing.data.trees import plant
from truing.errors import UserError
from truing.evaluate.exam import Answers, answer, compare, drift, pair_accuracy
from truing.pipeline.context import StageRun
from truing.pipeline.recipe import Ref
from truing.policy.load import load
from truing.policy.policy import Policy
from truing.rollout import rewards
from truing.rollout.engine import Sampling
from truing.types import Finding, Messages, Records, Reward

EXAMPLES = 6
MAX_LENGTH = 2048


@dataclass
class Exam:
    """Contestants and what was found of them. Policies are loaded once."""

    run: StageRun
    models: Sequence[Any]
    against: Any
    sampling: Sampling
    findings: list[Finding] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def contestants(self) -> dict[str, Policy]:
        """The models by name, without the one they are held against."""
        other = self.run.label(self.against)
        named = {self.run.label(m): m for m in self.models}
        return {name: self._load(m) for name, m in named.items() if name != other}

    @cached_property
    def rival(self) -> Policy:
        """The model they are held against."""
        return self._load(self.against)

    def _load(self, value: Any) -> Policy:
        reward = isinstance(value, Ref) and self.run.gives(value.stage) == "reward"
        return load(self.run.model(value), "reward" if reward else "causal")

    def order(self, records: Records) -> None:
        """How often each model orders held-out pairs as the raters did."""
        for name, policy in self.contestants.items():
            planted = plant(records, Renderer(policy.tokenizer), max_length=MAX_LENGTH, shape="pairs")
            reference = None if policy.is_reward else self.rival
            self.findings.append(pair_accuracy(name, policy, planted.trees, reference))

    def answer(self, records: Records, judge: Any, samples: int, lookup: bool) -> None:
        """Every language model answers the same prompts; each is compared with the rival."""
        prompts = distinct_prompts(records, samples)
        other, reward, judged_by = self.run.label(self.against), *self._judge(judge)
        rival = answer(other, self.rival, prompts, reward, self.sampling)
        given = {other: rival}
        for name, policy in self.contestants.items():
            if policy.is_reward:
                continue
            self.run.show.say(f"  {name} answers {len(prompts)} prompts")
            given[name] = answer(name, policy, prompts, reward, self.sampling)
            self.findings += compare(given[name], rival, prompts, judged_by)
            self.findings += drift(given[name], policy, self.rival, other, prompts)
        if lookup:
            table = look_up(prompts, reward)
            for answers in given.values():
                self.findings += compare(answers, table, prompts, judged_by)
        self.findings = list({(f.check, f.model, f.against): f for f in self.findings}.values())
        self.examples = side_by_side(prompts, list(given.values()))

    def _judge(self, judge: Any) -> tuple[Reward, str]:
        if judge == "gold":
            return rewards.gold, "gold"
        policy = load(self.run.model(judge), "reward")
        if not policy.is_reward:
            raise UserError(f"stage {self.run.name}: judge must be gold or a reward model")
        return rewards.RewardModel(policy), f"reward model {self.run.label(judge)}"

    def headline(self) -> str:
        """The win rates in one sentence."""
        rates = [f for f in self.findings if f.check == "win_rate"]
        return "; ".join(f"{f.model} over {f.against}: {_percent(f)}" for f in rates)

    def table(self) -> str:
        """What was found, as lines for a terminal."""
        width = max(len(f.check) for f in self.findings)
        names = max(len(_who(f)) for f in self.findings)
        lines = []
        for f in self.findings:
            interval = f"[{f.interval[0]:8.3f}, {f.interval[1]:8.3f}]" if f.interval else " " * 20
            lines.append(f"  {_who(f):{names}}  {f.check:{width}}  {f.value:8.3f}  {interval}  {f.verdict}")
        return "\n".join(lines)


def _who(f: Finding) -> str:
    return f"{f.model} over {f.against}" if f.against else f.model


def _percent(f: Finding) -> str:
    low, high = f.interval or (f.value, f.value)
    return f"{100 * f.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of {f.n} prompts"


def distinct_prompts(records: Records, samples: int) -> list[Messages]:
    """The first `samples` different prompts of a data set, in its order."""
    seen = dict.fromkeys(r.prompt for r in records.records)
    return list(seen)[:samples]


def look_up(prompts: Sequence[Messages], reward: Reward) -> Answers:
    """The world's template look-up as a contestant: the best answer in training to prompts of this template."""
    table = world.lookup(world.cases(3000, seed=0, split="train"))
    texts = tuple(table(prompt) for prompt in prompts)
    return Answers("lookup", texts, tuple(rewards.scores(reward, prompts, texts)))


def side_by_side(prompts: Sequence[Messages], given: Sequence[Answers]) -> list[dict[str, Any]]:
    """A few prompts with what each model said, for the report."""
    return [
        {
            "prompt": "\n".join(f"{m.role}: {m.content}" for m in prompt),
            "responses": {a.name: {"text": a.texts[i], "score": round(a.values[i], 3)} for a in given},
        }
        for i, prompt in enumerate(prompts[:EXAMPLES])
    ]
