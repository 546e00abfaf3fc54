"""The stage that makes data of answers by what rewards say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from truing import seals
from truing.data.formats import loading
from truing.disk import as_json, write_exact
from truing.errors import RunFailed, UserError
from truing.objectives.equal import alike
from truing.registry import Columns, Data, RewardSpec, stage
from truing.rewards.call import Answer
from truing.rewards.combine import Rewards, hung
from truing.rollout import experience
from truing.rollout import stored as lying
from truing.rollout.stored import Given
from truing.run.stage_run import StageRun
from truing.signature import TRL
from truing.stages.judged import FORMS, Row, reaching, usable, value
from truing.stages.loaded_rewards import appointed, columns_of
from truing.stages.reinforce import SETTLING
from truing.types import Positive, digest


@stage(gives="data")
def judge(
    run: StageRun,
    *,
    data: Annotated[Data, "the answers to label: a stage of answers, rollouts or a file"],
    rewards: Annotated[RewardSpec | None, "who scores the answers; the scores that they have unless given"] = None,
    keep: Annotated[
        Literal["pair", "ranking", "scores", "best", "passing"],
        "what is made of a prompt's answers: best against worst, order, scores, the best, all that pass",
    ] = "pair",
    passing: Annotated[float | None, "least score that `keep: passing` keeps"] = None,
    unfinished: Annotated[Literal["drop", "keep"], "leave out answers that were cut off, or keep them"] = "drop",
    combine: Annotated[Literal["sum", "lexicographic"], "by weight, or each only between equals of the last"] = "sum",
    on_error: Annotated[Literal["stop", "drop"], "drop leaves out, and counts, an answer that has no score"] = "stop",
    time_limit: Annotated[Positive, "seconds after which a call of your own reward has failed"] = 60.0,
    columns: Annotated[Columns | None, "which column has which role, {chosen: better}; null is not read"] = None,
) -> None:
    """Label answers by `rewards`, or by the scores they have: data to learn from.

    `keep` says what is made of the answers to a prompt: the best against the worst (`pair`), all in their order
    (`ranking`), all with their `scores`, the `best` as a demonstration, or every one whose score is at least `passing`.
    Answers that could not be scored, say nothing, repeat another or (unless `unfinished: keep`) were cut off are left
    out and counted; of equal scores there is no pair.
    """
    check(run, keep, passing)
    given = answers_of(run, data, columns, rewards is not None)
    count = Counter(dict.fromkeys(WORDS, 0) | {"answers": len(given)})
    late: list[str] = []
    if rewards is not None:
        given, late = scored(run, given, rewards, combine, on_error, time_limit)
    elif all(one.score is None and not one.why for one in given):
        raise UserError(f"stage {run.name}: these answers have no scores; say by `rewards` who gives them")
    make = FORMS[keep] if keep != "passing" else lambda own: reaching(own, passing or 0.0)
    rows: dict[str, Row] = {}
    for group in lying.by_group(given):
        own = usable(group, count, unfinished == "keep")
        made = make(own) if own else []
        if own and not made:
            count["below" if keep == "passing" else "alone" if len(own) == 1 else "equal"] += 1
        count["level"] += keep == "best" and len(own) > 1 and alike([value(one) for one in own])
        for record, row in made:
            key = digest(loading.record_json(record))
            count["repeated"] += key in rows
            rows.setdefault(key, (record, row))
    if not rows:
        raise RunFailed(f"stage {run.name}: no answer teaches anything: {told(count)}. {WAY_OUT}")
    count["kept"] = len(rows)
    lines = (as_json(row, "data.jsonl") + "\n" for _, row in rows.values())
    if run.leads:
        write_exact(run.folder / "data.jsonl", "".join(lines))
    run.show.say(f"  {told(count)}")
    figures = [{"name": name, "value": value, "unit": WORDS[name]} for name, value in count.items()]
    failed = [one.why for one in given if one.why]
    notes = [*run.accounts, *late] + (
        [f"{len(failed)} answers could not be scored; the first: {failed[0]}"] if failed else []
    )
    run.write("summary.json", {"do": "judge", "headline": told(count), "figures": figures, "notes": notes})


WORDS = {
    "answers": "answers",
    "unscored": "answers that could not be scored",
    "empty": "answers that say nothing or hold a NUL character",
    "unfinished": "answers that were cut off",
    "repeated": "answers or rows that repeat an earlier one",
    "alone": "prompts with a single answer left",
    "equal": "prompts whose answers are equal in score",
    "level": "prompts whose answers all score the same, of which any is kept",
    "below": "prompts of which no answer passes",
    "kept": "rows to learn from",
}
"""What is counted, as it is told."""

WAY_OUT = "Give more answers to a prompt, a finer reward, a longer max_new_tokens, or unfinished: keep."


def told(count: Mapping[str, int]) -> str:
    """The counts in one line, those of nothing left out."""
    return ", ".join(f"{n} {WORDS[name]}" for name, n in count.items() if n or name == "kept")


def check(run: StageRun, keep: str, passing: float | None) -> None:
    """UserError where `passing` is missing, or says nothing."""
    if (keep == "passing") != (passing is not None):
        raise UserError(f"stage {run.name}: keep: passing and the score to reach, passing: 1.0, go together")


def answers_of(run: StageRun, data: Any, columns: Mapping[str, str] | None, judged: bool) -> list[Given]:
    """The answers that a stage or a file holds; where they are to be `judged`, with the columns of their prompts."""
    folder = run.rollouts(data)
    if folder is None:
        if isinstance(data, str) and experience.is_experience(Path(data)):
            seals.check_file(Path(data))
            return lying.of_rollouts([Path(data)])
        return lying.of_records(run.records(data, columns=columns, keep=judged))
    known: dict[int, Mapping[str, Any]] = {}
    if judged:
        options = run.recipe.stage(data.stage).options
        asked = run.records(options["prompts"], want="prompts", columns=options.get("columns"))
        known = {row: columns_of(record) for row, record in zip(asked.rows, asked.records, strict=True)}
    return lying.of_rollouts(sorted(folder.glob("round-*.parquet")), known)


def scored(
    run: StageRun,
    given: Sequence[Given],
    spec: Sequence[dict[str, Any]],
    combine: Literal["sum", "lexicographic"],
    on_error: Literal["stop", "drop"],
    seconds: float,
) -> tuple[list[Given], list[str]]:
    """The answers with what `rewards` say of them, and what is to be noted of the rewards."""
    few = given[:SETTLING]
    rows = list({one.row: one.columns for one in given}.items())
    rewards = appointed(
        run, spec, rows, lambda: ([o.prompt for o in few], [o.response for o in few]), combine, on_error, seconds
    )
    if not all(one.ids for one in given):
        check_tokens(run, rewards)
    asked = [Answer(one.prompt, one.response, one.ids, one.group, one.columns, bool(one.ids)) for one in given]
    said = " + ".join(
        f"reward model {t.name}" if t.call.function.name == "reward_model" else t.name for t in rewards.terms
    )
    scores = rewards(asked)
    return [
        replace(one, score=None if s.failed else s.value, why=s.why if s.failed else "", rater=said)
        for one, s in zip(given, scores, strict=True)
    ], hung([s.parts for s in scores])


def check_tokens(run: StageRun, rewards: Rewards) -> None:
    """UserError where a reward reads an answer's tokens, which a text alone does not have."""
    for term in rewards.terms:
        function = term.call.function
        if "tokens" in function.reads or (function.scope == TRL and "completion_ids" in function.reads):
            raise UserError(
                f"stage {run.name}: reward '{term.name}' reads an answer's tokens, and these are texts alone; judge "
                "the answers of a stage (sample, reinforce), or give a reward that reads text"
            )
