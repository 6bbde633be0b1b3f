"""Seconds of a training step of ``rlx train`` and of TRL's GRPOTrainer on the same workload."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from phases.harness import GPU, ROOT, SMALL, WORK, empty_folder, metrics, rlx, save, settings
from phases.models import as_llama, qwen2, random_model

PERF = ROOT / "experiments" / "perf"
GROUP, PROMPTS, TOKENS, STEPS = (4, 4, 8, 2) if SMALL else (8, 16, 256, 3)
RLX_RECORDED = ("time/rollout", "time/update", "time/step", "train/tokens", "train/reward", "optim/grad_norm")


def trl() -> None:
    """A Llama of Qwen2.5-0.5B's sizes with random weights, 16 prompts x 8 samples x 256 tokens, one update a step."""
    model, prompts = random_folder(), write_prompts()
    results: dict[str, Any] = {}
    runs = empty_folder("trl_rlx")
    ended = rlx(*rlx_arguments(model, prompts, runs), limit=85)
    results["rlx"] = ended.as_list()
    results["rlx steps"] = [
        {key.partition("/")[2]: record.get(key) for key in RLX_RECORDED} for record in metrics(runs)[1:]
    ]
    save("trl", results)
    for dtype in ("autocast", "bfloat16"):
        results[f"trl {dtype}"] = trl_steps(model, prompts, dtype)
        save("trl", results)


def random_folder() -> Path:
    """A saved random model and tokenizer, in which every token id has a text.

    Otherwise most sampled responses would be empty and get equal rewards, and rlx skips samples without an advantage,
    which TRL does not.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    folder = empty_folder("random")
    lm = random_model(as_llama(qwen2("0.5b")), torch.bfloat16)
    lm.generation_config = GenerationConfig(eos_token_id=lm.config.vocab_size - 1, pad_token_id=0)
    lm.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(lm.config.vocab_size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    last = f"w{lm.config.vocab_size - 1}"
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=last, pad_token="w0").save_pretrained(folder)
    return folder


def write_prompts() -> Path:
    """64 prompts of 6, 12, 18 and 24 tokens."""
    path = WORK / "prompts.jsonl"
    texts = [" ".join(f"w{100 + (31 * i + k) % 900}" for k in range(6 * (1 + i % 4))) for i in range(64)]
    path.write_text("".join(json.dumps({"prompt": text, "answer": "0"}) + "\n" for text in texts))
    return path


def rlx_arguments(model: Path, prompts: Path, runs: Path) -> list[str]:
    """The command line of ``rlx train``."""
    values = {
        "rollout.engine": "hf",
        "rollout.samples_per_prompt": GROUP,
        "rollout.max_new_tokens": TOKENS,
        "reward.name": f"{PERF / 'coin.py'}:coin",
        "data.chat": "never",
        "batch.prompts": PROMPTS,
        "batch.updates_per_rollout": 1,
        "evaluation.every": 0,
        "checkpoint.every": 1000,
        "tracker.mlflow": "false",
        "algorithm.params.dual_clip": "null",
        "model.gradient_checkpointing": "true",
    }
    command = ["train", "--algo", "grpo", "--model", str(model), "--data", str(prompts), "--steps", str(STEPS)]
    return [*command, "--runs-dir", str(runs), *settings(values)]


def trl_steps(model: Path, prompts: Path, dtype: str) -> Any:
    """TRL's records of its steps, or the end of its error output.

    ``trl_side.py`` compares on a CPU without recomputation: here a copy uses the GPU and recomputes activations.
    """
    text = (PERF / "trl_side.py").read_text()
    if GPU:
        text = text.replace("use_cpu=True, ", "")
    script = WORK / "trl_side.py"
    script.write_text(text.replace("gradient_checkpointing=False", "gradient_checkpointing=True"))
    shutil.copy(PERF / "coin.py", WORK / "coin.py")
    content = {
        "model": str(model),
        "dtype": dtype,
        "micro": 4 if SMALL else 16,
        "prompts_file": str(prompts),
        "folder": str(WORK / "trl_output"),
        "threads": 8,
        "seed": 0,
        "dump": None,
        "prompts": PROMPTS,
        "group": GROUP,
        "tokens": TOKENS,
        "updates": 1,
        "steps": STEPS,
    }
    command = [sys.executable, str(script), json.dumps(content)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=55)
    except subprocess.TimeoutExpired as error:
        return f"stopped after {error.timeout:.0f} s: {str(error.stderr or b'')[-400:]}"
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('{"rollout"')]
    return lines or result.stderr[-400:]
