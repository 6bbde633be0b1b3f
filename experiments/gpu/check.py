"""Check rlx on one GPU: each phase is a process with a time limit, and all results go to $OUT/all.json.

python3 experiments/gpu/check.py all       every phase; --small makes all shapes tiny, to try it on a CPU
python3 experiments/gpu/check.py PHASE     one phase, in this process
PHASES=resume,trl BUDGET=300               only these phases, and the time limit for all of them (seconds)
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PHASES = {
    "env": (20, "machine", "env"),
    "resume": (130, "resume", "resume"),
    "palu": (60, "losses", "palu"),
    "trl": (200, "against_trl", "trl"),
    "unlearn": (90, "runs", "unlearn"),
    "demo": (140, "runs", "demo"),
    "eval": (60, "runs", "evaluate"),
    "golden": (90, "losses", "golden"),
    "decode": (60, "decoding", "decode"),
    "tiny": (60, "runs", "tiny"),
    "lora": (35, "runs", "lora"),
    "update": (75, "training", "update"),
    "head": (60, "training", "head"),
    "packed": (120, "packing", "packed"),
    "graph": (45, "decoding", "graph"),
    "layer": (60, "training", "layer"),
    "tests": (180, "losses", "tests"),
}
"""Time limit (seconds), module and function of each phase; those without a result of a GPU come first."""
BUDGET = 470
"""Seconds for all phases; the environment variable BUDGET overrides it."""
LEAST = 15
"""A phase is not started with fewer seconds left."""


def main() -> None:
    """Run all chosen phases, or one."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in {"all", *PHASES}:
        raise SystemExit(f"check.py: phase '{name}' is not known; choices: all, {', '.join(PHASES)}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from phases.harness import GPU, ROOT, SMALL

    os.environ["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    sys.path.insert(0, str(ROOT))
    if not GPU and not SMALL:
        raise SystemExit("check.py: torch sees no GPU here, so nothing was checked (--small tries the check on a CPU)")
    if name == "all":
        run_phases()
        return
    _, module, function = PHASES[name]
    getattr(importlib.import_module(f"phases.{module}"), function)()


def run_phases() -> None:
    """Run the chosen phases one after another, each in a process with its time limit."""
    from phases.harness import OUT

    chosen = os.environ.get("PHASES", ",".join(PHASES)).split(",")
    unknown = set(chosen) - set(PHASES)
    if unknown:
        raise SystemExit(f"check.py: PHASES has unknown phases {sorted(unknown)}; choices: {', '.join(PHASES)}")
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "all.json").unlink(missing_ok=True)
    start, budget = time.time(), float(os.environ.get("BUDGET", BUDGET))
    with (OUT / "log.txt").open("w") as log:
        for phase in (name for name in PHASES if name in chosen):
            remaining = budget - (time.time() - start)
            if remaining < LEAST:
                print(f"{phase}: not run, no time left", flush=True)
                continue
            log.write(f"== {phase}\n")
            log.flush()
            code = run_phase(phase, min(PHASES[phase][0], remaining), log.fileno())
            print(f"{phase}: exit code {code}, {time.time() - start:.0f} s so far", flush=True)
    if (OUT / "all.json").exists():
        print((OUT / "all.json").read_text()[-11000:])


def run_phase(phase: str, limit: float, log: int) -> int:
    """The exit code of a phase in a process group of its own; negative if the time limit ended it."""
    command = [sys.executable, str(Path(__file__).resolve()), phase, *sys.argv[2:]]
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


if __name__ == "__main__":
    main()
