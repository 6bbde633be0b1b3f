"""Measure what the SHA-256 of a checkpoint costs when it is saved and when a run continues from it.

    python experiments/perf/checkpoint_hashes.py [--repeats 5] [--out experiments/perf/checkpoint_hashes.md]

The checkpoint has 1 GB: a Llama of 84 million float32 weights with AdamW's two moments. With and without hashes take
turns. Before a load the files are dropped from the system's cache, as after a restart of the machine. "Start" is what a
resumed run does: it loads the base model, while the checkpoint is hashed in the background, and then the checkpoint.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlx.engine.checkpoint import save_checkpoint
from rlx.engine.load import load_trainable
from rlx.engine.recovery import Recovery
from rlx.engine.step import Engine
from rlx.runs.checkpoint_files import Position
from rlx.runs.folder import RunDir
from rlx.runs.recorder import NullRecorder
from rlx.specs.train import Model, Optim


def build_engine(model: torch.nn.Module) -> Engine:
    """An engine over the model."""
    return Engine(model, Model(precision="float32"), Optim(lr=1e-3), 10, 1000)


def without_hashes(stack: ExitStack) -> None:
    """Replace writing and checking of hashes by nothing."""
    stack.enter_context(patch("rlx.runs.integrity.sha256", lambda path: ""))
    stack.enter_context(patch("rlx.engine.checkpoint.write_manifest", lambda folder, hashes: None))
    stack.enter_context(patch("rlx.engine.recovery.check_checkpoint", lambda folder, hashes: True))


def drop_from_cache(folder: Path) -> None:
    """Write the files to the disk and drop them from the system's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def seconds(work: Callable[[], object], hashes: bool) -> float:
    """Seconds of one call, with or without hashes."""
    with ExitStack() as stack:
        if not hashes:
            without_hashes(stack)
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def measure(folder: Path, repeats: int) -> dict[str, dict[bool, list[float]]]:
    """Seconds of saving, loading and starting, with and without hashes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=1024, intermediate_size=4096, num_hidden_layers=5, num_attention_heads=8
    )
    lm = LlamaForCausalLM(config)
    base, run = folder / "base", RunDir(folder / "runs" / "run")
    lm.save_pretrained(base)
    engine = build_engine(lm)
    for parameter in engine.raw.parameters():
        parameter.grad = torch.randn_like(parameter)
    engine.optimizer.step()
    position, recorder = Position(5, 5, 0, 0), NullRecorder()

    def save() -> None:
        save_checkpoint(run.checkpoint(5), engine, position, 2)

    def load() -> None:
        Recovery(run).restore(engine, recorder)

    def start() -> None:
        recovery = Recovery(run)
        load_trainable(str(base), Model(path=str(base), precision="float32"), torch.device("cpu"))
        recovery.restore(engine, recorder)

    times: dict[str, dict[bool, list[float]]] = {
        name: {True: [], False: []} for name in ("save", "load, files in the cache", "load", "start")
    }
    for repeat in range(repeats + 1):  # the first round is not counted
        for hashes in (True, False) if repeat % 2 else (False, True):
            round_times = {"save": seconds(save, hashes)}
            if not hashes:
                save()  # with a manifest, which both kinds of load find
            round_times["load, files in the cache"] = seconds(load, hashes)
            for name, work in (("load", load), ("start", start)):
                drop_from_cache(folder)
                round_times[name] = seconds(work, hashes)
            if repeat:
                for name, value in round_times.items():
                    times[name][hashes].append(value)
    return times


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), arguments.repeats)
        size = sum(path.stat().st_size for path in Path(folder).glob("runs/run/checkpoints/step_*/*"))
    lines = [
        "# Cost of the hashes of a checkpoint",
        "",
        f"`python experiments/perf/checkpoint_hashes.py --repeats {arguments.repeats}`, {datetime.date.today()}, CPU "
        f"({platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}), {size / 1e9:.2f} GB, medians "
        f"of {arguments.repeats} (lowest to highest). What is measured is in the script's first lines.",
        "",
        "| | without hashes (s) | with hashes (s) | difference of the medians |",
        "|---|---|---|---|",
    ]
    pairs = {name: (by[False], by[True]) for name, by in times.items()}
    totals = [[a + b for a, b in zip(times["save"][h], times["start"][h], strict=True)] for h in (False, True)]
    pairs["save and start together"] = (totals[0], totals[1])
    for name, (plain, hashed) in pairs.items():
        cells = [f"{statistics.median(x):.2f} ({min(x):.2f} to {max(x):.2f})" for x in (plain, hashed)]
        change = statistics.median(hashed) / statistics.median(plain) - 1
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {change:+.1%} |")
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
