"""A model in GGUF, llama.cpp's format, dequantised once into a folder in Hugging Face format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from truing import caches
from truing.disk import file_digest
from truing.errors import UserError


def dequantised(file: Path, cache: Path, sha256: str = "", say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder in `cache` that holds the weights of a GGUF file in fp32, its tokenizer and its chat template.

    Made by transformers' own reader at the first call and found by the file's content later; a folder that is no
    longer what was made is made again, and `say` is told so. What quantisation has rounded stays rounded: the model is
    the one that llama.cpp runs, and not the one that was quantised.

    UserError for a file that is not there, is not GGUF, has another hash than `sha256`, or whose architecture or
    tokenizer transformers does not read, and where the library `gguf` is missing.
    """
    try:
        with file.open("rb") as handle:
            if handle.read(4) != b"GGUF":
                raise UserError(f"model '{file}' is no GGUF file: it does not begin with 'GGUF'")
        digest = file_digest(file)
    except OSError as error:
        raise UserError(f"model '{file}' cannot be read ({error.strerror})") from error
    if sha256 and digest != sha256:
        raise UserError(f"model '{file}' has the SHA-256 {digest}, and {sha256} was expected; fetch it again")
    return caches.kept(cache / f"{file.stem}-{digest[:16]}", lambda part: convert(file, part), say)


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer into `folder`."""
    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except ImportError as error:
        raise UserError(f"model '{file}': reading GGUF needs the library gguf: pip install truing[gguf]") from error
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"model '{file}': transformers cannot read it ({str(error).splitlines()[0][:200]})") from error
    weights = model.state_dict()
    del model.config.quantization_config  # the weights are plain numbers by now, and are saved as such
    plain = type(model)(model.config)
    plain.load_state_dict(weights, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    tokenizer.save_pretrained(folder)
    plain.save_pretrained(folder)
