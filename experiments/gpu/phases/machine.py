"""What machine this is."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import torch

from phases.harness import GPU, save, seconds_of

WHEELS = Path(__file__).resolve().parents[1] / "wheels.txt"


def missing_packages() -> list[str]:
    """Packages of wheels.txt that are not installed."""
    names = [line.partition("#")[0].partition("==")[0].strip() for line in WHEELS.read_text().splitlines()]
    installed = {str(d.metadata["Name"]).lower().replace("_", "-") for d in importlib.metadata.distributions()}
    return [name for name in names if name and name.lower().replace("_", "-") not in installed]


def env() -> None:
    """Versions, missing packages, and the card's measured rates of matrix products and memory copies."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate", "peft")}
    results = {**versions, "missing": missing_packages(), "cuda": GPU}
    if GPU:
        card = torch.cuda.get_device_properties(0)
        results |= {"card": card.name, "GiB": card.total_memory / 2**30}
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        results["bf16 TFLOP/s"] = 2 * 8192**3 / seconds_of(lambda: a @ b) / 1e12
        c = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        d = torch.empty_like(c)
        results["TB/s"] = 2 * (1 << 30) / seconds_of(lambda: d.copy_(c)) / 1e12
        x = torch.randn(4096, 4096, device="cuda")
        for tf32 in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            results[f"fp32 TFLOP/s tf32={tf32}"] = 2 * 4096**3 / seconds_of(lambda: x @ x) / 1e12
    save("env", results)
