"""A validation error as one sentence: the key, its value, what is allowed, and the nearest key."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rlx.errors import UserError, did_you_mean
from rlx.specs.sentences import WHOLE_SENTENCES, requirement

MAX_VALUE_LENGTH = 80
"""Characters of a wrong value that an error message shows."""
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
MISSING = ("missing", "missing_argument", "missing_keyword_only_argument", "missing_positional_only_argument")


def user_error(error: ValidationError, model: type[BaseModel], prefix: str) -> UserError:
    """Return the first problem of a validation error as one sentence.

    Args:
        error: pydantic's.
        model: the class that the content was validated against.
        prefix: section of the spec that the content belongs to.
    """
    problems: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for problem in error.errors():
        problems.setdefault(key_path(model, problem["loc"]), []).append(problem)
    path, first = next(iter(problems.items()))
    key = ".".join([*([prefix] if prefix else []), *path]) or "the spec"
    others = [".".join([*([prefix] if prefix else []), *other]) for other in problems if other != path]
    more = f" (and {len(others)} more: {', '.join(others[:3])})" if others else ""
    kind = str(first[0]["type"])
    if kind in UNKNOWN:
        return UserError(f"unknown key {key}{more}", fix=_fix_of_unknown(path, model))
    if kind in MISSING:
        field = field_at(model, path)
        meaning = f" ({_one_line(field.description)})" if field is not None and field.description else ""
        return UserError(f"{key} is missing{more}", fix=f"add it{meaning}")
    return _wrong_value(key, first, field_at(model, path), more)


def _wrong_value(key: str, errors: Sequence[Mapping[str, Any]], field: FieldInfo | None, more: str) -> UserError:
    first = errors[0]
    value = _as_yaml(first["input"])
    if isinstance(first["input"], BaseModel) or (isinstance(first["input"], dict) and len(value) > MAX_VALUE_LENGTH):
        value = "a mapping"
    if len(value) > MAX_VALUE_LENGTH:
        value = value[: MAX_VALUE_LENGTH - 3] + "..."
    kind, context = str(first["type"]), first.get("ctx") or {}
    if kind in WHOLE_SENTENCES:
        text = WHOLE_SENTENCES[kind].format_map({"key": key, "value": value, "error": "wrong", **context})
        return UserError(f"{text}{more}")
    choices = [choice for error in errors for choice in _choices(error)]
    default = _default(field)
    if choices and all(_choices(error) for error in errors):
        return UserError(f"{key} is {value}{more}", fix=did_you_mean(str(first["input"]), choices))
    requirements = list(dict.fromkeys(_requirement(error, field) for error in errors))
    return UserError(f"{key} is {value}, but it must be {' or '.join(requirements)}{more}", fix=default)


def _requirement(error: Mapping[str, Any], field: FieldInfo | None) -> str:
    kind = str(error["type"])
    if kind in ("model_type", "model_attributes_type"):
        section = next(iter(_models(field.annotation)), None) if field is not None else None
        if section is not None:
            return f"a section with keys such as {', '.join(sorted(field_names(section))[:5])}"
    if choices := _choices(error):
        return ", ".join(f"'{choice}'" for choice in choices)
    return requirement(kind, error.get("ctx") or {}) or str(error["msg"])


def _choices(error: Mapping[str, Any]) -> list[str]:
    """The choices of an error about a value that is not one of them."""
    if error["type"] not in ("literal_error", "enum"):
        return []
    expected = str((error.get("ctx") or {}).get("expected", "")).replace(" or ", ", ")
    return [part.strip().strip("'") for part in expected.split(",")]


def _default(field: FieldInfo | None) -> str:
    """The default of a key as a sentence; empty if it has none that can be shown in a line."""
    if field is None or field.is_required() or field.default_factory is not None:
        return ""
    if isinstance(field.default, (BaseModel, dict, list)):
        return ""
    return f"its default is {_as_yaml(field.default, quotes=False)}"


def _as_yaml(value: Any, quotes: bool = True) -> str:
    """A value as users write it: ``null``, ``true``, ``[0.9, 0.999]``; text in quotes."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_as_yaml(item) for item in value)}]"
    return repr(value) if quotes or not isinstance(value, str) else value


def _fix_of_unknown(path: Sequence[str], model: type[BaseModel]) -> str:
    """What to do about an unknown key: the command that has it, the section that has it, or the nearest key."""
    for command, spec in _commands().items():
        if spec is not model and model in _commands().values() and field_at(spec, path) is not None:
            return f"it is a key of rlx {command}: give this spec to rlx {command}, or remove the key"
    last = path[-1]
    siblings = field_names(section_at(model, path[:-1]))
    if not difflib.get_close_matches(last, siblings, n=1):
        other_sections = [key for key in dotted_keys(model) if key.rpartition(".")[2] == last]
        if other_sections:
            return f"did you mean '{other_sections[0]}'? choices: {', '.join(siblings) or 'none'}"
    return did_you_mean(last, siblings)


def _commands() -> dict[str, type[BaseModel]]:
    """The specs by the command that reads them."""
    from rlx.specs.evaluate import EvalSpec
    from rlx.specs.train import Spec
    from rlx.specs.unlearn import UnlearnSpec

    return {"train": Spec, "unlearn": UnlearnSpec, "eval": EvalSpec}


def key_path(model: type[BaseModel], location: Sequence[int | str]) -> tuple[str, ...]:
    """The location of an error as the keys that the user wrote, without pydantic's names of a union's members."""
    path: list[str] = []
    annotation: Any = model
    for part in location:
        section = next((one for one in _models(annotation) if str(part) in field_names(one)), None)
        if section is not None:
            path.append(str(part))
            annotation = _field(section, str(part)).annotation
        elif isinstance(part, int) or not _is_union(annotation):
            path.append(str(part))
            annotation = next((one for one in get_args(annotation) if _models(one)), annotation)
            annotation = annotation if isinstance(part, int) or _models(annotation) else None
        elif part == location[-1] and _models(annotation) and not _is_member(part, annotation):
            path.append(str(part))
    return tuple(path)


def _is_member(part: int | str, annotation: Any) -> bool:
    """Whether a part of a location names a member of a union."""
    names = {getattr(member, "__name__", str(member)) for member in get_args(annotation)}
    return str(part) in names or "[" in str(part) or "-" in str(part)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections among an annotation and its arguments."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for member in get_args(annotation) for model in _models(member)]


def field_names(model: type[BaseModel] | None) -> list[str]:
    """The keys of a section as users write them, sorted."""
    if model is None:
        return []
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _field(model: type[BaseModel], name: str) -> FieldInfo:
    return next(field for own, field in model.model_fields.items() if name in (field.alias or own, own))


def field_at(model: type[BaseModel], path: Sequence[str]) -> FieldInfo | None:
    """The field of a dotted key, or None."""
    *sections, last = path or [""]
    section = section_at(model, sections)
    return _field(section, last) if section is not None and last in field_names(section) else None


def section_at(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel] | None:
    """The section at a path, in which indices of lists are skipped; None if there is none."""
    for part in path:
        if part.isdigit():
            continue
        if part not in field_names(model):
            return None
        models = _models(_field(model, part).annotation)
        if not models:
            return None
        model = models[0]
    return model


def dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All keys of a spec and of its sections."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        for section in _models(field.annotation):
            if not _is_list(field.annotation):
                yield from dotted_keys(section, f"{key}.")


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "").split()).rstrip(".")
