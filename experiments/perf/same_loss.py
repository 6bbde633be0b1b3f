"""Compare loss and gradient norm of the first update of TRL's GRPOTrainer and of rlx on the same samples.

    .venv-vllm/bin/python experiments/perf/same_loss.py --trl .venv-trl/bin/python [--only short]

TRL samples and does one update; rlx's engine then does the update on the same tokens and advantages, both in float32.
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

from rlx.engine.batch import Batch
from rlx.engine.load import load_model
from rlx.engine.model import can_share_prompts
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenSequence
from rlx.numerics.output_layer.response_reader import logprob_reader
from rlx.numerics.terms import Counts
from rlx.registry import Method, get
from rlx.rl.objective import MiniBatch, PolicyObjective
from rlx.specs.train import Algorithm, Model, Optim


def through_rlx(model: Path, samples: dict[str, Tensor]) -> tuple[float, float]:
    """Loss and gradient norm of one update by rlx on TRL's samples."""
    prompts, responses = (
        [
            tuple(row[mask.bool()].tolist())
            for row, mask in zip(samples[f"{part}_ids"], samples[f"{part}_mask"], strict=True)
        ]
        for part in ("prompt", "completion")
    )
    sequences = [TokenSequence(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    spec = Model(path=str(model), precision="float32")
    lm = load_model(str(model), spec, torch.device("cpu"))
    engine = Engine(lm, spec, Optim(max_grad_norm=1e9), 1, 1024)
    engine.share_prompts = can_share_prompts(lm)
    component = get("policy", "grpo")
    counts = Counts(sum(map(len, responses)), len(responses))
    sampler_logprobs = [torch.zeros(len(response)) for response in responses]
    mini = MiniBatch(sequences, samples["advantages"], sampler_logprobs, None, None, counts)
    objective = PolicyObjective(Method(component, component.hyper(dual_clip=None)), Algorithm(name="grpo"), mini)
    update = engine.update(Batch(sequences, logprob_reader(1.0), objective, {"policy": counts}))
    return update.loss, update.grad_norm


def main() -> None:
    """Compare the two and write the table."""
    parser = argparse.ArgumentParser(description="Compare rlx's and TRL's loss on equal samples.")
    parser.add_argument("--trl", type=Path, required=True, help="python of the environment in which TRL is installed")
    parser.add_argument("--only", default="tiny,short", help="workloads, separated by commas")
    parser.add_argument("--threads", type=int, default=2, help="number of threads of each process")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="file of the table")
    arguments = parser.parse_args()
    lines = [
        "# Loss and gradient of TRL and rlx on the same samples",
        "",
        f"`python experiments/perf/same_loss.py --trl PYTHON --only {arguments.only}`, {datetime.date.today()}, CPU "
        f"({platform.machine()}), float32, seed 0.",
        "",
        "| workload | loss, TRL | loss, rlx | gradient norm, TRL | gradient norm, rlx | difference (relative) |",
        "|---|---|---|---|---|---|",
    ]
    for name in arguments.only.split(","):
        workload = replace(vs_trl.WORKLOADS[name], updates=1, steps=1)
        with tempfile.TemporaryDirectory() as folder:
            dump = Path(folder) / "samples.safetensors"
            trl = first_update(name, workload, arguments, Path(folder), dump)
            loss, norm = through_rlx(workload.model, load_file(dump))
        difference = max(abs(loss - trl["loss"]) / abs(trl["loss"]), abs(norm / trl["grad_norm"] - 1))
        lines.append(
            f"| {name} | {trl['loss']:.7f} | {loss:.7f} | {trl['grad_norm']:.6f} | {norm:.6f} | {difference:.1e} |"
        )
        print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def first_update(
    name: str, workload: vs_trl.Workload, arguments: argparse.Namespace, folder: Path, dump: Path
) -> dict[str, Any]:
    """Loss and gradient norm of TRL's first update; its samples are written to ``dump``."""
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in vs_trl.prompts_of(name)))
    side = ("trl", "float32", "8")
    command = vs_trl.trl_command(workload, side, prompts, folder / "trl", arguments.threads, arguments.trl, dump)
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    (line,) = (json.loads(text) for text in result.stdout.splitlines() if text.startswith('{"rollout"'))
    update: dict[str, Any] = line
    return update


if __name__ == "__main__":
    main()
