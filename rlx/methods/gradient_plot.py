"""A plot of each policy loss's gradient weight on a token against the importance ratio.

Every curve is computed by autograd from the function that trains. Each sequence has one token, with either sign of the
advantage, so that sequence-level methods show their ratio; ``bapo``, ``kl_cov`` and ``clip_cov``, which use statistics
of the batch, get the plotted tokens as their batch, and ``entropy_adv`` an entropy of 1 nat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlx.errors import UserError, did_you_mean, reason
from rlx.numerics.batch import PolicyBatch
from rlx.registry import Method, get, names

P_OLD = (0.9, 0.1, 0.001)
RATIO_MIN, RATIO_MAX, POINTS = 1 / 8, 4.0, 500
WEIGHT_MAX = 3.6
MAX_SHARED = 6
"""Largest number of different curves that share their panels; more get one panel each."""
BESIDE_TITLE = 4
"""Largest number of curves whose names fit next to the title; more are named in a line below it."""
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2")
SHADES = ("#0f172a", "#2563eb", "#93c5fd")
GREY = "#6b7280"
SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True)
class Curve:
    """One method's weights.

    Example:
        ``Curve("grpo = rloo", weights)``, weights of shape [3, 2, 500]
    """

    label: str
    weights_psn: Tensor
    """d(-loss)/d log pi per unit of A: old probability p, sign s (A = 1, A = -1), ratio n."""


def plot_gradient_weights(names: Sequence[str], file: Path) -> None:
    """Draw d(-loss)/d log pi against r, for three old probabilities and both signs of the advantage.

    Args:
        names: policy losses, ``name@preset`` or ``path/to/file.py:function``; all registered ones when empty.
        file: the image, .png, .svg or .pdf.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"--plot '{file}' is not an image format that can be written", fix=f"choices: {', '.join(SUFFIXES)}"
        )
    curves = gradient_curves(names or _registered())
    # pyplot takes a second to import and is needed nowhere else.
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 9, "font.family": "sans-serif", "svg.hashsalt": "rlx"})
    fig = _shared_panels(curves) if len(curves) <= MAX_SHARED else _panel_per_method(curves)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(file, dpi=160, facecolor="white", metadata={"Date": None} if file.suffix == ".svg" else None)
    except OSError as error:
        raise UserError(f"--plot '{file}' cannot be written ({reason(error)})", exit_code=1) from None


def gradient_curves(names: Sequence[str]) -> list[Curve]:
    """Each method's weights; methods whose weights are the same share a curve, in the order of ``names``."""
    curves: list[Curve] = []
    for name in dict.fromkeys(names):
        weights_psn = torch.stack([torch.stack(_weights(_method(name), p_old)) for p_old in P_OLD])
        label = Path(name.partition(":")[0]).stem if ".py" in name else name
        same = next((i for i, c in enumerate(curves) if torch.equal(c.weights_psn, weights_psn)), None)
        if same is None:
            curves.append(Curve(label, weights_psn))
        else:
            curves[same] = Curve(f"{curves[same].label} = {label}", weights_psn)
    return curves


def ratios() -> Tensor:
    """The plotted ratios, evenly spaced in their logarithm."""
    return torch.logspace(math.log10(RATIO_MIN), math.log10(RATIO_MAX), POINTS, dtype=torch.float64)


def _registered() -> list[str]:
    return names("policy")


def _method(name: str) -> Method:
    """The method of ``name@preset`` with its default parameters."""
    stem, _, preset = name.partition("@")
    component = get("policy", stem, key="method")
    if preset and preset not in component.presets:
        raise UserError(f"'{name}' is not a known preset", fix=did_you_mean(preset, list(component.presets)))
    return Method(component, component.hyper(**(component.presets[preset] if preset else {})))


def _weights(method: Method, p_old: float) -> tuple[Tensor, Tensor]:
    """Weights [n] for A = 1 and for A = -1, per unit of A."""
    ratio_n = ratios()
    sign_bt = torch.cat([torch.ones_like(ratio_n), -torch.ones_like(ratio_n)])[:, None]
    old_bt = torch.full_like(sign_bt, math.log(p_old))
    logprobs_bt = (old_bt + ratio_n.log().repeat(2)[:, None]).requires_grad_()
    batch = PolicyBatch(old_bt, sign_bt, torch.ones_like(sign_bt, dtype=torch.bool), torch.ones_like(sign_bt))
    component = method.component
    if component.whole_batch is not None:
        batch = replace(batch, statistics=component.whole_batch(logprobs_bt.detach(), batch, method.hyper))
    loss = component.fn(logprobs_bt, batch, method.hyper).loss_bt.sum()
    (gradient_bt,) = torch.autograd.grad(loss, logprobs_bt)
    weight_n = (-gradient_bt / sign_bt)[:, 0]
    return weight_n[:POINTS], weight_n[POINTS:]


def _shared_panels(curves: Sequence[Curve]) -> Any:
    """A few methods in the same six panels: one row per sign of A, one column per old probability."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    fig, panels = pyplot.subplots(2, len(P_OLD), figsize=(9.6, 6.0), sharex=True, sharey=True)
    for row, sign in enumerate(("A = +1, pushed up", "A = −1, pushed down")):
        for column, p_old in enumerate(P_OLD):
            axes = panels[row][column]
            _frame(axes)
            for index, curve in enumerate(curves):
                # Wide lines below narrow ones, so that curves that coincide are all visible.
                width = 1.6 + min(1.5, 4.5 / max(len(curves) - 1, 1)) * (len(curves) - 1 - index)
                axes.plot(
                    ratios(), curve.weights_psn[column, row], color=COLOURS[index], linewidth=width, label=curve.label
                )
            if row == 0:
                axes.set_title(rf"$\pi_\mathrm{{old}}$ = {p_old:g}", color="#111827", fontsize=10)
            else:
                axes.set_xlabel(r"ratio  $r = \pi / \pi_\mathrm{old}$", color=GREY)
        panels[row][0].set_ylabel(f"{sign}\nweight on " + r"$\nabla \log \pi$", color=GREY)
    handles = [Line2D([], [], color=COLOURS[index], linewidth=2.5) for index in range(len(curves))]
    labels = [curve.label for curve in curves]
    fig.suptitle("How hard each method pushes a token", x=0.065, ha="left", fontsize=12, weight="bold")
    beside_title = len(curves) <= BESIDE_TITLE
    corner = (0.99, 0.995 if beside_title else 0.96)
    fig.legend(handles, labels, loc="upper right", ncol=len(curves), frameon=False, bbox_to_anchor=corner)
    fig.tight_layout(rect=(0, 0, 1, 0.99 if beside_title else 0.955))
    return fig


def _panel_per_method(curves: Sequence[Curve]) -> Any:
    """Many methods, one panel each: shades are old probabilities, solid lines A = +1, dashed lines A = -1."""
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    columns = 5
    rows = -(-len(curves) // columns)
    fig, panels = pyplot.subplots(
        rows, columns, figsize=(12, 0.9 + 2.1 * rows), sharex=True, sharey=True, squeeze=False
    )
    for index, axes in enumerate(panels.flat):
        if index >= len(curves):
            axes.set_visible(False)
            continue
        _frame(axes)
        curve = curves[index]
        for column, shade in enumerate(SHADES):
            for row, style in enumerate(("-", (0, (2.5, 1.5)))):
                axes.plot(
                    ratios(),
                    curve.weights_psn[column, row],
                    color=shade,
                    linestyle=style,
                    linewidth=3.4 - 1.1 * column,
                )
        axes.set_title(curve.label, fontsize=8.5 if len(curve.label) < 30 else 6.5, color="#111827")
        axes.tick_params(labelbottom=index + columns >= len(curves))
    keys = [Line2D([], [], color=shade, linewidth=2.2) for shade in SHADES]
    keys += [Line2D([], [], color=GREY, linestyle=style, linewidth=1.6) for style in ("-", (0, (2.5, 1.5)))]
    words = [rf"$\pi_\mathrm{{old}}$ = {p:g}" for p in P_OLD] + ["A = +1", "A = −1"]
    top = 1 - 0.55 / fig.get_figheight()
    fig.suptitle("How hard each method pushes a token", x=0.05, ha="left", fontsize=12, weight="bold")
    fig.legend(keys, words, loc="upper right", ncol=5, frameon=False, bbox_to_anchor=(0.99, 0.995))
    fig.supxlabel(r"ratio  $r = \pi / \pi_\mathrm{old}$", color=GREY, fontsize=9)
    fig.supylabel(r"weight on $\nabla \log \pi$, per unit of A", color=GREY, fontsize=9)
    fig.tight_layout(rect=(0, 0, 1, top + 0.03))
    return fig


def _frame(axes: Any) -> None:
    """Format the axes and draw the reference lines r = 1 and weight = r (no clipping)."""
    axes.set_xscale("log")
    axes.set_xlim(RATIO_MIN, RATIO_MAX)
    axes.set_ylim(-0.08, WEIGHT_MAX)
    axes.set_xticks([0.125, 0.25, 0.5, 1, 2, 4], ["⅛", "¼", "½", "1", "2", "4"])
    axes.minorticks_off()
    axes.grid(color=GREY, alpha=0.18, linewidth=0.6)
    axes.axvline(1, color=GREY, alpha=0.5, linewidth=0.8)
    axes.plot(ratios(), ratios(), color=GREY, linestyle=":", linewidth=1.0)
    axes.tick_params(colors=GREY, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#d1d5db")
