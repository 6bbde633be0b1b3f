"""Rows of a data source: a file, a glob, a folder saved by ``datasets``, or a hub data set."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlx.errors import UserError, did_you_mean
from rlx.files.formats import FORMATS, Row, file_format, missing_file, read_file, table_rows


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from.

    Example:
        ``Source("openai/gsm8k", subset="main", split="test")``, ``Source("data/*.jsonl", key="forget.source")``
    """

    name: str
    """A path, a glob or the id of a hub data set."""
    subset: str | None = None
    """Configuration name of a hub data set."""
    split: str = "train"
    """Split of a hub data set, or of a folder with several."""
    revision: str | None = None
    """Commit or tag on the hub."""
    key: str = "data.source"
    """Key of the spec, for error messages."""


def read_source(source: Source) -> Iterator[Row]:
    """Rows of a source, in order; those of a glob file by file, sorted by name.

    Raises:
        UserError: when the source is missing, damaged or of an unknown format. A row that cannot be read is no error
            here: it is returned with its ``problem``.
    """
    files = local_files(source)
    if files is None:
        yield from _hub(source)
    elif len(files) == 1 and files[0].is_dir():
        yield from _saved_dataset(files[0], source)
    else:
        for file in files:
            prefix = f"{file.name} " if len(files) > 1 else ""
            for row in read_file(file):
                yield replace(row, location=f"{prefix}{row.location}") if prefix else row


def local_files(source: Source) -> list[Path] | None:
    """The files of a local source, or the folder that ``datasets`` saved; None for a hub data set.

    Raises:
        UserError: for a glob without a match, a folder of another kind, and a suffix that is not read.
    """
    path = Path(source.name)
    if "\0" in source.name:
        raise UserError(f"data file {source.name!r} cannot be read (a NUL in the path)", fix="correct the path")
    if path.is_dir():
        return [_checked_folder(path, source)]
    exists = path.exists()
    if not exists and any(letter in source.name for letter in "*?["):
        files = sorted(Path(match) for match in glob.glob(source.name, recursive=True) if Path(match).is_file())
        if not files:
            raise UserError(f"{source.key} '{source.name}' matches no file", fix="correct the glob, in quotes")
        return [_checked_suffix(file, source) for file in files]
    if not exists and not file_format(path) and not _looks_like_path(source.name):
        return None
    if not exists:
        raise missing_file(source.name)
    return [_checked_suffix(path, source)]


def _looks_like_path(name: str) -> bool:
    """Whether a name that does not exist cannot be that of a hub data set (``name`` or ``owner/name``)."""
    return name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or not name


def _checked_suffix(path: Path, source: Source) -> Path:
    if not file_format(path):
        raise UserError(
            f"{source.key} '{path}' has none of the suffixes that rlx reads", fix=f"convert or rename it ({FORMATS})"
        )
    return path


def _checked_folder(path: Path, source: Source) -> Path:
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise UserError(
            f"{source.key} '{source.name}' is a folder that datasets.save_to_disk did not write",
            fix=f"name a file in it or a glob such as {path}/*.jsonl",
        )
    return path


def _saved_dataset(folder: Path, source: Source) -> Iterator[Row]:
    """Rows of a folder written by ``datasets.save_to_disk``; ``split`` chooses among several."""
    import pyarrow as pa

    try:
        if (folder / "dataset_dict.json").is_file():
            splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            if source.split not in splits:
                raise UserError(f"{folder} has no split '{source.split}'", fix=did_you_mean(source.split, splits))
            folder = folder / source.split
        names = [entry["filename"] for entry in json.loads((folder / "state.json").read_text())["_data_files"]]
        tables = [_arrow_table(folder / name) for name in names]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{source.key} '{source.name}' is not a complete saved data set ({reason})", fix="save it again"
        ) from None
    if tables:
        yield from table_rows(pa.concat_tables(tables))


def _arrow_table(path: Path) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


def _hub(source: Source) -> Iterator[Row]:
    import datasets

    name, subset, split = source.name, source.subset, source.split
    try:
        rows = datasets.load_dataset(name, subset, split=split, revision=source.revision)
    except Exception as error:  # datasets raises a dozen unrelated kinds for a missing name, split or network
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{source.key} '{name}' (subset {subset}, split {split}) does not load ({reason})",
            fix=f"check the name and the network, or give a local file ({FORMATS})",
            exit_code=1,
        ) from None
    for number, content in enumerate(rows, 1):
        yield Row(f"row {number}", number, content)
