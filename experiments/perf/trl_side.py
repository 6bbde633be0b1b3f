"""TRL's side of vs_trl.py: trains a few steps with GRPOTrainer and prints one JSON line a rollout.

Runs in the environment of `make perf`, never by itself; its settings come as one JSON argument.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from coin import fair  # noqa: E402  (beside this file, outside any package)


class Timed(GRPOTrainer):
    """GRPOTrainer that keeps the time of its rollouts and, if asked, the first rollout's tensors."""

    rollouts: list[dict[str, float]]
    dump: str | None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        began = time.perf_counter()
        made = super()._generate_and_score_completions(inputs)
        took = time.perf_counter() - began
        self.rollouts.append({"rollout": took, "tokens": float(made["completion_mask"].sum()), "began": began})
        if self.dump:
            names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
            save_file({name: made[name].contiguous() for name in names}, self.dump)
            self.dump = None
        return made


class Steps(TrainerCallback):
    """When each update ended, and what it logged."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Keep the time."""
        self.ends.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Keep what was logged."""
        self.logs.append(logs)


def main() -> None:
    """Train as the JSON argument says."""
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    torch.manual_seed(given["seed"])
    texts = [json.loads(line)["prompt"] for line in Path(given["prompts_file"]).read_text().splitlines()]
    samples = given["prompts"] * given["group"]
    an_update = samples // given["updates"]
    micro = min(given["micro"] or an_update, an_update)
    config = GRPOConfig(
        output_dir=given["folder"], use_cpu=True, bf16=given["dtype"] == "autocast", report_to=[], save_strategy="no",
        per_device_train_batch_size=micro, gradient_accumulation_steps=an_update // micro,
        generation_batch_size=samples, num_generations=given["group"], max_completion_length=given["tokens"],
        temperature=1.0, beta=0.0, loss_type="dapo", epsilon=0.2, learning_rate=1e-6, lr_scheduler_type="constant",
        gradient_checkpointing=False, logging_steps=1, max_steps=given["steps"] * given["updates"], seed=given["seed"],
        disable_tqdm=True, shuffle_dataset=False, max_grad_norm=1e9,
    )  # fmt: skip
    dtype = torch.bfloat16 if given["dtype"] == "bfloat16" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(given["model"], padding_side="left")
    steps = Steps()
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(given["model"], dtype=dtype),
        reward_funcs=lambda completions, **_: [fair(text) for text in completions],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=tokenizer,
        callbacks=[steps],
    )
    trainer.rollouts, trainer.dump = [], given["dump"]
    trainer.train()
    for number, rollout in enumerate(trainer.rollouts):
        last = steps.ends[(number + 1) * given["updates"] - 1]
        whole = last - rollout["began"]
        first = steps.logs[number * given["updates"]]
        line = {
            "rollout": rollout["rollout"], "update": whole - rollout["rollout"], "step": whole,
            "tokens": rollout["tokens"], "loss": first["loss"], "grad_norm": first["grad_norm"],
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
