"""The stage that measures the same for the best of ever more responses."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from truing.data.split import unseen
from truing.diagnose.best_of import best_of_curve
from truing.errors import UserError
from truing.evaluate.exam import response_text
from truing.policy.load import context_length, load
from truing.recipe.reward_spec import GOLD
from truing.records import Count
from truing.registry import Columns, Data, Model, RewardModel, stage
from truing.rewards.scoring import scores
from truing.rollout.engine import InProcess, Sampling
from truing.run.lineage import prints
from truing.run.stage_run import StageRun
from truing.settings import Online, Training
from truing.stages.diagnosis import tell
from truing.stages.exam_judge import appoint
from truing.stages.reinforce import askable, distinct
from truing.streams import derived


@stage(gives="findings")
def diagnose_best_of(
    run: StageRun,
    *,
    model: Annotated[Model, "the model that answers"],
    reward: Annotated[RewardModel, "the reward model, or several, that chooses: the proxy"],
    prompts: Annotated[Data, "prompts that neither model nor reward learned from"],
    n: Annotated[Count, "responses to each prompt; the curve goes from 1 to n"] = 16,
    judge: Annotated[RewardModel | Literal["gold"], "who scores the chosen response: gold or a reward model"] = "gold",
    aggregate: Annotated[
        Literal["mean", "worst", "uncertainty"] | None, "how several reward models make one score"
    ] = None,
    samples: Annotated[Count, "the most prompts that are answered; more narrow the intervals"] = 200,
    max_new_tokens: Annotated[Count, "tokens at which a response is truncated"] = 64,
    seed: Annotated[int, "added to the recipe's seed; another number draws other responses"] = 0,
    columns: Annotated[Columns | None, "which column of the prompts' file has which role, {prompt: question}"] = None,
) -> None:
    """Score the response that `reward` scores highest among 1, 2, ... `n` of a model: `n` responses to each of
    `samples` prompts at temperature 1, none of which the model or the reward learned from, scored by the reward (the
    proxy; of several models by their `aggregate`) and by the `judge` (gold).

    Finds what `diagnose` finds, over the bound of the KL, ln n - (n - 1)/n; fits Gao's form d (alpha - beta d).
    """
    policy, name = load(run.model(model)), run.labels([model])[0]
    records = run.records(prompts, want="prompts", columns=columns)
    fresh = distinct(unseen(records, prints(run, [model, reward, *([] if judge == GOLD else [judge])])))
    once = fresh.subset(range(min(samples, len(fresh))), records.name)
    limits = Training(max_length=context_length(policy)), Online(max_new_tokens=max_new_tokens)
    usable, _ = askable(run, policy, once, *limits)
    run.show.say(f"  {name} answers {len(usable)} prompts {n} times each")
    drawn = derived(run.seed + seed, run.name)
    rollouts = InProcess(policy).generate([p.ids for p in usable], n, Sampling(max_new_tokens, seed=drawn))
    messages, texts = [usable[r.group].messages for r in rollouts], [response_text(policy, r) for r in rollouts]
    judges = appoint(run, reward, aggregate, None, once), appoint(run, judge, None, None, once)
    proxy, gold = (scores(who.settled(messages, texts), messages, texts, strict=False) for who in judges)
    both = [[flat[i : i + n] for i in range(0, len(flat), n)] for flat in (proxy, gold)]
    places = [
        i for i in range(len(usable)) if not any(math.isnan(value) for by_prompt in both for value in by_prompt[i])
    ]
    if len(places) < len(usable):
        run.note(
            f"{len(usable) - len(places)} of {len(usable)} prompts left out: a response is longer than a judge reads"
        )
    if not places:
        raise UserError(f"stage {run.name}: no prompt is left whose responses can all be scored; lower max_new_tokens")
    rows = ([by_prompt[i] for i in places] for by_prompt in both)
    doubt = "" if judge == GOLD else f"the truth here is {judges[1].judged_by}, which was never tried on labelled pairs"
    proxy_note = f"proxy: {judges[0].judged_by}"
    tell(run, [best_of_curve(name, *rows)], judges[1].name, [*run.accounts, proxy_note], doubt)
