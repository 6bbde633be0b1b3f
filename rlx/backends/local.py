"""A resolved experiment in this process, or in several that torch's elastic launcher starts."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rlx.backends.assemble import build
from rlx.backends.recorder import Silent
from rlx.backends.train_view import finish, tell_end, train_recorder
from rlx.engine.model import save_model
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.loops.rl import train
from rlx.rundir import RunDir, read_json
from rlx.spec import Resolved
from rlx.spec_file import validate

STOPPED = 130
"""Exit code of a run that was asked to stop, as shells count SIGINT."""


def run(resolved: Resolved, content: dict[str, Any], folder: RunDir, processes: int = 1) -> int:
    """Start the run of a resolved experiment, go on with it, or say that it is done.

    Args:
        resolved: the experiment.
        content: what the person wrote, kept in the run folder.
        folder: the run's folder.
        processes: how many processes share the work.

    Returns:
        The exit code: 0 when the run is complete, 130 when it was asked to stop.
    """
    share = resolved.spec.batch.prompts // resolved.spec.batch.updates_per_rollout
    if share % processes:
        divisors = [str(n) for n in range(1, share + 1) if share % n == 0]
        raise UserError(
            f"--processes is {processes}, which does not divide the {share} prompts of an optimiser update "
            "(batch.prompts / batch.updates_per_rollout)",
            fix=f"choices: {', '.join(divisors)}",
        )
    folder.create(content, resolved.model_dump_json(indent=2))
    with folder.locked():
        if folder.summary.exists():
            tell_end(resolved, folder, again=True)
            return 0
        if processes == 1:
            return work(resolved, folder)
    return _launch(folder, processes)


def work(resolved: Resolved, folder: RunDir) -> int:
    """This process's part of the run: the whole of it when it is alone.

    Returns:
        The exit code.
    """
    first = int(os.environ.get("RANK", "0")) == 0
    recorder = train_recorder(resolved, folder) if first else Silent()
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
        tell_end(resolved, folder)
    elif first:
        recorder.note(f"stopped; the same command goes on from here ({folder.root})")
    return 0 if complete else STOPPED


def save_trained(engine: Engine, tokenizer: Any, folder: RunDir) -> None:
    """The trained model for ``from_pretrained``, whole or not at all."""
    if engine.rank == 0:
        temporary = folder.model.with_name(".model")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            save_model(engine.raw, tokenizer, temporary)
            shutil.rmtree(folder.model, ignore_errors=True)
            temporary.rename(folder.model)
        except OSError as error:
            raise UserError(
                f"the model cannot be written to {folder.model} ({error.strerror or error})",
                fix="free some space and run the same command again: it goes on from the last checkpoint",
                exit_code=1,
            ) from None
    engine.accelerator.wait_for_everyone()


def _launch(folder: RunDir, processes: int) -> int:
    """Start the processes on this machine and wait for them.

    torch's elastic launcher is the one that accelerate's own calls for several GPUs; accelerate's has no path to
    several CPU processes without MPI.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=folder.run_id,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "rlx.backends.local", str(folder.root))
    except SignalException:
        return STOPPED
    except ChildFailedError as error:
        return int(error.get_first_failure()[1].exitcode)
    return 0


def worker(root: Path) -> int:
    """One process of several: its spec is the run folder's."""
    _die_with_launcher()
    folder = RunDir(root)
    resolved = validate(read_json(folder.resolved), Resolved)
    if int(os.environ["RANK"]):
        return work(resolved, folder)
    with folder.locked():
        return work(resolved, folder)


def _die_with_launcher() -> None:
    """Watch for the launcher's death and die too: a process that has lost its peers would wait for them for ever."""
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    try:
        sys.exit(worker(Path(sys.argv[1])))
    except UserError as error:
        if int(os.environ["RANK"]) == 0:
            print(f"rlx: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
