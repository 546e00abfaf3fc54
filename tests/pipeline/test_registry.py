"""The registry: signatures read without executing, checked values, plug-ins, and shapes at call time."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from truing import plugins, registry
from truing.errors import UserError
from truing.records import Count, Positive
from truing.registry import Objective, Option, stage
from truing.schema.signature import read_parts
from truing.schema.type_words import describe, parse_type
from truing.settings import Training

OBJECTIVES = '''
raise SystemExit("executed")

@objective("A and B 2024, " "eq. 1", exempt={"order": "why"}, differs="a little")
def tied(chosen_logp_B: Tensor, rejected_logp_B: Tensor, margin_B: Tensor | None = None, *,
         beta: Positive = 0.1, kind: Literal["a", "b"] = "a", top: "Count | None" = None, low: float = -1.0) -> Tensor:
    """What it does.

    More."""
    return beta + low + (kind, top)

@registry.objective(source="C")
def words(logp_BT, mask_BT, *, must: bool, unread: int = 0):
    return must

def not_one(x):
    pass
'''
STAGES = '''
@stage(gives="data", parts=("train", "eval"))
def cut(run, *, data: Data) -> None:
    """Cut."""
    data

@stage(gives="model")
def teach(run, *, model: Model, data: Data | None = None, training: Training = Training(learning_rate=1e-4)) -> None:
    """Teach."""
    model, data, training
'''


@pytest.fixture
def root(tmp_path):
    """A package with two objectives and two stages, none of which can be imported."""
    (tmp_path / "objectives").mkdir()
    (tmp_path / "stages").mkdir()
    (tmp_path / "objectives" / "some.py").write_text(OBJECTIVES)
    (tmp_path / "stages" / "some.py").write_text(STAGES)
    return tmp_path


def test_an_objective_is_read_from_its_source(root):
    part = registry.parts("objective", root)["tied"]
    assert (part.source, part.differs, part.doc, part.per) == (
        "A and B 2024, eq. 1",
        "a little",
        "What it does.\n\nMore.",
        "row",
    )
    assert (part.needs, part.optional) == (("chosen_logp_B", "rejected_logp_B"), ("margin_B",))
    assert part.options == (
        Option("beta", "Positive", 0.1),
        Option("kind", "Literal['a', 'b']", "a"),
        Option("top", "Count | None", None),
        Option("low", "float", -1.0),
    )
    assert (part.line, part.unread) == (5, ())


def test_token_level_required_and_unread(root):
    part = registry.parts("objective", root)["words"]
    assert (part.per, part.unread) == ("token", ("unread",))
    assert part.option("must") == Option("must", "bool", None, required=True)
    assert "not_one" not in registry.parts("objective", root)


def test_a_stage_is_read_and_its_training_options_are_spread_out(root):
    stages = registry.parts("stage", root)
    assert (stages["cut"].gives, stages["cut"].outputs) == ("data", ("train", "eval"))
    teach = {option.name: option for option in stages["teach"].options}
    assert teach["model"].required and teach["model"].reference == "Model"
    assert not teach["data"].required and teach["data"].reference == "Data"
    assert (teach["learning_rate"].type, teach["learning_rate"].default) == ("Positive", 1e-4)
    assert (teach["steps"].type, teach["steps"].default) == ("Count | None", None)
    assert teach["steps"].doc == "updates of the weights, in place of `epochs`"
    assert "training" not in teach


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("(a_B, *, beta: Postive = 0.1)", "option 'beta': .* unknown word 'Postive', did you mean 'Positive'"),
        ("(a_B, *, beta=0.1)", "option 'beta' has no type"),
        ("(a_B, *, beta: float = pi)", "'pi' has to be a literal"),
        ("(a_B=1.0)", "'a_B' is a signal, so None is its only possible default"),
        ("(a_B, **rest)", r"takes \*args or \*\*kwargs"),
        ("(a_B, *, seed: int = 0, training: Training = Training())", "two options called seed"),
        ("(a_B, *, x: dict[str, int] = None)", "is not understood"),
    ],
)
def test_what_is_not_understood_is_said_with_its_place(tmp_path, signature, said):
    file = tmp_path / "odd.py"
    file.write_text(f"\n@objective(source='x')\ndef odd{signature}:\n    return beta\n")
    with pytest.raises(UserError, match=said) as problem:
        read_parts(file, "objective")
    assert str(problem.value).startswith(f"{file}:3: objective 'odd'")


@pytest.mark.parametrize(
    ("words", "given", "wanted"),
    [
        ("Positive", "3e-5", 3e-5),
        ("Positive", 1, 1.0),
        ("NonNegative", 0, 0.0),
        ("Fraction", 1, 1.0),
        ("Count", 4.0, 4),
        ("Count", "1e3", 1000),
        ("int", -2, -2),
        ("Count | None", None, None),
        ("bool", True, True),
        ("str", "x", "x"),
        ("Literal['a', 'b']", "b", "b"),
        ("list[str]", ["a"], ["a"]),
        ("Models", "$a", ["$a"]),
        ("Evidence", ["$a", "$b"], ["$a", "$b"]),
        ("Model | Literal['gold']", "gold", "gold"),
        ("dict", {"a": 1}, {"a": 1}),
    ],
)
def test_values_that_an_option_takes(words, given, wanted):
    value = Option("x", words).check(given)
    assert value == wanted and type(value) is type(wanted)


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        ("Positive", 0, "x must be a number above 0, got 0"),
        ("Positive", True, "x must be a number above 0, got True"),
        ("Positive", float("inf"), "x must be a number above 0, got inf"),
        ("NonNegative", -1, "x must be a number from 0 up, got -1"),
        ("Fraction", 1.5, "x must be a number from 0 to 1, got 1.5"),
        ("float", float("nan"), "x must be a number, got nan"),
        ("float", None, "x must be a number, got none"),
        ("Count", 0, "x must be a whole number from 1 up, got 0"),
        ("Count", 1.5, "x must be a whole number from 1 up, got 1.5"),
        ("Count | None", "many", "x must be a whole number from 1 up or none, got 'many'"),
        ("bool", 1, "x must be true or false, got 1"),
        ("str", 1, "x must be text, got 1"),
        (
            "Literal['cosine', 'linear']",
            "cosin",
            "x must be one of cosine, linear, got 'cosin'. Did you mean 'cosine'?",
        ),
        ("list[str]", "a", "x must be a list, each text, got 'a'"),
        ("Data", 3, "x must be data ($stage.part, $inputs.name, a file, a Hub name or world:...), got 3"),
        ("Models", [], "x must be a list of models, got []"),
    ],
)
def test_values_that_it_does_not_take(words, given, said):
    with pytest.raises(ValueError) as problem:
        Option("x", words).check(given)
    assert str(problem.value) == said


def test_every_word_of_a_type_can_be_said():
    assert describe(parse_type("Model | None")) == "a model ($stage, $base, a Hub name, a folder or world:...) or none"


@registry.objective(source="by hand")
def halved(logp_BT, mask_BT, ref_logp_B=None, *, scale: Positive = 0.5, top: Count | None = None):
    """Half of it.

    >>> halved.name
    'halved'
    """
    return scale * logp_BT * mask_BT * (top or 1)


def test_a_decorated_function_is_an_objective():
    assert isinstance(halved, Objective)
    assert (halved.signals, halved.needs, halved.optional) == (
        ("logp_BT", "mask_BT", "ref_logp_B"),
        ("logp_BT", "mask_BT"),
        ("ref_logp_B",),
    )
    assert (halved.per, halved.source, halved.__name__) == ("token", "by hand", "halved")
    assert halved.options == (Option("scale", "Positive", 0.5), Option("top", "Count | None", None))
    ones = np.ones((2, 3))
    assert halved(ones, mask_BT=ones).sum() == 3.0
    assert halved.bind({"scale": "2"})(ones, ones).sum() == 12.0


def test_shapes_are_checked_against_the_names():
    with pytest.raises(TypeError, match=r"mask_BT is \[B, T\].*logp_BT \[2, 3\], mask_BT \[2, 4\]"):
        halved(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(TypeError, match=r"logp_BT is \[B, T\]"):
        halved(np.ones(2), np.ones(2))
    with pytest.raises(TypeError, match=r"ref_logp_B \[3\]"):
        halved(np.ones((2, 3)), np.ones((2, 3)), np.ones(3))


def test_bind_says_what_is_wrong():
    with pytest.raises(UserError, match=r"objective 'halved': unknown option 'scal'\. Did you mean 'scale'"):
        halved.bind({"scal": 1})
    with pytest.raises(UserError, match="objective 'halved': scale must be a number above 0, got -1"):
        halved.bind({"scale": -1})


def test_an_objective_without_source_is_refused():
    with pytest.raises(TypeError, match="names no source"):
        registry.objective(source="")(lambda logp_B: logp_B)


@registry.stage(gives="model")
def taught(run, *, model: registry.Model, training: Training = Training(learning_rate=1e-3)):
    """Return what it was given."""
    return run, model, training


def test_a_stage_takes_training_options_flat_or_whole():
    assert taught("run", model="m", steps=5) == ("run", "m", Training(learning_rate=1e-3, steps=5))
    assert taught("run", model="m", training=Training(seed=1)) == ("run", "m", Training(seed=1))
    with pytest.raises(UserError, match="stage 'taught' needs 'model'"):
        taught.check({})


def test_names_of_built_in_parts():
    assert registry.resolve("dpo", "objective").name == "dpo"
    with pytest.raises(UserError, match=r"unknown objective 'ddpo'\. Did you mean 'dpo'"):
        registry.resolve("ddpo", "objective")


PLUG_IN = """
from truing.registry import objective
from truing.records import Positive

@objective(source="mine")
def mine(logp_B, *, scale: Positive = 1.0):
    return scale * logp_B

def plain(logp_B):
    return logp_B
"""


def test_a_part_in_a_file(tmp_path):
    (tmp_path / "own.py").write_text(PLUG_IN)
    assert registry.resolve("own.py:mine", "objective", tmp_path).options == (Option("scale", "Positive", 1.0),)
    assert registry.load("own.py:mine", "objective", tmp_path)(np.ones(2)).tolist() == [1.0, 1.0]
    with pytest.raises(UserError, match=r"unknown objective 'mne'\. Did you mean 'mine'"):
        registry.resolve("own.py:mne", "objective", tmp_path)
    with pytest.raises(UserError, match=r"'plain' in .*own\.py is not decorated with @objective"):
        registry.load("own.py:plain", "objective", tmp_path)


def test_a_part_in_a_module(tmp_path, monkeypatch):
    package = tmp_path / "some_plug_in"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.resolve("some_plug_in.losses:mine", "objective").name == "mine"
    assert "some_plug_in" not in sys.modules
    assert registry.load("some_plug_in.losses:mine", "objective").name == "mine"
    with pytest.raises(UserError, match=r"there is no module 'some_plug_in\.lossy'"):
        registry.resolve("some_plug_in.lossy:mine", "objective")


def test_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "pointed_at.py").write_text(PLUG_IN)
    info = tmp_path / "pointing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pointing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[truing.objective]\nours = pointed_at:mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.resolve("pointing/ours", "objective").name == "mine"
    assert registry.load("pointing/ours", "objective").name == "mine"
    with pytest.raises(UserError, match="package 'pointing' offers no objective 'yours'; installed: pointing/ours"):
        registry.resolve("pointing/yours", "objective")


def test_a_broken_part_names_its_file(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_package\n" + PLUG_IN)
    assert registry.resolve("broken.py:mine", "objective", tmp_path).name == "mine"
    with pytest.raises(UserError, match=r"broken\.py could not be loaded: ModuleNotFoundError: .*no_such_package"):
        registry.load("broken.py:mine", "objective", tmp_path)
    (tmp_path / "worse.py").write_text("def (:\n")
    with pytest.raises(UserError, match=r"worse\.py: cannot be read as Python"):
        registry.resolve("worse.py:mine", "objective", tmp_path)


def test_a_part_that_exits_while_it_is_loaded_is_an_error(tmp_path):
    (tmp_path / "script.py").write_text(PLUG_IN + "\nraise SystemExit(0)\n")
    with pytest.raises(UserError, match=r"script\.py could not be loaded: SystemExit"):
        registry.load("script.py:mine", "objective", tmp_path)
    assert not [name for name in sys.modules if "script" in name and name.startswith("truing_plug_in")]


def test_two_files_of_one_name_are_two_modules_and_may_define_dataclasses(tmp_path):
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    for folder, scale in (("a", 2), ("b", 3)):
        (tmp_path / folder).mkdir()
        own = f"\n@dataclass\nclass Told:\n    scale: int = {scale}\n"
        (tmp_path / folder / "own.py").write_text(
            text + PLUG_IN.replace("return scale", "return Told().scale * scale") + own
        )
    both = [registry.load("own.py:mine", "objective", tmp_path / folder)(np.ones(1)).tolist() for folder in "ab"]
    assert both == [[2.0], [3.0]]
    there = {getattr(module, "__file__", "") for module in list(sys.modules.values())}
    assert {str(tmp_path / folder / "own.py") for folder in "ab"} <= there


def test_all_parts_of_a_file(tmp_path):
    (tmp_path / "own.py").write_text(PLUG_IN + PLUG_IN.partition("Positive\n")[2].replace("mine", "other"))
    assert list(registry.own_parts("own.py", "objective", tmp_path)) == ["own.py:mine", "own.py:other"]
    found = registry.load_own("own.py", "objective", tmp_path)
    assert [part.name for part in found.values()] == ["mine", "other"]
    assert found["own.py:mine"].place == f"{tmp_path / 'own.py'}:mine"
    assert registry.load_own("own.py", "stage", tmp_path) == {}


COUPLED = """
from truing.objectives.divergence import prompt_weight as weight

@objective(source="mine", coupled={"class_weight_B": weight}, estimates="TV", exempt={"gradient": "held"}, mean="row")
def mine(logp_B, class_weight_B, *, per_prompt: bool = False):
    return class_weight_B * logp_B
"""


def test_what_a_statistic_of_another_module_reads_is_known(tmp_path):
    (tmp_path / "own.py").write_text(COUPLED)
    part = registry.resolve("own.py:mine", "objective", tmp_path)
    assert (part.coupled, part.surveyed, part.unread) == (("class_weight_B",), ("desirable_B", "prompt_B"), ())
    assert (part.estimates, part.exempt) == ("TV", (("gradient", "held"),))
    (tmp_path / "own.py").write_text(COUPLED.replace(" as weight", ""))
    with pytest.raises(UserError, match=r"mine' *: *coupled names 'weight', which is no function of this file"):
        registry.resolve("own.py:mine", "objective", tmp_path)


def test_an_installed_part_is_listed_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "offered.py").write_text(PLUG_IN)
    info = tmp_path / "offering-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[truing.objective]\nours = offered:mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [part.source for part in registry.installed_parts("objective").values()] == ["mine"]
    assert list(registry.installed_parts("objective")) == ["offering/ours"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('mean="tokne"', "unknown mean 'tokne'. Did you mean 'token'? Known: constant, response, row, step, token"),
        ('advantage="centered"', "unknown advantage 'centered'. Did you mean 'centred'?"),
    ],
)
def test_a_misspelt_word_of_the_decorator_is_refused(tmp_path, given, said):
    """Fault: `mean` misspelt would change what the losses are divided by."""
    text = f'from truing.registry import objective\n\n@objective("x", {given})\ndef mine(logp_B): ...\n'
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError) as read:
        registry.resolve(f"{tmp_path}/mine.py:mine", "objective")
    assert said in str(read.value) and "mine.py:4: objective 'mine'" in str(read.value)
    name, _, word = given.partition("=")
    with pytest.raises(TypeError) as run:
        registry.objective("x", **{name: word.strip('"')})(lambda logp_B: logp_B)
    assert said in str(run.value)


def test_a_parts_sources_are_its_file_and_the_users_modules_it_imports(tmp_path, monkeypatch):
    """Without running any: beside the file, in packages of the user's, relative; not Python's, installed or truing's."""
    files = {
        "own/mine.py": "import torch, json\nfrom truing import registry\nfrom beside import f\nfrom away.deep import g\n",
        "own/beside.py": "from . import further\nraise SystemExit\n",
        "own/further.py": "import mine\n",
        "own/idle.py": "",
        "path/away/__init__.py": "",
        "path/away/deep.py": "from .same import h\n",
        "path/away/same.py": "",
        "path/away/idle.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "path")
    first, *others = plugins.sources(tmp_path / "own" / "mine.py")
    assert first == tmp_path / "own" / "mine.py"
    read = {path.relative_to(tmp_path).as_posix() for path in others}
    assert read == set(files) - {"own/mine.py", "own/idle.py", "path/away/idle.py"}
    assert "away" not in sys.modules


def test_a_stage_that_takes_training_trains_on_every_process_unless_it_says_otherwise() -> None:
    """It ran on rank 0 alone, in silence, where it did not say that it trains."""

    def learning(run, *, training: Training = Training()):
        return training

    def counting(run, *, count: int = 1):
        return count

    assert stage(gives="model")(learning).trains and not stage(gives="model", trains=False)(learning).trains
    assert not stage(gives="data")(counting).trains and stage(gives="data", trains=True)(counting).trains
    assert {name for name in registry.parts("stage") if registry.load(name, "stage").trains} == {
        "fit_reward", "prefer", "pretrain", "reinforce", "sft",
    }  # fmt: skip
