"""The scalar heads of a reward model as its config describes them: names, weights, and the tie parameter."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from truing import door
from truing.errors import UserError
from truing.records import is_number

FILE = "heads.json"
UNNAMED = "LABEL_0"
"""transformers' name of the only label of a config that names none."""

Read: TypeAlias = Literal["end", "steps", "tokens"]
"""The places at which a reward model was trained to be read: at the end of a response, at the ends of its steps, or at
all its tokens."""


@dataclass(frozen=True)
class Heads:
    """The scalar heads of a reward model, in order. One head without a name has an empty one.

    Its reward is the sum of weight times head; without `weights` the mean of the heads. `tie_logit` is what its tie
    parameter is, or None where it has none. `read` is where they were taught to be read. `costs` names the heads that
    were taught a cost, which is lower for the better response.
    """

    names: tuple[str, ...] = ("",)
    weights: tuple[float, ...] = ()
    tie_logit: float | None = None
    read: Read = "end"
    costs: tuple[str, ...] = ()

    @property
    def is_cost(self) -> bool:
        """True if every head is a cost."""
        return self.costs == self.names

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of every head in the reward.

        >>> Heads(("clarity", "truth")).shares, Heads(("clarity", "truth"), (1.0, -2.0)).shares
        ((0.5, 0.5), (1.0, -2.0))
        """
        return self.weights or (1 / len(self.names),) * len(self.names)

    def check_whole(self, name: str) -> None:
        """UserError for a model of single steps, called `name`: it does not score a whole response."""
        if self.read == "steps":
            raise UserError(
                f"reward model '{name}' was fitted to the steps of a solution, each read where it ends, and never to "
                "a whole response, so it is no reward or judge of responses; fit one with another objective (orm "
                "learns from solutions labelled right or wrong). Its fit_reward stage measures it on labelled steps "
                "(eval)."
            )

    @classmethod
    def of(cls, config: Any) -> Heads:
        """The heads that a model's config describes; ValueError where that is no description of its heads."""
        if sorted(config.id2label) != list(range(len(config.id2label))):
            raise ValueError(f"its id2label numbers its heads {door.shown(sorted(config.id2label))}, and not from 0")
        labels = tuple(str(config.id2label[i]) for i in range(len(config.id2label)))
        stored = {"weights": getattr(config, "head_weights", None), "tie_logit": getattr(config, "tie_logit", None)}
        stored |= {"read": getattr(config, "head_read", None), "costs": getattr(config, "head_costs", None)}
        return cls.from_json({"names": ("",) if labels == (UNNAMED,) else labels} | stored)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Heads:
        """The heads that `asdict` wrote; ValueError says what is wrong with them."""
        names, weights, tie_logit = row.get("names"), row.get("weights") or (), row.get("tie_logit")
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"its names are {door.shown(names)}, and are to be a list of text")
        if len(set(names)) < len(names):
            raise ValueError(f"two of its heads have one name: {door.shown(list(names))}")
        if not isinstance(weights, list | tuple):
            raise ValueError(f"its head_weights are {door.shown(weights)}, and are to be a list of numbers")
        if weights and (len(weights) != len(names) or not all(map(is_number, weights))):
            raise ValueError(
                f"its head_weights are {door.shown(list(weights))}, and it has the heads {', '.join(names)}"
            )
        if tie_logit is not None and not is_number(tie_logit):
            raise ValueError(f"its tie_logit is {door.shown(tie_logit)}, which is no number")
        read: Read = row.get("read") or "end"
        if read not in get_args(Read):
            raise ValueError(f"it is read at {door.shown(read)}, which is none of {', '.join(get_args(Read))}")
        costs = row.get("costs") or ()
        if not isinstance(costs, list | tuple) or not set(map(str, costs)) <= set(names):
            raise ValueError(f"its head_costs are {door.shown(costs)}, and it has the heads {', '.join(names)}")
        return cls(tuple(names), tuple(map(float, weights)), tie_logit, read, tuple(map(str, costs)))

    def into(self, config: Any) -> None:
        """Write them into a model's config, where plain transformers finds the names too."""
        labels = [UNNAMED] if self.names == ("",) else list(self.names)
        config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
        config.problem_type = None if self.names == ("",) else "regression"
        read = None if self.read == "end" else self.read
        weights = list(self.weights) or None
        stored = {"head_weights": weights, "tie_logit": self.tie_logit, "head_read": read}
        for key, value in (stored | {"head_costs": list(self.costs) or None}).items():
            if value is not None:
                setattr(config, key, value)
            elif hasattr(config, key):
                delattr(config, key)

    @classmethod
    def beside(cls, folder: Path) -> Heads:
        """The heads of an adapter, as truing wrote them beside it: one without a name where it wrote none."""
        if not (folder / FILE).exists():
            return cls()
        place = f"adapter '{folder}': its {FILE}"
        try:
            return cls.from_json(door.read_object(folder / FILE, place))
        except ValueError as error:
            raise UserError(f"{place} cannot be read ({error})") from error

    def keep(self, folder: Path) -> None:
        """Write them beside an adapter, whose own config has no place for them."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
