"""Truing beside TRL 1.16, formula by formula: one loss and its gradient from the same random numbers.

    make differential                             # prints the table of docs/differential.md
    make differential KEEP=1                      # and keeps it there, and TRL's numbers in tests/objectives/trl.json

TRL's numbers come from its own loss methods (benchmarks/peer_losses.py), truing's from the loop's own sum of terms
(tests/small_steps.py), both in fp64 where TRL allows it. Every case is drawn near the reference, around it and
far out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from small_steps import advantages_of, value_and_gradient

HERE = Path(__file__).parent
FROZEN = HERE.parent / "tests/objectives/trl.json"
PAGE, MARKS = HERE.parent / "docs/differential.md", ("<!-- table -->\n", "<!-- end -->\n")
ROWS, TOKENS, PROMPT, WORDS = 4, 5, 2, 5
BOUND = {"float64": 1e-12, "float32": 1e-6}
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One formula of TRL's and what gives its number here. `scales` are those of log-ratios, logits or scores; `note`
    says what differs from the default, from the source or from TRL. `apart` marks a difference that is meant to be."""

    name: str
    trainer: str
    options: dict[str, Any]
    kind: str
    ours: list[dict[str, Any]] | str
    note: str = ""
    scales: tuple[float, ...] = (0.01, 1.0, 30.0, 300.0)
    dtype: str = "float64"
    apart: bool = False


def dpo(loss: str | list[str], ours: dict[str, Any] | list[dict[str, Any]], note: str = "", **more: Any) -> Case:
    """A case of DPOTrainer."""
    fields = {name: more.pop(name) for name in ("scales", "dtype", "apart") if name in more}
    losses = loss if isinstance(loss, list) else [loss]
    labels = ", ".join([*losses, *(f"{k} {v}" for k, v in more.items() if k not in ("beta", "loss_weights"))])
    options = {"loss_type": losses, "beta": 0.1} | more
    return Case(f"DPO {labels}", "dpo", options, "pairs", ours if isinstance(ours, list) else [ours], note, **fields)


def cpo(loss: str, ours: list[dict[str, Any]], note: str = "", apart: bool = False, **options: Any) -> Case:
    """A case of CPOTrainer."""
    scales = (1.0,) if apart else (0.01, 1.0, 30.0)
    labels = ", ".join([loss, *(f"{k} {v}" for k, v in options.items() if k in ("cpo_alpha", "label_smoothing"))])
    return Case(f"CPO {labels}", "cpo", {"loss_type": loss} | options, "sequences", ours, note, scales, apart=apart)


def grpo(loss: str, ours: list[dict[str, Any]], note: str = "", **more: Any) -> Case:
    """A case of GRPOTrainer. Ratios are followed as far as both follow them."""
    fields = {name: more.pop(name) for name in ("scales", "apart") if name in more}
    labels = ", ".join([loss, *(f"{k} {v}" for k, v in more.items() if k not in ("epsilon", "epsilon_high"))])
    fields = {"scales": (0.01, 1.0, 5.0)} | fields
    return Case(f"GRPO {labels}", "grpo", {"loss_type": loss} | more, "rollouts", ours, note, **fields)


def scored(trainer: str, label: str, options: dict[str, Any], ours: str, note: str = "", apart: bool = False) -> Case:
    """A case of a trainer's advantages."""
    name = f"{trainer.upper()} advantages, {label}"
    scales = (1.0,) if apart else (0.01, 1.0, 100.0)
    return Case(name, f"{trainer}_advantages", options, "scores", ours, note, scales, apart=apart)


PAIRED = [
    dpo("sigmoid", {"dpo": {}}),
    dpo("hinge", {"hinge": {}}),
    dpo("ipo", {"ipo": {"mean": True}}, "the source sums over tokens; TRL's mean per response is `mean: true`"),
    dpo("ipo", {"ipo": {}}, "the source's sum, our default: another number", apart=True, scales=(1.0,)),
    dpo("exo_pair", {"exo": {"label_smoothing": 0.1}}, label_smoothing=0.1),
    dpo("nca_pair", {"nca": {"beta": 0.1}}),
    dpo("robust", {"robust_dpo": {"label_smoothing": 0.2}}, label_smoothing=0.2),
    dpo("bco_pair", {"bco_pair": {}}),
    dpo("sppo_hard", {"sppo": {}}),
    dpo("apo_zero", {"apo_zero": {}}),
    dpo("apo_down", {"apo_down": {}}),
    dpo("sft", {"nll": {}}, "reads the chosen response, as a mean over tokens of the step"),
    dpo("sigmoid_norm", {"dpo_norm": {"beta": 5.0}}, beta=5.0),
    dpo(
        ["sigmoid", "bco_pair", "sft"],
        [{"dpo": {}, "weight": 0.8}, {"bco_pair": {}, "weight": 0.2}, {"nll": {}, "weight": 1.0}],
        "a sum of terms, each over its own count",
        loss_weights=[0.8, 0.2, 1.0],
    ),
    dpo(
        "sigmoid",
        {"f_dpo": {"divergence": "forward_kl"}},
        "1/u is followed to e^20 here, without end there",
        f_divergence_type="forward_kl",
        scales=(0.01, 1.0, 2.0),
    ),
    dpo(
        "sigmoid",
        {"f_dpo": {"divergence": "forward_kl"}},
        "the same beyond 20 nats: TRL's is e^h, the tangent here stays finite in fp32",
        f_divergence_type="forward_kl",
        scales=(30.0,),
        apart=True,
    ),
    dpo("sigmoid", {"f_dpo": {"divergence": "jensen_shannon"}}, f_divergence_type="js_divergence"),
    dpo(
        "sigmoid",
        {"f_dpo": {"divergence": "alpha", "alpha": 0.3}},
        "the source's alpha is 1 less TRL's coefficient; TRL computes in fp32",
        f_divergence_type="alpha_divergence",
        f_alpha_divergence_coef=0.7,
        scales=(0.01, 1.0, 2.0),
        dtype="float32",
    ),
]
UNPAIRED = [
    Case("KTO kto", "kto", {"loss_type": "kto", "beta": 0.1}, "unpaired", [{"kto": {}}]),
    Case(
        "KTO kto, weights 1.3 and 0.7",
        "kto",
        {"loss_type": "kto", "beta": 0.1, "desirable_weight": 1.3, "undesirable_weight": 0.7},
        "unpaired",
        [{"kto": {"desirable_weight": 1.3, "undesirable_weight": 0.7}}],
    ),
    Case(
        "KTO apo_zero_unpaired",
        "kto",
        {"loss_type": "apo_zero_unpaired", "beta": 0.1},
        "unanchored",
        [{"kto": {}}],
        "`kto` with a baseline of 0: `kl_baseline_B` from Python",
    ),
]
FREE = [
    cpo("sigmoid", [{"cpo": {"weight": 0.0}}], cpo_alpha=0.0),
    cpo(
        "sigmoid",
        [{"cpo": {"weight": 0.0}}, {"nll": {}}],
        "TRL's likelihood is a mean over the batch's tokens: a term `nll`; the default takes it per response",
        cpo_alpha=1.0,
    ),
    cpo("sigmoid", [{"cpo": {}}], "the mean per response, our default: another number", apart=True, cpo_alpha=1.0),
    cpo(
        "sigmoid",
        [{"cdpo": {"label_smoothing": 0.1}}],
        "with a uniform reference (all log-probabilities 0)",
        cpo_alpha=0.0,
        label_smoothing=0.1,
    ),
    cpo("hinge", [{"hinge": {}}], "with a uniform reference", cpo_alpha=0.0),
    cpo("ipo", [{"ipo": {"mean": True}}], "with a uniform reference", cpo_alpha=0.0),
    cpo(
        "simpo",
        [{"simpo": {}}],
        "TRL adds the likelihood unless cpo_alpha is 0",
        cpo_alpha=0.0,
        beta=2.0,
        simpo_gamma=1.0,
    ),
    cpo("simpo", [{"simpo": {}}, {"nll": {}}], "CPO-SimPO: a term `nll`", cpo_alpha=1.0, beta=2.0, simpo_gamma=1.0),
    Case(
        "ORPO",
        "orpo",
        {"beta": 0.1},
        "sequences",
        [{"orpo": {"likelihood": 0.0}}, {"nll_whole": {}}],
        "TRL's likelihood is a mean over the tokens of prompt and response; TRL computes the odds in fp32",
        dtype="float32",
        scales=(0.01, 1.0, 10.0),
    ),
    Case(
        "ORPO",
        "orpo",
        {"beta": 0.1},
        "sequences",
        [{"orpo": {}}],
        "the source's mean over each response, our default: another number",
        dtype="float32",
        scales=(1.0,),
        apart=True,
    ),
]
REWARD = [
    Case("reward", "reward", {}, "rewards", [{"bradley_terry": {}}], "with the data's margins"),
    Case(
        "reward, centred",
        "reward",
        {"center_rewards_coefficient": 0.01},
        "rewards",
        [{"bradley_terry": {"centering": 0.01}}],
    ),
]
SAMPLED = [
    grpo(
        "grpo", [{"grpo": {"corrected": True}}], "TRL's default weighs k3 by the ratio; the source does not", beta=0.04
    ),
    grpo("grpo", [{"grpo": {}}], "the source's k3, our default", beta=0.04, use_bias_correction_kl=False),
    grpo("grpo", [{"grpo": {"beta": 0.0}}], beta=0.0),
    grpo(
        "grpo",
        [{"grpo": {"beta": 0.0}}],
        "the same with ratios beyond e^20, which are held here; TRL's overflow in fp32 beyond e^88",
        beta=0.0,
        scales=(30.0,),
        apart=True,
    ),
    grpo("bnpo", [{"dapo": {"clip_high": 0.2}}], "the mean over a micro-batch's tokens; here the whole step's"),
    grpo("dr_grpo", [{"dr_grpo": {}}]),
    grpo("dapo", [{"dapo": {}}], epsilon_high=0.28),
    grpo("dapo", [{"ppo": {"dual_clip": 3.0}}], "TRL's two-sided clip is `ppo` with `dual_clip`", delta=3.0),
    grpo(
        "grpo",
        [{"gspo": {}}],
        importance_sampling_level="sequence",
        epsilon=3e-4,
        epsilon_high=4e-4,
        scales=(0.001, 1, 5),
    ),
    grpo("cispo", [{"cispo": {}}], "both cap the weight itself; verl caps it at 1 + epsilon", epsilon_high=5.0),
    Case("RLOO", "rloo", {}, "rollouts", [{"rloo": {}}], scales=(0.01, 1.0, 3.0)),
]
BEFORE = [
    scored("grpo", "group", {}, "standardised, sample", "the source takes the population's, TRL the sample's"),
    scored("grpo", "group", {}, "standardised, population", "the source's, our default: another number", apart=True),
    scored("grpo", "none", {"scale_rewards": "none"}, "centred"),
    scored("grpo", "batch", {"scale_rewards": "batch"}, "batch_scaled, sample"),
    scored("grpo", "normalize_then_sum", {"multi_objective_aggregation": "normalize_then_sum"}, "sum of standardised"),
    scored("rloo", "plain", {"beta": 0.0}, "leave_one_out"),
    scored("rloo", "normalised", {"beta": 0.0, "normalize_advantages": True}, "leave_one_out, whitened"),
    scored("rloo", "beta 0.1", {"beta": 0.1}, "leave_one_out of shaped_rewards"),
]
CASES = PAIRED + UNPAIRED + FREE + REWARD + SAMPLED + BEFORE


def draw(kind: str, scale: float, seed: int) -> Numbers:
    """Random numbers of one kind: log-probabilities that are `scale` nats a token from the reference. All are multiples
    of 1/4096, so that fp32 holds them exactly."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    rows = 2 * ROWS
    lengths = torch.randint(1, TOKENS + 1, (rows, 1), generator=generator)
    lengths[0] = TOKENS
    mask = (torch.arange(TOKENS) < lengths).double()
    start = -noise(rows, TOKENS).abs()
    made: dict[str, Tensor] = {"mask": mask, "logp": start + scale * noise(rows, TOKENS), "ref": (start * mask).sum(1)}
    if kind == "sequences":
        ids = torch.randint(1, WORDS, (rows, PROMPT + TOKENS), generator=generator).double()
        mask = torch.cat([torch.zeros(rows, PROMPT), mask], 1).double()
        there = torch.cat([torch.ones(rows, PROMPT), mask[:, PROMPT:]], 1).double()
        made = {"mask": mask, "there": there, "ids": ids, "logits": scale * noise(rows, PROMPT + TOKENS, WORDS)}
    if kind in ("unpaired", "unanchored"):
        made["desirable"] = (torch.arange(rows) % 3 > 0).double()
        made |= {"mismatched": start + scale * noise(rows, TOKENS).abs(), "ref_mismatched": (start * mask).sum(1)}
    if kind == "rewards":
        made = {"reward": scale * noise(rows), "margin": noise(ROWS).abs()}
    if kind in ("rollouts", "scores"):
        made |= {"old": start, "ref": start + 0.5 * noise(rows, TOKENS), "advantage": noise(rows)}
    if kind == "scores":
        made["scores"] = scale * noise(rows, 2)
    return {name: ((4096 * value).round() / 4096).tolist() for name, value in made.items()}


def ask(questions: list[Numbers], peer: str) -> list[Numbers]:
    """TRL's answers, from a process in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        request, reply = Path(folder, "asked.json"), Path(folder, "told.json")
        request.write_text(json.dumps(questions))
        done = subprocess.run(
            [peer, str(HERE / "peer_losses.py"), str(request), str(reply)], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        replies: list[Numbers] = json.loads(reply.read_text())
    return replies


def off(ours: Tensor, theirs: Tensor, least: float) -> float:
    """The largest difference, over the largest of TRL's numbers, or over `least` if they are smaller."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=least))


def compare(case: Case, numbers: Numbers, reply: Numbers) -> tuple[float, float]:
    """The distance of value and gradient, relative to TRL's; values below 1 and gradients below 0.01 count as these.
    (Where a loss is flat, `1 - sigmoid(x)` has lost the digits that `sigmoid(-x)` still has.)"""
    theirs = torch.tensor(reply["value"], dtype=torch.float64)
    if isinstance(case.ours, str):
        return off(advantages_of(case.ours, numbers), theirs, 1.0), 0.0
    value, gradient = value_and_gradient(case.kind, numbers, case.ours)
    return off(value, theirs, 1.0), off(gradient, torch.tensor(reply["gradient"], dtype=torch.float64), 0.01)


def spelt(ours: list[dict[str, Any]] | str) -> str:
    """The objectives that give the number here, as a recipe writes them."""
    if isinstance(ours, str):
        return f"`advantage`: {ours}"
    terms = []
    for spec in ours:
        name, options = next(iter(spec.items()))
        settings = [f"{k}: {str(v).lower()}" for k, v in options.items()]
        settings += [f"times {spec['weight']:g}"] if "weight" in spec else []
        terms.append(f"`{name}`" + (f" ({', '.join(settings)})" if settings else ""))
    return " + ".join(terms)


def line(case: Case, questions: list[Numbers], replies: list[Numbers]) -> tuple[str, bool]:
    """A row of the table, and whether it is as it should be."""
    distances = [compare(case, q["inputs"], t) for q, t in zip(questions, replies, strict=True)]
    value, gradient = max(v for v, _ in distances), max(g for _, g in distances)
    bound = BOUND[case.dtype]
    right = min(map(max, distances)) > 1e-2 if case.apart else max(value, gradient) <= bound
    verdict = "differs" if case.apart else f"equal, {case.dtype[:1]}p{case.dtype[-2:]}"
    numbers = f"{value:.0e} | {'' if isinstance(case.ours, str) else f'{gradient:.0e}'}"
    return (
        f"| {case.name} | {spelt(case.ours)} | {numbers} | {verdict if right else '**FAILS**'} | {case.note} |",
        right,
    )


def shortened(number: Any) -> Any:
    """Numbers in lists, to 14 digits."""
    return [shortened(x) for x in number] if isinstance(number, list) else float(f"{number:.14g}")


def keep(asked_of_case: list[list[Numbers]], replies: list[list[Numbers]], table: str) -> None:
    """Keep TRL's answers at the scale of 1, for a test that runs without TRL, and the table in the docs."""
    inputs, frozen = {}, []
    for case, questions, answers in zip(CASES, asked_of_case, replies, strict=True):
        if not case.apart:
            inputs[case.kind] = questions[1]["inputs"]
            fields = {"name": case.name, "kind": case.kind, "ours": case.ours, "bound": BOUND[case.dtype]}
            frozen.append(fields | {name: shortened(number) for name, number in answers[1].items()})
    lines = ",\n".join(json.dumps(case) for case in frozen)
    FROZEN.write_text(f'{{"inputs": {json.dumps(inputs)},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    PAGE.write_text(before + MARKS[0] + table + "\n" + MARKS[1] + rest.partition(MARKS[1])[2], encoding="utf-8")


def main() -> None:
    """Compare and print the table; end with 1 where a number is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=".venv-peer/bin/python")
    parser.add_argument("--keep", action="store_true", help="keep the table in docs, and TRL's numbers for the tests")
    args = parser.parse_args()
    by_case = [
        [
            {"trainer": c.trainer, "options": c.options, "dtype": c.dtype, "inputs": draw(c.kind, scale, 10 * i)}
            for i, scale in enumerate(c.scales)
        ]
        for c in CASES
    ]
    answers = iter(ask([question for questions in by_case for question in questions], args.peer))
    replies = [[next(answers) for _ in questions] for questions in by_case]
    lines = [line(*case) for case in zip(CASES, by_case, replies, strict=True)]
    head = "| TRL 1.16 | here | value apart | gradient apart | | |\n|---|---|---|---|---|---|"
    table = "\n".join([head, *(text for text, _ in lines)])
    print(table)
    if not all(right for _, right in lines):
        sys.exit("a number is not as it should be: see FAILS above")
    if args.keep:
        keep(by_case, replies, table)


if __name__ == "__main__":
    main()
