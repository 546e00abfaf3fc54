"""The recipe at the beginning of each page has no mistake, so that a reader can run it."""

import re
from pathlib import Path

import pytest

from truing.recipe import check

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = ("conclusions", "models", "online", "overoptimisation", "recipes", "rewards")


@pytest.mark.parametrize("name", PAGES)
def test_the_first_recipe_of_a_page_is_right(tmp_path, name: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / f"{name}.md").read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "recipe.yaml"
    path.write_text(blocks[0])
    assert check.check(path).title == blocks[0].splitlines()[0].removeprefix("title: ")
