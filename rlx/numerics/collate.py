"""Collation of sequences of different lengths into padded micro-batches within a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from rlx.numerics.shared_rows import Layout, lay_out

WASTE = 0.1
"""Largest fraction of padding in a micro-batch."""
WORTH = 0.15
"""Responses share their prompt's row if that saves at least this fraction of the tokens; the layout costs time."""
LONGEST_ROW = 1024
"""Largest number of tokens of a shared row: the cost of masked attention grows with its square."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A prompt and the response that is scored or trained on.

    Example:
        ``TokenSequence(prompt=(7, 10, 8, 14), response=(9, 2))``
    """

    prompt: tuple[int, ...]
    """At least one token: the first response token is predicted from the last of these."""
    response: tuple[int, ...]

    @property
    def tail(self) -> tuple[int, ...]:
        """The response tokens from which another one is predicted: all but the last, which is no input."""
        return self.response[:-1]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """A padded micro-batch. Padding is on the right, so that causal attention never sees it and needs no mask.

    A row holds one prompt with its response, or with several responses that do not see each other.

    Example:
        two sequences, prompt (5, 6) with responses (7, 8) and (9,):
        ``input_ids_bs=[[5, 6, 7], [5, 6, 0]], mask_bt=[[True, True], [True, False]], rows_n=[0, 0, 1],
        columns_n=[1, 2, 1], targets_n=[7, 8, 9]``
    """

    input_ids_bs: Tensor
    mask_bt: Tensor
    """True at response tokens."""
    rows_n: Tensor
    """Row of each response token."""
    columns_n: Tensor
    """Column of the hidden state that predicts each response token: that of the token before it."""
    targets_n: Tensor
    """Id of each response token."""
    members: tuple[int, ...] = ()
    """Index of each sequence in the list from which the micro-batch was taken."""
    layout: Layout | None = None
    """Layout of rows with several responses; None if every row is one sequence."""

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch on ``device``."""
        return TokenBatch(
            self.input_ids_bs.to(device),
            self.mask_bt.to(device),
            self.rows_n.to(device),
            self.columns_n.to(device),
            self.targets_n.to(device),
            self.members,
            self.layout.to(device) if self.layout else None,
        )

    def real_bs(self) -> Tensor:
        """1 at tokens and 0 at padding, for rows of one sequence each [b, s]."""
        lengths_b = torch.zeros(len(self.input_ids_bs), dtype=torch.long, device=self.rows_n.device)
        lengths_b = lengths_b.scatter_reduce(0, self.rows_n, self.columns_n + 1, "amax")
        return (torch.arange(self.input_ids_bs.shape[1], device=lengths_b.device) < lengths_b[:, None]).long()

    def padded(self, values_n: Tensor) -> Tensor:
        """Per-token values [n] as [b, t], 0 where masked; differentiable."""
        empty_bt = torch.zeros(self.mask_bt.shape, dtype=values_n.dtype, device=values_n.device)
        return empty_bt.masked_scatter(self.mask_bt, values_n)


def collate(
    sequences: Sequence[TokenSequence], pad_id: int = 0, members: Sequence[int] = (), shares: Sequence[int] = ()
) -> TokenBatch:
    """Pad rows on the right; every sequence has a prompt of at least one token.

    Args:
        sequences: the sequences; those of one row are neighbours.
        pad_id: any valid token id; no valid position ever attends to it.
        members: see ``TokenBatch``.
        shares: sequences of each row, which have one prompt; one each by default.
    """
    ends = list(accumulate(shares or [1] * len(sequences)))
    groups = [sequences[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    ids = [[*group[0].prompt, *(token for s in group for token in s.tail)] for group in groups]
    longest = max(len(row) for row in ids)
    responses = [len(sequence.response) for sequence in sequences]
    mask_bt = torch.arange(max(responses))[None, :] < torch.tensor(responses)[:, None]
    rows, columns = [], []
    for row, group in enumerate(groups):
        last = len(group[0].prompt) - 1
        start = last
        for sequence in group:
            count = len(sequence.response)
            rows += [row] * count
            columns += [last, *range(start + 1, start + count)][:count]
            start += len(sequence.tail)
    targets = [token for s in sequences for token in s.response]
    layout = None
    if max(map(len, groups)) > 1:
        prompts = [len(group[0].prompt) for group in groups]
        layout = lay_out(prompts, [[len(s.tail) for s in group] for group in groups], longest)
    return TokenBatch(
        torch.tensor([row + [pad_id] * (longest - len(row)) for row in ids], dtype=torch.long),
        mask_bt,
        torch.tensor(rows, dtype=torch.long),
        torch.tensor(columns, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long),
        tuple(members),
        layout,
    )


def prompt_rows(sequences: Sequence[TokenSequence], max_tokens: int) -> list[list[int]]:
    """Indices of the sequences of each row: those of one prompt share rows if that saves enough tokens.

    Args:
        sequences: the sequences to collate.
        max_tokens: budget of one micro-batch (tokens), which no shared row exceeds.
    """
    rows: list[list[int]] = []
    lengths: list[int] = []
    newest: dict[tuple[int, ...], int] = {}
    for index, sequence in enumerate(sequences):
        row = newest.get(sequence.prompt, -1)
        if row >= 0 and lengths[row] + len(sequence.tail) <= min(LONGEST_ROW, max_tokens):
            rows[row].append(index)
            lengths[row] += len(sequence.tail)
        else:
            newest[sequence.prompt] = len(rows)
            rows.append([index])
            lengths.append(len(sequence.prompt) + len(sequence.tail))
    alone = sum(len(sequence.prompt) + len(sequence.tail) for sequence in sequences)
    return rows if sum(lengths) <= (1 - WORTH) * alone else [[index] for index in range(len(sequences))]


def pad_rows(rows: Sequence[Tensor], width: int) -> Tensor:
    """1-d tensors as one [b, width] tensor on their device, 0 after each."""
    padded = rows[0].new_zeros((len(rows), width))
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of sequences divided into micro-batches, longest first.

    Each has at most ``max_tokens`` padded tokens (a longer sequence is a micro-batch of its own) and at most 10 %
    padding.

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
