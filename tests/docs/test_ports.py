"""The recipes of docs/coming_from_trl.md are checked, with the data and the reward functions that the page speaks of."""

import re
from pathlib import Path

import pytest

from truing.recipe import check

PAGE = (Path(__file__).parent.parent.parent / "docs" / "coming_from_trl.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
FUNCTIONS = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if block.startswith("def "))
DATA = {
    "chats.jsonl": '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b%d"}]}',
    "pairs.jsonl": '{"prompt": "a%d", "chosen": "b", "rejected": "c"}',
    "labelled.jsonl": '{"prompt": "a%d", "completion": "b", "label": true}',
    "problems.jsonl": '{"prompt": "a%d", "answer": "b"}',
}


@pytest.fixture
def folder(tmp_path):
    for name, row in DATA.items():
        (tmp_path / name).write_text("\n".join(row % i for i in range(40)) + "\n")
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return tmp_path


@pytest.mark.parametrize("text", RECIPES, ids=["sft", "dpo", "rm", "grpo", "kto", "online", "best"])
def test_a_ported_recipe_has_no_mistake(folder, text: str) -> None:
    path = folder / "recipe.yaml"
    path.write_text(text)
    assert check.check(path).title == text.splitlines()[0].removeprefix("title: ")


def test_the_functions_on_the_page_score_as_trl_would_call_them() -> None:
    own: dict = {}
    exec(FUNCTIONS, own)  # the page's own text
    said = [[{"role": "assistant", "content": "it is 4"}], [{"role": "assistant", "content": "no"}]]
    assert own["right"](completions=said, answer=[4, 5], prompts=[]) == [1.0, 0.0]
    assert own["brief"](completion_ids=[[1] * 128, []], prompts=[]) == [-0.5, 0.0]


def test_the_page_names_every_line_of_the_table() -> None:
    from truing.recipe import other_names

    for lines in other_names.sections().values():
        assert all(f"`{line.name}`" in PAGE for line in lines)
