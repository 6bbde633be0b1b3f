"""What in the folder of an unlearning run still holds the forgotten knowledge, and its deletion."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from rlx.runs.folder import RunDir
from rlx.runs.integrity import hash_file, is_plain_name
from rlx.runs.status import folder_bytes


@dataclass(frozen=True, slots=True)
class Remainder:
    """A file or folder that still holds the knowledge.

    Example:
        ``Remainder(Path("runs/palu-1f0c/checkpoints"), "weights and optimiser of every update that was saved", 5_210)``
    """

    path: Path
    content: str
    bytes: int


def remainders(folder: RunDir) -> list[Remainder]:
    """What a run folder, and the cache that its runs share, hold of the knowledge; the unlearned model is not listed.

    Args:
        folder: the run.
    """
    candidates = [
        (folder.checkpoints, "weights and optimiser during training"),
        (folder.samples, "scores and masked answers of each request"),
        (folder.clear_page, "certificate with the sensitive texts in clear"),
    ]
    candidates += [(cache, "values of the model before training") for cache in _reference_caches(folder)]
    candidates += [(evaluation.root, "answers of a checkpoint") for evaluation in folder.evaluations("step_*")]
    sizes = [(path, content, folder_bytes(path)) for path, content in candidates if path.exists()]
    return [Remainder(path, content, size) for path, content, size in sizes if path.is_file() or any(path.iterdir())]


def purge(items: list[Remainder]) -> None:
    """Delete them."""
    for item in items:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)
            hash_file(item.path).unlink(missing_ok=True)


def _reference_caches(folder: RunDir) -> list[Path]:
    """The run's files in the cache that all runs of the folder share; other runs compute them again if they need to."""
    if not folder.reference_list.is_file():
        return []
    names = folder.reference_list.read_text(encoding="ascii", errors="replace").split()
    return [folder.references / name for name in names if is_plain_name(name)]
