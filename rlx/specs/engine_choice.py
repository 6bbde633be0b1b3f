"""Which engine samples, and why. Light: no torch."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

VLLM_FROM = 50_000_000
"""Parameters from which vLLM is taken where it is installed. On a CPU vLLM takes 2.3 times as long as our transformers
sampler at 0.43M parameters and .41 times at 135M (docs/vllm.md); nothing in between was measured. It starts in 20 s."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and the reason for it.

    Example:
        ``Choice("hf", "vLLM is not installed")``
    """

    engine: str
    """``hf`` or ``vllm``."""
    why: str


def choose_engine(asked: str, model: str) -> Choice:
    """The engine that samples from a model.

    Args:
        asked: ``auto``, ``hf`` or ``vllm``.
        model: a folder or a hub id.
    """
    auto = _auto(model)
    if asked in ("auto", auto.engine):
        return auto
    return Choice(asked, "asked for")


def _auto(model: str) -> Choice:
    if find_spec("vllm") is None:
        return Choice("hf", "vLLM is not installed")
    count = parameters(Path(model))
    if count is None:
        return Choice("vllm", "vLLM is installed, and the model is not on this disk and so taken for a large one")
    size = f"the model has {count / 1e6:.3g}M parameters"
    if count < VLLM_FROM:
        return Choice("hf", f"{size}, and below {VLLM_FROM / 1e6:.0f}M starting vLLM takes longer than it saves")
    return Choice("vllm", f"vLLM is installed, and {size}")


def parameters(folder: Path) -> int | None:
    """Parameters of a saved model, from the headers of its safetensors files; None where it has none."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        return None
    headers = [_header(file) for file in files]
    return sum(
        math.prod(entry["shape"]) for header in headers for name, entry in header.items() if name != "__metadata__"
    )


def _header(file: Path) -> dict[str, dict[str, list[int]]]:
    """Names and shapes in a safetensors file: 8 bytes of length, then JSON (its published format)."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, dict[str, list[int]]] = json.loads(stream.read(length))
    return header
