"""Run a study: finished runs are left as they are, interrupted runs are resumed, missing runs are started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlx.compare.load.folders import ProtocolFilter, method_names
from rlx.errors import UserError, did_you_mean, public
from rlx.runs.failure import record_failure
from rlx.runs.folder import RunDir, read_json
from rlx.runs.locate import locator, with_existing_id
from rlx.runs.stop import Terminated, stop_children
from rlx.runs.tracking import read_metrics
from rlx.specs.evaluate import ResolvedEval
from rlx.specs.reading import refuse_credentials, validate
from rlx.specs.resolve_evaluate import resolve_eval
from rlx.specs.resolve_train import resolve
from rlx.specs.resolve_unlearn import resolve_unlearn
from rlx.specs.study import StudySpec, Variant, variants
from rlx.specs.train import Resolved
from rlx.specs.unlearn import ResolvedUnlearn

State = Literal["done", "trained", "cut off", "missing", "failed"]
POLL_SECONDS = 1.0
"""Time between two checks of a run that another process has locked."""
MESSAGE_LENGTH = 400
"""Number of characters that are stored of a failed run's last line of output."""
EQUAL_KEYS = ("n", "temperature", "top_p")
"""Keys of a resolved evaluation that are equal in its protocol."""


RESOLVE: Mapping[str, Callable[[Mapping[str, Any]], Resolved | ResolvedUnlearn]] = {
    "train": resolve,
    "unlearn": resolve_unlearn,
}
"""The function that resolves the spec of a run, by the study's command."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a study.

    Example:
        ``PlannedRun(folder=RunDir(...), content={"seed": 1}, resolved=resolved, method="grpo", evaluation={"n": 8})``
    """

    folder: RunDir
    content: Mapping[str, Any]
    resolved: Resolved | ResolvedUnlearn
    method: str
    """Name in the report."""
    evaluation: Mapping[str, Any]
    condition: tuple[str, ...] = ()
    """The value of each condition axis."""

    @property
    def state(self) -> State:
        """The state of the run, read from its folder."""
        if self.folder.failure.exists():
            return "failed"
        if not self.folder.resolved.exists():
            return "missing"
        if not self.folder.summary.exists():
            return "cut off"
        return "done" if self.is_evaluated() else "trained"

    def training_failed(self) -> bool:
        """Whether the last attempt to train the run failed; a failed evaluation of a trained run is not counted."""
        failure = self.folder.failure
        return not self.folder.summary.exists() and failure.exists() and read_json(failure)["command"] != "eval"

    @property
    def progress(self) -> float:
        """Fraction of the training that is done."""
        if self.folder.summary.exists():
            return 1.0
        records = read_metrics(self.folder.metrics)
        if isinstance(self.resolved, ResolvedUnlearn):
            # Only the run knows its number of updates per epoch; evaluations follow epochs, with one before training.
            spec = self.resolved.spec
            evaluated = sum("eval/utility" in record for record in records)
            return min(1.0, max(0, evaluated - 1) * spec.evaluation.every / spec.epochs)
        return records[-1]["step"] / self.resolved.spec.steps if records else 0.0

    def commands(self, evaluate: bool) -> list[list[str]]:
        """The remaining commands, as arguments of ``rlx``; `rlx unlearn` includes the evaluation.

        Code that the spec names is trusted: the study's own spec is written to the run folder before.
        """
        if isinstance(self.resolved, ResolvedUnlearn):
            return [["unlearn", str(self.folder.spec), "--against", "", "--trust"]]
        commands = [] if self.folder.summary.exists() else [["train", str(self.folder.spec), "--trust"]]
        return [*commands, ["eval", str(self.folder.root), *_set_options(self.evaluation)]] if evaluate else commands

    def protocol_filter(self) -> ProtocolFilter:
        """The function that says whether an evaluation's protocol has the settings of the study."""
        evaluation = self._resolved_evaluation()
        spec = evaluation.spec
        exact = {key: getattr(evaluation, key) for key in EQUAL_KEYS} | {"seed": spec.seed, "top_k": spec.top_k}
        exact |= {"system": spec.system} | ({"grader": spec.grader} if spec.grader != "auto" else {})

        def accepts(protocol: Mapping[str, Any]) -> bool:
            return (
                protocol["benchmark"] in spec.benchmarks
                and all(protocol[key] == value for key, value in exact.items())
                and int(protocol["max_new_tokens"]) <= evaluation.max_new_tokens
                and (spec.limit is None or int(protocol["problems"]) <= spec.limit)
            )

        return accepts

    def is_evaluated(self) -> bool:
        """Whether every benchmark of the study has a finished evaluation; an unlearning run includes its evaluation."""
        if isinstance(self.resolved, ResolvedUnlearn):
            return True
        protocols = [
            read_json(folder.protocol) for folder in self.folder.evaluations("final") if folder.result.is_file()
        ]
        accepts = self.protocol_filter()
        done = {protocol["benchmark"] for protocol in protocols if accepts(protocol)}
        return done >= set(self._resolved_evaluation().spec.benchmarks)

    def _resolved_evaluation(self) -> ResolvedEval:
        return resolve_eval({**self.evaluation, "model": str(self.folder.root)}, locator(self.folder.root.parent))


def plan_runs(study: StudySpec, runs: Path) -> list[PlannedRun]:
    """Resolve every run of the study.

    Raises:
        UserError: for a spec that does not resolve, a run that occurs twice, or an unknown baseline.
    """
    resolved_by_id: dict[str, tuple[Variant, Resolved | ResolvedUnlearn]] = {}
    for variant in variants(study):
        resolved = with_existing_id(RESOLVE[study.command](variant.content), runs)
        if resolved.run_id in resolved_by_id:
            raise UserError(
                f"study {study.name} contains run {resolved.run_id} twice", fix="remove duplicate values from its axes"
            )
        resolved_by_id[resolved.run_id] = (variant, resolved)
    names = _names(study, list(resolved_by_id.values()))
    if study.baseline not in names:
        choices = sorted(set(names))
        raise UserError(
            f"baseline '{study.baseline}' is not among the study's methods", fix=did_you_mean(study.baseline, choices)
        )
    return [
        PlannedRun(RunDir(runs / run_id), variant.content, resolved, name, study.evaluation, variant.condition)
        for name, (run_id, (variant, resolved)) in zip(names, resolved_by_id.items(), strict=True)
    ]


def _names(study: StudySpec, planned: Sequence[tuple[Variant, Resolved | ResolvedUnlearn]]) -> list[str]:
    """The method's name of each run: its label, else the method with the keys that differ within a condition.

    Keys that the conditions set, and keys that resolution derives from them, are not part of a name, because names are
    chosen within each condition.
    """
    names = [variant.label for variant, _ in planned]
    by_condition: dict[tuple[str, ...], list[int]] = {}
    for index, (variant, _) in enumerate(planned):
        by_condition.setdefault(variant.condition, []).append(index)
    for indices in by_condition.values():
        chosen_names = method_names([planned[index][1].spec.model_dump(mode="json") for index in indices])
        for index, name in zip(indices, chosen_names, strict=True):
            names[index] = names[index] or name
    return names


def run_all(
    runs: Sequence[PlannedRun],
    jobs: int,
    evaluate: bool,
    print_line: Callable[[str], None],
    launch: Callable[[PlannedRun], str] | None = None,
) -> dict[str, str]:
    """Complete every run, ``jobs`` at a time; if a run fails, the others continue.

    Args:
        runs: the study's runs.
        jobs: number of runs at once.
        evaluate: whether to evaluate the runs, too.
        print_line: function that prints one line.
        launch: function that completes one run and returns the reason of a failure; by default local processes.

    Returns:
        The runs that failed, with the reason.
    """
    complete_states = ("done",) if evaluate else ("done", "trained")
    todo = [run for run in runs if run.state not in complete_states]
    lock, finished = threading.Lock(), [0]
    threads = max(1, (os.cpu_count() or 1) // jobs)

    def work(run: PlannedRun) -> str:
        start = time.perf_counter()
        reason = launch(run) if launch else complete_run(run, threads, evaluate, print_line)
        with lock:
            finished[0] += 1
            state = f"failed: {reason}" if reason else "done"
            print_line(f"{finished[0]}/{len(todo)} {run.folder.run_id}: {state} ({time.perf_counter() - start:.0f} s)")
        return reason

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            reasons = dict(zip((run.folder.run_id for run in todo), pool.map(work, todo), strict=True))
        except Terminated:  # a terminal sends Ctrl-C to every process of the study, a scheduler may send SIGTERM to one
            pool.shutdown(wait=False, cancel_futures=True)
            stop_children()
            raise
    return {run: reason for run, reason in reasons.items() if reason}


def complete_run(run: PlannedRun, threads: int, evaluate: bool, print_line: Callable[[str], None]) -> str:
    """Train and evaluate one run in separate processes; return the reason of a failure, else an empty string."""
    folder = run.folder
    folder.create(dict(run.content), run.resolved.model_dump_json(indent=2))
    folder.replace_spec(dict(run.content))
    folder.failure.unlink(missing_ok=True)
    _wait_for_lock(folder, print_line)
    for command in run.commands(evaluate):
        reason = _call_rlx([*command, "--runs-dir", str(folder.root.parent)], folder, threads)
        if reason:
            record_failure(folder, command[0], reason)
            return f"{command[0]}: {reason}"
    return ""


def _call_rlx(arguments: Sequence[str], folder: RunDir, threads: int) -> str:
    """Run ``rlx ARGUMENTS`` with its output in the run's log; return its last line if it fails, else nothing."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    with folder.log.open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "rlx.cli", *arguments]
        code = subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment).returncode
    if code == 0:
        return ""
    lines = folder.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    return f"{public(lines[-1])[:MESSAGE_LENGTH]} (exit code {code})"


def _set_options(evaluation: Mapping[str, Any]) -> list[str]:
    """The evaluation spec as ``--set KEY=VALUE`` options."""
    return [part for key, value in evaluation.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def _wait_for_lock(folder: RunDir, print_line: Callable[[str], None]) -> None:
    """Wait while another process has locked the run, such as a training process that outlived its killed study."""
    reported = False
    while True:
        try:
            with folder.locked():
                return
        except UserError as error:
            if not reported:
                print_line(f"{error}; waiting")
                reported = True
            time.sleep(POLL_SECONDS)


def seconds_left(runs: Sequence[PlannedRun], jobs: int) -> float | None:
    """Estimated remaining seconds, from the study's finished runs; None if there are none.

    Only training time is counted, not the start of processes and evaluations.
    """
    finished = [float(read_json(run.folder.summary)["seconds"]) for run in runs if run.folder.summary.exists()]
    if not finished:
        return None
    seconds_per_run = sum(finished) / len(finished)
    return sum(seconds_per_run * (1 - run.progress) for run in runs) / jobs


def read_study(content: Mapping[str, Any]) -> StudySpec:
    """Validate the content of a study's YAML file.

    Raises:
        UserError: for an unknown key, a wrong type, or an evaluation section in a study of unlearning.
    """
    refuse_credentials(content)
    study = validate(content, StudySpec)
    if study.command == "unlearn" and study.evaluation:
        key = next(iter(study.evaluation))
        raise UserError(
            f"evaluation.{key} is given, but rlx unlearn includes the evaluation",
            fix="write the settings of the evaluation under base.evaluation",
        )
    if study.command == "unlearn" and study.conditions:
        raise UserError(
            f"conditions is {study.conditions}, but command is unlearn",
            fix="remove conditions: reports on unlearning have no learning curve of an accuracy to summarise",
        )
    return study
