"""A resolved experiment in this process, or in several that torch's elastic launcher starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlx.engine.export import save_trained
from rlx.engine.processes import STOPPED, ProcessLayout, exit_with_launcher, launch, launched, rank, run_worker
from rlx.engine.profiling import ProfiledRecorder, print_profile, profiled, request_profile
from rlx.errors import UserError
from rlx.rl.build import build
from rlx.rl.display import finish, print_summary, train_recorder
from rlx.rl.loop import train
from rlx.runs.folder import RunDir, read_json
from rlx.runs.recorder import NullRecorder
from rlx.specs.reading import validate
from rlx.specs.train import Resolved


def run(
    resolved: Resolved,
    content: dict[str, Any],
    folder: RunDir,
    team: ProcessLayout | None = None,
    profile: bool = False,
) -> int:
    """Start the run of a resolved experiment, go on with it, or say that it is done.

    Args:
        resolved: the experiment.
        content: what the person wrote, kept in the run folder.
        folder: the run's folder; several machines see the same one.
        team: the processes that share the work; this one alone by default.
        profile: whether to profile the first steps that are left, in the first process.

    Returns:
        The exit code: 0 when the run is complete, 130 when it was asked to stop.
    """
    team = team or ProcessLayout()
    team.check()
    _check_share(resolved, team)
    if launched():
        return _as_one_of_several(resolved, content, folder, profile)
    if team.node_rank == 0:
        folder.create(content, resolved.model_dump_json(indent=2))
        with folder.locked():
            if _already_complete(resolved, folder, profile):
                return 0
            folder.update(resolved.model_dump_json(indent=2))
            if team.size == 1:
                return work(resolved, folder)
    return 0 if folder.summary.exists() else launch("rlx.rl.run", folder.root, team)


def _check_share(resolved: Resolved, team: ProcessLayout) -> None:
    """Refuse a number of processes that an update's prompts, or vLLM's copies, cannot be dealt to evenly."""
    share = resolved.spec.batch.prompts // resolved.spec.batch.updates_per_rollout
    if share % team.size:
        divisors = [str(n) for n in range(1, share + 1) if share % n == 0]
        raise UserError(
            f"--processes is {team.size}{' in all' if team.nodes > 1 else ''}, which does not divide the {share} "
            "prompts of an optimiser update (batch.prompts / batch.updates_per_rollout)",
            fix=f"choices: {', '.join(divisors)}",
        )
    sharers = resolved.spec.cluster.tensor_parallel
    if resolved.spec.rollout.engine == "vllm" and team.size % sharers:
        raise UserError(
            f"cluster.tensor_parallel is {sharers}, but only whole groups of so many processes can share a copy of "
            f"vLLM's weights, and there are {team.size}",
            fix="start a multiple of it with --processes, or lower it",
        )


def _already_complete(resolved: Resolved, folder: RunDir, profile: bool) -> bool:
    """Whether the run is complete, which is then said; a wish for a profile is left for the first process.

    Raises:
        UserError: when a complete run is to be profiled.
    """
    complete = folder.summary.exists()
    if complete and profile:
        raise UserError(
            f"run {folder.run_id} is complete: there is no step left to profile", fix="add --fresh or another --seed"
        )
    if complete:
        print_summary(resolved, folder, again=True)
    elif profile:
        request_profile(folder)
    return complete


def _as_one_of_several(resolved: Resolved, content: dict[str, Any], folder: RunDir, profile: bool) -> int:
    """This process's part of a run whose processes torchrun or accelerate launch has started."""
    exit_with_launcher()
    if rank():
        return 0 if folder.summary.exists() else work(resolved, folder)
    folder.create(content, resolved.model_dump_json(indent=2))
    with folder.locked():
        if _already_complete(resolved, folder, profile):
            return 0
        return work(resolved, folder)


def work(resolved: Resolved, folder: RunDir) -> int:
    """This process's part of the run: the whole of it when it is alone.

    Returns:
        The exit code.
    """
    first = rank() == 0
    recorder = profiled(train_recorder(resolved, folder), folder) if first else NullRecorder()
    status = "FAILED"
    try:
        parts = build(resolved, folder, recorder)
        with parts.stop.handling():
            complete = train(parts)
            status = "FINISHED" if complete else "KILLED"
            if complete:
                save_trained(parts.engine, parts.tokenizer, folder)
    finally:
        recorder.close(status)
    if first and complete:
        finish(folder)
        print_summary(resolved, folder)
    elif first:
        recorder.note(f"stopped; the same command goes on from here ({folder.root})")
    if isinstance(recorder, ProfiledRecorder):
        print_profile(folder)
    return 0 if complete else STOPPED


def worker(root: Path) -> int:
    """One process of several: its spec is the run folder's."""
    exit_with_launcher()
    folder = RunDir(root)
    resolved = validate(read_json(folder.resolved), Resolved)
    if rank():
        return work(resolved, folder)
    with folder.locked():
        return work(resolved, folder)


if __name__ == "__main__":
    run_worker(worker)
