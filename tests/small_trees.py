"""Ragged trees of random tokens in every shape that an objective reads, and the objectives that can train on them."""

import torch

from truing import registry
from truing.data.batch import Branch, Tree
from truing.data.kinds import Comparison, shape_of
from truing.data.trees import with_shadows
from truing.recipe.families import of_rollouts
from truing.records import OWED

ROLES = {
    "single": ["response"],
    "pairs": ["chosen", "rejected"],
    "ranked": ["chosen", "rejected", "rejected", "rejected"],
    "labelled": ["desirable", "undesirable"],
    "scored": ["response"],
    "outcomes": ["response"],
    "steps": ["response"],
    "compared": ["compared"] * 4,
}


def trainable() -> list[str]:
    """Every built-in objective that learns from given data."""
    parts = registry.parts("objective")
    return sorted(name for name, part in parts.items() if not OWED & set(part.needs) and not of_rollouts(part))


def ragged(shape: str, n: int = 8, vocabulary: int = 250, longest: int = 15, seed: int = 5) -> tuple[Tree, ...]:
    """Trees with prompts of 3 to 12 tokens and responses of 1 to `longest` - 1, in this shape.

    Rankings have 2 to 4 answers, labelled trees one response or one of each kind, and every tree has a shadow.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, vocabulary, (draw(low, high),), generator=generator).tolist())

    def branch(role: str) -> Branch:
        words = ids(1, longest)
        steps = tuple((t, float(draw(0, 2) * 2 - 1)) for t in range(0, len(words), 3)) if shape == "steps" else ()
        right = float(draw(0, 2))
        targets = {"": right if shape == "outcomes" else right + draw(0, 9) / 10}
        steps = tuple((t, right) for t in range(len(words))) if shape == "outcomes" else steps
        return Branch(role, words, (True,) * len(words), targets, steps)

    def tree(i: int) -> Tree:
        roles = ROLES[shape]
        if shape == "ranked":
            roles = roles[: 2 + i % 3]
        if shape == "labelled":
            roles = roles[i % 3 % 2 :] if i % 3 else roles
        values = {"margin_B": i / 10, "chosen_safe_B": float(i % 2), "rejected_safe_B": float(i % 3 == 0)}
        tie = {"tie_B": float(i % 4 == 0)}
        verdicts = (Comparison(0, 1, tie), Comparison(3, 2), Comparison(1, 3)) if shape == "compared" else ()
        return Tree(ids(3, 13), tuple(map(branch, roles)), i, i + 1, values | tie, verdicts)

    return with_shadows([tree(i) for i in range(n)], seed, 10**4)


def fitting(name: str, n: int = 8) -> tuple[Tree, ...]:
    """Trees that the objective of this name learns from."""
    return ragged(shape_of(registry.parts("objective")[name].needs), n)
