"""The mathematics: pure functions of tensors that return one loss per row or per token and never reduce.

>>> import torch, truing.objectives as objectives
>>> start = {signal: torch.zeros(1) for signal in objectives.dpo.signals}
>>> round(objectives.dpo(**start).item(), 6)
0.693147
"""

from truing.objectives.likelihood import nll
from truing.objectives.pairwise import dpo
from truing.objectives.reward import bradley_terry

__all__ = ["bradley_terry", "dpo", "nll"]
