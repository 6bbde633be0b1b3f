"""Several processes that share the problems of an evaluation, each with its own copy of the model."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from rlx.engine.processes import ProcessLayout, launch, rank, run_worker, world_size
from rlx.errors import UserError
from rlx.evaluation.build import Candidate, assemble
from rlx.evaluation.loop import EvalTask, Share, evaluate, next_part, stored_rows
from rlx.evaluation.problems import problem_sets
from rlx.evaluation.progress import show_progress
from rlx.rollout.build import check_sharers
from rlx.runs.folder import RunDir, read_json
from rlx.runs.stop import STOPPED
from rlx.specs.evaluate import ResolvedEval
from rlx.specs.reading import validate

REQUEST, SECONDS = "request.json", "seconds.json"
"""Files that tell the processes what to evaluate, and how long the first process took for each benchmark."""


def sample_in_processes(resolved: ResolvedEval, tasks: Sequence[EvalTask], processes: int) -> dict[str, float] | None:
    """Start the processes, and wait until they have sampled and graded everything that is not stored yet.

    Args:
        resolved: the evaluation.
        tasks: its benchmarks.
        processes: number of processes.

    Returns:
        Seconds that the first process took for each benchmark, or None if a stop was requested.

    Raises:
        UserError: when a process fails, after it has printed the reason.
    """
    if resolved.engine == "vllm":
        check_sharers("tensor_parallel", resolved.spec.tensor_parallel, processes)
    with ExitStack() as stack:
        for task in tasks:
            stack.enter_context(RunDir(task.folder.root).locked())
            stored_rows(task.folder)  # damaged parts are set aside before several processes count the rest
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rlx-eval-")))
        parts = {task.protocol.benchmark: next_part(task.folder) for task in tasks}
        (folder / REQUEST).write_text(json.dumps({"resolved": resolved.model_dump(mode="json"), "parts": parts}))
        code = launch("rlx.evaluation.processes", folder, ProcessLayout(processes=processes))
        if code == STOPPED:
            return None
        if code:
            raise UserError("a process of the evaluation failed", fix="see above; stored samples are kept", exit_code=1)
        seconds: dict[str, float] = read_json(folder / SECONDS)
    return seconds


def work(folder: RunDir) -> int:
    """This process's share of every benchmark.

    Returns:
        The exit code.
    """
    request = read_json(folder.root / REQUEST)
    resolved = validate(request["resolved"], ResolvedEval)
    candidate = Candidate(resolved)
    seconds = {}
    for problem_set in problem_sets(resolved.spec):
        name = problem_set.name
        task = assemble(problem_set, candidate)
        share = Share(rank(), world_size(), request["parts"][name])
        start = time.perf_counter()
        with show_progress(task, shared=True) if rank() == 0 else nullcontext(_silent) as show, task.stop.handling():
            if evaluate(task, show, share) is None:
                return STOPPED
        seconds[name] = time.perf_counter() - start
    if rank() == 0:
        (folder.root / SECONDS).write_text(json.dumps(seconds))
    return 0


def _silent(rows: Sequence[object], total: int) -> None:
    """Show nothing: another process shows the progress."""


if __name__ == "__main__":
    run_worker(work)
