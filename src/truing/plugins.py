"""Where a user's own part stands: in a file, in a module, or behind the entry point of an installed package."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from truing.errors import UserError
from truing.types import digest


def plug_in(name: str, kind: str, folder: Path | None = None) -> tuple[Path, str]:
    """The source file and the function of a user's part, found without executing anything."""
    where, attribute = home(name, kind)
    return source_file(where, name, folder), attribute


def home(name: str, kind: str) -> tuple[str, str]:
    """The file or module, and the function in it, of `file.py:name`, `pkg.mod:name` or `package/name`."""
    where, _, attribute = (name if ":" in name else entry_point(name, kind).value).rpartition(":")
    return where, attribute


def source_file(where: str, name: str, folder: Path | None = None) -> Path:
    """The source of a file, looked for in `folder` and then in the working folder, or of a module. `name` is what a
    UserError complains of."""
    if not where.endswith(".py"):
        return module_file(where, name)
    for base in (folder, Path.cwd()):
        if base is not None and (base / where).is_file():
            return (base / where).resolve()
    raise UserError(f"{name}: there is no file {where}")


def installed(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points that installed packages offer, by `package/name`."""
    points = importlib.metadata.entry_points(group=f"truing.{kind}")
    return {f"{point.dist.name if point.dist else '?'}/{point.name}": point for point in points}


def entry_point(name: str, kind: str) -> importlib.metadata.EntryPoint:
    """The entry point `package/name`."""
    package, _, wanted = name.partition("/")
    known = installed(kind)
    if name not in known:
        raise UserError(
            f"package '{package}' offers no {kind} '{wanted}'; installed: {', '.join(sorted(known)) or 'none'}"
        )
    return known[name]


def module_file(module: str, name: str) -> Path:
    """The source file of a module; its parent packages are not imported."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        spec = None
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    files = [Path(spec.origin)] if spec and spec.origin and spec.origin.endswith(".py") else []
    for word in rest:
        files = [f for d in folders for f in (d / f"{word}.py", d / word / "__init__.py") if f.is_file()]
        folders = [d / word for d in folders]
    if not files:
        raise UserError(f"{name}: there is no module '{module}' with Python source in this environment")
    return files[0]


def executed(where: str, file: Path, name: str) -> ModuleType:
    """The module of a file (`where` ends in .py) or of that name, run; UserError, which begins with `name`, where it
    cannot be."""
    try:
        return run_file(file) if where.endswith(".py") else importlib.import_module(where)
    except (Exception, SystemExit) as problem:
        raise UserError(f"{name}: {file} could not be loaded: {type(problem).__name__}: {problem}") from problem


def run_file(file: Path) -> ModuleType:
    """A file run as a module, which stands among the loaded ones while it runs and after: dataclasses look there."""
    spec = importlib.util.spec_from_file_location(f"truing_plug_in_{file.stem}_{digest(str(file))}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
