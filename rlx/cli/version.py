"""`rlx --version`: versions of rlx and of the libraries that compute, and the device. Does not import torch."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rlx import __version__

LIBRARIES = ("torch", "transformers", "vllm")
DRIVER = Path("/proc/driver/nvidia/gpus")
"""Folder in which NVIDIA's driver on Linux describes each GPU."""


def version_text() -> str:
    """One line for rlx, one for each library, one for the device."""
    lines = [f"rlx {__version__}", f"Python {platform.python_version()}"]
    lines += [f"{name} {_installed(name)}" for name in LIBRARIES]
    return "\n".join([*lines, f"device {device_name()}"])


def device_name() -> str:
    """The device that training takes: GPUs that the driver lists if this torch was built for them, else the CPU."""
    cores = f"CPU, {os.cpu_count()} cores"
    torch = _installed("torch")
    if "+cpu" in torch:
        return f"{cores} (this torch is the build for CPUs)"
    gpus = [_gpu_model(file) for file in sorted(DRIVER.glob("*/information"))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = gpus[: len([number for number in visible.split(",") if number.strip() not in ("", "-1")])]
    if gpus:
        return f"{len(gpus)} x {', '.join(sorted(set(gpus)))}"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return f"Apple GPU (MPS), {os.cpu_count()} cores"
    return cores


def _installed(name: str) -> str:
    for package in (name, f"{name}-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "not installed"


def _gpu_model(file: Path) -> str:
    match = re.search(r"^Model:\s*(.+)$", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return match[1].strip() if match else "NVIDIA GPU"
