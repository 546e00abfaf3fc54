"""The cases of golden.json that concern `nll`, `bradley_terry` and `dpo`: values and gradients."""

import json
from pathlib import Path

import pytest
import torch

from truing.objectives import bradley_terry, dpo, nll
from truing.policy.logp import token_logp
from truing.train.objective_sum import Term, WeightedObjectives

CASES = {c["id"]: c for c in json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))["cases"]}
EXTRA = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))["extra"]


def t(value) -> torch.Tensor:
    return torch.tensor(value if isinstance(value, list) else [value], dtype=torch.float64)


def close(got, wanted, tolerance=1e-9) -> None:
    got = got.detach() if isinstance(got, torch.Tensor) else torch.tensor(got, dtype=torch.float64)
    assert torch.allclose(got.double(), t(wanted).reshape(got.shape), rtol=0, atol=tolerance), (got, wanted)


def dpo_signals(inputs: dict) -> dict[str, torch.Tensor]:
    names = {"chosen_logp_B": "policy_chosen", "rejected_logp_B": "policy_rejected"}
    names |= {"ref_chosen_logp_B": "ref_chosen", "ref_rejected_logp_B": "ref_rejected"}
    return {signal: t(inputs[name]) for signal, name in names.items()}


@pytest.mark.parametrize("name", [c for c in CASES if CASES[c]["method"] == "dpo"])
def test_dpo(name: str) -> None:
    inputs, expected = CASES[name]["inputs"], CASES[name]["expected"]
    loss = dpo(**dpo_signals(inputs), beta=inputs["beta"])
    close(loss, expected.get("per_pair", expected["loss"]))
    close(loss.mean(), expected["loss"])


def test_dpo_gradient() -> None:
    inputs, expected = CASES["dpo_gradient"]["inputs"], CASES["dpo_gradient"]["expected"]
    signals = {n: v.requires_grad_() for n, v in dpo_signals(inputs).items()}
    dpo(**signals, beta=inputs["beta"]).sum().backward()
    close(signals["chosen_logp_B"].grad, expected["d_chosen"])
    close(signals["rejected_logp_B"].grad, expected["d_rejected"])
    assert signals["ref_chosen_logp_B"].grad is None, "the reference is held fixed"


def test_dpo_population_optimum_is_a_stationary_point() -> None:
    """At pi* = ref * exp(r / beta) / Z, with labels drawn from the reward, the expected gradient is zero."""
    inputs = CASES["dpo_population_optimum"]["inputs"]
    reward, ref, beta = t(inputs["reward"]), t(inputs["ref"]).log(), inputs["beta"]
    logits = (ref + reward / beta).clone().requires_grad_()
    logp = logits.log_softmax(0)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            if i != j:
                p = torch.sigmoid(reward[i] - reward[j])
                pair = dpo(logp[i : i + 1], logp[j : j + 1], ref[i : i + 1], ref[j : j + 1], beta=beta)
                total = total + p * pair.sum()
    (gradient,) = torch.autograd.grad(total, logits)
    assert gradient.abs().max() < 1e-12
    margin = beta * (logp[0] - ref[0] - logp[1] + ref[1])
    close(margin.reshape(1), CASES["dpo_population_optimum"]["expected"]["implicit_margin_0_1"])


@pytest.mark.parametrize("name", ["seed_card2_bt_batch", "bt_margin", "bt_soft_labels"])
def test_bradley_terry_per_pair(name: str) -> None:
    inputs = CASES[name]["inputs"]
    chosen, rejected = t(inputs.get("r_chosen", inputs.get("r_1"))), t(inputs.get("r_rejected", inputs.get("r_2")))
    margin = t(inputs["margin"]) if "margin" in inputs else None
    soft = t(inputs["p_1_preferred"]) if "p_1_preferred" in inputs else None
    chosen.requires_grad_()
    loss = bradley_terry(chosen, rejected, margin, soft)
    close(loss, CASES[name]["expected"]["per_pair"])
    if "grad_r1" in CASES[name]["expected"]:
        loss.sum().backward()
        close(chosen.grad, CASES[name]["expected"]["grad_r1"])


def test_bradley_terry_probability() -> None:
    inputs, expected = CASES["seed_bt_probability"]["inputs"], CASES["seed_bt_probability"]["expected"]
    close(bradley_terry(t(inputs["r_a"]), t(inputs["r_b"])), expected["nll_a_preferred"])
    close(bradley_terry(t(inputs["r_b"]), t(inputs["r_a"])), expected["nll_b_preferred"])


def test_bradley_terry_centering() -> None:
    inputs, expected = CASES["bt_centering"]["inputs"], CASES["bt_centering"]["expected"]
    pair = t(inputs["r_chosen"]), t(inputs["r_rejected"])
    close(bradley_terry(*pair, centering=inputs["coefficient"]).mean(), expected["loss"])


def test_bradley_terry_offset_is_free_and_scale_is_not() -> None:
    inputs, expected = CASES["bt_shift_vs_scale"]["inputs"], CASES["bt_shift_vs_scale"]["expected"]
    chosen, rejected = t(inputs["r_chosen"]), t(inputs["r_rejected"])
    close(bradley_terry(chosen + inputs["shift"], rejected + inputs["shift"]).mean(), expected["loss_shifted"])
    close(bradley_terry(chosen * inputs["scale"], rejected * inputs["scale"]).mean(), expected["loss_scaled"])


def test_bradley_terry_gradient() -> None:
    inputs, expected = CASES["bt_gradient"]["inputs"], CASES["bt_gradient"]["expected"]
    chosen, rejected = t(inputs["r_chosen"]).requires_grad_(), t(inputs["r_rejected"]).requires_grad_()
    bradley_terry(chosen, rejected).sum().backward()
    close(chosen.grad, expected["d_r_chosen"])
    close(rejected.grad, expected["d_r_rejected"])


def test_sft_reads_only_the_response() -> None:
    """`token_logp` on the head's own inputs, and `nll` divided by the count of learned tokens."""
    inputs, expected = CASES["sft_completion_only"]["inputs"], CASES["sft_completion_only"]["expected"]
    logits = torch.tensor(inputs["logits"])[:-1]
    target = torch.tensor(inputs["input_ids"][1:])
    logp = token_logp(logits, torch.eye(4), target)
    close(logp, expected["shifted_token_logps"], 1e-6)
    mask = torch.tensor([inputs["completion_mask"][1:]], dtype=torch.float64)
    loss = nll(logp[None].double(), mask)
    close(loss.sum() / mask.sum(), expected["mean_nll"], 1e-6)


def test_token_mean_and_sequence_mean_differ() -> None:
    inputs, expected = CASES["sft_token_vs_sequence_mean"]["inputs"], CASES["sft_token_vs_sequence_mean"]["expected"]
    lengths = [int(n) for n in inputs["n_tokens"]]
    width = max(lengths)
    logp = torch.stack([torch.full((width,), -float(m)).double() for m in inputs["mean_nll_per_seq"]])
    mask = torch.stack([(torch.arange(width) < n).double() for n in lengths])
    total, _ = WeightedObjectives([Term(nll, {})]).total(
        {"logp_BT": logp, "mask_BT": mask}, torch.tensor([float(sum(lengths))])
    )
    close(total, expected["token_mean"])


def test_two_terms_are_each_divided_by_their_own_count() -> None:
    """DPO + NLL on the chosen (Pang 2024): rows for the one, tokens for the other."""
    inputs, expected = CASES["rpo_dpo_plus_sft"]["inputs"], CASES["rpo_dpo_plus_sft"]["expected"]
    lengths = [int(n) for n in inputs["len_chosen"]]
    signals = dpo_signals(inputs)
    mask = torch.stack([(torch.arange(max(lengths)) < n).double() for n in lengths])
    signals |= {"mask_BT": mask, "logp_BT": (t(inputs["policy_chosen"]) / t(lengths))[:, None] * mask}
    both = WeightedObjectives([Term(dpo, {"beta": inputs["beta"]}), Term(nll, {}, weight=inputs["alpha"])])
    total, shares = both.total(signals, torch.tensor([3.0, float(sum(lengths))]))
    close(total, expected["loss"])
    close(shares["nll"], expected["sft_token_mean"])


def test_tiny_language_model_end_to_end() -> None:
    """Weights to loss to gradient of a whole (tiny) language model."""
    case = CASES["seed_tiny_lm_dpo"]
    w = {k: torch.tensor(v, dtype=torch.float64) for k, v in EXTRA["tiny_weights"].items()}
    bias_name = next(k for k in w if "bias" in k)
    weight_name = next(k for k in w if "weight" in k and "embedding" not in k)
    policy = {k: v.clone() for k, v in w.items()}
    policy[bias_name][5] += 1
    policy[bias_name][6] += 1
    policy = {k: v.requires_grad_() for k, v in policy.items()}

    def logps(weights, prompt, response):
        ids = torch.tensor([*prompt, *response])
        hidden = weights["embedding.weight"][ids]
        logits = hidden @ weights[weight_name].T + weights[bias_name]
        logp = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        return logp.gather(1, ids[len(prompt) :, None]).sum()

    got = {}
    for who, weights in (("policy", policy), ("ref", w)):
        for side in ("chosen", "rejected"):
            rows = zip(case["inputs"]["prompt"], case["inputs"][side], strict=True)
            got[f"{who}_{side}"] = torch.stack([logps(weights, p, r) for p, r in rows])
            close(got[f"{who}_{side}"], case["expected"][f"{who}_{side}_logps"], 1e-6)
    signals = [got[k] for k in ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")]
    loss = dpo(*signals, beta=0.1).mean()
    loss.backward()
    close(loss, case["expected"]["loss"], 1e-6)
    grads = torch.cat([v.grad.flatten() for v in policy.values()])
    close(grads.abs().sum(), case["expected"]["grad_l1_sum"], 1e-5)
    close(grads.norm(), case["expected"]["grad_l2"], 1e-5)
