"""Loading a causal language model and reading hidden states at response positions."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from rlx.engine.cpu import attention
from rlx.engine.cpu.allocator import keep_freed_memory
from rlx.errors import UserError
from rlx.numerics.collate import LONGEST_ROW, TokenBatch, TokenSequence, collate
from rlx.numerics.logprobs import Head
from rlx.specs.train import Model

# Bars of weight loading would tear the live panel.
transformers_logging.disable_progress_bar()

TINY_MODEL = 4_000_000
"""Parameters below which a CPU works with one thread."""
T = TypeVar("T")
LM = Any
"""A transformers causal language model, with peft's wrapper or without; neither library is typed."""
Reader = Callable[[Tensor, Head, TokenBatch], T]
"""What a loss reads of a micro-batch: a function of the hidden states [n, d] that predict response tokens, the head
and the batch."""


class ReadableModel(nn.Module):
    """A causal language model whose forward hands hidden states and head to a reader.

    The reader runs inside forward so that sharded weights (FSDP2) are whole while it reads them.
    """

    def __init__(self, lm: LM) -> None:
        super().__init__()
        self.lm: LM = lm

    def forward(self, batch: TokenBatch, read: Reader[T]) -> T:
        """``read`` of the final hidden states [n, d] at the batch's response positions."""
        layout = batch.layout
        shared: dict[str, Any] = {}
        if layout is not None:
            # The mask is for attention that knows no layout.
            shared = {"attention_mask": layout.sees_bss[:, None], "position_ids": layout.positions_bs, "layout": layout}
        output = self.lm.get_decoder()(input_ids=batch.input_ids_bs, use_cache=False, **shared)
        hidden_bsd = output.last_hidden_state
        return read(hidden_bsd[batch.rows_n, batch.columns_n], head_of(self.lm), batch)


def head_of(lm: LM) -> Head:
    """The output layer of a transformers causal language model."""
    layer = lm.get_output_embeddings()
    config = lm.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    return Head(layer.weight, layer.bias, getattr(config, "final_logit_softcapping", None), scale)


def load_model(path: str, model: Model, device: torch.device) -> LM:
    """The model in float32 on ``device``, checked to have a head that ``Head`` reproduces.

    Raises:
        UserError: when it cannot be found or loaded.
    """
    try:
        lm: LM = AutoModelForCausalLM.from_pretrained(
            path,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            dtype=torch.float32,
            attn_implementation="sdpa",
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _not_loaded("model", path, error) from None
    lm.to(device)
    if device.type == "cpu":
        _suit_cpu(lm)
    _check_head(lm, path)
    if model.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return lm


def add_lora(lm: LM, model: Model) -> LM:
    """The model with trainable adapters inside and all else frozen (peft); unchanged without ``model.lora``."""
    if model.lora is None:
        return lm
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=model.lora.rank,
        lora_alpha=model.lora.alpha,
        lora_dropout=model.lora.dropout,
        target_modules=model.lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        adapted: nn.Module = get_peft_model(lm, config)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules {model.lora.target_modules!r} does not fit ({error})") from None
    if model.gradient_checkpointing:
        lm.enable_input_require_grads()
    return adapted


def causal_lm(model: LM) -> LM:
    """The transformers model inside peft's wrapper, adapters in place."""
    return model.get_base_model() if _has_adapters(model) else model


def without_adapters(model: LM) -> AbstractContextManager[None]:
    """Within this context a model with adapters computes what it did before training."""
    context: AbstractContextManager[None] = model.disable_adapter() if _has_adapters(model) else nullcontext()
    return context


def save_model(model: LM, tokenizer: Any, folder: Path) -> None:
    """Save for ``from_pretrained``; adapters are merged into a copy of the weights and also saved beside it."""
    if _has_adapters(model):
        model.save_pretrained(folder / "adapter")
        model.merge_adapter()
        lm = causal_lm(model)
        try:
            names = {name: name.replace(".base_layer.", ".") for name in lm.state_dict() if ".lora_" not in name}
            state = {new: lm.state_dict()[old].contiguous() for old, new in names.items()}
            type(lm)(lm.config).save_pretrained(folder, state_dict=state)
        finally:
            model.unmerge_adapter()
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_tokenizer(path: str, model: Model) -> Any:
    """The tokenizer that comes with the model.

    Raises:
        UserError: when it cannot be found or loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(
            path, revision=model.revision, trust_remote_code=model.trust_remote_code, padding_side="left"
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _not_loaded("tokenizer", path, error) from None


@dataclass(frozen=True, slots=True)
class Described:
    """What a saved model says of itself without its weights.

    Example:
        ``Described(context=8192, generation_config=GenerationConfig(eos_token_id=2))``
    """

    context: int | None
    """Longest sequence it was made for (tokens); None where it names none."""
    generation_config: GenerationConfig


def describe(path: str, model: Model) -> Described:
    """Read a model's configuration and nothing else.

    Raises:
        UserError: when it cannot be found or read.
    """
    try:
        config = AutoConfig.from_pretrained(
            path, revision=model.revision, trust_remote_code=model.trust_remote_code
        ).get_text_config()
        try:
            generation = GenerationConfig.from_pretrained(path, revision=model.revision)
        except OSError:
            generation = GenerationConfig.from_model_config(config)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _not_loaded("configuration", path, error) from None
    return Described(getattr(config, "max_position_embeddings", None), generation)


def stop_ids(lm: LM, tokenizer: Any) -> tuple[int, ...]:
    """Token ids that end a response: the generation config's and the tokenizer's."""
    config: GenerationConfig | None = getattr(lm, "generation_config", None)
    found: set[int] = set()
    for value in (config.eos_token_id if config else None, tokenizer.eos_token_id):
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    if not found:
        raise UserError(
            "the model names no end-of-sequence token", fix="set eos_token_id in its generation_config.json"
        )
    return tuple(sorted(found))


def _suit_cpu(lm: LM) -> None:
    """One thread for a tiny model, unless OMP_NUM_THREADS says otherwise; memory that is kept for a larger one.

    A tiny model's operations are too short to share, and threads that wait for each other on a busy machine cost
    seconds a step: 100 steps of the embedded task took 245 s with two threads beside other work, 44 to 62 s with one.
    Only a larger one gains from attention that knows shared rows.
    """
    if sum(parameter.numel() for parameter in lm.parameters()) >= TINY_MODEL:
        keep_freed_memory()
        lm.set_attn_implementation(attention.NAME)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


@torch.no_grad()
def _check_head(lm: LM, path: str) -> None:
    """Compare our head on hidden states with the model's own logits, once: some architectures do more than W h."""
    ids = torch.arange(1, 9, device=next(lm.parameters()).device)[None] % lm.config.get_text_config().vocab_size
    was_training = lm.training
    lm.eval()
    ours = head_of(lm).logits(lm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    theirs = lm(input_ids=ids, use_cache=False).logits.float()
    lm.train(was_training)
    apart = (ours - theirs).abs().max().item()
    if not apart <= 1e-3 * (1 + theirs.abs().max().item()):
        raise UserError(
            f"model.path '{path}': its logits are not head(hidden state) (they part by {apart:.2g})",
            fix="this architecture's output layer is not supported",
            exit_code=1,
        )


@torch.no_grad()
def can_share_prompts(lm: LM) -> bool:
    """Whether responses that share their prompt's row get the hidden states that they would have alone.

    Tried on the model itself: not every architecture takes positions and a mask of its own (state-space layers, for
    one, see whatever stands before them).
    """
    config = lm.config.get_text_config()
    if (getattr(config, "sliding_window", None) or LONGEST_ROW) < LONGEST_ROW:
        return False
    prompt = tuple(range(1, 5))
    sequences = [TokenSequence(prompt, tuple(range(5, 5 + n))) for n in (3, 2, 4)]
    device = next(lm.parameters()).device
    was_training = lm.training
    readable = ReadableModel(lm).eval()
    try:
        alone_nd = readable(collate(sequences).to(device), _hidden)
        shared_nd = readable(collate(sequences, shares=[3]).to(device), _hidden)
    except (TypeError, ValueError, RuntimeError, IndexError):  # whatever a forward that knows no such mask raises
        return False
    finally:
        lm.train(was_training)
    return bool((alone_nd - shared_nd).abs().max() <= 1e-3 * (1 + alone_nd.abs().max()))


def _hidden(hidden_nd: Tensor, head: Head, batch: TokenBatch) -> Tensor:
    return hidden_nd


def _has_adapters(model: LM) -> bool:
    return hasattr(model, "disable_adapter")


def _not_loaded(what: str, path: str, error: Exception) -> UserError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    hint = (
        "its files are incomplete or of another kind"
        if Path(path).exists()
        else "give a folder with a saved model, or a hub id (with network access and, where needed, a token)"
    )
    return UserError(f"model.path '{path}': the {what} does not load ({first_line})", fix=hint, exit_code=1)
