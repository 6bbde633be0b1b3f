"""`rlx eval`: run a resolved evaluation and compute its metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rlx.benchmarks.benchmark import fingerprint, overlap_warnings
from rlx.benchmarks.summary import Score, Summary, from_json
from rlx.console import warn
from rlx.data.prompts import load_prompts
from rlx.errors import UserError
from rlx.evaluation.build import Candidate, assemble, write_file, write_result
from rlx.evaluation.grading import inputs_of_rows
from rlx.evaluation.loop import EvalTask, evaluate, graded, regrade
from rlx.evaluation.problems import ProblemSet, problem_sets
from rlx.evaluation.processes import sample_in_processes
from rlx.evaluation.progress import show_progress
from rlx.runs.folder import RunDir, read_json
from rlx.runs.folder_parts import EvalDir
from rlx.runs.samples import Row
from rlx.runs.tracking import MlflowSink, tracking_uri
from rlx.specs.evaluate import Protocol, ResolvedEval
from rlx.specs.reading import validate
from rlx.specs.train import Resolved

EXPERIMENT = "rlx"
"""MLflow experiment of models that rlx did not train."""


@dataclass(frozen=True, slots=True)
class EvalOutcome:
    """The results of one benchmark.

    Example:
        ``EvalOutcome(summary, scores, protocol, EvalDir(...), seconds=12.5)``
    """

    summary: Summary
    scores: list[Score]
    protocol: Protocol
    folder: EvalDir
    seconds: float


def run_eval(resolved: ResolvedEval, regrade_only: bool = False, processes: int = 1) -> list[EvalOutcome] | None:
    """Evaluate a model on every benchmark of the spec; samples that an interrupted call stored are reused.

    Args:
        resolved: the evaluation.
        regrade_only: grade the stored responses again and sample nothing.
        processes: processes that share the problems, each with its own copy of the model, on its own GPU if there are
            GPUs. Samples do not depend on their number.

    Returns:
        The outcomes, or None if a stop was requested.
    """
    spec, run = resolved.spec, RunDir(Path(resolved.folder))
    run.refuse_links_outside()
    sets = problem_sets(spec)
    candidate = Candidate(resolved)
    _warn_of_overlap(resolved, candidate, sets)
    if resolved.run_spec is None:
        write_file(run.evaluated, json.dumps({"model": spec.model, "revision": spec.revision}, indent=2))
    tasks: list[EvalTask] = []
    try:
        for problem_set in sets:
            tasks.append(assemble(problem_set, candidate))
        return _outcomes(resolved, run, tasks, regrade_only, processes)
    finally:
        _discard_unsampled(run, tasks)


def _outcomes(
    resolved: ResolvedEval, run: RunDir, tasks: Sequence[EvalTask], regrade_only: bool, processes: int
) -> list[EvalOutcome] | None:
    """The outcomes of assembled benchmarks, or None if a stop was requested."""
    seconds: dict[str, float] | None = {}
    if processes > 1 and not regrade_only:
        seconds = sample_in_processes(resolved, tasks, processes)
    if seconds is None:
        return None
    outcomes = []
    for task in tasks:
        stop = task.stop
        with RunDir(task.folder.root).locked(), stop.handling():
            outcome = _outcome(task, _regraded(task, run, resolved.checkpoint) if regrade_only else _sampled(task))
        if outcome is None:
            return None
        outcomes.append(replace(outcome, seconds=outcome.seconds + seconds.get(task.protocol.benchmark, 0.0)))
        if resolved.spec.mlflow:
            _log(run, resolved, outcome)
    return outcomes


def _discard_unsampled(run: RunDir, tasks: Sequence[EvalTask]) -> None:
    """Remove the folders of evaluations without samples, unless another process writes them: the start failed."""
    for task in tasks:
        if not task.folder.parts():
            with suppress(UserError), RunDir(task.folder.root).locked():
                task.folder.discard_start()
    run.discard_evaluated()


def _sampled(task: EvalTask) -> Callable[[], list[Row] | None]:
    """A function that samples and grades what is not stored yet, and shows the progress."""

    def work() -> list[Row] | None:
        with show_progress(task) as show:
            return evaluate(task, show)

    return work


def _regraded(task: EvalTask, run: RunDir, checkpoint: str) -> Callable[[], list[Row] | None]:
    """A function that grades stored responses of this protocol again, whichever grader was used before."""
    for folder in [task.folder, *run.evaluations(checkpoint)]:
        stored = validate(read_json(folder.protocol), Protocol)
        if folder.parts() and stored.same_responses(task.protocol):
            return lambda: regrade(folder, task.folder, lambda rows: graded(inputs_of_rows(rows, task.problems), task))
    raise UserError(
        f"benchmark {task.protocol.benchmark}: there are no stored responses of this protocol in {run.root}",
        fix="sample them first, without --regrade",
    )


def _outcome(task: EvalTask, work: Callable[[], list[Row] | None]) -> EvalOutcome | None:
    """The benchmark's metrics, which are also written to result.json."""
    start = time.perf_counter()
    rows = work()
    if rows is None:
        return None
    seconds = time.perf_counter() - start
    expected = task.protocol.problems * task.protocol.n
    if len(rows) != expected:
        raise UserError(
            f"{task.folder.samples} holds {len(rows)} samples of {expected}",
            fix="run it without --regrade to the end first",
        )
    summary, scores = write_result(task.folder, task.protocol.benchmark, rows)
    return EvalOutcome(summary, scores, task.protocol, task.folder, seconds)


def stored_results(run: RunDir) -> list[tuple[Protocol, Summary, list[Score]]]:
    """Every finished evaluation in a run folder, by checkpoint and benchmark."""
    results = []
    for folder in run.evaluations():
        if folder.result.is_file():
            protocol = validate(read_json(folder.protocol), Protocol)
            results.append((protocol, *from_json(read_json(folder.result))))
    return results


def _warn_of_overlap(resolved: ResolvedEval, candidate: Candidate, sets: Sequence[ProblemSet]) -> None:
    """Warn about benchmarks and questions of the user's own that contain problems of the run's training data."""
    if resolved.run_spec is None:
        return
    content = read_json(Path(resolved.run_spec))
    if "data" not in content["spec"]:
        return  # an unlearning run has no training prompts
    trained = validate(content, Resolved)
    try:
        prompts = load_prompts(trained.spec.data, candidate.tokenizer).prompts
    except UserError as error:
        warn(f"the run's training prompts were not compared with the benchmarks: {error.what}")
        return
    questions = [prompt.question for prompt in prompts]
    if resolved.spec.benchmarks:
        for sentence in overlap_warnings(questions, resolved.spec.benchmarks):
            warn(sentence)
    if resolved.spec.data is not None:
        trained_on = {fingerprint(question) for question in questions}
        count = sum(fingerprint(problem.text) in trained_on for problem in sets[-1].problems)
        if count:
            warn(f"{count} of the {len(sets[-1].problems)} questions of {sets[-1].name} are training prompts too")


def _log(run: RunDir, resolved: ResolvedEval, outcome: EvalOutcome) -> None:
    """Log the evaluation to MLflow as one run of its own, tagged with the evaluated run's id."""
    protocol = outcome.protocol
    sink = MlflowSink(
        uri=tracking_uri(run.root.parent),
        experiment=EXPERIMENT,
        name=f"{run.run_id} {outcome.folder.root.name}",
        id_file=outcome.folder.mlflow,
        warn=warn,
    )
    tags = {"rlx.kind": "evaluation", "rlx.run_id": run.run_id, "rlx.checkpoint": resolved.checkpoint}
    files = [outcome.folder.protocol, outcome.folder.result, outcome.folder.first_prompt]
    sink.start(protocol.record(), tags, files)
    flat = outcome.summary.flat()
    sink.write({"step": 0, **{f"eval/{protocol.benchmark}/{key}": value for key, value in flat.items()}})
    sink.close("FINISHED", timeout=120.0)
