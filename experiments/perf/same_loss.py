"""The same samples through TRL's GRPOTrainer and through rlx: loss and gradient norm of the first update.

    .venv-vllm/bin/python experiments/perf/same_loss.py --trl .venv-trl/bin/python [--only short]

TRL samples and takes one update; its tokens and advantages then go through rlx's engine, float32 on both sides.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import vs_trl
from safetensors.torch import load_file
from torch import Tensor

from rlx.engine.load import load_model
from rlx.engine.model import can_share_prompts
from rlx.engine.step import Batch, Engine
from rlx.numerics.collate import TokenSequence
from rlx.numerics.output_layer.response_reader import logprob_reader
from rlx.numerics.terms import Counts
from rlx.registry import Method, get
from rlx.rl.objective import MiniBatch, PolicyObjective
from rlx.specs.train import Algorithm, Model, Optim


def through_rlx(model: Path, made: dict[str, Tensor]) -> tuple[float, float]:
    """Loss and gradient norm of one update on TRL's samples."""
    prompts, responses = (
        [tuple(row[kept.bool()].tolist()) for row, kept in zip(made[f"{part}_ids"], made[f"{part}_mask"], strict=True)]
        for part in ("prompt", "completion")
    )
    sequences = [TokenSequence(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    spec = Model(path=str(model), precision="float32")
    lm = load_model(str(model), spec, torch.device("cpu"))
    engine = Engine(lm, spec, Optim(max_grad_norm=1e9), 1, 1024)
    engine.share_prompts = can_share_prompts(lm)
    component = get("policy", "grpo")
    counts = Counts(sum(map(len, responses)), len(responses))
    nothing = [torch.zeros(len(response)) for response in responses]
    mini = MiniBatch(sequences, made["advantages"], nothing, None, None, counts)
    objective = PolicyObjective(Method(component, component.hyper(dual_clip=None)), Algorithm(name="grpo"), mini)
    update = engine.update(Batch(sequences, logprob_reader(1.0), objective, {"policy": counts}))
    return update.loss, update.grad_norm


def main() -> None:
    """Compare and write the table."""
    parser = argparse.ArgumentParser(description="Compare rlx's and TRL's loss on equal samples.")
    parser.add_argument("--trl", type=Path, required=True, help="python of the environment that holds TRL")
    parser.add_argument("--only", default="tiny,short", help="workloads, by comma")
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="the table")
    arguments = parser.parse_args()
    lines = [
        "# The same samples through TRL and rlx",
        "",
        f"`python experiments/perf/same_loss.py --trl PYTHON --only {arguments.only}`, {datetime.date.today()}, CPU "
        f"({platform.machine()}), float32, seed 0.",
        "",
        "| workload | loss, TRL | loss, rlx | gradient norm, TRL | gradient norm, rlx | apart (relative) |",
        "|---|---|---|---|---|---|",
    ]
    for name in arguments.only.split(","):
        workload = replace(vs_trl.WORKLOADS[name], updates=1, steps=1)
        with tempfile.TemporaryDirectory() as folder:
            dump = Path(folder) / "samples.safetensors"
            theirs = first_update(name, workload, arguments, Path(folder), dump)
            loss, norm = through_rlx(workload.model, load_file(dump))
        apart = max(abs(loss - theirs["loss"]) / abs(theirs["loss"]), abs(norm / theirs["grad_norm"] - 1))
        lines.append(
            f"| {name} | {theirs['loss']:.7f} | {loss:.7f} | {theirs['grad_norm']:.6f} | {norm:.6f} | {apart:.1e} |"
        )
        print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def first_update(
    name: str, workload: vs_trl.Workload, arguments: argparse.Namespace, folder: Path, dump: Path
) -> dict[str, Any]:
    """TRL's first update; its samples go to ``dump``."""
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in vs_trl.prompts_of(name)))
    side = ("trl", "float32", "8")
    command = vs_trl.trl_command(workload, side, prompts, folder / "trl", arguments.threads, arguments.trl, dump)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    (line,) = (json.loads(text) for text in done.stdout.splitlines() if text.startswith('{"rollout"'))
    found: dict[str, Any] = line
    return found


if __name__ == "__main__":
    main()
