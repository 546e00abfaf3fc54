"""The stage that labels responses by rewards, as data to learn from."""

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
from truing.records import Positive, digest
from truing.registry import Columns, Data, RewardSpec, stage
from truing.rewards.call import Response
from truing.rewards.combine import Rewards, count_notes
from truing.rollout import experience
from truing.rollout import stored as lying
from truing.rollout.stored import Given
from truing.run.stage_run import StageRun
from truing.schema.signature import TRL
from truing.stages.judged import FORMS, Row, reaching, usable, value
from truing.stages.loaded_rewards import appointed, columns_of
from truing.stages.reinforce import SETTLING


@stage(gives="data")
def judge(
    run: StageRun,
    *,
    data: Annotated[Data, "the responses to label: a stage that gives responses, rollouts or a file"],
    rewards: Annotated[
        RewardSpec | None, "the rewards that score the responses; the scores that they have unless given"
    ] = None,
    keep: Annotated[
        Literal["pair", "ranking", "scores", "best", "passing"],
        "what is made of a prompt's responses: best against worst, order, scores, the best, all that pass",
    ] = "pair",
    passing: Annotated[float | None, "least score that `keep: passing` keeps"] = None,
    truncated: Annotated[Literal["drop", "keep"], "leave out truncated responses, or keep them"] = "drop",
    combine: Annotated[Literal["sum", "lexicographic"], "by weight, or each only between equals of the last"] = "sum",
    on_error: Annotated[Literal["stop", "drop"], "drop leaves out, and counts, a response that has no score"] = "stop",
    time_limit: Annotated[Positive, "seconds after which a call of your own reward has failed"] = 60.0,
    columns: Annotated[Columns | None, "which column has which role, {chosen: better}; null is not read"] = None,
) -> None:
    """Label responses by `rewards`, or by the scores they have: data to learn from.

    `keep` says what is made of the responses to a prompt: the best against the worst (`pair`), all in their order
    (`ranking`), all with their `scores`, the `best` as a demonstration, or every one whose score is at least `passing`.
    Responses that could not be scored, are empty, repeat another or (unless `truncated: keep`) were truncated are left
    out and counted; of equal scores there is no pair.
    """
    check(run, keep, passing)
    responses = responses_of(run, data, columns, rewards is not None)
    count = Counter(dict.fromkeys(WORDS, 0) | {"responses": len(responses)})
    reward_notes: list[str] = []
    if rewards is not None:
        responses, reward_notes = scored(run, responses, rewards, combine, on_error, time_limit)
    elif all(stored.score is None and not stored.why for stored in responses):
        raise UserError(f"stage {run.name}: these responses have no scores; name the `rewards` that score them")
    make = FORMS[keep] if keep != "passing" else lambda group: reaching(group, passing or 0.0)
    rows: dict[str, Row] = {}
    for group in lying.by_group(responses):
        candidates = usable(group, count, truncated == "keep")
        made = make(candidates) if candidates else []
        if candidates and not made:
            count["below" if keep == "passing" else "single" if len(candidates) == 1 else "equal"] += 1
        count["level"] += keep == "best" and len(candidates) > 1 and alike(list(map(value, candidates)))
        for record, row in made:
            key = digest(loading.record_json(record))
            count["repeated"] += key in rows
            rows.setdefault(key, (record, row))
    if not rows:
        raise RunFailed(f"stage {run.name}: no response teaches anything: {counts_line(count)}. {WAY_OUT}")
    count["kept"] = len(rows)
    lines = (as_json(row, "data.jsonl") + "\n" for _, row in rows.values())
    if run.leads:
        write_exact(run.folder / "data.jsonl", "".join(lines))
    run.show.say(f"  {counts_line(count)}")
    figures = [{"name": name, "value": value, "unit": WORDS[name]} for name, value in count.items()]
    failed = [stored.why for stored in responses if stored.why]
    notes = [*run.accounts, *reward_notes] + (
        [f"{len(failed)} responses could not be scored; the first: {failed[0]}"] if failed else []
    )
    run.write("summary.json", {"do": "judge", "headline": counts_line(count), "figures": figures, "notes": notes})


WORDS = {
    "responses": "responses",
    "unscored": "responses that could not be scored",
    "empty": "responses that are empty or hold a NUL character",
    "truncated": "truncated responses",
    "repeated": "responses or rows that repeat an earlier one",
    "single": "prompts with a single response left",
    "equal": "prompts whose responses are equal in score",
    "level": "prompts whose responses all score the same, of which any is kept",
    "below": "prompts of which no response passes",
    "kept": "rows to learn from",
}
"""The counts by their keys, each in words."""

WAY_OUT = "Give more responses to a prompt, a finer reward, a longer max_new_tokens, or truncated: keep."


def counts_line(count: Mapping[str, int]) -> str:
    """The counts in one line, zeros left out."""
    return ", ".join(f"{n} {WORDS[name]}" for name, n in count.items() if n or name == "kept")


def check(run: StageRun, keep: str, passing: float | None) -> None:
    """Raise UserError where `passing` is missing, or has no effect."""
    if (keep == "passing") != (passing is not None):
        raise UserError(f"stage {run.name}: keep: passing and the score to reach, passing: 1.0, go together")


def responses_of(run: StageRun, data: Any, columns: Mapping[str, str] | None, judged: bool) -> list[Given]:
    """The responses that a stage or a file holds; if they are to be `judged`, with the columns of their prompts."""
    folder = run.rollouts(data)
    if folder is None:
        if isinstance(data, str) and experience.is_experience(Path(data)):
            seals.check_file(Path(data))
            return lying.of_rollouts([Path(data)])
        return lying.of_records(run.records(data, columns=columns, keep=judged))
    columns_by_row: dict[int, Mapping[str, Any]] = {}
    if judged:
        options = run.recipe.stage(data.stage).options
        questions = run.records(options["prompts"], want="prompts", columns=options.get("columns"))
        pairs = zip(questions.rows, questions.records, strict=True)
        columns_by_row = {row: columns_of(record) for row, record in pairs}
    return lying.of_rollouts(sorted(folder.glob("round-*.parquet")), columns_by_row)


def scored(
    run: StageRun,
    responses: Sequence[Given],
    spec: Sequence[dict[str, Any]],
    combine: Literal["sum", "lexicographic"],
    on_error: Literal["stop", "drop"],
    seconds: float,
) -> tuple[list[Given], list[str]]:
    """Score the responses by the rewards of `spec`; return them with notes about the rewards."""
    few = responses[:SETTLING]
    rows = list({stored.row: stored.columns for stored in responses}.items())
    rewards = appointed(
        run, spec, rows, lambda: ([o.prompt for o in few], [o.response for o in few]), combine, on_error, seconds
    )
    if not all(stored.ids for stored in responses):
        check_tokens(run, rewards)
    to_score = [Response(r.prompt, r.response, r.ids, r.group, r.columns, bool(r.ids)) for r in responses]
    rater = " + ".join(
        f"reward model {t.name}" if t.call.function.name == "reward_model" else t.name for t in rewards.terms
    )
    scores = rewards(to_score)
    return [
        replace(r, score=None if s.failed else s.value, why=s.why if s.failed else "", rater=rater)
        for r, s in zip(responses, scores, strict=True)
    ], count_notes([s.parts for s in scores])


def check_tokens(run: StageRun, rewards: Rewards) -> None:
    """Raise UserError where a reward reads a response's tokens, which a text alone does not have."""
    for term in rewards.terms:
        function = term.call.function
        if "tokens" in function.reads or (function.scope == TRL and "completion_ids" in function.reads):
            raise UserError(
                f"stage {run.name}: reward '{term.name}' reads a response's tokens, and these are texts alone; judge "
                "the responses of a stage (sample, reinforce), or give a reward that reads text"
            )
