"""Reading what a person wrote: YAML, ``--set``, and one plain sentence for the first thing that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rlx.errors import UserError, did_you_mean

M = TypeVar("M", bound=BaseModel)


def read_spec(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: when the file is missing, empty, not YAML or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no spec file {path}", fix="give the path of a YAML file, or none at all") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"spec file {path} cannot be read ({error})", fix="give the path of a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise UserError(f"spec file {path} is not YAML{line} ({problem})", fix="mend that line") from None
    if not isinstance(content, dict):
        found = "empty" if content is None else f"a {type(content).__name__}"
        raise UserError(f"spec file {path} is {found}", fix="write keys such as 'seed: 1' in it")
    return content


def with_sets(content: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """A copy of ``content`` with every ``a.b=value`` of ``sets`` applied; values are read as YAML."""
    result = _copied(content)
    for item in sets:
        key, equals, text = item.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise UserError(f"--set '{item}' has no key or no '='", fix="write it as --set section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--set {key}: '{text}' is not a YAML value", fix="put quotes around it") from None
        assign(result, key.strip(), value)
    return result


def assign(content: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted ``key`` in nested dictionaries, making sections on the way."""
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        inner = content.setdefault(section, {})
        if inner is None:
            inner = content[section] = {}
        if not isinstance(inner, dict):
            raise UserError(f"key {'.'.join(sections[: depth + 1])} is {inner!r}, not a section", fix="remove it")
        content = inner
    content[last] = value


def validate(content: Mapping[str, Any], model: type[M], prefix: str = "") -> M:
    """``content`` as a ``model``, or one sentence on the first thing that is wrong with it."""
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        raise _sentence(error, model, prefix) from None


def _sentence(error: ValidationError, model: type[BaseModel], prefix: str) -> UserError:
    """The first validation error as key, value, choices and nearest match."""
    first, *others = error.errors()
    path = [str(part) for part in first["loc"] if not str(part).startswith(("function-", "list[", "constrained"))]
    key = ".".join([*([prefix] if prefix else []), *path])
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        choices = _fields(model, path[:-1])
        return UserError(f"unknown key {key}{more}", fix=did_you_mean(path[-1], choices))
    expected = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    shown = repr(first["input"])
    if len(shown) > 80:
        shown = shown[:77] + "..."
    fix = ""
    if first["type"] == "literal_error":
        literals = [part.strip().strip("'") for part in str(first["ctx"]["expected"]).replace(" or ", ", ").split(",")]
        return UserError(f"{key} is {shown}{more}", fix=did_you_mean(str(first["input"]), literals))
    return UserError(f"{key} is {shown}, but it {expected}{more}", fix=fix)


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names of the fields of the section at ``path``."""
    for part in path:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        options = [inner, *getattr(inner, "__args__", ())]
        sections = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if not sections:
            return []
        model = sections[0]
    return sorted(model.model_fields)


def _copied(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in content.items()}
