"""Log-probs of given tokens under a linear output layer, with explicit forward and backward formulas, in place.

Autograd would keep or make a dozen tensors of [n, vocabulary]; on a CPU, where memory is slow and fresh memory slower,
that took more time than the products. Here the vocabulary is worked through in tiles that stay in a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TILE = 2048
"""Tokens of the vocabulary whose logits are allocated at once: few enough for a CPU's cache."""
CUDA_TILE = 8192
"""The same on CUDA. On an H100, log-probs of 13,200 tokens x 151,936 with gradients took 120 ms in tiles of 2,048, 102
in tiles of 8,192, and 97 in tiles of 32,768, which need four times the memory."""


@dataclass(frozen=True, slots=True)
class MergedTiles:
    """Statistics of the logits z over the whole vocabulary, from those of its tiles.

    Example:
        two tokens with logits (0, 0) each, in tiles of one: ``MergedTiles(top_n=[0, 0], total_n=[2, 2],
        shares_kn=[[1, 1], [1, 1]], entropy_n=[0.693, 0.693])``
    """

    top_n: Tensor
    """Largest logit of each token."""
    total_n: Tensor
    """Sum of exp(z - top)."""
    shares_kn: Tensor
    """exp(top of tile k - top)."""
    entropy_n: Tensor
    """Entropy of the softmax (nats)."""


def tile_width(device: torch.device) -> int:
    """Tokens of the vocabulary in a tile on this device."""
    return CUDA_TILE if device.type == "cuda" else TILE


def product_dtype(hidden_nd: Tensor) -> torch.dtype:
    """Type in which the output layer's products are computed: autocast's, or that of the hidden states."""
    device = hidden_nd.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_nd.dtype


def merge_tiles(partials: Sequence[tuple[Tensor, Tensor, Tensor]]) -> MergedTiles:
    """Statistics of all logits from max z, sum exp(z - max z) and sum (z - max z) exp(z - max z) of each tile [n]."""
    # Each tile's sums are relative to its own largest logit; here they become relative to the overall largest.
    tops_kn, totals_kn, moments_kn = (torch.stack(parts) for parts in zip(*partials, strict=True))
    top_n = tops_kn.amax(dim=0)
    below_kn = tops_kn - top_n
    shares_kn = below_kn.exp()
    total_n = (totals_kn * shares_kn).sum(dim=0)
    entropy_n = total_n.log() - ((moments_kn + totals_kn * below_kn) * shares_kn).sum(dim=0) / total_n
    return MergedTiles(top_n, total_n, shares_kn, entropy_n)


class LinearLogprobs(torch.autograd.Function):
    """log softmax(z)[target] and the softmax's entropy for z = scale (W h + b), both [n]; see ``token_logprobs``.

    d logp / d z = onehot(target) - softmax(z). Under autocast products are computed in its type, as it would do.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        weight_vd: Tensor,
        bias_v: Tensor | None,
        targets_n: Tensor,
        scale: float,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        """Process one tile at a time; with ``keep`` all exponentials are stored for the backward pass."""
        device = hidden_nd.device.type
        ctx.dtype = product_dtype(hidden_nd)
        ctx.scale, ctx.stored = scale, []
        partials = []
        with torch.autocast(device, enabled=False):
            tiles = _Tiles(hidden_nd, weight_vd, bias_v, targets_n, ctx)
            label_n = tiles.wide.new_zeros(len(hidden_nd))
            spare = None if keep else torch.empty_like(tiles.wide)
            for columns, z_nk in tiles:
                index_n1, inside_n = tiles.indices_within(columns)
                label_n = torch.where(inside_n, z_nk.gather(1, index_n1).squeeze(1), label_n)
                top_n = z_nk.amax(dim=1)
                buffer_nk = None if spare is None else spare[: z_nk.numel()].view_as(z_nk)
                exps_nk = torch.exp(z_nk.sub_(top_n[:, None]), out=buffer_nk)
                if keep:
                    ctx.stored.append(exps_nk)
                partials.append((top_n, exps_nk.sum(dim=1), z_nk.mul_(exps_nk).sum(dim=1)))
        merged = merge_tiles(partials)
        ctx.mark_non_differentiable(merged.entropy_n)
        logsumexp_n, shares_kn = merged.top_n + merged.total_n.log(), merged.shares_kn / merged.total_n
        ctx.save_for_backward(hidden_nd, weight_vd, bias_v, targets_n, logsumexp_n, shares_kn)
        return label_n - merged.top_n - merged.total_n.log(), merged.entropy_n

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of hidden states, weight and bias from those of the log-probs [n]."""
        hidden_nd, weight_vd, bias_v, targets_n, logsumexp_n, shares_kn = ctx.saved_tensors
        slope_n = slopes[0] * ctx.scale
        tiles = _Tiles(hidden_nd, weight_vd, bias_v, targets_n, ctx)
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        by_hidden = torch.zeros_like(hidden_nd, dtype=tiles.wide.dtype) if for_hidden else None
        by_weight = torch.empty_like(weight_vd) if for_weight else None
        by_bias = torch.empty_like(bias_v) if for_bias else None
        for columns, slope_nk in tiles.slopes(-slope_n, ctx.stored, shares_kn, logsumexp_n):
            index_n1, inside_n = tiles.indices_within(columns)
            slope_nk.scatter_add_(1, index_n1, (slope_n * inside_n)[:, None].to(slope_nk.dtype))
            narrow_nk = tiles.narrowed(slope_nk)
            if by_hidden is not None:
                _add_product(by_hidden, narrow_nk, tiles.weights(columns))
            if by_weight is not None:
                _put_product(by_weight[columns], narrow_nk.T, tiles.hidden)
            if by_bias is not None:
                by_bias[columns] = slope_nk.sum(dim=0)
        ctx.stored = []  # overwritten: a second backward pass computes them again
        by_hidden = None if by_hidden is None else by_hidden.to(hidden_nd.dtype)
        return by_hidden, by_weight, by_bias, None, None, None


class _Tiles:
    """Columns of the vocabulary with their scaled logits, in float32 at least.

    All tiles share their memory, which the caller may overwrite: fresh memory costs a CPU four times an exponential.
    """

    def __init__(
        self, hidden_nd: Tensor, weight_vd: Tensor, bias_v: Tensor | None, targets_n: Tensor, ctx: Any
    ) -> None:
        self.dtype, self.scale, self.width = ctx.dtype, ctx.scale, min(tile_width(hidden_nd.device), len(weight_vd))
        self.hidden, self.targets = hidden_nd.detach().to(ctx.dtype), targets_n
        self._weight, self._bias = weight_vd.detach(), None if bias_v is None else bias_v.detach()
        size, wide = len(hidden_nd) * self.width, torch.promote_types(ctx.dtype, torch.float32)
        self.wide = self.hidden.new_empty(size, dtype=wide)
        self._narrow = self.wide if wide == ctx.dtype else self.hidden.new_empty(size)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Columns and their logits [n, k]."""
        for columns in self._columns():
            shape = (len(self.hidden), columns.stop - columns.start)
            product, z_nk = (buffer[: shape[0] * shape[1]].view(shape) for buffer in (self._narrow, self.wide))
            torch.mm(self.hidden, self.weights(columns).T, out=product)
            if self._bias is not None:
                product += self._bias[columns].to(self.dtype)
            if self._narrow is not self.wide:
                z_nk.copy_(product)
            yield columns, z_nk.mul_(self.scale) if self.scale != 1.0 else z_nk

    def slopes(
        self, slope_n: Tensor, stored: list[Tensor], shares_kn: Tensor, logsumexp_n: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """Columns and slope times softmax [n, k]: from stored exponentials, or from recomputed logits."""
        if stored:
            for columns, exps_nk, share_n in zip(self._columns(), stored, shares_kn, strict=True):
                yield columns, exps_nk.mul_((slope_n * share_n)[:, None])
        else:
            for columns, z_nk in self:
                yield columns, z_nk.sub_(logsumexp_n[:, None]).exp_().mul_(slope_n[:, None])

    def weights(self, columns: slice) -> Tensor:
        """The output layer's rows of these columns [k, d], in the type of the products."""
        return self._weight[columns].to(self.dtype)

    def indices_within(self, columns: slice) -> tuple[Tensor, Tensor]:
        """Each target's index among these columns [n, 1], and whether it is one of them [n]."""
        index_n = self.targets - columns.start
        width = columns.stop - columns.start
        return index_n.clamp(0, width - 1)[:, None], (index_n >= 0) & (index_n < width)

    def narrowed(self, z_nk: Tensor) -> Tensor:
        """The tile in the type of the products."""
        return z_nk if z_nk.dtype == self.dtype else self._narrow[: z_nk.numel()].view(z_nk.shape).copy_(z_nk)

    def _columns(self) -> Iterator[slice]:
        for start in range(0, len(self._weight), self.width):
            yield slice(start, min(start + self.width, len(self._weight)))


def _put_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """``left @ right`` into a tensor that may have a wider type."""
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to a tensor that may have a wider type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += (left @ right).to(total.dtype)  # adding tensors of two types takes eight times as long
