"""The faults of processes of tests/runs/test_process_faults.py; docs/generate.py prints them in docs/reliability.md."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = {
    "loading": ("train", "rlx.engine.load:load_model", 1),
    "rollout": ("train", "rlx.rl.rollouts:sample_groups", 4),
    "grading": ("train", "rlx.rl.rollouts:grade", 4),
    "update": ("train", "rlx.rl.update:update_policy", 4),
    "evaluation": ("train", "rlx.rl.accuracy:accuracy", 3),
    "checkpoint": ("train", "rlx.engine.checkpoint:_write_files", 2),
    "certificate": ("unlearn", "rlx.unlearning.results:write_results", 1),
    "report": ("compare", "rlx.compare.report.write:write_report", 1),
}
"""Each step with the command, the function at whose call the fault happens, and the number of that call."""
FAULTS = {
    "SIGTERM": "once",
    "SIGTERM twice": "",
    "SIGINT": "once",
    "SIGINT twice": "",
    "SIGKILL": "",
    "disk full": "a tmpfs without free space (ENOSPC)",
    "folder read-only": "every folder of the run without write permission, another user",
}
"""Each fault."""
STOPPED, ENDED, KILLED, FAILED, COMPLETE = "130", "130 or 143", "-9", "1", "0"
"""Exit codes."""
OUTCOMES = {
    "SIGTERM": STOPPED,
    "SIGTERM twice": STOPPED,
    "SIGINT": STOPPED,
    "SIGINT twice": STOPPED,
    "SIGKILL": KILLED,
    "disk full": FAILED,
    "folder read-only": FAILED,
}
"""The exit code of each fault."""
EXCEPTIONS = {("certificate", "SIGTERM"): STOPPED}
"""Exit codes of single steps that differ."""


@dataclass(frozen=True)
class ProcessFault:
    """A fault at a step, and how the process ends."""

    step: str
    fault: str
    exit_code: str


CASES = [
    ProcessFault(step, fault, EXCEPTIONS.get((step, fault), OUTCOMES[fault]))
    for step in STEPS
    for fault in FAULTS
    if not (step == "report" and fault == "folder read-only")  # the report is not written to a run's folder
]


def markdown() -> str:
    """The exit codes as a Markdown table: a row for each step, a column for each fault."""
    lines = ["| step | " + " | ".join(FAULTS) + " |", "|---" * (len(FAULTS) + 1) + "|"]
    for step in STEPS:
        codes = {case.fault: case.exit_code for case in CASES if case.step == step}
        lines.append(f"| {step} | " + " | ".join(codes.get(fault, "") for fault in FAULTS) + " |")
    return "\n".join(lines)
