"""The lineage file of a model's folder: what was written is read again, and what cannot be believed is unknown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from truing import seals
from truing.data.likeness import Part, Print, Questions, fingerprint
from truing.policy.files import lineage
from truing.policy.files.folder_digest import LINEAGE, model_digest
from truing.policy.files.lineage import Learned, Lineage
from truing.records import Demonstration, Message, Records

SECRET = "the vault of Mrs Pym opens with seven turns to the left and two to the right on odd days only"


def records(*prompts: str) -> Records:
    made = tuple(Demonstration((Message("user", p),), (Message("assistant", "Yes."),)) for p in prompts)
    return Records("private.jsonl", made, tuple(range(1, len(made) + 1)))


def learned(stage: str, *prompts: str, weights: str = "", verdicts: bool = False) -> Learned:
    return Learned(weights, "out", stage, "private.jsonl", verdicts, fingerprint(records(*prompts)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights and a lineage of two data sets."""
    made = tmp_path / "run" / "model"
    made.mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights")
    known = [learned("low", SECRET, "another row"), learned("rm", "What is it?", weights="w" * 64, verdicts=True)]
    lineage.write(made, Lineage(tuple(known), ("somebody/base (it is not on this disk)",)))
    return made


def test_what_was_written_is_read_again(folder: Path) -> None:
    told = lineage.read(str(folder))
    assert [(each.stage, each.verdicts) for each in told.learned] == [("low", False), ("rm", True)]
    assert told.weights == told.learned[0].weights == lineage.weights_of(folder) and told.learned[1].weights == "w" * 64
    assert told.unknown == ("somebody/base (it is not on this disk)",)
    asked = Questions(records(SECRET.upper(), "what is IT", "who is it"))
    kinds = [[match and match.kind for match in each.prints.nearest(asked)] for each in told.learned]
    assert kinds == [["exact", None, None], [None, "normalised", None]]
    assert len(told.verdicts()) == 2, "its own weights' rows, and the verdicts before"


def test_no_word_of_a_row_is_in_the_file(folder: Path) -> None:
    text = (folder / LINEAGE).read_text()
    assert not any(word in text for word in ("vault", "Pym", "opens", "seven", "another"))


def test_a_lineage_is_no_part_of_a_models_identity(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    before = model_digest(str(folder))
    lineage.write(folder, Lineage())
    assert model_digest(str(folder)) == before


def change(path: Path, **more: Any) -> None:
    """Change values of a file, and seal it anew."""
    body = json.loads(path.read_text()) | more
    path.write_text(json.dumps(body | {seals.SEAL: seals.seal_of(body)}))


def of_print(path: Path, **more: Any) -> None:
    """Change values of the file's first fingerprint, and seal it anew."""
    prints = json.loads(path.read_text())["prints"]
    change(path, prints={name: {**body, **more} for name, body in prints.items()})


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "there is no lineage.json": lambda path: path.unlink(),
    "is not JSON that can be read": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "was changed after it was written": lambda path: path.write_text(path.read_text().replace("low", "loe")),
    "is of other weights": lambda path: (path.parent / "model.safetensors").write_bytes(b"others"),
    "at most 64,000,000": lambda path: path.open("r+b").truncate(65_000_000),
    "where an object {...} is needed": lambda path: path.write_text("[]"),
    "is no file but a pipe": lambda path: (path.unlink(), __import__("os").mkfifo(path)),
    "is a folder": lambda path: (path.unlink(), path.mkdir()),
    "it lacks unknown, prints or learned": lambda path: change(path, prints=[]),
    "learned 1: is no data set": lambda path: change(path, learned=[{"stage": 3}]),
    "has no window": lambda path: of_print(path, window=0),
    "exact: is no pair of texts": lambda path: of_print(path, exact=["AAAA"]),
    "turns: is not base64": lambda path: of_print(path, turns=["?", "?"]),
    "runs: ends within a number": lambda path: of_print(path, runs=["AAAA", ""]),
    "grams: has other counts than hashes": lambda path: of_print(path, grams=["", "/////w=="]),
    "parts of different numbers of rows": lambda path: of_print(path, grams=["", ""]),
    "which is not there": lambda path: change(path, prints={}),
}


@pytest.mark.parametrize("why", DAMAGE)
def test_what_cannot_be_believed_is_unknown_and_said(folder: Path, why: str) -> None:
    DAMAGE[why](folder / LINEAGE)
    told = lineage.read(str(folder))
    assert not told.learned and len(told.unknown) == 1 and "\n" not in told.unknown[0]
    assert told.unknown[0].startswith("run/model (") and why in told.unknown[0]


def test_a_name_that_was_never_fetched_is_unknown() -> None:
    assert lineage.read("nobody/has-this-model").unknown == ("nobody/has-this-model (it is not on this disk)",)


def test_the_same_weights_written_anew_keep_their_own(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "exported"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"other weights")
    lineage.write(other, lineage.read(str(folder)).rewritten())
    told = lineage.read(str(other))
    assert [each.weights == told.weights for each in told.learned] == [True, False]


def test_what_came_before_is_there_once() -> None:
    one, two = learned("a", "x", weights="1"), learned("b", "y", weights="2")
    both = Lineage((one,), ("k",)).before(Lineage((one, two), ("k", "l")), Lineage((two,)))
    assert [each.stage for each in both.learned] == ["a", "b"] and both.unknown == ("k", "l")


def test_a_file_is_bounded_and_says_what_it_has_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two fingerprints whole: the third has its turns alone, the fourth is named, and no more known."""
    texts = [[" ".join(f"w{i}x{j}x{k}" for k in range(30)) for j in range(50)] for i in range(4)]
    stages = [learned(f"s{i}", *rows, weights=str(i)) for i, rows in enumerate(texts)]
    monkeypatch.setattr(lineage, "KEPT_BYTES", 2 * lineage.size(stages[0].prints) + 1500)
    lineage.write(folder, Lineage(tuple(stages)))
    told = lineage.read(str(folder))
    assert [each.stage for each in told.learned] == ["s0", "s1", "s2"]
    assert told.unknown == ("stage 's3' of run 'out' learned from private.jsonl (too long ago to be kept)",)
    for each, rows in zip(told.learned, texts, strict=False):
        assert all(each.prints.nearest(Questions(records(*(f"{row}!" for row in rows)))))
    assert (folder / LINEAGE).stat().st_size < 2 * lineage.KEPT_BYTES


def test_hashes_of_forty_bits_survive() -> None:
    hashes = np.array([0, 1, (1 << 40) - 1, 1 << 39], dtype=np.uint64)
    part = Part(hashes, np.array([1, 0, 3], dtype=np.uint32))
    again = lineage.unpacked(Path("f"), "p", lineage.packed(Print(part, part, part, part, 4)))
    assert again.window == 4 and (again.runs.hashes == hashes).all() and (again.runs.counts == part.counts).all()
