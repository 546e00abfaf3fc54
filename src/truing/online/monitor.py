"""Evaluation during training: the policy responds to held-out prompts, and the training reward, other rewards and the
KL to the reference are measured. Prompts and draws are the same each time, so that only the policy differs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from truing import door
from truing.data.batch import Batch, Branch, Tree, pack
from truing.disk import appending, as_json, write_exact
from truing.errors import RunFailed
from truing.online.generation import GenerationClient, Judged, Prompt, apart
from truing.online.history import Moments, moments
from truing.policy.divided import forward
from truing.policy.policy import Policy
from truing.records import Rollout, Sampling, Score
from truing.rewards.call import SILENT, Response
from truing.rewards.combine import UNREAD, Parts, Rewards, shown
from truing.settings import Monitoring
from truing.train.distributed import process_group
from truing.train.record.checkpoint import room
from truing.train.record.snapshots import WeightSnapshots

TAKEN = ("step", "tokens", "kl", "proxy", "length", "prompts", "failed", "each")
"""Keys of a line of monitor.jsonl that rewards cannot have: a monitored reward of such a name is `reward_length`
there."""


class MonitorLog:
    """The evaluations of one stage, in `path`: a JSON object a line. Rank 0 scores and writes, for all.

    `prompts` are asked at every evaluation, `rewards` are the monitored ones; `say` tells a person.
    """

    def __init__(
        self,
        path: Path,
        prompts: Sequence[Prompt],
        rewards: Rewards,
        options: Monitoring,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path, self.prompts, self.rewards, self.options, self.say = path, tuple(prompts), rewards, options, say
        self.rows: list[dict[str, Any]] = []
        self.names = [f"reward_{t.name}" if t.name in TAKEN else t.name for t in rewards.terms]

    def begin(self, step: int) -> None:
        """Go on from update `step`: evaluations of later ones will be done again."""

        def cut() -> str:
            lines = door.read_log(self.path) if self.path.exists() else []
            rows = [(line, row) for line, row in lines if row["step"] <= step]
            with room(self.path):
                write_exact(self.path, "".join(line + "\n" for line, _ in rows))
            return json.dumps([row for _, row in rows])

        self.rows = json.loads(process_group.lead(cut))

    def due(self, step: int, steps: int) -> bool:
        """True if an evaluation is due after this update, of so many: at every multiple of `monitor_every`, or the next
        update that there is, since rounds that teach nothing have none."""
        every = self.options.monitor_every
        return step // every > self.rows[-1]["step"] // every or step == steps

    def evaluate(
        self,
        step: int,
        tokens: int,
        responses: Sequence[Response],
        ratio_to_reference: Sequence[float],
        proxy: Rewards,
        before: Sequence[Parts],
    ) -> None:
        """Score and record the policy's responses after update `step`, one a prompt.

        `ratio_to_reference` is the summed log-ratio of each (nats), `tokens` what was sampled to learn from so far,
        `proxy` the training reward, whose costs follow from `before`. RunFailed where a reward fails on a response and
        failures end the run, or where the distance to the reference is no number.
        """
        if not all(map(math.isfinite, ratio_to_reference)):
            raise RunFailed(
                f"step {step}: the KL to the reference is not finite on the monitored prompts; lower learning_rate, or "
                "raise beta"
            )

        def work() -> str:
            lengths = [float(len(response.ids)) for response in responses]
            row: dict[str, Any] = {"step": step, "tokens": tokens, "prompts": len(responses)}
            row |= mean_and_error("kl", moments(ratio_to_reference)) | mean_and_error("length", moments(lengths))
            row |= self.scored(proxy, responses, before)
            row["each"] |= {"kl": list(ratio_to_reference), "length": lengths}
            with room(self.path), appending(self.path) as file:
                file.write(as_json(row, self.path.name) + "\n")
            return json.dumps(row)

        self.rows.append(json.loads(process_group.lead(work)))
        self.say(line_of(self.rows[-1], self.names))

    def scored(self, proxy: Rewards, responses: Sequence[Response], before: Sequence[Parts]) -> dict[str, Any]:
        """The means of the training reward and of the monitored ones. A failure is left out and counted, or, where it
        was not the response's own doing, ends the run, as in training. Where rewards go one before the other there is
        no sum: the mean of the first stands for it. `each` has the score of every prompt's response, or null."""
        alone = proxy.combine == "lexicographic"
        results = {"proxy": proxy.terms[0].scores(responses) if alone else proxy(responses, before)}
        results |= {name: term.scores(responses) for name, term in zip(self.names, self.rewards.terms, strict=True)}
        row: dict[str, Any] = {}
        for name, scores in results.items():
            failed = next((i for i, s in enumerate(scores) if failure(s) and s.blame == "reward"), None)
            if failed is not None and proxy.on_error == "stop":
                raise RunFailed(
                    f"monitored reward '{name}': {scores[failed].why}. The response was: "
                    f"{shown(responses[failed].response)}\n"
                    "  Mend the reward, or leave such responses out, counted, by on_error: drop."
                )
            values = [score.value for score in scores if not score.failed]
            row |= mean_and_error(name, moments(values)) | (
                {f"{name}_n": len(values)} if len(values) < len(scores) else {}
            )
            row |= {f"unread_{name}": count for count in [sum(map(unread, scores))] if count}
        row["failed"] = sum(any(map(failure, response)) for response in zip(*results.values(), strict=True))
        each = {name: [None if s.failed else s.value for s in scores] for name, scores in results.items()}
        return row | {"each": each}  # prompt by prompt, so that evaluations can be compared so

    def figures(self) -> dict[str, float]:
        """The last evaluation, for the metrics of its update."""
        hidden = ("step", "tokens", "each")
        return {f"monitor_{k}": v for k, v in self.rows[-1].items() if k not in hidden and v is not None}

    @property
    def best(self) -> Mapping[str, Any]:
        """The last evaluation at which the first monitored reward was better than at the best before, by more than its
        own standard error."""
        best, name = self.rows[0], self.names[0]
        for row in self.rows[1:]:
            best = row if better(row, best, name) else best
        return best

    def over(self, stop_at_kl: float | None) -> str:
        """The reason why the stage ends with the last evaluation, or an empty string."""
        last, patience = self.rows[-1], self.options.patience
        if stop_at_kl is not None and last["step"] and last["kl"] >= stop_at_kl:
            return stopped(
                last["step"], f"the KL of the evaluation is {last['kl']:.2f} nats (stop_at_kl {stop_at_kl:g})"
            )
        since = sum(row["step"] > self.best["step"] for row in self.rows)
        if patience is not None and since >= patience:
            return stopped(last["step"], f"{self.names[0]} was no better in {since} evaluations (patience {patience})")
        return ""


def failure(score: Score) -> bool:
    """True if a score is missing that should be there; a reward of TRL's signature may give None for a response."""
    return score.failed and score.why != SILENT


def unread(score: Score) -> bool:
    """True if a reward, or one of several, could read no answer in a response."""
    return score.unread or any(name.startswith(UNREAD) for name in score.parts)


def stopped(step: int, why: str) -> str:
    """The sentence that a stage ended before its last update, and why."""
    return f"stopped after update {step}: {why}"


def better(row: Mapping[str, Any], best: Mapping[str, Any], name: str) -> bool:
    """True if an evaluation has more of this reward than another, by more than a standard error of its mean."""
    if row[name] is None:
        return False
    return best[name] is None or bool(row[name] > best[name] + (row[f"{name}_se"] or 0.0))


def ratios(rollouts: Sequence[Rollout], reference: Policy, held: int, policy: Policy | None = None) -> list[float]:
    """The summed log-ratio of every response to the reference, nats; where a `policy` is given, as it reads them, and
    not as they were sampled."""
    trees = [
        Tree(r.prompt_ids, (Branch("response", r.response_ids, (True,) * len(r.response_ids)),), i, i)
        for i, r in enumerate(rollouts)
    ]
    sums: list[float] = []
    by_policy: list[float] = []
    with torch.no_grad():
        for group in pack(trees, held):
            batch = Batch(group)
            sums += map(math.fsum, apart(batch, reference.logp(batch)))
            if policy is not None:
                by_policy += map(math.fsum, apart(batch, forward(policy.model, policy.logp)(batch)))
    by_policy = by_policy if policy is not None else [math.fsum(r.logp_T) for r in rollouts]
    return [mine - ref for mine, ref in zip(by_policy, sums, strict=True)]


def mean_and_error(name: str, of: Moments) -> dict[str, float | None]:
    """A mean and its standard error as they are written; None where there is none."""
    return {name: of.mean if of.count else None, f"{name}_se": of.error}


def summed_up(log: MonitorLog) -> str:
    """All evaluations in a line: from what to what each figure went, and where the first monitored reward was best."""
    first, last, best = log.rows[0], log.rows[-1], log.best
    figures = [
        f"{name} {first[name]:.3f} to {last[name]:.3f}"
        for name in ("proxy", *log.names, "kl", "length")
        if first[name] is not None and last[name] is not None
    ]
    text = f"monitored {len(log.rows)} times on {last['prompts']} prompts: {', '.join(figures)}"
    if best[log.names[0]] is None:
        return text
    return f"{text}; {log.names[0]} was best after update {best['step']}, {best[log.names[0]]:.3f}"


def line_of(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """An evaluation on one line."""
    figures = [f"{name} {row[name]:.3f}" for name in ("proxy", *names, "kl", "length") if row[name] is not None]
    return f"monitored after update {row['step']}: {', '.join(figures)}"


SoFar = Callable[[int], tuple[int, Sequence[Parts]]]
"""The rounds before an evaluation after so many updates: the tokens that were sampled to learn from, and the parts of
the scores in the last of them, where costs follow from these."""


class Monitor:
    """Has the policy of `client` respond to the prompts of `monitor`, with the same `sampling` each time, and keeps the
    weights of the best evaluation among `bests`. `held` tokens are read by the reference at once."""

    def __init__(
        self,
        log: MonitorLog,
        client: GenerationClient,
        reference: Policy,
        judged: Judged,
        bests: WeightSnapshots,
        sampling: Sampling,
        so_far: SoFar,
        held: int,
        stop_at_kl: float | None = None,
    ) -> None:
        self.log, self.client, self.reference, self.judged, self.bests = log, client, reference, judged, bests
        self.sampling, self.so_far, self.held, self.stop_at_kl = sampling, so_far, held, stop_at_kl
        self.picks = log.options.patience is not None

    def begin(self, step: int) -> None:
        """Go on from update `step`: evaluations of later ones will be done again. Where there is none yet, evaluate;
        where the best was at this very update, its weights are those of now, which a kill may have kept from the
        disk."""
        self.bests.forget(step)
        self.log.begin(step)
        if not self.log.rows:
            self.evaluate(step)
        elif self.picks and self.log.best["step"] == step:
            self.bests.put(step, self.client.policy.model)

    def evaluate(self, step: int) -> None:
        """Evaluate the policy as it is after update `step` by its responses to the monitored prompts."""
        log, policy = self.log, self.client.policy
        rollouts = self.client.ask(step, log.prompts, 1, self.sampling)
        reference = replace(self.reference, temperature=self.sampling.temperature)  # as the responses are sampled
        texts = [self.judged.text(policy, r) for r in rollouts]
        responses = responses_of([log.prompts[r.group] for r in rollouts], texts, rollouts)
        reader = None if self.client.exact else replace(policy, temperature=self.sampling.temperature)
        kl = ratios(rollouts, reference, self.held, reader)
        tokens, before = self.so_far(step)
        log.evaluate(step, tokens, responses, kl, self.judged.rewards, before)
        if self.picks and log.best["step"] == step:
            self.bests.put(step, policy.model)

    def after(self, step: int, steps: int) -> bool:
        """Evaluate, where it is due after this update of so many; return whether it was."""
        if not self.log.due(step, steps):
            return False
        self.evaluate(step)
        return True

    def over(self) -> str:
        """The reason why the stage ends with the last evaluation, or an empty string."""
        return self.log.over(self.stop_at_kl)

    def end(self, step: int) -> None:
        """Evaluate after the last update, where that was not done: rounds that taught nothing came behind it, or the
        stage ended early. With `patience` the policy is, in the end, what it was at the best evaluation."""
        if self.log.rows[-1]["step"] < step:
            self.evaluate(step)
        if self.picks:
            self.bests.back(self.log.best["step"], self.client.policy.model)

    def account(self) -> list[str]:
        """All evaluations in a line, and, with `patience`, whose weights are kept."""
        lines = [summed_up(self.log)]
        if self.picks:
            lines.append(f"the model's weights are those after update {self.log.best['step']}, the best evaluation")
        return lines


def responses_of(prompts: Sequence[Prompt], texts: Sequence[str], rollouts: Sequence[Rollout]) -> list[Response]:
    """Responses as rewards read them."""
    responses = zip(prompts, texts, rollouts, strict=True)
    return [Response(p.messages, text, r.response_ids, r.group, p.columns, whole=True) for p, text, r in responses]
