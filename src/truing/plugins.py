"""Location of a user's own part: in a file, in a module, or behind the entry point of an installed package."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from truing.errors import UserError
from truing.records import digest


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
        if base is not None and os.path.isfile(base / where):
            return (base / where).resolve()
    raise UserError(f"{name}: there is no file {where}")


def installed(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points that installed packages offer, by `package/name`."""
    points = importlib.metadata.entry_points(group=f"truing.{kind}")
    return {f"{point.dist.name if point.dist else '?'}/{point.name}": point for point in points}


def entry_point(name: str, kind: str) -> importlib.metadata.EntryPoint:
    """The entry point `package/name`."""
    package, _, wanted = name.partition("/")
    points = installed(kind)
    if name not in points:
        raise UserError(
            f"package '{package}' offers no {kind} '{wanted}'; installed: {', '.join(sorted(points)) or 'none'}"
        )
    return points[name]


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


PACKAGE = Path(__file__).parent
LIBRARIES = frozenset(Path(place).resolve() for place in sysconfig.get_paths().values())
INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Names of folders of installed packages, by pip, conda, Debian and in a user's home; an environment may read several,
and `sysconfig` knows its own alone."""


def sources(file: Path) -> list[Path]:
    """A part's own file and after it the modules that it imports, and that these import, found without executing any:
    those of the user, which lie beside the importing file or outside of Python's library and installed packages."""
    files, left = {file: None}, [file]
    while left:
        at = left.pop()
        new = [path for name in imports(at) if (path := own_module(name, at)) is not None and path not in files]
        files |= dict.fromkeys(new)
        left += new
    return [file, *sorted(path for path in files if path != file)]


def imports(file: Path) -> Iterator[str]:
    """The modules that a file may import, each with the packages it lies in; a relative one keeps its leading dots."""
    try:
        module = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return  # whoever runs it says so; here only its content counts
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            dots, within = "." * node.level, f"{node.module}." if node.module else ""
            full = [f"{dots}{within}{alias.name}" for alias in node.names]
        else:
            continue
        for name in full:
            path = name.lstrip(".").split(".")
            yield from (name[: len(name) - len(name.lstrip("."))] + ".".join(path[: n + 1]) for n in range(len(path)))


def own_module(name: str, file: Path) -> Path | None:
    """The source of a module that `file` imports, where it is the user's own (see `sources`), or None."""
    bare = name.lstrip(".")
    folder = file.parents[max(0, len(name) - len(bare) - 1)]
    places = (folder / f"{bare.replace('.', '/')}.py", folder / bare.replace(".", "/") / "__init__.py")
    path = next((place.resolve() for place in places if place.is_file()), None)
    if path is None and name == bare and bare.partition(".")[0] not in sys.stdlib_module_names:
        try:
            path = module_file(bare, bare).resolve()
        except UserError:
            return None
    if path is None or PACKAGE in path.parents:
        return None
    beside = path.parent == file.parent and not is_library(file.parent)
    return path if beside or not any(is_library(folder) for folder in path.parents) else None


def is_library(folder: Path) -> bool:
    """Return whether a folder is Python's library or one of installed packages."""
    return folder in LIBRARIES or folder.name in INSTALLED


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
    folder = str(file.parent)
    sys.path.insert(0, folder)  # as of a script: its own folder's modules go first, which is how `sources` finds them
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    finally:
        with suppress(ValueError):  # where the file has changed the path itself
            sys.path.remove(folder)
        sys.path += [] if folder in sys.path else [folder]  # what its functions import when they are called
    return module
