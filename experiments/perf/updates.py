"""Measure seconds and peak memory of updates, each time with one optimisation off; processes alternate; medians.

    python experiments/perf/updates.py [--model models/smollm2-135m] [--prompts 8] [--group 8] [--tokens 32]
                                       [--precision float32] [--max-tokens 1024] [--only shipped,apart]

Responses are random tokens. Their lengths are uniformly distributed up to the limit, like texts that end by themselves,
or all equal to it (``--full``). Advantages are random signs. ``LEVERS`` says what each variant turns off.
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
from rlx.engine.batch import Batch
from rlx.engine.load import load_model
from rlx.engine.model import can_share_prompts
from rlx.engine.step import Engine
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
    "apart": "rows shared by several responses: each response has its own row",
    "torch-attention": "attention by blocks over shared rows: torch's attention over whole rows with a mask",
    "recomputed": "logits kept for the backward pass: they are computed again",
    "given-back": "keeping freed memory: freed memory is returned to the system",
    "huge-pages": "nothing; sets THP_MEM_ALLOC_ENABLE=1, with which torch requests huge pages",
}


def updates(arguments: argparse.Namespace) -> None:
    """Measure one variant in this process; print the seconds per update and the peak memory (GiB) as JSON."""
    torch.set_num_threads(arguments.threads)
    if arguments.lever == "torch-attention":
        attention.SHARED_PROMPTS = attention.GROUPED
    if arguments.lever == "recomputed":
        logprobs.KEPT_ELEMENTS = 0
    if arguments.lever == "given-back":
        model.keep_freed_memory = lambda: False
    spec = Model(path=str(arguments.model), precision=arguments.precision, gradient_checkpointing=False)
    lm = load_model(str(arguments.model), spec, torch.device("cpu"))
    engine = Engine(lm, spec, Optim(), 1000, arguments.max_tokens)
    engine.share_prompts = arguments.lever != "apart" and can_share_prompts(lm)
    generator, vocabulary = torch.Generator().manual_seed(0), lm.config.vocab_size
    seconds = []
    for _ in range(arguments.updates + WARM):
        sequences = []
        for _ in range(arguments.prompts):
            prompt = tuple(torch.randint(4, vocabulary, (PROMPT,), generator=generator).tolist())
            for _ in range(arguments.group):
                random_length = int(torch.randint(1, arguments.tokens + 1, (1,), generator=generator))
                length = arguments.tokens if arguments.full else random_length
                response = torch.randint(4, vocabulary, (length,), generator=generator).tolist()
                sequences.append(TokenSequence(prompt, tuple(response)))
        counts = Counts(sum(len(s.response) for s in sequences), len(sequences), arguments.tokens)
        mini = MiniBatch(
            sequences=sequences,
            adv_b=torch.randint(0, 2, (len(sequences),), generator=generator).float() * 2 - 1,
            sampler_logprobs=[torch.zeros(len(s.response)) for s in sequences],
            old_logprobs=None,
            ref_logprobs=None,
            counts=counts,
        )
        component = get("policy", "grpo", key="algorithm.name")
        objective = PolicyObjective(Method(component, component.hyper()), Algorithm(name="grpo"), mini)
        start = time.perf_counter()
        engine.update(Batch(sequences, logprob_reader(1.0), objective, {"policy": counts, "kl": counts}))
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds[WARM:], "gib": peak}))


def main() -> None:
    """Measure each variant in alternating processes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "smollm2-135m")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8, help="responses per prompt")
    parser.add_argument("--tokens", type=int, default=32, help="maximum length of a response")
    parser.add_argument("--full", action="store_true", help="give all responses that length")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--max-tokens", type=int, default=1024, help="token budget of a micro-batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--updates", type=int, default=4, help=f"measured updates per process, after {WARM} warm-up updates"
    )
    parser.add_argument("--repeats", type=int, default=2, help="processes per variant")
    parser.add_argument("--only", default=",".join(LEVERS), help="variants, separated by commas")
    parser.add_argument("--lever", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.lever:
        updates(arguments)
        return
    results: dict[str, list[dict[str, list[float]]]] = {lever: [] for lever in arguments.only.split(",")}
    for _ in range(arguments.repeats):
        for lever, runs in results.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--lever", lever]
            environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
            if lever == "huge-pages":
                environment["THP_MEM_ALLOC_ENABLE"] = "1"
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            runs.append(json.loads(result.stdout.splitlines()[-1]))
    print(f"`{' '.join(sys.argv)}`, {datetime.date.today()}, CPU ({platform.machine()}, {os.cpu_count()} cores)\n")
    print("| turned off | median s per update | lowest | peak (GiB) |\n|---|---|---|---|")
    for lever, runs in results.items():
        seconds = [value for run in runs for value in run["seconds"]]
        peak = max(run["gib"] for run in runs)
        print(f"| {LEVERS[lever]} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {peak:.2f} |")


if __name__ == "__main__":
    main()
