"""Running a study's runs as tasks of a Ray cluster; the run of a lost worker continues on another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rlx.compare.study.runner import Planned, complete_run
from rlx.errors import UserError

RETRIES = 3
"""How many times a run is continued after its worker was lost."""


@contextmanager
def on_ray(cpus: float, gpus: float, measure: bool) -> Iterator[Callable[[Planned], str]]:
    """A function that completes one run in a Ray task and waits for it; it is thread-safe.

    Ray restarts a task when its worker process or machine is lost, never when the run itself fails. The second attempt
    continues from the run's checkpoint in the runs folder, which every machine must see, and waits for a training
    process that survived its worker.

    Args:
        cpus: CPUs per run.
        gpus: GPUs per run.
        measure: evaluate the run too.

    Raises:
        UserError: without ray.
    """
    if find_spec("ray") is None:
        raise UserError("--launcher is ray, and ray is not installed", fix="pip install 'rlx[ray]'", exit_code=1)
    import ray

    # A running cluster (RAY_ADDRESS, or one on this machine) is used; else one is started here.
    ray.init(log_to_driver=False, logging_level="ERROR")
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False)(_in_worker)

    def launch(run: Planned) -> str:
        try:
            reason: str = ray.get(task.remote(run, os.getcwd(), max(1, int(cpus)), measure))
        except ray.exceptions.RayError as error:
            return f"ray: {str(error).strip().splitlines()[-1]}"
        return reason

    try:
        yield launch
    finally:
        ray.shutdown()


def _in_worker(run: Planned, folder: str, threads: int, measure: bool) -> str:
    """The task: complete the run in the folder that relative paths refer to."""
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = str(threads)

    def report(text: str) -> None:
        print(text, flush=True)

    return complete_run(run, threads, measure, report)
