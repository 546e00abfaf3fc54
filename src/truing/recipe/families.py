"""Families of objectives by their signals: what they train and learn from, and so which stages can train them (no
torch)."""

from __future__ import annotations

from truing import registry
from truing.data.kinds import shape_of
from truing.objectives.signals import SIGNALS
from truing.records import OWED
from truing.schema.signature import Part


def of_reward(part: Part) -> bool:
    """True if an objective trains a reward model, and not a policy."""
    return any("reward" in name or "_logit_" in name for name in part.needs)


def is_built_in(part: Part) -> bool:
    """True for a part of truing's own; a user's may have the same name."""
    return registry.parts(part.kind).get(part.name) == part


def gives(home: Part, part: Part) -> bool:
    """True if a stage whose default objective is `home` provides what this one reads, at least as one term of
    several."""
    if of_reward(part) != of_reward(home):
        return False
    if of_rollouts(home):  # kto's baseline reads responses to other prompts, which a policy's own responses are not
        suitable = shape_of(part.needs) in ("single", "pairs", "ranked", "labelled")
        return suitable and "mismatched_logp_B" not in part.surveyed
    return not of_rollouts(part) and (shape_of(home.needs) != "single" or shape_of(part.needs) == "single")


def trains(owner: Part, part: Part) -> bool:
    """True if this stage can train this objective alone."""
    home = own_objective(owner)
    if home is None or not gives(home, part):
        return False
    return of_rollouts(home) or (shape_of(part.needs) == "single") == (shape_of(home.needs) == "single")


def origins(part: Part) -> set[str]:
    """Origins of the signals that an objective and its statistics read."""
    return {SIGNALS[n].origin for n in (*part.needs, *part.optional, *part.surveyed) if n in SIGNALS}


def of_rollouts(part: Part | None) -> bool:
    """True if an objective learns from the policy's own responses and their scores, and from nothing else."""
    return part is not None and (bool(part.advantage) or "rollout" in origins(part))


def own_objective(owner: Part) -> Part | None:
    """A stage's default objective, or None where it has none."""
    option = owner.option("objective")
    objectives = registry.parts("objective")
    return objectives.get(option.default) if option and isinstance(option.default, str) else None


def stages(part: Part) -> list[str]:
    """The stages that can train an objective by itself, or one that goes with any advantages, beside another."""
    if OWED & set(part.needs):
        return []
    return [name for name, stage in registry.parts("stage").items() if trains(stage, part)]
