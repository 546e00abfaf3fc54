"""The stages that tell what went wrong in training: over-optimisation of a proxy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from truing import seals
from truing.data.split import unseen
from truing.diagnose.best_of import best_of_curve
from truing.diagnose.curve import Curve, read_watch
from truing.diagnose.overoptimisation import Diagnosis
from truing.diagnose.overoptimisation import diagnose as diagnosed
from truing.errors import UserError
from truing.evaluate.exam import response_text
from truing.pipeline import training as work
from truing.pipeline.context import StageRun
from truing.pipeline.judge import appoint
from truing.pipeline.lineage import prints
from truing.pipeline.reward_spec import GOLD
from truing.pipeline.spec import Ref
from truing.pipeline.stages_online import askable, distinct
from truing.pipeline.table import table
from truing.policy.load import context_length, load
from truing.registry import Columns, Data, Model, Models, RewardModel, stage
from truing.rewards.scoring import scores
from truing.rollout.engine import InProcess, Sampling
from truing.settings import Online, Training
from truing.types import Count, digest

WATCH = "watch.jsonl"


@stage(gives="findings")
def diagnose(
    run: StageRun,
    *,
    runs: Annotated[Models, "the reinforce stages, or model folders, that watched themselves"],
    truth: Annotated[str, "the watched reward that counts as the truth"] = "gold",
) -> None:
    """Was the reward over-optimised? Reads how `reinforce` stages watched themselves (`watch`, `watch_prompts`): the
    reward that they were trained on, the proxy, and `truth`, a reward that they only watched, over the distance from
    their start.

    Finds where gold was highest, what was lost by the last look, and whether the proxy rose meanwhile; fits Gao's form
    d (alpha - beta ln d). A run from elsewhere is named by its model's folder.
    """
    named = runs if isinstance(runs, list) else [runs]
    names = run.labels(named)
    for value in named:  # its findings are about these weights
        run.model(value)
    curves = [
        read_watch(watched(run, model), name, started(run, model), truth)
        for name, model in zip(names, named, strict=True)
    ]
    tell(run, curves, truth)


@stage(gives="findings")
def diagnose_best_of(
    run: StageRun,
    *,
    model: Annotated[Model, "the model that answers"],
    reward: Annotated[RewardModel, "the reward model, or several, that chooses: the proxy"],
    prompts: Annotated[Data, "prompts that neither model nor reward learned from"],
    n: Annotated[Count, "answers to each prompt; the curve goes from 1 to n"] = 16,
    judge: Annotated[
        RewardModel | Literal["gold"], "who says what the chosen answer is worth: gold or a reward model"
    ] = "gold",
    aggregate: Annotated[
        Literal["mean", "worst", "uncertainty"] | None, "how several reward models make one score"
    ] = None,
    samples: Annotated[Count, "the most prompts that are answered; more narrow the intervals"] = 200,
    max_new_tokens: Annotated[Count, "tokens at which an answer is cut off"] = 64,
    seed: Annotated[int, "added to the recipe's seed; another number draws other answers"] = 0,
    columns: Annotated[Columns | None, "which column of the prompts' file has which role, {prompt: question}"] = None,
) -> None:
    """What is the answer worth that `reward` likes best among 1, 2, ... `n` of a model's? `n` answers to each of
    `samples` prompts at temperature 1, none of which the model or the reward learned from, scored by the reward (the
    proxy; of several models by their `aggregate`) and by the `judge` (gold).

    Finds what `diagnose` finds, over the bound of the KL, ln n - (n - 1)/n; fits Gao's form d (alpha - beta d).
    """
    policy, name = load(run.model(model)), run.labels([model])[0]
    records = run.records(prompts, want="prompts", columns=columns)
    fresh = distinct(unseen(records, prints(run, [model, reward, *([] if judge == GOLD else [judge])])))
    once = fresh.subset(range(min(samples, len(fresh))), records.name)
    limits = Training(max_length=context_length(policy)), Online(max_new_tokens=max_new_tokens)
    asked, _ = askable(run, policy, once, *limits)
    run.show.say(f"  {name} answers {len(asked)} prompts {n} times each")
    drawn = int(digest([run.seed + seed, run.name]), 16) % 2**63
    said = InProcess(policy).generate([p.ids for p in asked], n, Sampling(max_new_tokens, seed=drawn))
    messages, texts = [asked[r.group].messages for r in said], [response_text(policy, r) for r in said]
    judges = appoint(run, reward, aggregate, None, once), appoint(run, judge, None, None, once)
    proxy, gold = (scores(who.settled(messages, texts), messages, texts, strict=False) for who in judges)
    both = [[given[i : i + n] for i in range(0, len(given), n)] for given in (proxy, gold)]
    places = [i for i in range(len(asked)) if not any(math.isnan(value) for given in both for value in given[i])]
    if len(places) < len(asked):
        run.note(f"{len(asked) - len(places)} of {len(asked)} prompts left out: an answer is longer than a judge reads")
    if not places:
        raise UserError(f"stage {run.name}: no prompt is left whose answers can all be scored; lower max_new_tokens")
    rows = ([given[i] for i in places] for given in both)
    doubt = "" if judge == GOLD else f"the truth here is {judges[1].judged_by}, which was never tried on labelled pairs"
    proxy_note = f"proxy: {judges[0].judged_by}"
    tell(run, [best_of_curve(name, *rows)], judges[1].name, [*run.accounts, proxy_note], doubt)


def watched(run: StageRun, model: Any) -> Path:
    """Where a run keeps what it watched: in the stage's folder, beside its model."""
    if isinstance(model, Ref):
        return run.stage(model) / WATCH
    beside = Path(model).parent / WATCH
    path = beside if beside.is_file() else Path(model) / WATCH
    seals.check_file(path)
    return path


def started(run: StageRun, model: Any) -> str:
    """What a stage of this recipe began from, as findings call it; empty for a run from elsewhere."""
    begun = run.recipe.stage(model.stage).options.get("model") if isinstance(model, Ref) else None
    return run.labels([begun])[0] if begun is not None else ""


def tell(run: StageRun, curves: Sequence[Curve], truth: str, notes: Sequence[str] = (), doubt: str = "") -> None:
    """Write what the curves say: findings.json, curve.json for the report, summary.json; and a table. `doubt` is why
    nothing may be decided by them, where the truth is a judge that may err."""
    told = [diagnosed(curve) for curve in curves]
    findings = [replace(f, reservation=doubt or f.reservation) for one in told for f in one.findings]
    notes = [*notes, *(note for one in told for note in one.notes), *([doubt] if doubt else [])]
    work.found(run, findings)
    run.write("curve.json", {"truth": truth, "curves": [one.as_json() for one in told]})
    run.write("summary.json", {"do": run.do, "headline": "; ".join(map(headline, told)), "notes": notes})
    if findings:
        run.show.say(table(findings, {}))
    for note in notes:
        run.show.say(f"  {note}")


def headline(told: Diagnosis) -> str:
    """One curve in one sentence."""
    curve, lost = told.curve, next((f for f in told.findings if f.check == "gold_lost_after_peak"), None)
    if lost is None:
        return f"{curve.name}: too few looks"
    spread = f" [{lost.interval[0]:.2f}, {lost.interval[1]:.2f}]" if lost.interval else ""
    where = f"highest at {curve.look(told.best)} (KL {curve.kl[told.best]:.1f} nats)"
    return f"{curve.name}: gold {told.word}, {where}, lost since {lost.value:.2f}{spread}"
