"""Atomic checkpoints in safetensors: weights, optimiser, random states and the position in the run."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlx.engine.full_tensor import full_tensor
from rlx.engine.shard import shard_like
from rlx.engine.step import Engine
from rlx.errors import UserError, reason

TEMPORARY = ".tmp-"
TRASH = ".old-"


@dataclass(frozen=True, slots=True)
class Position:
    """The position in the run of a checkpoint; every sampling seed follows from ``step`` and the index in the rollout.

    Example:
        ``Position(step=25, updates=100, skipped=0, metrics_bytes=20311, drawn=800, best_step=25, best_score=0.61)``
    """

    step: int
    updates: int
    skipped: int
    """Number of non-finite updates in a row so far."""
    metrics_bytes: int
    """Length of metrics.jsonl at this step."""
    drawn: int = 0
    """Prompts drawn from the data so far, over all epochs."""
    best_step: int = -1
    best_score: float = -1.0


def save_checkpoint(folder: Path, engine: Engine, position: Position, keep: int) -> None:
    """Write ``folder`` completely or not at all, then remove checkpoints other than the ``keep`` newest and the best.

    Called on every process; rank 0 writes.

    Raises:
        UserError: when it cannot be written; earlier checkpoints are unchanged.
    """
    tensors = _tensors(engine)
    if engine.rank == 0:
        temporary = folder.with_name(TEMPORARY + folder.name)
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, content in tensors.items():
                save_file(content, temporary / f"{name}.safetensors")
            state = {"position": asdict(position), "random": _random_states()}
            (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
            for file in temporary.iterdir():
                _sync(file)
            _remove(folder)
            temporary.rename(folder)
            _sync(folder.parent)
        except (OSError, SafetensorError) as error:  # safetensors raises an error of its own when the disk is full
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(
                f"checkpoint {folder} cannot be written ({reason(error)})",
                fix="free some space and run the same command again: it continues from the previous checkpoint",
                exit_code=1,
            ) from None
        _prune(folder.parent, keep, position.best_step)
    engine.accelerator.wait_for_everyone()


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; incomplete files left by a killed process are removed."""
    for leftover in (*folder.glob(f"{TEMPORARY}*"), *folder.glob(f"{TRASH}*")):
        shutil.rmtree(leftover, ignore_errors=True)
    complete = sorted(path for path in folder.glob("step_*") if (path / "state.json").is_file())
    return complete[-1] if complete else None


def load_checkpoint(folder: Path, engine: Engine) -> Position:
    """Restore weights, optimiser and random states.

    Raises:
        UserError: when a file is missing, damaged or from another model.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        model, optimizer = (load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer"))
        position = Position(**state["position"])
        _restore(engine, model, optimizer)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"checkpoint {folder} cannot be read ({type(error).__name__}: {error})",
            fix="remove that folder to continue from the previous one, or start again with --fresh",
            exit_code=1,
        ) from None
    engine.updates, engine.skipped = position.updates, position.skipped
    if engine.rank == 0:
        _set_random_states(state["random"])
    else:
        torch.manual_seed(1_000_003 * engine.rank + position.step)
    return position


def load_weights(folder: Path, engine: Engine) -> None:
    """Restore the weights of a checkpoint and nothing else."""
    _restore(engine, load_file(folder / "model.safetensors"), {})


def put_weights(folder: Path, model: nn.Module) -> None:
    """Copy a checkpoint's weights into a model that is not being trained.

    Raises:
        UserError: when they are missing, damaged or from another model.
    """
    try:
        saved = load_file(folder / "model.safetensors")
        own = model.state_dict()
        unexpected = sorted(set(saved) - set(own))
        if unexpected:
            raise ValueError(f"the model has no weight {unexpected[0]}")
        with torch.no_grad():
            for name, tensor in saved.items():
                own[name].copy_(tensor)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"checkpoint {folder} cannot be read ({type(error).__name__}: {error})",
            fix="name another one with --checkpoint",
            exit_code=1,
        ) from None


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
        engine.optimizer.state[parameter][slot] = restored


def _random_states() -> dict[str, Any]:
    """States of Python's, numpy's and torch's global generators, as JSON."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
    }
    if torch.cuda.is_available():
        states["cuda"] = [base64.b64encode(s.numpy().tobytes()).decode() for s in torch.cuda.get_rng_state_all()]
    return states


def _set_random_states(states: Mapping[str, Any]) -> None:
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_bytes(states["torch"]))
    if torch.cuda.is_available() and len(states.get("cuda", [])) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_bytes(text) for text in states["cuda"]])


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


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
