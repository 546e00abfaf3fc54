"""Every objective keeps every clause; objectives made wrong on purpose are caught by the clause they break."""

import pytest
import torch
from torch import Tensor

from truing import contract, registry
from truing.contract.clauses import others
from truing.records import Positive
from truing.registry import Option, objective

NAMES = sorted(registry.parts("objective"))
DOC = """A fixture.

    loss = ...

Differs from the source: all of it.

>>> 1
1
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clause", contract.CLAUSES)
def test_keeps(name: str, clause: str) -> None:
    part = registry.load(name, "objective")
    if clause in part.exempt:
        assert contract.CLAUSES[clause](part), f"{name} is exempt from '{clause}' but keeps it: remove the exemption"
        return
    assert contract.CLAUSES[clause](part) == ""


def make(fn, **more):
    fn.__doc__ = DOC
    return objective(source="a test", **more)(fn)


def reduced(chosen_logp_B: Tensor, rejected_logp_B: Tensor) -> Tensor:
    return (rejected_logp_B - chosen_logp_B).mean()


def centred(chosen_logp_B: Tensor, rejected_logp_B: Tensor) -> Tensor:
    d = rejected_logp_B - chosen_logp_B
    return d - 0.5 * d.mean()


def upside_down(chosen_logp_B: Tensor, rejected_logp_B: Tensor) -> Tensor:
    return chosen_logp_B - rejected_logp_B


def dead(chosen_logp_B: Tensor, rejected_logp_B: Tensor, *, beta: float = 0.1) -> Tensor:
    return rejected_logp_B - chosen_logp_B


def overflows(chosen_logp_B: Tensor, rejected_logp_B: Tensor) -> Tensor:
    return torch.log1p(torch.exp(rejected_logp_B - chosen_logp_B))


def detached(chosen_logp_B: Tensor, rejected_logp_B: Tensor) -> Tensor:
    return (rejected_logp_B - chosen_logp_B) * chosen_logp_B.detach()


def unmasked(logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    return -logp_BT + 0 * mask_BT


def strange(chosen_logits_B: Tensor) -> Tensor:
    return chosen_logits_B


def one_sided(chosen_logp_B: Tensor, rejected_logp_B: Tensor, ref_rejected_logp_B: Tensor) -> Tensor:
    return rejected_logp_B - ref_rejected_logp_B.detach() + 0 * chosen_logp_B


def without_reference(chosen_logp_B: Tensor, ref_chosen_logp_B: Tensor) -> Tensor:
    return -chosen_logp_B


def reference_flipped(chosen_logp_B: Tensor, ref_chosen_logp_B: Tensor) -> Tensor:
    return -(chosen_logp_B + ref_chosen_logp_B.detach())


def worst_first(logp_BK: Tensor, rank_mask_BK: Tensor) -> Tensor:
    left = logp_BK.masked_fill(rank_mask_BK <= 0, -1e30)
    return torch.where(rank_mask_BK > 0, logp_BK - left.logsumexp(1)[:, None], 0.0)[:, 0]


def behind_the_last(reward_BK: Tensor, rank_mask_BK: Tensor) -> Tensor:
    return reward_BK.logsumexp(1) - reward_BK[:, 0] + 0 * rank_mask_BK.sum(1)


def away_from_the_score(reward_B: Tensor, target_B: Tensor) -> Tensor:
    return -(reward_B - target_B).square()


def wrong_steps(step_logit_BS: Tensor, target_B: Tensor, step_mask_BS: Tensor) -> Tensor:
    return torch.where(step_mask_BS > 0, target_B[:, None] * step_logit_BS, 0.0)


def lost(chosen_logp_B: Tensor) -> Tensor:
    return chosen_logp_B.no_such_method()


@pytest.mark.parametrize(
    ("fn", "clause"),
    [
        (worst_first, "direction"),
        (behind_the_last, "masked tokens"),
        (away_from_the_score, "direction"),
        (wrong_steps, "direction"),
        (lost, "one loss per row"),
        (one_sided, "no dead signal"),
        (one_sided, "direction"),
        (without_reference, "no dead signal"),
        (reference_flipped, "against reference"),
        (reduced, "one loss per row"),
        (centred, "batch size"),
        (upside_down, "direction"),
        (dead, "no dead option"),
        (overflows, "finite at extremes"),
        (detached, "gradient"),
        (unmasked, "masked tokens"),
        (strange, "known signals"),
    ],
)
def test_catches(fn, clause: str) -> None:
    found = contract.violations(make(fn))
    assert any(line.startswith(f"{fn.__name__}: {clause}:") for line in found), found


def test_tokens_without_a_mask_are_refused_where_they_are_declared() -> None:
    def unaware(logp_BT: Tensor) -> Tensor:
        return -logp_BT

    with pytest.raises(TypeError, match="asks for tokens and not for mask_BT"):
        objective(source="a test")(unaware)


def test_catches_a_bare_docstring() -> None:
    def bare(chosen_logp_B: Tensor) -> Tensor:
        """Nothing."""
        return -chosen_logp_B

    assert "a formula" in contract.CLAUSES["described"](objective(source="a test")(bare))


def test_an_option_without_a_default_cannot_be_tried() -> None:
    def needy(chosen_logp_B: Tensor, rejected_logp_B: Tensor, *, beta: Positive) -> Tensor:
        return beta * (rejected_logp_B - chosen_logp_B)

    found = contract.violations(make(needy))
    assert found == ["needy: defaults: option 'beta' has none; give it the source's, or a harmless one"]


@pytest.mark.parametrize(
    ("words", "tries"),
    [
        ("Literal['a', 'b'] | None", ["a", "b"]),
        ("Literal[1, 2]", [1, 2]),
        ("bool", [True, False]),
        ("Fraction", [0.3, 0.05, 0.7, 0.5]),
        ("Positive | None", [0.3, 0.05, 0.7, 0.5, 2.0, 3.0]),
        ("Count", [2, 3]),
        ("str", []),
    ],
)
def test_an_option_is_tried_with_values_that_it_takes(words: str, tries: list) -> None:
    assert others(Option("x", words)) == tries


def test_an_exemption_is_declared_with_its_clause() -> None:
    assert contract.violations(make(centred, exempt={"batch size": "coupled", "gradient": "coupled"})) == []
    assert "unknown clause 'batch siz'" in contract.violations(make(centred, exempt={"batch siz": "x"}))[0]
