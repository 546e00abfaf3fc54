"""Error spending over the looks of a gate: the first look has its 2.5 %, all later ones together as much again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from truing import door, seals
from truing.consistency import Ends, range_of
from truing.disk import as_json, write_exact
from truing.errors import DataError, UserError
from truing.gate.rules import Rule
from truing.records import Finding, digest

ALPHA = 0.025
"""The share of decisions that a gate may get wrong by chance at its first look, on one side."""
LEDGER = "looks.json"


def error_of(look: int) -> float:
    """The one-sided error that a look may spend: 0.025 at the first, 0.025 / (k (k - 1)) at the k-th, so that all of
    them together, however many, spend no more than 0.05.

        sum over k >= 2 of 1 / (k (k - 1)) = 1

    >>> error_of(1), error_of(2), round(sum(error_of(k) for k in range(1, 1000)), 4)
    (0.025, 0.0125, 0.05)
    """
    return ALPHA if look < 2 else ALPHA / (look * (look - 1))


def interval_at(f: Finding, look: int) -> Ends | None:
    """A finding's interval as it stands at this look: at the first its own, later wider on both sides.

    A side grows by the ratio of Student's quantiles, with one degree of freedom less than the finding has items, and
    ends where the range of its check does.

    >>> f = Finding("win_delta", "direct", 0.1, interval=(0.02, 0.18), n=500)
    >>> [tuple(round(end, 3) for end in interval_at(f, k)) for k in (1, 2, 5)]
    [(0.02, 0.18), (0.008, 0.192), (-0.024, 0.224)]
    """
    if f.interval is None or look < 2:
        return f.interval
    from scipy.special import stdtrit  # here, so that a recipe is checked at once

    freedom = max(1, f.n - 1)
    wider = float(stdtrit(freedom, 1 - error_of(look)) / stdtrit(freedom, 1 - ALPHA))
    low, high = (f.value + (end - f.value) * wider for end in f.interval)
    least, most = range_of(f.check)
    return max(low, least), min(high, most)


def look_number(
    folder: Path, gate: str, findings: Sequence[Finding], rules: Sequence[Rule], beside: Collection[str] = ()
) -> int:
    """Number of this look of the gate, in the folder of its run: the same evidence under the same rules is the same
    look however often; anything else is one more, and is written into looks.json. Findings that no rule reads do not
    count.

    Every look in the folder counts, by hand (`gate` is empty) or by a gate of another name, but for those of
    the other gates of the same recipe (`beside`), all of which must let a model ship.
    """
    read = [f for f in findings if any(rule.names(f) for rule in rules)]
    shown = [evidence_hash(read), digest([rule.text() for rule in rules])]
    earlier = read_looks(folder / LEDGER)
    others = {name for name in beside if name != gate}
    counted = [[look["evidence"], look["rules"]] for look in earlier if look["gate"] not in others]
    if shown in counted:
        return counted.index(shown) + 1
    looks = [*earlier, {"gate": gate, "evidence": shown[0], "rules": shown[1]}]
    try:
        write_exact(folder / LEDGER, as_json(seals.sealed({"looks": looks}), LEDGER, indent=1))
    except OSError as error:
        why = f"cannot be written ({error.strerror}), and a look has to be counted"
        raise UserError(f"{folder / LEDGER}: {why}") from error
    return len(counted) + 1


def check_kept(folder: Path, expected: int) -> None:
    """UserError where a run's ledger has fewer looks than its manifest records: it was removed, or put back."""
    if len(read_looks(folder / LEDGER)) < expected:
        raise UserError(
            f"{folder / LEDGER}: {expected} looks of this run's gates were counted here, and they are gone; "
            "put the file back, or give another --out"
        )


def evidence_hash(findings: Sequence[Finding]) -> str:
    """A content hash of findings."""
    return digest([f.as_json() for f in findings])


def read_looks(path: Path) -> list[dict[str, Any]]:
    """The looks that a run's gates had, in order; none where there is no ledger. UserError for one that cannot be read:
    a gate would forget its earlier looks."""
    if not path.exists():
        return []
    with suppress(DataError):
        body = door.read_object(path, strict=True)
        looks = body.get("looks")
        if seals.fits(body) and isinstance(looks, list) and all(map(_is_look, looks)):
            return looks
    raise UserError(
        f"{path}: is not what truing wrote, and it counts how often the gates of this run have looked; put it back, or "
        "give another --out"
    )


def _is_look(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("gate", "evidence", "rules"))
