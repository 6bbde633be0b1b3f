"""Run random valid specs on the embedded models: each one runs, or is refused in one sentence.

python experiments/reliability/sweep.py --draws 30 --commands train,unlearn --seed 0 --folder /tmp/sweep

Exit code 1 if a draw ended in anything else; the specs of those draws are printed with the end of their output.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from accelerate.state import AcceleratorState

sys.path.insert(0, str(Path(__file__).parent))

from spec_draws import SPECS, draw

from rlx.cli.app import app
from rlx.errors import UserError
from rlx.specs.resolve_evaluate import resolve_eval
from rlx.specs.resolve_train import resolve
from rlx.specs.resolve_unlearn import resolve_unlearn

REFUSED = 2
"""Exit code of a request that cannot be carried out as it is written."""


@dataclass(frozen=True)
class Outcome:
    """What one draw did."""

    command: str
    seed: int
    content: dict
    state: Literal["ran", "refused", "failed"]
    text: str
    seconds: float


def run_draw(command: str, seed: int, folder: Path) -> Outcome:
    """Draw a spec and run it in this process."""
    start = time.perf_counter()
    content = draw(command, seed)
    state, text = _run(command, content, folder)
    return Outcome(command, seed, content, state, text, time.perf_counter() - start)


def _run(command: str, content: dict, folder: Path) -> tuple[Literal["ran", "refused", "failed"], str]:
    output = io.StringIO()
    before = sys.argv
    AcceleratorState._reset_state(True)  # one process has one precision otherwise
    try:
        with redirect_stdout(output), redirect_stderr(output):
            try:
                sys.argv = ["rlx", *arguments(command, content, folder)]
                app()
            except SystemExit as ending:
                if ending.code:
                    return "failed", f"{output.getvalue()[-2000:]} (exit code {ending.code})"
            except UserError as error:
                one_sentence = "\n" not in str(error)
                return ("refused" if one_sentence and error.exit_code == REFUSED else "failed"), str(error)
            except BaseException:
                return "failed", traceback.format_exc()[-3000:]
    finally:
        sys.argv = before
    return "ran", ""


def arguments(command: str, content: dict, folder: Path) -> list[str]:
    """The command line that runs a spec."""
    runs = ["--runs-dir", str(folder)]
    if command == "eval":
        settings = [f"--set={key}={json.dumps(value)}" for key, value in content.items() if key != "model"]
        return ["eval", content["model"], *settings, *runs]
    file = folder / f"{command}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return [command, str(file), *(["--against", ""] if command == "unlearn" else []), "--fresh", *runs]


def is_accepted(command: str, content: dict) -> bool:
    """Whether the spec resolves; a contradiction is refused before anything runs."""
    try:
        if command == "eval":
            location = {"folder": "x", "checkpoint": "final", "model_folder": "x"}
            resolve_eval(content, lambda spec: (location, True))
        else:
            {"train": resolve, "unlearn": resolve_unlearn}[command](content)
    except UserError:
        return False
    return True


def sweep(command: str, draws: int, seed: int, folder: Path) -> list[Outcome]:
    """Run draws until this number of them were accepted by the resolution; print one line for each."""
    outcomes: list[Outcome] = []
    accepted, number = 0, seed * 1_000_000
    while accepted < draws:
        known = is_accepted(command, draw(command, number))
        outcome = run_draw(command, number, folder / command) if known else _refused(command, number)
        accepted += known
        outcomes.append(outcome)
        if known:
            print(f"{command} {number}: {outcome.state} ({outcome.seconds:.1f} s) {outcome.text[:160]}", flush=True)
        number += 1
    return outcomes


def _refused(command: str, seed: int) -> Outcome:
    return Outcome(command, seed, draw(command, seed), "refused", "", 0.0)


def main() -> None:
    """Run the sweep and print its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", default=",".join(SPECS))
    parser.add_argument("--draws", type=int, default=30, help="accepted draws of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="default: a temporary folder that is removed")
    options = parser.parse_args()
    failed: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="rlx-sweep-") as temporary:
        for command in options.commands.split(","):
            outcomes = sweep(command, options.draws, options.seed, options.folder or Path(temporary))
            counts = Counter(outcome.state for outcome in outcomes)
            print(f"{command}: {', '.join(f'{count} {state}' for state, count in sorted(counts.items()))}")
            failed += [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        print(f"\n{outcome.command} {outcome.seed} failed:\n{yaml.safe_dump(outcome.content)}{outcome.text}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
