"""Seconds and peak memory of updates alone, with one lever taken away at a time: processes taking turns, medians.

    python experiments/perf/updates.py [--model models/smollm2-135m] [--prompts 8] [--group 8] [--tokens 32]
                                       [--precision float32] [--max-tokens 1024] [--only shipped,apart]

Responses are random tokens, of random lengths up to the limit (each length alike, like texts that end by themselves) or
all as long as it (``--full``). Advantages are random signs. What each name takes away stands in ``LEVERS``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from rlx.engine import attention, model
from rlx.engine.load import load_model
from rlx.engine.model import can_share_prompts
from rlx.engine.step import Batch, Engine
from rlx.numerics.collate import TokenSequence
from rlx.numerics.output_layer import logprobs
from rlx.numerics.output_layer.response_reader import logprob_reader
from rlx.numerics.terms import Counts
from rlx.registry import Method, get
from rlx.rl.objective import MiniBatch, PolicyObjective
from rlx.specs.train import Algorithm, Model, Optim

ROOT = Path(__file__).resolve().parents[2]
PROMPT = 54
WARM = 2
LEVERS = {
    "shipped": "nothing: as rlx trains",
    "apart": "rows that several responses share: each response has its own",
    "torch-attention": "attention by blocks over shared rows: torch's, over whole rows with a mask",
    "recomputed": "logits that are kept for the backward pass: computed again",
    "given-back": "memory that is kept: what is freed goes back to the system",
    "huge-pages": "nothing; adds THP_MEM_ALLOC_ENABLE=1, with which torch asks for huge pages",
}


def updates(asked: argparse.Namespace) -> None:
    """One process: prints its seconds and its peak memory (GiB) as JSON."""
    torch.set_num_threads(asked.threads)
    if asked.lever == "torch-attention":
        attention.SHARED_PROMPTS = attention.GROUPED
    if asked.lever == "recomputed":
        logprobs.KEPT_ELEMENTS = 0
    if asked.lever == "given-back":
        model.keep_freed_memory = lambda: False
    spec = Model(path=str(asked.model), precision=asked.precision)
    lm = load_model(str(asked.model), spec, torch.device("cpu"))
    engine = Engine(lm, spec, Optim(), 1000, asked.max_tokens)
    engine.share_prompts = asked.lever != "apart" and can_share_prompts(lm)
    draw, vocabulary = torch.Generator().manual_seed(0), lm.config.vocab_size
    seconds = []
    for _ in range(asked.updates + WARM):
        sequences = []
        for _ in range(asked.prompts):
            prompt = tuple(torch.randint(4, vocabulary, (PROMPT,), generator=draw).tolist())
            for _ in range(asked.group):
                drawn = int(torch.randint(1, asked.tokens + 1, (1,), generator=draw))
                length = asked.tokens if asked.full else drawn
                response = torch.randint(4, vocabulary, (length,), generator=draw).tolist()
                sequences.append(TokenSequence(prompt, tuple(response)))
        counts = Counts(sum(len(s.response) for s in sequences), len(sequences), asked.tokens)
        mini = MiniBatch(
            sequences=sequences,
            adv_b=torch.randint(0, 2, (len(sequences),), generator=draw).float() * 2 - 1,
            sampler_logprobs=[torch.zeros(len(s.response)) for s in sequences],
            old_logprobs=None,
            ref_logprobs=None,
            counts=counts,
        )
        component = get("policy", "grpo", key="algorithm.name")
        objective = PolicyObjective(Method(component, component.hyper()), Algorithm(name="grpo"), mini)
        began = time.perf_counter()
        engine.update(Batch(sequences, logprob_reader(1.0), objective, {"policy": counts, "kl": counts}))
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds[WARM:], "gib": peak}))


def main() -> None:
    """Measure each variant in processes taking turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "smollm2-135m")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8, help="responses of each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="longest response")
    parser.add_argument("--full", action="store_true", help="all responses as long as that")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--max-tokens", type=int, default=1024, help="of a micro-batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--updates", type=int, default=4, help=f"counted of each process, behind {WARM} that are not")
    parser.add_argument("--repeats", type=int, default=2, help="processes of each variant")
    parser.add_argument("--only", default=",".join(LEVERS), help="variants, by comma")
    parser.add_argument("--lever", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.lever:
        updates(asked)
        return
    found: dict[str, list[dict[str, list[float]]]] = {lever: [] for lever in asked.only.split(",")}
    for _ in range(asked.repeats):
        for lever, runs in found.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--lever", lever]
            environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads)}
            if lever == "huge-pages":
                environment["THP_MEM_ALLOC_ENABLE"] = "1"
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"`{' '.join(sys.argv)}`, {datetime.date.today()}, CPU ({platform.machine()}, {os.cpu_count()} cores)\n")
    print("| taken away | median s an update | lowest | peak (GiB) |\n|---|---|---|---|")
    for lever, runs in found.items():
        seconds = [value for run in runs for value in run["seconds"]]
        peak = max(run["gib"] for run in runs)
        print(f"| {LEVERS[lever]} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {peak:.2f} |")


if __name__ == "__main__":
    main()
