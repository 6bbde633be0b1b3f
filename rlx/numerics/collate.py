"""Sequences of unlike length to padded micro-batches, with little padding and within a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WASTE = 0.1
"""A micro-batch is closed before its share of padding passes this."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A prompt and the response that is scored or trained on.

    Example:
        ``TokenSequence(prompt=(7, 10, 8, 14), response=(9, 2))``
    """

    prompt: tuple[int, ...]
    """At least one token: the first response token is predicted from the last of these."""
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """A padded micro-batch. Padding is on the right, where causal attention never looks, so it needs no mask.

    Example:
        two sequences, prompt (5, 6) with responses (7, 8) and (9,):
        ``input_ids_bs=[[5, 6, 7, 8], [5, 6, 9, 0]], mask_bt=[[True, True], [True, False]], rows_n=[0, 0, 1],
        columns_n=[1, 2, 1], targets_n=[7, 8, 9]``
    """

    input_ids_bs: Tensor
    mask_bt: Tensor
    """True where a response token stands."""
    rows_n: Tensor
    """Sequence of each response token."""
    columns_n: Tensor
    """Position whose hidden state predicts it (its own, less one)."""
    targets_n: Tensor
    """Its id."""
    members: tuple[int, ...] = ()
    """Index of each sequence in the list that the micro-batch was cut from."""

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch on ``device``."""
        return TokenBatch(
            self.input_ids_bs.to(device),
            self.mask_bt.to(device),
            self.rows_n.to(device),
            self.columns_n.to(device),
            self.targets_n.to(device),
            self.members,
        )

    def padded(self, values_n: Tensor) -> Tensor:
        """Per-token values [n] as [b, t], 0 where masked; differentiable."""
        empty_bt = torch.zeros(self.mask_bt.shape, dtype=values_n.dtype, device=values_n.device)
        return empty_bt.masked_scatter(self.mask_bt, values_n)


def collate(sequences: Sequence[TokenSequence], pad_id: int = 0, members: Sequence[int] = ()) -> TokenBatch:
    """Pad sequences on the right; every sequence has a prompt of at least one token.

    Args:
        sequences: b sequences.
        pad_id: any valid token id; no valid position ever attends to it.
        members: see ``TokenBatch``.
    """
    longest = max(len(sequence) for sequence in sequences)
    responses = [len(sequence.response) for sequence in sequences]
    ids = [[*s.prompt, *s.response] + [pad_id] * (longest - len(s)) for s in sequences]
    mask_bt = torch.arange(max(responses))[None, :] < torch.tensor(responses)[:, None]
    rows = [row for row, length in enumerate(responses) for _ in range(length)]
    columns = [len(s.prompt) - 1 + t for s in sequences for t in range(len(s.response))]
    targets = [token for s in sequences for token in s.response]
    return TokenBatch(
        torch.tensor(ids, dtype=torch.long),
        mask_bt,
        torch.tensor(rows, dtype=torch.long),
        torch.tensor(columns, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long),
        tuple(members),
    )


def pad_rows(rows: Sequence[Tensor], width: int) -> Tensor:
    """1-d tensors as one [b, width] tensor, 0 behind each."""
    padded = torch.zeros((len(rows), width), dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of sequences cut into micro-batches, longest first.

    Each holds at most ``max_tokens`` padded tokens (a single longer sequence stands alone) and at most 10 % padding.

    Args:
        lengths: length of each sequence (tokens).
        max_tokens: budget of one micro-batch (tokens, padding counted).
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    real = 0
    for index in order:
        if batches:
            rows, longest = len(batches[-1]) + 1, lengths[batches[-1][0]]
            if rows * longest <= max_tokens and real + lengths[index] >= (1 - WASTE) * rows * longest:
                batches[-1].append(index)
                real += lengths[index]
                continue
        batches.append([index])
        real = lengths[index]
    return batches
