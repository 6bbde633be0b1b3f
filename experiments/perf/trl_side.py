"""TRL's part of vs_trl.py: train a few steps with GRPOTrainer and print one JSON line per rollout.

vs_trl.py and same_loss.py start this script in TRL's environment (`make perf`); the settings are one JSON argument.
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

from coin import fair  # noqa: E402  (in this folder, which is not a package)


class Timed(GRPOTrainer):
    """GRPOTrainer that records the time of its rollouts and, if ``dump`` is set, saves the first rollout's tensors."""

    rollouts: list[dict[str, float]]
    dump: str | None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        start = time.perf_counter()
        output = super()._generate_and_score_completions(inputs)
        duration = time.perf_counter() - start
        tokens = float(output["completion_mask"].sum())
        self.rollouts.append({"rollout": duration, "tokens": tokens, "start": start})
        if self.dump:
            names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
            save_file({name: output[name].contiguous() for name in names}, self.dump)
            self.dump = None
        return output


class Steps(TrainerCallback):
    """Records when each update ended and what it logged."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Record the time."""
        self.ends.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Record the logged values."""
        self.logs.append(logs)


def main() -> None:
    """Train with the settings of the JSON argument."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    texts = [json.loads(line)["prompt"] for line in Path(settings["prompts_file"]).read_text().splitlines()]
    samples = settings["prompts"] * settings["group"]
    samples_per_update = samples // settings["updates"]
    micro = min(settings["micro"] or samples_per_update, samples_per_update)
    config = GRPOConfig(
        output_dir=settings["folder"], use_cpu=True, bf16=settings["dtype"] == "autocast", report_to=[],
        save_strategy="no",
        per_device_train_batch_size=micro, gradient_accumulation_steps=samples_per_update // micro,
        generation_batch_size=samples, num_generations=settings["group"], max_completion_length=settings["tokens"],
        temperature=1.0, beta=0.0, loss_type="dapo", epsilon=0.2, learning_rate=1e-6, lr_scheduler_type="constant",
        gradient_checkpointing=False, logging_steps=1, max_steps=settings["steps"] * settings["updates"],
        seed=settings["seed"],
        disable_tqdm=True, shuffle_dataset=False, max_grad_norm=1e9,
    )  # fmt: skip
    dtype = torch.bfloat16 if settings["dtype"] == "bfloat16" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(settings["model"], padding_side="left")
    steps = Steps()
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(settings["model"], dtype=dtype),
        reward_funcs=lambda completions, **_: [fair(text) for text in completions],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=tokenizer,
        callbacks=[steps],
    )
    trainer.rollouts, trainer.dump = [], settings["dump"]
    trainer.train()
    for index, rollout in enumerate(trainer.rollouts):
        last = steps.ends[(index + 1) * settings["updates"] - 1]
        step = last - rollout["start"]
        first = steps.logs[index * settings["updates"]]
        line = {
            "rollout": rollout["rollout"], "update": step - rollout["rollout"], "step": step,
            "tokens": rollout["tokens"], "loss": first["loss"], "grad_norm": first["grad_norm"],
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
