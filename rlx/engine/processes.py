"""Several processes on one run: torch's elastic launcher, on this machine or one of several."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rlx.errors import UserError

STOPPED = 130
"""Exit code of a run that was asked to stop, as shells count SIGINT."""


@dataclass(frozen=True, slots=True)
class ProcessLayout:
    """The processes that share a run.

    Example:
        two machines with eight GPUs each, as the second sees it:
        ``ProcessLayout(processes=8, nodes=2, node_rank=1, master="10.0.0.1:29500")``
    """

    processes: int = 1
    """On each machine."""
    nodes: int = 1
    node_rank: int = 0
    """This machine's number."""
    master: str = ""
    """Address and free port of machine 0, as all machines reach it."""

    @property
    def size(self) -> int:
        """Processes on all machines, or of the launcher that started this one."""
        return world_size() if launched() else self.processes * self.nodes

    def check(self) -> None:
        """Refuse what does not fit together.

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
                f"--master is '{self.master}', but {self.nodes} nodes have to find each other",
                fix="give node 0's address and a free port there, such as 10.0.0.1:29500",
            )


def world_size() -> int:
    """Processes of the launcher that started this one (torchrun, accelerate launch, ours); 1 without any."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether this process is one of several that a launcher started."""
    return world_size() > 1


def rank() -> int:
    """This process's number among all."""
    return int(os.environ.get("RANK", "0"))


def launch(module: str, folder: Path, team: ProcessLayout) -> int:
    """Start this machine's processes, each running ``python -m module folder``, and wait for them.

    torch's elastic launcher is the one that accelerate's own calls for several GPUs; accelerate's has no path to
    several CPU processes without MPI.

    Returns:
        The exit code: 0, or that of the first process that failed.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // team.processes)))
    alone = team.nodes == 1
    config = LaunchConfig(
        min_nodes=team.nodes,
        max_nodes=team.nodes,
        nproc_per_node=team.processes,
        run_id=folder.name,
        # The static rendezvous keeps the numbers that the nodes were given.
        rdzv_backend="c10d" if alone else "static",
        rdzv_endpoint="localhost:0" if alone else team.master,
        rdzv_configs={} if alone else {"rank": team.node_rank},
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", module, str(folder))
    except SignalException:
        return STOPPED
    except DistError as error:
        raise UserError(
            f"the processes cannot meet at {team.master or 'localhost'} ({str(error).splitlines()[0]})",
            fix="give node 0's address and a port there that is free and that every node reaches, with --master",
            exit_code=1,
        ) from None
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise UserError(
                f"process {number} was ended by signal {-failure.exitcode}",
                fix="the same command goes on from the last checkpoint; signal 9 is mostly a lack of memory",
                exit_code=1,
            ) from None
        return int(failure.exitcode)
    return 0


def exit_with_launcher() -> None:
    """Watch for the launcher's death and die too: a process that has lost its peers would wait for them for ever."""
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def run_worker(worker: Callable[[Path], int]) -> None:
    """The main function of a launched process: a person's mistake is told once."""
    try:
        sys.exit(worker(Path(sys.argv[1])))
    except UserError as error:
        if rank() == 0:
            print(f"rlx: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
