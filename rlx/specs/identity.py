"""What identifies a run: the content of its spec and the fingerprints of the local files that it reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.specs.model_source import adapter_base
from rlx.specs.train import Section

MODEL_SUFFIXES = (".json", ".safetensors", ".jinja", ".model", ".txt")
"""Files of a saved model that its fingerprint covers."""
LARGE_FILE, WINDOW = 64 << 20, 1 << 20
"""Of a weights file above ``LARGE_FILE`` bytes only the size and the first and last ``WINDOW`` bytes are hashed."""


def run_id(label: str, spec: Section, exclude: Mapping[str, Any], fingerprints: Mapping[str, str]) -> str:
    """The run's id: its label and a hash of everything that decides what it computes.

    Args:
        label: the readable first part.
        spec: the resolved spec.
        exclude: sections and keys that do not change what the run computes, in pydantic's form.
        fingerprints: content hashes of local files.
    """
    content = _identifying_content(spec, spec.model_dump(mode="json", exclude=dict(exclude)))
    identity = {"spec": content, "fingerprints": dict(fingerprints)}
    return f"{label}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]}"


def run_label(name: str | None, stems: tuple[str, ...], seed: int) -> str:
    """The user's run name, or one made of the method, the model and the data."""
    return name or "_".join(stem(text) for text in stems) + f"_s{seed}"


def stem(text: str) -> str:
    """The last part of a path or hub id, as it may stand in a folder's name."""
    last = text.rstrip("/").rsplit("/", 1)[-1].removesuffix(".jsonl").removesuffix(".parquet").replace(".py:", "-")
    return "".join(letter if letter.isalnum() or letter in "._-@" else "-" for letter in last).lower()


def model_fingerprints(name: str, folder: str) -> dict[str, str]:
    """Hashes of a local model folder and, if it is a LoRA adapter, of its local base model; empty for a hub id."""
    path = Path(folder)
    if not path.is_dir():
        return {}
    fingerprints = {name: model_hash(path)}
    base = adapter_base(path)
    if base is not None:
        fingerprints[f"{name}_base"] = model_hash(Path(base)) if Path(base).is_dir() else base
    return fingerprints


def code_fingerprint(reference: str) -> str | None:
    """Hash of the Python file in ``path/to/file.py:function``; None for a registered name."""
    path = Path(reference.partition(":")[0])
    return file_hash(path) if path.suffix == ".py" and path.is_file() else None


def model_hash(folder: Path) -> str:
    """Hash of a saved model's files."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix in MODEL_SUFFIXES]
    lines = [f"{file.name}:{file_hash(file)}" for file in files]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def file_hash(path: Path) -> str:
    """Hash of a file; of large weights only their size and first and last MiB, which any training changes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size > LARGE_FILE and path.suffix == ".safetensors":
            digest.update(file.read(WINDOW))
            file.seek(-WINDOW, 2)
        while block := file.read(WINDOW):
            digest.update(block)
    return "sha256:" + digest.hexdigest()[:32]


def _identifying_content(section: Section, content: dict[str, Any]) -> dict[str, Any]:
    """The content without keys that were added to rlx later and have their default (``ADDED_LATER``)."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), field.serialization_alias or name
        if key not in content:
            continue
        extra = field.json_schema_extra
        if (
            isinstance(extra, dict)
            and extra.get("added_later")
            and value == field.get_default(call_default_factory=True)
        ):
            del content[key]
        elif isinstance(value, Section):
            content[key] = _identifying_content(value, content[key])
    return content
