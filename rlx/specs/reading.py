"""Reading and validating what the user wrote: YAML files, command-line options and ``--set``.

A mistake is reported as one sentence about the first problem.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rlx.credentials import credentials_in
from rlx.errors import UserError
from rlx.specs.mistakes import user_error
from rlx.specs.yaml_limits import MAX_CHARACTERS, DuplicateKey, TooLarge, load_yaml

M = TypeVar("M", bound=BaseModel)
INCLUDE = "include"
"""Key of a spec file, or of the ``base`` of a study: files whose content is merged below the file's own."""
MAX_INCLUDE_DEPTH = 8
"""Number of files that may include each other in a chain."""


def read_spec(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, with the files that it includes.

    ``include`` names one file or a list of files, relative to the including file. Sections are merged; the including
    file's keys replace those of an included file, and a later file's replace an earlier one's. A study may also include
    files in its ``base``.

    Raises:
        UserError: if a file is missing, empty, not YAML or not a mapping, or if files include each other in a circle.
    """
    return _read_with_includes(path, ())


def _read_with_includes(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    """Return the content of ``path``, which is included by the last of the files ``including``, and so on."""
    chain = (*including, path)
    arrows = " -> ".join(str(file) for file in chain)
    if path.resolve() in {file.resolve() for file in including}:
        raise UserError(f"spec file {path} includes itself ({arrows})", fix="remove one of these includes")
    if len(chain) > MAX_INCLUDE_DEPTH:
        raise UserError(f"more than {MAX_INCLUDE_DEPTH} spec files include each other in a chain ({arrows})",
                        fix="include the last of them directly")  # fmt: skip
    content = _read_mapping(path, including[-1] if including else None)
    base = content.get("base")
    if isinstance(base, dict):
        content["base"] = _expand_include(base, f"base.{INCLUDE}", chain)
    return _expand_include(content, INCLUDE, chain)


def _expand_include(content: dict[str, Any], key: str, chain: tuple[Path, ...]) -> dict[str, Any]:
    """Return ``content`` merged over the files that its ``include`` names; ``key`` names it in errors."""
    if INCLUDE not in content:
        return content
    given = content[INCLUDE]
    names = given if isinstance(given, list) else [given]
    if not names or not all(isinstance(name, str) and name for name in names):
        fix = "give the path of a YAML file, relative to this file, or a list of such paths"
        raise UserError(f"spec file {chain[-1]}: {key} is {given!r}", fix=fix)
    result: dict[str, Any] = {}
    for name in names:
        merge(result, _read_with_includes(chain[-1].parent / name, chain))
    merge(result, {name: value for name, value in content.items() if name != INCLUDE})
    return result


def _read_mapping(path: Path, including: Path | None) -> dict[str, Any]:
    """Return the mapping in one YAML file, which the file ``including`` names, if it is not None."""
    try:
        with path.open(encoding="utf-8") as file:
            content = load_yaml(file.read(MAX_CHARACTERS + 1))
    except FileNotFoundError:
        if including:
            fix = f"correct {INCLUDE}: paths are relative to the including file"
            raise UserError(f"there is no spec file {path}, which {including} includes", fix=fix) from None
        raise UserError(f"there is no spec file {path}", fix="give the path of a YAML file, or none at all") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"spec file {path} cannot be read ({error})", fix="give the path of a YAML file") from None
    except TooLarge as error:
        raise UserError(f"spec file {path} {error}", fix="write a smaller spec, without nested aliases") from None
    except yaml.YAMLError as error:
        position = getattr(error, "problem_mark", None)
        line = f" at line {position.line + 1}" if position else ""
        problem = getattr(error, "problem", None) or str(error) or "unreadable"
        if isinstance(error, DuplicateKey):
            raise UserError(f"spec file {path} {problem}", fix="remove one of them") from None
        raise UserError(f"spec file {path} is not YAML{line} ({problem})", fix="correct that line") from None
    if not isinstance(content, dict):
        kind = "empty" if content is None else f"a {type(content).__name__}"
        raise UserError(f"spec file {path} is {kind}, not a mapping", fix="write keys such as 'seed: 1' in it")
    return content


def copy_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested dictionaries; values that are not mappings are shared."""
    return {key: copy_content(value) if isinstance(value, Mapping) else value for key, value in content.items()}


def merge(target: dict[str, Any], other: Mapping[str, Any], replaced: Collection[str] = ()) -> None:
    """Copy ``other`` into ``target``, section by section; values of ``other`` win.

    Args:
        target: is changed.
        other: a spec's content, or part of it.
        replaced: keys of sections of which only those of ``other`` remain.
    """
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict) and key not in replaced:
            merge(target[key], value, replaced)
        else:
            target[key] = copy_content(value) if isinstance(value, Mapping) else value


def apply_options(content: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a spec with command-line options applied.

    Args:
        content: the spec.
        options: dotted keys to values; None means an option that was not given.
    """
    result = copy_content(content)
    for key, value in options.items():
        if value is not None:
            assign(result, key, value)
    return result


def apply_overrides(content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a spec with every ``a.b=value`` of ``--set`` applied; values are parsed as YAML.

    Raises:
        UserError: for an override without a key or ``=``, or with a value that is not YAML.
    """
    result = copy_content(content)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise UserError(f"--set '{override}' has no key or no '='", fix="write it as --set section.key=value")
        try:
            value = load_yaml(text)
        except DuplicateKey as error:
            raise UserError(f"--set {key}: '{text}' {error.problem}", fix="remove one of them") from None
        except TooLarge as error:
            raise UserError(f"--set {key}: the value {error}", fix="write it in a spec file, without aliases") from None
        except yaml.YAMLError:
            raise UserError(f"--set {key}: '{text}' is not a YAML value", fix="put quotes around it") from None
        assign(result, key.strip(), value)
    return result


def assign(content: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted ``key`` in nested dictionaries; missing sections are created. A section is copied."""
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        inner = content.setdefault(section, {})
        if inner is None:
            inner = content[section] = {}
        if not isinstance(inner, dict):
            raise UserError(f"key {'.'.join(sections[: depth + 1])} is {inner!r}, not a section", fix="remove it")
        content = inner
    content[last] = copy_content(value) if isinstance(value, Mapping) else value


def value_at(content: Mapping[str, Any], key: str) -> Any:
    """Return the value at the dotted ``key``; None if it is missing."""
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def refuse_credentials(content: Mapping[str, Any]) -> None:
    """Refuse a spec with a password or token: specs are stored in run folders and shown in reports.

    Raises:
        UserError: naming the key, without its value.
    """
    key = credentials_in(content)
    if key:
        raise UserError(
            f"{key} contains a password or token, which would be stored with the run",
            fix="remove it, and set the environment variable of that service, such as HF_TOKEN",
        )


def validate(content: Mapping[str, Any], model: type[M], prefix: str = "") -> M:
    """Return ``content`` as an instance of ``model``.

    Args:
        content: keys of the model.
        model: the pydantic class.
        prefix: section of the spec that the keys belong to, for the error message.

    Raises:
        UserError: for the first key that is unknown or has a wrong value.
    """
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        raise user_error(error, model, prefix) from None
