"""A run's folder as the pipeline leaves it, made up for tests."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from truing.records import Finding

RECIPE = """title: Support desk, DPO
base: world:desk/small
stages:
  data:    {do: split, data: world:comparisons?n=4000, by: prompt, eval: 0.1}
  warm:    {do: sft, model: $base, data: world:demonstrations?n=2000}
  rm:      {do: fit_reward, model: $warm, data: $data.train}
  direct:  {do: prefer, model: $warm, data: $data.train, objective: {dpo: {beta: 0.1}}}
  exam:    {do: evaluate, models: [$warm, $direct], against: $warm, data: $data.eval}
  release: {do: gate, evidence: $exam, rules: release.yaml}
"""


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def findings(model: str = "direct", against: str = "warm") -> list[Finding]:
    said = "500 prompts: 310 won, 40 tied, 150 lost; judged by gold"
    return [
        Finding("win_rate", model, 0.66, against, "all", (0.617, 0.7), 500, 0.5, "better", said),
        Finding("win_delta", model, 0.16, against, "all", (0.117, 0.2), 500, 0.0, "better", said),
        Finding("mean_score", model, 0.71, "", "all", (0.68, 0.74), 500, None, "measured", said),
        Finding("mean_score", against, 0.52, "", "all", (0.49, 0.55), 500, None, "measured", said),
        Finding("mean_length_delta_tokens", model, 6.4, against, "all", (4.1, 8.8), 500, 0.0, "longer", "500 pairs"),
        Finding("kl_to_reference", model, 9.31, against, "all", (8.9, 9.75), 500, 0.0, "moved", "500 fresh responses"),
        Finding("held_out_accuracy", "rm", 0.783, "", "all", (0.741, 0.82), 400, 0.5, "better", "400 pairs"),
        Finding("win_rate", model, 0.47, against, "red-team", (0.38, 0.56), 110, 0.5, "unclear", said),
        Finding("win_rate", "policy", 0.41, against, "all", (0.368, 0.454), 500, 0.5, "worse", said),
    ]


def trained(run: Path, warm: str, word: str, draw: random.Random) -> None:
    for name, height in ((warm, 3.1), ("rm", 0.69), ("direct", 0.69)):
        lines = []
        for s in range(1, 181):
            row: dict[str, Any] = {"step": s, "seconds": 0.41, "tokens": 7800, "rows": 32, "grad_norm": 1.2}
            row["loss"] = height * (0.45 + 0.55 * math.exp(-s / 50)) + draw.gauss(0, 0.035 * height)
            if name != warm:
                row["accuracy"] = 0.5 + 0.3 * (1 - math.exp(-s / 40)) + draw.gauss(0, 0.04)
                row["margin_nats"] = 2.4 * (1 - math.exp(-s / 70)) + draw.gauss(0, 0.15)
                row[f"chosen_log_ratio{word}"] = -1.1 * (1 - math.exp(-s / 90)) + draw.gauss(0, 0.1)
            lines.append(json.dumps(row))
        (run / name).mkdir(parents=True, exist_ok=True)
        (run / name / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        figures = [{"name": "final_loss", "value": 0.4213}, {"name": "peak memory", "value": 0.9, "unit": "GB"}]
        put(run / name / "summary.json", {"do": "train", "headline": "180 steps, loss 0.42", "figures": figures})


def examples(run: Path, word: str) -> None:
    ask = "My parcel with order 4471 says delivered, but nothing came. I want my money back today."
    replies = {
        "warm": {"text": "We are sorry to hear that. Your refund has been granted.", "score": 0.31},
        f"direct{word}": {
            "text": f"I am sorry. Under rule 7 (parcel marked delivered) I first ask the carrier for proof, "
            f"which takes two days; if there is none, you get the full refund.{word}",
            "score": 0.86,
        },
    }
    turns = [
        {"role": "user", "content": "You close at nine, right?" + word},
        {"role": "assistant", "content": "At six."},
    ]
    turns.append({"role": "user", "content": "No, at nine. I am sure."})
    second = {"warm": {"text": "You are right, nine.", "score": -0.4}, "direct": {"text": "It is six.", "score": 0.7}}
    put(
        run / "exam/examples.json",
        [{"prompt": ask + word, "responses": replies}, {"prompt": turns, "responses": second}],
    )


def whole(run: Path, word: str = "") -> Path:
    """Every piece a run can have. `word` is put into every place a stranger's text can reach."""
    draw = random.Random(0)
    names = ["data", f"warm{word}".replace("/", "∕"), "rm", "direct", "exam", "release"]
    does = ["split", "sft", "fit_reward", "prefer", "evaluate", "gate"]
    manifest = {
        "title": f"Support desk, DPO{word}",
        "recipe": RECIPE + word,
        "recipe_path": "recipes/desk.yaml",
        "seed": 7,
        "started": "2026-11-21 09:14 UTC",
        "seconds": 412.4,
        "versions": {"python": "3.11.7", "truing": "0.2.0", "torch": "2.11.0"},
        "threads": 2,
        "instructions": "AVX2",
        "machine": f"2 cores, Linux{word}",
        "hashes": {"data": "9f2b7c11a0d4e853", "base": "51be0c37d2aa9034"},
        "stages": [
            {"name": n, "do": d, "state": "done" if i else "reused", "seconds": 10.0 + 31.7 * i}
            for i, (n, d) in enumerate(zip(names, does, strict=True))
        ],
    }
    put(run / "manifest.json", manifest)
    notes = [{"problem": f"empty response{word}", "action": "dropped", "count": 3, "rows": [12, 410, 2203]}]
    notes.append({"problem": "same text twice", "action": "joined", "count": 41, "rows": list(range(7, 48))})
    data = {"file": f"comparisons.jsonl{word}", "read": 4000, "usable": 3956, "notes": notes}
    put(run / "data/summary.json", {"do": "split", "headline": "3,560 to train, 396 held out", "data": data})
    trained(run, names[1], word, draw)
    table = {"title": f"By kind of request{word}", "columns": ["kind", "prompts", f"won{word}"]}
    table["rows"] = [["order status", 210, 0.71], ["refund", 180, 0.64], [f"red-team{word}", 110, 0.47]]
    put(
        run / "exam/summary.json", {"do": "evaluate", "tables": [table], "notes": [f"Judged by the gold reward.{word}"]}
    )
    found = [f.as_json() for f in findings(f"direct{word}", f"warm{word}")]
    put(run / "exam/findings.json", {"suite": "desk", "models": ["warm", "direct"], "findings": found})
    examples(run, word)
    results = [
        {
            "rule": f"win_delta: lower end at least 0, from 200 samples or more{word}",
            "state": "passed",
            "text": f"direct against warm: 0.16 [0.117, 0.2] from 500 samples{word}",
        },
        {
            "rule": "mean_length_delta_tokens: upper end at most 5",
            "state": "failed",
            "text": "direct against warm: 6.4 [4.1, 8.8]; the value itself misses the bound",
        },
    ]
    put(run / "decision.json", {"verdict": "hold", "results": results, "evidence_hash": "a41be0c37d2aa903"})
    return run


@pytest.fixture(scope="session")
def whole_run() -> Callable[..., Path]:
    """Writes a whole run into a folder."""
    return whole


@pytest.fixture
def measured() -> list[Finding]:
    """Findings of a model, a reward model and a policy."""
    return findings()
