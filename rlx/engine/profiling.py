"""`rlx train --profile`: where a step's time goes, phase by phase, and torch's trace of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from rlx.console import print_out, table
from rlx.runs.folder import RunDir, write_atomically
from rlx.runs.recorder import RunRecorder
from rlx.runs.tracking import Figures

PHASE = "rlx."
"""Before the names of phases in a profiler's trace."""
ACTIVE = 2
"""Steps that are recorded, after one that warms up."""
TOP = 4
"""Operators named a phase."""
STEP = "ProfilerStep"
"""Torch's own name of a step."""
REST = "rest"
"""What no phase holds: advantages, metrics, logging."""


class ProfiledRecorder:
    """A recorder that counts steps for torch's profiler: a record is the end of a step.

    Profiling changes nothing but ``time/``: it draws no random number and touches no tensor.
    """

    def __init__(self, inner: RunRecorder, folder: RunDir) -> None:
        self._inner, self._folder = inner, folder
        self._profiler: profile | None = None

    @property
    def offset(self) -> int:
        """Bytes of metrics.jsonl."""
        return self._inner.offset

    def rewind(self, offset: int) -> None:
        """Begin: a run from its start first writes the evaluation before training, which is no step."""
        self._inner.rewind(offset)
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # it would speak between the progress lines
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
        plan = schedule(wait=0 if offset else 1, warmup=1, active=ACTIVE, repeat=1)
        self._profiler = profile(activities=activities, schedule=plan, on_trace_ready=self._keep)
        self._profiler.start()

    def write(self, record: Figures) -> None:
        """Take a record, which ends a step."""
        self._inner.write(record)
        if self._profiler is not None:
            self._profiler.step()

    def note(self, text: str) -> None:
        """Tell the person something."""
        self._inner.note(text)

    def close(self, status: str) -> None:
        """Keep what there is of a run that ends early."""
        if self._profiler is not None:
            self._profiler.stop()
        if not self._folder.profile_table.exists():
            self.note(f"nothing was profiled: that takes a step to warm up and {ACTIVE} more, or at least one")
        self._inner.close(status)

    def _keep(self, profiler: profile) -> None:
        """Write the trace and the table; a full disk costs the profile, not the run."""
        events: Sequence[Any] = profiler.events() or []  # type: ignore[no-untyped-call]
        if not any(event.name.startswith(PHASE) for event in events):
            return
        try:
            write_atomically(self._folder.profile_table, phase_table(events))
            profiler.export_chrome_trace(str(self._folder.profile_trace))
        except (OSError, RuntimeError) as error:
            self.note(f"the profile cannot be written to {self._folder.profile} ({error})")


def ask_profile(folder: RunDir) -> None:
    """Leave word for the run's first process, whichever process that will be, and clear an earlier profile away."""
    folder.profile.mkdir(exist_ok=True)
    folder.profile_table.unlink(missing_ok=True)
    folder.profile_trace.unlink(missing_ok=True)
    folder.profile_asked.touch()


def profiled(inner: RunRecorder, folder: RunDir) -> RunRecorder | ProfiledRecorder:
    """The recorder itself, or the one that profiles where that was asked for; asked once, done once."""
    if not folder.profile_asked.exists():
        return inner
    folder.profile_asked.unlink()
    return ProfiledRecorder(inner, folder)


def print_profile(folder: RunDir) -> None:
    """The table, and how to open the trace."""
    if folder.profile_table.exists():
        lines = [line.split("\t") for line in folder.profile_table.read_text(encoding="utf-8").splitlines()]
        print_out(table(f"profile of {lines[0][0]}", lines[1], lines[2:], words=True))
        print_out(f"trace    {folder.profile_trace} (open it in ui.perfetto.dev or chrome://tracing)")


def phase_table(events: Sequence[Any]) -> str:
    """Seconds a step by phase with the operators that take most, as tab-separated lines; the first says what it is of.

    Args:
        events: torch's ``FunctionEvent``s; phases are ranges whose names begin with ``PHASE``, steps are torch's own.
    """
    steps = [event for event in events if event.name.startswith(STEP) and _on_cpu(event)]
    whole = sum(event.time_range.elapsed_us() for event in steps)
    phases: dict[str, float] = {}
    operators: dict[str, dict[str, float]] = {}
    known: dict[int, str] = {}
    for event in events:
        if not _on_cpu(event) or event in steps:
            continue
        phase = _phase(event, known)
        if event.name == PHASE + phase:
            phases[phase] = phases.get(phase, 0.0) + event.time_range.elapsed_us()
        else:
            spent = event.self_device_time_total or event.self_cpu_time_total
            found = operators.setdefault(phase, {})
            found[event.name] = found.get(event.name, 0.0) + spent
    phases[REST] = whole - sum(phases.values())
    count = max(1, len(steps))
    lines = [
        [f"{count} step{'s' if count > 1 else ''}"],
        ["phase", "seconds a step", "share", "operators, seconds a step"],
    ]
    for phase, spent in sorted(phases.items(), key=lambda item: -item[1]):
        shown = _shown(operators.get(phase, {}), count)
        lines.append([phase, f"{spent / count / 1e6:.4f}", f"{spent / whole:.1%}" if whole else "-", shown])
    lines.append(["whole", f"{whole / count / 1e6:.4f}", "100.0%", ""])
    return "\n".join("\t".join(line) for line in lines) + "\n"


def _shown(operators: Mapping[str, float], count: int) -> str:
    most = sorted(operators.items(), key=lambda item: -item[1])[:TOP]
    return ", ".join(f"{name} {spent / count / 1e6:.4f}" for name, spent in most)


def _phase(event: Any, known: dict[int, str]) -> str:
    """The phase that an event lies in."""
    chain, found = [], REST
    while event is not None:
        if event.id in known:
            found = known[event.id]
            break
        chain.append(event.id)
        if event.name.startswith(PHASE):
            found = event.name.removeprefix(PHASE)
            break
        event = event.cpu_parent
    known.update(dict.fromkeys(chain, found))
    return found


def _on_cpu(event: Any) -> bool:
    """Kernels stand beside the operators that start them; their time counts there."""
    return str(event.device_type).endswith("CPU")
