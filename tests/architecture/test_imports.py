"""Who may import whom, and what imports without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import truing

PACKAGE = Path(truing.__file__).parent
sys.path.insert(0, str(PACKAGE.parents[1] / "benchmarks"))

from shape import Source  # noqa: E402

SOURCE = Source.of(PACKAGE.parents[1])
FILES = sorted(PACKAGE.rglob("*.py"))


def name(path):
    """A file's name in the package: `recipe/check.py`."""
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path):
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


# From top to bottom. A line may import lower lines only; parts on one line do not import each other.
LAYERS = [
    {"cli", "launch", "__main__"},
    {"commands"},
    {"contract"},
    {"stages"},
    {"run"},
    {"recipe"},
    {"report", "gate"},
    {"diagnose"},
    {"evaluate"},
    {"online"},
    {"train"},
    {"signals"},
    {"rollout"},
    {"rewards"},
    {"policy"},
    {"data", "world"},
    {"feedback", "objectives"},
    {
        "consistency",
        "records",
        "settings",
        "streams",
        "registry",
        "errors",
        "redaction",
        "secret_shapes",
        "schema",
        "module_names",
        "plugins",
        "disk",
        "door",
        "seals",
        "caches",
        "terminal",
        "yaml_text",
    },
]
LEVEL = {part: len(LAYERS) - i for i, layer in enumerate(LAYERS) for part in layer}
BOTTOM = LAYERS[-1]
TORCH_FREE = [
    "records",
    "errors",
    "registry",
    "schema.signature",
    "objectives.signals",
    "feedback",
    "data.formats.loading",
    "data.split",
    "world",
    "world.desk",
]
TORCH_FREE += [
    "world.raters",
    "world.tiny",
    "report",
    "report.html",
    "report.card",
    "gate",
    "gate.rules",
    "gate.decide",
    "gate.evidence",
    "seals",
    "caches",
]
TORCH_FREE += ["recipe", "recipe.check", "run.plan", "run.outlook", "cli"]
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "tokenizers", "safetensors")


def imported(path):
    """The parts of truing that a file imports, with line numbers; those only for type checkers are left out."""
    module = name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    return [(other.partition(".")[0], line) for other, line in SOURCE.imports(module).items()]


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) != "__init__"], ids=name)
def test_a_line_imports_lower_lines_only(path):
    own = part_of(path)
    assert own in LEVEL, f"{name(path)}: '{own}' has no place in the layers"
    lines = [s for s in ast.walk(tree_of(path)) if isinstance(s, ast.ImportFrom) and s.level]
    assert not lines, f"{name(path)}: relative imports hide who imports whom"
    for other, line in imported(path):
        same_floor = own in BOTTOM and other in BOTTOM
        started = own == "__main__" and other == "cli"
        allowed = other == own or same_floor or started or LEVEL[other] < LEVEL[own]
        assert allowed, f"{name(path)}:{line}: {own} may not import {other}, which stands beside or above it"


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) == "objectives"], ids=name)
def test_mathematics_imports_the_registry_and_the_types_only(path):
    assert {part for part, _ in imported(path)} <= {"objectives", *BOTTOM}


def exists(module):
    path = PACKAGE.joinpath(*module.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("module", [m for m in TORCH_FREE if exists(m)])
def test_imports_without_torch(module):
    code = f"import sys, truing.{module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_registry_needs_nothing_but_the_standard_library():
    code = (
        "import sys, truing.registry; print([m for m in ('numpy', 'pydantic', 'ruamel', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["benchmarks", "docs", "studies"])
def test_no_script_has_the_name_of_an_installed_package(folder):
    """Tests put these folders on the path: under pytest-cov, `coverage` was the package and not the script."""
    taken = set(packages_distributions()) | set(sys.stdlib_module_names)
    assert not {path.stem for path in (PACKAGE.parents[1] / folder).glob("*.py")} & taken
