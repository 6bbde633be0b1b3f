"""Log-probs of given tokens under a linear output layer, forward and backward by formula and in place.

Autograd would keep or make a dozen tensors of [chunk, vocabulary]; on a CPU, where memory is slow and fresh memory
slower, that took more time than the products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TILE = 2048
"""Rows of the output layer's gradient that are widened at a time."""


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
        size: int,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        """``size`` tokens at a time; with ``keep`` their exponentials stay for the backward pass, else no logits do."""
        device = hidden_nd.device.type
        half = torch.is_autocast_enabled(device)
        ctx.dtype = torch.get_autocast_dtype(device) if half else hidden_nd.dtype
        ctx.scale, ctx.size = scale, size
        logprobs, entropies, tops, totals = [], [], [], []
        with torch.autocast(device, enabled=False):
            chunks = _Chunks(hidden_nd, weight_vd, bias_v, ctx)
            exps = chunks.wide.new_empty((len(hidden_nd) if keep else chunks.size, len(weight_vd)))
            for rows, z_nv in chunks:
                top_n1 = z_nv.amax(dim=1, keepdim=True)
                label_n = z_nv.sub_(top_n1).gather(1, targets_n[rows, None]).squeeze(1)
                weights_nv = torch.exp(z_nv, out=exps[rows] if keep else exps[: len(z_nv)])
                total_n = weights_nv.sum(dim=1)
                logprobs.append(label_n - total_n.log())
                entropies.append(total_n.log() - z_nv.mul_(weights_nv).sum(dim=1) / total_n)
                tops.append(top_n1.squeeze(1))
                totals.append(total_n)
        entropy_n = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy_n)
        ctx.save_for_backward(hidden_nd, weight_vd, bias_v, targets_n, torch.cat(tops), torch.cat(totals))
        ctx.kept = exps if keep else None
        return torch.cat(logprobs), entropy_n

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Slopes of the log-probs [n] to slopes of hidden states, weight and bias."""
        hidden_nd, weight_vd, bias_v, targets_n, top_n, total_n = ctx.saved_tensors
        slope_n = slopes[0] * ctx.scale
        factor_n1 = -(slope_n / total_n)[:, None]
        chunks = _Chunks(hidden_nd, weight_vd, bias_v, ctx)
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        by_hidden = torch.empty_like(hidden_nd) if for_hidden else None
        by_weight = _Sum(weight_vd, ctx.dtype) if for_weight else None
        by_bias = torch.zeros_like(bias_v) if for_bias else None
        for rows, exps_nv in chunks.exps(ctx.kept, top_n):
            slope_nv = exps_nv.mul_(factor_n1[rows])
            slope_nv.scatter_add_(1, targets_n[rows, None], slope_n[rows, None].to(slope_nv.dtype))
            narrow_nv = chunks.narrowed(slope_nv)
            if by_hidden is not None:
                by_hidden[rows] = narrow_nv @ chunks.weight
            if by_weight is not None:
                by_weight.add(narrow_nv.T, chunks.hidden[rows])
            if by_bias is not None:
                by_bias += slope_nv.sum(dim=0)
        ctx.kept = None  # overwritten: a second backward pass computes them again
        return by_hidden, None if by_weight is None else by_weight.total, by_bias, None, None, None, None


class _Chunks:
    """Chunks of rows with their scaled logits, in float32 at least.

    All chunks share their memory, which the caller may overwrite: fresh memory costs a CPU four times an exponential.
    """

    def __init__(self, hidden_nd: Tensor, weight_vd: Tensor, bias_v: Tensor | None, ctx: Any) -> None:
        self.hidden, self.weight = hidden_nd.detach().to(ctx.dtype), weight_vd.detach().to(ctx.dtype)
        self.bias = None if bias_v is None else bias_v.detach().to(ctx.dtype)
        self.size, self.scale = min(ctx.size, len(self.hidden)), ctx.scale
        shape, wide = (self.size, len(self.weight)), torch.promote_types(ctx.dtype, torch.float32)
        self.wide = self.hidden.new_empty(shape, dtype=wide)
        self.narrow = self.wide if wide == ctx.dtype else self.hidden.new_empty(shape)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their logits [rows, v]."""
        for start in range(0, len(self.hidden), self.size):
            rows = slice(start, min(start + self.size, len(self.hidden)))
            product, z_nv = (buffer[: rows.stop - start] for buffer in (self.narrow, self.wide))
            torch.mm(self.hidden[rows], self.weight.T, out=product)
            if self.bias is not None:
                product += self.bias
            if self.narrow is not self.wide:
                z_nv.copy_(product)
            yield rows, z_nv.mul_(self.scale) if self.scale != 1.0 else z_nv

    def exps(self, kept_nv: Tensor | None, top_n: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Rows and exp(logits - their largest) [rows, v]: those that were kept, or computed again."""
        if kept_nv is None:
            for rows, z_nv in self:
                yield rows, z_nv.sub_(top_n[rows, None]).exp_()
            return
        for start in range(0, len(kept_nv), self.size):
            rows = slice(start, min(start + self.size, len(kept_nv)))
            yield rows, kept_nv[rows]

    def narrowed(self, z_nv: Tensor) -> Tensor:
        """What stands in the chunk, in the type of the products."""
        return z_nv if self.narrow.dtype == z_nv.dtype else self.narrow[: len(z_nv)].copy_(z_nv)


class _Sum:
    """A sum of products in the type of the parameter whose gradient it is."""

    def __init__(self, parameter: Tensor, dtype: torch.dtype) -> None:
        self.total = torch.zeros_like(parameter)
        self._product = torch.empty_like(parameter, dtype=dtype) if dtype != parameter.dtype else None

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add ``left @ right``."""
        if self._product is None:
            self.total.addmm_(left, right)
            return
        torch.mm(left, right, out=self._product)
        # Adding tensors of two types takes eight times as long as widening first; widened rows stay in the cache.
        for start in range(0, len(self.total), TILE):
            rows = slice(start, start + TILE)
            self.total[rows] += self._product[rows].to(self.total.dtype)
