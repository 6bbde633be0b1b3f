"""Hidden states in the middle of the model, read as they pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class LayerTap:
    """Keeps the output of one decoder layer of the latest forward, with its graph.

    Args:
        lm: a transformers causal language model.
        layer: number of the layer, from 0; the last one when the model has fewer.
    """

    def __init__(self, lm: Any, layer: int) -> None:
        layers: nn.ModuleList = lm.get_decoder().layers
        self.hidden_bsd: Tensor | None = None
        self._handle = layers[min(layer, len(layers) - 1)].register_forward_hook(self._keep)

    def at(self, rows_n: Tensor, columns_n: Tensor) -> Tensor:
        """Hidden states [n, d] at the given positions of the latest forward."""
        if self.hidden_bsd is None:
            raise ValueError("no forward has passed the tapped layer yet")
        return self.hidden_bsd[rows_n, columns_n]

    def close(self) -> None:
        """Stop listening."""
        self._handle.remove()

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.hidden_bsd = output[0] if isinstance(output, tuple) else output
