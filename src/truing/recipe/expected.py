"""The `expect:` block of a recipe: which finding a line names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from truing.records import Finding

TAUGHT = "taught"
"""Check name of the finding that records whether a stage taught its model anything."""
FORM = "stage.model.check, and where several are so called stage.model.check@against#slice"
_PATH = re.compile(r"(?P<stage>[^.@#]+)\.(?P<model>[^@#]+)\.(?P<check>[^.@#]+)(@(?P<against>[^#]+))?(#(?P<slice>.+))?")


@dataclass(frozen=True)
class Expected:
    """The finding that a line of the expect block names; `against` and `slice` are empty where there is no choice."""

    stage: str
    model: str
    check: str
    against: str = ""
    slice: str = ""

    @classmethod
    def read(cls, path: str) -> Expected | None:
        """Divide a path into its parts; None where it has not the form.

        >>> Expected.read("exam.direct.win_rate@base")
        Expected(stage='exam', model='direct', check='win_rate', against='base', slice='')
        """
        parts = _PATH.fullmatch(path)
        return None if parts is None else cls(**{name: text or "" for name, text in parts.groupdict().items()})

    def names(self, f: Finding) -> bool:
        """True if this line names the finding."""
        return (f.model, f.check) == (self.model, self.check) and all(
            not wanted or wanted == has for wanted, has in ((self.against, f.against), (self.slice, f.slice))
        )
