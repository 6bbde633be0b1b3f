"""Constants of the model before training, computed once and kept on disk under a hash of what they follow from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlx.engine.hidden_state_hook import HiddenStateHook
from rlx.engine.step import Engine
from rlx.errors import UserError, reason
from rlx.numerics.collate import TokenBatch
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.output_layer.statistics import label_logprobs, over_logits, row_logits
from rlx.unlearning.update import Constants, Row


def reference_constants(
    engine: Engine, rows: Sequence[Row], wanted: set[str], top_k: int, tap: HiddenStateHook | None
) -> list[Constants]:
    """The wanted constants of every row, under the engine's present weights.

    Args:
        engine: holds the model, not yet trained.
        rows: sequences with their labels.
        wanted: names such as ``ref_nll``, without a side.
        top_k: entries of ``ref_topk``; at most the vocabulary.
        tap: the layer of ``ref_layer``.
    """
    if not wanted:
        return [{} for _ in rows]

    def read(hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        labels_n = tokens.targets_n
        if "ref_nll" in wanted:
            labelled = [flag for member in tokens.members for flag in rows[member].labelled]
            nll_n = -label_logprobs(hidden_nd, labels_n, head)
            kept_n = torch.tensor(labelled, dtype=torch.bool, device=nll_n.device)
            found["ref_nll"] = tokens.padded(torch.where(kept_n, nll_n, 0.0)).sum(dim=1)
        if "ref_topk" in wanted:
            k = min(top_k, head.weight_vd.shape[0])
            found["ref_topk"] = over_logits(lambda z: z.topk(k, dim=1).indices, hidden_nd, head)
        if "ref_argmax" in wanted:
            found["ref_argmax"] = over_logits(lambda z: z.argmax(dim=1), hidden_nd, head)
        if "ref_label_logit" in wanted:
            found["ref_label_logit"] = row_logits(hidden_nd, labels_n[:, None], head).squeeze(1)
        if "ref_hidden" in wanted:
            found["ref_hidden"] = hidden_nd
        if "ref_layer" in wanted and tap is not None:
            found["ref_layer"] = tap.at(tokens.rows_n, tokens.columns_n)
        return found

    constants: list[dict[str, Tensor]] = [{} for _ in rows]
    for members, found in engine.score([row.sequence for row in rows], read):
        lengths = [len(rows[member].sequence.response) for member in members]
        for need, values in found.items():
            pieces = torch.split(values.cpu(), 1 if need == "ref_nll" else lengths)
            for member, piece in zip(members, pieces, strict=True):
                constants[member][need] = piece.clone()
    return list(constants)


def cached(folder: Path, digest: str, rows: int) -> list[Constants] | None:
    """What was computed before under this digest; ``None`` when nothing (or nothing readable) was."""
    path = folder / f"{digest}.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return None
    constants: list[dict[str, Tensor]] = [{} for _ in range(rows)]
    for name, tensor in tensors.items():
        need, _, number = name.rpartition("/")
        constants[int(number)][need] = tensor
    return list(constants)


def keep(folder: Path, digest: str, constants: Sequence[Constants]) -> None:
    """Write constants so that they stand whole or not at all.

    Raises:
        UserError: when the disk refuses.
    """
    tensors = {f"{need}/{i}": value for i, row in enumerate(constants) for need, value in row.items()}
    temporary = folder / f".{digest}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        temporary.replace(folder / f"{digest}.safetensors")
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"reference figures cannot be written to {folder} ({reason(error)})",
            fix="free some space and run the same command again",
            exit_code=1,
        ) from None


def digest_of(model: str, rows: Sequence[Row], wanted: set[str], *settings: object) -> str:
    """A hash of everything that constants follow from.

    Args:
        model: fingerprint of the model's weights, or its hub id and revision.
        rows: the sequences.
        wanted: names of the constants.
        settings: what else matters, such as top_k, layer and precision.
    """
    digest = hashlib.sha256(repr((model, sorted(wanted), settings)).encode())
    for row in rows:
        digest.update(repr((row.sequence.prompt, row.sequence.response, row.labelled)).encode())
    return digest.hexdigest()[:24]
