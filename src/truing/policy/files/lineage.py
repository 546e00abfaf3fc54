"""The lineage of a model's folder: the data that it, its bases and the judges that taught it learned from. (No torch.)

`lineage.json` holds a fingerprint of every data set (`data/likeness.py`): hashes, and never a row's text. Who has it
can test whether a text that they know, or guess five words at a time, was learned from, and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from truing import door, seals
from truing.data.likeness import BITS, Part, Print
from truing.disk import write_exact
from truing.errors import DataError, UserError, one_line, redacted
from truing.policy.files import adapter_files
from truing.policy.files.folder_digest import LINEAGE, snapshot

READ_BYTES = 64 * door.MEGABYTE
"""Largest lineage file that is read, in bytes."""
KEPT_BYTES = 32 * door.MEGABYTE
"""Bytes of hashes that are written; beyond it older data sets are kept by their turns alone, then not at all."""
BYTES = BITS // 8
PARTS = ("exact", "turns", "runs", "grams")
FACTS: Mapping[str, type] = {"weights": str, "run": str, "stage": str, "data": str, "verdicts": bool, "print": str}


@dataclass(frozen=True)
class Learned:
    """A data set that weights (their digest) learned from in a stage of a run, by its fingerprint; `verdicts` where it
    held any."""

    weights: str
    run: str
    stage: str
    data: str
    verdicts: bool
    prints: Print

    @property
    def text(self) -> str:
        """The run and stage that learned from it, in words."""
        return f"stage '{self.stage}' of run '{self.run}' learned from {self.data}"


@dataclass(frozen=True)
class Lineage:
    """The data sets that weights learned from, the last first; and the models before them for which these are
    `unknown`, and why."""

    learned: tuple[Learned, ...] = ()
    unknown: tuple[str, ...] = ()
    weights: str = ""

    def before(self, *others: Lineage) -> Lineage:
        """This with what came before it, each once."""
        learned: dict[tuple[str, ...], Learned] = {}
        for each in (each for lineage in (self, *others) for each in lineage.learned):
            learned.setdefault((each.weights, each.run, each.stage, each.data), each)
        unknown = dict.fromkeys(text for lineage in (self, *others) for text in lineage.unknown)
        return Lineage(tuple(learned.values()), tuple(unknown), self.weights)

    def rewritten(self) -> Lineage:
        """The lineage of the same model in other weights: merged, or of another precision."""
        learned = (replace(each, weights="") if each.weights == self.weights else each for each in self.learned)
        return Lineage(tuple(learned), self.unknown)

    def verdicts(self) -> list[Print]:
        """Fingerprints of the data that tell a model which of two responses is better: all that its own weights learned
        from, and of what came before the verdicts alone."""
        return [each.prints for each in self.learned if each.verdicts or each.weights == self.weights]


def weights_of(folder: Path) -> str:
    """The digest of the weights in a folder, whatever lies beside them."""
    hashes = {path.name: seals.file_hash(path) for path in sorted(folder.glob("*.safetensors"))}
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def write(folder: Path, lineage: Lineage) -> None:
    """Write the lineage of the weights in a folder; data sets that have no weights yet are theirs."""
    weights = weights_of(folder)
    learned = [replace(each, weights=each.weights or weights) for each in lineage.learned]
    fitting = list(bounded(learned))
    lost = [f"{each.text} (too long ago to be kept)" for each in learned[len(fitting) :]]
    prints = {identity(each.prints): each.prints for each in fitting}
    body = {
        "format": 1,
        "weights": weights,
        "unknown": [redacted(text) for text in (*lineage.unknown, *lost)],
        "learned": [described(each) for each in fitting],
        "prints": {name: packed(each) for name, each in prints.items()},
    }
    # not `seals.sealed`: hashes in base64 are no words, and one may look like a key
    write_exact(folder / LINEAGE, json.dumps({**body, seals.SEAL: seals.seal_of(body)}))


def described(learned: Learned) -> dict[str, Any]:
    """A data set as the file names it."""
    words = {name: redacted(getattr(learned, name)) for name in ("weights", "run", "stage", "data")}
    return {**words, "verdicts": learned.verdicts, "print": identity(learned.prints)}


def bounded(learned: Iterable[Learned]) -> Iterator[Learned]:
    """The data sets that a file has room for, the last first: whole, then by their turns alone, then none."""
    room, met = KEPT_BYTES, set[str]()
    for each in learned:
        prints = each.prints
        if room < size(prints) and identity(prints) not in met:
            prints = replace(prints, runs=none_of(prints.runs), grams=none_of(prints.grams))
        if identity(prints) not in met:
            room -= size(prints)
            met.add(identity(prints))
        if room < 0:
            return
        yield replace(each, prints=prints)


def none_of(part: Part) -> Part:
    """A part without its hashes."""
    return Part(part.hashes[:0], np.zeros_like(part.counts))


def size(prints: Print) -> int:
    """Bytes that a fingerprint takes."""
    return sum(BYTES * len(part.hashes) + 4 * len(part.counts) for part in parts_of(prints).values())


def parts_of(prints: Print) -> dict[str, Part]:
    """The parts of a fingerprint by name."""
    return {name: getattr(prints, name) for name in PARTS}


def identity(prints: Print) -> str:
    """Content hash of a fingerprint, since loops learn from the same data again."""
    hashed = hashlib.sha256(str(prints.window).encode())
    for part in parts_of(prints).values():
        hashed.update(part.hashes.tobytes() + part.counts.tobytes())
    return hashed.hexdigest()[:16]


def packed(prints: Print) -> dict[str, Any]:
    """A fingerprint as JSON holds it: 5 bytes a hash, 4 a count, in base64."""
    body: dict[str, Any] = {"window": prints.window}
    for name, part in parts_of(prints).items():
        hashes = np.ascontiguousarray(part.hashes.astype("<u8")).view(np.uint8).reshape(-1, 8)[:, :BYTES]
        body[name] = [text_of(hashes.tobytes()), text_of(part.counts.astype("<u4").tobytes())]
    return body


def text_of(content: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(content).decode("ascii")


def read(name: str) -> Lineage:
    """The lineage of the model in a folder, or of a Hub's name that was fetched. Where it has none, or none that can be
    believed, what the model learned from is unknown, and why; of an adapter what its base learned from is known still.
    """
    folder = Path(name) if Path(name).is_dir() else snapshot(name)
    called = "/".join(Path(name).absolute().parts[-2:]) if Path(name).is_dir() else name
    if folder is None:
        return Lineage(unknown=(f"{called} (it is not on this disk)",))
    try:
        if (folder / LINEAGE).exists():
            return read_file(folder)
        why = f"there is no {LINEAGE} in its folder"
    except DataError as problem:
        why = one_line(str(problem))
    return Lineage(unknown=(f"{called} ({why})",)).before(*before_adapter(folder))


def before_adapter(folder: Path) -> list[Lineage]:
    """The lineage of an adapter's base; nothing for a whole model, or where the base is not there."""
    if not adapter_files.is_adapter(folder):
        return []
    try:
        return [read(base) for base in adapter_files.bases(folder, adapter_files.read_config(folder))[:1]]
    except UserError:
        return []


def read_file(folder: Path) -> Lineage:
    """The lineage that a folder's file tells. DataError where it is not one, was changed, or is of other weights."""
    path = folder / LINEAGE
    body = door.read_object(path, most=READ_BYTES, strict=True)
    if not seals.fits(body):
        raise DataError(str(path), "was changed after it was written, or has no seal")
    if body.get("weights") != weights_of(folder):
        raise DataError(str(path), "is of other weights than lie beside it")
    unknown, prints, rows = body.get("unknown"), body.get("prints"), body.get("learned")
    if not (isinstance(unknown, list) and isinstance(prints, dict) and isinstance(rows, list)):
        raise DataError(str(path), "is no lineage: it lacks unknown, prints or learned")
    by_name = {name: unpacked(path, name, each) for name, each in prints.items()}
    learned = tuple(learned_of(path, number, row, by_name) for number, row in enumerate(rows, start=1))
    return Lineage(learned, tuple(one_line(str(text)) for text in unknown), str(body["weights"]))


def learned_of(path: Path, number: int, row: Any, prints: Mapping[str, Print]) -> Learned:
    """One data set of a file; DataError where it is not one."""
    place = f"{path}, learned {number}"
    if not isinstance(row, dict) or any(not isinstance(row.get(name), kind) for name, kind in FACTS.items()):
        raise DataError(place, f"is no data set: {', '.join(FACTS)} are needed")
    if row["print"] not in prints:
        raise DataError(place, f"names the fingerprint {door.shown(row['print'])}, which is not there")
    words = {name: one_line(row[name]) for name in ("weights", "run", "stage", "data")}
    return Learned(**words, verdicts=row["verdicts"], prints=prints[row["print"]])


def unpacked(path: Path, name: str, body: Any) -> Print:
    """A fingerprint of a file; DataError where it is not one."""
    place = f"{path}, print {door.shown(name)}"
    window = body.get("window") if isinstance(body, dict) else None
    if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= 1 << 20:
        raise DataError(place, "has no window between 1 and 1,048,576")
    parts = {part: part_of(f"{place}, {part}", body.get(part)) for part in PARTS}
    if len({len(part.counts) for part in parts.values()}) > 1:
        raise DataError(place, "has parts of different numbers of rows")
    return Print(**parts, window=window)


def part_of(place: str, pair: Any) -> Part:
    """A part of a fingerprint; DataError where it is not one."""
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise DataError(place, "is no pair of texts: hashes and counts")
    hashes, counts = (content_of(place, text, unit) for text, unit in zip(pair, (BYTES, 4), strict=True))
    wide = np.zeros((len(hashes) // BYTES, 8), dtype=np.uint8)
    wide[:, :BYTES] = np.frombuffer(hashes, dtype=np.uint8).reshape(-1, BYTES)
    numbers: NDArray[np.uint32] = np.frombuffer(counts, dtype="<u4").astype(np.uint32)
    if int(numbers.sum(dtype=np.int64)) != len(wide):
        raise DataError(place, "has other counts than hashes")
    return Part(wide.view("<u8").reshape(-1).astype(np.uint64), numbers)


def content_of(place: str, text: str, unit: int) -> bytes:
    """The bytes that a text in base64 says, in whole units."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(place, "is not base64") from error
    if len(content) % unit:
        raise DataError(place, "ends within a number")
    return content
