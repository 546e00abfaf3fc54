"""The model card, and what it lets nobody slip in."""

from __future__ import annotations

import yaml

from truing.records import Finding
from truing.report.card import model_card, named_on_card


def front(card: str) -> dict[str, object]:
    loaded = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


def test_it_says_what_the_model_is(measured: list[Finding]) -> None:
    card = model_card(
        title="direct",
        base="Qwen/Qwen3-0.6B",
        method="dpo",
        data={"comparisons.jsonl": "9f2b7c11a0d4e853"},
        figures={"final_loss": 0.42131234, "steps": "180"},
        findings=measured,
        licence="apache-2.0",
    )
    head = front(card)
    assert head["base_model"] == "Qwen/Qwen3-0.6B" and head["license"] == "apache-2.0"
    assert "| win rate | direct | warm | all | 66.0 % | 61.7 to 70.0 | 500 |" in card
    assert "| mean length delta | direct | warm | all | +6.4 tokens | +4.1 to +8.8 | 500 |" in card
    assert "| comparisons.jsonl | 9f2b7c11a0d4e853 |" in card and "| final loss | 0.421312 |" in card


def test_an_unknown_licence_is_said_to_be_unknown() -> None:
    card = model_card(title="m", base="world:desk/small", method="sft")
    assert "Licence: unknown." in card and front(card)["license"] == "unknown" and "base_model" not in front(card)


def test_nothing_can_be_slipped_in() -> None:
    nasty = 'x\n---\nlicense: mit\ninference: true\n# <script>alert(1)</script> | a | [l](javascript:x) `c` \u202e "'
    card = model_card(
        title=nasty, base=nasty, method=nasty, data={nasty: nasty}, figures={nasty: nasty}, licence=nasty, notes=[nasty]
    )
    head = front(card)
    assert set(head) == {"library_name", "license", "pipeline_tag", "tags"} and head["library_name"] == "transformers"
    body = card.split("---\n\n", 1)[1]
    assert "<script" not in body and "\u202e" not in card and "](javascript" not in body.replace("\\](", "")
    assert not [line for line in body.splitlines() if line.startswith(("license", "inference", "# <"))]
    row = next(line for line in body.splitlines() if line.startswith("| x"))
    assert len(row.replace("\\|", "").split("|")) == 4


def test_what_the_hub_follows_is_a_name_of_the_hub() -> None:
    """`base_model` and `datasets` where they have that form, and never a path of somebody's machine."""
    card = model_card(
        title="m",
        base="base",
        method="sft",
        base_model="Qwen/Qwen3-0.6B",
        datasets=["org/pairs", "pairs.jsonl", "/home/me/pairs.jsonl", "org/pairs", "a b/c\n- d"],
    )
    head = front(card)
    assert head["base_model"] == "Qwen/Qwen3-0.6B" and head["datasets"] == ["org/pairs"]
    local = front(model_card(title="m", base="/home/me/base", method="sft", datasets=["rows.jsonl"]))
    assert not {"base_model", "datasets"} & set(local)


def test_it_says_how_a_model_is_loaded_and_read() -> None:
    language, reward = (model_card(title="m", base="b", method="x", kind=kind) for kind in ("language", "reward"))
    assert front(language)["pipeline_tag"] == "text-generation" and "model.generate(**prompt" in language
    assert front(reward)["pipeline_tag"] == "text-classification" and "`add_special_tokens=False`" in reward
    assert "AutoModelForSequenceClassification" in reward and "eos_token_id" in language
    assert all("Read with transformers 4." in card for card in (language, reward))
    adapter = model_card(title="m", base="b", method="x", adapter=True)
    assert front(adapter)["library_name"] == "peft" and "GenerationConfig.from_pretrained(folder)" in adapter


def test_what_a_model_began_with_is_handed_on(tmp_path) -> None:
    """From the card of the stage before; of a card that truing did not write nothing, and no text of somebody's."""
    said = {"base": "stage warm", "base_model": "Qwen/Qwen3-0.6B", "datasets": ["org/pairs"]}
    path = tmp_path / "README.md"
    path.write_text(model_card(title="m", method="sft", **said))
    assert named_on_card(tmp_path) == ("Qwen/Qwen3-0.6B", ["org/pairs"])
    for text in (path.read_text().replace("- truing\n", ""), "---\n[1\n---\n", "# a model", "---\n- 1\n---\n", ""):
        path.write_text(text)
        assert named_on_card(tmp_path) == ("", [])
    assert named_on_card(tmp_path / "nowhere") == ("", [])
