"""Layout of one row that holds prompts and responses end to end, in numbers per token instead of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 128
"""Tokens of a block: a GPU's attention skips pairs of blocks without visible tokens, and rows are whole blocks."""


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Positions and visibility in a row of groups; a group is one prompt with the responses to it.

    A token attends to itself, to earlier tokens of its segment (one prompt or one response) and, in a response, to
    its prompt: sees(q, k) = k <= q and (segment_q = segment_k or group_q = prompt_k).

    Example:
        the prompt (5, 6) with responses (7, 8) and (9,), then the prompt (4,) with response (3,):
        ``positions_bs=[[0, 1, 2, 3, 2, 0, 1]], segments_s=[0, 0, 1, 1, 2, 3, 4], groups_s=[0, 0, 0, 0, 0, 1, 1],
        prompts_s=[0, 0, -1, -1, -1, 1, -1]`` (without the padding at the end)
    """

    positions_bs: Tensor
    """Position of each token in its own sequence [1, s]."""
    segments_s: Tensor
    """Number of the token's prompt or response, increasing along the row."""
    groups_s: Tensor
    """Number of the token's group, increasing along the row; padding is a group of its own."""
    prompts_s: Tensor
    """Number of the group at tokens of a prompt, -1 elsewhere."""

    def to(self, device: torch.device) -> PackedLayout:
        """The same layout on ``device``."""
        tensors = (self.positions_bs, self.segments_s, self.groups_s, self.prompts_s)
        return PackedLayout(*(tensor.to(device) for tensor in tensors))

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """True where the token at index ``query`` attends to the token at index ``key``; indices broadcast."""
        same = self.segments_s[query] == self.segments_s[key]
        return (key <= query) & (same | (self.groups_s[query] == self.prompts_s[key]))

    def visible_blocks(self) -> tuple[Tensor, Tensor]:
        """Pairs of blocks [s / 128, s / 128] (query, key) with some visible pair of tokens, and those with all visible.

        The first is exact, the second may lack pairs. Both come from the numbers at the ends of blocks: segments and
        groups increase along the row, so no tensor of s x s elements is needed.
        """
        segments, groups, prompts = (x.view(-1, BLOCK) for x in (self.segments_s, self.groups_s, self.prompts_s))
        first_q, last_q = segments[:, 0, None], segments[:, -1, None]
        group_q, last_group_q = groups[:, 0, None], groups[:, -1, None]
        first_k, last_k = segments[None, :, 0], segments[None, :, -1]
        newest_prompt_k = prompts.amax(dim=1)[None]
        index = torch.arange(len(segments), device=segments.device)
        before, earlier = index[None] <= index[:, None], index[None] < index[:, None]
        some = before & ((last_k >= first_q) | (newest_prompt_k >= group_q))
        one_segment = (first_q == last_q) & (first_k == last_k) & (first_q == first_k)
        # All queries in one group, and all keys in the prompt of that group.
        prompt_of_group = (group_q == last_group_q) & (prompts == prompts[:, :1]).all(dim=1)[None]
        prompt_of_group = prompt_of_group & (prompts[None, :, 0] == group_q)
        return some, earlier & (one_segment | prompt_of_group)


def lay_out_packed(prompts: Sequence[int], responses: Sequence[Sequence[int]], width: int) -> PackedLayout:
    """The layout of one row of ``width`` tokens.

    Args:
        prompts: length of each group's prompt (tokens).
        responses: lengths of each group's responses (tokens).
        width: tokens of the row, a multiple of 128; what the groups leave is padding, which sees only padding.
    """
    positions: list[int] = []
    lengths: list[int] = []
    groups: list[int] = []
    is_prompt: list[bool] = []
    for group, (prompt, tails) in enumerate(zip(prompts, responses, strict=True)):
        positions += range(prompt)
        for tail in tails:
            positions += range(prompt, prompt + tail)
        lengths += [prompt, *tails]
        groups += [group] * (1 + len(tails))
        is_prompt += [True, *([False] * len(tails))]
    lengths.append(width - len(positions))
    groups.append(len(prompts))
    is_prompt.append(False)
    positions += [0] * lengths[-1]
    length, number = torch.tensor(lengths), torch.tensor(groups)
    prompt_number = torch.where(torch.tensor(is_prompt), number, -1)
    return PackedLayout(
        torch.tensor([positions]),
        torch.arange(len(lengths)).repeat_interleave(length),
        number.repeat_interleave(length),
        prompt_number.repeat_interleave(length),
    )
