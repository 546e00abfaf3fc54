"""Trained weights set aside on disk: those of the best look, and those a reference was renewed from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from truing.disk import replacing
from truing.errors import RunFailed
from truing.train.distributed import process_group
from truing.train.distributed.fsdp import full, piece
from truing.train.record.checkpoint import cannot_write


class WeightSnapshots:
    """The weights that are trained, as they were after some updates, in `folder`: one safetensors file an update.

    What a resume from one of `checkpoints` could ask for stays; what none could is removed.
    """

    def __init__(self, folder: Path, checkpoints: Path) -> None:
        self.folder, self.checkpoints = folder, checkpoints

    def path(self, step: int) -> Path:
        """The file of the weights after update `step`."""
        return self.folder / f"step-{step:08d}.safetensors"

    def steps(self) -> list[int]:
        """The updates whose weights are there, in order."""
        return sorted(int(path.stem[5:]) for path in self.folder.glob("step-*.safetensors"))

    def put(self, step: int, model: torch.nn.Module) -> None:
        """Set aside the weights of a model that are trained, whole or not at all; every rank has to come here.
        RunFailed where the disk is full."""
        whole = {}
        for name, parameter in trained(model).items():
            tensor = full(parameter.detach())
            if process_group.rank() == 0:
                whole[name] = tensor.cpu().contiguous()

        def write() -> str:
            try:
                with replacing(self.path(step)) as part:
                    save_file(whole, part)
                self._tidy()
            except (OSError, SafetensorError) as error:
                return cannot_write(self.path(step), error)
            return ""

        if problem := process_group.lead(write):
            raise RunFailed(problem)

    def _tidy(self) -> None:
        there = self.steps()
        begun = [int(path.name[5:]) for path in self.checkpoints.glob("step-*")] or [0]  # none: a resume begins at 0
        needed = {max((s for s in there if s <= at), default=None) for at in (*begun, there[-1])}
        for step in set(there) - needed:
            self.path(step).unlink()

    def forget(self, after: int) -> None:
        """Remove the weights of updates beyond `after`, which will be done again."""

        def remove() -> str:
            for step in (s for s in self.steps() if s > after):
                self.path(step).unlink()
            return ""

        process_group.lead(remove)

    def back(self, step: int, model: torch.nn.Module) -> None:
        """Put the weights of update `step` into a model: its own, or a copy of it from before training, which lacks
        what training added. RunFailed where they cannot be read."""
        try:
            with safe_open(str(self.path(step)), framework="pt") as file, torch.no_grad():
                there = set(file.keys())
                for name, parameter in model.named_parameters():
                    if name in there:
                        local, first = piece(parameter)
                        rows = file.get_tensor(name)
                        local.copy_(rows[first : first + local.shape[0]] if rows.ndim else rows)
        except (OSError, SafetensorError) as error:
            raise RunFailed(
                f"{self.path(step)}: the weights set aside here cannot be read ({error}); begin the stage anew with "
                "--restart"
            ) from error


def trained(model: torch.nn.Module) -> Mapping[str, Tensor]:
    """The parameters of a model that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
