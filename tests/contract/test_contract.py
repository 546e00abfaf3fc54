"""Every objective keeps every clause; objectives made wrong on purpose are caught by the clause they break."""

import pytest
import torch
from torch import Tensor

from truing import contract, registry
from truing.registry import objective

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


@pytest.mark.parametrize(
    ("fn", "clause"),
    [
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

    assert "a formula" in contract.described(objective(source="a test")(bare))


def test_an_exemption_is_declared_with_its_clause() -> None:
    assert contract.violations(make(centred, exempt={"batch size": "coupled", "gradient": "coupled"})) == []
    assert "unknown clause 'batch siz'" in contract.violations(make(centred, exempt={"batch siz": "x"}))[0]
