"""Hidden states of an inner layer, recorded by a forward hook."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rlx.engine.model import decoder_layers


class HiddenStateHook:
    """Records the output of one layer in the latest forward pass, with its graph.

    Args:
        lm: a transformers causal language model.
        layer: index of the layer, from 0; the last layer if the model has fewer.
    """

    def __init__(self, lm: Any, layer: int) -> None:
        layers = decoder_layers(lm)
        self.hidden_bsd: Tensor | None = None
        self._handle = layers[min(layer, len(layers) - 1)].register_forward_hook(self._record)

    def at(self, rows_n: Tensor, columns_n: Tensor) -> Tensor:
        """Hidden states [n, d] at the given positions of the latest forward pass."""
        if self.hidden_bsd is None:
            raise ValueError("the hooked layer has not run a forward pass yet")
        return self.hidden_bsd[rows_n, columns_n]

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    def _record(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.hidden_bsd = output[0] if isinstance(output, tuple) else output
