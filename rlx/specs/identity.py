"""The identity of a run: a hash of its spec and of the fingerprints of the local files that it reads."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.files.row_hash import source_hash
from rlx.files.sources import Source
from rlx.specs.model_source import adapter_base
from rlx.specs.train import Section, Spec
from rlx.specs.unlearn import UnlearnSpec

MODEL_SUFFIXES = (".json", ".safetensors", ".jinja", ".model", ".txt")
"""Suffixes of the files of a saved model that its fingerprint covers."""
MANIFEST = "rlx_manifest.json"
"""Hashes that rlx writes next to a model's files; they follow from these, so that fingerprints leave them out."""
LARGE_FILE, WINDOW = 64 << 20, 1 << 20
"""Of a weights file above ``LARGE_FILE`` bytes only the size and the first and last ``WINDOW`` bytes are hashed."""


def run_id(
    spec: Spec | UnlearnSpec,
    name_parts: Sequence[str],
    exclude: Mapping[str, Any],
    fingerprints: Mapping[str, str],
) -> str:
    """Return the run's id: a readable label and a hash of everything that determines the run's result.

    Args:
        spec: the resolved spec; the label is its ``run_name`` if it has one.
        name_parts: method, model and data, which make up the label of a run without a ``run_name``.
        exclude: sections and keys that do not affect the result, in the form of pydantic's ``exclude``.
        fingerprints: content hashes of local files.
    """
    content = _identifying_content(spec, spec.model_dump(mode="json", exclude=dict(exclude)))
    identity = json.dumps({"spec": content, "fingerprints": dict(fingerprints)}, sort_keys=True)
    label = spec.run_name or "_".join(stem(part) for part in name_parts) + f"_s{spec.seed}"
    return f"{label}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


def stem(text: str) -> str:
    """Return the last part of a path or hub id, with only characters that are safe in a folder name."""
    last = text.rstrip("/").rsplit("/", 1)[-1].removesuffix(".jsonl").removesuffix(".parquet").replace(".py:", "-")
    return "".join(letter if letter.isalnum() or letter in "._-@" else "-" for letter in last).lower()


def data_fingerprints(sources: Mapping[str, Sequence[Source]]) -> dict[str, str]:
    """Return the hashes of the rows of those sources that are local; the same rows have one hash in every format.

    Args:
        sources: name of the fingerprint to its sources, in order.

    Raises:
        UserError: when a source exists and cannot be read.
    """
    fingerprints = {}
    for name, parts in sources.items():
        hashes = [source_hash(part) for part in parts]
        if len(hashes) == 1 and hashes[0] is not None:
            fingerprints[name] = hashes[0]
        elif any(hashes):
            pairs = zip(parts, hashes, strict=True)
            fingerprints[name] = hash_lines([row_hash or f"hub {part.name}" for part, row_hash in pairs])
    return fingerprints


def earlier_fingerprints(sources: Mapping[str, Sequence[Source]]) -> dict[str, str]:
    """Return the fingerprints that versions before the hash of rows gave to these sources: the hash of one file."""
    return file_fingerprints({name: parts[0].name for name, parts in sources.items() if len(parts) == 1})


def file_fingerprints(sources: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of those sources that are local files, under the sources' names."""
    return {name: file_hash(Path(source)) for name, source in sources.items() if Path(source).is_file()}


def code_fingerprints(references: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of the files of those references that are ``path/to/file.py:function``; skip registered names.

    Args:
        references: name of the fingerprint to the reference of a method or reward.
    """
    files = {name: reference.partition(":")[0] for name, reference in references.items()}
    return file_fingerprints({name: file for name, file in files.items() if Path(file).suffix == ".py"})


def model_fingerprints(name: str, folder: str) -> dict[str, str]:
    """Return the hashes of a local model folder and, if it is a LoRA adapter, of its base; empty for a hub id."""
    path = Path(folder)
    if not path.is_dir():
        return {}
    fingerprints = {name: model_hash(path)}
    base = adapter_base(path)
    if base is not None:
        fingerprints[f"{name}_base"] = model_hash(Path(base)) if Path(base).is_dir() else base
    return fingerprints


def model_hash(folder: Path) -> str:
    """Return a hash of a saved model's files."""
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and file.suffix in MODEL_SUFFIXES and file.name != MANIFEST
    ]
    versions = [(file.absolute(), file.stat()) for file in files]
    return hash_lines(
        [f"{file.name}:{_hash_of_version(file, s.st_size, s.st_mtime_ns, s.st_ino)}" for file, s in versions]
    )


def hash_lines(lines: Sequence[str], separator: str = "\n") -> str:
    """Return a hash of several strings."""
    return "sha256:" + hashlib.sha256(separator.join(lines).encode()).hexdigest()[:32]


def file_hash(path: Path) -> str:
    """Return a hash of a file; of large weights only of the size and the first and last MiB, which training changes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size > LARGE_FILE and path.suffix == ".safetensors":
            digest.update(file.read(WINDOW))
            file.seek(-WINDOW, 2)
        while block := file.read(WINDOW):
            digest.update(block)
    return "sha256:" + digest.hexdigest()[:32]


@functools.lru_cache(maxsize=1024)
def _hash_of_version(path: Path, size: int, modified: int, inode: int) -> str:
    """Compute ``file_hash`` once for each version of a file: a study resolves hundreds of specs with the same model."""
    return file_hash(path)


def _identifying_content(section: Section, content: dict[str, Any]) -> dict[str, Any]:
    """Return the content as the id covers it.

    Keys that were added to rlx later and have their default are removed (``ADDED_LATER``). A value in the schema's
    ``identified_as`` is replaced: a choice that was added later, and has the result of the former default, keeps the
    ids of earlier runs.
    """
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), field.serialization_alias or name
        if key not in content:
            continue
        extra = field.json_schema_extra
        added_later = isinstance(extra, dict) and extra.get("added_later")
        if added_later and value == field.get_default(call_default_factory=True):
            del content[key]
        elif isinstance(value, Section):
            content[key] = _identifying_content(value, content[key])
        elif isinstance(extra, dict) and isinstance(replaced := extra.get("identified_as"), dict):
            content[key] = replaced.get(value, value)
    return content
