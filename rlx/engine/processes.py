"""Starting the processes of one run with torch's elastic launcher, on one machine or several."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rlx.errors import UserError, as_user_error
from rlx.runs.failure import record_failure
from rlx.runs.folder import RunDir
from rlx.runs.stop import STOPPED


@dataclass(frozen=True, slots=True)
class ProcessLayout:
    """The processes that share a run.

    Example:
        the second of two machines with eight GPUs each:
        ``ProcessLayout(processes=8, nodes=2, node_rank=1, master="10.0.0.1:29500")``
    """

    processes: int = 1
    """Number of processes on each machine."""
    nodes: int = 1
    node_rank: int = 0
    """Index of this machine."""
    master: str = ""
    """Address and free port of machine 0, reachable from all machines."""

    @property
    def size(self) -> int:
        """Number of processes on all machines, or that of the launcher that started this process."""
        return world_size() if launched() else self.processes * self.nodes

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UserError: naming the option.
        """
        host, _, port = self.master.rpartition(":")
        if self.node_rank >= self.nodes:
            raise UserError(
                f"--node-rank is {self.node_rank}, but there are {self.nodes} nodes",
                fix=f"choices: 0 to {self.nodes - 1}",
            )
        if self.nodes > 1 and not (host and port.isdigit()):
            raise UserError(
                f"--master is '{self.master}', but {self.nodes} nodes must be able to find each other",
                fix="give node 0's address and a free port there, such as 10.0.0.1:29500",
            )


def world_size() -> int:
    """Number of processes of the launcher (torchrun, accelerate launch, ours) that started this one; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return world_size() > 1


def rank() -> int:
    """Index of this process among all."""
    return int(os.environ.get("RANK", "0"))


def launch(module: str, folder: Path, layout: ProcessLayout) -> int:
    """Start this machine's processes, each running the module with the folder as argument, and wait for them.

    accelerate's launcher calls torch's elastic launcher for several GPUs too, but it cannot start several CPU processes
    without MPI.

    Returns:
        The exit code: 0, or that of the first process that failed.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", *logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # torch sets the level of each of its loggers
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // layout.processes)))
    single_node = layout.nodes == 1
    settings = LaunchConfig(
        min_nodes=layout.nodes,
        max_nodes=layout.nodes,
        nproc_per_node=layout.processes,
        run_id=folder.name,
        # The static rendezvous keeps the node ranks that the user gave.
        rdzv_backend="c10d" if single_node else "static",
        rdzv_endpoint="localhost:0" if single_node else layout.master,
        rdzv_configs={} if single_node else {"rank": layout.node_rank},
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        # Its log files, which stay empty, would otherwise remain in the temporary directory.
        with TemporaryDirectory(prefix="rlx_launch_") as logs:
            config = replace(settings, logs_specs=DefaultLogsSpecs(log_dir=logs))
            elastic_launch(config, sys.executable)("-m", "rlx.engine.worker", module, str(folder))
    except SignalException:
        return STOPPED
    except DistError as error:
        raise UserError(
            f"the processes cannot connect at {layout.master or 'localhost'} ({str(error).splitlines()[0]})",
            fix="give node 0's address and a port there that is free and that every node reaches, with --master",
            exit_code=1,
        ) from None
    except ChildFailedError as error:
        failed_rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise UserError(
                f"process {failed_rank} was ended by signal {-failure.exitcode}",
                fix="the same command continues from the last checkpoint; signal 9 mostly means that memory ran out",
                exit_code=1,
            ) from None
        return int(failure.exitcode)
    return 0


def exit_with_launcher() -> None:
    """End this process when its launcher has ended: a process without its peers would wait for them for ever."""
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def run_in_processes(
    module: str, folder: RunDir, layout: ProcessLayout, is_complete: Callable[[], bool], work: Callable[[], int]
) -> int:
    """Do the work of a run in this process, or in the processes of the layout, which this function then starts.

    Args:
        module: the module to run in each started process; it ends with ``run_worker``.
        folder: the run's folder, which exists.
        layout: the processes that share the run.
        is_complete: called by rank 0 of machine 0 while it holds the folder's lock; True if nothing is left to do.
        work: this process's part of the run; returns its exit code.

    Returns:
        The exit code.
    """
    if launched():
        exit_with_launcher()
    if layout.node_rank == 0 and rank() == 0:
        with folder.locked():
            if is_complete():
                return 0
            if layout.size == 1 or launched():
                return _started(folder, work)
    if folder.summary.exists():
        return 0
    if launched():
        return work()
    if layout.node_rank:
        return launch(module, folder.root, layout)
    return _started(folder, lambda: launch(module, folder.root, layout))


def _started(folder: RunDir, work: Callable[[], int]) -> int:
    """Do the work of a run; if it fails before its first step, remove the run's folder. Returns the exit code.

    Another failure is recorded in the run's folder until the run is started again.
    """
    code, cause = 1, ""
    folder.failure.unlink(missing_ok=True)
    try:
        code = work()
        cause = "" if code in (0, STOPPED) else f"a process ended with exit code {code}"
    except Exception as error:
        cause = str(error) or type(error).__name__
        raise
    finally:
        if code not in (0, STOPPED):
            folder.discard_start()
        if cause and folder.root.is_dir():
            with suppress(OSError):  # such as a full disk, which may be the cause
                record_failure(folder, "run", cause)
    return code


def run_worker(work: Callable[[RunDir], int]) -> None:
    """The main function of a started process: its part of the run in the folder that the command line names.

    Rank 0 holds the folder's lock, and prints a user error.
    """
    exit_with_launcher()
    folder = RunDir(Path(sys.argv[1]))
    try:
        with nullcontext() if rank() else folder.locked():
            code = work(folder)
        sys.exit(code)
    except (UserError, OSError) as error:
        mistake = as_user_error(error)
        if rank() == 0:
            print(f"rlx: {mistake}", file=sys.stderr)
        sys.exit(mistake.exit_code)
