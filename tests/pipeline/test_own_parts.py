"""Parts of a user's own as a newcomer writes them: bare decorators, and imports of what is installed elsewhere."""

from __future__ import annotations

import re
import sys

import pytest

from truing import contract, plugins, registry
from truing.errors import UserError


@pytest.mark.parametrize("written", ["@objective", "@objective()", "@registry.objective(differs='a little')"])
def test_a_decorator_without_its_source_is_refused_before_anything_runs(tmp_path, written):
    file = tmp_path / "own.py"
    file.write_text(f"{written}\ndef mine(logp_B, *, scale: float = 1.0):\n    return scale * logp_B\n")
    said = re.escape(f"{file}:2: objective 'mine': its decorator does not say its source; write @objective(source=")
    for refused in (
        lambda: registry.resolve("own.py:mine", "objective", tmp_path),
        lambda: contract.verify(str(file)),
    ):
        with pytest.raises(UserError, match=said):
            refused()


@pytest.mark.parametrize(
    ("kind", "missing"), [("stage", "its gives; write @stage(gives="), ("reward", "its scope; write @reward(scope=")]
)
def test_so_is_one_of_a_stage_or_a_reward(tmp_path, kind, missing):
    (tmp_path / "own.py").write_text(f"@{kind}\ndef mine(answers):\n    return answers\n")
    with pytest.raises(UserError, match=re.escape(missing)):
        registry.resolve("own.py:mine", kind, tmp_path)


@pytest.mark.parametrize("place", ["elsewhere/site-packages", "usr/lib/python3/dist-packages"])
def test_what_is_installed_in_another_place_on_the_path_is_no_module_of_the_users(tmp_path, monkeypatch, place):
    """A container's environment reads the system's packages too; to hash all of torch with a file takes minutes."""
    installed, own = tmp_path / place, tmp_path / "own"
    for file, text in {
        installed / "heavy" / "__init__.py": "from heavy import core\nraise SystemExit\n",
        installed / "heavy" / "core.py": "",
        installed / "alone.py": "import alone_too\n",
        installed / "alone_too.py": "",
        own / "mine.py": "import alone, heavy.core, near\n",
        own / "near.py": "",
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(installed)
    assert plugins.sources(own / "mine.py") == [own / "mine.py", own / "near.py"]
    assert plugins.sources(installed / "alone.py") == [installed / "alone.py"]
    assert "heavy" not in sys.modules
