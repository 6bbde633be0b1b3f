"""SHA-256 of the files that rlx writes: a folder's manifest, a single file's hash file, and checks against them.

<folder>/rlx_manifest.json   sizes and hashes of the files of a checkpoint or a saved model
.<name>.sha256               hash of the file <name> in the same folder (sample parts, reference constants)
_<name>.damaged              a damaged file or folder that was set aside: nothing reads it, and nothing deletes it
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.specs.identity import MANIFEST

BLOCK = 4 << 20
"""Bytes that are read and hashed at once."""
THREADS = 4
"""Files that are hashed at the same time; hashing does not hold Python's lock."""


class Damaged(Exception):
    """A file differs from what was written; the text names the file and the difference, without a final stop."""


def is_plain_name(name: str) -> bool:
    """Whether a name that a file contains is that of a file in one folder, and no path out of it."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits.

    Raises:
        OSError: when it cannot be read, or is a device or pipe, whose content may have no end.
    """
    digest, buffer = hashlib.sha256(), bytearray(BLOCK)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file")
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


class BackgroundHashes:
    """The hashes of files, each computed in a thread from the moment that it is added.

    Example:
        ``hashes = BackgroundHashes([path]); build_model(); hashes.of(path)``
    """

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="sha256")
        self._results: dict[Path, Future[str]] = {}
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        """Start hashing a file."""
        self._results[path] = self._pool.submit(sha256, path)

    def of(self, path: Path) -> str:
        """The hash of a file, computed now if it was not requested before.

        Raises:
            OSError: when the file cannot be read.
        """
        return self._results[path].result() if path in self._results else sha256(path)


def manifest_files(folder: Path) -> list[Path]:
    """Every file below a folder except its manifest, by name."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST]


def write_manifest(folder: Path, hashes: BackgroundHashes | None = None) -> None:
    """Write the manifest of a folder that is complete."""
    hashes = hashes or BackgroundHashes(manifest_files(folder))
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": hashes.of(path)}
        for path in manifest_files(folder)
    }
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(_manifest_text(files))
        file.flush()
        os.fsync(file.fileno())


def _manifest_text(files: Mapping[str, Any]) -> str:
    """The only text that a manifest of these files can have, so that a change of any of its bytes is noticed."""
    own = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": own}, indent=1, sort_keys=True) + "\n"


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of each file of a folder, by name.

    Raises:
        FileNotFoundError: when the folder has no manifest.
        Damaged: when the manifest itself was changed.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode("utf-8")
        files: dict[str, dict[str, Any]] = json.loads(text)["files"]
        intact = text == _manifest_text(files)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{MANIFEST} cannot be read ({type(error).__name__})") from None
    if not intact:
        raise Damaged(f"{MANIFEST} differs from what was written")
    for name in files:
        if not all(map(is_plain_name, name.split("/"))):
            raise Damaged(f"{MANIFEST} names the file '{name}', which is not in the folder")
    return files


def check_folder(folder: Path, only: str = "", hashes: BackgroundHashes | None = None) -> None:
    """Compare the files of a folder with its manifest.

    Args:
        folder: with a manifest.
        only: name of the single file to check; by default all.
        hashes: computed earlier.

    Raises:
        FileNotFoundError: when the folder has no manifest.
        Damaged: for the first file that differs.
    """
    files = read_manifest(folder)
    names = [only] if only else list(files)
    for name in names:
        path = folder / name
        if name not in files:
            raise Damaged(f"{name} is not in {MANIFEST}")
        if not path.is_file():
            raise Damaged(f"{name} is missing")
        size, expected = path.stat().st_size, files[name]["bytes"]
        if size != expected:
            raise Damaged(f"{name} has {size:,} bytes instead of {expected:,}")
    hashes = hashes or BackgroundHashes([folder / name for name in names])
    for name in names:
        try:
            actual = hashes.of(folder / name)
        except OSError as error:
            raise Damaged(f"{name} cannot be read ({error.strerror})") from None
        if actual != files[name]["sha256"]:
            raise Damaged(f"{name} does not have the SHA-256 of {MANIFEST}")


@contextmanager
def verified(folder: Path) -> Iterator[None]:
    """Check a saved model's files in the background while this context loads them; without a manifest do nothing.

    Raises:
        UserError: when a file is damaged, also if loading it fails for that reason.
    """
    if not (folder / MANIFEST).is_file():
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        check = pool.submit(check_folder, folder)
        try:
            yield
        finally:
            try:
                check.result()
            except Damaged as damage:
                raise UserError(
                    f"{folder} is damaged: {damage}",
                    fix=f"use a checkpoint of its run or a copy; if you changed the file yourself, remove {MANIFEST}",
                    exit_code=1,
                ) from None


def hash_file(path: Path) -> Path:
    """The file with the hash of ``path``; hidden, so that readers of a data set's folder skip it."""
    return path.with_name(f".{path.name}.sha256")


def replace_with_hash(temporary: Path, path: Path) -> None:
    """Give a finished file its name, with its hash next to it; a process killed in between leaves both valid."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    digest = sha256(temporary)
    previous = stored_hash(path) if path.is_file() else ""
    _write_hash(path, [digest, previous] if previous else [digest])
    temporary.replace(path)
    if previous:
        _write_hash(path, [digest])


def stored_hash(path: Path) -> str:
    """The hash next to a file, or its own if none is stored."""
    return hash_file(path).read_text(encoding="ascii", errors="replace").split()[0] if has_hash(path) else sha256(path)


def _write_hash(path: Path, digests: list[str]) -> None:
    temporary = path.with_name(f".{path.name}.sha256.{os.getpid()}")
    temporary.write_text("\n".join(digests) + "\n", encoding="ascii")
    temporary.replace(hash_file(path))


def has_hash(path: Path) -> bool:
    """Whether a hash is stored next to a file; versions before hashes stored none."""
    return hash_file(path).is_file()


def check_file(path: Path) -> str:
    """Compare a file with the hash next to it, if there is one; return its hash.

    Raises:
        Damaged: when it is missing, cannot be read or differs.
    """
    try:
        actual = sha256(path)
        expected = hash_file(path).read_text(encoding="ascii", errors="replace").split() if has_hash(path) else [actual]
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from None
    if actual not in expected:
        raise Damaged(f"{path.name} does not have the SHA-256 of {hash_file(path).name}")
    return actual


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder so that nothing reads it again; return its new path."""
    number, target = 2, path.with_name(f"_{path.name}.damaged")
    while target.exists():
        target = path.with_name(f"_{path.name}.damaged-{number}")
        number += 1
    path.rename(target)
    hash_file(path).unlink(missing_ok=True)
    return target
