"""Launch the runs of a study as tasks of a Ray cluster; if a worker is lost, its run resumes on another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rlx.compare.study.runner import PlannedRun, complete_run
from rlx.errors import UserError
from rlx.inert import visible

RETRIES = 3
"""Number of times that a run is resumed after its worker was lost."""


@contextmanager
def on_ray(cpus: float, gpus: float, evaluate: bool) -> Iterator[Callable[[PlannedRun], str]]:
    """Yield a thread-safe function that completes one run in a Ray task and returns the reason of a failure.

    Ray restarts a task when its worker process or machine is lost, never when the run itself fails. The second attempt
    resumes from the run's checkpoint in the runs folder, which every machine must see, and waits for a training
    process that survived its worker.

    Args:
        cpus: CPUs per run.
        gpus: GPUs per run.
        evaluate: whether to evaluate the run, too.

    Raises:
        UserError: if ray is not installed.
    """
    if find_spec("ray") is None:
        raise UserError("--launcher is ray, and ray is not installed", fix="pip install 'rlx[ray]'", exit_code=1)
    import ray

    # A running cluster (RAY_ADDRESS, or one on this machine) is used if there is one; otherwise ray starts one here.
    ray.init(log_to_driver=False, logging_level="ERROR")
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False)(_in_worker)

    def launch(run: PlannedRun) -> str:
        try:
            reason: str = ray.get(task.remote(run, os.getcwd(), max(1, int(cpus)), evaluate))
        except ray.exceptions.RayError as error:
            return f"ray: {str(error).strip().splitlines()[-1]}"
        return reason

    try:
        yield launch
    finally:
        ray.shutdown()


def _in_worker(run: PlannedRun, folder: str, threads: int, evaluate: bool) -> str:
    """Ray task: complete the run with ``folder`` as the working directory, which relative paths refer to."""
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = str(threads)

    def print_line(text: str) -> None:
        print(visible(text), flush=True)

    return complete_run(run, threads, evaluate, print_line)
