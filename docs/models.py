"""Write docs/models.md: what rlx does with each causal architecture of transformers, tried on tiny random models.

python docs/models.py                 every architecture (about ten minutes on two cores)
python docs/models.py llama qwen3     these alone, printed and not written
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", NO_COLOR="1"
)
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402

from rlx.errors import UserError  # noqa: E402
from tests import architecture_checks as checks  # noqa: E402
from tests.tiny_models import KNOWN_FAILURES, MULTIMODAL, NOT_TINY, causal_types  # noqa: E402

COLUMNS: dict[str, tuple[Callable[[Path, Path], None], ...]] = {
    "train": (checks.check_full, checks.check_train_command),
    "LoRA": (checks.check_lora,),
    "unlearn": (checks.check_unlearn_command,),
    "eval": (checks.check_eval_command,),
}
SECONDS = 240
"""Limit of one check."""
VLLM = {"qwen3": "yes", "gemma3_text": "yes", "qwen3_moe": "yes", "llama": "yes"}
"""Architectures that `make test-vllm` synchronises with vLLM on a CPU; others are not tried."""
HEADER = f"""# Models

What rlx does with each causal language model of transformers {transformers.__version__}, tried on tiny random
models by `python docs/models.py` on a CPU (float32, torch {torch.__version__.partition("+")[0]}). **train**: the
log-probs equal those of the model's own logits to 1e-5, the sampler's equal the trainer's to 1e-4, every trainable
tensor that the output depends on is changed by an update, the saved model computes the same, and `rlx train` runs
to its end. **LoRA**: adapters on all linear layers train, and the merged model equals base and adapters to 1e-5.
**unlearn**, **eval**: `rlx unlearn` and `rlx eval` run to their end. **decoder**: how the transformers sampler
decodes; *shared prefill* reads each prompt once for all its samples, *own cache* uses the model's cache without
padding, *recompute* has no cache. **vLLM**: weights stay equal over three updates in `make test-vllm`; others have
not been tried, and the check of log-probs in each run decides.

An architecture that is not listed, or a later one, is tried when it is loaded: rlx compares its logits with the
hidden states and the output layer, checks that it is causal, and tries each decoder on it. What does not pass is
refused in one sentence before any work.

| architecture | train | LoRA | unlearn | eval | decoder | vLLM |
|---|---|---|---|---|---|---|
"""
FOOTER = """
## What a model folder may contain

| folder | what rlx does |
|---|---|
| a model in float32, bfloat16 or float16, in one file or sharded, safetensors or `.bin` | loads it in float32 |
| a LoRA adapter (PEFT), also on the hub | finds its base model and merges the adapter; `model.lora.continue: true` trains the adapter further; both fingerprints are part of the run's id |
| a vision-language model | trains the text part with the published class, freezes the other parts, and saves the same class |
| quantised weights | dequantises them if transformers can (FP8, MXFP4), else refuses the model in one sentence |
| a checkpoint that lacks a tensor, has one of another shape, or is cut off | refuses it in one sentence that names the first tensors |
| tensors that the model does not use | reports them once and loads the rest |

## Settings

| key | default | meaning |
|---|---|---|
| `model.dropout` | false | keep the dropout of the model's own config in training; with it the sampler's log-probs are not the trainer's |
| `model.save_dtype` | source | type of the saved model: that of the loaded files, or float32; checkpoints always keep float32 |
| `model.router_aux_coef` | 0 | mixture of experts: weight of the model's own load-balancing loss, averaged over micro-batches |
| `model.lora.continue` | false | train the adapter in `model.path` further instead of merging it |
| `data.chat_kwargs`, `forget.chat_kwargs` | {} | further arguments of the chat template, such as `enable_thinking: false` |

Runs of a mixture of experts log `moe/load_max` (largest load of an expert, 1 is balanced) and `moe/load_entropy` (1 is
balanced). A LoRA adapter on the output layer or the embeddings is refused if both share one weight, because it could not
be merged. Every run with adapters loads its saved model and compares it with the trained one before it ends.

A response ends with a token of the model's generation config, of the tokenizer, or of the chat template's end of turn; this
set is the same in training, unlearning and evaluation, and it is saved with the model. A chat template without a system
role gets the system prompt in the first user message, which is reported once.

## Types and rounding

Rounding the saved model to bfloat16 costs little: [experiments/reliability/save_dtype.md](../experiments/reliability/save_dtype.md)
has the KL that was measured on small models.
"""  # noqa: E501


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError when the block takes longer."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def cell(tried: tuple[Callable[[Path, Path], None], ...], folder: Path, work: Path) -> str:
    """``yes``, or the sentence with which the model is refused or fails."""
    for check in tried:
        try:
            with limited(SECONDS):
                check(folder, work)
        except UserError as error:
            return f"no: {error.what}".replace(f"model.path '{folder}': ", "")
        except Exception as error:
            return f"no: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return "yes"


def row(model_type: str) -> str:
    """One architecture's line of the table."""
    if model_type in MULTIMODAL:
        return (
            f"| {model_type} | a multimodal class: see its text part, and tests/engine/test_multimodal_checkpoints.py |"
            + " |" * 5
        )
    if model_type in NOT_TINY:
        return f"| {model_type} | not tried: no tiny random model can be made |" + " |" * 5
    with tempfile.TemporaryDirectory(prefix="rlx_models_") as name:
        work = Path(name)
        try:
            with limited(SECONDS):
                folder = checks.save_tiny(model_type, work / "model")
        except Exception as error:
            reason = " ".join(str(error).split())[:100]
            return (
                f"| {model_type} | not tried: no tiny random model could be made ({type(error).__name__}: {reason}) |"
                + " |" * 5
            )
        cells = []
        for tried in COLUMNS.values():
            cells.append(cell(tried, folder, work))
            if cells[0].startswith("no: ") and len(cells) == 1 and model_type not in KNOWN_FAILURES:
                cells += [""] * (len(COLUMNS) - 1)
                break
        decoder = checks.decoder_of(folder) if "yes" in cells else ""
        if model_type in KNOWN_FAILURES:
            cells[0] = f"no: {KNOWN_FAILURES[model_type]}"
        return "| " + " | ".join([model_type, *cells, decoder, VLLM.get(model_type, "")]) + " |"


def main() -> None:
    """Write the table, or print the lines of the named architectures."""
    named = sys.argv[1:]
    lines = []
    for model_type in named or causal_types():
        lines.append(row(model_type))
        print(lines[-1], flush=True)
    if not named:
        (ROOT / "docs" / "models.md").write_text(HEADER + "\n".join(lines) + "\n" + FOOTER, encoding="utf-8")


if __name__ == "__main__":
    main()
