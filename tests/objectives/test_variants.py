"""What gives another trainer's number: options and sums of terms, against TRL 1.16's values and gradients, frozen.

`make differential KEEP=1` wrote trl.json with TRL's own loss code; docs/differential.md says which is which.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from small_models import build
from small_steps import advantages_of, value_and_gradient
from small_trees import ragged
from truing.data.batch import Batch, Branch, Tree
from truing.objectives import bradley_terry, dpo
from truing.policy.load import load
from truing.signals.observe import observe
from truing.stages.prepare import compile_objective
from truing.train.step_statistics import Survey

FROZEN = json.loads((Path(__file__).parent / "trl.json").read_text(encoding="utf-8"))
CASES = FROZEN["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_gives_the_number_of_trl(case) -> None:
    if case["kind"] == "scores":
        assert advantages_of(case["ours"], FROZEN["inputs"][case["kind"]]).tolist() == pytest.approx(
            case["value"], rel=case["bound"]
        )
        return
    value, gradient = value_and_gradient(case["kind"], FROZEN["inputs"][case["kind"]], case["ours"])
    theirs = torch.tensor(case["gradient"], dtype=torch.float64)
    assert value.item() == pytest.approx(case["value"], rel=case["bound"], abs=case["bound"])
    assert torch.allclose(gradient, theirs, rtol=0, atol=case["bound"] * theirs.abs().max().item())


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("DPO ipo", [{"ipo": {}}]),
        ("CPO sigmoid, cpo_alpha 1.0", [{"cpo": {}}]),
        ("ORPO", [{"orpo": {}}]),
    ],
)
def test_the_default_is_the_sources_and_another_number(peer: str, source) -> None:
    case = next(c for c in CASES if c["name"] == peer)
    value, _ = value_and_gradient(case["kind"], FROZEN["inputs"][case["kind"]], source)
    assert value.item() != pytest.approx(case["value"], rel=1e-2)


def test_the_default_deviation_is_the_populations() -> None:
    case = next(c for c in CASES if c["name"] == "GRPO advantages, group")
    ours = advantages_of("standardised, population", FROZEN["inputs"][case["kind"]])
    assert torch.allclose(
        ours / torch.tensor(case["value"], dtype=torch.float64), torch.tensor(4 / 3).double().sqrt(), atol=1e-3
    )


@pytest.mark.parametrize("objective", [dpo, bradley_terry])
def test_losses_are_exact_far_out(objective) -> None:
    """Beyond 20 torch's softplus is its argument: a relative error of 1e-10, and a gradient of exactly 1."""
    pair = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (-22.0, 0.0)]
    rest = [torch.zeros(1)] * 2 if objective is dpo else []
    loss = objective(*pair, *rest, **({"beta": 1.0} if objective is dpo else {}))
    loss.sum().backward()
    assert loss.item() == pytest.approx(22 + math.log1p(math.exp(-22)), rel=1e-15)
    assert 1 + pair[0].grad.item() == pytest.approx(1 / (1 + math.exp(22)), rel=1e-5)


def test_an_objectives_own_weight_is_not_the_terms() -> None:
    odds, likelihood = compile_objective([{"cpo": {"weight": 0.0}}, {"nll": {"weight": 0.5}}]).terms
    assert (odds.weight, odds.options["weight"]) == (1.0, 0.0)
    assert likelihood.weight == 0.5 and "weight" not in likelihood.options


def test_prompts_are_learned_by_a_term_of_their_own(tmp_path) -> None:
    """`nll_whole` beside a likelihood without a mask, from plain transformers; the last prompt is a single token."""
    folder = str(build("llama", ["the desk grants a refund"] * 8, tmp_path, vocab=300))
    policy, plain = load(folder), AutoModelForCausalLM.from_pretrained(folder).double()
    policy.verified = True
    policy.model.double()
    one = Tree((11,), (Branch("chosen", (12, 13), (True, True)), Branch("rejected", (14,), (True,))), 8, 9)
    batch, terms = Batch((*ragged("pairs"), one)), compile_objective("nll_whole")
    survey, parts = Survey(terms), list(batch.split(60))
    survey.take(batch, [(part, 1.0) for part in parts], lambda part, names: observe(policy, part, names))
    counts = terms.counts(batch)
    ours = [terms.total(observe(policy, p, terms.signals), counts, survey.of(p))[0] for p in parts]
    torch.stack(ours).sum().backward()

    def nll(tree: Tree) -> torch.Tensor:
        ids = torch.tensor([tree.prompt + tree.branches[0].ids])
        logp = plain(input_ids=ids).logits[0, :-1].log_softmax(-1)
        return -logp.gather(1, ids[0, 1:, None]).sum()

    tokens = sum(len(tree.prompt) + len(tree.branches[0].ids) - 1 for tree in batch.trees)
    theirs = torch.stack([nll(tree) for tree in batch.trees]).sum() / tokens
    theirs.backward()
    assert len(parts) > 2
    assert sum(x.item() for x in ours) == pytest.approx(theirs.item(), abs=1e-6)
    for (name, p), q in zip(policy.model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-6), name
