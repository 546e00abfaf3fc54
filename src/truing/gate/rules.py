"""A rules file: the conditions that findings must meet before a model ships.

    rules:
      - {check: held_out_win_delta, end: lower, min: 0.0, samples: 200}
      - {check: mean_length_delta_tokens, end: upper, max: 20}

A rule is met where the whole interval of a finding satisfies its bound: the lower end for `min`, the upper one for
`max`. `end` may name it. An end that would let through what may lie beyond the bound is refused, and so is a bare
value, which does not say how sure it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from truing import door
from truing.errors import UserError, unknown
from truing.records import Finding
from truing.yaml_text import reading

_LARGEST = 300_000
"""Most characters of a rules file, which is a page of text."""
SHOWN = 100
"""Most mistakes that are reported at once."""
End: TypeAlias = Literal["lower", "upper"]
Side: TypeAlias = Literal["min", "max"]
_CAUTIOUS: dict[Side, End] = {"min": "lower", "max": "upper"}


class Rule(BaseModel):
    """One condition. `samples` is the least number of independent items a finding must rest on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: str = Field(min_length=1)
    end: End | None = None
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)
    samples: int | None = Field(default=None, ge=1)
    model: str | None = None
    against: str | None = None
    slice: str | None = None

    @field_validator("min", "max", "samples", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a number is needed, not true or false")
        return value

    @field_validator("end", mode="before")
    @classmethod
    def _no_bare_value(cls, value: Any) -> Any:
        if value == "value":
            raise ValueError("a bare value does not say how sure it is; leave 'end' out, and the whole interval counts")
        return value

    @model_validator(mode="after")
    def _whole_interval(self) -> Rule:
        for side, cautious in _CAUTIOUS.items():
            if getattr(self, side) is not None and self.end not in (None, cautious):
                raise ValueError(
                    f"'end: {self.end}' with '{side}' lets through what may lie beyond the bound; the whole interval "
                    f"has to satisfy it: 'end: {cautious}', or leave 'end' out"
                )
        return self

    def bounds(self) -> list[tuple[End, Side, float]]:
        """Comparisons of this rule: which end, which side, which number."""
        bounds = [(end, side, getattr(self, side)) for side, end in _CAUTIOUS.items()]
        return [(end, side, number) for end, side, number in bounds if number is not None]

    def names(self, f: Finding) -> bool:
        """True if the rule is about this finding."""
        places = ((self.model, f.model), (self.against, f.against), (self.slice, f.slice))
        return self.check == f.check and all(wanted is None or wanted == has for wanted, has in places)

    def text(self) -> str:
        """The rule as a sentence.

        >>> Rule(check="win_delta", end="lower", min=0.0, samples=200).text()
        'win_delta: lower end at least 0, from 200 samples or more'
        """
        parts = [
            f"{end} end at {'least' if side == 'min' else 'most'} {number:g}" for end, side, number in self.bounds()
        ]
        where = [f"{name} {x}" for name in ("model", "against", "slice") if (x := getattr(self, name)) is not None]
        place = f" ({', '.join(where)})" if where else ""
        least = f", from {self.samples} samples or more" if self.samples else ""
        return f"{self.check}{place}: {' and '.join(parts)}{least}"


def read_rules(path: Path) -> list[Rule]:
    """The rules of a YAML or JSON file. Every mistake in it is reported at once, with its rule and line."""
    return parse_rules(door.read_text(path, most=_LARGEST), path.name)


def parse_rules(text: str, name: str = "rules") -> list[Rule]:
    """The rules in a text; `name` stands for the file in messages.

    >>> parse_rules("rules: [{check: win_delta, min: 3e-5}]")[0].min
    3e-05
    """
    try:
        root = reading.read(text, "a rules file", most=_LARGEST)
    except reading.YamlError as e:
        raise UserError(f"{name}{f', line {e.line}' if e.line else ''}: {e.problem}") from None
    if "rules" not in root.entries:
        raise UserError(
            f"{name}: needs a list under 'rules', such as rules: [{{check: win_delta, end: lower, min: 0}}]"
        )
    strange = [key for key in root.entries if key != "rules"]
    if strange:
        raise UserError(f"{name}: {unknown('key', strange[0], ['rules'])}")
    rows = root.entries["rules"].value
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{name}: 'rules' must list at least one rule; a gate without rules would pass anything")
    rules, mistakes = [], []
    for i, row in enumerate(rows):
        place = f"{name}, rule {i + 1}, line {row.line}"
        checked = _rule(row.plain)
        if isinstance(checked, Rule):
            rules.append(checked)
        else:
            mistakes += [f"{place}: {m}" for m in checked]
    if mistakes:
        more = [f"and {len(mistakes) - SHOWN:,} mistakes more"] if len(mistakes) > SHOWN else []
        raise UserError("\n".join(mistakes[:SHOWN] + more))
    return rules


def _rule(row: Any) -> Rule | list[str]:
    if not isinstance(row, dict):
        return [f"a rule is a mapping such as {{check: win_delta, min: 0}}, not {door.shown(row)}"]
    strange = [str(key) for key in row if key not in Rule.model_fields]
    if strange:
        return [unknown("key", key, Rule.model_fields) for key in strange]
    try:
        rule = Rule.model_validate(row)
    except ValidationError as e:
        return [_mistake(x) for x in e.errors()]
    if not rule.bounds():
        return ["needs 'min' or 'max': without a bound it would pass anything"]
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        return [f"min {rule.min:g} is above max {rule.max:g}: nothing could pass"]
    return rule


def _mistake(problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # of the rule as a whole
        return str(message)
    return f"{'.'.join(map(str, problem['loc']))}: {message} (given: {door.shown(problem['input'])})"
