"""The evaluate stage, and `sample` and `score`, from outside on small models: names, notes, limits and refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from small_models import build
from truing import cli, world
from truing.errors import UserError
from truing.policy import heads
from truing.recipe.check import check
from truing.recipe.model_labels import labels
from truing.recipe.references import Ref
from truing.run import runner as running

TEXT = list(world.records("world:demonstrations?n=40").texts())
PROMPTS = "world:prompts?n=5&split=eval"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs' models of one tokenizer, one of another, one that reads 64 tokens, and a reward model."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("run1/direct/model", "run1/warm/model", "run2/warm/model")):
        build("llama", TEXT, root / name, vocab=600, seed=seed)
    build("llama", TEXT[:9], root / "other", vocab=320)
    heads.save(heads.fresh_reward(str(root / "run1/warm/model"), seed=0), root / "run1/rm/model")
    short = build("llama", TEXT, root / "short", vocab=600)
    config = json.loads((short / "config.json").read_text()) | {"max_position_embeddings": 64}
    (short / "config.json").write_text(json.dumps(config))
    return root


def examine(out: Path, models: str, against: Path | str, more: str = "", samples: int = 4) -> dict[str, Any]:
    """Run an evaluate stage; gives its findings by check and model, and its summary."""
    options = f"models: {models}, against: '{against}', samples: {samples}, max_new_tokens: 6"
    text = f"stages:\n  exam: {{do: evaluate, {options}, prompts: '{PROMPTS}'{more}}}\n"
    assert running.run(check(text), out, quiet=True) == 0
    found = json.loads((out / "exam" / "findings.json").read_text())["findings"]
    summary = json.loads((out / "exam" / "summary.json").read_text())
    return {"found": {(f["check"], f["model"], f["against"]): f for f in found}, **summary}


def command(*words: object) -> int:
    before, sys.argv = sys.argv, ["truing", *map(str, words)]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def test_models_named_by_folder_keep_names_of_their_own(root: Path, tmp_path: Path) -> None:
    """Two folders against a third: both are examined; they were all called `base`, and dropped."""
    done = examine(tmp_path, f"['{root}/run1/direct/model', '{root}/run1/warm/model']", root / "run2/warm/model")
    assert {(m, a) for c, m, a in done["found"] if c == "win_rate"} == {
        ("direct", "run2/warm"),
        ("run1/warm", "run2/warm"),
    }
    assert (
        done["headline"].startswith("direct over run2/warm: win rate ")
        and "on 4 prompts, ties half" in done["headline"]
    )


def test_names_are_short_and_tell_models_apart() -> None:
    warm = Ref("model", "warm")
    assert labels([warm, "Qwen/Qwen3-0.6B", "world:desk/tiny"], base=None) == ["warm", "Qwen3-0.6B", "tiny"]
    assert labels(["world:desk/tiny", "run/warm/model", warm], base="world:desk/tiny") == ["base", "run/warm", "warm"]
    assert labels(["/x/dir", "dir", "dir"], base=None) == ["x/dir", "dir", "dir"]
    assert labels([{"new": "llama"}, warm, {"new": "llama"}], base=None) == ["new", "warm", "new"]
    for other in ({"new": "qwen2"}, Ref("model", "new")):
        with pytest.raises(UserError, match="two models are called 'new' in findings"):
            labels([{"new": "llama"}, other], base=None)
    with pytest.raises(UserError, match=r"model '\./a' and model 'a' cannot be told apart"):
        labels(["./a", "a"], base=None)
    with pytest.raises(UserError, match="a stage called 'lookup' cannot be told from the lookup in findings"):
        labels([Ref("model", "lookup")], base=None, taken=("lookup",))


def test_an_expectation_may_name_a_model_by_its_folder(root: Path) -> None:
    text = (
        f"stages:\n  exam: {{do: evaluate, models: ['{root}/other'], against: '{root}/short', prompts: '{PROMPTS}'}}\n"
    )
    assert check(text + "expect: {exam.other.win_rate: [0, 1]}\n").expect == {"exam.other.win_rate": (0.0, 1.0)}
    with pytest.raises(UserError, match="unknown model 'base'"):
        check(text + "expect: {exam.base.win_rate: [0, 1]}\n")


def test_another_tokenizer_gives_words_to_compare_and_no_kl(root: Path, tmp_path: Path, capsys: Any) -> None:
    pairs = ", data: 'world:comparisons?n=6'"
    for one, two in (("run1/direct/model", "other"), ("other", "run1/direct/model")):
        done = examine(tmp_path / one.split("/")[0], f"['{root / one}']", root / two, pairs)
        checks = {c for c, _, _ in done["found"]}
        assert {"win_rate", "mean_length_delta_tokens", "truncated_share"} <= checks
        assert not {"kl_to_reference", "implicit_accuracy"} & checks
        name, other = (x.split("/")[-2] if "/" in x else x for x in (one, two))
        assert f"no implicit accuracy of {name} against {other}: their tokenizers differ" in done["notes"]
        assert f"no KL of {name} to {other}: their tokenizers or chat templates differ" in done["notes"]
        length = done["found"]["mean_length_delta_tokens", name, other]
        assert length["evidence"].endswith(f"counted by {name}'s tokenizer")
        assert "their tokenizers or chat templates differ" in (tmp_path / one.split("/")[0] / "report.html").read_text()
    (tmp_path / "r.yaml").write_text("rules: [{check: kl_to_reference, model: other, max: 30}]\n")
    assert command("gate", tmp_path / "other", "--rules", tmp_path / "r.yaml") == 4
    assert "evidence missing, no finding of check 'kl_to_reference'" in capsys.readouterr().out


def test_kl_is_left_out_unless_drawn_at_temperature_1(root: Path, tmp_path: Path) -> None:
    models = f"['{root}/run1/direct/model']", root / "run1/warm/model"
    assert ("kl_to_reference", "direct", "warm") in examine(tmp_path / "at1", *models)["found"]
    for temperature in (0.7, 0):
        done = examine(tmp_path / f"t{temperature}", *models, f", temperature: {temperature}")
        assert ("kl_to_reference", "direct", "warm") not in done["found"]
        drawn = f"responses were drawn at temperature {temperature}, and a KL needs them drawn at 1"
        unknown = (
            "direct/model (there is no lineage.json in its folder); warm/model (there is no lineage.json in its folder)"
        )
        assert done["notes"] == [
            f"the training data of these are unknown, so that no leak through them is seen: {unknown}",
            f"no KL of direct to warm: {drawn}",
        ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("models: ['{}/run1/direct/model'], against: '{}/other', judge: '{}/run1/warm/model'", "is no reward model"),
        ("models: ['{}/run1/direct/model'], against: '{}/run1/rm/model'", "a language model is needed"),
        ("models: ['{}/other'], against: '{}/other'", "there is no model to answer beside other itself"),
        ("models: ['{}/run1/rm/model'], against: '{}/other'", "there is no model to answer beside other itself"),
        ("models: ['{}/short'], against: '{}/other'", "no prompt is left to answer: with max_new_tokens 64"),
    ],
)
def test_what_cannot_be_examined_is_refused(root: Path, tmp_path: Path, options: str, message: str) -> None:
    text = f"stages:\n  exam: {{do: evaluate, prompts: '{PROMPTS}', {options.replace('{}', str(root))}}}\n"
    with pytest.raises(UserError, match=message):
        running.run(check(text), tmp_path, quiet=True)


def test_a_reward_model_is_no_place_to_begin_from(root: Path, tmp_path: Path) -> None:
    text = f"stages:\n  warm: {{do: sft, model: '{root}/run1/rm/model', data: 'world:demonstrations?n=8', steps: 1}}\n"
    with pytest.raises(UserError, match="is a reward model"):
        running.run(check(text), tmp_path, quiet=True)


def test_a_reward_model_by_folder_orders_pairs(root: Path, tmp_path: Path) -> None:
    text = f"""
stages:
  exam: {{do: evaluate, models: ['{root}/run1/rm/model'], against: '{root}/other', data: 'world:comparisons?n=6'}}
"""
    assert running.run(check(text), tmp_path, quiet=True) == 0
    (found,) = json.loads((tmp_path / "exam" / "findings.json").read_text())["findings"]
    assert (found["check"], found["model"]) == ("held_out_accuracy", "rm")


def test_a_held_out_pair_that_was_cut_is_told(root: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Is a refund due?", "chosen": "yes " * 80, "rejected": "no"}]
    rows += [{"prompt": f"Is it due {i}?", "chosen": "yes", "rejected": "no"} for i in range(3)]
    rows += [{"prompt": "so " * 90, "chosen": "yes", "rejected": "no"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = f"""
stages:
  exam: {{do: evaluate, models: ['{root}/short'], against: '{root}/run1/warm/model', data: '{tmp_path}/pairs.jsonl'}}
"""
    assert running.run(check(text), tmp_path / "run", quiet=True) == 0
    (found,) = json.loads((tmp_path / "run/exam/findings.json").read_text())["findings"]
    assert (found["check"], found["n"]) == ("implicit_accuracy", 4)
    (note,) = json.loads((tmp_path / "run/exam/summary.json").read_text())["notes"]
    assert note == (
        "held-out pairs that short ordered: kept 4 rows, truncated 1, dropped 1 "
        "(response cut at max_length 64: row 1; prompt longer than max_length 64: row 5)"
    )
    assert note in (tmp_path / "run/report.html").read_text()


def test_max_length_above_the_models_context_stops_before_training(root: Path, tmp_path: Path) -> None:
    text = f"stages:\n  warm: {{do: sft, model: '{root}/short', data: 'world:demonstrations?n=8', steps: 1}}\n"
    with pytest.raises(UserError, match=r"stage warm: max_length 1024 is beyond the 64 tokens .*set max_length: 64 or"):
        running.run(check(text), tmp_path, quiet=True)
    assert not (tmp_path / "warm" / "metrics.jsonl").exists()


def test_training_on_prompts_alone_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}\n')
    text = f"stages:\n  warm: {{do: sft, model: '{root}/other', data: '{tmp_path}/p.jsonl', steps: 1}}\n"
    with pytest.raises(UserError, match=r"p.jsonl, row 1: this is a prompt alone, without a response to learn from"):
        running.run(check(text), tmp_path / "run", quiet=True)


def test_sample_and_score_say_what_does_not_fit(root: Path, tmp_path: Path, capsys: Any) -> None:
    out, asked, pairs = tmp_path / "out.jsonl", tmp_path / "asked.jsonl", tmp_path / "pairs.jsonl"
    asked.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    assert command("sample", root / "short", asked, "--out", out, "--max-new-tokens", 8) == 0
    assert len(out.read_text().splitlines()) == 2
    out.unlink()
    assert command("sample", root / "short", asked, "--out", out, "--max-new-tokens", 64) == 2
    assert "with max_new_tokens 64 that is beyond the 64" in capsys.readouterr().err
    (tmp_path / "none.txt").write_text("\n")
    assert command("sample", root / "short", tmp_path / "none.txt", "--out", out) == 2
    assert "the file is empty: there is no prompt in it" in capsys.readouterr().err
    rows = [{"prompt": "q", "chosen": "yes " * 80, "rejected": "no"}, {"prompt": "q", "chosen": "a", "rejected": "b"}]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command("score", root / "short", pairs, "--out", out) == 2
    assert "reads 64 tokens, so not every row can be scored whole" in capsys.readouterr().err
    assert command("score", root / "run1/rm/model", pairs, "--out", out) == 0
    assert set(json.loads(out.read_text().splitlines()[0])) == {"chosen_reward", "rejected_reward"}
