"""The stage that lets a model answer prompts, and writes its responses as data."""

from __future__ import annotations

import math
from typing import Annotated

from truing.evaluate.exam import response_text
from truing.policy.load import context_length, load
from truing.records import Count, NonNegative, PositiveFraction
from truing.registry import Columns, Data, Model, stage
from truing.rollout import experience
from truing.rollout.engine import InProcess, Sampling
from truing.rollout.experience import Experience
from truing.run.stage_run import StageRun
from truing.settings import Online, Training
from truing.stages.reinforce import askable, distinct
from truing.streams import derived


@stage(gives="data")
def sample(
    run: StageRun,
    *,
    model: Annotated[Model, "the model that answers"],
    prompts: Annotated[Data, "the prompts to answer, each different one once"],
    samples_per_prompt: Annotated[Count, "responses to each prompt"] = 4,
    max_new_tokens: Annotated[Count, "tokens at which a response is truncated"] = 64,
    temperature: Annotated[NonNegative, "1 samples as the model says, smaller is greedier, 0 the likeliest"] = 1.0,
    top_p: Annotated[
        PositiveFraction, "sample among the likeliest tokens that make up this share of probability"
    ] = 1.0,
    top_k: Annotated[Count | None, "sample among so many likeliest tokens; all unless given"] = None,
    stop_strings: Annotated[list[str] | None, "texts at which a response ends, besides the end token"] = None,
    seed: Annotated[int, "added to the recipe's seed; another number draws other responses"] = 0,
    columns: Annotated[Columns | None, "which column of the prompts' file has which role, {prompt: question}"] = None,
) -> None:
    """Let a model answer prompts, each different one `samples_per_prompt` times, and write responses and
    log-probabilities.

    They are data: `judge` labels them, `sft` learns them as they are. A killed stage is run again, to the same
    responses.
    """
    policy = load(run.model(model))
    once = distinct(run.records(prompts, want="prompts", columns=columns))
    limits = Training(max_length=context_length(policy)), Online(max_new_tokens=max_new_tokens)
    usable, _ = askable(run, policy, once, *limits)
    drawn = derived(run.seed + seed, run.name)
    sampling = Sampling(max_new_tokens, temperature, drawn, top_p, top_k, tuple(stop_strings or ()))
    run.show.say(f"  {len(usable)} prompts, {samples_per_prompt} responses to each")
    rollouts = InProcess(policy).generate([p.ids for p in usable], samples_per_prompt, sampling)
    rows = []
    for r in rollouts:
        p, text = usable[r.group], response_text(policy, r)
        fields = (p.row, p.messages, text, p.ids, r.response_ids, r.logp_T, (), (), math.nan)
        rows.append(Experience(*fields, r.stop, r.group, r.policy_version))
    experience.write(run.folder / "rollouts" / "round-00001.parquet", rows)
    truncated = sum(r.stop == "length" for r in rollouts)
    figures = [
        {"name": "prompts", "value": len(usable), "unit": ""},
        {"name": "responses", "value": len(rows), "unit": ""},
        {"name": "mean length", "value": sum(len(r.response_ids) for r in rollouts) / len(rows), "unit": "tokens"},
        {"name": "ran into max_new_tokens", "value": truncated, "unit": "responses"},
    ]
    headline = f"{len(usable)} prompts, {len(rows)} responses, {truncated} of them truncated"
    notes = [*run.accounts, *policy.notes]
    run.write("summary.json", {"do": "sample", "headline": headline, "figures": figures, "notes": notes})
