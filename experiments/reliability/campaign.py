"""Kill rlx at random moments until a run is complete, and compare it bit by bit with an uninterrupted run.

python experiments/reliability/campaign.py --kills 1000 --seed 0 --folder runs/campaign    (also: make campaign)

One trial is one run of train, unlearn, eval or a study: it is killed with SIGKILL (all its processes) at moments drawn
with the trial's seed, and started again with the same command until it is complete. Then weights, optimiser, metrics
without times, samples and results are compared with those of an uninterrupted run. Finished trials are stored in
FOLDER/trials.jsonl, so that the same command continues; the report is written after each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from campaign_report import write_report
from compare_runs import COMPARED, differences
from workloads import WORKLOADS, Workload

KILLS_PER_TRIAL = 4
"""Kills of one trial, unless the run is complete before."""


@dataclass(frozen=True)
class Trial:
    """One run that was killed several times."""

    workload: str
    seed: int
    kills: int
    moments: list[float]
    """Seconds from the start of the process to each kill."""
    seconds: float
    differences: list[str]
    """Files that differ from the uninterrupted run, or why the run did not finish."""


@dataclass(frozen=True)
class Reference:
    """The uninterrupted run of a workload."""

    folder: Path
    seconds: float
    times: list[list[float]]
    """Pairs of a count of written records and the seconds at which the run reached it."""

    def moment(self, count: int, chance: random.Random) -> tuple[int, float]:
        """When to kill a process that starts with this count: at which count, and how many seconds after it.

        One kill in four falls into the start of the process, the others into the rest of the run, uniformly over the
        time of the uninterrupted run. Counts make the moments independent of the load of the machine.
        """
        first = next((seconds for number, seconds in self.times if number > 0), self.seconds)
        if chance.random() < 0.25:
            return count, chance.uniform(0, first)
        begin = max([first, *(seconds for number, seconds in self.times if number <= count)])
        seconds = chance.uniform(begin, self.seconds)
        reached = [pair for pair in self.times if pair[1] <= seconds]
        number, since = reached[-1] if reached else (0, 0.0)
        return int(number), seconds - since


def uninterrupted(workload: Workload, folder: Path) -> Reference:
    """The uninterrupted run, which is run once."""
    target = folder / "uninterrupted" / workload.name
    finished = target / "times.json"
    if not finished.exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        begin, times = time.perf_counter(), []
        with (target / "output.txt").open("w") as output:
            process = subprocess.Popen(workload.command(target), cwd=target, stdout=output, stderr=output)
            while process.poll() is None:
                count = written(target)
                if count and (not times or count > times[-1][0]):
                    times.append([count, time.perf_counter() - begin])
                time.sleep(0.02)
        if process.returncode:
            sys.exit(f"{workload.name} fails without a kill: see {target / 'output.txt'}")
        finished.write_text(json.dumps({"seconds": time.perf_counter() - begin, "times": times}))
    return Reference(target, **json.loads(finished.read_text()))


def written(folder: Path) -> int:
    """The number of records, checkpoints and parts of evaluations that were written so far."""
    records = sum(file.read_bytes().count(b"\n") for file in folder.glob("runs/*/metrics.jsonl"))
    steps = [int(path.name[5:]) for path in folder.glob("runs/*/checkpoints/step_*")]  # older ones are removed
    parts = sum(1 for _ in folder.glob("runs/*/evaluations/*/*/samples.parquet/part_*"))
    return records + sum(steps) + parts


def run_trial(workload: Workload, seed: int, folder: Path) -> Trial:
    """Kill one run several times, finish it, and compare it."""
    reference = uninterrupted(workload, folder)
    target = folder / "trial"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    command = workload.command(target)
    chance, start = random.Random(f"{workload.name} {seed}"), time.perf_counter()
    moments: list[float] = []
    for _ in range(KILLS_PER_TRIAL):
        seconds = _killed(command, target, reference.moment(written(target), chance))
        if seconds is None:
            break
        moments.append(round(seconds, 3))
    done = subprocess.run(command, capture_output=True, text=True, cwd=target)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        problems = [f"exit code {done.returncode}: {lines[-1]}"]
    else:
        problems = differences(reference.folder, target)
    if problems:  # for whoever looks for the reason
        shutil.copytree(target, folder / "different" / f"{workload.name}-{seed}", dirs_exist_ok=True)
    return Trial(workload.name, seed, len(moments), moments, round(time.perf_counter() - start, 1), problems)


def _killed(command: list[str], folder: Path, moment: tuple[int, float]) -> float | None:
    """Start the command, and kill its process group at the moment; return the seconds, None if it ended before."""
    count, after = moment
    with (folder / "output.txt").open("a") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
        while process.poll() is None and written(folder) < count:
            time.sleep(0.005)
        try:
            process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return time.perf_counter() - begin
    return None


def run_campaign(folder: Path, kills: int, seed: int, minutes: float | None, names: list[str]) -> list[Trial]:
    """Run trials until there are enough kills or the time is over; return all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "trials.jsonl"
    trials = [Trial(**json.loads(line)) for line in store.read_text().splitlines()] if store.exists() else []
    end = None if minutes is None else time.monotonic() + 60 * minutes
    number = len(trials)
    while sum(trial.kills for trial in trials) < kills and (end is None or time.monotonic() < end):
        workload = WORKLOADS[names[number % len(names)]]
        trial = run_trial(workload, seed + number, folder)
        with store.open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")
        trials.append(trial)
        number += 1
        print(f"{trial.workload} {trial.seed}: {trial.kills} kills, {'; '.join(trial.differences) or 'no difference'}",
              flush=True)  # fmt: skip
        write_report(folder / "report.md", [asdict(trial) for trial in trials], COMPARED)
    return trials


def main() -> None:
    """Run or continue the campaign; exit code 1 if a run differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="trial i has the seed SEED + i")
    parser.add_argument("--minutes", type=float, help="start no trial after this time")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--folder", type=Path, default=Path("runs/campaign"))
    options = parser.parse_args()
    trials = run_campaign(
        options.folder.resolve(), options.kills, options.seed, options.minutes, options.workloads.split(",")
    )
    kills, different = sum(trial.kills for trial in trials), sum(bool(trial.differences) for trial in trials)
    print(f"{kills} kills in {len(trials)} runs, {different} runs differ; {options.folder / 'report.md'}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
