"""Checks that a folder is a model that can be loaded, as far as its files say; without torch."""

from __future__ import annotations

from pathlib import Path

from truing.errors import UserError, listed
from truing.policy.files import adapter_files, model_files
from truing.policy.files.weight_files import Tensor


def models_within(folder: Path) -> list[Path]:
    """The models and adapters in a folder that is none, as a run (STAGE/model), a stage and peft's named ones lie."""
    configs = ("config.json", adapter_files.CONFIG)
    folders = (path.parent for depth in ("*", "*/*") for name in configs for path in folder.glob(f"{depth}/{name}"))
    return sorted(set(folders))


def check_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors in a model's files, by their headers. UserError for a folder that is no model, whose files are not
    what they are called or not whole, or whose weights are pickled (a pickle can run code when it is read)."""
    if not folder.is_dir():
        raise UserError(f"model '{folder}' is a file; a model is a folder with config.json and *.safetensors in it")
    if not (folder / "config.json").exists():
        held = models_within(folder)
        hint = f"; it holds models, of which one is to be named: {listed(held, 5)}" if held else ""
        raise UserError(f"model '{folder}': there is no config.json in it{hint}")
    _, tensors = model_files.read_model(folder)
    if any(folder.glob("*.safetensors")):
        return tensors
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for p in folder.glob(pattern))
    if pickled:
        raise UserError(
            f"model '{folder}': its weights are pickled ({', '.join(pickled)}), and a pickle can run code when it "
            "is read.\n"
            "  Convert them: model.save_pretrained(FOLDER, safe_serialization=True)"
        )
    raise UserError(f"model '{folder}': there are no weights (*.safetensors) in it")
