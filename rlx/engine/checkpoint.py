"""Atomic checkpoints: weights, optimiser, random states and the position in the run, with the hash of each file.

checkpoints/step_000025/model.safetensors      trained weights and buffers
checkpoints/step_000025/optimizer.safetensors  state of the optimiser
checkpoints/step_000025/state.json             position, random states, hashes of the sample parts so far
checkpoints/step_000025/metrics.jsonl          the records up to this step
checkpoints/step_000025/rlx_manifest.json      sizes and SHA-256 of these files
checkpoints/newest.json                        step of the checkpoint that was written last

engine/recovery.py chooses the checkpoint that a run continues from.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlx.engine.full_tensor import full_tensor
from rlx.engine.random_states import random_states, set_random_states
from rlx.engine.shard import shard_like
from rlx.engine.step import Engine
from rlx.errors import UserError, reason
from rlx.runs.checkpoint_files import (
    FORMAT,
    METRICS,
    STATE,
    TEMPORARY,
    TRASH,
    WEIGHTS,
    Position,
    check_checkpoint,
    newest_file,
    read_state,
)
from rlx.runs.folder import RunDir, write_atomically
from rlx.runs.integrity import BackgroundHashes, Damaged, stored_hash, write_manifest


def save_checkpoint(folder: Path, engine: Engine, position: Position, keep: int, run: RunDir | None = None) -> None:
    """Write ``folder`` completely or not at all, then remove checkpoints other than the ``keep`` newest and the best.

    Called on every process; rank 0 writes.

    Args:
        folder: the checkpoint's.
        engine: holds weights and optimiser.
        position: the position in the run.
        keep: number of newest checkpoints to keep.
        run: the run whose metrics are copied into the checkpoint, and whose sample parts it lists.

    Raises:
        UserError: when it cannot be written; earlier checkpoints are unchanged.
    """
    tensors = _tensors(engine)
    if engine.rank == 0:
        temporary = folder.with_name(TEMPORARY + folder.name)
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write_files(temporary, tensors, position, run)
            _remove(folder)
            temporary.rename(folder)
            _sync(folder.parent)
            write_atomically(newest_file(folder.parent), json.dumps({"step": position.step}))
        except (OSError, SafetensorError) as error:  # safetensors raises an error of its own when the disk is full
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(
                f"checkpoint {folder} cannot be written ({reason(error)})",
                fix="free some space and run the same command again: it continues from the previous checkpoint",
                exit_code=1,
            ) from None
        _prune(folder.parent, keep, position.best_step)
    engine.accelerator.wait_for_everyone()


def _write_files(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], position: Position, run: RunDir | None
) -> None:
    """Write the files of a checkpoint; each is hashed while the next one is written and synchronised to the disk."""
    hashes = BackgroundHashes()
    for name, content in tensors.items():
        file = folder / f"{name}.safetensors"
        save_file(dict(content), file)
        hashes.add(file)
    state: dict[str, Any] = {"format": FORMAT, "position": asdict(position), "random": random_states()}
    if run is not None:
        state["samples"] = {part.name: stored_hash(part) for part in run.sample_parts()}
        if run.metrics.is_file():
            with run.metrics.open("rb") as file_of_metrics:
                (folder / METRICS).write_bytes(file_of_metrics.read(position.metrics_bytes))
    (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
    for file in folder.iterdir():
        _sync(file)
    write_manifest(folder, hashes)


def load_checkpoint(folder: Path, engine: Engine, verified: bool = False) -> Position:
    """Restore weights, optimiser and random states.

    Args:
        folder: the checkpoint's.
        engine: receives them.
        verified: whether its files were compared with the manifest already.

    Raises:
        UserError: when a file is missing, damaged or from another model.
    """
    try:
        if not verified:
            check_checkpoint(folder)
        state = read_state(folder)
        model, optimizer = (load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer"))
        position = Position(**state["position"])
        _restore(engine, model, optimizer)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, Damaged) as error:
        raise UserError(
            f"checkpoint {folder} cannot be read ({_described(error)})",
            fix="run the same command again to continue from an earlier one, or start again with --fresh",
            exit_code=1,
        ) from None
    engine.updates, engine.skipped = position.updates, position.skipped
    if engine.rank == 0:
        set_random_states(state["random"])
    else:
        torch.manual_seed(1_000_003 * engine.rank + position.step)
    return position


def load_weights(folder: Path, engine: Engine) -> None:
    """Restore the weights of a checkpoint and nothing else.

    Raises:
        UserError: when they are missing or damaged.
    """
    try:
        check_checkpoint(folder, only=WEIGHTS)
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, Damaged) as error:
        raise UserError(
            f"checkpoint {folder} cannot be read ({_described(error)})",
            fix="run the same command again: it goes on from a checkpoint before that one",
            exit_code=1,
        ) from None
    _restore(engine, weights, {})


def put_weights(folder: Path, model: nn.Module) -> None:
    """Copy a checkpoint's weights into a model that is not being trained.

    Raises:
        UserError: when they are missing, damaged or from another model.
    """
    try:
        check_checkpoint(folder, only=WEIGHTS)
        saved = load_file(folder / WEIGHTS)
        own = model.state_dict()
        unexpected = sorted(set(saved) - set(own))
        if unexpected:
            raise ValueError(f"the model has no weight {unexpected[0]}")
        with torch.no_grad():
            for name, tensor in saved.items():
                own[name].copy_(tensor)
    except (OSError, ValueError, RuntimeError, SafetensorError, Damaged) as error:
        raise UserError(
            f"checkpoint {folder} cannot be read ({_described(error)})",
            fix="name another one with --checkpoint",
            exit_code=1,
        ) from None


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"


def _tensors(engine: Engine) -> dict[str, dict[str, Tensor]]:
    """Unsharded tensors of weights and optimiser by parameter name, on rank 0."""
    named = _named(engine)
    pieces = [("model", name, tensor) for name, tensor in named.items()]
    for name, parameter in named.items():
        for key, value in engine.optimizer.state.get(parameter, {}).items():
            pieces.append(("optimizer", f"{name}/{key}", torch.as_tensor(value)))
    tensors: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
    for part, name, tensor in pieces:
        gathered = full_tensor(tensor)  # collective; only rank 0 keeps the result
        if engine.rank == 0:
            tensors[part][name] = gathered.cpu().contiguous().clone()
    return tensors


def _named(engine: Engine) -> dict[str, Tensor]:
    """The tensors that training changes: trainable parameters (tied ones once) and persistent buffers."""
    named: dict[str, Tensor] = {name: p for name, p in engine.raw.named_parameters() if p.requires_grad}
    saved = engine.raw.state_dict().keys()
    named.update({name: buffer for name, buffer in engine.raw.named_buffers() if name in saved})
    return named


def _restore(engine: Engine, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
    named = _named(engine)
    if set(model) != set(named):
        raise ValueError(f"it holds {len(model)} weights, the model has {len(named)}")
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(shard_like(model[name], tensor))
    for key, value in optimizer.items():
        name, _, slot = key.rpartition("/")
        parameter = named[name]
        # Fused AdamW reads its step counter on the parameter's own device; a CUDA run stops if it is left on the CPU.
        restored = value.to(parameter.device, copy=True) if slot == "step" else shard_like(value, parameter)
        # safetensors maps the file into memory; the optimiser must not depend on a file that is removed later.
        restored = restored.clone() if restored is value else restored
        engine.optimizer.state[parameter][slot] = restored


def _prune(folder: Path, keep: int, best_step: int) -> None:
    complete = sorted(folder.glob("step_*"))
    for path in complete[:-keep]:
        if path.name != f"step_{best_step:06d}":
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder so that a process killed half-way leaves nothing that looks like a checkpoint."""
    if path.exists():
        trash = path.with_name(TRASH + path.name)
        shutil.rmtree(trash, ignore_errors=True)
        path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
