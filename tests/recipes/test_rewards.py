"""Reward models of every kind of feedback, and ensembles of them, by recipes on a new model of one layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import bounds
from truing.data.batch import Batch, Branch, Tree
from truing.data.formats import loading
from truing.policy.load import load
from truing.policy.probes import plain_rows
from truing.records import Judgement, Message, Records, Verdict

BASE = "base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}\n"
TREES = tuple(
    Tree(tuple(range(10, 15 + i)), (Branch("response", tuple(range(20, 24 + i)), (True,) * (4 + i)),), i, i + 1)
    for i in range(3)
)


def said(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def judged(i: int, responses: list[str], verdict: Verdict, **meta: Any) -> Judgement:
    prompt = (Message("user", f"question {i}"),)
    return Judgement(f"p{i}", prompt, tuple(map(said, responses)), verdict, meta=meta)


MADE = {
    "ratings": lambda i: judged(
        i, [f"good {i}" * (i % 3) + "so"], Verdict("score", [{"clarity": i % 3, "truth": 1.5}])
    ),
    "ties": lambda i: judged(i, [f"good {i}", f"bad {i}"], Verdict("tie") if i % 3 == 0 else Verdict("choice", i % 2)),
    "allties": lambda i: judged(i, [f"good {i}", f"bad {i}"], Verdict("tie")),
    "rankings": lambda i: judged(i, ["best", f"good {i}", "bad"], Verdict("ranking", [0, 1, 2])),
    "labels": lambda i: judged(i, ["yes" if i % 2 else f"no {i}"], Verdict("score", [float(i % 2)])),
    "steps": lambda i: judged(
        i, ["one. two."], Verdict("steps", [[1.0, -1.0 if i % 2 else 1.0]]), steps=["one.", " two."]
    ),
}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of every kind of verdict, read for file names that stand for them: `ratings.jsonl`, ..."""
    real = loading.load

    def read(name: str, **options: Any) -> Records:
        kind = str(name).rpartition("/")[2].partition(".")[0].removesuffix("2")
        if kind not in MADE:
            return real(name, **options)
        first = 100 if str(name).endswith("2.jsonl") else 0
        rows = tuple(MADE[kind](first + i) for i in range(12))
        return Records(str(name), rows, tuple(range(1, 13)), digest=f"{name}")

    monkeypatch.setattr(loading, "load", read)


def recipe(desk: Any, objective: str, data: str, more: str = "") -> None:
    """Fit a reward model on one of the data sets, held-out ones beside it."""
    for name in (f"{data}.jsonl", f"{data}2.jsonl"):
        (desk.folder / name).write_text("{}\n")
    options = f"objective: {objective}, eval: {data}2.jsonl, steps: 3, learning_rate: 1e-2{more}"
    desk.write(BASE + f"stages:\n  rm: {{do: fit_reward, model: $base, data: {data}.jsonl, {options}}}\n")


def found(desk: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(f["check"], f["slice"]): f for f in desk.read("rm/findings.json")["findings"]}


def reloaded(desk: Any) -> tuple[Any, torch.Tensor]:
    """The model that was left, and every head of it on three rows: by truing, and the same by plain transformers."""
    folder = desk.out / "rm" / "model"
    policy, plain = load(str(folder), "reward"), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        scores = policy.head_rewards(Batch(TREES))
        wanted = torch.cat([plain(input_ids=torch.tensor([ids])).logits for ids in plain_rows(Batch(TREES))])
    assert torch.allclose(scores, wanted, atol=bounds.LOGP) and scores.std() > 1e-3
    return policy, scores


TWO = "[{regression: {head: clarity}}, {regression: {head: truth, weight: 0.5}}]"


def test_two_named_heads_on_ratings(desk: Any, given: None) -> None:
    recipe(desk, TWO, "ratings", ", head_weights: {truth: 2, clarity: -1}")
    assert desk.run() == 0, desk.said
    policy, scores = reloaded(desk)
    assert policy.heads == ("clarity", "truth") and scores.shape == (3, 2)
    assert torch.allclose(policy.rewards(Batch(TREES)), 2 * scores[:, 1] - scores[:, 0], atol=1e-5)
    plain = json.loads((desk.out / "rm/model/config.json").read_text())
    assert plain["id2label"] == {"0": "clarity", "1": "truth"} and plain["problem_type"] == "regression"
    measured = found(desk)
    assert {("held_out_squared_error", "clarity"), ("held_out_squared_error", "truth")} <= set(measured)
    assert ("held_out_spearman", "clarity") in measured and ("held_out_spearman", "truth") not in measured
    beside = measured["held_out_squared_error_delta", "truth"]
    assert beside["value"] == measured["held_out_squared_error", "truth"]["value"], "all these scores are alike"
    assert beside["interval"] is None and beside["verdict"] == "unclear"
    note = "no rank correlation of rm (truth): every held-out score is 1.5"
    assert note in desk.said and note in desk.read("rm/summary.json")["notes"]
    (desk.folder / "texts.jsonl").write_text(json.dumps({"prompt": "question 1", "response": "good"}) + "\n")
    assert desk("score", str(desk.out / "rm/model"), str(desk.folder / "texts.jsonl"), "--out", f"{desk.folder}/s") == 0
    row = json.loads((desk.folder / "s").read_text())
    assert set(row["heads"]) == {"clarity", "truth"}
    assert row["reward"] == pytest.approx(2 * row["heads"]["truth"] - row["heads"]["clarity"], abs=1e-6)
    several = {"prompt": "question 1", "responses": ["bad", "good"], "ranking": [1, 0]}
    (desk.folder / "several.jsonl").write_text(json.dumps(several) + "\n")
    assert (
        desk("score", str(desk.out / "rm/model"), str(desk.folder / "several.jsonl"), "--out", f"{desk.folder}/t") == 0
    )
    both = json.loads((desk.folder / "t").read_text())
    assert both["rewards"][1] == pytest.approx(row["reward"], abs=1e-5) and len(both["heads"]) == 2


@pytest.mark.parametrize("objective", ["rao_kupper", "davidson"])
def test_ties_are_learned_measured_and_kept(desk: Any, given: None, objective: str) -> None:
    """The parameter begins at the data's share of ties, moves, and is there again; transformers never hears of it."""
    recipe(desk, objective, "ties", ", lora_rank: 4" if objective == "davidson" else "")
    assert desk.run() == 0, desk.said
    folder = desk.out / "rm" / "model"
    policy = load(str(folder), "reward")
    begun = torch.tensor(2 * (4.5 / 13) / (1 - 4.5 / 13)).log().item()
    moved = policy.scalars.tie_logit - begun
    assert 1e-4 < abs(moved) < 0.1 and policy.model.tie_logit.shape == (1,)
    if objective == "rao_kupper":
        reloaded(desk)
        auto = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
        assert not any(auto[1][kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    measured = found(desk)
    assert measured["held_out_accuracy", "all"]["evidence"].endswith("; 4 ties of the raters left out")
    share, loss = measured["held_out_tie_share", "all"], measured["held_out_log_loss", "all"]
    off = measured["held_out_tie_share_delta", "all"]
    assert (
        off["value"] == pytest.approx(share["value"] - 4 / 12) and 0.2 < share["value"] < 0.5 and 0 < loss["value"] < 3
    )
    less = measured["held_out_log_loss_delta", "all"]
    assert loss["value"] - less["value"] == pytest.approx(1.0986, abs=1e-3), "a third each"


def test_nothing_but_ties_has_no_accuracy(desk: Any, given: None) -> None:
    recipe(desk, "rao_kupper", "allties")
    assert desk.run() == 0, desk.said
    names = ("tie_share", "tie_share_delta", "log_loss", "log_loss_delta")
    assert set(found(desk)) == {(f"held_out_{name}", "all") for name in names}
    assert "no held-out accuracy of rm: all 12 held-out pairs are ties" in desk.said


KINDS = {
    "plackett_luce": ("rankings", {"held_out_kendall_tau", "held_out_accuracy"}),
    "orm": ("labels", {"held_out_accuracy", "held_out_accuracy_delta", "held_out_auc"}),
    "{confidence: {head: clarity}}": ("ratings", {"held_out_spearman"}),
    "prm": (
        "steps",
        {f"held_out_{name}_accuracy{end}" for name in ("step", "first_error") for end in ("", "_delta")},
    ),
}


@pytest.mark.parametrize("objective", KINDS)
def test_every_kind_of_feedback_has_its_measure(desk: Any, given: None, objective: str) -> None:
    data, checks = KINDS[objective]
    recipe(desk, objective, data)
    assert desk.run() == 0, desk.said
    assert {check for check, _ in found(desk)} == checks
    measured = {check: f for (check, _), f in found(desk).items()}
    assert all(f["n"] == 12 for f in measured.values())
    # What is held against a baseline of the same rows says so in a finding of its own, and has no bound itself.
    assert all((f["bound"] is None) == (f"{check}_delta" in measured) for check, f in measured.items())
    reloaded(desk)


def test_a_model_of_steps_is_no_reward_of_responses(desk: Any, given: None) -> None:
    """It was never taught at the end of a response; one of solutions (orm) was, at all tokens, and may judge."""
    (desk.folder / "asked.jsonl").write_text((desk.folder / "pairs.jsonl").read_text().replace("question", "asked"))
    (desk.folder / "texts.jsonl").write_text(json.dumps({"prompt": "question 1", "response": "good"}) + "\n")
    refused = "was fitted to the steps of a solution, each read where it ends, and never to a whole response"
    model, scored = str(desk.out / "rm/model"), ("--out", f"{desk.folder}/s")
    for objective, data, read in (("prm", "steps", "steps"), ("orm", "labels", "tokens")):
        recipe(desk, objective, data)
        warm = "  warm: {do: sft, model: $base, data: pairs.jsonl, steps: 1, rows_per_step: 2}\n"
        fitted = (desk.folder / "r.yaml").read_text() + warm
        desk.write(fitted)
        assert desk.run("--overwrite") == 0, desk.said
        assert (
            load(model, "reward").scalars.read
            == read
            == json.loads(Path(model, "config.json").read_text())["head_read"]
        )
        ways = (
            "exam: {do: evaluate, models: [$warm], against: $base, prompts: asked.jsonl, judge: $rm, samples: 2}",
            "exam: {do: evaluate, models: [$rm], against: $base, data: asked.jsonl}",
            "learn: {do: reinforce, model: $base, prompts: asked.jsonl, rewards: $rm, steps: 1, rows_per_step: 2, "
            "group_size: 2, max_new_tokens: 4}",
        )
        for way in ways[: 3 if read == "steps" else 2]:
            desk.write(f"{fitted}  {way}\n")
            assert (desk.run("--overwrite"), refused in desk.said) == ((2, True) if read == "steps" else (0, False)), (
                desk.said
            )
        code = desk("score", model, str(desk.folder / "texts.jsonl"), *scored)
        assert (code, refused in desk.said) == ((2, True) if read == "steps" else (0, False)), desk.said


ENSEMBLE = """\
stages:
  one: {do: fit_reward, model: $base, data: ratings.jsonl, objective: MANY, steps: 2, learning_rate: 1e-2}
  two: {do: fit_reward, model: $base, data: ties.jsonl, objective: rao_kupper, steps: 2, learning_rate: 1e-2}
  warm: {do: sft, model: $base, data: pairs.jsonl, steps: 2, rows_per_step: 2}
  exam: {do: evaluate, models: [$warm], against: $base, prompts: asked.jsonl, data: asked.jsonl, judge: JUDGE,
         samples: 5, max_new_tokens: 8}
""".replace("MANY", TWO)


def test_an_ensemble_judges_and_says_how_far_it_is_apart(desk: Any, given: None) -> None:
    for name in ("ratings", "ties"):
        (desk.folder / f"{name}.jsonl").write_text("{}\n")
    data = (desk.folder / "pairs.jsonl").read_text()
    (desk.folder / "asked.jsonl").write_text(data.replace("question", "asked"))
    desk.write(BASE + ENSEMBLE.replace("JUDGE", "[$one, $two], aggregate: uncertainty, coefficient: 1"))
    assert desk.run() == 0, desk.said
    facts = {(f["check"], f["model"], f["slice"]): f for f in desk.read("exam/findings.json")["findings"]}
    told = "judged by the mean less the variance of reward models one, two (coefficient 1)"
    assert facts["win_rate", "warm", "all"]["evidence"].endswith(told)
    apart = [
        facts["disagreement", *key]["value"] for key in (("warm", "all"), ("base", "all"), ("one+two", "held-out data"))
    ]
    assert min(apart) > 0 and ("disagreement_delta", "warm", "all") in facts
    assert facts["disagreement_delta", "warm", "all"]["value"] == pytest.approx(apart[0] - apart[1])
    desk.write(BASE + ENSEMBLE.replace("JUDGE", "$one"))
    assert desk.run("--overwrite") == 0, desk.said
    facts = {(f["check"], f["model"], f["slice"]) for f in desk.read("exam/findings.json")["findings"]}
    assert {("win_rate", "warm", s) for s in ("all", "clarity", "truth")} <= facts
    assert not any(check == "disagreement" for check, _, _ in facts)
    desk.write(BASE + ENSEMBLE.replace("JUDGE", "$two, aggregate: worst"))
    assert (
        desk.run("--overwrite") == 2
        and "aggregate takes several reward models, or several heads, and two has one" in desk.said
    )


@pytest.mark.parametrize(
    ("objective", "more", "message"),
    [
        (
            "[regression, {regression: {head: a}}]",
            "",
            "'regression' names no head, and others do (a): let each name one",
        ),
        (
            "{regression: {head: a}}",
            ", head_weights: {b: 1}",
            "head_weights give each head its number, {a: NUMBER}, and",
        ),
        ("regression", ", head_weights: {b: 1}", "head_weights are for heads with names, and the objective names none"),
    ],
)
def test_mistakes_are_found_before_anything_runs(desk: Any, objective: str, more: str, message: str) -> None:
    recipe(desk, objective, "ratings", more)
    assert desk("check", str(desk.folder / "r.yaml")) == 2
    assert message in desk.said


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("gold, aggregate: worst", "aggregate is for an ensemble, and judge is gold; give reward models"),
        ("[$one, $two], coefficient: 1", "'coefficient' has no effect without 'aggregate: uncertainty'"),
        (
            "[$one, $warm]",
            "'judge' must be a reward model ($stage or a folder), or a list of them, but $warm is a model",
        ),
    ],
)
def test_what_no_ensemble_is(desk: Any, judge: str, message: str) -> None:
    for name in ("ratings", "ties", "asked"):
        (desk.folder / f"{name}.jsonl").write_text("{}\n")
    desk.write(BASE + ENSEMBLE.replace("JUDGE", judge))
    assert desk("check", str(desk.folder / "r.yaml")) == 2
    assert message in desk.said


def test_a_score_that_a_row_lacks_is_named(desk: Any, given: None) -> None:
    recipe(desk, "[{regression: {head: clarity}}, {regression: {head: wit}}]", "ratings")
    assert desk.run() == 2
    assert "has no score 'wit': it has clarity, truth" in desk.said
