"""The in-process engine: prompts in, sampled responses with their log-probabilities out.

A prompt is read once for all of its responses (policy/decoding.py); where a model cannot do so, every response is a row
of its own (rollout/rows.py). A policy's first prompts decide which: a few tokens are sampled in the first way and
compared with what the trainer gives for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from truing.data.batch import Batch, Branch, Tree, pack
from truing.data.rendering.render import Renderer
from truing.errors import RunFailed, UserError
from truing.policy.load import context_length
from truing.policy.policy import Policy
from truing.policy.precision import Gap, unit
from truing.policy.trees import NAME
from truing.records import Rollout, Sampling, Stop
from truing.rollout.mixture import Lockstep, Mixture
from truing.rollout.rows import Anew, Cached, Rows, Shared, recurrent
from truing.rollout.sample import check_sampling, draw, has_stop, uniforms

__all__ = ["InProcess", "Sampling", "fits", "generate", "sampler_agrees", "stop_ids"]

BATCH_TOKENS = 16384  # prompt and response tokens held at once
PROBE_TOKENS = 4  # sampled to see whether prompts can be shared
Row = tuple[int, int]
"""A response to be written: the place of its prompt, and which of the prompt's responses it is."""


class InProcess:
    """The engine that samples from the policy in this process.

    Its first responses at the temperature that the trainer reads at are read by it too; RunFailed where their
    log-probabilities differ. With a `mixture` it samples from that, and there is nothing of the trainer's to compare.
    """

    def __init__(self, policy: Policy, version: int = 0, mixture: Mixture | None = None) -> None:
        self.policy, self.version, self.mixture, self.compared = policy, version, mixture, mixture is not None

    def generate(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling) -> list[Rollout]:
        """`n` responses to each prompt, in the order of the prompts; see `generate`."""
        rollouts = [
            dataclasses.replace(r, policy_version=self.version)
            for r in generate(self.policy, prompts, sampling, n, self.mixture)
        ]
        if rollouts and not self.compared and sampling.enters_ratio and sampling.temperature == self.policy.temperature:
            gap, most = sampler_agrees(self.policy, rollouts[:n]), allowed(self.policy, rollouts[:n])
            if not gap.within(most):
                raise RunFailed(
                    f"{self.policy.name}: log-probabilities of sampled tokens are {gap.rms:.1e} nats off the trainer's "
                    f"(root mean square; at most {gap.largest:.1e}), and rounding explains {most:.1e}, so no ratio of "
                    "the two means anything; nothing was trained"
                )
            self.compared = True
        return rollouts

    def sync(self, policy: Policy, version: int) -> None:
        """Sample from this policy from now on; its weights are not copied."""
        self.compared = self.mixture is not None or (self.compared and policy is self.policy)
        self.policy, self.version = policy, version


def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    n: int = 1,
    mixture: Mixture | None = None,
) -> list[Rollout]:
    """`n` responses to each prompt, in the order of the prompts; with a `mixture` those of the policy and another one
    together, with the log-probabilities of the mixture.

    Every response draws from its own counter (seed, prompt, response), so that the way prompts are batched does not
    change what is sampled. Prompts of like length are batched together; responses that have ended are taken out of the
    batch. A prompt that with its response would not fit into the model's context is an error, and so is an empty one.
    """
    check_sampling(sampling)
    check_prompts(policy, prompts, sampling)
    todo = sorted(((p, k) for p in range(len(prompts)) for k in range(n)), key=lambda pk: len(prompts[pk[0]]))
    stops = stop_ids(policy) | set(sampling.stop_tokens)
    writers = [policy] if mixture is None else [policy, mixture.other]
    shared = bool(todo) and all(shares_prompts(writer, prompts, sampling) for writer in writers)
    done: dict[Row, Rollout] = {}
    with nullcontext() if shared else row_by_row(writers):
        for rows in batches(prompts, todo, sampling, shared):
            done |= _batch(policy, prompts, rows, sampling, stops, shared, mixture)
    return [done[p, k] for p in range(len(prompts)) for k in range(n)]


@contextmanager
def row_by_row(policies: Sequence[Policy]) -> Iterator[None]:
    """Within this block these policies' models attend as transformers wrote them, with a cache of their own."""
    models = [p.model for p in policies if p.model.config._attn_implementation == NAME]
    try:
        for model in models:
            model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
        yield
    finally:
        for model in models:
            model.set_attn_implementation(NAME)


def check_prompts(policy: Policy, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
    """UserError for a prompt that is empty, has tokens that the model has not got, or leaves no room in the model's
    context for the longest response."""
    for p, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {p + 1} has no tokens, so there is nothing to answer")
        if not fits(policy, prompt, sampling):
            raise UserError(
                f"prompt {p + 1} has {len(prompt)} tokens; with max_new_tokens {sampling.max_new_tokens} that is "
                f"beyond the {context_length(policy)} that {policy.name} reads.\n  Shorten it, or lower max_new_tokens."
            )
    if prompts:
        policy.check_ids(Batch((Tree(tuple(max(p) for p in prompts), (), 0, 0),)))


def batches(
    prompts: Sequence[Sequence[int]], todo: Sequence[Row], sampling: Sampling, shared: bool
) -> Iterator[list[Row]]:
    """Rows, the longest prompts first, in batches that hold at most `BATCH_TOKENS` (a larger row stands alone). A
    shared prompt is counted once."""
    left = list(todo)
    while left:
        longest = len(prompts[left[-1][0]])
        held, rows, used = 0, 0, set()
        for p, _ in reversed(left):
            alone = p in used and shared
            held += sampling.max_new_tokens + (0 if alone else len(prompts[p]) if shared else longest)
            if rows and held > BATCH_TOKENS:
                break
            used.add(p)
            rows += 1
        yield left[-rows:]
        left = left[:-rows]


def fits(policy: Policy, prompt: Sequence[int], sampling: Sampling) -> bool:
    """True if a prompt and the longest response to it are within what the model reads."""
    return len(prompt) + sampling.max_new_tokens <= context_length(policy)


def stop_ids(policy: Policy) -> frozenset[int]:
    """The tokens that end a response: those of the chat template, the tokenizer and the model's generation settings."""
    settings = getattr(policy.model, "generation_config", None)
    more = getattr(settings, "eos_token_id", None)
    listed = more if isinstance(more, list) else [more]
    return Renderer(policy.tokenizer).stop_ids | {i for i in listed if i is not None}


def shares_prompts(policy: Policy, prompts: Sequence[Sequence[int]], sampling: Sampling) -> bool:
    """True if the responses to a prompt can be written from one reading of it. Tried once per policy: two responses to
    the shortest and to the longest prompt must have the trainer's log-probabilities; a policy of which that is not so
    is sampled from row by row, and its `notes` say so."""
    if policy.layout != "trees":
        return False
    if policy.shares_prompts is None:
        few = Sampling(min(PROBE_TOKENS, sampling.max_new_tokens), policy.temperature, sampling.seed)
        probes, verified = [min(prompts, key=len), max(prompts, key=len)], policy.verified
        try:
            sampled = _batch(policy, probes, [(p, k) for p in (0, 1) for k in (0, 1)], few, frozenset(), shared=True)
            rollouts = list(sampled.values())
            gap = sampler_agrees(policy, rollouts)
            why = f"log-probabilities {gap.rms:.1e} nats off" if not gap.within(allowed(policy, rollouts)) else ""
        except (UserError, RunFailed) as error:
            why = str(error).splitlines()[0]
        policy.verified = verified  # what is trained on is another case
        policy.shares_prompts = not why
        if why:
            policy.notes.append(f"prompts are read anew for each of their responses (slower): {why}")
    return policy.shares_prompts and policy.layout == "trees"


def allowed(policy: Policy, rollouts: Sequence[Rollout]) -> float:
    """The distance that rounding explains between sampled tokens' log-probabilities and the trainer's, root mean square
    in nats.
    Tokens are drawn from logits in fp32."""
    return policy.allowed(Batch(tuple(trees_of(rollouts))), max(policy.dtype, torch.float32, key=unit))


def sampler_agrees(policy: Policy, rollouts: Sequence[Rollout]) -> Gap:
    """The distance of the sampler's log-probabilities of tokens from the trainer's, nats, over responses sampled from
    this policy at the temperature that it is read at. The trainer reads one tree per prompt, with its responses."""
    trees = trees_of(rollouts)
    with torch.no_grad():
        read = [policy.logp(Batch(group)).cpu() for group in pack(trees, BATCH_TOKENS)]
    return Gap.between(torch.cat(read), torch.tensor([x for t in trees for b in t.branches for x in b.facts["logp"]]))


def trees_of(rollouts: Sequence[Rollout]) -> list[Tree]:
    """One tree per prompt, with its responses; what the sampler said of their tokens is among their `facts`."""
    responses: dict[tuple[int, ...], list[Branch]] = {}
    for r in rollouts:
        branch = Branch("response", r.response_ids, (True,) * len(r.response_ids), facts={"logp": r.logp_T})
        responses.setdefault(r.prompt_ids, []).append(branch)
    return [Tree(prompt, tuple(branches), i, i) for i, (prompt, branches) in enumerate(responses.items())]


@torch.no_grad()  # inference tensors would be in the way of a divided model's next update
def _batch(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    batch: list[Row],
    sampling: Sampling,
    stops: frozenset[int],
    shared: bool,
    mixture: Mixture | None = None,
) -> dict[Row, Rollout]:
    ids = [prompts[p] for p, _ in batch]
    rows = _rows(policy, ids, sampling, shared)
    rows = Lockstep(rows, _rows(mixture.other, ids, sampling, shared), mixture.share) if mixture else rows
    draws = np.stack([uniforms(sampling, p, k) for p, k in batch])
    taken: list[list[int]] = [[] for _ in batch]
    logps: list[list[float]] = [[] for _ in batch]
    ends: list[Stop] = ["length" for _ in batch]
    alive = list(range(len(batch)))
    for t in range(sampling.max_new_tokens):
        token, logp = draw(rows.logits().float(), sampling, draws[alive, t])
        if not logp.isfinite().all():
            raise RunFailed(f"{policy.name} gives logits that are no numbers, so no token can be drawn from them")
        for b, i, value in zip(alive, token.tolist(), logp.tolist(), strict=True):
            taken[b].append(i)
            logps[b].append(value)
            if i in stops:
                ends[b] = "eos"
            elif has_stop(policy.tokenizer, taken[b], sampling.stop_strings):
                ends[b] = "string"
        keep = [j for j, b in enumerate(alive) if ends[b] == "length"]
        if not keep or t + 1 == sampling.max_new_tokens:
            break
        alive = [alive[j] for j in rows.go_on(token, keep)]
    return {
        (p, k): Rollout(tuple(prompts[p]), tuple(taken[b]), tuple(logps[b]), ends[b], group=p)
        for b, (p, k) in enumerate(batch)
    }


def _rows(policy: Policy, prompts: Sequence[Sequence[int]], sampling: Sampling, shared: bool) -> Rows:
    if shared:
        return Shared(policy, prompts, sampling.max_new_tokens)
    return Anew(policy, prompts) if recurrent(policy) else Cached(policy, prompts)
