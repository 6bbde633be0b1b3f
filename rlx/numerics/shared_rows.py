"""Rows of one prompt with several responses that do not see each other: who stands where, and who sees whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """Tokens that look."""
    keys_nk: Tensor
    """Tokens that are looked at."""
    sees_nqk: Tensor
    """True where the one sees the other; every query, filled up or not, sees at least one key."""

    def to(self, device: torch.device) -> Block:
        """The same block on ``device``."""
        return Block(self.queries_nq.to(device), self.keys_nk.to(device), self.sees_nqk.to(device))


@dataclass(frozen=True, slots=True)
class Layout:
    """What rows of several responses need beside their tokens.

    Example:
        prompt (5, 6), responses (7, 8) and (9,): ``positions_bs=[[0, 1, 2, 3, 2]]``, and 9 sees 5, 6 and itself
    """

    positions_bs: Tensor
    """Position of each token in its own sequence."""
    sees_bss: Tensor
    """True where a token (second axis) sees another (third): those before it of its own sequence, and itself."""
    blocks: tuple[Block, ...]
    """The same, prompts and responses apart; none where that would be more work than whole rows are."""
    places_m: Tensor
    """Where each token of the micro-batch stands in the blocks' queries, laid end to end; 0 for padding."""

    def to(self, device: torch.device) -> Layout:
        """The same layout on ``device``."""
        blocks = tuple(block.to(device) for block in self.blocks)
        return Layout(self.positions_bs.to(device), self.sees_bss.to(device), blocks, self.places_m.to(device))


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
    blocks: tuple[Block, ...] = (_prompts(prompts, width), _responses(prompts, responses, width))
    if sum(block.sees_nqk.numel() for block in blocks) > sees_bss.numel():
        blocks = ()
    places_m = torch.zeros(part_bs.numel(), dtype=torch.long)
    for block, start in zip(blocks, (0, blocks[0].queries_nq.numel()) if blocks else (), strict=True):
        queries = block.queries_nq.flatten()
        real = (queries > 0).nonzero().squeeze(1)  # token 0, the first of the first prompt, keeps place 0
        places_m[queries[real]] = real + start
    return Layout(torch.tensor(positions), sees_bss, blocks, places_m)


def _prompts(prompts: Sequence[int], width: int) -> Block:
    tokens = _spans([row * width for row in range(len(prompts))], prompts)
    return Block(tokens, tokens, _causal(tokens.shape[1]).expand(len(prompts), -1, -1))


def _responses(prompts: Sequence[int], responses: Sequence[Sequence[int]], width: int) -> Block:
    """Every response, with its prompt's tokens before its own."""
    rows, starts, lengths = [], [], []
    for row, (prompt, own) in enumerate(zip(prompts, responses, strict=True)):
        start = row * width + prompt
        for length in own:
            rows.append(row)
            starts.append(start)
            lengths.append(length)
            start += length
    before = torch.tensor([prompts[row] for row in rows])
    shared = _spans([row * width for row in rows], before.tolist())
    tokens = _spans(starts, lengths)
    sees_prompt = (torch.arange(shared.shape[1]) < before[:, None])[:, None].expand(-1, tokens.shape[1], -1)
    sees_own = _causal(tokens.shape[1]).expand(len(rows), -1, -1)
    return Block(tokens, torch.cat([shared, tokens], dim=1), torch.cat([sees_prompt, sees_own], dim=2))


def _spans(starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """The tokens from each start on, as many as each length says, filled up with token 0."""
    steps = torch.arange(max(lengths))
    tokens = torch.tensor(starts)[:, None] + steps
    return tokens.masked_fill(steps >= torch.tensor(lengths)[:, None], 0)


def _causal(length: int) -> Tensor:
    return torch.ones((length, length), dtype=torch.bool).tril()
