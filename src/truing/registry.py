"""The parts by name: objectives, stages and users' own, each described by its signature alone.

A name is a built-in (`dpo`), a function in a file (`mine.py:my_loss`) or module (`pkg.mod:my_loss`), or an entry point
(`package/name`, in the groups `truing.objective`, `.stage`, `.reward`). `resolve` reads what a recipe has to know and
executes nothing; `load` imports the part to run it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from truing.errors import RunFailed, TruingError, UserError, unknown
from truing.module_names import all_parts, part_called, refusal
from truing.plugins import executed, home, installed, plug_in, source_file
from truing.records import Advantage, Mean, default_mean, per_of
from truing.schema.option import Option
from truing.schema.signature import (
    TRL,
    TRL_OPTIONS,
    Gives,
    Kind,
    Part,
    checked,
    fits_trl,
    is_group,
    options_of,
    read_parts,
    spelt,
)  # fmt: skip
from truing.settings import Training

__all__ = [
    "Columns",
    "Data",
    "Evidence",
    "Findings",
    "Kind",
    "Model",
    "Models",
    "Objective",
    "ObjectiveSpec",
    "Option",
    "Part",
    "RewardFunction",
    "RewardModel",
    "RewardSpec",
    "Rivals",
    "Rules",
    "Stage",
    "installed_parts",
    "load",
    "load_own",
    "objective",
    "own_parts",
    "parts",
    "plug_in",
    "resolve",
    "reward",
    "stage",
]

if TYPE_CHECKING:
    from torch import Tensor

# The references of a stage's signature: what stands here in a recipe is `$stage`, `$base`, or a name or path.
Model: TypeAlias = Any
Models: TypeAlias = Any
Rivals: TypeAlias = Any
RewardModel: TypeAlias = Any
Data: TypeAlias = Any
Findings: TypeAlias = Any
Evidence: TypeAlias = Any
Rules: TypeAlias = Any
ObjectiveSpec: TypeAlias = Any
RewardSpec: TypeAlias = Any
Columns: TypeAlias = Any

PACKAGE = Path(__file__).parent
FILES: dict[Kind, tuple[str, ...]] = {
    "objective": ("objectives/*.py",),
    "stage": ("stages/*.py",),
    "reward": ("rewards/builtin_*.py",),
}
Check: TypeAlias = Callable[..., None] | None
Names: TypeAlias = tuple[str, ...]


class Objective:
    """A pure function of signals with options: one loss per row (`_B`) or token (`_BT`), never reduced.

    `signals` are its positional parameters, `needs` those it cannot do without, `optional` the others; `options` its
    keyword-only parameters. `mean` says what the loop divides by. `coupled` are the signals that are statistics of a
    whole step, each with the pure function that makes it. A call takes signals by position or name and checks shapes.
    """

    def __init__(
        self,
        fn: Callable[..., Tensor],
        source: str,
        exempt: Mapping[str, str] = MappingProxyType({}),
        differs: str = "",
        coupled: Mapping[str, Callable[..., Tensor]] = MappingProxyType({}),
        mean: Mean | None = None,
        estimates: str = "",
        advantage: Advantage | None = None,
        lower_is_better: bool = False,
    ) -> None:
        functools.update_wrapper(self, fn)
        if not source:
            raise TypeError(f"objective '{fn.__name__}' names no source")
        parameters = inspect.signature(fn).parameters.values()
        signals = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        self.fn, self.name, self.doc = fn, fn.__name__, inspect.getdoc(fn) or ""
        self.source, self.exempt, self.differs, self.estimates = source, dict(exempt), differs, estimates
        self.advantage = spelt(f"objective '{self.name}'", "advantage", advantage)
        self.lower_is_better = lower_is_better
        self.signals = tuple(p.name for p in signals)
        self.optional = tuple(p.name for p in signals if p.default is None)
        self.needs = tuple(name for name in self.signals if name not in self.optional)
        if any(name.endswith("_BT") for name in self.signals) and "mask_BT" not in self.signals:
            raise TypeError(
                f"objective '{self.name}' asks for tokens and not for mask_BT, which says which of them count"
            )
        self.mean: Mean = spelt(f"objective '{self.name}'", "mean", mean) or default_mean(self.signals)
        self.per, self.options = per_of(self.mean), options_of(fn)
        self.coupled = {name: Statistic(statistic, self) for name, statistic in coupled.items()}
        if not set(self.coupled) <= set(self.needs):
            raise TypeError(f"objective '{self.name}' couples {', '.join(coupled)} and does not ask for all of them")
        self.place = ""  # of a user's own: file:function

    def __call__(self, *signals: Any, **named: Any) -> Tensor:
        by_name = dict(zip(self.signals, signals, strict=False))
        check_shapes(self.name, by_name | {name: named[name] for name in self.signals if name in named})
        options = {option.name: named[option.name] for option in self.options if option.name in named}
        named |= checked(f"objective '{self.name}'", self.options, options) if options else {}
        with blaming(self.place):
            losses = self.fn(*signals, **named)
        if self.place and not getattr(losses, "shape", ()):
            got = f"{type(losses).__name__} of shape []" if hasattr(losses, "shape") else type(losses).__name__
            raise RunFailed(f"{self.place} gave a {got}, not one loss per row or token: leave out its mean or sum")
        return losses

    @property
    def observed(self) -> tuple[str, ...]:
        """Its signals without the coupled ones: what has to be computed for the rows of one part of a step."""
        return tuple(name for name in self.signals if name not in self.coupled)

    @property
    def surveyed(self) -> tuple[str, ...]:
        """The signals its statistics read, to be computed without gradient over the whole step; empty for most."""
        return tuple(dict.fromkeys(name for statistic in self.coupled.values() for name in statistic.needs))

    def statistics(
        self, step: Mapping[str, Tensor], options: Mapping[str, Any], previous: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Its coupled signals, from the `surveyed` signals of all rows of a step on all ranks.

        `previous` are the values of the step before: of the stateful statistics, empty at the first step. Each result
        has the shape [] (the same for every row) or [N], N rows of the step.
        """
        with blaming(self.place):
            return {name: made(step, options, previous.get(name)) for name, made in self.coupled.items()}

    def bind(self, options: Mapping[str, Any]) -> functools.partial[Tensor]:
        """This objective with its options checked and fixed; signals are still to come."""
        return functools.partial(self, **checked(f"objective '{self.name}'", self.options, options))

    def __repr__(self) -> str:
        return f"<objective {self.name}({', '.join(self.signals)})>"


class Statistic:
    """The function of a coupled signal: positional parameters are signals of a whole step, keyword-only ones options of
    its objective. One called `previous` makes it `stateful`: it is given its own value of the step before, or None."""

    def __init__(self, fn: Callable[..., Tensor], owner: Objective) -> None:
        parameters = inspect.signature(fn).parameters.values()
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        self.fn, self.needs = fn, tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        self.stateful = "previous" in named
        self.options = {option.name: option.default for option in owner.options if option.name in named}
        strange = set(named) - set(self.options) - {"previous"}
        if strange:
            raise TypeError(f"{fn.__name__} reads {', '.join(sorted(strange))}: no option of objective '{owner.name}'")

    def __call__(self, step: Mapping[str, Tensor], options: Mapping[str, Any], previous: Tensor | None) -> Tensor:
        inputs = {name: step[name].detach() for name in self.needs}
        chosen = {name: options.get(name, default) for name, default in self.options.items()}
        return self.fn(**inputs, **chosen, **({"previous": previous} if self.stateful else {})).detach()


class Stage:
    """One step of a recipe. Called with the run and its options; the fields of `Training` are given flat or whole."""

    def __init__(
        self, fn: Callable[..., Any], gives: str, parts: Names, keeps: Names, trains: bool | None = None
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn, self.name, self.doc = fn, fn.__name__, inspect.getdoc(fn) or ""
        self.gives = spelt(f"stage '{self.name}'", "gives", gives)
        self.parts, self.keeps, self.options = parts, keeps, options_of(fn)
        self.groups = {p.name: p.default for p in inspect.signature(fn).parameters.values() if is_group(p.default)}
        takes_training = any(isinstance(group, Training) for group in self.groups.values())
        self.trains = takes_training if trains is None else trains
        self.place = ""  # of a user's own: file:function

    def __call__(self, run: Any, **options: Any) -> Any:
        arguments = dict(options)
        for name, default in self.groups.items():
            flat = {f.name: arguments.pop(f.name) for f in dataclasses.fields(default) if f.name in arguments}
            arguments[name] = arguments.get(name, default).changed(**flat)
        with blaming(self.place):
            return self.fn(run, **arguments)

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options in their own types; UserError for one that is unknown, missing or out of range."""
        return checked(f"stage '{self.name}'", self.options, options)

    def __repr__(self) -> str:
        return f"<stage {self.name}>"


class RewardFunction:
    """A function that scores responses: `reads` are its positional parameters, `options` its keyword-only ones
    (`rewards.call`)."""

    def __init__(self, fn: Callable[..., Any], scope: str, deterministic: bool = False, check: Check = None) -> None:
        functools.update_wrapper(self, fn, updated=())
        self.fn, self.doc, self.place, self.check = fn, inspect.getdoc(fn) or "", "", check
        self.name = getattr(fn, "__name__", type(fn).__name__)
        self.scope, self.deterministic = scope, deterministic
        self.reads = tuple(n for n, p in inspect.signature(fn).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD)
        self.options = TRL_OPTIONS if scope == TRL else options_of(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


def objective(
    source: str,
    exempt: Mapping[str, str] = MappingProxyType({}),
    differs: str = "",
    coupled: Mapping[str, Callable[..., Tensor]] = MappingProxyType({}),
    mean: Mean | None = None,
    estimates: str = "",
    advantage: Advantage | None = None,
    lower_is_better: bool = False,
) -> Callable[[Callable[..., Tensor]], Objective]:
    """Make a function an objective. `exempt` names clauses of the contract it does not keep, each with the reason;
    `coupled` signals that are statistics of a whole step, each with the function that makes it; `mean` what the loop
    divides by (default: tokens where it asks for `mask_BT`, labelled steps for `step_mask_BS`, otherwise rows);
    `estimates` the divergence that its value at the optimum tells, in words, where theory names one; `advantage` how
    the advantages that it reads are made from the scores of a round; `lower_is_better` that the reward model which it
    teaches says a cost, which is to be lower for the better response."""
    return lambda fn: Objective(fn, source, exempt, differs, coupled, mean, estimates, advantage, lower_is_better)


def stage(
    gives: Gives,
    parts: Names = (),
    keeps: Names = (),
    trains: bool | None = None,
) -> Callable[[Callable[..., Any]], Stage]:
    """Make a function a stage. `gives` is what later stages refer to (`run/products.py` has its file), `parts` name
    several; `keeps` folders of data. A stage that `trains` (where it is not said: one that takes `Training`) runs on
    every process of a run that several share, any other on rank 0 alone."""
    return lambda fn: Stage(fn, gives, parts, keeps, trains)


def reward(
    scope: Literal["response", "group"], deterministic: bool = False, check: Check = None
) -> Callable[[Callable[..., Any]], RewardFunction]:
    """Make a function a reward, called once per response if `deterministic`; `check` refuses rows of prompts before a
    run begins."""
    return lambda fn: RewardFunction(fn, scope, deterministic, check)


@contextmanager
def blaming(place: str) -> Iterator[None]:
    """Turn what goes wrong inside a user's own function (`place` is file:function) into a RunFailed that names it."""
    try:
        yield
    except Exception as problem:
        if not place or isinstance(problem, TruingError):
            raise
        file = place.rpartition(":")[0]
        lines = [f.lineno for f in traceback.extract_tb(problem.__traceback__) if f.filename == file]
        where = f" (line {lines[-1]})" if lines else ""
        raise RunFailed(f"{place}{where}: {type(problem).__name__}: {problem}") from problem


def check_shapes(name: str, signals: Mapping[str, Any]) -> None:
    """Raise TypeError unless every signal has the axes its name ends in, and one letter one size throughout."""
    sizes: dict[str, int] = {}
    for signal, value in signals.items():
        if value is None:
            continue
        axes = signal.rpartition("_")[2]
        shape = tuple(getattr(value, "shape", ()))
        wrong = len(shape) != len(axes) if axes.isupper() else False
        if wrong or (axes.isupper() and any(sizes.setdefault(a, n) != n for a, n in zip(axes, shape, strict=True))):
            shapes = ", ".join(f"{s} {list(getattr(v, 'shape', ()))}" for s, v in signals.items() if v is not None)
            raise TypeError(
                f"{name}: the shapes do not agree with the names ({signal} is [{', '.join(axes)}]): {shapes}"
            )


@functools.lru_cache(maxsize=32)
def parts(kind: Kind, root: Path = PACKAGE) -> dict[str, Part]:
    """Every built-in part of a kind, by name, read from the source files of the package at `root`."""
    by_name: dict[str, Part] = {}
    for pattern in FILES[kind]:
        for file in sorted(root.glob(pattern)):
            for name, part in read_parts(file, kind).items():
                if name in by_name:
                    raise UserError(f"{part.file}:{part.line}: {kind} '{name}' stands already in {by_name[name].file}")
                by_name[name] = part
    return by_name


def resolve(name: str, kind: Kind, folder: Path | None = None, root: Path = PACKAGE) -> Part:
    """The facts that a recipe needs of a part. A relative file is looked for in `folder`, then in the working
    folder."""
    if ":" in name or "/" in name:
        file, attribute = plug_in(name, kind, folder)
        part = part_called(attribute, kind, file)
        if part is None:
            raise UserError(refusal(name, attribute, kind, file))
        return part
    built_in = parts(kind, root)
    if name not in built_in:
        raise UserError(unknown(kind, name, built_in))
    return built_in[name]


def own_parts(where: str, kind: Kind, folder: Path | None = None) -> dict[str, Part]:
    """The parts of a user's own file or module by the names that a recipe gives them, without executing anything."""
    by_name = all_parts(source_file(where, where, folder), kind)
    return {f"{where}:{name}": dataclasses.replace(part, name=f"{where}:{name}") for name, part in by_name.items()}


def installed_parts(kind: Kind) -> dict[str, Part]:
    """The parts that installed packages offer by entry points, by the names that a recipe gives them."""
    return {name: dataclasses.replace(resolve(name, kind), name=name) for name in installed(kind)}


def load(name: str, kind: Kind, folder: Path | None = None) -> Any:
    """The part itself, imported: `Objective`, `Stage` or `RewardFunction`. What goes wrong in a user's names it."""
    if ":" not in name and "/" not in name:
        module = ".".join(("truing", *Path(resolve(name, kind).file).relative_to(PACKAGE).with_suffix("").parts))
        return getattr(importlib.import_module(module), name)
    where, attribute = home(name, kind)
    file = source_file(where, name, folder)
    return taken(executed(where, file, name), attribute, kind, file, name)


def load_own(where: str, kind: Kind, folder: Path | None = None) -> dict[str, Any]:
    """The parts of a user's own file or module, which is run once, by the names that a recipe gives them."""
    names, file = own_parts(where, kind, folder), source_file(where, where, folder)
    module = executed(where, file, where) if names else None
    return {name: taken(module, name.rpartition(":")[2], kind, file, name) for name in names}


def taken(module: ModuleType | None, attribute: str, kind: Kind, file: Path, name: str) -> Any:
    """The part of that name out of a user's module; UserError where there is none, or something else."""
    part: Any = getattr(module, attribute, None)
    if kind == "reward" and is_trl(part):
        part = RewardFunction(part, TRL)
        part.name = attribute
    wanted: Any = {"objective": Objective, "stage": Stage, "reward": RewardFunction}[kind]
    if not isinstance(part, wanted):
        what = "" if callable(part) else f" is a {type(part).__name__}, and"
        raise UserError(f"{name}: '{attribute}' in {file}{what} is not decorated with @{kind}")
    part = copy.copy(part)  # one that the module has taken from another keeps its own place there
    part.place = f"{file}:{attribute}"
    return part


def is_trl(candidate: Any) -> bool:
    """Return whether something out of a user's module can be called as TRL calls a reward: a function, what a factory
    or `functools.partial` has made, or an object with `__call__`."""
    if not callable(candidate) or isinstance(candidate, type | Objective | Stage | RewardFunction):
        return False
    try:
        parameters = inspect.signature(candidate).parameters
    except (TypeError, ValueError):
        return False
    return fits_trl(parameters, any(p.kind is p.VAR_KEYWORD for p in parameters.values()))
