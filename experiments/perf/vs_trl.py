"""Compare rlx with TRL's GRPOTrainer: same model, prompts, samples, token limit, number of updates and machine.

    make perf [PERF="--repeats 2 --threads 2 --only tiny"]

Each measurement runs in its own process, and the two sides alternate. Results are medians over all rollouts except each
process's first three, in which memory and caches fill and rlx compares its sampler's log-probs with its trainer's.
The prompts are word problems; the reward (coin.py) differs within each group, so that neither side can skip a sample.
The floor is a lower bound of the time: floating-point operations divided by the measured matmul rate, bytes of weights
read divided by the measured bandwidth.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TINY = ROOT / "rlx" / "assets" / "arithmetic"
WARM = 3
SMOLLM = ROOT / "models" / "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Workload:
    """The size of one rollout.

    Example:
        ``Workload(SMOLLM, prompts=8, group=8, tokens=32, updates=1, steps=2)``
    """

    model: Path
    prompts: int
    group: int
    tokens: int
    updates: int
    steps: int
    """Rollouts per process; the first ``WARM`` are not counted."""

    @property
    def samples(self) -> int:
        """Number of samples in a rollout."""
        return self.prompts * self.group


WORKLOADS = {
    "tiny": Workload(TINY, 32, 8, 24, 4, 13),
    "short": Workload(SMOLLM, 8, 8, 32, 1, 6),
    "long": Workload(SMOLLM, 4, 8, 128, 1, 5),
}
Side = tuple[str, str, str]
"""Library, dtype, and the rest: for rlx the rollout engine and the tokens per micro-batch, for TRL its sequences."""
SIDES: dict[str, tuple[Side, ...]] = {
    "tiny": (("rlx", "float32", "hf 16384"), ("trl", "float32", "64")),
    "short": (
        ("rlx", "float32", "hf 320"), ("rlx", "float32", "hf 1024"), ("rlx", "float32", "vllm 320"),
        ("rlx", "bfloat16", "vllm 320"), ("rlx", "bfloat16", "vllm 1024"), ("trl", "float32", "64"),
        ("trl", "float32", "8"), ("trl", "autocast", "8"), ("trl", "bfloat16", "8"),
    ),
    "long": (
        ("rlx", "float32", "hf 1024"), ("rlx", "float32", "vllm 1024"), ("rlx", "bfloat16", "vllm 1024"),
        ("trl", "float32", "8"), ("trl", "bfloat16", "8"),
    ),
}  # fmt: skip
SLOW_BFLOAT16 = (
    "This CPU is slower in bfloat16 than in float32, so float32 is the best setting of both and others are left out. "
)
PROMPT_TOKENS = {"tiny": 6, "short": 55, "long": 55}
"""Approximate length of each prompt."""


def prompts_of(name: str, count: int = 64) -> list[str]:
    """The workload's prompts."""
    rng = random.Random(0)
    if name == "tiny":
        return [f"{rng.randint(10, 99)}+{rng.randint(10, 99)}=" for _ in range(count)]
    return [
        f"Question: Tom has {rng.randint(2, 9)} apples and his sister gives him {rng.randint(2, 9)} more. Then "
        f"he buys {rng.randint(2, 9)} pears at the market. How many pieces of fruit does Tom have now?\nAnswer:"
        for _ in range(count)
    ]


def run_side(name: str, side: Side, threads: int, folder: Path, trl: Path) -> dict[str, Any]:
    """Run one process; return one record per rollout and the peak memory (GiB)."""
    workload = WORKLOADS[name]
    prompts = folder / f"{name}.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p, "answer": "0"}) + "\n" for p in prompts_of(name)))
    output = folder / f"{side[0]}-{time.time_ns()}"
    make_command = rlx_command if side[0] == "rlx" else trl_command
    command = make_command(workload, side, prompts, output, threads, trl)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        _, code, usage = os.wait4(process.pid, 0)
    if code:
        raise SystemExit(f"{' '.join(command)} failed:\n{(folder / 'err').read_text()[-2000:]}")
    if side[0] == "rlx":
        (metrics,) = output.glob("*/metrics.jsonl")
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        lines = [
            {
                "rollout": line["time/rollout"], "update": line["time/update"], "step": line["time/step"],
                "tokens": line["train/response_tokens"] * workload.samples,
            }
            for line in lines
            if line["step"]
        ]  # fmt: skip
    else:
        lines = [
            json.loads(line) for line in (folder / "out").read_text().splitlines() if line.startswith('{"rollout"')
        ]
    return {"lines": lines[WARM:], "gib": usage.ru_maxrss / 2**20}


def rlx_command(workload: Workload, side: Side, prompts: Path, output: Path, threads: int, trl: Path) -> list[str]:
    """The command line of ``rlx train``."""
    engine, tokens = side[2].split()
    sets = {
        "model.precision": side[1], "rollout.engine": engine, "rollout.samples_per_prompt": workload.group,
        "rollout.max_new_tokens": workload.tokens, "reward.name": f"{HERE / 'coin.py'}:coin", "data.chat": "never",
        "batch.prompts": workload.prompts, "batch.updates_per_rollout": workload.updates, "batch.max_tokens": tokens,
        "evaluation.every": 0, "checkpoint.every": 1000, "tracker.mlflow": "false", "optim.lr": 1e-6,
        "algorithm.params.dual_clip": "null",
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "rlx.cli",
        "train",
        "--algo",
        "grpo",
        "--model",
        str(workload.model),
        "--data",
        str(prompts),
    ]
    command += ["--steps", str(workload.steps), "--runs-dir", str(output)]
    return command + [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]


def trl_command(
    workload: Workload, side: Side, prompts: Path, output: Path, threads: int, trl: Path, dump: Path | None = None
) -> list[str]:
    """The command line of trl_side.py in TRL's environment."""
    settings = asdict(workload) | {
        "model": str(workload.model), "dtype": side[1], "micro": int(side[2]), "prompts_file": str(prompts),
        "folder": str(output), "threads": threads, "seed": 0, "dump": str(dump) if dump else None,
    }  # fmt: skip
    return [str(trl), str(HERE / "trl_side.py"), json.dumps(settings)]


def medians(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Medians over all counted steps of all processes of one side."""
    lines = [line for result in results for line in result["lines"]]
    values = {key: statistics.median(line[key] for line in lines) for key in ("rollout", "update", "step", "tokens")}
    return values | {"gib": max(result["gib"] for result in results), "steps": len(lines)}


def floor(name: str, tokens: float, rates: dict[str, float]) -> float:
    """Seconds that the operations of one step take at the measured float32 matmul rate.

    2 operations per weight and token forward, 4 backward; a decoding step reads each weight once.
    """
    workload = WORKLOADS[name]
    weights, prompt = rates[f"weights {workload.model.name}"], PROMPT_TOKENS[name]
    decode = max(2 * weights * tokens / rates["flops"], workload.tokens * weights * 4 / rates["bytes"])
    prefill = 2 * weights * prompt * workload.prompts / rates["flops"]
    return decode + prefill + 6 * weights * (tokens + prompt * workload.samples) / rates["flops"]


def measured_rates(threads: int) -> dict[str, float]:
    """The machine's matmul rates (operations per second), bandwidth (bytes per second), and each model's parameters.

    Runs in its own process, because memory of a process that starts another counts towards the other's peak memory.
    """
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    square, large = torch.randn(2048, 2048), torch.randn(1 << 27)
    best = {"flops": 0.0, "bfloat16": 0.0, "bytes": 0.0}
    for _ in range(5):
        for name, matrix in (("flops", square), ("bfloat16", square.bfloat16())):
            start = time.perf_counter()
            matrix @ matrix
            best[name] = max(best[name], 2 * 2048**3 / (time.perf_counter() - start))
        start = time.perf_counter()
        large.sum()
        best["bytes"] = max(best["bytes"], large.numel() * 4 / (time.perf_counter() - start))
    for model in (TINY, SMOLLM):
        files = [load_file(file) for file in model.glob("*.safetensors")]
        best[f"weights {model.name}"] = float(sum(t.numel() for tensors in files for t in tensors.values()))
    return best


def table(name: str, results: dict[Side, dict[str, float]], rates: dict[str, float]) -> list[str]:
    """The table of one workload."""
    workload = WORKLOADS[name]
    best = min(row["step"] for side, row in results.items() if side[0] == "trl")
    best_float32 = min(row["step"] for side, row in results.items() if side[:2] == ("trl", "float32"))
    lines = [
        f"## {workload.model.name}: {workload.prompts} prompts x {workload.group} samples x {workload.tokens} "
        f"tokens, {workload.updates} update(s) per rollout",
        "",
        "| side | rollout (s) | update (s) | step (s) | rollout tokens/s | peak (GiB) | TRL's best step / this | TRL's "
        "best float32 / this | float32 floor / this |",
        "|---" * 9 + "|",
    ]
    for side, row in results.items():
        first, _, tokens = side[2].partition(" ")
        setting = f"rollouts by {first}, micro-batches of {tokens} tokens" if tokens else f"micro-batches of {first}"
        share = floor(name, row["tokens"], rates) / row["step"]
        lines.append(
            f"| {side[0]}, {side[1]}, {setting} | {row['rollout']:.3g} | {row['update']:.3g} | {row['step']:.3g} | "
            f"{row['tokens'] / row['rollout']:.0f} | {row['gib']:.2f} | {best / row['step']:.2f}x | "
            f"{best_float32 / row['step']:.2f}x | {share:.0%} |"
        )
    return [*lines, ""]


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description="Compare the speed and memory of rlx and TRL.")
    parser.add_argument("--trl", type=Path, required=True, help="python of the environment in which TRL is installed")
    parser.add_argument("--repeats", type=int, default=2, help="processes per side")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="number of threads of each process")
    parser.add_argument("--steps", type=int, help=f"rollouts per process; the first {WARM} are not counted")
    parser.add_argument("--only", help="workloads, separated by commas")
    parser.add_argument("--rates", action="store_true", help="print the machine's rates and stop")
    parser.add_argument("--out", type=Path, default=HERE / "vs_trl.md", help="file of the tables")
    arguments = parser.parse_args()
    if arguments.rates:
        print(json.dumps(measured_rates(arguments.threads)))
        return
    command = [sys.executable, __file__, "--rates", "--threads", str(arguments.threads), "--trl", str(arguments.trl)]
    rates = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    fast_bfloat16 = rates["bfloat16"] > rates["flops"]
    sides = {
        name: [side for side in candidates if fast_bfloat16 or side[1] == "float32"]
        for name, candidates in SIDES.items()
    }
    lines = [
        "# rlx compared with TRL 1.16",
        "",
        f'`make perf PERF="{" ".join(sys.argv[3:])}"`, {datetime.date.today()}, CPU ({platform.machine()}, '
        f"{os.cpu_count()} cores), {arguments.threads} threads per process, {arguments.repeats} process(es) per "
        f"side, alternating; medians over all rollouts except each process's first {WARM}, in which memory and caches "
        "fill and rlx compares its sampler's log-probs with its trainer's. Measured: "
        f"{rates['flops'] / 1e9:.0f} GFLOP/s float32 matmul, {rates['bfloat16'] / 1e9:.3g} bfloat16, "
        f"{rates['bytes'] / 1e9:.1f} GB/s. {'' if fast_bfloat16 else SLOW_BFLOAT16}rlx: `rlx train`; "
        "bfloat16 is autocast over float32 weights. TRL: GRPOTrainer, beta 0, no gradient checkpointing; autocast is "
        "its bf16 option, bfloat16 a model loaded in that type.",
        "",
    ]
    if arguments.steps:
        WORKLOADS.update({name: replace(workload, steps=arguments.steps) for name, workload in WORKLOADS.items()})
    for name in (arguments.only or ",".join(WORKLOADS)).split(","):
        results: dict[Side, list[dict[str, Any]]] = {side: [] for side in sides[name]}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(arguments.repeats):
                for side in sides[name]:
                    results[side].append(run_side(name, side, arguments.threads, Path(folder), arguments.trl))
                    print(name, side, json.dumps(results[side][-1]), flush=True)
        lines += table(name, {side: medians(runs) for side, runs in results.items()}, rates)
    text = "\n".join(lines)
    print(text)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
