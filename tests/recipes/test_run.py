"""Recipes run from outside, small: every file a run promises, reuse, resume, the gate's answer, score and sample."""

import dataclasses
import json
import shutil
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from truing import cli
from truing.errors import RunFailed, UserError
from truing.recipe.check import check
from truing.run import runner as running
from truing.train import fit as fitting

RECIPES = Path(__file__).parent.parent.parent / "recipes"
SMALL = [
    "base=world:desk/tiny",
    "data=world:comparisons?n=240&rater=careful",
    "warm.data=world:demonstrations?n=300",
    "direct.learning_rate=3e-4",
    "exam.samples=60",
    "exam.max_new_tokens=48",
]


def quickstart(*more: str):
    return check(RECIPES / "quickstart.yaml", [*SMALL, *more])


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def done(tmp_path_factory, _cache) -> Path:
    """The quick-start recipe, run once on the smallest model with little data."""
    out = tmp_path_factory.mktemp("runs") / "quickstart"
    code = running.run(quickstart(), out, quiet=True)
    verdict = read(out / "decision.json")["verdict"]
    assert (verdict, code) in {("hold", 1), ("undecided", 4)}, "60 answers never ship by rules that ask for 500"
    return out


def test_a_run_leaves_what_it_promises(done) -> None:
    for stage in ("warm", "rm", "direct"):
        names = {p.name for p in (done / stage / "model").iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
        rows = lines(done / stage / "metrics.jsonl")
        assert [r["step"] for r in rows] == list(range(1, len(rows) + 1))
        assert all({"seconds", "tokens", "rows", "loss"} <= set(r) for r in rows)
        assert not (done / stage / "checkpoints").exists()
    assert lines(done / "direct" / "metrics.jsonl")[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    samples = parquet.read_table(done / "direct" / "samples.parquet").to_pylist()
    assert len(samples) == 8 and {"prompt", "response", "logp", "length", "stop"} == set(samples[0])
    manifest = read(done / "manifest.json")
    assert [s["state"] for s in manifest["stages"]] == ["done"] * 6
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["instructions"] == torch.backends.cpu.get_cpu_capability() and manifest["threads"] >= 1
    assert manifest["state"] == "done" and manifest["overrides"] == SMALL
    assert manifest["data"]["world:comparisons?n=240&seed=0&split=train&rater=careful"]


def test_the_exam_measures_what_it_says(done) -> None:
    found = {(f["check"], f["model"], f["against"]): f for f in read(done / "exam" / "findings.json")["findings"]}
    win = found["win_rate", "direct", "warm"]
    assert win["n"] == 60 and win["interval"][0] <= win["value"] <= win["interval"][1]
    assert found["win_delta", "direct", "warm"]["value"] == pytest.approx(win["value"] - 0.5)
    assert ("win_rate", "direct", "lookup") in found and ("win_rate", "warm", "lookup") in found
    kl = found["kl_to_reference", "direct", "warm"]
    assert kl["n"] == 60 and kl["interval"][0] <= kl["value"] <= kl["interval"][1]
    assert kl["interval"][1] > 0 and kl["interval"][1] - kl["interval"][0] > 0, "a KL is not below 0"
    assert ("implicit_accuracy", "direct", "") in found and ("truncated_share", "direct", "") in found
    assert len(found) == len(read(done / "exam" / "findings.json")["findings"]), "a finding stands twice"
    accuracy = read(done / "rm" / "findings.json")["findings"][0]
    assert accuracy["check"] == "held_out_accuracy" and accuracy["value"] > 0.5


def test_the_decision_follows_the_rules(done, capsys) -> None:
    decision = read(done / "decision.json")
    assert decision["verdict"] in ("hold", "undecided")
    assert [r["state"] for r in decision["results"]][:2] == ["too few", "too few"], (
        "60 answers, and the rules ask for 500"
    )
    assert (
        cli_code("gate", str(done), "--rules", str(RECIPES / "release.yaml"))
        == {"hold": 1, "undecided": 4}[decision["verdict"]]
    )
    assert "440 more" in capsys.readouterr().out


def test_the_whole_interval_decides_and_production_is_read(done, capsys, tmp_path) -> None:
    own, lax = tmp_path / "quickstart", tmp_path / "lax.yaml"
    shutil.copytree(done, own)
    measured = read(done / "exam" / "findings.json")["findings"]
    wins = {f["against"]: f for f in measured if (f["check"], f["model"]) == ("win_rate", "direct")}
    low, high = wins["warm"]["interval"]
    base = "{check: win_rate, model: direct, against: base, min: 0.5}"
    for bound, state in (
        (low - 1e-3, "passed"),
        (low + 1e-3, "straddles"),
        (high - 1e-3, "straddles"),
        (high + 1e-3, "failed"),
    ):
        (own / "looks.json").unlink()
        warm = f"{{check: win_rate, model: direct, against: warm, min: {bound}}}"
        lax.write_text(f"rules: [{warm}, {base}]\n")
        code = cli_code("gate", str(own), "--rules", str(lax), "--out", str(tmp_path / "decision.json"))
        states = [result["state"] for result in read(tmp_path / "decision.json")["results"]]
        assert states == [state, "passed" if wins["base"]["interval"][0] >= 0.5 else states[1]]
        assert code == (1 if "failed" in states else 0 if set(states) == {"passed"} else 4)
    lax.write_text(f"rules: [{{check: win_rate, model: direct, against: warm, min: {low - 0.001}}}]\n")
    assert cli_code("gate", str(own), "--rules", str(lax)) == 4
    said = capsys.readouterr().out
    assert f"add to the rules: {base}" in said and "look 2 of this gate" in said


def cli_code(*args: str) -> int:
    import sys

    before, sys.argv = sys.argv, ["truing", *args]
    try:
        code = cli.main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    return code or 0


def test_the_report_is_one_page_with_curves_and_tables(done) -> None:
    page = (done / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 4 and "<table" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "<script" not in page


def test_unchanged_stages_are_not_run_again(done, capsys) -> None:
    before = (done / "rm" / "model" / "model.safetensors").stat().st_mtime_ns
    running.run(quickstart(), done)
    assert capsys.readouterr().out.count("unchanged, not run again") == 6
    assert (done / "rm" / "model" / "model.safetensors").stat().st_mtime_ns == before
    running.run(quickstart("exam.seed=1"), done, overwrite=True)
    told = capsys.readouterr().out
    assert told.count("unchanged, not run again") == 4 and "exam (evaluate): seed was" in told
    running.run(quickstart(), done, overwrite=True, quiet=True)


def test_an_interrupted_run_resumes_to_the_same_weights(done, tmp_path, monkeypatch) -> None:
    """Killed in the fifth step of DPO; resumed, the policy is bitwise the uninterrupted one."""
    real, seen = fitting.observe, []

    def dying(policy, part, signals, reference=None):
        if "ref_chosen_logp_B" in signals:
            seen.append(part)
            if len(seen) == 5:
                raise KeyboardInterrupt
        return real(policy, part, signals, reference)

    monkeypatch.setattr(fitting, "observe", dying)
    recipe = quickstart("direct.checkpoint_every=2")
    with pytest.raises(KeyboardInterrupt):
        running.run(recipe, tmp_path / "r", quiet=True)
    monkeypatch.setattr(fitting, "observe", real)
    assert (tmp_path / "r" / "direct" / "checkpoints").exists()
    running.run(recipe, tmp_path / "r", quiet=True, resume=True)
    names = [(d / "direct" / "model" / "model.safetensors").read_bytes() for d in (done, tmp_path / "r")]
    assert names[0] == names[1]


def test_two_runs_in_one_folder_are_refused(done) -> None:
    with running.only_writer(done), pytest.raises(UserError, match="another run is writing here"):
        running.run(quickstart(), done, quiet=True)


def test_a_split_whose_data_changed_is_refused(tmp_path) -> None:
    rows = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(30)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = f"""
base: {{new: llama, hidden: 64, layers: 1, vocab: 300, text: {data}}}
stages:
  data: {{do: split, data: {data}, eval: 0.2}}
  warm: {{do: sft, model: $base, data: $data.train, steps: 2}}
"""
    running.run(check(text), tmp_path / "run", quiet=True)
    stored = read(tmp_path / "run" / "data" / "split.json")
    assert sorted(stored["train"] + stored["eval"]) == list(range(1, 31))
    data.write_text("".join(json.dumps(r | {"chosen": "other"}) + "\n" for r in rows))
    recipe = check(text.replace("steps: 2", "steps: 3"))
    spec = recipe.stages[1]
    work = running.StageRun(recipe, spec.name, spec.do, tmp_path / "run", "k", running.Show(quiet=True))
    with pytest.raises(UserError, match=r"pairs.jsonl: has changed since it was split"):
        work.records(spec.options["data"])


def test_score_gives_transformers_own_numbers(done, tmp_path) -> None:
    """Policies and reward models scored by `truing score` and by plain transformers with the stored tokenizer."""
    data = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "Please take the radio back.", "chosen": "Happy to help. No.", "rejected": "yes, we will refund it"},
        {"prompt": [{"role": "user", "content": "And now?"}], "chosen": "Please wait.", "rejected": "Go away"},
    ]
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert cli_code("score", str(done / "direct" / "model"), str(data), "--out", str(tmp_path / "p.jsonl")) == 0
    assert cli_code("score", str(done / "rm" / "model"), str(data), "--out", str(tmp_path / "r.jsonl")) == 0
    tokenizer = AutoTokenizer.from_pretrained(done / "direct" / "model")
    policy = AutoModelForCausalLM.from_pretrained(done / "direct" / "model")
    reward = AutoModelForSequenceClassification.from_pretrained(done / "rm" / "model")
    for row, logps, scores in zip(rows, lines(tmp_path / "p.jsonl"), lines(tmp_path / "r.jsonl"), strict=True):
        ask = row["prompt"] if isinstance(row["prompt"], list) else [{"role": "user", "content": row["prompt"]}]
        for side in ("chosen", "rejected"):
            prompt = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_dict=False)
            whole = tokenizer.apply_chat_template(
                [*ask, {"role": "assistant", "content": row[side]}], return_dict=False
            )
            ids = torch.tensor([whole])
            with torch.no_grad():
                logp = policy(ids).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
                score = reward(ids).logits.item()
            wanted = logp.gather(1, ids[0, len(prompt) :, None]).sum().item()
            assert logps[f"{side}_logp"] == pytest.approx(wanted, abs=1e-3)
            assert logps[f"{side}_length"] == len(whole) - len(prompt)
            assert scores[f"{side}_reward"] == pytest.approx(score, abs=1e-4)


def test_sample_writes_answers(done, tmp_path) -> None:
    (tmp_path / "prompts.txt").write_text("Please take the radio back.\nWill it come by Friday?\n")
    out = tmp_path / "answers.jsonl"
    command = ("sample", str(done / "warm" / "model"), str(tmp_path / "prompts.txt"), "--n", "3", "--out", str(out))
    assert cli_code(*command) == 0
    rows = lines(out)
    assert len(rows) == 6 and all(set(r) == {"prompt", "response", "logp", "length", "stop"} for r in rows)
    assert all(r["logp"] < 0 and r["length"] >= 1 and r["stop"] in ("eos", "length") for r in rows)
    assert [r["prompt"] for r in rows[:3]] == [rows[0]["prompt"]] * 3


def test_an_expectation_that_is_not_met_is_said_and_is_no_success(done, capsys) -> None:
    recipe = quickstart()
    strict = dataclasses.replace(recipe, expect={"exam.direct.win_rate@warm": (0.999, 1.0)})
    assert running.run(strict, done) in (1, 4)
    said = capsys.readouterr().out
    assert "expected, and not met: exam.direct.win_rate@warm is 0." in said and "all of it outside [0.999, 1.0]" in said


def test_real_pairs_end_to_end(hh, tmp_path, capsys) -> None:
    """The recipe for human pairs, a few steps of each stage: data summary, reward model, DPO, report, decision."""
    few = ["warm.steps=3", "rm.steps=3", "direct.steps=3", "exam.samples=20", "exam.max_new_tokens=8", "data.eval=0.03"]
    small = [f"{s}.max_length=160" for s in ("warm", "rm", "direct")]
    recipe = check(RECIPES / "hh_dpo.yaml", [f"data={hh}", *few, *small])
    code = running.run(recipe, tmp_path)
    told = capsys.readouterr().out
    assert code in (1, 4)
    assert "1594 rows read, 1591 usable" in told
    for line in (
        "dropped 3: chosen is empty: the response has no text (rows 55, 350, 776)",
        "joined 3: prompt role 'assistant' twice in a row (rows 455, 924, 1287)",
        "joined 3: chosen reply is not one message (rows 884, 1177, 1418)",
        "joined 1: rejected reply is not one message (row 1358)",
    ):
        assert line in told
    assert read(tmp_path / "decision.json")["verdict"] in ("hold", "undecided")
    assert (tmp_path / "report.html").exists()
    stored = read(tmp_path / "data" / "split.json")
    assert len(stored["train"]) + len(stored["eval"]) == 1591


def test_a_run_that_diverges_stops_and_says_so(hh, tmp_path) -> None:
    recipe = check(
        RECIPES / "hh_dpo.yaml",
        [f"data={hh}", "warm.steps=60", "warm.learning_rate=1e9", "warm.max_length=128", "warm.max_grad_norm=1e9"],
    )
    with pytest.raises(RunFailed, match="the model was not updated"):
        running.run(recipe, tmp_path, quiet=True)
