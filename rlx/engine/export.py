"""Writing the trained model in a form that ``from_pretrained`` loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from rlx.engine.load import load_model
from rlx.engine.lora import LM, base_name, causal_lm, has_adapters, merged_weights
from rlx.engine.step import Engine
from rlx.errors import UserError, reason
from rlx.runs.folder import RunDir
from rlx.runs.integrity import write_manifest

SaveDtype = Literal["source", "float32"]
MERGE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
"""Largest difference of a log-prob (nats) between the trained model with adapters and its saved, merged copy, by the
copy's type; rounding to bfloat16 moves single log-probs of small models by a tenth of a nat."""


def save_model(model: LM, tokenizer: Any, folder: Path, save_dtype: SaveDtype = "source") -> None:
    """Write a model for ``from_pretrained``; adapters are added to the weights and also saved on their own.

    Args:
        model: with adapters or without.
        tokenizer: saved in the same folder.
        folder: where to write.
        save_dtype: ``source`` is the type of the files that the model was loaded from.
    """
    lm = causal_lm(model)
    source = _torch_dtype(lm.config.dtype)
    dtype = torch.float32 if save_dtype == "float32" else source
    if has_adapters(model):
        model.save_pretrained(folder / "adapter")
    lm.save_pretrained(folder, state_dict=_state_to_save(lm, dtype))
    lm.config.dtype = source  # save_pretrained has replaced it by that of the master weights
    _write_dtype(folder / "config.json", dtype)
    tokenizer.save_pretrained(folder)


def save_trained(engine: Engine, tokenizer: Any, folder: RunDir) -> None:
    """Write the trained model to the run's model folder, complete or not at all.

    A model with adapters is loaded again and compared with the trained one before it gets its final name.

    Raises:
        UserError: when it cannot be written, or the merged model computes something else than the trained one.
    """
    gathered = engine.gathered_model()
    if engine.rank == 0:
        temporary = folder.model.with_name(".model")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            save_model(gathered, tokenizer, temporary, engine.spec.save_dtype)
            if has_adapters(gathered):
                _compare_merged(gathered, temporary, engine)
            write_manifest(temporary)
            shutil.rmtree(folder.model, ignore_errors=True)
            temporary.rename(folder.model)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"the model cannot be written to {folder.model} ({reason(error)})",
                fix="free some space and run the same command again: it continues from the last checkpoint",
                exit_code=1,
            ) from None
    engine.accelerator.wait_for_everyone()


def keep_stop_ids(lm: LM, stops: Sequence[int]) -> None:
    """Write the stop ids of training into the generation config that is saved with the model."""
    configured = lm.generation_config.eos_token_id
    if {*(configured if isinstance(configured, list) else [configured])} != {*stops}:
        lm.generation_config.eos_token_id = list(stops)


def check_savable(lm: LM, tokenizer: Any) -> None:
    """Write everything but the weights to a temporary folder, so that a run that cannot be saved never starts.

    Raises:
        UserError: naming the part that transformers refuses to write.
    """
    parts = {"config": lm.config, "generation_config": lm.generation_config, "tokenizer": tokenizer}
    with TemporaryDirectory(prefix="rlx_save_") as folder:
        for name, part in parts.items():
            try:
                part.save_pretrained(folder)
            except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
                raise UserError(
                    f"the model's {name} cannot be saved ({str(error).strip().splitlines()[0]})",
                    fix="correct it in the model's folder; nothing has been trained",
                    exit_code=1,
                ) from None


def _state_to_save(lm: LM, dtype: torch.dtype) -> dict[str, Tensor]:
    """Merged weights and buffers by name; floating-point tensors in ``dtype`` unless the architecture keeps float32."""
    state = dict(merged_weights(lm))
    names = {base_name(name) for name in lm.state_dict() if ".lora_" not in name}
    state |= {base_name(name): buffer for name, buffer in lm.named_buffers() if base_name(name) in names}
    in_float32 = {*(lm._keep_in_fp32_modules or ()), *(lm._keep_in_fp32_modules_strict or ())}

    def saved(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or any(part in name.split(".") for part in in_float32):
            return tensor.contiguous()
        return tensor.to(dtype).contiguous()

    return {name: saved(name, tensor) for name, tensor in state.items()}


def _torch_dtype(dtype: Any) -> torch.dtype:
    """A configuration's dtype, which may be absent, a name or a torch dtype."""
    resolved_dtype: torch.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
    return resolved_dtype


def _write_dtype(config_file: Path, dtype: torch.dtype) -> None:
    """Name the type of the saved weights in the saved configuration."""
    content = json.loads(config_file.read_text(encoding="utf-8"))
    for section in (content, *(part for part in content.values() if isinstance(part, dict))):
        if "dtype" in section:
            section["dtype"] = str(dtype).removeprefix("torch.")
    config_file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@torch.no_grad()
def _compare_merged(model: LM, folder: Path, engine: Engine) -> None:
    """Compare log-probs of the saved model with those of the trained one, adapters active.

    Raises:
        UserError: when they differ by more than rounding.
    """
    lm = causal_lm(model)
    device = next(lm.parameters()).device
    vocabulary = lm.config.get_text_config().vocab_size
    ids = torch.arange(3, 35, device=device)[None] * 7 % vocabulary
    training = lm.training
    model.eval()
    expected = torch.log_softmax(lm(input_ids=ids, use_cache=False).logits.float(), dim=-1)
    model.train(training)
    spec = engine.spec.model_copy(update={"revision": None, "gradient_checkpointing": False})
    saved = load_model(str(folder), spec, device)
    actual = torch.log_softmax(saved(input_ids=ids, use_cache=False).logits.float(), dim=-1)
    difference = (actual - expected).abs().max().item()
    dtype = torch.float32 if spec.save_dtype == "float32" else _torch_dtype(lm.config.dtype)
    if not difference <= MERGE_TOLERANCE[dtype]:
        raise UserError(
            f"the merged model's log-probs differ from those of base and adapters by up to {difference:.2g} nats",
            fix=f"use the adapter in {folder / 'adapter'} on its base; architecture {type(lm).__name__}",
            exit_code=1,
        )
