"""The parameters that several of the world's data sets share, each with what it does."""

from __future__ import annotations

from typing import Annotated, TypeAlias

Rows: TypeAlias = Annotated[int, "rows to make"]
Seed: TypeAlias = Annotated[int, "another number makes other rows"]
Split: TypeAlias = Annotated[str, "train or eval, which have no case in common"]
Quality: TypeAlias = Annotated[float, "share from 0 to 1: 1 is the best answer always, 0.5 an average agent"]
Rater: TypeAlias = Annotated[str, "who judges: careful, ordinary or hasty, with biases as in hasty+length:2"]
