"""Layout of rows that contain one prompt and several responses that do not attend to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens that attend together: a row's prompt, or one response with its prompt before it.

    Tokens are counted through the whole micro-batch (row after row); what fills a block up is token 0.

    Example:
        the responses (7, 8) and (9,) behind the prompt (5, 6), alone in their micro-batch:
        ``queries_nq=[[2, 3], [4, 0]], keys_nk=[[0, 1, 2, 3], [0, 1, 4, 0]]``; 9 sees 5, 6 and itself
    """

    queries_nq: Tensor
    """Indices of the query tokens."""
    keys_nk: Tensor
    """Indices of the key tokens."""
    sees_nqk: Tensor
    """True where the query attends to the key; every query, also padding, attends to at least one key."""

    def to(self, device: torch.device) -> Block:
        """The same block on ``device``."""
        return Block(self.queries_nq.to(device), self.keys_nk.to(device), self.sees_nqk.to(device))


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions and masks of rows with several responses.

    Example:
        prompt (5, 6), responses (7, 8) and (9,): ``positions_bs=[[0, 1, 2, 3, 2]]``, and 9 sees 5, 6 and itself
    """

    positions_bs: Tensor
    """Position of each token in its own sequence."""
    sees_bss: Tensor
    """True where a token (second axis) attends to another (third): earlier tokens of its sequence, and itself."""
    blocks: tuple[Block, ...]
    """The same for prompts and responses separately; empty if that would be more work than full rows."""
    index_m: Tensor
    """Index of each token of the micro-batch in the concatenated queries of the blocks; 0 for padding."""

    def to(self, device: torch.device) -> Layout:
        """The same layout on ``device``."""
        blocks = tuple(block.to(device) for block in self.blocks)
        return Layout(self.positions_bs.to(device), self.sees_bss.to(device), blocks, self.index_m.to(device))


def lay_out(prompts: Sequence[int], responses: Sequence[Sequence[int]], width: int) -> Layout:
    """The layout of rows padded to ``width`` tokens.

    Args:
        prompts: length of each row's prompt (tokens).
        responses: lengths of each row's responses (tokens).
        width: tokens of a row, padding counted.
    """
    parts, positions = [], []
    for prompt, lengths in zip(prompts, responses, strict=True):
        # Prompts have part 0, responses 1, 2, ...; padding, after them, is a part too.
        part, position = [0] * prompt, list(range(prompt))
        for number, length in enumerate(lengths, start=1):
            part += [number] * length
            position += range(prompt, prompt + length)
        rest = width - len(part)
        parts.append(part + [len(lengths) + 1] * rest)
        positions.append(position + [0] * rest)
    part_bs = torch.tensor(parts)
    own_bss = (part_bs[:, :, None] == part_bs[:, None, :]) | (part_bs[:, None, :] == 0)
    sees_bss = own_bss & torch.ones((width, width), dtype=torch.bool).tril()
    blocks = _blocks(prompts, responses, width)
    queries_r = torch.cat([block.queries_nq.flatten() for block in blocks])
    real = queries_r.nonzero().squeeze(1)  # token 0, which also fills blocks up, keeps place 0: its own
    index_m = torch.zeros(part_bs.numel(), dtype=torch.long)
    index_m[queries_r[real]] = real
    worth = sum(block.sees_nqk.numel() for block in blocks) <= sees_bss.numel()
    return Layout(torch.tensor(positions), sees_bss, blocks if worth else (), index_m)


def _blocks(prompts: Sequence[int], responses: Sequence[Sequence[int]], width: int) -> tuple[Block, Block]:
    """The blocks of all prompts, and of all responses with their prompt's tokens before them."""
    rows: list[int] = []
    starts: list[int] = []
    for row, (prompt, lengths) in enumerate(zip(prompts, responses, strict=True)):
        rows += [row] * len(lengths)
        starts += accumulate(lengths[:-1], initial=row * width + prompt)
    before_bp = _spans([row * width for row in range(len(prompts))], prompts)
    own_nt = _spans(starts, [length for lengths in responses for length in lengths])
    (b, p), (n, t) = before_bp.shape, own_nt.shape
    sees_before_np = torch.arange(p) < torch.tensor(prompts)[rows, None]
    sees_ntk = torch.cat([sees_before_np[:, None].expand(n, t, p), _causal(t).expand(n, t, t)], dim=2)
    return (
        Block(before_bp, before_bp, _causal(p).expand(b, p, p)),
        Block(own_nt, torch.cat([before_bp[rows], own_nt], dim=1), sees_ntk),
    )


def _spans(starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """Token indices from each start for each length, padded with index 0."""
    steps = torch.arange(max(lengths))
    tokens = torch.tensor(starts)[:, None] + steps
    return tokens.masked_fill(steps >= torch.tensor(lengths)[:, None], 0)


def _causal(length: int) -> Tensor:
    return torch.ones((length, length), dtype=torch.bool).tril()
