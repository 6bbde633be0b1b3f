"""Reading and validating what the user wrote: YAML files, command-line options and ``--set``.

A mistake is reported as one sentence about the first problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from rlx.errors import UserError
from rlx.specs.mistakes import user_error

M = TypeVar("M", bound=BaseModel)


class _DuplicateKey(yaml.constructor.ConstructorError):
    """A key that a mapping has twice."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which keeps the last of repeated keys, with an error for them."""

    def construct_yaml_map(self, node: yaml.MappingNode) -> Any:
        """Construct a mapping; its keys are compared before ``<<`` merges an anchor's keys, which they may replace."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            is_merge = key_node.tag == "tag:yaml.org,2002:merge"
            key = "<<" if is_merge else self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                problem = f"has the key '{key_node.value}' at line {lines[key]} and again at line {line}"
                raise _DuplicateKey(None, None, problem, key_node.start_mark)
            lines[key] = line
        yield from super().construct_yaml_map(node)


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:map", _UniqueKeyLoader.construct_yaml_map)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_UniqueKeyLoader)


def read_spec(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: if the file is missing, empty, not YAML or not a mapping.
    """
    try:
        content = _load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no spec file {path}", fix="give the path of a YAML file, or none at all") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"spec file {path} cannot be read ({error})", fix="give the path of a YAML file") from None
    except yaml.YAMLError as error:
        position = getattr(error, "problem_mark", None)
        line = f" at line {position.line + 1}" if position else ""
        problem = getattr(error, "problem", None) or "unreadable"
        if isinstance(error, _DuplicateKey):
            raise UserError(f"spec file {path} {problem}", fix="remove one of them") from None
        raise UserError(f"spec file {path} is not YAML{line} ({problem})", fix="correct that line") from None
    if not isinstance(content, dict):
        kind = "empty" if content is None else f"a {type(content).__name__}"
        raise UserError(f"spec file {path} is {kind}, not a mapping", fix="write keys such as 'seed: 1' in it")
    return content


def copy_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested dictionaries; values that are not mappings are shared."""
    return {key: copy_content(value) if isinstance(value, Mapping) else value for key, value in content.items()}


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
            value = _load(text)
        except _DuplicateKey as error:
            raise UserError(f"--set {key}: '{text}' {error.problem}", fix="remove one of them") from None
        except yaml.YAMLError:
            raise UserError(f"--set {key}: '{text}' is not a YAML value", fix="put quotes around it") from None
        assign(result, key.strip(), value)
    return result


def assign(content: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted ``key`` in nested dictionaries; missing sections are created."""
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
