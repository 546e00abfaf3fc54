"""The mathematics: pure functions of tensors that return one loss per row, token or step and never reduce.

>>> import torch, truing.objectives as objectives
>>> start = {signal: torch.zeros(1) for signal in objectives.dpo.signals}
>>> round(objectives.dpo(**start).item(), 6)
0.693147
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from truing import registry

if TYPE_CHECKING:
    from truing.objectives.divergence import fdo, kldo, kldo_nwj
    from truing.objectives.likelihood import gdc, nll, nll_whole
    from truing.objectives.pairwise import (
        apo_down,
        apo_zero,
        bco_pair,
        cdpo,
        dpo,
        dpo_norm,
        exo,
        f_dpo,
        hinge,
        ipo,
        nca,
        robust_dpo,
        sppo,
    )
    from truing.objectives.penalty import entropy, kl_k2, kl_k3, ptx
    from truing.objectives.policy import (
        awr,
        cispo,
        dapo,
        dr_grpo,
        grpo,
        gspo,
        lite_ppo,
        ppo,
        reinforce,
        reinforce_pp,
        reinforce_pp_baseline,
        rloo,
        rwr,
    )
    from truing.objectives.ranked import dpo_ranked
    from truing.objectives.referencefree import cpo, orpo, simpo, slic
    from truing.objectives.reward import (
        bradley_terry,
        confidence,
        cost_model,
        davidson,
        plackett_luce,
        rao_kupper,
        regression,
    )
    from truing.objectives.steps import orm, prm
    from truing.objectives.unpaired import bco, kto
    from truing.objectives.value import value_clipped

__all__ = [
    "apo_down", "apo_zero", "awr", "bco", "bco_pair", "bradley_terry", "cdpo", "cispo", "confidence", "cost_model",
    "cpo", "dapo", "davidson", "dpo", "dpo_norm", "dpo_ranked", "dr_grpo", "entropy", "exo", "f_dpo", "fdo", "gdc",
    "grpo", "gspo", "hinge", "ipo", "kl_k2", "kl_k3", "kldo", "kldo_nwj", "kto", "lite_ppo", "nca", "nll", "nll_whole",
    "orm", "orpo", "plackett_luce", "ppo", "prm", "ptx", "rao_kupper", "regression", "reinforce", "reinforce_pp",
    "reinforce_pp_baseline", "rloo", "robust_dpo", "rwr", "simpo", "slic", "sppo", "value_clipped",
]  # fmt: skip


def __getattr__(name: str) -> registry.Objective:
    """An objective is imported when it is first asked for, so that its signals can be looked up without torch."""
    if name not in registry.parts("objective"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    objective: registry.Objective = registry.load(name, "objective")
    return objective
