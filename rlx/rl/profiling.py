"""`rlx train --profile`: the time of each phase of a step, and torch's trace."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from rlx.console import print_out, table
from rlx.runs.folder import RunDir, write_atomically
from rlx.runs.recorder import RunRecorder
from rlx.runs.tracking import Metrics

PHASE = "rlx."
"""Prefix of the phases' names in the profiler's trace."""
ACTIVE = 2
"""Number of recorded steps, after one warm-up step."""
TOP = 4
"""Number of operators listed per phase."""
STEP = "ProfilerStep"
"""Torch's name of a step in the trace."""
REST = "rest"
"""Name of the time outside all phases: advantages, metrics, logging."""


class ProfiledRecorder:
    """A recorder that also advances torch's profiler: each record ends a step.

    Profiling changes only metrics of time, speed and memory: it draws no random number and changes no tensor.
    """

    def __init__(self, inner: RunRecorder, folder: RunDir) -> None:
        self._inner, self._folder = inner, folder
        self._profiler: profile | None = None

    @property
    def offset(self) -> int:
        """Length of metrics.jsonl (bytes)."""
        return self._inner.offset

    def rewind(self, offset: int, copy: Path | None = None) -> None:
        """Start profiling. A run from step 0 first records the evaluation before training, which is not a step."""
        self._inner.rewind(offset, copy)
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # its messages would mix with the progress lines
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
        steps = schedule(wait=0 if offset else 1, warmup=1, active=ACTIVE, repeat=1)
        self._profiler = profile(activities=activities, schedule=steps, on_trace_ready=self._save)
        self._profiler.start()

    def write(self, record: Metrics) -> None:
        """Write a record, which ends a step."""
        self._inner.write(record)
        if self._profiler is not None:
            self._profiler.step()

    def note(self, text: str, tag: str = "") -> None:
        """Print a notice; with ``tag`` the MLflow run gets it as that tag."""
        self._inner.note(text, tag)

    def close(self, status: str) -> None:
        """Stop profiling, also in a run that ends early."""
        if self._profiler is not None:
            self._profiler.stop()
        if not self._folder.profile_table.exists():
            self.note(f"nothing was profiled: it needs one warm-up step and at least one more ({ACTIVE} are recorded)")
        self._inner.close(status)

    def _save(self, profiler: profile) -> None:
        """Write the trace and the table; if they cannot be written the run continues without them."""
        events: Sequence[Any] = profiler.events() or []  # type: ignore[no-untyped-call]
        if not any(event.name.startswith(PHASE) for event in events):
            return
        try:
            write_atomically(self._folder.profile_table, phase_table(events))
            profiler.export_chrome_trace(str(self._folder.profile_trace))
        except (OSError, RuntimeError) as error:
            self.note(f"the profile cannot be written to {self._folder.profile} ({error})")


def request_profile(folder: RunDir) -> None:
    """Create the file that makes rank 0 profile the run, and remove an earlier profile."""
    folder.profile.mkdir(exist_ok=True)
    folder.profile_table.unlink(missing_ok=True)
    folder.profile_trace.unlink(missing_ok=True)
    folder.profile_request.touch()


def profiled(inner: RunRecorder, folder: RunDir) -> RunRecorder | ProfiledRecorder:
    """The recorder itself, or one that profiles if a profile was requested; the request is then removed."""
    if not folder.profile_request.exists():
        return inner
    folder.profile_request.unlink()
    return ProfiledRecorder(inner, folder)


def print_profile(folder: RunDir) -> None:
    """Print the table, and how to open the trace."""
    if folder.profile_table.exists():
        lines = [line.split("\t") for line in folder.profile_table.read_text(encoding="utf-8").splitlines()]
        print_out(table(f"profile of {lines[0][0]}", lines[1], lines[2:], words=True))
        print_out(f"trace    {folder.profile_trace} (open it in ui.perfetto.dev or chrome://tracing)")


def phase_table(events: Sequence[Any]) -> str:
    """Seconds per step of each phase with its most expensive operators, as tab-separated lines; the first is a title.

    Args:
        events: torch's ``FunctionEvent``s; phases are ranges whose names begin with ``PHASE``, steps are torch's.
    """
    steps = [event for event in events if event.name.startswith(STEP) and _on_cpu(event)]
    total = sum(event.time_range.elapsed_us() for event in steps)
    phases: dict[str, float] = {}
    operators: dict[str, dict[str, float]] = {}
    phase_of: dict[int, str] = {}
    for event in events:
        if not _on_cpu(event) or event in steps:
            continue
        phase = _phase(event, phase_of)
        if event.name == PHASE + phase:
            phases[phase] = phases.get(phase, 0.0) + event.time_range.elapsed_us()
        else:
            spent = event.self_device_time_total or event.self_cpu_time_total
            totals = operators.setdefault(phase, {})
            totals[event.name] = totals.get(event.name, 0.0) + spent
    phases[REST] = total - sum(phases.values())
    count = max(1, len(steps))
    lines = [
        [f"{count} step{'s' if count > 1 else ''}"],
        ["phase", "seconds a step", "share", "operators, seconds a step"],
    ]
    for phase, spent in sorted(phases.items(), key=lambda item: -item[1]):
        most_expensive = _most_expensive(operators.get(phase, {}), count)
        lines.append([phase, f"{spent / count / 1e6:.4f}", f"{spent / total:.1%}" if total else "-", most_expensive])
    lines.append(["whole", f"{total / count / 1e6:.4f}", "100.0%", ""])
    return "\n".join("\t".join(line) for line in lines) + "\n"


def _most_expensive(operators: Mapping[str, float], count: int) -> str:
    most = sorted(operators.items(), key=lambda item: -item[1])[:TOP]
    return ", ".join(f"{name} {spent / count / 1e6:.4f}" for name, spent in most)


def _phase(event: Any, phase_of: dict[int, str]) -> str:
    """The phase that an event belongs to; ``phase_of`` caches it by event id."""
    chain, phase = [], REST
    while event is not None:
        if event.id in phase_of:
            phase = phase_of[event.id]
            break
        chain.append(event.id)
        if event.name.startswith(PHASE):
            phase = event.name.removeprefix(PHASE)
            break
        event = event.cpu_parent
    phase_of.update(dict.fromkeys(chain, phase))
    return phase


def _on_cpu(event: Any) -> bool:
    """Whether this is an operator on the CPU; the time of the kernels that it starts is counted with it."""
    return str(event.device_type).endswith("CPU")
