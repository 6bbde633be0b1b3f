"""Collation of sequences of different lengths into padded or packed micro-batches within a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from rlx.numerics.packed_row import BLOCK, PackedLayout, lay_out_packed
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
    """A padded or packed micro-batch. Padding is on the right, so that causal attention never sees it.

    A padded row holds one prompt with its response, or with several responses that do not see each other. A packed
    micro-batch is one row of such prompts and responses end to end.

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
    layout: Layout | PackedLayout | None = None
    """Layout of rows with several responses, or of a packed row; None if every row is one sequence."""

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
    groups = _groups(sequences, shares)
    ids = [_input_ids(group) for group in groups]
    longest = max(len(row) for row in ids)
    rows, columns = [], []
    for row, group in enumerate(groups):
        predicting = _predicting_columns(group, 0)
        rows += [row] * len(predicting)
        columns += predicting
    layout = lay_out(*_group_lengths(groups), longest) if max(map(len, groups)) > 1 else None
    return TokenBatch(
        torch.tensor([row + [pad_id] * (longest - len(row)) for row in ids], dtype=torch.long),
        _response_mask(sequences),
        torch.tensor(rows, dtype=torch.long),
        torch.tensor(columns, dtype=torch.long),
        _targets(sequences),
        tuple(members),
        layout,
    )


def pack(
    sequences: Sequence[TokenSequence], pad_id: int = 0, members: Sequence[int] = (), shares: Sequence[int] = ()
) -> TokenBatch:
    """Place the sequences end to end in one row, whose length is rounded up to whole blocks of 128 tokens.

    Args:
        sequences: the sequences; those that share a prompt are neighbours.
        pad_id: any valid token id, for the rest of the last block; no token of a sequence attends to it.
        members: see ``TokenBatch``.
        shares: number of sequences of each group, which have one prompt; one each by default.
    """
    groups = _groups(sequences, shares)
    ids: list[int] = []
    columns: list[int] = []
    for group in groups:
        columns += _predicting_columns(group, len(ids))
        ids += _input_ids(group)
    width = -(-len(ids) // BLOCK) * BLOCK
    return TokenBatch(
        torch.tensor([ids + [pad_id] * (width - len(ids))], dtype=torch.long),
        _response_mask(sequences),
        torch.zeros(len(columns), dtype=torch.long),
        torch.tensor(columns, dtype=torch.long),
        _targets(sequences),
        tuple(members),
        lay_out_packed(*_group_lengths(groups), width),
    )


def _groups(sequences: Sequence[TokenSequence], shares: Sequence[int]) -> list[Sequence[TokenSequence]]:
    """The sequences divided into groups of these sizes, which share a prompt; one each without sizes."""
    ends = list(accumulate(shares or [1] * len(sequences)))
    return [sequences[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _group_lengths(groups: Sequence[Sequence[TokenSequence]]) -> tuple[list[int], list[list[int]]]:
    """Length of each group's prompt, and input tokens of each of its responses."""
    return [len(group[0].prompt) for group in groups], [[len(s.tail) for s in group] for group in groups]


def _input_ids(group: Sequence[TokenSequence]) -> list[int]:
    """The prompt of a group, then its responses without their last tokens."""
    return [*group[0].prompt, *(token for s in group for token in s.tail)]


def _response_mask(sequences: Sequence[TokenSequence]) -> Tensor:
    """True at response tokens [b, t]."""
    lengths = [len(sequence.response) for sequence in sequences]
    return torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def _targets(sequences: Sequence[TokenSequence]) -> Tensor:
    """All response tokens, one sequence after the other [n]."""
    return torch.tensor([token for s in sequences for token in s.response], dtype=torch.long)


def _predicting_columns(group: Sequence[TokenSequence], start: int) -> list[int]:
    """Column of the token before each response token of sequences that share the prompt at column ``start``."""
    last = start + len(group[0].prompt) - 1
    columns, end = [], last
    for sequence in group:
        count = len(sequence.response)
        columns += [last, *range(end + 1, end + count)][:count]
        end += len(sequence.tail)
    return columns


def prompt_rows(
    sequences: Sequence[TokenSequence], max_tokens: int, longest: int = LONGEST_ROW, worth: float = WORTH
) -> list[list[int]]:
    """Indices of the sequences of each row: those of one prompt share rows if that saves enough tokens.

    Args:
        sequences: the sequences to collate.
        max_tokens: budget of one micro-batch (tokens), which no shared row exceeds.
        longest: largest number of tokens of a shared row.
        worth: smallest fraction of the tokens that sharing must save.
    """
    rows: list[list[int]] = []
    lengths: list[int] = []
    newest: dict[tuple[int, ...], int] = {}
    for index, sequence in enumerate(sequences):
        row = newest.get(sequence.prompt, -1)
        if row >= 0 and lengths[row] + len(sequence.tail) <= min(longest, max_tokens):
            rows[row].append(index)
            lengths[row] += len(sequence.tail)
        else:
            newest[sequence.prompt] = len(rows)
            rows.append([index])
            lengths.append(len(sequence.prompt) + len(sequence.tail))
    alone = sum(len(sequence.prompt) + len(sequence.tail) for sequence in sequences)
    return rows if sum(lengths) <= (1 - worth) * alone else [[index] for index in range(len(sequences))]


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


def packed_micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of sequences divided into packed micro-batches: first fit, longest first.

    Each has at most ``max_tokens`` tokens (a longer sequence is a micro-batch of its own), before its row is rounded up
    to whole blocks. Any two micro-batches have more than ``max_tokens`` tokens together.

    Args:
        lengths: length of each sequence, or of each prompt with its responses (tokens).
        max_tokens: budget of one micro-batch (tokens).
    """
    batches: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        fitting = next((number for number, tokens in enumerate(free) if tokens >= lengths[index]), None)
        if fitting is None:
            batches.append([index])
            free.append(max_tokens - lengths[index])
        else:
            batches[fitting].append(index)
            free[fitting] -= lengths[index]
    return batches


def packed_plan(sequences: Sequence[TokenSequence], max_tokens: int) -> list[list[list[int]]]:
    """Packed micro-batches, each a list of groups that share a prompt, each a list of sequence indices.

    Args:
        sequences: the sequences to pack.
        max_tokens: budget of one micro-batch (tokens).
    """
    groups = prompt_rows(sequences, max_tokens, longest=max_tokens, worth=0.0)
    return [
        [groups[index] for index in batch] for batch in packed_micro_batches(_lengths(sequences, groups), max_tokens)
    ]


def padded_plan(sequences: Sequence[TokenSequence], max_tokens: int, share_prompts: bool) -> list[list[list[int]]]:
    """Padded micro-batches, each a list of rows, each a list of sequence indices.

    Args:
        sequences: the sequences to collate.
        max_tokens: budget of one micro-batch (tokens, padding counted).
        share_prompts: put the responses of one prompt into one row where that saves enough tokens.
    """
    rows = prompt_rows(sequences, max_tokens) if share_prompts else [[index] for index in range(len(sequences))]
    return [[rows[index] for index in batch] for batch in micro_batches(_lengths(sequences, rows), max_tokens)]


def _lengths(sequences: Sequence[TokenSequence], rows: Sequence[Sequence[int]]) -> list[int]:
    """Input tokens of each row of sequences that share their prompt."""
    return [len(sequences[row[0]].prompt) + sum(len(sequences[index].tail) for index in row) for row in rows]
