"""Constants of the model before training, computed once and stored under a hash of what they depend on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlx.console import warn
from rlx.engine.hidden_state_hook import HiddenStateHook
from rlx.engine.step import Engine
from rlx.errors import UserError, reason
from rlx.numerics.collate import TokenBatch
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.output_layer.statistics import label_logprobs, over_logits, row_logits
from rlx.runs.folder import write_atomically
from rlx.runs.integrity import Damaged, check_file, replace_with_hash
from rlx.unlearning.update import Constants, Row


def reference_constants(
    engine: Engine, rows: Sequence[Row], names: set[str], top_k: int, hook: HiddenStateHook | None
) -> list[Constants]:
    """The named constants of every row, under the engine's current weights.

    Args:
        engine: the model, not yet trained.
        rows: sequences with their labels.
        names: such as ``ref_nll``, without a side.
        top_k: entries of ``ref_topk``; at most the vocabulary.
        hook: the layer of ``ref_layer``.
    """
    if not names:
        return [{} for _ in rows]

    def read(hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> dict[str, Tensor]:
        constants_of: dict[str, Tensor] = {}
        labels_n = tokens.targets_n
        if "ref_nll" in names:
            labelled = [flag for member in tokens.members for flag in rows[member].labelled]
            nll_n = -label_logprobs(hidden_nd, labels_n, head)
            kept_n = torch.tensor(labelled, dtype=torch.bool, device=nll_n.device)
            constants_of["ref_nll"] = tokens.padded(torch.where(kept_n, nll_n, 0.0)).sum(dim=1)
        if "ref_topk" in names:
            k = min(top_k, head.weight_vd.shape[0])
            constants_of["ref_topk"] = over_logits(lambda z: z.topk(k, dim=1).indices, hidden_nd, head)
        if "ref_argmax" in names:
            constants_of["ref_argmax"] = over_logits(lambda z: z.argmax(dim=1), hidden_nd, head)
        if "ref_label_logit" in names:
            constants_of["ref_label_logit"] = row_logits(hidden_nd, labels_n[:, None], head).squeeze(1)
        if "ref_hidden" in names:
            constants_of["ref_hidden"] = hidden_nd
        if "ref_layer" in names and hook is not None:
            constants_of["ref_layer"] = hook.at(tokens.rows_n, tokens.columns_n)
        return constants_of

    constants: list[dict[str, Tensor]] = [{} for _ in rows]
    for members, constants_of in engine.score([row.sequence for row in rows], read):
        lengths = [len(rows[member].sequence.response) for member in members]
        for need, values in constants_of.items():
            pieces = torch.split(values.cpu(), 1 if need == "ref_nll" else lengths)
            for member, piece in zip(members, pieces, strict=True):
                constants[member][need] = piece.clone()
    return list(constants)


def load_constants(folder: Path, digest: str, rows: int) -> list[Constants] | None:
    """The constants stored under this digest; None if there are none, or if they are damaged: then they are recomputed.

    Constants without a hash, which an earlier version wrote, are read as they are.
    """
    path = _constants_file(folder, digest)
    if not path.is_file():
        return None
    try:
        check_file(path)
        tensors = load_file(path)
        constants: list[dict[str, Tensor]] = [{} for _ in range(rows)]
        for name, tensor in tensors.items():
            need, _, number = name.rpartition("/")
            constants[int(number)][need] = tensor
    except (OSError, SafetensorError, Damaged, ValueError, IndexError) as error:
        detail = str(error) if isinstance(error, Damaged) else f"{path.name}: {error}"
        warn(f"the reference constants in {folder} are damaged ({detail}); they are computed again")
        return None
    return list(constants)


def save_constants(folder: Path, digest: str, constants: Sequence[Constants]) -> None:
    """Write constants completely or not at all, with their hash.

    Raises:
        UserError: when they cannot be written.
    """
    tensors = {f"{need}/{i}": value for i, row in enumerate(constants) for need, value in row.items()}
    temporary = folder / f".{digest}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        replace_with_hash(temporary, _constants_file(folder, digest))
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"reference constants cannot be written to {folder} ({reason(error)})",
            fix="free some space and run the same command again",
            exit_code=1,
        ) from None


def list_reference(path: Path, digest: str) -> None:
    """Note in the run folder that the run uses these constants, so that ``--purge`` can find them.

    Args:
        path: the list, one file name a line.
        digest: of the constants.
    """
    name = _constants_file(path.parent, digest).name
    names = path.read_text(encoding="ascii").split() if path.exists() else []
    if name not in names:
        write_atomically(path, "".join(f"{line}\n" for line in [*names, name]))


def _constants_file(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.safetensors"


def digest_of(model: str, rows: Sequence[Row], names: set[str], *settings: object) -> str:
    """A hash of everything that the constants depend on.

    Args:
        model: fingerprint of the model's weights, or its hub id and revision.
        rows: the sequences.
        names: of the constants.
        settings: further dependencies, such as top_k, layer and precision.
    """
    digest = hashlib.sha256(repr((model, sorted(names), settings)).encode())
    for row in rows:
        digest.update(repr((row.sequence.prompt, row.sequence.response, row.labelled)).encode())
    return digest.hexdigest()[:24]
