"""The recipes that come with truing: run by name from anywhere, shown to be copied, and in the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from truing import cli
from truing.errors import RecipeError, UserError
from truing.recipe import shipped
from truing.recipe.check import check

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """What a wheel holds, unpacked as an installation has it."""
    out = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(out), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        archive.extractall(out / "site")
    return out / "site"


def truing(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command of an installation, in a folder."""
    env = os.environ | {"PYTHONPATH": str(site)}
    told = [sys.executable, "-c", "import truing.cli as c; c.main()", *words]
    return subprocess.run(told, cwd=folder, env=env, capture_output=True, text=True)


def test_an_installation_checks_a_recipe_by_name_from_anywhere(wheel, tmp_path) -> None:
    done = truing(wheel, tmp_path, "check", "quickstart")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("quickstart: no mistakes. 6 stages: ")
    assert sorted(p.name for p in (wheel / "truing" / "recipes").iterdir()) == [p.name for p in shipped.files()]


def test_without_a_command_it_says_what_to_do_first(wheel, tmp_path) -> None:
    done = truing(wheel, tmp_path)
    assert done.returncode == 0 and "truing run quickstart" in done.stdout and "truing list recipes" in done.stdout


def test_a_recipe_that_was_copied_finds_its_rules(tmp_path, monkeypatch, capsys) -> None:
    here = tmp_path / "empty"
    here.mkdir()
    monkeypatch.chdir(here)
    cli.show("recipe", "quickstart")
    (here / "mine.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    rules = check("mine.yaml").stage("release").options["rules"]
    assert Path(rules) == shipped.folder() / "release.yaml"
    (here / "release.yaml").write_text("rules: [{check: win_rate, against: base, min: 0.5}]\n")
    assert check("mine.yaml").stage("release").options["rules"] == "release.yaml"


@pytest.mark.parametrize("name", ["grpo", "grpo.yaml", "recipes/grpo.yaml"])
def test_a_shipped_recipe_by_its_names(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(name).title == check(ROOT / "recipes" / "grpo.yaml").title
    (tmp_path / "grpo").write_text("stages: {}\n")
    assert shipped.locate("grpo") == Path("grpo"), "one's own file goes first"


@pytest.mark.parametrize("name", ["other/grpo.yaml", "../recipes/grpo.yaml", "/recipes/grpo.yaml"])
def test_a_path_elsewhere_is_no_name(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"no such file|cannot be read"):
        check(name)


def test_a_misspelt_name_has_a_hint(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="Did you mean 'quickstart'"):
        check("quikstart")
    with pytest.raises(UserError, match=r"unknown recipe 'gripo'\. Did you mean 'grpo'"):
        shipped.text("gripo")


def test_every_recipe_says_what_it_is_for(capsys) -> None:
    cli.list_parts("recipes")
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in shipped.recipes())
    assert all(len(row["doc"]) > 20 and "truing run" not in row["doc"] for row in shipped.rows())
