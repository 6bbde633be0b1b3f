"""A study's runs as tasks of a Ray cluster; a lost worker's run goes on elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rlx.compare.study.runner import Planned, bring_forward
from rlx.errors import UserError

RETRIES = 3
"""So many times a run goes on elsewhere after its worker was lost."""


@contextmanager
def on_ray(cpus: float, gpus: float, measure: bool) -> Iterator[Callable[[Planned], str]]:
    """A function that brings one run as far as asked in a Ray task and waits for it; safe in many threads.

    Ray starts a task again when its worker process or machine is gone, never when the run itself fails. The second try
    finds the run's checkpoint in the runs folder, which every machine has to see, and waits for a training process
    that outlived its worker.

    Args:
        cpus: what each run asks of the cluster.
        gpus: the same.
        measure: evaluate the run too.

    Raises:
        UserError: without ray.
    """
    if find_spec("ray") is None:
        raise UserError("--launcher is ray, and ray is not installed", fix="pip install 'rlx[ray]'", exit_code=1)
    import ray

    # A cluster that stands (RAY_ADDRESS, or one on this machine) is joined; else one is started here.
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
    """The task: the same as a local process does, in the folder that relative paths are meant from."""
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = str(threads)

    def tell(text: str) -> None:
        print(text, flush=True)

    return bring_forward(run, threads, measure, tell)
