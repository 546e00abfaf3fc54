"""Rewards of TRL's signature by public names, imported names, factories, partial functions and objects."""

from __future__ import annotations

import sys

import pytest

from truing import registry
from truing.errors import RecipeError, UserError
from truing.recipe import check
from truing.records import Message
from truing.rewards.call import Call, Response
from truing.run.plan import own_digests

FILES = {
    # laid out as such packages are: public names are imported for type checkers, and given lazily at run time
    "fakerl/__init__.py": "",
    "fakerl/rewards/__init__.py": (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from .right import right_reward\n    from .long import get_soft_punishment\n"
        "def __getattr__(name):\n"
        "    from .right import right_reward\n    from .long import get_soft_punishment\n"
        "    return {'right_reward': right_reward, 'get_soft_punishment': get_soft_punishment}[name]\n"
    ),
    "fakerl/rewards/right.py": (
        "def right_reward(completions, solution, **kwargs):\n"
        "    texts = [c[0]['content'] for c in completions]\n"
        "    return [None if s is None else float(t == s) for t, s in zip(texts, solution)]\n"
    ),
    "fakerl/rewards/long.py": (
        "def get_soft_punishment(most, buffer):\n"
        "    def soft_punishment(completion_ids, **kwargs):\n"
        "        return [min(0.0, (most - buffer - len(ids)) / buffer) for ids in completion_ids]\n"
        "    return soft_punishment\n"
    ),
    "other.py": (
        "from truing.registry import reward\n"
        "def polite(prompts, completions, weight=1.0, **columns):\n"
        "    return [weight * ('please' in c[0]['content']) for c in completions]\n"
        "@reward('response')\ndef short(response, *, most: int = 3):\n    return float(len(response) <= most)\n"
    ),
    "mine.py": (
        "import functools\n"
        "from fakerl.rewards import get_soft_punishment, right_reward\n"
        "from other import polite\nfrom other import short as brief\n"
        "class Counts:\n"
        "    def __init__(self, word): self.word = word\n"
        "    def __call__(self, prompts, completions, **columns):\n"
        "        return [float(c[0]['content'].count(self.word)) for c in completions]\n"
        "class Silent:\n    pass\n"
        "def tidy(text):\n    return text.strip()\n"
        "soft = get_soft_punishment(6, 4)\n"
        "doubled = functools.partial(polite, weight=2.0)\n"
        "counted = Counts('a')\n"
        "silent = Silent()\n"
        "half_tidy = functools.partial(tidy, 'x')\n"
        "also_polite = polite\n"
        "THRESHOLD = 0.5\n"
        "nothing = get_soft_punishment and dict(a=1)\n"
        "number = abs(-3)\n"
    ),
}
RECIPE = """
base: world:desk/tiny
stages:
  learn: {{do: reinforce, model: $base, prompts: "world:prompts?n=20", rewards: [{reward}]}}
"""
ANSWERS = [
    Response((Message("user", "hi"),), "please a", tuple(range(6)), row={"solution": "please a"}),
    Response((Message("user", "ho"),), "b", tuple(range(3)), group=1, row={"solution": None}),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("fakerl", "other")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("fakerl.rewards:right_reward", [1.0, None]),
        ("mine.py:right_reward", [1.0, None]),
        ("mine.py:soft", [-1.0, -0.25 + 0.0]),
        ("mine.py:polite", [1.0, 0.0]),
        ("mine.py:also_polite", [1.0, 0.0]),
        ("mine.py:doubled", [2.0, 0.0]),
        ("mine.py:counted", [2.0, 0.0]),
        ("mine.py:brief", [0.0, 1.0]),
    ],
)
def test_a_reward_of_another_place_is_known_and_scores(folder, name, scores) -> None:
    assert check.check(RECIPE.format(reward=name)).stages[0].options["rewards"]
    function = registry.load(name, "reward")
    assert function.options == registry.resolve(name, "reward").options
    found = Call(function, {}, 10.0)(ANSWERS)
    wanted = [None if s is None else s for s in scores]
    if name.endswith("soft"):
        wanted = [min(0.0, (6 - 4 - len(a.ids)) / 4) for a in ANSWERS]
    assert [None if score.failed else score.value for score in found] == wanted, found


def test_columns_that_a_factory_or_a_partial_function_cannot_do_without(folder) -> None:
    assert Call(registry.load("mine.py:right_reward", "reward")).columns == ("solution",)
    assert Call(registry.load("mine.py:doubled", "reward")).columns == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.py:tidy", "has no decorator @reward, and takes neither completions nor completion_ids; its rewards: "),
        ("mine.py:Counts", "is a class: give an object of it, NAME = CLASS(...)"),
        ("mine.py:silent", "is an object that cannot be called: its class has no __call__"),
        ("mine.py:half_tidy", "takes neither completions nor completion_ids"),
        ("mine.py:THRESHOLD", "is 0.5, and no function"),
        ("mine.py:polit", "unknown reward 'polit'. Did you mean 'polite'? Known: "),
        ("fakerl.rewards:rihgt_reward", "unknown reward 'rihgt_reward'. Did you mean 'right_reward'? Known: "),
    ],
)
def test_what_is_no_reward_says_why_and_which_names_are(folder, name, said) -> None:
    with pytest.raises(RecipeError) as problem:
        check.check(RECIPE.format(reward=name))
    assert said in str(problem.value)
    if name.startswith("mine.py"):
        assert "also_polite, brief, counted, doubled, polite, right_reward, soft" in str(problem.value)


def test_a_file_without_any_says_why_each_of_its_names_is_none(folder) -> None:
    (folder / "plain.py").write_text("LIMIT = 3\ndef f(x):\n    return x\n")
    with pytest.raises(UserError) as problem:
        registry.resolve("plain.py:g", "reward")
    assert "has no reward (LIMIT is 3, and no function, f has no decorator @reward, and takes" in str(problem.value)


def test_what_only_running_tells_is_refused_when_it_is_loaded(folder) -> None:
    assert registry.resolve("mine.py:number", "reward").scope == "trl"
    with pytest.raises(UserError, match=r"'number' in .* is a int, and is not decorated with @reward"):
        registry.load("mine.py:number", "reward")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mine.py:polite", "other.py"),
        ("mine.py:doubled", "other.py"),
        ("mine.py:soft", "fakerl/rewards/long.py"),
        ("fakerl.rewards:right_reward", "fakerl/rewards/right.py"),
    ],
)
def test_a_change_where_it_is_defined_changes_the_fingerprint(folder, name, file) -> None:
    before = own_digests(name, "reward")
    assert before == own_digests(name, "reward")
    (folder / file).write_text(FILES[file] + "# changed\n")
    assert own_digests(name, "reward") != before


WAYS = """
from other import polite
class Base:
    def __call__(self, completions, **columns):
        return [1.0 for _ in completions]
class Inherits(Base):
    pass
def make(value):
    def score(completions, **columns):
        return [value for _ in completions]
    return score
inherited = Inherits()
first, second = make(1.0), make(2.0)
try:
    import nowhere_to_be_had
except ImportError:
    def fallback(completions, **columns):
        return [1.0 for _ in completions]
with open(__file__):
    within = make(1.0)
"""


@pytest.mark.parametrize("name", ["inherited", "first", "second", "fallback", "within"])
def test_however_a_module_makes_a_reward_it_is_known_and_scores(folder, name) -> None:
    """An object of a class that inherits `__call__` was said to have none."""
    (folder / "ways.py").write_text(WAYS)
    assert registry.resolve(f"ways.py:{name}", "reward").scope == "trl"
    scores = Call(registry.load(f"ways.py:{name}", "reward"), {}, 10.0)(ANSWERS)
    assert [score.value for score in scores] == [2.0 if name == "second" else 1.0] * len(ANSWERS)
    with pytest.raises(UserError, match="unknown reward 'zzz'"):
        registry.resolve("ways.py:zzz", "reward")


@pytest.mark.parametrize("begins", [b"\xef\xbb\xbf", b"# -*- coding: latin-1 -*-\n# \xe9\n"], ids=["BOM", "latin-1"])
def test_a_file_is_read_in_the_coding_that_python_reads_it_in(folder, begins) -> None:
    (folder / "coded.py").write_bytes(begins + b"def own(completions, **columns):\n    return [1.0, 1.0]\n")
    assert registry.resolve("coded.py:own", "reward").scope == "trl"
    assert registry.load("coded.py:own", "reward").scope == "trl"


def test_a_file_that_python_cannot_hold_is_refused(folder) -> None:
    (folder / "long.py").write_text("x = " + "+".join(["1"] * 50_000) + "\n")
    with pytest.raises(UserError, match=r"long\.py: cannot be read as Python"):
        registry.resolve("long.py:x", "reward")


def test_modules_that_import_each_other_end(folder) -> None:
    (folder / "one.py").write_text("from two import f\n")
    (folder / "two.py").write_text("from one import f\n")
    with pytest.raises(UserError, match="unknown reward 'f'"):
        registry.resolve("one.py:f", "reward")


def test_an_objective_that_is_imported_is_known_and_keeps_its_own_place(folder) -> None:
    (folder / "loss.py").write_text("from truing.objectives import dpo\n")
    part, loaded = registry.resolve("loss.py:dpo", "objective"), registry.load("loss.py:dpo", "objective")
    assert part.options == loaded.options and part.name == "dpo"
    assert loaded.place.endswith("loss.py:dpo") and registry.load("dpo", "objective").place == ""


def test_a_files_own_folder_is_looked_in_first_as_of_a_script(folder, monkeypatch, tmp_path_factory) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(folder)])
    (folder / "own.py").write_text("from other import polite\n")
    assert registry.load(f"{folder}/own.py:polite", "reward").name == "polite"
    assert sys.path[0] != str(folder)
