"""Loading models and tokenizers: published classes, adapters, quantised weights, and what is refused."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING
from transformers.utils import logging as transformers_logging
from transformers.utils.peft_utils import find_adapter_config_file

from rlx.console import warn_once
from rlx.engine.device import narrow_frozen_weights, optimize_for_device
from rlx.engine.lora import LM, add_lora, without_peft_warning
from rlx.engine.model import check_output_layer, recompute_activations, set_training_mode
from rlx.errors import UserError
from rlx.runs.integrity import verified
from rlx.specs.model_source import adapter_base
from rlx.specs.train import Model

# transformers' progress bars of weight loading would break the live panel.
transformers_logging.disable_progress_bar()

LOADING_ERRORS = (
    OSError,
    ValueError,
    ImportError,
    KeyError,
    RuntimeError,
    AttributeError,
    EOFError,
    SafetensorError,
    pickle.UnpicklingError,
)
"""What transformers and its readers raise for files that are missing, cut off, or of another format."""
TRUST_HINT = "trust_remote_code=True"
"""Part of the message of transformers for a model that comes with code."""
SHOWN = 3
"""Names of tensors in a message."""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a saved model's files say without its weights.

    Example:
        ``ModelDescription(context=8192, vocabulary=49152, generation_config=GenerationConfig(eos_token_id=2))``
    """

    context: int | None
    """Longest sequence that the model was made for (tokens); None if its configuration names none."""
    vocabulary: int
    """Rows of the embedding."""
    generation_config: GenerationConfig


def load_model(path: str, model: Model, device: torch.device, merge: bool = True) -> LM:
    """The model in float32 on ``device``, in evaluation mode, checked to be causal and to have an output layer we know.

    Args:
        path: a folder or hub id of a model, or of a LoRA adapter, whose base is then loaded.
        model: the spec's model section.
        device: where the weights go.
        merge: add an adapter's weights to its base; False returns the base alone.

    Raises:
        UserError: when it cannot be found or loaded, lacks weights, or is no causal language model.
    """
    base = base_path(path, model)
    with verified(Path(path)):
        lm = _loaded(base, model)
        if base != path and merge:
            lm = _with_merged_adapter(lm, path, model)
    lm.to(device)
    freeze_other_modalities(lm)
    optimize_for_device(lm, device)
    check_output_layer(lm, path)
    if model.gradient_checkpointing is True:
        recompute_activations(lm, path)
    if model.router_aux_coef > 0 and "output_router_logits" not in inspect.signature(type(lm).forward).parameters:
        raise UserError(
            f"model.router_aux_coef is {model.router_aux_coef}, but {type(lm).__name__} has no load-balancing loss",
            fix="set model.router_aux_coef=0",
        )
    set_training_mode(lm, model.dropout)
    return lm.eval()


def load_frozen(path: str, model: Model, device: torch.device) -> LM:
    """The model as ``load_model`` gives it, for computing without training it.

    Raises:
        UserError: see ``load_model``.
    """
    lm = load_model(path, model, device).requires_grad_(False)
    narrow_frozen_weights(lm, model.precision)
    return lm


def load_trainable(path: str, model: Model, device: torch.device) -> LM:
    """The model as training starts from it: with new adapters, with the adapter of ``path``, or without adapters.

    Raises:
        UserError: see ``load_model`` and ``add_lora``.
    """
    lora = model.lora
    continued = lora is not None and lora.continue_adapter
    if continued and base_path(path, model) == path:
        raise UserError(
            f"model.lora.continue is true, but model.path '{path}' is no LoRA adapter",
            fix="give an adapter's folder or hub id, or leave continue out to train a new adapter",
        )
    trained = add_lora(load_model(path, model, device, merge=not continued), model, path if continued else None)
    if lora is not None:
        narrow_frozen_weights(trained, model.precision)
    return trained


def base_path(path: str, model: Model) -> str:
    """The folder or hub id of the base if ``path`` is a LoRA adapter, else ``path``.

    Raises:
        UserError: when the adapter names no base that can be found.
    """
    if Path(path).is_dir():
        return adapter_base(Path(path)) or path
    try:
        config_file = find_adapter_config_file(path, revision=model.revision)
    except LOADING_ERRORS:  # offline, or no such repository: loading the model itself gives the reason
        return path
    return path if config_file is None else adapter_base(Path(config_file).parent) or path


def load_tokenizer(path: str, model: Model) -> Any:
    """The tokenizer that comes with the model, or with its base if an adapter has none.

    Raises:
        UserError: when it cannot be found or loaded.
    """
    sources = dict.fromkeys((path, base_path(path, model)))
    for source in sources:
        try:
            return AutoTokenizer.from_pretrained(
                source,
                revision=model.revision if source == path else None,
                trust_remote_code=model.trust_remote_code,
                padding_side="left",
            )
        except LOADING_ERRORS as error:
            failure = not_loaded("tokenizer", path, error)
    raise failure


def describe_model(path: str, model: Model) -> ModelDescription:
    """Read a model's configuration and nothing else.

    Raises:
        UserError: when it cannot be found or read.
    """
    base = base_path(path, model)
    revision = model.revision if base == path else None
    try:
        config = AutoConfig.from_pretrained(base, revision=revision, trust_remote_code=model.trust_remote_code)
        try:
            generation = GenerationConfig.from_pretrained(base, revision=revision)
        except OSError:
            generation = GenerationConfig.from_model_config(config.get_text_config())
    except LOADING_ERRORS as error:
        raise not_loaded("configuration", path, error) from None
    text = config.get_text_config()
    return ModelDescription(getattr(text, "max_position_embeddings", None), text.vocab_size, generation)


def _loaded(path: str, model: Model) -> LM:
    """The model of one folder or hub id, on the CPU in float32, every weight from its files."""
    options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(path, **options)
        _refuse_kernels(config, path, model)
        source_dtype = config.get_text_config().dtype or config.dtype
        loader = _with_fallback(causal_class(config, model).from_pretrained)
        options = options | _dequantized(config, path)
        with _quiet_transformers():
            lm, report = loader(
                path, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        if hasattr(config, "quantization_config"):
            lm = _without_quantizer(lm)
    except LOADING_ERRORS as error:
        raise not_loaded("model", path, error) from None
    _check_weights(path, report)
    _repair_generation_config(lm)
    lm.float()
    lm.config.dtype = source_dtype  # the type of the files, which the saved model gets too
    return lm


def _refuse_kernels(config: Any, path: str, model: Model) -> None:
    """Refuse attention code of a hub repository that a model's configuration names, unless its code is trusted.

    Raises:
        UserError: naming the repository.
    """
    name = str(getattr(config, "_attn_implementation", None) or "")
    if "/" in name and not model.trust_remote_code:
        raise UserError(
            f"model.path '{path}': its config.json names attention code of the hub ({name}), which would be executed",
            fix="remove attn_implementation from it, or set model.trust_remote_code=true",
            exit_code=1,
        )


def causal_class(config: Any, model: Model) -> Any:
    """The class that the model was published as, else transformers' ``AutoModelForCausalLM``.

    Raises:
        ValueError: when the architecture is no causal language model of transformers.
    """
    if model.trust_remote_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return AutoModelForCausalLM
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{config.model_type} is an encoder-decoder, and rlx trains decoders")
    for name in config.architectures or []:
        published: Any = getattr(transformers, name, None)
        if published is not None and hasattr(published, "can_generate") and published.can_generate():
            return published
    return AutoModelForCausalLM


def _with_fallback(from_pretrained: Callable[..., Any]) -> Callable[..., Any]:
    """``from_pretrained`` with the architecture's default attention: sdpa where it supports that, else eager."""

    def load(path: str, **options: Any) -> Any:
        try:
            return from_pretrained(path, **options)
        except (ValueError, ImportError) as error:
            if "attention" not in str(error) and "attn" not in str(error):
                raise
            return from_pretrained(path, attn_implementation="eager", **options)

    return load


def _dequantized(config: Any, path: str) -> dict[str, Any]:
    """Arguments that make transformers load quantised weights as plain ones, where its format has that.

    Raises:
        UserError: for a format without.
    """
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        return {}
    settings = quantization if isinstance(quantization, dict) else quantization.to_dict()
    kind = AUTO_QUANTIZATION_CONFIG_MAPPING.get(settings.get("quant_method", ""))
    if kind is not None and "dequantize" in kind.__init__.__code__.co_varnames:
        accepted = {k: v for k, v in settings.items() if k in kind.__init__.__code__.co_varnames}
        return {"quantization_config": kind(**{**accepted, "dequantize": True})}
    return {}


def _without_quantizer(lm: LM) -> LM:
    """The model with plain weights, and a configuration that says so."""
    quantizer = getattr(lm, "hf_quantizer", None)
    if quantizer is not None and any(not p.is_floating_point() for p in lm.parameters()):
        lm = lm.dequantize()
    lm.hf_quantizer = None
    lm.is_quantized = False
    if hasattr(lm.config, "quantization_config"):
        del lm.config.quantization_config
    return lm


def _check_weights(path: str, report: Any) -> None:
    """Refuse a checkpoint that lacks weights; report once those that the model does not use.

    Raises:
        UserError: naming the first tensors.
    """
    missing, mismatched = sorted(report["missing_keys"]), sorted(key for key, *_ in report["mismatched_keys"])
    for problem, names in (("lacks", missing), ("has another shape for", mismatched)):
        if names:
            raise UserError(
                f"model.path '{path}': the checkpoint {problem} {_listed(names)}, which would start from random values",
                fix="give a complete checkpoint of this architecture",
                exit_code=1,
            )
    unexpected = sorted(report["unexpected_keys"])
    if unexpected:
        warn_once(f"{path}: the checkpoint's {_listed(unexpected)} belong to no part of the model and are not loaded")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({', '.join(names[:SHOWN])}{more})"


def _with_merged_adapter(lm: LM, path: str, model: Model) -> LM:
    from peft import PeftModel

    try:
        with _quiet_transformers(), without_peft_warning():
            merged: LM = PeftModel.from_pretrained(lm, path, revision=model.revision).merge_and_unload()
    except LOADING_ERRORS as error:
        raise not_loaded("adapter", path, error) from None
    merged.requires_grad_(True)  # peft has frozen the base
    return merged


def _repair_generation_config(lm: LM) -> None:
    """Drop sampling settings that contradict ``do_sample: false``: transformers loads but never saves such a config."""
    config = getattr(lm, "generation_config", None)
    if config is None:
        return
    try:
        config.validate(strict=True)
    except ValueError:
        for name in ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"):
            if hasattr(config, name):
                setattr(config, name, None)
        warn_once(
            "the model's generation_config.json has sampling settings that contradict do_sample=false; the saved "
            "model will not have them (rlx samples with the spec's own settings)"
        )


def freeze_other_modalities(lm: LM) -> None:
    """Freeze the parts of a multimodal model that text does not reach: encoders of images and sound, projectors."""
    if lm.config.get_text_config() is lm.config:
        return
    parts = (lm.get_decoder(), lm.get_input_embeddings(), lm.get_output_embeddings())
    text = {id(parameter) for part in parts if part is not None for parameter in part.parameters()}
    for parameter in lm.parameters():
        if id(parameter) not in text:
            parameter.requires_grad_(False)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Within this context transformers prints no table of its own about weights; ours says it in one sentence."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def not_loaded(part: str, path: str, error: Exception) -> UserError:
    """The error sentence for a part of a saved model (model, tokenizer, configuration) that does not load."""
    if isinstance(error, UserError):
        return error
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if TRUST_HINT in str(error):
        first_line = "it comes with Python code, which would be executed"
        hint = "read that code and add --trust (rlx eval) or --set model.trust_remote_code=true"
        return UserError(f"model.path '{path}': the {part} does not load: {first_line}", fix=hint, exit_code=1)
    hint = (
        "its files are incomplete or of another kind"
        if Path(path).exists()
        else "give a folder with a saved model, or a hub id (with network access and, where needed, a token)"
    )
    return UserError(f"model.path '{path}': the {part} does not load ({first_line[:300]})", fix=hint, exit_code=1)
