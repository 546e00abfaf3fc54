"""Recipes that somebody made to be too much: refused or planned in seconds, always with place and words, never a fault."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pace import pace
from truing.errors import RecipeError
from truing.recipe import yaml_document
from truing.recipe.check import check
from truing.run.plan import plan
from truing.run.runner import folder_name

SECONDS = 15
"""What any of these may take; a second or two is usual."""
STAGE = "{do: sft, model: a/x, data: a/y, epochs: 1}"


@pytest.fixture(autouse=True)
def quick():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SECONDS * pace()


def loop(repeat, count):
    lines = ["stages:", "  loop:", f"    repeat: {repeat}", "    stages:", f"      s0: {STAGE}"]
    return "\n".join([*lines, *(f"      s{i}: {STAGE.replace('a/x', f'$s{i - 1}')}" for i in range(1, count))]) + "\n"


def refused(text, match, overrides=()):
    with pytest.raises(RecipeError, match=match) as caught:
        check(text, overrides)
    assert len(str(caught.value)) < 100_000
    return str(caught.value)


def test_a_loop_of_30_000_stages_is_refused_and_one_of_3_000_is_planned(tmp_path):
    refused(
        loop(1000, 30), r"recipe:2: loop 'loop': 1,000 turns of 30 stages are 30,000, and a recipe has at most 3,000"
    )
    recipe = check(loop(1000, 3))
    assert len(recipe.stages) == 3000
    assert len(plan(recipe, tmp_path)) == 3000


def test_stages_by_thousands():
    many = "stages:\n" + "".join(f"  s{i}: {STAGE}\n" for i in range(3001))
    refused(many, r"recipe:1: 3,001 stages are too many, and a recipe has at most 3,000")
    assert len(check("stages:\n" + "".join(f"  s{i}: {STAGE}\n" for i in range(3000))).stages) == 3000


def test_mistakes_by_thousands_are_said_in_part():
    wrong = "stages:\n" + "".join(f"  s{i}: {{do: sft, model: $t{i}, data: a/y, epoch: 1}}\n" for i in range(2000))
    said = refused(wrong, "is not checked any further")
    assert "recipe:2: " in said and said.count("\n") <= yaml_document.ENOUGH + 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("#" * 1_000_000 + "\n", "has 1,000,001 characters, and a recipe has at most 300,000"),
        ("a: " + "[" * 50_000 + "\n", "nested too deeply"),
        ("a: &a [x, x]\nb: &b [*a, *a]\n", "no anchors"),
        ("stages: {}\nstages: {}\n", "'stages' stands twice"),
        ("stages: !!python/object:os.system {}\n", "no tags"),
        ("seed: 0x" + "f" * 100_000 + "\nstages:\n  s: {}\n", "seed must be a whole number"),
        ("seed: " + "1:" * 2000 + "1.5\nstages:\n  s: {}\n", "seed must be a whole number"),
        ("seed: " + "9" * 5001 + "\nstages:\n  s: {}\n", "seed must be a whole number"),
        ("seed: 1e999\nstages:\n  s: {}\n", "seed must be a whole number"),
        ("seed: .nan\nstages:\n  s: {}\n", "seed must be a whole number"),
        ("seed: -.inf\nstages:\n  s: {}\n", "seed must be a whole number"),
        ("title: 5\nstages:\n  s: {}\n", "title must be text"),
        ("stages:\n  (a+)+$: {repeat: 2, stages: {b: {}}}\n  " + "a" * 60 + "!: {}\n", "letters that a folder's name"),
        ("stages:\n  " + "s" * 300 + ": {}\n", "too long for a folder|letters that a folder's name"),
        ("stages:\n  ../up: {}\n", "letters that a folder's name"),
        (f"stages:\n  s: {STAGE.replace('a/y', 'x' * 5000)}\n", "there is no file"),
        (f"stages:\n  s: {STAGE.replace('a/y', chr(34) + 'p' + chr(92) + '0.jsonl' + chr(34))}\n", "there is no file"),
        ("[1, 2]\nx\n", "recipe"),
        ("\0\n", "recipe:1: is not YAML"),
    ],
)
def test_a_recipe_that_is_none(text, problem):
    refused(text, problem)


@pytest.mark.parametrize(
    "value", ["1e999", ".nan", ".inf", "9" * 5000, "[[[[", "{a: &b 1}", "text", "", "0x" + "f" * 5000]
)
def test_overrides_that_are_no_value(value):
    refused(f"stages:\n  s: {STAGE}\n", "command line: ", [f"s.epochs={value}"])


def test_overrides_that_have_no_place():
    for item in ("s", "=", "=1", "." * 1000 + "=1", "x" * 100_000 + "=1", "s.a.b.c=1", "seed\0=1"):
        refused(f"stages:\n  s: {STAGE}\n", "command line: ", [item])


def test_what_is_no_file_is_no_recipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "image.yaml").write_bytes(bytes(range(256)))
    wrong = {"pipe.yaml": "a pipe", "folder.yaml": "is a folder", "zero.yaml": "a device", "image.yaml": "not UTF-8"}
    for name, word in {**wrong, "x" * 300: "too long", "a\0b": "null byte", "none.yaml": "No such file"}.items():
        with pytest.raises(RecipeError, match=word):
            check(tmp_path / name)


def test_a_title_names_one_folder_whatever_is_in_it():
    for title in ("../../etc", "a/b", "a\0b", "a\nb", "x" * 5000, "..", "", "é"):
        name = folder_name(title)
        assert name and len(name) <= 100 and not {"/", "\0", "\n", "."} & set(name)


@pytest.mark.parametrize("command", ["check", "run"])
def test_the_command_refuses_a_pipe_with_2(tmp_path, command):
    os.mkfifo(tmp_path / "r.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "truing", command, "r.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "r.yaml: is no file but a pipe" in done.stderr and "Traceback" not in done.stderr


def test_a_folder_that_no_disk_holds_is_the_users_mistake(tmp_path):
    (tmp_path / "r.yaml").write_text(f"stages:\n  s: {STAGE}\n")
    for out in ("x" * 300, "r.yaml/run"):
        done = subprocess.run(
            [sys.executable, "-m", "truing", "run", "r.yaml", "--out", out],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


def test_whole_numbers_are_numbers():
    for given in ("1e300", str(2**53 + 2), "-" + "9" * 30):
        refused(f"seed: {given}\nstages:\n  s: {STAGE}\n", "seed must be a whole number")
    assert check(f"seed: {2**53}\nstages:\n  s: {STAGE}\n").seed == 2**53
