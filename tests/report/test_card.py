"""The model card, and what it lets nobody slip in."""

from __future__ import annotations

import yaml

from truing.report.card import model_card
from truing.types import Finding


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
    assert set(head) == {"library_name", "license", "tags"} and head["library_name"] == "transformers"
    body = card.split("---\n\n", 1)[1]
    assert "<script" not in body and "\u202e" not in card and "](javascript" not in body.replace("\\](", "")
    assert not [line for line in body.splitlines() if line.startswith(("license", "inference", "# <"))]
    row = next(line for line in body.splitlines() if line.startswith("| x"))
    assert len(row.replace("\\|", "").split("|")) == 4
