"""The exam: contestants answer the same prompts, are scored by one judge, and compared prompt by prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from truing.data.batch import Batch, Branch, Tree, pack
from truing.data.rendering.render import Renderer, renderer_of
from truing.errors import UserError
from truing.evaluate import behaviour, reward_model, winrate
from truing.evaluate.corrected import Mean, mean_of, points_of
from truing.evaluate.held_out import is_tie
from truing.policy.files.portable import settled
from truing.policy.policy import Policy
from truing.records import Finding, Messages, Reward, Rollout, digest, prompt_id
from truing.rewards.scoring import TOKENS, judged
from truing.rollout.engine import Sampling, generate

UNMOVED = "training moved it too little to be seen here (learning_rate, epochs), or both are one model"
"""The conclusion from two contestants' responses being word for word the same."""


@dataclass(frozen=True)
class Responses:
    """One contestant's responses to every prompt, and the judge's scores of them, with their `parts` if it has any. A
    policy's have rollouts. Scores that are `within` so much of each other are equal but for the judge's rounding."""

    name: str
    texts: tuple[str, ...]
    values: tuple[float, ...]
    rollouts: tuple[Rollout, ...] = ()
    policy: Policy | None = None
    parts: tuple[Mapping[str, float], ...] = ()
    within: float = 0.0

    @property
    def unscored(self) -> frozenset[int]:
        """The places of responses without a score because they are longer than the judge reads."""
        return frozenset(i for i, value in enumerate(self.values) if math.isnan(value))

    def at(self, places: Sequence[int]) -> Responses:
        """The responses at these places."""
        return replace(
            self,
            texts=tuple(self.texts[i] for i in places),
            values=tuple(self.values[i] for i in places),
            rollouts=tuple(self.rollouts[i] for i in places) if self.rollouts else (),
            parts=tuple(self.parts[i] for i in places) if self.parts else (),
        )


def answer(name: str, policy: Policy, prompts: Sequence[Messages], judge: Reward, sampling: Sampling) -> Responses:
    """One fresh response of `policy` to every prompt, scored."""
    return scored(name, policy, prompts, judge, respond(policy, prompts, sampling))


def respond(policy: Policy, prompts: Sequence[Messages], sampling: Sampling, n: int = 1) -> list[Rollout]:
    """`n` fresh responses of `policy` to every prompt, those to one prompt beside each other."""
    renderer = Renderer(policy.tokenizer)
    return generate(policy, [renderer.prompt_ids(p) for p in prompts], sampling, n)


def scored(
    name: str, policy: Policy, prompts: Sequence[Messages], judge: Reward, rollouts: Sequence[Rollout]
) -> Responses:
    """Score responses by the judge."""
    texts = tuple(response_text(policy, r) for r in rollouts)
    scores = judged(judge, prompts, texts, strict=False)
    values, parts = tuple(s.value for s in scores), tuple(s.parts for s in scores)
    return Responses(name, texts, values, tuple(rollouts), policy, parts, getattr(judge, "tie_tolerance", 0.0))


def response_text(policy: Policy, rollout: Rollout) -> str:
    """The words of a rollout, without its end token: its thought too, and whole where the prompt had opened it."""
    ids = rollout.response_ids[:-1] if rollout.stop == "eos" else rollout.response_ids
    return renderer_of(policy.tokenizer).text(rollout.prompt_ids, ids)


def same_tokens(policy: Policy, other: Policy) -> bool:
    """True if two policies have the same vocabulary and write a conversation in the same way."""
    first, second = (digest([p.tokenizer.get_vocab(), settled(p.tokenizer).chat_template]) for p in (policy, other))
    return first == second


def compare(contestant: Responses, other: Responses, prompts: Sequence[Messages], judged_by: str) -> list[Finding]:
    """Win rate and mean scores of a contestant over the other, and, if both sampled tokens, the change of length."""
    ids = [prompt_id(p) for p in prompts]
    sides, within = (
        (contestant.name, contestant.values, other.name, other.values, ids),
        max(contestant.within, other.within),
    )
    findings = winrate.win_rate(*sides, judged_by=judged_by, within=within)
    if contestant.policy and other.policy:
        findings.append(_longer(contestant, contestant.policy, other, other.policy, ids))
    return findings


def judged_rate(contestant: Responses, other: Responses, prompts: Sequence[Messages], head: str = "") -> Mean:
    """The share of prompts on which the judge, or one head of it, prefers the contestant, with its error."""
    ours, theirs = ([row[head] for row in side.parts] if head else side.values for side in (contestant, other))
    points = points_of(ours, theirs, max(contestant.within, other.within))
    return mean_of(points, [prompt_id(p) for p in prompts])


def by_head(
    head: str, contestant: Responses, other: Responses, prompts: Sequence[Messages], judged_by: str
) -> list[Finding]:
    """Win rate and mean scores by one head of the judge."""
    ours, theirs = ([row[head] for row in side.parts] for side in (contestant, other))
    ids = [prompt_id(p) for p in prompts]
    sides, within = (contestant.name, ours, other.name, theirs, ids), max(contestant.within, other.within)
    return winrate.win_rate(*sides, slice=head, judged_by=f"{judged_by}, head {head}", within=within)


def by_part(
    part: str, contestant: Responses, other: Responses, prompts: Sequence[Messages], judged_by: str
) -> list[Finding]:
    """Mean scores by one part of the judge's score, and their difference: `helpful_mean_score` and so on."""
    ours, theirs = ([row[part] for row in side.parts] for side in (contestant, other))
    ids, judged_by = [prompt_id(p) for p in prompts], f"{judged_by}, its part {part}"
    findings = winrate.win_rate(contestant.name, ours, other.name, theirs, ids, judged_by=judged_by, prefix=f"{part}_")
    return [f for f in findings if "mean_score" in f.check]


def _longer(contestant: Responses, policy: Policy, other: Responses, rival: Policy, ids: Sequence[str]) -> Finding:
    """The change of length, always in tokens of one tokenizer: the contestant's if they do not share one."""
    if same_tokens(policy, rival):
        ours, theirs = ([len(r.response_ids) for r in a.rollouts] for a in (contestant, other))
        return behaviour.length_delta(contestant.name, ours, other.name, theirs, ids)
    ours, theirs = (
        [len(policy.tokenizer(t, add_special_tokens=False).input_ids) for t in a.texts] for a in (contestant, other)
    )
    return behaviour.length_delta(contestant.name, ours, other.name, theirs, ids, counted_by=contestant.name)


def no_kl(policy: Policy, reference: Policy, sampling: Sampling) -> str:
    """The reason why responses of `policy` give no estimate of its KL to `reference`; empty where they do."""
    if sampling.temperature != 1:
        return f"responses were drawn at temperature {sampling.temperature:g}, and a KL needs them drawn at 1"
    if not sampling.enters_ratio:
        return "responses were drawn with top_p or top_k, and a KL needs them drawn from the whole distribution"
    return "" if same_tokens(policy, reference) else "their tokenizers or chat templates differ"


def drift(
    contestant: Responses, policy: Policy, reference: Policy, against: str, prompts: Sequence[Messages]
) -> Finding:
    """KL(policy || reference) on the policy's own fresh responses, drawn at temperature 1 (see `no_kl`)."""
    logp, ref_logp = (response_logp(p, contestant.rollouts) for p in (policy, reference))
    return behaviour.kl(contestant.name, logp, ref_logp, [prompt_id(p) for p in prompts], against=against)


def truncated(contestant: Responses, prompts: Sequence[Messages]) -> Finding:
    """The share of responses that ran into the length limit."""
    cut = [r.stop == "length" for r in contestant.rollouts]
    return behaviour.truncated_share(contestant.name, cut, [prompt_id(p) for p in prompts])


def response_logp(policy: Policy, rollouts: Sequence[Rollout]) -> list[float]:
    """Log-probability of each response under `policy`, summed over its tokens, nats."""
    trees = []
    for i, r in enumerate(rollouts):
        branch = Branch("response", r.response_ids, (True,) * len(r.response_ids))
        trees.append(Tree(r.prompt_ids, (branch,), i, i + 1))
    return sums(policy, trees)


def sums(policy: Policy, trees: Sequence[Tree]) -> list[float]:
    """Summed log-probability (fp64) of the learned tokens of every branch, in order."""
    out: list[float] = []
    with torch.inference_mode():
        for group in pack(trees, TOKENS):
            batch = Batch(group)
            out += batch.sums(policy.logp(batch).cpu()).tolist()
    return out


def rewards(policy: Policy, trees: Sequence[Tree]) -> list[float]:
    """The reward model's score of every branch, in order; UserError for a model of single steps."""
    policy.scalars.check_whole(policy.name)
    with torch.inference_mode():
        return [v for group in pack(trees, TOKENS) for v in policy.rewards(Batch(group)).cpu().tolist()]


def head_rewards(policy: Policy, trees: Sequence[Tree]) -> list[dict[str, float]]:
    """The score of every head of a reward model for every branch, by name, in order; UserError for one of single
    steps."""
    policy.scalars.check_whole(policy.name)
    with torch.inference_mode():
        rows = [row for group in pack(trees, TOKENS) for row in policy.head_rewards(Batch(group)).cpu().tolist()]
    return [dict(zip(policy.heads, row, strict=True)) for row in rows]


def pair_accuracy(name: str, policy: Policy, trees: Sequence[Tree], reference: Policy | None = None) -> Finding:
    """Share of held-out pairs that `policy` orders as the raters did, their ties left out.

    A reward model by its score, a cost with its sign turned; a language model by its log-ratio to `reference` (the
    reward that DPO fits implicitly).
    UserError where all pairs are ties.
    """
    whole = Batch(tuple(trees))
    if policy.is_reward:
        sign = -1 if policy.scalars.is_cost else 1
        values = [sign * value for value in rewards(policy, trees)]
        check, noise = "held_out_accuracy", [policy.noise(whole)] * len(whole.branches)
    elif reference is not None:
        pairs = zip(sums(policy, trees), sums(reference, trees), strict=True)
        values, check = [a - b for a, b in pairs], "implicit_accuracy"
        token = math.hypot(policy.noise(whole), reference.noise(whole))
        noise = [token * math.sqrt(sum(branch.loss)) for branch in whole.branches]
    else:
        raise UserError(f"{name}: the accuracy of a language model on pairs needs a reference")
    compared = whole.pairs
    owners = [digest(list(tree.prompt)) for tree in trees for _ in tree.pairs]
    decided = [(p.better, p.worse, owner) for p, owner in zip(compared, owners, strict=True) if not is_tie(p)]
    if not decided:
        raise UserError(f"{name}: every held-out pair is a tie, so no order can be measured")
    chosen, rejected = [values[m] for m, _, _ in decided], [values[m] for _, m, _ in decided]
    groups, ties = [owner for _, _, owner in decided], len(compared) - len(decided)
    within = [math.hypot(noise[a], noise[b]) for a, b, _ in decided]
    return reward_model.accuracy(name, chosen, rejected, groups, check=check, ties_left_out=ties, within=within)
