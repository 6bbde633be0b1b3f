"""Output of `rlx methods` and of the README's tables: the list of methods, and one method in full."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from rlx.console import table
from rlx.errors import UserError, did_you_mean
from rlx.registry import PACKAGES, Component, declared, names

KINDS = {"policy": "policy losses (rlx train --algo NAME)", "unlearn": "unlearning methods (rlx unlearn --method NAME)"}
PARAMS_KEY = {"policy": "algorithm.params", "unlearn": "method.params"}
"""Spec key of a method's parameters."""
ARXIV = re.compile(r"(?:arXiv )?\b(\d{4}\.\d{5})\b")


def components(kind: str) -> list[Component]:
    """Return all components of a kind, sorted by name."""
    return [declared(kind, name) for name in names(kind)]


def list_methods() -> RenderableType:
    """Return a table of all methods with their papers and what they compute."""
    tables: list[RenderableType] = []
    for kind, title in KINDS.items():
        rows = [[c.name, _first_source(c.paper), _without_backticks(first_line(c))] for c in components(kind)]
        tables += [table(title, ["name", "paper", "computes"], rows, words=True), Text()]
    return Group(*tables, Text("rlx methods NAME shows one in full."))


def show_method(name: str) -> RenderableType:
    """Return one method in full: equation, sources, and parameters with type, bounds, default and meaning.

    Args:
        name: a name, ``name@preset``, or ``path/to/file.py:function``.

    Raises:
        UserError: if there is no such method.
    """
    kinds = {method: kind for kind in reversed(KINDS) for method in names(kind)}
    is_file = ".py" in name
    reference = name if is_file else name.partition("@")[0]
    if not is_file and reference not in kinds:
        raise UserError(f"'{name}' is not a known method", fix=did_you_mean(name, sorted(kinds)))
    kind = "policy" if is_file else kinds[reference]
    component = declared(kind, reference)
    title = f"parameters (--set {PARAMS_KEY[kind]}.NAME=VALUE)"
    parameters = table(title, ["name", "type", "default", "meaning"], _parameter_rows(component), words=True)
    doc = _without_backticks(inspect.getdoc(component.fn) or "")
    metadata = "\n".join(_metadata_lines(component))
    head = [Text(component.name, style="bold"), Text(), Text(doc), Text(), Text(metadata), Text()]
    return Group(*head, parameters if parameters.rows else Text("no parameters"))


def markdown_table(kind: str) -> str:
    """Return the README's table of one kind: name and file, what it computes, paper, parameters with defaults."""
    lines = ["| method | computes | paper | parameters |", "|---|---|---|---|"]
    folder = PACKAGES[kind].replace(".", "/")
    for c in components(kind):
        paper = ARXIV.sub(r"[\1](https://arxiv.org/abs/\1)", c.paper)
        params = ", ".join(f"{name} {_format_value(field.default)}" for name, field in c.hyper.model_fields.items())
        computes = first_line(c).replace("|", "\\|")
        lines.append(f"| [{c.name}]({folder}/{c.name}.py) | {computes} | {paper} | {params or 'none'} |")
    return "\n".join(lines)


def first_line(component: Component) -> str:
    """Return the first paragraph of a method's docstring as one line, without the paper, which has its own column."""
    paragraph = (inspect.getdoc(component.fn) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).replace(f" ({_first_source(component.paper)})", "")


def _without_backticks(text: str) -> str:
    return text.replace("``", "")


def _parameter_rows(component: Component) -> list[list[str]]:
    """Return name, type, default and meaning of each parameter."""
    properties = component.hyper.model_json_schema().get("properties", {})
    fields = component.hyper.model_fields
    return [
        [name, _type(schema), _format_value(fields[name].default), _without_backticks(schema.get("description", ""))]
        for name, schema in properties.items()
    ]


def _type(schema: dict[str, Any]) -> str:
    """Return the type in a JSON schema with its bounds: ``number > 0``, ``one of a, b``, ``number > 1 or null``."""
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([str(schema.get("type", "any")), " and ".join(bounds)]).strip()


def _metadata_lines(component: Component) -> list[str]:
    """Return one line for each fact about a component that its docstring does not contain."""
    links = [f"https://arxiv.org/abs/{number}" for number in ARXIV.findall(component.paper)]
    words = "" if ARXIV.fullmatch(component.paper) else component.paper
    inputs = component.needed(component.hyper()) if component.kind == "policy" else component.needs
    needs = sorted(inputs | ({"whole batch"} if component.whole_batch else set()))
    recipe = {key: value for key, value in component.recipe.items() if key not in component.requires}
    lines = [
        ("paper", "  ".join(filter(None, [words, *links])) or "none"),
        ("official", component.official or "none"),
        ("needs", ", ".join(needs)),
        ("requires", _format_pairs(component.requires)),
        ("recipe", _format_pairs(recipe)),
        *(
            ("preset", f"{component.name}@{name}: {_format_pairs(values) or 'the defaults'}")
            for name, values in component.presets.items()
        ),
    ]
    return [f"{name:10} {text}" for name, text in lines if text]


def _first_source(paper: str) -> str:
    """Return the first arXiv number in a component's ``paper``, or its text up to the first semicolon."""
    match = ARXIV.search(paper)
    return f"arXiv {match[1]}" if match else paper.partition(";")[0] or "none"


def _format_pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_format_value(value)}" for key, value in values.items())


def _format_value(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
