"""The inputs of an unlearning loss: labelled tokens of sequences, and constants of the model before training.

Axis letters are those of numerics/batch.py; n counts the tokens that are read, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.output_layer.statistics import label_logprobs


def declared(value: Tensor | None, need: str) -> Tensor:
    """Return ``value``, which exists if the method declared ``need``.

    Raises:
        ValueError: when it did not: undeclared inputs are not computed.
    """
    if value is None:
        raise ValueError(f"the method reads {need} without declaring it: add it to needs of @register")
    return value


@dataclass(frozen=True, slots=True)
class Reference:
    """Constants of the model before training, computed once; each exists only if the method declared it.

    Example:
        ``Reference(nll_b=torch.tensor([41.7, 12.9]))``
    """

    nll_b: Tensor | None = None
    """``ref_nll``: summed negative log-likelihood of each sequence's labels (nats)."""
    topk_nk: Tensor | None = None
    """``ref_topk``: the k entries with the largest logits, largest first."""
    argmax_n: Tensor | None = None
    """``ref_argmax``: the most likely entry."""
    label_logit_n: Tensor | None = None
    """``ref_label_logit``: raw logit of the label."""
    layer_nd: Tensor | None = None
    """``ref_layer``: hidden states after the layer ``hp.layer``."""
    hidden_nd: Tensor | None = None
    """``ref_hidden``: final hidden states; with ``head`` they give the reference's logits, a chunk at a time."""
    head: Head | None = None
    """The reference's output layer, detached; the model's own if that is frozen."""

    def distribution(self) -> tuple[Tensor, Head]:
        """Final hidden states and head, declared as ``ref_hidden``."""
        hidden_nd = declared(self.hidden_nd, "ref_hidden")
        assert self.head is not None, "ref_hidden comes with its head"
        return hidden_nd, self.head


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """Labelled tokens of b sequences, as passed to an unlearning loss.

    Example:
        ``LabelledBatch(mask_bt=torch.tensor([[True, True], [True, False]]), labels_n=torch.tensor([7, 8, 9]),
        hidden_nd=hidden, head=Head(weight))``
    """

    mask_bt: Tensor
    """True at positions that are read, bool."""
    labels_n: Tensor
    """Id of the token that each read position predicts."""
    hidden_nd: Tensor
    """Final hidden states of the read positions, differentiable."""
    head: Head
    """The model's output layer."""
    labelled_n: Tensor | None = None
    """True where a read token has a label; None if all have, as they do unless ``all_positions`` is declared."""
    sensitive_n: Tensor | None = None
    """``sensitive``: True where the label belongs to a sensitive span (end of sequence never does)."""
    layer_nd: Tensor | None = None
    """``layer``: hidden states after the layer ``hp.layer``, differentiable."""
    reference: Reference = Reference()
    alternate: LabelledBatch | None = None
    """``alternate``: the same questions with the answers that are preferred, row by row."""
    mean_row_d: Tensor | None = None
    """Mean row of the output layer if it is frozen."""

    def __post_init__(self) -> None:
        tokens = int(self.mask_bt.sum())
        if self.mask_bt.dim() != 2 or self.mask_bt.dtype != torch.bool:
            raise ValueError(f"mask_bt must be [b, t] bool, not {tuple(self.mask_bt.shape)} {self.mask_bt.dtype}")
        for name in ("labels_n", "hidden_nd", "labelled_n", "sensitive_n", "layer_nd"):
            value = getattr(self, name)
            if value is not None and len(value) != tokens:
                raise ValueError(f"{name} has {len(value)} rows, mask_bt {tokens} tokens")

    def padded(self, values_n: Tensor) -> Tensor:
        """Per-token values [n] as [b, t], 0 where masked; differentiable."""
        empty_bt = torch.zeros(self.mask_bt.shape, dtype=values_n.dtype, device=values_n.device)
        return empty_bt.masked_scatter(self.mask_bt, values_n)

    @property
    def labelled_bt(self) -> Tensor:
        """True at labelled tokens."""
        return self.mask_bt if self.labelled_n is None else self.padded(self.labelled_n)

    @property
    def sensitive_bt(self) -> Tensor:
        """True at tokens of a sensitive span."""
        return self.padded(declared(self.sensitive_n, "sensitive")) & self.labelled_bt

    @property
    def rows_b(self) -> Tensor:
        """True for sequences with a label: the mask of a per-sequence term."""
        return self.labelled_bt.any(dim=1)

    def nll(self) -> Tensor:
        """-log p(label) of every read token [n] (nats), differentiable."""
        return -label_logprobs(self.hidden_nd, self.labels_n, self.head)

    def sequence_nll(self) -> Tensor:
        """Summed -log p of each sequence's labels [b] (nats), differentiable."""
        return (self.padded(self.nll()) * self.labelled_bt).sum(dim=1)

    def dry(self) -> LabelledBatch:
        """The same masks over one-dimensional states and a vocabulary of one.

        A method called on it gives terms with the right masks and meaningless values at almost no cost, which is how
        the denominators of an optimiser step are known before its first forward.
        """
        state_n1 = torch.zeros((len(self.labels_n), 1), device=self.mask_bt.device)
        head = Head(state_n1.new_ones((1, 1)))
        zeros_n = torch.zeros_like(self.labels_n)
        rows = self.mask_bt.shape[0]
        reference = Reference(
            nll_b=state_n1.new_zeros(rows),
            topk_nk=zeros_n[:, None],
            argmax_n=zeros_n,
            label_logit_n=state_n1[:, 0],
            layer_nd=state_n1,
            hidden_nd=state_n1,
            head=head,
        )
        return replace(
            self,
            labels_n=zeros_n,
            hidden_nd=state_n1,
            head=head,
            layer_nd=state_n1,
            reference=reference,
            alternate=None if self.alternate is None else self.alternate.dry(),
            mean_row_d=None,
        )
