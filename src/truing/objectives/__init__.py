"""The mathematics: pure functions of tensors that return one loss per row or per token and never reduce.

>>> import torch, truing.objectives as objectives
>>> same = torch.zeros(1)
>>> round(objectives.dpo(chosen_logp_B=same, rejected_logp_B=same, ref_chosen_logp_B=same, ref_rejected_logp_B=same).item(), 6)
0.693147
"""

from truing.objectives.likelihood import nll
from truing.objectives.pairwise import dpo
from truing.objectives.reward import bradley_terry

__all__ = ["bradley_terry", "dpo", "nll"]
