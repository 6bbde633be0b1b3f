"""Run a resolved experiment in this process, or in several that torch's elastic launcher starts."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from rlx.console import warn
from rlx.engine.export import save_trained
from rlx.engine.processes import ProcessLayout, rank, run_in_processes, run_worker
from rlx.errors import UserError
from rlx.rl.build import build
from rlx.rl.display import finish, print_summary, run_description, train_recorder
from rlx.rl.loop import train
from rlx.rl.profiling import ProfiledRecorder, print_profile, profiled, request_profile
from rlx.rollout.build import check_sharers
from rlx.runs.folder import RunDir, read_json
from rlx.runs.recorder import NullRecorder, complete_tracking
from rlx.runs.stop import STOPPED
from rlx.specs.reading import validate
from rlx.specs.train import Resolved


def run(
    resolved: Resolved,
    content: dict[str, Any],
    folder: RunDir,
    layout: ProcessLayout | None = None,
    profile: bool = False,
) -> int:
    """Start the run of a resolved experiment, continue it, or report that it is complete.

    Args:
        resolved: the experiment.
        content: the user's spec, which is saved in the run folder.
        folder: the run's folder; several machines see the same one.
        layout: the processes that share the run; by default this one.
        profile: whether rank 0 profiles the next steps.

    Returns:
        The exit code: 0 if the run is complete, 130 if it was stopped.
    """
    layout = layout or ProcessLayout()
    layout.check()
    _check_share(resolved, layout)
    if rank() == 0 and layout.node_rank == 0:
        folder.create(content, resolved.model_dump_json(indent=2))
    return run_in_processes(
        "rlx.rl.run",
        folder,
        layout,
        is_complete=lambda: _already_complete(resolved, folder, profile),
        work=lambda: work(resolved, folder),
    )


def _check_share(resolved: Resolved, layout: ProcessLayout) -> None:
    """Refuse a number of processes that an update's prompts, or vLLM's copies, cannot be divided over evenly."""
    share = resolved.spec.batch.prompts // resolved.spec.batch.updates_per_rollout
    if share % layout.size:
        divisors = [str(n) for n in range(1, share + 1) if share % n == 0]
        raise UserError(
            f"--processes is {layout.size}{' in all' if layout.nodes > 1 else ''}, which does not divide the {share} "
            "prompts of an optimiser update (batch.prompts / batch.updates_per_rollout)",
            fix=f"choices: {', '.join(divisors)}",
        )
    if resolved.spec.rollout.engine == "vllm":
        check_sharers("cluster.tensor_parallel", resolved.spec.cluster.tensor_parallel, layout.size)


def _already_complete(resolved: Resolved, folder: RunDir, profile: bool) -> bool:
    """Return True, after printing its summary, if the run is complete; else pass on a request for a profile to rank 0.

    Raises:
        UserError: when a profile of a complete run is requested.
    """
    complete = folder.summary.exists()
    if complete and profile:
        raise UserError(
            f"run {folder.run_id} is complete: there is no step left to profile", fix="add --fresh or another --seed"
        )
    if complete:
        complete_tracking(folder, run_description(resolved), warn)
        print_summary(resolved, folder, again=True)
    else:
        folder.update(resolved.model_dump_json(indent=2))
        if profile:
            request_profile(folder)
    return complete


def work(resolved: Resolved, folder: RunDir) -> int:
    """This process's part of the run; all of it in a single process.

    Returns:
        The exit code.
    """
    is_first = rank() == 0
    recorder = profiled(train_recorder(resolved, folder), folder) if is_first else NullRecorder()
    status = "FAILED"
    try:
        components = build(resolved, folder, recorder)
        with components.stop.handling(), closing(components.grader.rewards):
            complete = train(components)
            status = "FINISHED" if complete else "KILLED"
            if complete:
                save_trained(components.engine, components.tokenizer, folder)
    finally:
        recorder.close(status)
    if is_first and complete:
        finish(folder)
        print_summary(resolved, folder)
    elif is_first:
        recorder.note(f"stopped; the same command continues from here ({folder.root})")
    if isinstance(recorder, ProfiledRecorder):
        print_profile(folder)
    return 0 if complete else STOPPED


if __name__ == "__main__":
    run_worker(lambda folder: work(validate(read_json(folder.resolved), Resolved), folder))
