"""A transformers causal language model as the engine uses it: final hidden states, output layer, layers, dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rlx.engine.activation_checkpointing import enable_checkpointing
from rlx.engine.cuda.packed_attention import packed_mask
from rlx.engine.layer_configs import windows
from rlx.engine.lora import LM, adapter_weight
from rlx.errors import UserError
from rlx.numerics.collate import LONGEST_ROW, TokenBatch, TokenSequence, collate
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.packed_row import PackedLayout

T = TypeVar("T")
Reader = Callable[[Tensor, Head, TokenBatch], T]
"""What a loss reads of a micro-batch: a function of the hidden states [n, d] that predict response tokens, the output
layer and the batch."""
SCALE_KEYS = ("logit_scale", "lm_head_multiplier")
"""Names in a configuration of a factor of the logits (Cohere, Falcon H1)."""
DIVISOR_KEYS = ("logits_scaling",)
"""Names in a configuration of a divisor of the logits (Granite)."""
SOFTCAP_KEYS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names in a configuration of a soft cap of the logits (Gemma 2, RecurrentGemma, xLSTM)."""
FORWARD_ERRORS = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, NotImplementedError, AssertionError)
"""What a model's forward raises when it does not support an argument or a cache."""


class ReadableModel(nn.Module):
    """A causal language model whose forward passes final hidden states and the output layer to a reader.

    The reader runs inside forward so that sharded weights (FSDP2) are gathered while it reads them.

    Args:
        lm: the model, adapters inside or not.
        router_loss: also compute the load-balancing loss of a mixture of experts, in forward passes with gradients.
    """

    def __init__(self, lm: LM, router_loss: bool = False) -> None:
        super().__init__()
        self.lm: LM = lm
        self._with_router_loss = router_loss
        self.router_loss: Tensor | None = None
        """Load-balancing loss of the latest forward pass (a scalar); None if it is not computed."""

    def forward(self, batch: TokenBatch, read: Reader[T]) -> T:
        """``read`` of the final hidden states [n, d] at the batch's response positions."""
        layout = batch.layout
        shared: dict[str, Any] = {}
        if isinstance(layout, PackedLayout):
            shared = {"attention_mask": packed_mask(layout), "position_ids": layout.positions_bs}
        elif layout is not None:
            # Attention implementations that do not know a layout use the mask.
            shared = {"attention_mask": layout.sees_bss[:, None], "position_ids": layout.positions_bs, "layout": layout}
        if self._with_router_loss and torch.is_grad_enabled():
            shared |= {"output_router_logits": True, "attention_mask": batch.real_bs()}
        hidden_bsd, output = _forward_to_head(self.lm, input_ids=batch.input_ids_bs, **shared)
        self.router_loss = getattr(output, "aux_loss", None) if "output_router_logits" in shared else None
        return read(hidden_bsd[batch.rows_n, batch.columns_n], head_of(self.lm), batch)


def final_hidden_states(lm: LM, **inputs: Any) -> Tensor:
    """The input of the output layer [b, s, d], from the model's own forward without its logits.

    It is recorded where the model calls its output layer, so that whatever the architecture does before (final norms,
    projections, multipliers) is included.

    Raises:
        ValueError: when the model's forward does not call its output layer.
    """
    return _forward_to_head(lm, **inputs)[0]


def _forward_to_head(lm: LM, **inputs: Any) -> tuple[Tensor, Any]:
    """The input of the output layer, and the model's output with one column in place of the logits."""
    recorded: list[Tensor] = []

    def record(hidden_bsd: Tensor, *others: Any, **options: Any) -> Tensor:
        recorded.append(hidden_bsd)
        return hidden_bsd[..., :1]  # in place of [b, s, v] logits, which nobody reads

    with _forward_replaced(lm.get_output_embeddings(), record):
        output = lm(use_cache=False, **inputs)
    if not recorded:
        raise ValueError("its forward does not call its output layer")
    return recorded[-1], output


def head_of(lm: LM) -> Head:
    """The output layer: logits = scale * softcap(W h + b), with adapters on it added to W."""
    layer = lm.get_output_embeddings()
    merged_vd = adapter_weight(layer)
    scale, softcap = _logit_transform(lm)
    return Head(layer.weight if merged_vd is None else merged_vd, layer.bias, softcap, scale)


_TRANSFORMS: WeakKeyDictionary[nn.Module, tuple[float, float | None]] = WeakKeyDictionary()
"""Scale and soft cap of the logits, by model; measured at load where the configuration does not name them."""


def _logit_transform(lm: LM) -> tuple[float, float | None]:
    if lm not in _TRANSFORMS:
        _TRANSFORMS[lm] = _configured_transform(lm)
    return _TRANSFORMS[lm]


def _configured_transform(lm: LM) -> tuple[float, float | None]:
    values = vars(lm.config.get_text_config())

    def first(names: tuple[str, ...]) -> float | None:
        return next((float(values[name]) for name in names if values.get(name)), None)

    scale = first(SCALE_KEYS) or 1.0 / (first(DIVISOR_KEYS) or 1.0)
    return scale, first(SOFTCAP_KEYS)


@torch.no_grad()
def check_output_layer(lm: LM, path: str) -> None:
    """Refuse a model that is not causal, or whose logits ``Head`` cannot reproduce from its final hidden states.

    Raises:
        UserError: naming the architecture and what failed.
    """
    name = type(lm).__name__
    if lm.get_output_embeddings() is None:
        raise _unsupported(path, name, "has no output layer over the vocabulary")
    vocabulary = lm.config.get_text_config().vocab_size
    device = next(lm.parameters()).device
    ids = torch.arange(3, 43, device=device)[None] * 7 % vocabulary
    was_training = lm.training
    lm.eval()
    try:
        logits = lm(input_ids=ids, use_cache=False).logits.float()
        prefix = lm(input_ids=ids[:, :25], use_cache=False).logits.float()
        hidden = final_hidden_states(lm, input_ids=ids)
    except FORWARD_ERRORS as error:
        first_line = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        raise _unsupported(path, name, f"does not read text alone ({first_line})") from None
    finally:
        lm.train(was_training)
    tolerance = 1e-3 * (1 + logits.abs().max().item())
    change = (logits[:, :25] - prefix).abs().max().item()
    if not change <= tolerance / 10:
        raise _unsupported(path, name, f"is not causal: later tokens change the logits of earlier ones by {change:.2g}")
    for transform in (_configured_transform(lm), (1.0, None)):
        _TRANSFORMS[lm] = transform
        difference = (head_of(lm).logits(hidden) - logits).abs().max().item()
        if difference <= tolerance:
            return
    raise _unsupported(path, name, f"has logits that are not head(hidden state): they differ by {difference:.2g}")


@torch.no_grad()
def can_share_prompts(lm: LM) -> bool:
    """Whether responses that share the row of their prompt get the hidden states that they would have alone.

    This is tried on the model itself: not every architecture supports positions and a mask of the caller's (state-space
    layers see every earlier token of the row).
    """
    config = lm.config.get_text_config()
    if min(windows(config), default=LONGEST_ROW) < LONGEST_ROW:
        return False
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return False
    prompt = tuple(range(1, 5))
    sequences = [TokenSequence(prompt, tuple(range(5, 5 + n))) for n in (3, 2, 4)]
    device = next(lm.parameters()).device
    was_training = lm.training
    readable = ReadableModel(lm).eval()
    try:
        alone_nd = readable(collate(sequences).to(device), _hidden)
        shared_nd = readable(collate(sequences, shares=[3]).to(device), _hidden)
    except FORWARD_ERRORS:
        return False
    finally:
        lm.train(was_training)
    return bool((alone_nd - shared_nd).abs().max() <= 1e-3 * (1 + alone_nd.abs().max()))


def decoder_layers(lm: LM) -> nn.ModuleList:
    """The model's transformer layers, in order.

    Raises:
        UserError: when it has no list of them.
    """
    count = lm.config.get_text_config().num_hidden_layers
    for module in lm.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UserError(f"{type(lm).__name__} has no list of its {count} layers, which this method or setting needs")


def set_training_mode(lm: nn.Module, dropout: bool) -> None:
    """Put the model into training mode, with the dropout of its own config only if ``dropout`` is True.

    Without dropout the model stays in evaluation mode, except for adapters' own dropout and for modules that recompute
    activations (transformers checkpoints them in training mode only).
    """
    lm.train(dropout)
    if dropout:
        return
    for name, module in lm.named_modules():
        if "lora_dropout" in name.split("."):
            module.train()
        elif getattr(module, "gradient_checkpointing", False):
            module.training = True


def recompute_activations(lm: LM, path: str) -> None:
    """Recompute the activations of each layer in the backward pass (gradient checkpointing).

    The dropout rates of the modules that do so are set to 0, since they are always in training mode.

    Args:
        lm: the model, with adapters inside or not.
        path: the model's name in the message.

    Raises:
        UserError: when the architecture does not support it.
    """
    try:
        enable_checkpointing(lm)
    except ValueError as error:
        raise UserError(
            f"model.gradient_checkpointing is true, which {type(lm).__name__} does not support ({error})",
            fix=f"set it to false for '{path}'",
        ) from None
    for module in lm.modules():
        if hasattr(module, "gradient_checkpointing"):
            for name, value in vars(module).items():
                if "drop" in name and isinstance(value, float):
                    setattr(module, name, 0.0)


@contextmanager
def _forward_replaced(layer: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Within this context ``layer(x)`` returns ``forward(x)``."""
    previous = vars(layer).get("forward")
    vars(layer)["forward"] = forward
    try:
        yield
    finally:
        if previous is None:
            del vars(layer)["forward"]
        else:
            vars(layer)["forward"] = previous


def _hidden(hidden_nd: Tensor, head: Head, batch: TokenBatch) -> Tensor:
    return hidden_nd


def _unsupported(path: str, name: str, problem: str) -> UserError:
    hint = "rlx needs a causal language model; docs/models.md lists those that were tried"
    return UserError(f"model.path '{path}': {name} {problem}", fix=hint, exit_code=1)
