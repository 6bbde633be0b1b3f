"""Choice of the engine that samples responses, with its reason. Does not import torch."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

VLLM_MIN_PARAMETERS = 50_000_000
"""Number of model parameters from which ``auto`` chooses vLLM if it is installed.

On a CPU vLLM takes 2.3 times as long as our transformers sampler at 0.43M parameters and .41 times at 135M
(docs/vllm.md); nothing in between was measured. vLLM takes 20 s to start.
"""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine and the reason for choosing it.

    Example:
        ``EngineChoice("hf", "vLLM is not installed")``
    """

    engine: str
    """``hf`` or ``vllm``."""
    reason: str
    """Stored as ``engine_reason`` in resolved.json."""


def choose_engine(requested: str, model: str) -> EngineChoice:
    """Return the engine that samples from a model.

    Args:
        requested: ``auto``, ``hf`` or ``vllm``.
        model: a folder or a hub id.
    """
    automatic = _automatic_choice(model)
    # An explicit request for the automatic choice keeps its reason, so that both specs resolve to the same JSON.
    if requested in ("auto", automatic.engine):
        return automatic
    return EngineChoice(requested, "asked for")


def _automatic_choice(model: str) -> EngineChoice:
    if find_spec("vllm") is None:
        return EngineChoice("hf", "vLLM is not installed")
    count = count_parameters(Path(model))
    if count is None:
        return EngineChoice("vllm", "vLLM is installed, and the model is not on this disk and so taken for a large one")
    size = f"the model has {count / 1e6:.3g}M parameters"
    if count < VLLM_MIN_PARAMETERS:
        minimum = f"{VLLM_MIN_PARAMETERS / 1e6:.0f}M"
        return EngineChoice("hf", f"{size}, and below {minimum} starting vLLM takes longer than it saves")
    return EngineChoice("vllm", f"vLLM is installed, and {size}")


def count_parameters(folder: Path) -> int | None:
    """Return the number of parameters in a folder's safetensors headers; None if the folder has no such files."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        return None
    headers = [_safetensors_header(file) for file in files]
    return sum(
        math.prod(entry["shape"]) for header in headers for name, entry in header.items() if name != "__metadata__"
    )


def _safetensors_header(file: Path) -> dict[str, dict[str, list[int]]]:
    """Read the tensor names and shapes of a safetensors file: 8 bytes of length, then JSON (its published format)."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, dict[str, list[int]]] = json.loads(stream.read(length))
    return header
