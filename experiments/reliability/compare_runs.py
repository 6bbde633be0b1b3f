"""Bit-by-bit comparison of all run folders of two folders, without measured times."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

MEASURED = ("time/", "perf/", "memory/")
"""Prefixes of metrics that differ between two runs of the same spec."""
TIMES = ("seconds", "created", "started", "finished", "date", "time", "python", "machine")
"""Keys of JSON files that contain a time or a path of the machine."""
MASKED = re.compile(r"hmac:[0-9a-f]+|(?<=characters, )[0-9a-f]{8}")
"""Hashes of masked texts, whose key is random in each run."""
COMPARED = {
    "weights": ("model/*.safetensors", "checkpoints/step_*/model.safetensors"),
    "optimiser": ("checkpoints/step_*/optimizer.safetensors",),
    "random states": ("checkpoints/step_*/state.json",),
    "samples": ("samples.parquet/*.parquet", "evaluations/*/*/samples.parquet"),
    "metrics without times": ("metrics.jsonl",),
    "results": ("evaluations/*/*/result.json", "summary.json", "certificate.json"),
}
"""What is compared, with the files of a run folder."""


def differences(reference: Path, target: Path) -> list[str]:
    """The files of the runs that differ or are missing, by name; empty if all are equal."""
    expected = {path.name: path for path in _runs(reference)}
    actual = {path.name: path for path in _runs(target)}
    result = [f"{name} exists in one of both folders" for name in sorted(expected.keys() ^ actual.keys())]
    for name in sorted(expected.keys() & actual.keys()):
        result += [f"{name}: {file}" for file in _different(expected[name], actual[name])]
    return result


def _runs(folder: Path) -> list[Path]:
    return [path for path in sorted((folder / "runs").iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _different(first: Path, second: Path) -> list[str]:
    result = []
    for kind, patterns in COMPARED.items():
        for pattern in patterns:
            names = {path.relative_to(root) for root in (first, second) for path in root.glob(pattern)}
            result += [
                f"{name} ({kind})" for name in sorted(names) if _content(first / name) != _content(second / name)
            ]
    return result


def _content(path: Path) -> Any:
    """What is compared of a file or a folder of part files; None if it is missing."""
    if path.is_dir():
        return _rows(path)
    if not path.is_file():
        return None
    if path.name == "metrics.jsonl":
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{key: value for key, value in line.items() if not key.startswith(MEASURED)} for line in lines]
    if path.name == "state.json":
        state = json.loads(path.read_text(encoding="utf-8"))
        # The length of metrics.jsonl depends on the digits of measured times; the samples are compared themselves.
        position = {key: value for key, value in state["position"].items() if key != "metrics_bytes"}
        return {**state, "position": position, "samples": sorted(state["samples"])}
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".parquet":
        return _part(path)
    return path.read_bytes()


def _part(path: Path) -> list[str]:
    """The rows of a part file."""
    import pyarrow.parquet as pq

    return [MASKED.sub("", json.dumps(row, sort_keys=True, default=str)) for row in pq.read_table(path).to_pylist()]


def _rows(folder: Path) -> list[Any]:
    """The rows of a data set, in an order of their own: an evaluation's parts depend on the kills, its rows do not."""
    return sorted(row for part in folder.glob("part_*.parquet") for row in _part(part))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if not any(t in key.lower() for t in TIMES)}
    if isinstance(value, list):
        return [_without_times(inner) for inner in value]
    return MASKED.sub("", value) if isinstance(value, str) else value
