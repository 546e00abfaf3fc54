"""The bounds of rounding hold where only the order of additions differs, and are passed by a fault a little larger."""

import numpy as np
import pytest
import torch

import bounds
from parallel import jobs


@pytest.mark.parametrize(("dtype", "real"), [(torch.float32, np.float32), (torch.float64, np.float64)])
@pytest.mark.parametrize("n", [20, 1000, 100_000])
def test_sums_in_another_order_are_within_their_bound(dtype, real, n) -> None:
    """One term after the other, as a loop without vectors has it, in twenty orders; a tenth of a term more is seen."""
    random = np.random.default_rng(n)
    terms = random.normal(size=n).astype(real)
    most = bounds.summed(dtype, n, float(np.abs(terms).sum()))
    sums = [float(np.cumsum(random.permutation(terms))[-1]) for _ in range(20)]
    assert 0 < max(sums) - min(sums) <= most
    terms[np.abs(terms).argmax()] *= real(1.1)
    assert (abs(float(np.cumsum(terms)[-1]) - sums[0]) > most) == (most < 0.1)


def test_a_sum_in_a_smaller_type_is_seen() -> None:
    terms = torch.randn(4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    off = abs(terms.sum().item() - terms.float().sum().item())
    assert off > bounds.summed(torch.float64, 4096, terms.abs().sum().item())


@pytest.mark.parametrize(
    ("measure", "objective", "fault"),
    [("nll", "nll", "bent:3"), ("bradley_terry", "bradley_terry", "bent:3"), ("padded", "nll", "bent more:3")],
)
def test_a_part_that_is_a_little_off_is_seen(measure, objective, fault) -> None:
    """One part of one step reads its signals 1e-10 too large, a 500th of what fp32 rounds; where fp32 is computed with,
    4e-3. Weights leave their bounds, and so does the loss of that step."""
    quiet = jobs.single()[measure]
    other = jobs.alone(
        f"bent-{measure}",
        objective=objective,
        steps=5,
        kill=fault,
        layout="padded" if measure == "padded" else "trees",
    )
    assert other.code == 0 and jobs.off(quiet, quiet) == 0
    assert jobs.off(quiet, other) > 1
    assert other.metrics()[0]["loss"] != pytest.approx(quiet.metrics()[0]["loss"], rel=1e-11)


def test_a_weight_that_is_not_trained_has_no_room() -> None:
    quiet = jobs.single()["lora"]
    weights, off = quiet.weights(), quiet.off()
    name = next(name for name in weights if not off[name].any())
    weights[name] = weights[name] * (1 + 2**-52)
    assert bounds.worst(quiet.weights(), weights, off) == float("inf")
